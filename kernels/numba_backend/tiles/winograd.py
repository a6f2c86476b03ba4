"""Convolutions with filters of 3 by 3 in fewer multiplications: minimal filtering, F(2 x 2, 3 x 3).

A tile of 2 by 2 outputs sees 4 by 4 pixels d. With fixed matrices of 0, ±1 and ±1/2 it is

    y = Aᵀ [(G g Gᵀ) * (Bᵀ d B)] A

for each pair of a channel and a filter g, where * multiplies element by element: 16 products in place of 36 (Winograd,
*Arithmetic Complexity of Computations*, 1980; Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
2016). Summed over channels, each of the 16 places is a matrix product of its own, tiles by channels with channels by
filters. The filters' side is made once, in float64. An output's own 3 by 3 pixels alone go into it: what the 16 terms
take from the rest of the tile cancels before it is multiplied, or goes to other outputs.

Tiles come in blocks. A block's transforms lie in a cache between the passes that make and read them: in the second of
one thread, if channels and filters are few; else in the last, where all threads share each pass of a block, so that
each reads its part of the filters alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ...shapes import Conv2dDims
from ..compiler.jit import Flat, inline, prange, separate
from .chunks import load, share, store
from .gemm import FULL, Epilogue, panel_count, panel_width
from .packed import HIGH, Filling, Lines, Sight, rows_times_panels, spans
from .places import Rows
from .tile import (
    LANES,
    TileShape,
    flat,
    given,
    lanes,
    nothing,
    tile_add,
    tile_load,
    tile_load_partial,
    tile_rows,
    tile_store,
    tile_subtract,
    tile_where_exceeds,
    tile_where_positive,
    tile_zeros,
)

_LINE = TileShape(1, 1, 1)
_TERMS = 16  # products of a tile


@inline
def is_winograd(d):
    """Whether inference takes this path: the transforms cost as much as some ten channels or filters."""
    small = d.kh == 3 and d.kw == 3 and d.stride_h == 1 and d.stride_w == 1 and d.dilation_h == 1 and d.dilation_w == 1
    return small and d.groups == 1 and d.c >= _FEWEST and d.f >= _FEWEST and d.oh >= 4 and d.ow >= 4


_FEWEST = 16  # channels, and filters
_OWN, _SHARED = 64, 128  # tiles of a block of one thread, and of all
_LIGHT = 320  # channels and filters of these
_SHARES = 8  # of the blocks, each with room for transforms


class Grid(NamedTuple):
    """How outputs are cut into tiles: so many rows and columns of an image's, and whether each is a pooling window."""

    rows: int
    columns: int
    pooled: bool


class Transforms(NamedTuple):
    """Scratch for the transforms of a block of tiles: 16 matrices of tiles by channels, and 16 of tiles by filters.

    Their rows are `source.apart` and `output.apart` apart, the matrices `source_plane` and `output_plane`.
    """

    source: Rows
    output: Rows
    source_plane: int
    output_plane: int


class WinogradLayout(NamedTuple):
    """How `tiles` are cut into `blocks` of at most `block`, whether these are `own`, each one thread's, and scratch.

    shares: of the blocks, or 1. source, output: elements from a tile's channels to the next one's, and filters.
    source_plane, output_plane: from one of the 16 matrices to the next. size: elements of a share's transforms.
    """

    tiles: int
    blocks: int
    block: int
    own: bool
    shares: int
    source: int
    output: int
    source_plane: int
    output_plane: int
    size: int


