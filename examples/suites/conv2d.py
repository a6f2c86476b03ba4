from pairs import conv2d_numba, conv2d_numpy

from twinkernels.bench import case, twins

conv2d = twins(numpy=conv2d_numpy, numba=conv2d_numba)


@case(conv2d, "bias", flops=lambda x, w, b: 2 * len(x) * 26 * 26 * w.size)
def bias(draw):
    return {"x": draw.normal(4, 28, 28, 8), "w": draw.normal(3, 3, 8, 16), "b": draw.normal(16)}
