from pairs import histogram_numba, histogram_numpy

from twinkernels.bench import case, twins

histogram = twins(numpy=histogram_numpy, numba=histogram_numba)


@case(histogram, "bytes")
def bytes_(draw):
    return {"values": draw.labels(200_000, 256), "bins": 256}
