"""Products of bfloat16 numbers in pairs. What each kernel computes: `kernels.interface.Fused`.

A pair takes the place of one float32, so that a product of pairs is one of half as many rows: with the tiles, panels
and loops of float32, and another `tile_fma`.
"""

from __future__ import annotations

import numpy as np
from numpy import int64

from ..shapes import LinearDims
from .compiler.jit import Flat, disjoint, kernel, prange, separate
from .tiles.chunks import share
from .tiles.elementary import bfloat16_pair
from .tiles.gemm import Epilogue, Loop, Nest, few, panel_count, panel_size, panel_width, product
from .tiles.places import Panel, Rows
from .tiles.tile import MULTIPLIES_BFLOAT16, REGISTERS, TileShape, flat, lanes, nothing, tile_rows

__all__: list[str] = []
if MULTIPLIES_BFLOAT16:
    # Elsewhere two multiply-adds and four operations on bits take the instruction's place: slower than float32's.
    __all__ += ["linear_fold_bfloat16", "linear_folded_bfloat16", "linear_folded_bfloat16_scratch"]

_ROWS = 8 if REGISTERS == 32 else 4  # of 16 registers some hold halves of pairs
_FULL, _ONE = TileShape(_ROWS, 2, _ROWS, pairs=True), TileShape(1, 2, 1, pairs=True)
_ITEMS = 32  # shares of the rows


def pairs_of(k: int) -> int:
    """Pairs that hold k numbers."""
    return (k + 1) // 2


def always() -> bool:
    """These are rare."""
    return True


@kernel(optional={"b": 1}, small=always)
def linear_fold_bfloat16(w, b, d, packed, bias):
    vector, pairs, zero = lanes(w), (d.k + 1) // 2, np.float32(0)
    for m in range(d.m):
        bias[m] = b[m] if b.size else zero
    for p in range(panel_count(d.m, vector)):
        column, start = p * 2 * vector, p * panel_size(pairs, vector)
        width = panel_width(column, d.m, vector)
        for r in range(pairs):
            for i in range(width):
                first = w[2 * r, column + i] if column + i < d.m else zero
                second = w[2 * r + 1, column + i] if column + i < d.m and 2 * r + 1 < d.k else zero
                packed[start + r * width + i] = bfloat16_pair(first, second)


@disjoint
def pair_row(x, y):
    """y = the pairs of x, a zero behind it where it has an odd number of elements."""
    for j in range(x.size // 2):
        y[j] = bfloat16_pair(x[2 * j], x[2 * j + 1])
    if x.size % 2 == 1:
        y[x.size // 2] = bfloat16_pair(x[x.size - 1], np.float32(0))


@separate
def multiply_pairs(
    x: Flat, low: int, high: int, pairs: int, packed: Flat, bias: Flat, relu: bool, columns: int, y: Flat
) -> None:
    """Rows `low` to `high` of y = x packed + bias, or 0 where that is negative, if `relu`.

    Rows left over are covered by a tile shifted back over rows already done, as in `rows_times_panel`.
    """
    vector, once, count = lanes(y), Loop(1, 0, 0), high - low
    rows = Rows(x, low * pairs, pairs)
    for p in range(panel_count(columns, vector)):
        column = p * 2 * vector
        width = panel_width(column, columns, vector)
        panel, nest = Panel(packed, p * panel_size(pairs, vector), width), Nest(once, once, Loop(pairs, 1, width))
        epilogue = Epilogue(bias, column, columns - column, relu, False, nothing(bias))
        to, r = Rows(y, low * columns + column, columns), 0
        while r < count:
            if count >= tile_rows(_FULL):
                r = min(r, count - tile_rows(_FULL))
                product(_FULL, r, rows, panel, nest, epilogue, to)
                r += tile_rows(_FULL)
            else:
                product(_ONE, r, rows, panel, nest, epilogue, to)
                r += 1


def linear_folded_bfloat16_scratch(d: LinearDims, n: int) -> int:
    """The rows in pairs."""
    return n * pairs_of(d.k)


@kernel(small=lambda x, packed: few(len(x) * packed.size // 2, packed.size // 2))
def linear_folded_bfloat16(x, packed, bias, relu, d, scratch, y):
    n, pairs, unit = x.shape[0], (d.k + 1) // 2, int64(tile_rows(_FULL))
    units = -(-n // unit)
    items = min(units, _ITEMS)
    for item in prange(items):
        first, end = share(units, item, items)
        low, high = first * unit, min(end * unit, n)
        for row in range(low, high):
            pair_row(x[row], scratch[row * pairs : (row + 1) * pairs])
        multiply_pairs(flat(scratch), low, high, pairs, flat(packed), flat(bias), relu, d.m, flat(y))