@inline
def odd_lines(elements, vector):
    """So many elements in an odd number of vectors: what lies a power of two apart meets in a few sets of a cache."""
    return (-(-elements // vector) // 2 * 2 + 1) * vector


@inline
def row_sizes(d, vector):
    """Elements from a tile's channels to the next one's, and from its filters."""
    return odd_lines(d.c, vector), odd_lines(panel_count(d.f, vector) * 2 * vector, vector)


@inline
def is_light(d):
    """Whether a block's transforms fit into one thread's cache."""
    return d.c + d.f <= _LIGHT


@inline
def winograd_layout(d, tiles, vector):
    """The layout of so many tiles, for vectors of so many elements."""
    own = is_light(d) and tiles > _SHARED
    # In whole rows of the products' tiles, and blocks in numbers that several numbers of threads divide.
    step = tile_rows(HIGH) if spans(d.f, vector) else tile_rows(FULL)
    units, most = -(-tiles // step), (_OWN if own else _SHARED) // step
    wanted = -(-units // most)
    if own:
        wanted = -(-wanted // 4) * 4
    block = -(-units // wanted) * step
    blocks = -(-tiles // block)
    shares = min(blocks, _SHARES) if own else 1
    source, output = row_sizes(d, vector)
    source_plane, output_plane = odd_lines(block * source, vector), odd_lines(block * output, vector)
    size = _TERMS * (source_plane + output_plane)
    return WinogradLayout(tiles, blocks, block, own, shares, source, output, source_plane, output_plane, size)


def winograd_scratch(d: Conv2dDims, n: int) -> int:
    """Elements of scratch for the transforms, in either dtype, and for n outputs before they are pooled.

    At least what fewer tiles need, which may be cut into larger blocks.
    """
    tiles = min(_SHARES * _OWN if is_light(d) else _SHARED, 2 * n * -(-d.oh // 2) * -(-d.ow // 2) + 8 * tile_rows(FULL))
    rows = max(tiles * sum(row_sizes(d, vector)) for vector in LANES)
    return int(_TERMS * (rows + 2 * _SHARES * 2 * LANES[0]) + n * d.oh * d.ow * d.f)


# --- The filters ----------------------------------------------------------------------------------------------------


def winograd_size(d: Conv2dDims) -> int:
    """Elements of transformed filters, in either dtype."""
    return max(_TERMS * d.c * panel_count(d.f, vector) * 2 * vector for vector in LANES)


@inline
def filtered(g, h, k):
    """G (g, h, k)."""
    return g, (g + h + k) * 0.5, (g - h + k) * 0.5, k


@inline
def transform_filters(w, d, f, scale, packed):
    """Filter f of w (3, 3, c, f) times `scale` to G g Gᵀ, as the products read it: [term][panel][channel][filters]."""
    vector = lanes(packed)
    column = f // (2 * vector) * 2 * vector
    width, panels = panel_width(column, d.f, vector), panel_count(d.f, vector)
    for channel in range(d.c):
        at, tap = channel * d.f + f, d.c * d.f
        u0, u1, u2, u3 = filtered(float(w[at]) * scale, float(w[at + 3 * tap]) * scale, float(w[at + 6 * tap]) * scale)
        at += tap
        v0, v1, v2, v3 = filtered(float(w[at]) * scale, float(w[at + 3 * tap]) * scale, float(w[at + 6 * tap]) * scale)
        at += tap
        t0, t1, t2, t3 = filtered(float(w[at]) * scale, float(w[at + 3 * tap]) * scale, float(w[at + 6 * tap]) * scale)
        rows = (filtered(u0, v0, t0), filtered(u1, v1, t1), filtered(u2, v2, t2), filtered(u3, v3, t3))
        for i in range(4):
            for j in range(4):
                panel = ((4 * i + j) * panels + column // (2 * vector)) * d.c * 2 * vector
                packed[panel + channel * width + f - column] = rows[i][j]


# --- Tiles ----------------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Which rows and columns of a tile's 4 by 4 pixels lie in the image: from `top` to `bottom`, `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


@inline
def pixel(x, at, i, j, d, channels, span):
    """So many channels of a pixel of a tile, zeros in the padding.

    By a branch: a masked load of nothing, from memory that may not be there, takes the processor a thousand cycles.
    """
    if span.top <= i and i < span.bottom and span.left <= j and j < span.right:
        value = load(_LINE, x, at + (i * d.w + j) * d.c, 0, channels)
    else:
        value = tile_zeros(_LINE, x)
    return value


@inline
def differences(a, b, c, e):
    """Bᵀ (a, b, c, e)."""
    return tile_subtract(a, c), tile_add(b, c), tile_subtract(c, b), tile_subtract(b, e)


@inline
def pixel_column(x, at, j, d, channels, span):
    """Bᵀ of a column of pixels."""
    return differences(
        pixel(x, at, 0, j, d, channels, span),
        pixel(x, at, 1, j, d, channels, span),
        pixel(x, at, 2, j, d, channels, span),
        pixel(x, at, 3, j, d, channels, span),
    )


@inline
def put_row(a, b, c, e, v, to, apart):
    """Bᵀ of a row of the columns' transforms, to four terms."""
    p, q, r, s = differences(a, b, c, e)
    tile_store(p, v, to, 0)
    tile_store(q, v, to + apart, 0)
    tile_store(r, v, to + 2 * apart, 0)
    tile_store(s, v, to + 3 * apart, 0)


@inline
def transform_pixels(x, at, d, channels, span, v, to, apart):
    """Bᵀ d B of one vector of channels, the 16 terms `apart` from each other."""
    a0, a1, a2, a3 = pixel_column(x, at, 0, d, channels, span)
    b0, b1, b2, b3 = pixel_column(x, at, 1, d, channels, span)
    c0, c1, c2, c3 = pixel_column(x, at, 2, d, channels, span)
    e0, e1, e2, e3 = pixel_column(x, at, 3, d, channels, span)
    put_row(a0, b0, c0, e0, v, to, apart)
    put_row(a1, b1, c1, e1, v, to + 4 * apart, apart)
    put_row(a2, b2, c2, e2, v, to + 8 * apart, apart)
    put_row(a3, b3, c3, e3, v, to + 12 * apart, apart)


@separate
def transform_tiles(x: Flat, d: Conv2dDims, grid: Grid, block: int, first: int, end: int, to: Transforms) -> None:
    """Bᵀ d B of tiles number `first` to `end`, of a block that begins with number `block`."""
    source, vector = to.source, lanes(x)
    apart = to.source_plane
    for tile in range(first, end):
        row, column = tile // grid.columns % grid.rows * 2 - d.pad_h, tile % grid.columns * 2 - d.pad_w
        image = tile // (grid.columns * grid.rows)
        at = ((image * d.h + row) * d.w + column) * d.c
        span = Span(-row, d.h - row, -column, d.w - column)
        inside = row >= 0 and column >= 0 and row + 4 <= d.h and column + 4 <= d.w
        start = source.start + (tile - block) * source.apart
        for channel in range(0, d.c, vector):
            if inside and d.c - channel >= vector:
                transform_pixels(x, at + channel, d, vector, Span(0, 4, 0, 4), source.memory, start + channel, apart)
            else:
                transform_pixels(x, at + channel, d, d.c - channel, span, source.memory, start + channel, apart)


@separate
def multiply_tiles(filters: Flat, none: Flat, d: Conv2dDims, tiles: int, term: int, to: Transforms) -> None:
    """One of the 16 products, for so many tiles of a block. There is no bias yet: `none` is empty."""
    source, output, vector = to.source, to.output, lanes(filters)
    count, size, columns = panel_count(d.f, vector), d.c * 2 * vector, -(-d.f // vector) * vector
    rows = Rows(source.memory, source.start + term * to.source_plane, source.apart)
    target = Rows(output.memory, output.start + term * to.output_plane, output.apart)
    panels, epilogue = (
        Filling(filters, term * count * size, size, columns, False),
        Epilogue(none, 0, 0, False, False, nothing(none)),
    )
    rows_times_panels(Lines(1, tiles, 0, 0), rows, Sight(1, d.c, 0), panels, 0, count, epilogue, target)


@inline
def sums(a, b, c, e):
    """Aᵀ (a, b, c, e)."""
    return tile_add(a, tile_add(b, c)), tile_subtract(tile_subtract(b, c), e)


@inline
def term_row(m, at, apart):
    """Aᵀ of a row of four terms."""
    return sums(
        tile_load(_LINE, m, at, 0),
        tile_load(_LINE, m, at + apart, 0),
        tile_load(_LINE, m, at + 2 * apart, 0),
        tile_load(_LINE, m, at + 3 * apart, 0),
    )


@inline
def rectified(value, relu):
    """The ReLU, if it is wanted."""
    if relu:
        value = tile_where_positive(value, value)
    return value


@inline
def greater(value, best):
    """The maximum of two, or the first NaN."""
    return tile_where_exceeds(value, best, value, best)


class Finish(NamedTuple):
    """What becomes of the sums: a bias, what is `added`, unless that is empty, perhaps a ReLU, and where they go.

    `y` are pixels, `added` others that lie one after the other.
    """

    bias: Flat
    added: Flat
    relu: bool
    y: Rows


@inline
def put_pixel(value, finish, pixel, filters, channel):
    """One vector of channels of a pixel, of which there are so many filters."""
    left = filters - channel
    if given(finish.added):
        value = tile_add(value, load(_LINE, finish.added, pixel * filters + channel, 0, left))
    to = finish.y.start + pixel * finish.y.apart + channel
    store(_LINE, rectified(value, finish.relu), finish.y.memory, to, 0, left)


@separate
def finish_tiles(d: Conv2dDims, grid: Grid, block: int, first: int, end: int, of: Transforms, finish: Finish) -> None:
    """y = Aᵀ m A + bias of tiles number `first` to `end`, of a block that begins with number `block`."""
    m, vector = of.output.memory, lanes(finish.bias)
    apart = of.output_plane
    for tile in range(first, end):
        row, column = tile // grid.columns % grid.rows, tile % grid.columns
        image = tile // (grid.columns * grid.rows)
        below, beside = 2 * row + 1 < d.oh, 2 * column + 1 < d.ow
        start = of.output.start + (tile - block) * of.output.apart
        pixel = (image * d.oh + 2 * row) * d.ow + 2 * column
        for channel in range(0, d.f, vector):
            left, at = d.f - channel, start + channel
            bias = tile_load_partial(_LINE, finish.bias, channel, 0, left)  # a branch would change the order of sums
            a, b = term_row(m, at, apart)
            a1, b1 = term_row(m, at + 4 * apart, apart)
            a2, b2 = term_row(m, at + 8 * apart, apart)
            a3, b3 = term_row(m, at + 12 * apart, apart)
            y00, y10 = sums(a, a1, a2, a3)
            y01, y11 = sums(b, b1, b2, b3)
            y00, y01, y10, y11 = tile_add(y00, bias), tile_add(y01, bias), tile_add(y10, bias), tile_add(y11, bias)
            if grid.pooled:
                y00, y01 = rectified(y00, finish.relu), rectified(y01, finish.relu)
                y10, y11 = rectified(y10, finish.relu), rectified(y11, finish.relu)
                peak, to = greater(y11, greater(y10, greater(y01, y00))), finish.y.start + tile * finish.y.apart
                store(_LINE, peak, finish.y.memory, to + channel, 0, left)
            else:
                put_pixel(y00, finish, pixel, d.f, channel)
                if beside:
                    put_pixel(y01, finish, pixel + 1, d.f, channel)
                if below:
                    put_pixel(y10, finish, pixel + d.ow, d.f, channel)
                if below and beside:
                    put_pixel(y11, finish, pixel + d.ow + 1, d.f, channel)


# --- All of it ------------------------------------------------------------------------------------------------------


@inline
def transforms(scratch, share_, layout):
    """The transforms' places in the scratch of a share."""
    start = share_ * layout.size
    source = Rows(scratch, start, layout.source)
    output = Rows(scratch, start + _TERMS * layout.source_plane, layout.output)
    return Transforms(source, output, layout.source_plane, layout.output_plane)


@inline
def winograd(x, packed, finish, grid, d, scratch):
    """y = relu(x * filters + bias), or its maxima over windows of 2 by 2 where the grid is `pooled`."""
    vector, none = lanes(packed), packed[:0]
    layout = winograd_layout(d, x.shape[0] * grid.rows * grid.columns, vector)
    for item in prange(layout.shares if layout.own else 0):
        to = transforms(flat(scratch), item, layout)
        low, high = share(layout.blocks, item, layout.shares)
        for number in range(low, high):
            block = number * layout.block
            end = min(block + layout.block, layout.tiles)
            transform_tiles(flat(x), d, grid, block, block, end, to)
            for term in range(_TERMS):
                multiply_tiles(flat(packed), flat(none), d, end - block, term, to)
            finish_tiles(d, grid, block, block, end, to, finish)
    for number in range(0 if layout.own else layout.blocks):
        block = number * layout.block
        tiles = min(layout.block, layout.tiles - block)
        for item in prange(_TERMS):
            first, end = share(tiles, item, _TERMS)
            to = transforms(flat(scratch), 0, layout)
            transform_tiles(flat(x), d, grid, block, block + first, block + end, to)
        for term in prange(_TERMS):
            to = transforms(flat(scratch), 0, layout)
            multiply_tiles(flat(packed), flat(none), d, tiles, term, to)
        for item in prange(_TERMS):
            first, end = share(tiles, item, _TERMS)
            to = transforms(flat(scratch), 0, layout)
            finish_tiles(d, grid, block, block + first, block + end, to, finish)
