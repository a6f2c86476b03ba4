"""Linear layers: three matrix products. Formulas and shapes: `kernels.interface`."""

from ..shapes import LinearDims
from .compiler.jit import inline, kernel
from .tiles.gemm import few, matmul, matmul_scratch, row_major, transposed

__all__ = ["linear", "linear_backward", "linear_backward_scratch", "linear_scratch"]


def linear_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear` needs."""
    return matmul_scratch(d.k, d.m)


def linear_backward_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear_backward` needs."""
    return max(matmul_scratch(d.m, d.k), matmul_scratch(n, d.m))


@kernel(optional={"b": 1}, small=lambda x, w: few(len(x) * w.size, w.size))
def linear(x, w, b, d, scratch, y):
    """y = x w + b."""
    n, none = x.shape[0], scratch[:0]
    matmul(x, row_major(n, d.k), w, row_major(d.k, d.m), b, False, none, scratch, y)


@inline
def linear_gradients(dy, x, w, d, scratch, dx, dw, db):
    """dx = dy w^T, dw = x^T dy, db = the sum of dy over the samples."""
    n, none = x.shape[0], scratch[:0]
    if dx.size:
        matmul(dy, row_major(n, d.m), w, transposed(row_major(d.k, d.m)), none, False, none, scratch, dx)
    matmul(x, transposed(row_major(n, d.k)), dy, row_major(n, d.m), none, False, db, scratch, dw)


@kernel(optional={"dx": 2, "db": 1}, small=lambda dy, x, w: few(2 * len(x) * w.size, w.size))
def linear_backward(dy, x, w, d, scratch, dx, dw, db):
    linear_gradients(dy, x, w, d, scratch, dx, dw, db)
