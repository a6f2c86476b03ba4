from pairs import pairwise_numba, pairwise_numpy

from twinkernels.bench import case, twins

pairwise = twins(numpy=pairwise_numpy, numba=pairwise_numba, takes="one empty readonly")


@case(pairwise, "space", flops=lambda points: 3 * len(points) * points.size)
def space(draw):
    return {"points": draw.normal(300, 3)}
