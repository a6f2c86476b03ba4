"""The loop nest that every contraction shares, and the matrix product made of it.

A contraction multiplies rows of `a` with a panel of `b`: one or two vectors of neighbouring columns, packed so that
the innermost loop reads them in one stream. `rows_times_panel` covers any number of rows with tiles of three heights;
`matmul` is all of the linear kernels.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import int64

from ..compiler.jit import Flat, inline, prange, separate
from .places import Panel, Rows
from .tile import (
    LANES,
    REGISTERS,
    TileShape,
    flat,
    given,
    lanes,
    tile_add,
    tile_fma,
    tile_load,
    tile_load_partial,
    tile_load_transposed,
    tile_rows,
    tile_store,
    tile_store_partial,
    tile_sum,
    tile_vectors,
    tile_where_positive,
    tile_zeros,
)

_SMALL = 1 << 20


def few(macs: int, weights: int) -> bool:
    """Whether a contraction is faster without threads: some 10 µs of work, of which reading a weight is eight parts and
    a multiply-add one. A parallel region costs some µs, and far more when its threads have fallen asleep."""
    return macs + 8 * weights < _SMALL


# 16 accumulators hide the latency of the multiply-adds, and 8 rows divide the usual batch sizes; 12 in 16 registers.
_ROWS = 8 if REGISTERS == 32 else 6
NARROW = TileShape(2 * _ROWS, 1, 2 * _ROWS)  # for a panel of one vector; the others are for two
SHORT = TileShape(2 * _ROWS - 4, 1, 2 * _ROWS - 4)
FULL, HALF, ONE = TileShape(_ROWS, 2, _ROWS), TileShape(_ROWS // 2, 2, _ROWS // 2), TileShape(1, 2, 1)
_VECTOR = TileShape(1, 1, 1)


class Loop(NamedTuple):
    """One loop of a `Nest`: how many rounds, and how far each goes on in `a` and in `b`."""

    rounds: int
    a: int
    b: int


class Nest(NamedTuple):
    """The three loops of a contraction, the innermost last."""

    outer: Loop
    inner: Loop
    run: Loop


class Epilogue(NamedTuple):
    """What becomes of a panel's sums: bias[column:] is added, unless `bias` is empty, then `relu` puts 0 for what is
    negative, and the first `columns` columns are stored."""

    bias: Flat
    column: int
    columns: int
    relu: bool


@inline
def contract(tile, first, a, group, b, nest):
    """tile[r, :] += the sum over the nest's rounds o, i and k of
    a[(first + r) a.apart + o outer.a + i inner.a + k run.a] * b[o outer.b + i inner.b + k run.b + (0, 1, ...)].

    With a tile's shape in groups of rows, groups are `group` apart.
    """
    outer, inner, run = nest.outer, nest.inner, nest.run
    start = a.start + first * a.apart
    for o in range(outer.rounds):
        for i in range(inner.rounds):
            at = start + o * outer.a + i * inner.a
            bt = b.start + o * outer.b + i * inner.b
            for k in range(run.rounds):
                tile = tile_fma(tile, a.memory, at + k * run.a, a.apart, group, b.memory, bt + k * run.b)
    return tile


@inline
def product(shape, r, a, b, nest, epilogue, y):
    """One tile, of the rows from r on: y[r, :] = the `Epilogue` of `contract`."""
    if given(epilogue.bias):
        tile = tile_load_partial(shape, epilogue.bias, epilogue.column, 0, epilogue.columns)
    else:
        tile = tile_zeros(shape, y.memory)
    tile = contract(tile, r, a, 0, b, nest)
    if epilogue.relu:
        tile = tile_where_positive(tile, tile)
    to = y.start + r * y.apart
    if epilogue.columns >= tile_vectors(shape) * lanes(y.memory):
        tile_store(tile, y.memory, to, y.apart)
    else:
        tile_store_partial(tile, y.memory, to, y.apart, epilogue.columns)


@inline
def rows_times_panel(count, a, b, nest, epilogue, y):
    """`product` for r < count.

    Rows left over are covered by a tile shifted back over rows already done: they come out the same again. A few rows
    of a narrow panel take a wide tile, whose second vector computes what nobody stores.
    """
    r = 0
    while r < count:
        left = count - r
        if b.width == lanes(y.memory) and left > tile_rows(FULL) and count >= tile_rows(NARROW):
            r = min(r, count - tile_rows(NARROW))
            product(NARROW, r, a, b, nest, epilogue, y)
            r += tile_rows(NARROW)
        elif left > tile_rows(HALF) and count >= tile_rows(FULL):
            r = min(r, count - tile_rows(FULL))
            product(FULL, r, a, b, nest, epilogue, y)
            r += tile_rows(FULL)
        elif count >= tile_rows(HALF):
            r = min(r, count - tile_rows(HALF))
            product(HALF, r, a, b, nest, epilogue, y)
            r += tile_rows(HALF)
        else:
            product(ONE, r, a, b, nest, epilogue, y)
            r += 1


@inline
def neighbours(shape, r, a, b, outer, run, epilogue, y):
    """`product` of rows that lie side by side, for a panel of one vector: y[r, :] = the `Epilogue` of the sum over
    o < outer and k < run of a[o a.apart + r + k] * b[o run + k, :].

    Distances that the compiler knows need no registers for addresses: with a literal `run` as well this reaches 98 % of
    the peak, where `product` reaches 72 %.
    """
    if given(epilogue.bias):
        tile = tile_load_partial(shape, epilogue.bias, epilogue.column, 0, epilogue.columns)
    else:
        tile = tile_zeros(shape, y.memory)
    for o in range(outer):
        for k in range(run):
            at, bt = a.start + r + o * a.apart + k, b.start + (o * run + k) * lanes(y.memory)
            tile = tile_fma(tile, a.memory, at, 1, 0, b.memory, bt)
    if epilogue.relu:
        tile = tile_where_positive(tile, tile)
    to = y.start + r * y.apart
    if epilogue.columns >= lanes(y.memory):
        tile_store(tile, y.memory, to, y.apart)
    else:
        tile_store_partial(tile, y.memory, to, y.apart, epilogue.columns)


@inline
def rows_side_by_side(count, a, b, outer, run, epilogue, y):
    """`neighbours` for r < count, at least SHORT's number of rows."""
    r = 0
    while r < count:
        if count >= tile_rows(NARROW) and count % tile_rows(SHORT) != 0 and count - r > tile_rows(SHORT):
            r = min(r, count - tile_rows(NARROW))
            neighbours(NARROW, r, a, b, outer, run, epilogue, y)
            r += tile_rows(NARROW)
        else:
            r = min(r, count - tile_rows(SHORT))
            neighbours(SHORT, r, a, b, outer, run, epilogue, y)
            r += tile_rows(SHORT)


