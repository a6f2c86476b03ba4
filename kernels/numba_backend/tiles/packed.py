"""Products of inference, whose right factor lies packed in panels, and convolutions as such products.

Where a processor has 32 registers, a tile spans two panels: 24 multiply-adds then share 10 loads, of which 16 in a tile
of one panel share as many. That is 1.1 to 1.2 times as fast out of the nearest cache, the most where another program
runs on the core's other thread. A convolution that no shorter way fits gathers the pixels that each place sees into a
row: places then fill tiles whatever the image's width, and its borders are rows like others.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import int64

from ...shapes import Conv2dDims
from ..compiler.jit import Flat, inline, prange, separate
from .chunks import load, share, store
from .gemm import (
    FULL,
    HALF,
    MANY_PANELS,
    NARROW,
    ONE,
    Epilogue,
    Loop,
    Nest,
    panel_count,
    panel_size,
    panel_width,
    rows_times_panel,
)
from .places import Panel, Part, Place, Rows
from .tile import (
    LANES,
    LINE_OF_CACHE,
    REGISTERS,
    VECTOR_BYTES,
    TileShape,
    given,
    lanes,
    nothing,
    prefetch,
    tile_add,
    tile_fma,
    tile_load,
    tile_rows,
    tile_store,
    tile_vectors,
    tile_where_positive,
    tile_zeros,
)

HIGH = TileShape(6, 2, 6)
"""Of each of two panels: 24 sums, 4 vectors of the panels and one factor take 29 registers."""
_SPANS, _SLIDES = REGISTERS == 32, VECTOR_BYTES < 64
_VECTOR, _LOWER = TileShape(1, 1, 1), TileShape(FULL.rows - 1, 2, FULL.rows - 1)

_DEPTH = 128 if _SPANS else 192
"""Rows of the panels of a tile that the nearest cache holds beside the tiles' rows: 32 KiB of two panels of vectors of
64 bytes, and 12 of one of 32 bytes, of which up to half as many again are left whole."""
_NEAR = 1 << 16  # elements of a block's rows, 256 KiB of float32: less than half of a near cache
_FEW_PLACES = 1 << 40 if _SPANS else 512  # whose factors a near cache holds beside a panel, so that each is read once
_LEAST = 8  # blocks, so that shares are even
_SHARES = 16  # of blocks, each with room for rows that are gathered


# Tiles ----------------------------------------------------------------------------------------------------------------


@inline
def started(shape, epilogue, column, to, y):
    """The sums of a panel with which a tile begins."""
    if epilogue.more:
        tile = tile_load(shape, y.memory, to, y.apart)
    elif given(epilogue.bias):
        tile = tile_load(shape, epilogue.bias, epilogue.column + column, 0)
    else:
        tile = tile_zeros(shape, y.memory)
    return tile


@inline
def finished(shape, tile, epilogue, to, y):
    """Store them."""
    if given(epilogue.added):
        tile = tile_add(tile, tile_load(shape, epilogue.added, to, y.apart))
    if epilogue.relu:
        tile = tile_where_positive(tile, tile)
    tile_store(tile, y.memory, to, y.apart)


class Sight(NamedTuple):
    """What a row of factors is made of: so many `runs` of `run` neighbours, `apart` from one another."""

    runs: int
    run: int
    apart: int


@inline
def product_of_two(shape, r, a, sight, b, apart, ahead, epilogue, y):
    """`gemm.product` for a panel and the one `apart` from it, both whole.

    Their width is a constant to the compiler: else it unrolls the loop further, and sums leave their registers. What is
    needed next is asked for meanwhile, line by line: from `ahead.start` on, and `ahead.apart` from there.
    """
    width, to = 2 * lanes(y.memory), y.start + r * y.apart
    if given(epilogue.added):
        for row in range(tile_rows(shape)):
            for column in range(0, 2 * width, _OF_A_LINE):
                prefetch(epilogue.added, to + row * y.apart + column)
    first, second = started(shape, epilogue, 0, to, y), started(shape, epilogue, width, to + width, y)
    even = sight.run // 2 * 2
    for o in range(sight.runs):
        at, left = a.start + r * a.apart + o * sight.apart, b.start + o * sight.run * width
        right = left + apart
        for k in range(0, even, 2):
            one, other, line = at + k, at + k + 1, ahead.start + k * (width // 4)
            prefetch(ahead.memory, line)
            first = tile_fma(first, a.memory, one, a.apart, 0, b.memory, left + k * width)
            second = tile_fma(second, a.memory, one, a.apart, 0, b.memory, right + k * width)
            prefetch(ahead.memory, line + ahead.apart)
            first = tile_fma(first, a.memory, other, a.apart, 0, b.memory, left + width + k * width)
            second = tile_fma(second, a.memory, other, a.apart, 0, b.memory, right + width + k * width)
        if even < sight.run:
            first = tile_fma(first, a.memory, at + even, a.apart, 0, b.memory, left + even * width)
            second = tile_fma(second, a.memory, at + even, a.apart, 0, b.memory, right + even * width)
    finished(shape, first, epilogue, to, y)
    finished(shape, second, epilogue, to + width, y)


_TURNS = 4  # in which tiles ask for all that comes next of two panels
_OF_A_LINE = LINE_OF_CACHE // 4  # elements of float32 in a line of cache


@inline
def rows_times_two(count, a, sight, b, apart, after, fresh, epilogue, y):
    """`product_of_two` for r < count, covered as `gemm.rows_times_panel` does.

    after: where the panels go on. fresh: whether the rows are yet to come from afar.
    """
    r, turn = 0, 0
    while r < count:
        left, done, ahead = count - r, 0 if epilogue.more else r, Rows(b.memory, b.start, 0)
        if turn < _TURNS:
            ahead = Rows(b.memory, after + turn * sight.run * lanes(y.memory) // 2, apart)
        elif fresh:
            ahead = Rows(a.memory, a.start + (r + tile_rows(HIGH)) * a.apart, tile_rows(HIGH) // 2 * a.apart)
        turn += 1
        if left > tile_rows(HALF) and (left < 7 or left > 8) and left + done >= tile_rows(HIGH):
            r = min(r, count - tile_rows(HIGH))
            product_of_two(HIGH, r, a, sight, b, apart, ahead, epilogue, y)
            r += tile_rows(HIGH)
        elif left + done >= tile_rows(HALF):
            r = min(r, count - tile_rows(HALF))
            product_of_two(HALF, r, a, sight, b, apart, ahead, epilogue, y)
            r += tile_rows(HALF)
        else:
            product_of_two(ONE, r, a, sight, b, apart, ahead, epilogue, y)
            r += 1


@inline
def product_of_one(shape, r, a, sight, b, epilogue, y):
    """`gemm.product` for a panel as wide as the tile, whose last columns need not be there.

    Four rounds at once: with 16 rows the addresses of their factors cost as much as the products.
    """
    width, to = tile_vectors(shape) * lanes(y.memory), y.start + r * y.apart
    if given(epilogue.added) and not _SPANS:
        for row in range(tile_rows(shape)):
            prefetch(epilogue.added, to + row * y.apart)
            prefetch(epilogue.added, to + row * y.apart + width - 1)
    if epilogue.more:
        tile = load(shape, y.memory, to, y.apart, epilogue.columns)
    elif given(epilogue.bias):
        tile = load(shape, epilogue.bias, epilogue.column, 0, epilogue.columns)
    else:
        tile = tile_zeros(shape, y.memory)
    whole = sight.run // 4 * 4
    for o in range(sight.runs):
        at, bt = a.start + r * a.apart + o * sight.apart, b.start + o * sight.run * width
        for k in range(0, whole, 4):
            tile = tile_fma(tile, a.memory, at + k, a.apart, 0, b.memory, bt + k * width)
            tile = tile_fma(tile, a.memory, at + k + 1, a.apart, 0, b.memory, bt + (k + 1) * width)
            tile = tile_fma(tile, a.memory, at + k + 2, a.apart, 0, b.memory, bt + (k + 2) * width)
            tile = tile_fma(tile, a.memory, at + k + 3, a.apart, 0, b.memory, bt + (k + 3) * width)
        for k in range(whole, sight.run):
            tile = tile_fma(tile, a.memory, at + k, a.apart, 0, b.memory, bt + k * width)
    if given(epilogue.added):
        tile = tile_add(tile, load(shape, epilogue.added, to, y.apart, epilogue.columns))
    if epilogue.relu:
        tile = tile_where_positive(tile, tile)
    store(shape, tile, y.memory, to, y.apart, epilogue.columns)


@inline
def many_times_one(shape, count, a, sight, b, epilogue, y):
    """`product_of_one` for r < count as far as tiles of this height cover that; how many rows are done."""
    r = 0
    while r < count and (count - r >= tile_rows(shape) or (r > 0 and not epilogue.more)):
        r = min(r, count - tile_rows(shape))
        product_of_one(shape, r, a, sight, b, epilogue, y)
        r += tile_rows(shape)
    return r


@inline
def even_times_one(shape, count, a, sight, b, epilogue, y):
    """`product_of_one` for r < count by tiles that are as high as can be, up to `shape`, and differ by a row at most:
    none computes a row twice, or is too low to keep a processor busy. How many rows are done: all, unless they are too
    few.
    """
    tiles = max(1, -(-count // tile_rows(shape)))
    height = count // tiles
    higher, r = count - tiles * height, 0
    if height < tile_rows(HALF):
        return many_times_one(shape, count, a, sight, b, epilogue, y)
    if height == tile_rows(shape):
        higher = tiles
    while r < count:
        if r < higher * tile_rows(shape) and height >= tile_rows(_LOWER):
            product_of_one(shape, r, a, sight, b, epilogue, y)
            r += tile_rows(shape)
        elif height == tile_rows(_LOWER) or r < higher * tile_rows(_LOWER):
            product_of_one(_LOWER, r, a, sight, b, epilogue, y)
            r += tile_rows(_LOWER)
        else:
            product_of_one(HALF, r, a, sight, b, epilogue, y)
            r += tile_rows(HALF)
    return count


@inline
def spans(columns, vector):
    """Whether so many columns fill two panels, and a tile is to take both."""
    return _SPANS and columns >= 4 * vector


@inline
def none_of_two(count, a, sight, b, apart, after, fresh, epilogue, y):
    """Where no tile `spans` two panels."""


# Chosen here, so that the other is not compiled.
columns_of_two = rows_times_two if _SPANS else none_of_two
columns_of_one = many_times_one if _SPANS else even_times_one


class Filling(NamedTuple):
    """A right factor in panels: where the first begins in memory, how far they are `apart`, and its columns.

    With `slid` the last panel ends with the last column (`slide_panel`).
    """

    memory: Flat
    start: int
    apart: int
    columns: int
    slid: bool


@inline
def slides(columns, vector):
    """Whether the last of so many columns' panels is better slid over the one before than filled with zeros.

    What it computes once more comes out the same, and all of its vectors are stored whole: a processor without masks of
    its own takes some ten times as long for a part of one.
    """
    return _SLIDES and columns > 2 * vector and columns % vector != 0


@inline
def slide_panel(packed, start, rows, columns, vector):
    """Of packed columns, from `start` on, the last panel: its columns go to its end, and those before them join it."""
    whole, size = columns // (2 * vector) * 2 * vector, panel_size(rows, vector)
    last, width, left = start + whole // (2 * vector) * size, panel_width(whole, columns, vector), columns - whole
    for row in range(rows):
        at, before = last + row * width, last - size + row * 2 * vector + 2 * vector - (width - left)
        for i in range(left):
            packed[at + width - 1 - i] = packed[at + left - 1 - i]
        for i in range(width - left):
            packed[at + i] = packed[before + i]


class Lines(NamedTuple):
    """Rows of factors, and of y, in so many `lines` of `count` each; how far lines are apart in a, and in y."""

    lines: int
    count: int
    a: int
    y: int


@separate
def rows_times_panels(
    lines: Lines, a: Rows, sight: Sight, b: Filling, low: int, high: int, epilogue: Epilogue, y: Rows
) -> None:
    """The columns of panels number `low` to `high` of the product of these rows; y begins with column 0.

    A slid panel writes columns of the one before anew, from the bias on: no other thread may have that in hand.
    """
    vector, once, whole = lanes(y.memory), Loop(1, 0, 0), sight.runs * sight.run < _DEPTH + _DEPTH // 2
    rounds = max(1, (sight.run + _DEPTH // 2) // _DEPTH)  # of a run
    pieces = 1 if whole else sight.runs * rounds
    p = low
    while p < high:
        column = p * 2 * vector
        two = p + 2 <= high and spans(b.columns - column, vector)
        width, left = panel_width(column, b.columns, vector), b.columns - column
        if b.slid and left < width:
            column, left = b.columns - width, width
        for i in range(pieces):
            k, end = share(sight.run, i % rounds, rounds)
            first, last, start = i // rounds * sight.run + k, i == pieces - 1, a.start + i // rounds * sight.apart + k
            panel = Panel(b.memory, b.start + p * b.apart + first * width, width)
            after = b.start + (p + 2) * b.apart if last else panel.start + (end - k) * width
            added = epilogue.added if last else nothing(y.memory)
            part = Epilogue(epilogue.bias, epilogue.column + column, left, epilogue.relu and last, i > 0, added)
            some = Sight(sight.runs if whole else 1, end - k, sight.apart)
            nest = Nest(once, Loop(some.runs, some.apart, some.run * width), Loop(some.run, 1, width))
            for line in range(lines.lines):
                rows = Rows(a.memory, start + line * lines.a, a.apart)
                to = Rows(y.memory, y.start + line * lines.y + column, y.apart)
                if two:
                    columns_of_two(lines.count, rows, some, panel, b.apart, after, p == low and i == 0, part, to)
                else:
                    done = 0
                    if width == vector:
                        done = many_times_one(NARROW, lines.count, rows, some, panel, part, to)
                    else:
                        done = columns_of_one(FULL, lines.count, rows, some, panel, part, to)
                    rows = Rows(rows.memory, rows.start + done * rows.apart, rows.apart)
                    to = Rows(to.memory, to.start + done * to.apart, to.apart)
                    rows_times_panel(lines.count - done, rows, panel, nest, part, to)
        p += 2 if two else 1


# Places ---------------------------------------------------------------------------------------------------------------


@inline
def is_gathered(d):
    """Whether inference takes this path, if no shorter one fits: there are filters enough to outweigh the copying."""
    return d.groups == 1 and d.f >= _FEWEST


_FEWEST = 48 if _SPANS else 32  # filters
_LINE = 12 if _SPANS else 8  # places of a row that fill tiles well


@inline
def is_padded(d):
    """Whether the pixels are read as they lie, along the rows of an image, from a copy with its padding around it if
    there is any; else each place's are gathered."""
    return d.dilation_w == 1 and d.ow >= _LINE


