from pairs import scan_numba, scan_numpy

from twinkernels.bench import case, twins

scan = twins(numpy=scan_numpy, numba=scan_numba, takes="nan inf empty one views")


@case(scan, "long")
def long(draw):
    return {"x": draw.normal(100_000)}
