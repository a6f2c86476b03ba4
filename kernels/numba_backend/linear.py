"""Linear layers: three matrix products. Formulas and shapes: `kernels.interface`."""

from kernels.numba_backend.contract import matmul, matmul_scratch
from kernels.numba_backend.jit import kernel
from kernels.shapes import LinearDims


def linear_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear` needs."""
    return matmul_scratch(d.k, d.m)


def linear_backward_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear_backward` needs."""
    return max(matmul_scratch(d.m, d.k), matmul_scratch(n, d.m))


@kernel(optional={"b": 1})
def linear(x, w, b, d, scratch, y):
    """y = x w + b."""
    n, k, m = x.shape[0], d.k, d.m
    none = scratch[:0]
    matmul(x, k, 1, n, w, m, 1, k, m, b, False, none, scratch, y)


@kernel(optional={"dx": 2, "db": 1})
def linear_backward(dy, x, w, d, scratch, dx, dw, db):
    """dx = dy w^T, dw = x^T dy, db = the sum of dy over the samples."""
    n, k, m = x.shape[0], d.k, d.m
    none = scratch[:0]
    if dx.size:
        matmul(dy, m, 1, n, w, 1, m, m, k, none, False, none, scratch, dx)
    matmul(x, 1, k, k, dy, m, 1, n, m, none, False, db, scratch, dw)