@separate
def pack_rows(b: Rows, rows: int, columns: int, out: Panel) -> None:
    """out[r, i] = b[r, i] for r < rows and i < columns, zeros up to the panel's width."""
    n = lanes(b.memory)
    for r in range(rows):
        for i in range(0, out.width, n):
            at = b.start + r * b.apart + i
            if columns - i >= n:
                tile = tile_load(_VECTOR, b.memory, at, 0)
            else:
                tile = tile_load_partial(_VECTOR, b.memory, at, 0, max(columns - i, 0))
            tile_store(tile, out.memory, out.start + r * out.width + i, 0)


@separate
def pack_columns(b: Rows, rows: int, columns: int, out: Panel) -> None:
    """out[r, i] = b[i, r] for r < rows and i < columns, zeros up to the panel's width: `pack_rows` of the transpose.

    Writes up to a vector's length of rows too many.
    """
    n = lanes(b.memory)
    for i in range(0, out.width, n):
        for r in range(0, rows, n):
            tile = tile_load_transposed(b.memory, b.start + i * b.apart + r, b.apart, columns - i, rows - r)
            tile_store(tile, out.memory, out.start + r * out.width + i, out.width)


@inline
def panel_width(column, columns, vector):
    """Elements in a row of the panel at `column`: two vectors, or one where that holds the rest of the columns."""
    return vector if columns - column <= vector else 2 * vector