@inline
def put_run(x, start, count, to):
    """Copy `count` elements of x, or write so many zeros where `start` is negative."""
    for i in range(0, count, lanes(x)):
        tile = load(_VECTOR, x, start + i, 0, count - i) if start >= 0 else tile_zeros(_VECTOR, x)
        store(_VECTOR, tile, to.memory, to.start + i, 0, count - i)


@separate
def gather_places(x: Flat, d: Conv2dDims, low: int, high: int, to: Rows) -> None:
    """What places number `low` to `high` see, (kh, kw, c), a row each; zeros in the padding."""
    run = d.kw * d.c
    for place in range(low, high):
        image, p, q = place // (d.oh * d.ow), place // d.ow % d.oh, place % d.ow
        top, left, out = p * d.stride_h - d.pad_h, q * d.stride_w - d.pad_w, to.start + (place - low) * to.apart
        inside = left >= 0 and left + (d.kw - 1) * d.dilation_w < d.w
        for i in range(d.kh):
            row = top + i * d.dilation_h
            at = ((image * d.h + row) * d.w + left) * d.c
            if row < 0 or row >= d.h:
                put_run(x, -1, run, Place(to.memory, out))
            elif inside and d.dilation_w == 1:
                put_run(x, at, run, Place(to.memory, out))
            else:
                for j in range(d.kw):
                    column = left + j * d.dilation_w
                    there = 0 <= column < d.w
                    put_run(x, at + j * d.dilation_w * d.c if there else -1, d.c, Place(to.memory, out + j * d.c))
            out += run


