"""Numbers of fewer bits than those they are kept in."""

from __future__ import annotations

from .compiler.jit import disjoint, kernel, prange
from .tiles.chunks import chunk, chunks, elementwise
from .tiles.elementary import bfloat16

__all__ = ["round_to_bfloat16"]


@disjoint
def round_all(x, y):
    """y = x, each element rounded."""
    for i in range(x.size):
        y[i] = bfloat16(x[i])


@elementwise
@kernel
def round_to_bfloat16(x, y):
    for c in prange(chunks(x)):
        round_all(chunk(x, c), chunk(y, c))