@inline
def panel_count(columns, vector):
    """Panels that hold so many columns."""
    return -(-columns // (2 * vector))


@inline
def panel_size(rows, vector):
    """Elements of scratch for a panel of so many rows; `pack_columns` overshoots by less than a vector of rows."""
    return (rows + vector) * 2 * vector


@inline
def sum_rows(a, count, columns, sums, so):
    """sums[so + i] = the sum over r < count of a[r, i], for i < columns of at most two vectors."""
    tile = tile_zeros(FULL, a.memory)
    step = tile_rows(FULL)
    together = count // step * step
    for r in range(0, together, step):
        tile = tile_add(tile, tile_load_partial(FULL, a.memory, a.start + r * a.apart, a.apart, columns))
    total = tile_sum(tile)
    for r in range(together, count):
        total = tile_add(total, tile_load_partial(ONE, a.memory, a.start + r * a.apart, a.apart, columns))
    tile_store_partial(total, sums, so, 0, columns)


# --- The matrix product ---------------------------------------------------------------------------------------------


class MatrixLayout(NamedTuple):
    """How a matrix fills its array: neighbours in a column are `down` apart, in a row `across`; one of the two is 1."""

    rows: int
    columns: int
    down: int
    across: int


@inline
def row_major(rows, columns):
    """The layout of a matrix whose rows lie one after the other."""
    return MatrixLayout(rows, columns, columns, int64(1))


@inline
def transposed(matrix):
    """The layout of the transpose, in the same memory."""
    return MatrixLayout(matrix.columns, matrix.rows, matrix.across, matrix.down)


@separate
def pack_panel(b: Flat, matrix: MatrixLayout, column: int, sums: Flat, out: Panel) -> None:
    """Pack the columns of b from `column` on that fill a panel; and sum them, unless `sums` is empty."""
    left = matrix.columns - column
    if matrix.across == 1:
        pack_rows(Rows(b, column, matrix.down), matrix.rows, left, out)
    else:
        pack_columns(Rows(b, column * matrix.across, matrix.across), matrix.rows, left, out)
    if given(sums):
        sum_rows(Rows(out.memory, out.start, out.width), matrix.rows, left, sums, column)


@separate
def pack_panels(b: Flat, matrix: MatrixLayout, first: int, sums: Flat, packed: Flat) -> None:
    """`pack_panel` of every panel from number `first` on, each in its place."""
    vector = lanes(b)
    for p in range(first, panel_count(matrix.columns, vector)):
        column = p * 2 * vector
        out = Panel(packed, p * panel_size(matrix.rows, vector), panel_width(column, matrix.columns, vector))
        pack_panel(b, matrix, column, sums, out)


MANY_PANELS = 8  # are shared out among threads whole, each packed where it is used;
_GROUPS = 16  # fewer are packed first, then shared out in groups of rows


class Cut(NamedTuple):
    """How a product is shared out: each panel times `groups` of `step` rows; the first `in_place` panels lie in b."""

    step: int
    groups: int
    in_place: int


@inline
def is_whole(columns, vector):
    """Whether panels are shared out whole."""
    return panel_count(columns, vector) >= MANY_PANELS


@inline
def cut_rows(rows, columns, in_place, vector):
    """The cut of a product of these sizes."""
    step = rows if is_whole(columns, vector) else -(-rows // (_GROUPS * tile_rows(NARROW))) * tile_rows(NARROW)
    return Cut(step, -(-rows // step), in_place)


@separate
def multiply_panel(
    item: int,
    cut: Cut,
    a: Flat,
    left: MatrixLayout,
    b: Flat,
    right: MatrixLayout,
    packed: Flat,
    epilogue: Epilogue,
    sums: Flat,
    y: Flat,
) -> None:
    """One item of `matmul`: a group of rows, and the columns of a panel."""
    vector, columns = lanes(y), right.columns
    p, first = item // cut.groups, item % cut.groups * cut.step
    column = p * 2 * vector
    panel = Panel(packed, p * panel_size(right.rows, vector), panel_width(column, columns, vector))
    apart = panel.width
    if p < cut.in_place:
        panel, apart = Panel(b, column, panel.width), right.down
    elif given(b) and is_whole(columns, vector):
        pack_panel(b, right, column, sums, panel)
    once = Loop(1, 0, 0)
    nest = Nest(once, once, Loop(left.columns, left.across, apart))
    rows = Rows(a, first * left.down, left.down)
    part = Epilogue(epilogue.bias, column, columns - column, epilogue.relu)
    to = Rows(y, first * columns + column, columns)
    rows_times_panel(min(cut.step, left.rows - first), rows, panel, nest, part, to)


@inline
def matmul(a, left, b, right, bias, relu, sums, scratch, y):
    """y = a b + bias, or 0 where that is negative, if `relu`; `left` and `right` are the layouts of a and b.

    Also sums[c] = the sum over the rows of b. An empty `bias` adds nothing, empty `sums` are not wanted, and an empty b
    lies in scratch already, as `pack_panels` leaves it.
    """
    vector, columns, in_place = lanes(y), right.columns, 0
    if b.size:
        # For a few rows packing would cost more than the product: all but an incomplete last panel are read in place.
        if left.rows < tile_rows(HALF) and right.across == 1 and not sums.size:
            in_place = columns // (2 * vector)
        if not is_whole(columns, vector):
            pack_panels(flat(b), right, in_place, flat(sums), flat(scratch))
    cut = cut_rows(left.rows, columns, in_place, vector)
    for item in prange(panel_count(columns, vector) * cut.groups):
        epilogue = Epilogue(flat(bias), 0, columns, relu)
        multiply_panel(item, cut, flat(a), left, flat(b), right, flat(scratch), epilogue, flat(sums), flat(y))


def matmul_scratch(rows: int, columns: int) -> int:
    """Elements of scratch for the panels of a right factor, in either dtype."""
    return max(panel_count(columns, vector) * panel_size(rows, vector) for vector in LANES)