@separate
def pad_rows(x: Flat, d: Conv2dDims, image: int, low: int, high: int, to: Rows) -> None:
    """Rows `low` to `high` of an image with its padding around it, counted from the padding's first."""
    width = (d.ow - 1) * d.stride_w + d.kw  # what lies beyond is not looked at
    inner = min(d.w, width - d.pad_w)
    for row in range(low, high):
        out, real = to.start + (row - low) * to.apart, row - d.pad_h
        if real < 0 or real >= d.h:
            put_run(x, -1, width * d.c, Place(to.memory, out))
        else:
            put_run(x, -1, d.pad_w * d.c, Place(to.memory, out))
            put_run(x, (image * d.h + real) * d.w * d.c, inner * d.c, Place(to.memory, out + d.pad_w * d.c))
            after = d.pad_w + inner
            put_run(x, -1, (width - after) * d.c, Place(to.memory, out + after * d.c))


# All of it ------------------------------------------------------------------------------------------------------------


class PackedLayout(NamedTuple):
    """How a convolution's product is cut: `units` of output, at `least` so many together, into `blocks`.

    padded: whether units are rows of an image; else they are places. by_columns: whether each thread takes all units,
    of some panels, so that it reads these alone; else it takes blocks, and all panels. apart: from one row in scratch
    to the next. shares: of the blocks. size: elements of a share's rows in scratch, 0 where pixels are read as they
    lie.
    """

    units: int
    least: int
    blocks: int
    padded: bool
    by_columns: bool
    apart: int
    shares: int
    size: int


