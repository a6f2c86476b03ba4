"""Linear layers: three matrix products. Formulas and shapes: `kernels.interface`."""

from ..shapes import LinearDims
from .compiler.jit import inline, kernel
from .tiles.gemm import few, matmul, matmul_scratch, row_major, transposed
from .tiles.tile import LANES, flat

__all__ = ["linear", "linear_backward", "linear_backward_scratch", "linear_scratch"]


def few_rows(n: int, shape: tuple[int, int]) -> bool:
    """Whether a product of so many rows with weights of this shape is faster without threads; columns take as long as
    the vectors that they fill."""
    k, m = shape
    return few(n * k * -(-m // LANES[0]) * LANES[0], k * m)


def linear_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear` needs."""
    return matmul_scratch(row_major(n, d.k), row_major(d.k, d.m))


def linear_backward_scratch(d: LinearDims, n: int) -> int:
    """Elements of scratch that `linear_backward` needs."""
    into_x = matmul_scratch(row_major(n, d.m), transposed(row_major(d.k, d.m)))
    return max(into_x, matmul_scratch(transposed(row_major(n, d.k)), row_major(n, d.m)))


@kernel(optional={"b": 1}, small=lambda x, w: few_rows(len(x), w.shape))
def linear(x, w, b, d, scratch, y):
    """y = x w + b."""
    left, right, none = row_major(x.shape[0], d.k), row_major(d.k, d.m), flat(scratch[:0])
    matmul(flat(x), left, flat(w), right, flat(b), False, none, flat(scratch), flat(y))


@inline
def linear_gradients(dy, x, w, d, scratch, dx, dw, db):
    """dx = dy w^T, dw = x^T dy, db = the sum of dy over the samples."""
    left, right, none = row_major(x.shape[0], d.k), row_major(x.shape[0], d.m), flat(scratch[:0])
    if dx.size:
        weights = transposed(row_major(d.k, d.m))
        matmul(flat(dy), right, flat(w), weights, none, False, none, flat(scratch), flat(dx))
    matmul(flat(x), transposed(left), flat(dy), right, none, False, flat(db), flat(scratch), flat(dw))


@kernel(optional={"dx": 2, "db": 1}, small=lambda x, w: few_rows(2 * len(x), w.shape))
def linear_backward(dy, x, w, d, scratch, dx, dw, db):
    linear_gradients(dy, x, w, d, scratch, dx, dw, db)
