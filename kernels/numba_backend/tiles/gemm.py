"""The loop nest that every contraction shares, and the matrix product made of it.

A contraction multiplies rows of `a` with a panel of `b`: one or two vectors of neighbouring columns, packed so that
the innermost loop reads them in one stream. `rows_times_panel` covers any number of rows with tiles of three heights;
`matmul` is all of the linear kernels.
"""

from numpy import int64

from ..compiler.jit import Flat, prange, region, separate
from .tile import (
    REGISTERS,
    VECTOR_BYTES,
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


@region
def contract(tile, a, ao, row, group, b, bo, nest):
    """tile[r, :] += the sum over o < outer, i < inner and k < run of
    a[ao + r row + o a_outer + i a_inner + k a_run] * b[bo + o b_outer + i b_inner + k b_run + (0, 1, ...)]."""
    outer, a_outer, b_outer, inner, a_inner, b_inner, run, a_run, b_run = nest
    for o in range(outer):
        for i in range(inner):
            at = ao + o * a_outer + i * a_inner
            bt = bo + o * b_outer + i * b_inner
            for k in range(run):
                tile = tile_fma(tile, a, at + k * a_run, row, group, b, bt + k * b_run)
    return tile


@region
def product(shape, a, ao, a_row, b, bo, nest, bias, column, columns, relu, y, yo, y_row):
    """One tile: y[r, :columns] = bias[column:] + `contract`, or 0 where that is negative if `relu`."""
    tile = tile_load_partial(shape, bias, column, 0, columns) if given(bias) else tile_zeros(shape, y)
    tile = contract(tile, a, ao, a_row, 0, b, bo, nest)
    if relu:
        tile = tile_where_positive(tile, tile)
    if columns >= tile_vectors(shape) * lanes(y):
        tile_store(tile, y, yo, y_row)
    else:
        tile_store_partial(tile, y, yo, y_row, columns)


@region
def rows_times_panel(count, a, ao, a_row, b, bo, width, nest, bias, column, columns, relu, y, yo, y_row):
    """`product` for r < count and a panel `width` wide.

    Rows left over are covered by a tile shifted back over rows already done: they come out the same again. A few rows
    of a narrow panel take a wide tile, whose second vector computes what nobody stores.
    """
    r = 0
    while r < count:
        left = count - r
        if width == lanes(y) and left > tile_rows(FULL) and count >= tile_rows(NARROW):
            r = min(r, count - tile_rows(NARROW))
            product(
                NARROW, a, ao + r * a_row, a_row, b, bo, nest, bias, column, columns, relu, y, yo + r * y_row, y_row
            )
            r += tile_rows(NARROW)
        elif left > tile_rows(HALF) and count >= tile_rows(FULL):
            r = min(r, count - tile_rows(FULL))
            at, to = ao + r * a_row, yo + r * y_row
            product(FULL, a, at, a_row, b, bo, nest, bias, column, columns, relu, y, to, y_row)
            r += tile_rows(FULL)
        elif count >= tile_rows(HALF):
            r = min(r, count - tile_rows(HALF))
            at, to = ao + r * a_row, yo + r * y_row
            product(HALF, a, at, a_row, b, bo, nest, bias, column, columns, relu, y, to, y_row)
            r += tile_rows(HALF)
        else:
            at, to = ao + r * a_row, yo + r * y_row
            product(ONE, a, at, a_row, b, bo, nest, bias, column, columns, relu, y, to, y_row)
            r += 1


@region
def neighbours(shape, a, ao, a_outer, b, bo, outer, run, bias, columns, relu, y, yo, y_row):
    """y[r, :columns] = bias + the sum over o < outer and k < run of a[ao + r + o a_outer + k] * b[bo + (o run + k, 0)],
    for a panel of one vector.

    Distances that the compiler knows need no registers for addresses: with a literal `run` as well this reaches 98 % of
    the peak, where `product` reaches 72 %.
    """
    tile = tile_load_partial(shape, bias, 0, 0, columns) if given(bias) else tile_zeros(shape, y)
    for o in range(outer):
        for k in range(run):
            tile = tile_fma(tile, a, ao + o * a_outer + k, 1, 0, b, bo + (o * run + k) * lanes(y))
    if relu:
        tile = tile_where_positive(tile, tile)
    if columns >= lanes(y):
        tile_store(tile, y, yo, y_row)
    else:
        tile_store_partial(tile, y, yo, y_row, columns)


@region
def rows_side_by_side(count, a, ao, a_outer, b, bo, outer, run, bias, columns, relu, y, yo, y_row):
    """`neighbours` for r < count, at least SHORT's number of rows."""
    r = 0
    while r < count:
        if count >= tile_rows(NARROW) and count % tile_rows(SHORT) != 0 and count - r > tile_rows(SHORT):
            r = min(r, count - tile_rows(NARROW))
            neighbours(NARROW, a, ao + r, a_outer, b, bo, outer, run, bias, columns, relu, y, yo + r * y_row, y_row)
            r += tile_rows(NARROW)
        else:
            r = min(r, count - tile_rows(SHORT))
            neighbours(SHORT, a, ao + r, a_outer, b, bo, outer, run, bias, columns, relu, y, yo + r * y_row, y_row)
            r += tile_rows(SHORT)


@separate
def pack_rows(b: Flat, bo: int, b_row: int, rows: int, columns: int, width: int, out: Flat, oo: int) -> None:
    """out[oo + r width + i] = b[bo + r b_row + i] for i < columns, zeros up to `width`, a number of vectors."""
    n = lanes(b)
    for r in range(rows):
        for i in range(0, width, n):
            if columns - i >= n:
                tile = tile_load(_VECTOR, b, bo + r * b_row + i, 0)
            else:
                tile = tile_load_partial(_VECTOR, b, bo + r * b_row + i, 0, max(columns - i, 0))
            tile_store(tile, out, oo + r * width + i, 0)


@separate
def pack_columns(b: Flat, bo: int, b_row: int, rows: int, columns: int, width: int, out: Flat, oo: int) -> None:
    """out[oo + r width + i] = b[bo + i b_row + r] for i < columns, zeros up to `width`: `pack_rows` of the transpose.

    Writes up to a vector's length of rows too many.
    """
    n = lanes(b)
    for i in range(0, width, n):
        for r in range(0, rows, n):
            tile = tile_load_transposed(b, bo + i * b_row + r, b_row, columns - i, rows - r)
            tile_store(tile, out, oo + r * width + i, width)


@region
def panel_width(column, columns, like):
    """Elements in a row of the panel at `column`: two vectors, or one where that holds the rest of the columns."""
    return lanes(like) if columns - column <= lanes(like) else 2 * lanes(like)


@region
def sum_rows(a, ao, row, rows, columns, sums, so):
    """sums[so + i] = the sum over r < rows of a[ao + r row + i], for i < columns of at most two vectors."""
    tile = tile_zeros(FULL, a)
    step = tile_rows(FULL)
    together = rows // step * step
    for r in range(0, together, step):
        tile = tile_add(tile, tile_load_partial(FULL, a, ao + r * row, row, columns))
    total = tile_sum(tile)
    for r in range(together, rows):
        total = tile_add(total, tile_load_partial(ONE, a, ao + r * row, row, columns))
    tile_store_partial(total, sums, so, 0, columns)


@separate
def pack_panel(
    b: Flat, b_run: int, b_column: int, run: int, columns: int, column: int, sums: Flat, out: Flat, oo: int
) -> None:
    """Pack the panel at `column` of b[k b_run + c b_column], one of the strides being 1, and sum its rows."""
    width, left = panel_width(column, columns, b), columns - column
    if b_column == 1:
        pack_rows(b, column, b_run, run, left, width, out, oo)
    else:
        pack_columns(b, column * b_column, b_column, run, left, width, out, oo)
    if given(sums):
        sum_rows(out, oo, width, run, left, sums, column)


@separate
def multiply_panel(
    a: Flat, a_row: int, a_run: int, first: int, count: int, b: Flat, bo: int, b_run: int, run: int, columns: int,
    column: int, bias: Flat, relu: bool, y: Flat,
) -> None:  # fmt: skip
    """Rows from `first` on and the columns of one panel of `matmul`, whose rows lie b_run apart."""
    width, left = panel_width(column, columns, y), columns - column
    nest = (1, 0, 0, 1, 0, 0, run, a_run, b_run)
    ao, yo = first * a_row, first * columns + column
    rows_times_panel(count, a, ao, a_row, b, bo, width, nest, bias, column, left, relu, y, yo, columns)


_MANY_PANELS = 8  # are shared out among threads whole, each packed where it is used;
_GROUPS = 16  # fewer are packed first, then shared out in groups of rows


@region
def matmul(a, a_row, a_run, rows, b, b_run, b_column, run, columns, bias, relu, sums, scratch, y):
    """y[r, c] = bias[c] + the sum over k < run of a[r a_row + k a_run] * b[k b_run + c b_column].

    Or 0 where that is negative, if `relu`. Also sums[c] = the sum over k of b. An empty `bias` adds nothing, empty
    `sums` are not wanted.
    """
    width = 2 * lanes(y)
    size = panel_size(run, y)
    panels = -(-columns // width)
    whole = panels >= _MANY_PANELS
    # For a few rows packing would cost more than the product: every panel but an incomplete last one is read in place.
    in_place = columns // width if rows < tile_rows(HALF) and b_column == 1 and not sums.size else 0
    if not whole:
        for p in range(in_place, panels):
            pack_panel(flat(b), b_run, b_column, run, columns, p * width, flat(sums), flat(scratch), p * size)
    step = rows if whole else row_step(rows)
    groups = -(-rows // step)
    for item in prange(panels * groups):
        p, first = int64(item) // groups, int64(item) % groups * step  # prange counts unsigned, which makes floats
        column, count = p * width, min(step, rows - first)
        if p < in_place:
            multiply_panel(
                flat(a), a_row, a_run, first, count, flat(b), column, b_run, run, columns, column, flat(bias),
                relu, flat(y),
            )  # fmt: skip
        else:
            if whole:
                pack_panel(flat(b), b_run, b_column, run, columns, column, flat(sums), flat(scratch), p * size)
            multiply_panel(
                flat(a), a_row, a_run, first, count, flat(scratch), p * size, panel_width(column, columns, y), run,
                columns, column, flat(bias), relu, flat(y),
            )  # fmt: skip


@region
def pack_panels(b, b_run, b_column, run, columns, sums, packed):
    """Every panel, for `multiply_panels`."""
    for p in range(-(-columns // (2 * lanes(b)))):
        column = p * 2 * lanes(b)
        pack_panel(flat(b), b_run, b_column, run, columns, column, flat(sums), flat(packed), p * panel_size(run, b))


@region
def multiply_panels(a, a_row, a_run, rows, packed, run, columns, bias, relu, y):
    """`matmul` of panels that are packed already."""
    width, size = 2 * lanes(y), panel_size(run, y)
    panels = -(-columns // width)
    step = rows if panels >= _MANY_PANELS else row_step(rows)
    groups = -(-rows // step)
    for item in prange(panels * groups):
        p, first = int64(item) // groups, int64(item) % groups * step
        column, count = p * width, min(step, rows - first)
        multiply_panel(
            flat(a), a_row, a_run, first, count, flat(packed), p * size, panel_width(column, columns, y), run, columns,
            column, flat(bias), relu, flat(y),
        )  # fmt: skip


@region
def row_step(rows):
    """Rows of a group, in whole tiles."""
    return -(-rows // (_GROUPS * tile_rows(NARROW))) * tile_rows(NARROW)


@region
def panel_size(run, like):
    """Elements of scratch for a panel of `run` rows; `pack_columns` overshoots by less than a vector of rows."""
    return (run + lanes(like)) * 2 * lanes(like)


def matmul_scratch(run: int, columns: int) -> int:
    """Elements of scratch that `matmul` needs in either dtype."""
    widest = VECTOR_BYTES // 4
    return (run + widest) * (columns + 2 * widest)
