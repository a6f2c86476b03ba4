"""The loop nest that every contraction shares, and the matrix product made of it.

A contraction multiplies rows of `a` with a panel of `b`: one or two vectors of neighbouring columns, packed so that
the innermost loop reads them in one stream. `rows_times_panel` covers any number of rows with tiles of three heights;
`matmul` is all of the linear kernels.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import int64

from ..compiler.jit import Constant, Flat, inline, prange, separate, worker
from .chunks import load, share
from .places import Panel, Rows
from .tile import (
    AHEAD,
    LANES,
    LINE_OF_CACHE,
    REGISTERS,
    STEPS,
    VECTOR_BYTES,
    TileShape,
    aligned,
    given,
    lanes,
    nothing,
    prefetch,
    tile_add,
    tile_fma,
    tile_fma_steps,
    tile_load,
    tile_load_ahead,
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


# 8 accumulators at least hide the latency of the multiply-adds. Of 32 registers 16 sum up, of 16 registers 12; heights
# of 8 and 4 divide the usual batch sizes, and all even numbers but 2 are sums of 6 and 4.
_ROWS = 8 if REGISTERS == 32 else 6
NARROW = TileShape(2 * _ROWS, 1, 2 * _ROWS)  # for a panel of one vector; the others are for two
SHORT = TileShape(2 * _ROWS - 4, 1, 2 * _ROWS - 4)
FULL, HALF, ONE = TileShape(_ROWS, 2, _ROWS), TileShape(4, 2, 4), TileShape(1, 2, 1)
TALL = TileShape(12, 2, 12) if REGISTERS == 32 else FULL  # for many rows: it loads less for each multiply-add
WIDE = TileShape(1, 8, 1)  # for one row to three, whose factors are read in long runs
VECTOR, _PAIR = TileShape(1, 1, 1), TileShape(1, 2, 1)


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


@inline
def exchanged(nest):
    """The nest of the same sums with the factors in each other's place."""
    outer, inner, run = nest.outer, nest.inner, nest.run
    return Nest(
        Loop(outer.rounds, outer.b, outer.a), Loop(inner.rounds, inner.b, inner.a), Loop(run.rounds, run.b, run.a)
    )


class Epilogue(NamedTuple):
    """What becomes of a panel's sums: they go on from what is stored, with `more`, or from bias[column:], unless `bias`
    is empty; then come `added`, at the same places as y, unless that is empty, and `relu`, which puts 0 for what is
    negative, and the first `columns` columns are stored."""

    bias: Flat
    column: int
    columns: int
    relu: bool
    more: bool
    added: Flat


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
def contract_dense(shape, tile, first, a, b, nest):
    """`contract` of rows that are one group, for panels of the tile's width faster where the `run` is over neighbours
    in each row, or the rows are neighbours themselves: distances that the compiler knows take no additions, which would
    take turns with the multiply-adds."""
    outer, inner, run, width = nest.outer, nest.inner, nest.run, tile_vectors(shape) * lanes(b.memory)
    start, neighbours = a.start + first * a.apart, a.apart == 1 and run.b == width
    steps = run.rounds // STEPS if run.a == 1 and run.b == width and not neighbours else 0
    for o in range(outer.rounds):
        for i in range(inner.rounds):
            at = start + o * outer.a + i * inner.a
            bt = b.start + o * outer.b + i * inner.b
            if neighbours:
                for k in range(run.rounds):
                    tile = tile_fma(tile, a.memory, at + k * run.a, 1, 0, b.memory, bt + k * width)
            else:
                for k in range(steps):
                    tile = tile_fma_steps(tile, a.memory, at + k * STEPS, a.apart, b.memory, bt + k * STEPS * width)
                for k in range(steps * STEPS, run.rounds):
                    prefetch(b.memory, bt + (k + _SOON) * run.b)
                    tile = tile_fma(tile, a.memory, at + k * run.a, a.apart, 0, b.memory, bt + k * run.b)
    return tile


@inline
def begun(shape, r, epilogue, y):
    """What the sums of a tile begin with."""
    if epilogue.more:
        tile = tile_load_partial(shape, y.memory, y.start + r * y.apart, y.apart, epilogue.columns)
    elif given(epilogue.bias):
        tile = tile_load_partial(shape, epilogue.bias, epilogue.column, 0, epilogue.columns)
    else:
        tile = tile_zeros(shape, y.memory)
    return tile


