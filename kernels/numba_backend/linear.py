"""Linear layers: three matrix products. Formulas and shapes: `kernels.interface`."""

from ..shapes import LinearDims
from .compiler.jit import kernel, region
from .tiles.gemm import few, matmul, matmul_scratch

__all__ = ["linear", "linear_backward", "linear_backward_scratch", "linear_scratch"]


def linear_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear` needs."""
    return matmul_scratch(d.k, d.m)


def linear_backward_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear_backward` needs."""
    return max(matmul_scratch(d.m, d.k), matmul_scratch(n, d.m))


@kernel(optional={"b": 1}, small=lambda x, w, *_: few(len(x) * w.size, w.size))
def linear(x, w, b, d, scratch, y):
    """y = x w + b."""
    n, k, m = x.shape[0], d.k, d.m
    none = scratch[:0]
    matmul(x, k, 1, n, w, m, 1, k, m, b, False, none, scratch, y)


@region
def linear_gradients(dy, x, w, d, scratch, dx, dw, db):
    """dx = dy w^T, dw = x^T dy, db = the sum of dy over the samples."""
    n, k, m = x.shape[0], d.k, d.m
    none = scratch[:0]
    if dx.size:
        matmul(dy, m, 1, n, w, 1, m, m, k, none, False, none, scratch, dx)
    matmul(x, 1, k, k, dy, m, 1, n, m, none, False, db, scratch, dw)


@kernel(optional={"dx": 2, "db": 1}, small=lambda dy, x, w, *_: few(2 * len(x) * w.size, w.size))
def linear_backward(dy, x, w, d, scratch, dx, dw, db):
    linear_gradients(dy, x, w, d, scratch, dx, dw, db)
