from pairs import softmax_numba, softmax_numpy

from twinkernels.bench import case, twins

softmax = twins(numpy=softmax_numpy, numba=softmax_numba)


@case(softmax, "attention")
def attention(draw):
    return {"x": draw.normal(8, 8, 64, 64)}