@inline
def finish(shape, tile, r, epilogue, y):
    """y[r, :] = what comes after the sums."""
    to = y.start + r * y.apart
    if given(epilogue.added):
        tile = tile_add(tile, load(shape, epilogue.added, to, y.apart, epilogue.columns))
    if epilogue.relu:
        tile = tile_where_positive(tile, tile)
    if epilogue.columns >= tile_vectors(shape) * lanes(y.memory):
        tile_store(tile, y.memory, to, y.apart)
    else:
        tile_store_partial(tile, y.memory, to, y.apart, epilogue.columns)


@inline
def product(shape, r, a, b, nest, epilogue, y):
    """One tile, of the rows from r on: y[r, :] = the `Epilogue` of `contract`."""
    finish(shape, contract(begun(shape, r, epilogue, y), r, a, 0, b, nest), r, epilogue, y)


@inline
def dense_product(shape, r, a, b, nest, epilogue, y):
    """`product` by `contract_dense`, which is more code."""
    finish(shape, contract_dense(shape, begun(shape, r, epilogue, y), r, a, b, nest), r, epilogue, y)


@inline
def is_two_halves(left, full):
    """Whether so many rows are two of the lower tiles, and no high one."""
    return left == 2 * tile_rows(HALF) and left != tile_rows(full)


@inline
def cover(times, full, count, a, b, nest, epilogue, y):
    """`product` for r < count, by `times` where tiles have several rows: as `full`, HALF, or NARROW for a narrow panel.

    Rows left over are covered by a tile shifted back over rows already done: they come out the same again, unless they
    go on from what is stored. A few rows of a narrow panel take a wide tile, whose second vector computes what nobody
    stores.
    """
    r = 0
    while r < count:
        left, done = count - r, 0 if epilogue.more else r
        if b.width == lanes(y.memory) and left > tile_rows(FULL) and left + done >= tile_rows(NARROW):
            r = min(r, count - tile_rows(NARROW))
            times(NARROW, r, a, b, nest, epilogue, y)
            r += tile_rows(NARROW)
        elif left > tile_rows(HALF) and not is_two_halves(left, full) and left + done >= tile_rows(full):
            r = min(r, count - tile_rows(full))
            times(full, r, a, b, nest, epilogue, y)
            r += tile_rows(full)
        elif left + done >= tile_rows(HALF):
            r = min(r, count - tile_rows(HALF))
            times(HALF, r, a, b, nest, epilogue, y)
            r += tile_rows(HALF)
        else:
            product(ONE, r, a, b, nest, epilogue, y)
            r += 1


@inline
def rows_times_panel(count, a, b, nest, epilogue, y):
    """`product` for r < count, with the tiles that are best for positions of images."""
    cover(product, FULL, count, a, b, nest, epilogue, y)


