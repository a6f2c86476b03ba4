from pairs import jacobi_numba, jacobi_numpy

from twinkernels.bench import case, twins

jacobi = twins(numpy=jacobi_numpy, numba=jacobi_numba, in_place="a b")


@case(jacobi, "stencil", dtypes="float64", flops=lambda steps, a, b: 10 * steps * a.size)
def stencil(draw):
    return {"steps": 10, "a": draw.uniform(200, 200), "b": draw.uniform(200, 200)}