@inline
def odd_vectors(elements, vector):
    """So many elements in an odd number of vectors: what lies a power of two apart meets in a few sets of a cache."""
    return (-(-elements // vector) // 2 * 2 + 1) * vector


@inline
def seen_rows(d, outputs):
    """Rows of an image, padding included, that so many rows of output see."""
    return (outputs - 1) * d.stride_h + (d.kh - 1) * d.dilation_h + 1


@inline
def lies_inside(d):
    """Whether nothing sees any padding."""
    return d.pad_h == 0 and d.pad_w == 0 and seen_rows(d, d.oh) <= d.h and (d.ow - 1) * d.stride_w + d.kw <= d.w


@inline
def packed_layout(d, n, pointwise, vector):
    """The layout for n images and vectors of so many elements."""
    places, padded, depth = n * d.oh * d.ow, is_padded(d) and not pointwise, d.kh * d.kw * d.c
    units, least = (n * d.oh, int64(1)) if padded else (places, tile_rows(HIGH))
    by_columns = places < min(d.f, _FEW_PLACES) and panel_count(d.f, vector) >= MANY_PANELS
    wanted = max(_LEAST, -(-places * (depth if _SPANS else depth + d.f) // _NEAR))
    count, pairs = -(-units // least), -(-panel_count(d.f, vector) // 2)
    blocks = min(count, (1 if pairs >= _LEAST else 2) if by_columns else -(-wanted // 4) * 4)
    shares, most = min(blocks, _SHARES), -(-count // max(blocks, 1)) * least
    if pointwise or (padded and lies_inside(d)):
        return PackedLayout(units, least, blocks, padded, by_columns, int64(0), shares, int64(0))
    rows, apart = most, odd_vectors(depth, vector)
    if padded:
        rows, apart = seen_rows(d, most), odd_vectors(((d.ow - 1) * d.stride_w + d.kw) * d.c, vector)
    return PackedLayout(units, least, blocks, padded, by_columns, apart, shares, rows * apart)


@inline
def units_of(layout, block, blocks):
    """The first of a block's units, and the end."""
    low, high = share(-(-layout.units // layout.least), block, blocks)
    return low * layout.least, min(high * layout.least, layout.units)


def packed_scratch(d: Conv2dDims, n: int) -> int:
    """Elements of scratch for rows that are gathered or padded, in either dtype: at least what fewer images need."""
    places, depth, spare = n * d.oh * d.ow, d.kh * d.kw * d.c, 2 * LANES[0]
    few = min(n, -(-d.f // (d.oh * d.ow)))  # images that are shared out by columns
    if is_padded(d):
        row, least = ((d.ow - 1) * d.stride_w + d.kw) * d.c + spare, seen_rows(d, 1)
        hand = min(n * d.oh, _SHARES * max(1, _NEAR // (depth * d.ow) + 1)) * d.stride_h + _SHARES * least
        return row * max(few * seen_rows(d, d.oh), hand)
    hand = min(places, _SHARES * (_NEAR // depth)) + _SHARES * 3 * tile_rows(HIGH)
    return (depth + spare) * max(few * d.oh * d.ow, hand)


@inline
def fill(x, d, layout, part, to):
    """Put what the units `low` to `high` of image number `images` see where `to` is."""
    if layout.padded:
        low = part.low * d.stride_h
        pad_rows(
            x, d, part.images, low, low + seen_rows(d, part.high - part.low), Rows(to.memory, to.start, layout.apart)
        )
    else:
        gather_places(x, d, part.low, part.high, Rows(to.memory, to.start, layout.apart))


@separate
def multiply_part(
    x: Flat,
    d: Conv2dDims,
    layout: PackedLayout,
    part: Part,
    seen: Place,
    panels: Part,
    filters: Filling,
    epilogue: Epilogue,
    y: Rows,
) -> None:
    """Units of an image in some panels; what they see is in scratch, unless it is read as it lies."""
    runs, run, once = int64(d.kh), d.kw * d.c, int64(1)
    if layout.padded:
        row, rows = layout.apart, Rows(seen.memory, seen.start, d.stride_w * d.c)
        if layout.size == 0:
            row, rows = d.w * d.c, Rows(x, (part.images * d.h + part.low * d.stride_h) * d.w * d.c, d.stride_w * d.c)
        lines = Lines(part.high - part.low, d.ow, d.stride_h * row, d.ow * y.apart)
        sight, to = Sight(runs, run, d.dilation_h * row), (part.images * d.oh + part.low) * d.ow
    else:
        rows = Rows(seen.memory, seen.start, layout.apart)
        if layout.size == 0:
            rows = Rows(x, part.low * d.c, d.c)
        lines = Lines(once, part.high - part.low, 0 * once, 0 * once)
        sight, to = Sight(once, runs * run, 0 * once), part.low
    target = Rows(y.memory, y.start + to * y.apart, y.apart)
    rows_times_panels(lines, rows, sight, filters, panels.low, panels.high, epilogue, target)


@inline
def some_units(layout, d, low, high):
    """The first of the units `low` to `high` that belong to one image: (Part, where the next one goes on)."""
    if layout.padded:
        image = low // d.oh
        end = min(high, (image + 1) * d.oh)
        return Part(image, low - image * d.oh, end - image * d.oh), end
    return Part(int64(0), low, high), high


@inline
def place_of(layout, d, part):
    """Where in scratch all that units see lies, from the first of a part on."""
    if layout.padded:
        return (part.images * seen_rows(d, d.oh) + part.low * d.stride_h) * layout.apart
    return part.low * layout.apart


@separate
def multiply_places(
    x: Flat, d: Conv2dDims, layout: PackedLayout, packed: Flat, epilogue: Epilogue, scratch: Flat, y: Rows
) -> None:
    """y = x * filters, and what the epilogue asks for."""
    vector = lanes(packed)
    panels = panel_count(d.f, vector)
    filters = Filling(packed, 0, panel_size(d.kh * d.kw * d.c, vector), d.f, False)
    for item in prange(_LEAST if layout.by_columns and layout.size > 0 else 0):
        low, high = units_of(layout, item, _LEAST)
        while low < high:
            part, low = some_units(layout, d, low, high)
            fill(x, d, layout, part, Place(scratch, place_of(layout, d, part)))
    for item in prange(-(-panels // 2) * layout.blocks if layout.by_columns else 0):
        low, high = units_of(layout, item % layout.blocks, layout.blocks)
        first = item // layout.blocks * 2
        some = Part(1, first, min(first + 2, panels))
        while low < high:
            part, low = some_units(layout, d, low, high)
            seen = Place(scratch, place_of(layout, d, part))
            multiply_part(x, d, layout, part, seen, some, filters, epilogue, y)
    for item in prange(0 if layout.by_columns else layout.shares):
        begin, last = share(layout.blocks, item, layout.shares)
        for block in range(begin, last):
            low, high = units_of(layout, block, layout.blocks)
            while low < high:
                part, low = some_units(layout, d, low, high)
                seen = Place(scratch, item * layout.size)
                if layout.size > 0:
                    fill(x, d, layout, part, seen)
                multiply_part(x, d, layout, part, seen, Part(1, 0, panels), filters, epilogue, y)


# Rows in hand ---------------------------------------------------------------------------------------------------------

_ROWS_AT_ONCE = 4  # of output


@inline
def places_in_hand(d, vector):
    """Elements of scratch in which `compute_rows` keeps what its rows see."""
    if is_padded(d):
        return seen_rows(d, _ROWS_AT_ONCE) * odd_vectors(((d.ow - 1) * d.stride_w + d.kw) * d.c, vector)
    return _ROWS_AT_ONCE * d.ow * odd_vectors(d.kh * d.kw * d.c, vector)


@separate
def compute_rows(
    x: Flat,
    d: Conv2dDims,
    layout: PackedLayout,
    rows: Part,
    seen: Place,
    panels: Part,
    filters: Filling,
    epilogue: Epilogue,
    y: Rows,
) -> None:
    """`multiply_part` of rows `rows.low` to `rows.high` of image number `rows.images`, in all panels."""
    low = rows.low
    while low < rows.high:
        end = min(low + _ROWS_AT_ONCE, rows.high)
        part = Part(rows.images, low, end)
        if not layout.padded:
            first = rows.images * d.oh * d.ow
            part = Part(0 * low, first + low * d.ow, first + end * d.ow)
        if layout.size > 0:
            fill(x, d, layout, part, seen)
        multiply_part(x, d, layout, part, seen, panels, filters, epilogue, y)
        low = end


@separate
def move(memory: Flat, start: int, count: int, to: int) -> None:
    """Copy so many elements to a place before, which they may reach into."""
    for i in range(0, count, lanes(memory)):
        store(_VECTOR, load(_VECTOR, memory, start + i, 0, count - i), memory, to + i, 0, count - i)