@separate
def matrix_times_panel(count: int, a: Rows, tile: int, b: Panel, run: Loop, epilogue: Epilogue, y: Rows) -> None:
    """`product` for r < count of the sums over a single `run`, with the tiles that are best for rows of a matrix.

    With `tile` > 0 the rows lie as `pack_tiles` leaves them, in tiles so many elements apart.
    """
    once, height = Loop(1, 0, 0), tile_rows(TALL) if tile > 0 else max(count, 1)
    for r in range(0, count, height):
        rows, to = Rows(a.memory, a.start + r // height * tile, a.apart), Rows(y.memory, y.start + r * y.apart, y.apart)
        cover(dense_product, TALL, min(height, count - r), rows, b, Nest(once, once, run), epilogue, to)


@inline
def neighbours(shape, r, a, b, outer, run: Constant, epilogue, y):
    """`product` of rows that lie side by side, for a panel of one vector: y[r, :] = the `Epilogue` of the sum over
    o < outer and k < run of a[o a.apart + r + k] * b[o run + k, :].

    Distances that the compiler knows need no registers for addresses: with `run` among them this reaches 98 % of the
    peak, where `product` reaches 72 %.
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
def rows_side_by_side(count, a, b, outer, run: Constant, epilogue, y):
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
    pairs = rows if out.width == 2 * n and columns >= 2 * n else 0
    for r in range(pairs):
        tile = tile_load_ahead(_PAIR, b.memory, b.start + r * b.apart, 0, AHEAD * b.apart)
        tile_store(tile, out.memory, out.start + r * 2 * n, 0)
    for r in range(pairs, rows):
        for i in range(0, out.width, n):
            at = b.start + r * b.apart + i
            if columns - i >= n:
                tile = tile_load(VECTOR, b.memory, at, 0)
            else:
                tile = tile_load_partial(VECTOR, b.memory, at, 0, max(columns - i, 0))
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


@separate
def pack_tiles(b: Rows, rows: int, columns: int, out: Rows) -> None:
    """Pack the columns of b as the rows of TALL tiles, `out.apart` from one another: [tile][r][column].

    A tile's rows then lie in one stream. Behind the last one up to a vector's length is written too much.
    """
    n, height = lanes(b.memory), tile_rows(TALL)
    reach = -(-height // n) * n
    whole = max(0, (columns - reach) // height + 1)  # tiles that are read in whole vectors
    for r in range(rows):
        at, to = b.start + r * b.apart, out.start + r * height
        for i in range(0, columns, LINE_OF_CACHE // VECTOR_BYTES * n):
            prefetch(b.memory, at + AHEAD * b.apart + i)
        for t in range(whole):
            for i in range(0, height, n):
                tile = tile_load(VECTOR, b.memory, at + t * height + i, 0)
                tile_store(tile, out.memory, to + t * out.apart + i, 0)
        for t in range(whole, -(-columns // height)):
            for i in range(0, height, n):
                left = max(columns - t * height - i, 0)
                tile = tile_load_partial(VECTOR, b.memory, at + t * height + i, 0, left)
                tile_store(tile, out.memory, to + t * out.apart + i, 0)


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
def pack_some(b: Flat, matrix: MatrixLayout, low: int, high: int, first: int, end: int, sums: Flat, out: Rows) -> None:
    """Pack the rows from `first` to `end` of the panels number `low` to `high`, `out.apart` from one another, and sum
    them, unless `sums` is empty.

    Whole panels of rows go row by row: taken one after the other, each would read a few neighbours out of every page.
    """
    n, rows, whole = lanes(b), end - first, low
    if matrix.across == 1 and high - low > 1:
        whole = min(high, matrix.columns // (2 * n))
    for r in range(rows if whole > low else 0):
        at, to = (first + r) * matrix.down, out.start + r * 2 * n
        for p in range(low, whole):
            tile = tile_load_ahead(_PAIR, b, at + p * 2 * n, 0, AHEAD * matrix.down)
            tile_store(tile, out.memory, to + (p - low) * out.apart, 0)
    for p in range(low, high):
        column, start = p * 2 * n, out.start + (p - low) * out.apart
        panel = Panel(out.memory, start, panel_width(column, matrix.columns, n))
        if p >= whole:
            at, left = first * matrix.down + column * matrix.across, matrix.columns - column
            if matrix.across == 1:
                pack_rows(Rows(b, at, matrix.down), rows, left, panel)
            else:
                pack_columns(Rows(b, at, matrix.across), rows, left, panel)
        if given(sums):
            sum_rows(Rows(out.memory, start, panel.width), rows, matrix.columns - column, sums, column)


@inline
def panel_of(packed, p, matrix):
    """Panel number p of the matrix, in its place."""
    vector = lanes(packed)
    width = panel_width(p * 2 * vector, matrix.columns, vector)
    return Panel(packed, p * panel_size(matrix.rows, vector), width)


# A product is shared out by columns where the right factor is the larger one, or far, so that it is read once; else by
# rows.
MANY_PANELS = 4  # are worth being shared out
_FEW_COLUMNS = 64  # for which rows are better read as they lie
_ITEMS = 8  # at least, so that shares are even
_CUTS = VECTOR_BYTES == 64
"""Whether panels are cut so that nearer caches hold them, and a few rows at a time meet all panels of a group.

With shorter vectors all rows meet whole panels, one after the other. On Zen 3, whose cores reach 90 % of their peak
with a panel in the second cache, sums that go on from memory cost up to a tenth.
"""
_DEPTH = 1024  # rows of a panel that a near cache holds, beside some rows of the other factor
_GROUP = 1 << 17 if VECTOR_BYTES == 64 else 1 << 16  # elements of panels side by side that it holds as well
_SIDE = 512 if _CUTS else _DEPTH  # rows of each of the panels of a group
_UNIT = 2 * TALL.rows  # rows of a share are a multiple of these
_LARGE = 4 * _GROUP  # elements of a left factor that is far
_SKINNY = 12  # rows for which packing would cost more than the product
_FEW_ROWS = 128  # for which a panel is better cut so that the nearest cache holds it
_NEAR = 256 if _CUTS else _DEPTH  # rows of a panel that it holds
_BLOCK = 1 << 18  # elements of the rows that meet one panel after the other: a last cache holds them for all threads
_FAR = 1 << 21  # elements that no near cache holds, 8 MiB of float32
_SOON = 8  # rows of a panel that is read where it lies, until which the next ones have come
_SHALLOW = 32  # of their rows at a time: of more, those of a panel lie in too many pages, for a few rows of the other


class Columns(NamedTuple):
    """How a product is shared out by columns: `wide` tiles of WIDE, then the panels in `shares`.

    A share goes through its panels in groups of `group`, and packs them in parts of `depth` rows, each group to where
    the last one was, so that they stay in a cache. With `in_place` whole panels are read where they lie.
    """

    wide: int
    shares: int
    group: int
    depth: int
    in_place: bool


@inline
def column_shares(panels):
    """In how many shares panels that are packed go."""
    return min(panels, _ITEMS)


@inline
def side_by_side(left, right, vector, packed):
    """How many panels are gone through together: several where they are there, where they are packed row by row, or,
    with `_CUTS`, where the left factor, which is read for each group, is far."""
    panels = panel_count(right.columns, vector)
    several = max(1, min(_GROUP // (min(right.rows, _DEPTH) * 2 * vector), panels // _ITEMS))
    together = left.rows * right.rows >= _LARGE if _CUTS else right.across == 1
    return several if packed or together else int64(1)


@inline
def parts(rows, most):
    """Rows of each part if a panel of so many is cut in parts of `most` or, rather than leave a short one, more."""
    depth = rows
    if rows > 2 * most:
        count = -(-rows // most)
        depth = -(-rows // (count * STEPS)) * STEPS
    return depth


@inline
def packs_rows(left, right):
    """Whether rows are packed as well: neighbours in a row lie so far apart that each is in a page of its own, and they
    are many, or lie in the same few places of a cache."""
    return left.across != 1 and (left.columns >= 256 or left.across % 1024 == 0) and right.columns > _FEW_COLUMNS


@inline
def by_columns(left, right, vector):
    """Whether a product is shared out by columns."""
    far = not _CUTS and right.rows * right.columns > 2 * _GROUP and left.across == 1
    few = far or left.rows < right.columns or (left.across != 1 and not packs_rows(left, right))
    return few and panel_count(right.columns, vector) >= MANY_PANELS


@inline
def block_rows(left, depth, group):
    """How many rows meet the panels of a group before the next ones do."""
    if _CUTS:
        return _UNIT if group > 1 else left.rows
    return max(_UNIT, _BLOCK // depth // _UNIT * _UNIT)


@inline
def reads_in_place(cut, p, columns, vector):
    """Whether panel number p is read where it lies: whole, beyond a part of one there may be no memory."""
    return cut.in_place and (p + 1) * 2 * vector <= columns


@separate
def multiply_columns(
    item: int,
    cut: Columns,
    a: Flat,
    left: MatrixLayout,
    b: Flat,
    right: MatrixLayout,
    packed: Rows,
    epilogue: Epilogue,
    sums: Flat,
    y: Rows,
) -> None:
    """All rows of a share's panels, which are packed here, unless b is empty or they are read in place."""
    vector, columns = lanes(y.memory), right.columns
    rows = Rows(a, 0, left.down)
    if item < cut.wide:
        column = item * tile_vectors(WIDE) * vector
        once = Loop(1, 0, 0)
        nest = Nest(once, once, Loop(right.rows, left.across, right.down))
        part = Epilogue(epilogue.bias, column, columns - column, epilogue.relu, False, epilogue.added)
        for r in range(left.rows):
            product(WIDE, r, rows, Panel(b, column, 0), nest, part, Rows(y.memory, y.start + column, y.apart))
    else:
        first, number = cut.wide * tile_vectors(WIDE) // 2, item - cut.wide
        start, stop = share(panel_count(columns, vector) - first, number, cut.shares)
        for low in range(first + start, first + stop, cut.group):
            high = min(low + cut.group, first + stop)
            for k in range(0, right.rows, cut.depth):
                end = min(k + cut.depth, right.rows)
                there = low if not cut.in_place else min(high, columns // (2 * vector))
                if given(b) and there < high:
                    pack_some(b, right, there, high, k, end, sums, packed)
                height = block_rows(left, end - k, cut.group)
                for r in range(0, left.rows, height):
                    count = min(height, left.rows - r)
                    for p in range(low, high):
                        column = p * 2 * vector
                        panel = panel_of(packed.memory, p, right)
                        apart = panel.width
                        if reads_in_place(cut, p, columns, vector):
                            panel, apart = Panel(b, k * right.down + column, panel.width), right.down
                        elif given(b):
                            at = packed.start + (p - there) * packed.apart
                            panel = Panel(packed.memory, at, panel.width)
                        run = Loop(end - k, left.across, apart)
                        last, to = epilogue.relu and end == right.rows, y.start + r * y.apart + column
                        part = Epilogue(epilogue.bias, column, columns - column, last, k > 0, epilogue.added)
                        source = Rows(a, r * left.down + k * left.across, left.down)
                        matrix_times_panel(count, source, 0, panel, run, part, Rows(y.memory, to, y.apart))


class RowCut(NamedTuple):
    """How a product is shared out by rows: into `shares`, and the panels for each into `sides`, of which the first
    comes with all its shares before the second: what a thread reads then fits into its cache. Rows of b from `in_place`
    on are packed. With `own` > 0 so are those of a, from there on in scratch."""

    shares: int
    sides: int
    own: int
    in_place: int


@inline
def row_shares(rows):
    """In how many shares so many rows go: of whole units, and with so many that the last one to be done is short."""
    units = -(-rows // _UNIT)
    return min(units, max(2 * _ITEMS, units // 8))


@inline
def tile_size(columns, vector):
    """Elements of scratch for the rows of a tile; `pack_tiles` overshoots by less than a vector."""
    return -(-columns * tile_rows(TALL) // vector) * vector + vector


@inline
def rows_size(left, right, vector):
    """Elements of scratch for the rows of a share, packed."""
    units = -(-left.rows // _UNIT)
    return -(-units // row_shares(left.rows)) * (_UNIT // tile_rows(TALL)) * tile_size(right.rows, vector)


@inline
def rows_in_place(b, matrix):
    """Rows of b that are read where they lie, two vectors each: of a matrix of a single panel all but the last few,
    beyond which there may be no memory. A core waits long for what another one has just packed."""
    vector, rows = lanes(b), 0
    if given(b) and matrix.across == 1 and panel_count(matrix.columns, vector) == 1:
        rows = max(0, matrix.rows + 1 - -(-2 * vector // matrix.columns))
    return rows


@separate
def multiply_rows(
    item: int,
    cut: RowCut,
    a: Flat,
    left: MatrixLayout,
    b: Flat,
    right: MatrixLayout,
    scratch: Flat,
    epilogue: Epilogue,
    y: Rows,
) -> None:
    """Some rows of one side of the panels."""
    vector, unit, panels = lanes(y.memory), _UNIT, panel_count(right.columns, lanes(y.memory))
    low, high = share(-(-left.rows // unit), item % cut.shares, cut.shares)
    low, high = low * unit, min(high * unit, left.rows)
    first, stop = share(panels, item // cut.shares, cut.sides)
    rows, step = Rows(a, low * left.down, left.down), left.across
    tile = 0
    if cut.own > 0:
        tile, step = tile_size(right.rows, vector), int64(tile_rows(TALL))
        pack_tiles(Rows(a, low, left.across), right.rows, high - low, Rows(scratch, cut.own, tile))
        rows = Rows(scratch, cut.own, 1)
    there = cut.in_place
    for p in range(-1 if there > 0 else first, stop if there < right.rows else 0):
        number, k, end = max(p, 0), there, right.rows
        panel, column = panel_of(scratch, number, right), number * 2 * vector
        apart = panel.width
        if p < 0:  # what is read where it lies
            panel, apart, k, end = Panel(b, 0, panel.width), right.down, 0, there
        run, last = Loop(end - k, step, apart), epilogue.relu and end == right.rows
        part = Epilogue(epilogue.bias, column, right.columns - column, last, k > 0, epilogue.added)
        source = Rows(rows.memory, rows.start + k * step, rows.apart)
        to = Rows(y.memory, y.start + low * y.apart + column, y.apart)
        matrix_times_panel(high - low, source, tile, panel, run, part, to)


@separate
def multiply(
    a: Flat,
    left: MatrixLayout,
    b: Flat,
    right: MatrixLayout,
    epilogue: Epilogue,
    sums: Flat,
    scratch: Flat,
    y: Rows,
) -> None:
    """`matmul` with all that the epilogue of a whole row asks for, and rows of y that may lie apart."""
    vector, panels = lanes(y.memory), panel_count(right.columns, lanes(y.memory))
    packed = aligned(scratch) if given(b) else scratch
    if by_columns(left, right, vector):
        # For a few rows packing would cost more than the product: all but an incomplete last panel are read in place.
        in_place = given(b) and left.rows <= _SKINNY and right.across == 1 and not given(sums)
        wide = right.columns // (tile_vectors(WIDE) * vector) if in_place and left.rows < tile_rows(HALF) else 0
        if wide < MANY_PANELS:
            wide = 0
        rest, depth = panels - wide * tile_vectors(WIDE) // 2, right.rows
        group = side_by_side(left, right, vector, not given(b))
        shares = -(-rest // group) if group > 1 or not given(b) else column_shares(rest)
        if in_place and left.rows > 1 and right.rows * right.columns > _FAR:
            shares = column_shares(rest)
            group, depth = -(-rest // shares), int64(_SHALLOW)
        elif given(b) and not (in_place or given(sums)):
            depth = parts(right.rows, _NEAR if left.rows <= _FEW_ROWS else _DEPTH if group == 1 else _SIDE)
        cut, size = Columns(wide, shares, group, depth, in_place), panel_size(depth, vector)
        for item in prange(wide + shares):
            # In place one panel at most is packed, and workers may be more than shares.
            start = (item - wide if in_place else worker() * group) * size
            multiply_columns(item, cut, a, left, b, right, Rows(packed, start, size), epilogue, sums, y)
    else:
        there = 0 if given(sums) else rows_in_place(b, right)
        if given(b):
            size = panel_size(right.rows, vector)
            for item in prange(column_shares(panels)):
                low, high = share(panels, item, column_shares(panels))
                pack_some(b, right, low, high, there, right.rows, sums, Rows(packed, low * size, size))
        own = panels * panel_size(right.rows, vector) if given(b) and packs_rows(left, right) else 0
        far = right.rows * right.columns > 2 * _GROUP and panels >= MANY_PANELS
        shares, sides, size = row_shares(left.rows), 2 if own == 0 and far else 1, rows_size(left, right, vector)
        for item in prange(shares * sides):
            cut = RowCut(shares, sides, own + worker() * size if own > 0 else 0, there)
            multiply_rows(item, cut, a, left, b, right, packed, epilogue, y)


@separate
def matmul(
    a: Flat,
    left: MatrixLayout,
    b: Flat,
    right: MatrixLayout,
    bias: Flat,
    relu: bool,
    sums: Flat,
    scratch: Flat,
    y: Flat,
) -> None:
    """y = a b + bias, or 0 where that is negative, if `relu`; `left` and `right` are the layouts of a and b.

    Also sums[c] = the sum over the rows of b. An empty `bias` adds nothing, empty `sums` are not wanted, and an empty b
    lies in scratch already, as `pack_panels` leaves it.
    """
    epilogue = Epilogue(bias, 0, right.columns, relu, False, nothing(y))
    multiply(a, left, b, right, epilogue, sums, scratch, Rows(y, 0, right.columns))


def matmul_scratch(left: MatrixLayout, right: MatrixLayout) -> int:
    """Elements of scratch for the factors as `matmul` packs them, in either dtype."""
    most = 0
    for vector in LANES:
        panels = panel_count(right.columns, vector)
        size = vector  # before the first whole one
        if by_columns(left, right, vector):
            group = side_by_side(left, right, vector, False)
            size += (panels + group if group > 1 else column_shares(panels)) * panel_size(right.rows, vector)
        else:
            size += panels * panel_size(right.rows, vector)
            if packs_rows(left, right):
                size += row_shares(left.rows) * rows_size(left, right, vector)
        most = max(most, size)
    return most


def panels_size(matrix: MatrixLayout) -> int:
    """Elements of all panels of a matrix, in either dtype."""
    return max(panel_count(matrix.columns, vector) * panel_size(matrix.rows, vector) for vector in LANES)


@inline
def pack_panels(b, matrix, packed):
    """Pack all of a matrix, as `matmul` finds it."""
    size = panel_size(matrix.rows, lanes(b))
    pack_some(b, matrix, 0, panel_count(matrix.columns, lanes(b)), 0, matrix.rows, nothing(b), Rows(packed, 0, size))
