from pairs import mlp_numba, mlp_numpy

from twinkernels.bench import case, twins

mlp = twins(numpy=mlp_numpy, numba=mlp_numba, same_bits=False)  # its products are BLAS's, whose threads share them out


@case(mlp, "small", flops=lambda x, w1, b1, w2, b2: 2 * len(x) * (w1.size + w2.size))
def small(draw):
    x, w1, w2 = draw.normal(64, 256), draw.normal(256, 128, std=0.1), draw.normal(128, 10, std=0.1)
    return {"x": x, "w1": w1, "b1": draw.normal(128), "w2": w2, "b2": draw.normal(10)}
