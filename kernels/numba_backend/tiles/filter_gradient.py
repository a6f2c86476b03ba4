"""The gradient of a convolution's filters: a contraction whose rows are taps, and whose sums run over positions.

dw[kh, kw, c, f] is the sum over images and output positions of x at the tap's source times dy. `add_panel` adds what
some output rows give, `sum_chunk` what a chunk of images gives. Each chunk has sums of its own, and `add_chunks` adds
them in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...shapes import Conv2dDims
from ..compiler.jit import Flat, inline, separate
from .gemm import (
    FULL,
    HALF,
    NARROW,
    ONE,
    VECTOR,
    Loop,
    Nest,
    contract,
    exchanged,
    is_two_halves,
    pack_rows,
    panel_width,
    sum_rows,
)
from .places import Panel, Part, Place, Rows
from .tile import LANES, REGISTERS, VECTOR_BYTES, TileShape, lanes, tile_add_to, tile_rows, tile_zeros

# Few channels give few rows side by side; with 5 or 3 of them, rows of several kh make one tile.
SIDE5, SIDE3 = TileShape(25 if REGISTERS == 32 else 10, 1, 5), TileShape(9, 1, 3)
TRIPLE = TileShape(8, 3, 8) if REGISTERS == 32 else TileShape(4, 3, 4)  # for three taps of a vector's channels each
SEVEN = TileShape(7, 2, 7)  # 21 rows, those of 7x7 filters over colours, are no multiple of 8
_PIXELS = 128  # positions summed in registers before the sums go to memory; their part of dy stays in the first cache
CHUNKS = 16


# --- Layout ---------------------------------------------------------------------------------------------------------


class ChunkLayout(NamedTuple):
    """What a chunk's scratch holds, after the sums of dw: where the sums of dy begin, a packed part of dy, and an image
    with its border; and how many elements it has."""

    sums: int
    packed: int
    padded: int
    size: int


@inline
def chunk_layout(d):
    """The layout of every chunk."""
    sums = d.kh * d.kw * (d.c // d.groups) * d.f
    packed = (sums + d.f + 15) // 16 * 16
    padded = packed + (_PIXELS + d.ow) * 2 * (VECTOR_BYTES // 4)
    size = padded
    if needs_padding(d):
        h, w = extent(d)
        size += (h * w * d.c + 15) // 16 * 16
    return ChunkLayout(sums, packed, padded, size)


@inline
def extent(d):
    """(h, w) of the image with what windows see around it."""
    end_h = (d.oh - 1) * d.stride_h + d.dilation_h * (d.kh - 1) + 1
    end_w = (d.ow - 1) * d.stride_w + d.dilation_w * (d.kw - 1) + 1
    return max(d.pad_h + d.h, end_h), max(d.pad_w + d.w, end_w)


@inline
def needs_padding(d):
    """Whether a copy of each image with its border of zeros is faster than taps clipped one channel count at a time.

    That of a far stride or dilation is all border. And it serves finite dy alone: the border is no term of a sum.
    """
    h, w = extent(d)
    compact = h <= d.h + d.oh * d.kh and w <= d.w + d.ow * d.kw
    gains = d.c < 8 or filters_are_rows(d)
    return h + w > d.h + d.w and compact and d.groups == 1 and d.dilation_w == 1 and gains


@inline
def filters_are_rows(d):
    """Whether the rows of tiles are filters, and taps the columns, in place of the other way round: where one vector
    holds all filters and several those of a row's taps. See `is_narrow` of `correlate`.

    The sums of a chunk then are [filter][tap].
    """
    whole = d.c % LANES[0] == 0 and d.kw * d.c >= 2 * LANES[0]
    return d.groups == 1 and d.dilation_w == 1 and tile_rows(TRIPLE) <= d.f <= LANES[0] and whole


@inline
def is_finite(memory, start, end):
    """Whether these elements are neither infinite nor NaN."""
    count = 0
    for i in range(start, end):
        if abs(memory[i]) < np.inf:
            count += 1
    return count == end - start


@inline
def images_summed(d):
    """How many small images `sum_chunk` takes at once."""
    return 1 if needs_padding(d) else max(1, _PIXELS // (d.oh * d.ow))


# --- Tiles ----------------------------------------------------------------------------------------------------------


@inline
def add_tile(shape, r, x, group, dy, nest, dw, first, columns):
    """One tile, of the rows from r on: dw[r, i] += `contract`, for i < columns, but not for the tile's rows before
    number `first`."""
    tile = contract(tile_zeros(shape, dw.memory), r, x, group, dy, nest)
    tile_add_to(tile, dw.memory, dw.start + r * dw.apart, dw.apart, first, columns)


@inline
def add_rows(count, x, dy, nest, dw, columns):
    """`add_tile` for r < count."""
    r = 0
    while r < count:
        left = count - r
        if dy.width > 2 * lanes(dw.memory):
            at = min(r, count - tile_rows(TRIPLE))
            add_tile(TRIPLE, at, x, 0, dy, nest, dw, r - at, columns)
            r = at + tile_rows(TRIPLE)
        elif dy.width == lanes(dw.memory) and left > tile_rows(FULL) and count >= tile_rows(NARROW):
            at = min(r, count - tile_rows(NARROW))
            add_tile(NARROW, at, x, 0, dy, nest, dw, r - at, columns)
            r = at + tile_rows(NARROW)
        elif count % tile_rows(SEVEN) == 0 and count % tile_rows(FULL) != 0 and dy.width > lanes(dw.memory):
            add_tile(SEVEN, r, x, 0, dy, nest, dw, 0, columns)
            r += tile_rows(SEVEN)
        elif left > tile_rows(HALF) and count >= tile_rows(FULL) and not is_two_halves(left, FULL):
            at = min(r, count - tile_rows(FULL))
            add_tile(FULL, at, x, 0, dy, nest, dw, r - at, columns)
            r = at + tile_rows(FULL)
        elif count >= tile_rows(HALF):
            at = min(r, count - tile_rows(HALF))
            add_tile(HALF, at, x, 0, dy, nest, dw, r - at, columns)
            r = at + tile_rows(HALF)
        else:
            add_tile(ONE, r, x, 0, dy, nest, dw, 0, columns)
            r += 1


# --- Panels ---------------------------------------------------------------------------------------------------------


class Pixels(NamedTuple):
    """Some neighbouring channels of dy, one or two vectors: its images and their pixels lie so far apart."""

    memory: Flat
    start: int
    image: int
    pixel: int
    width: int


@separate
def add_panel(x: Rows, dy: Pixels, part: Part, d: Conv2dDims, group: int, column: int, dw: Place) -> None:
    """Add a part of the output rows to the columns of dw that a panel of dy has.

    x are the images of the part, dy begins at its first row, in column number `column` of a group of filters.
    """
    row, f = d.w * d.c, d.f
    in_group, left = d.c // d.groups, d.f // d.groups - column
    columns = dw.start + group * (d.f // d.groups) + column
    side_by_side = joined(d)
    square = square_rows(d)
    if square > 0 and dy.width == lanes(dw.memory):
        nest = Nest(
            Loop(part.images, x.apart, dy.image),
            Loop(part.high - part.low, d.stride_h * row, d.ow * dy.pixel),
            Loop(d.ow, d.stride_w * d.c, dy.pixel),
        )
        panel = Panel(dy.memory, dy.start, dy.width)
        kh = 0
        while kh < d.kh:
            at = min(kh, d.kh - square)
            taps = Rows(x.memory, x.start + (part.low * d.stride_h + at * d.dilation_h) * row, 1)
            target, skip = Rows(dw.memory, columns + at * d.kw * d.c * f, f), (kh - at) * d.kw * d.c
            if d.kw * d.c == 5:
                add_tile(SIDE5, 0, taps, d.dilation_h * row, panel, nest, target, skip, left)
            else:
                add_tile(SIDE3, 0, taps, d.dilation_h * row, panel, nest, target, skip, left)
            kh = at + square
        return
    for kh in range(d.kh):
        first, end = real_outputs(d.h, d.stride_h, d.pad_h - kh * d.dilation_h, part.low, part.high)
        for kw in range(1 if side_by_side else d.kw):
            left_end, right_end = real_outputs(d.w, d.stride_w, d.pad_w - kw * d.dilation_w, 0, d.ow)
            if side_by_side:
                left_end, right_end = 0, d.ow
            nest = Nest(
                Loop(part.images, x.apart, dy.image),
                Loop(end - first, d.stride_h * row, d.ow * dy.pixel),
                Loop(right_end - left_end, d.stride_w * d.c, dy.pixel),
            )
            ih = first * d.stride_h - d.pad_h + kh * d.dilation_h
            iw = left_end * d.stride_w - d.pad_w + kw * d.dilation_w
            if end <= first or right_end <= left_end:
                continue
            taps = Rows(x.memory, x.start + ih * row + iw * d.c + group * in_group, 1)
            pixels = Rows(dy.memory, dy.start + ((first - part.low) * d.ow + left_end) * dy.pixel, 1)
            rows, tap = d.kw * d.c if side_by_side else in_group, (kh * d.kw + kw) * in_group
            target, count, span, stored = Rows(dw.memory, columns + tap * f, f), rows, dy.width, left
            exchange, i = filters_are_rows(d), 0
            if exchange:
                taps, pixels, nest = pixels, taps, exchanged(nest)
                target, count, span, stored = Rows(dw.memory, dw.start + tap, d.kh * d.kw * in_group), f, rows, rows
            while i < span:
                panel = Panel(pixels.memory, pixels.start + i, vectors_of(span - i, lanes(dw.memory)))
                to = Rows(target.memory, target.start + i, target.apart)
                if exchange and panel.width == lanes(dw.memory):  # behind the last image there may be no memory
                    for r in range(count):
                        add_tile(VECTOR, r, taps, 0, panel, nest, to, 0, stored - i)
                else:
                    add_rows(count, taps, panel, nest, to, stored - i)
                i += panel.width


@inline
def vectors_of(columns, vector):
    """The elements of the next two or three vectors of so many columns: so that none is left over, if there are two."""
    left = columns // vector
    return 3 * vector if left >= 3 and (left % 3 == 0 or left % 2 == 1) else min(left, 2) * vector


@inline
def real_outputs(sources, stride, before, low, high):
    """Outputs o from `low` to `high` whose source o stride - before exists."""
    return max(low, -(-before // stride)), min(high, (sources - 1 + before) // stride + 1)


@inline
def joined(d):
    """Whether all taps of one kh read neighbouring elements at every output."""
    return d.groups == 1 and d.dilation_w == 1 and extent(d)[1] == d.w


@inline
def square_rows(d):
    """How many kh share a tile, 0 if none do."""
    if not joined(d) or extent(d)[0] > d.h:
        return 0
    if d.kw * d.c == 5 and d.kh >= tile_rows(SIDE5) // 5:
        return tile_rows(SIDE5) // 5
    return 3 if d.kw * d.c == 3 and d.kh >= 3 else 0


# --- Chunks ---------------------------------------------------------------------------------------------------------


@separate
def copy_padded(x: Place, d: Conv2dDims, out: Place) -> None:
    """An image with its border of zeros."""
    h, w = extent(d)
    row = w * d.c
    for i in range(out.start, out.start + h * row):
        out.memory[i] = 0
    for ih in range(d.h):
        to = out.start + (ih + d.pad_h) * row + d.pad_w * d.c
        for i in range(d.w * d.c):
            out.memory[to + i] = x.memory[x.start + ih * d.w * d.c + i]


@inline
def padded_dims(d):
    """The sizes of the same convolution over images that have their border."""
    h, w = extent(d)
    return Conv2dDims(
        h, w, d.c, d.kh, d.kw, d.f, d.stride_h, d.stride_w, 0, 0, d.dilation_h, d.dilation_w, d.groups, d.oh, d.ow
    )


@separate
def sum_positions(dy: Rows, count: int, sums: Place) -> None:
    """sums[f] = the sum over `count` positions, whose channels lie side by side, of dy[.., f]."""
    for column in range(0, dy.apart, 2 * lanes(dy.memory)):
        channels = Rows(dy.memory, dy.start + column, dy.apart)
        sum_rows(channels, count, dy.apart - column, sums.memory, sums.start + column)


@separate
def sum_chunk(
    x: Flat, dy: Place, d: Conv2dDims, first: int, end: int, begin: bool, sums_wanted: bool, chunk: Place
) -> None:
    """Add the part of images `first` to `end` to the dw of a chunk, which begins at zero; and sum dy.

    The dy of image 0 lies, or would lie, at its start.
    """
    layout = chunk_layout(d)
    scratch, start, sums = chunk.memory, chunk.start, layout.sums
    for i in range(start, start + sums if begin else start):
        scratch[i] = 0
    packed, padded = start + layout.packed, start + layout.padded
    dy_image = d.oh * d.ow * d.f
    pad = needs_padding(d) and is_finite(dy.memory, dy.start + first * dy_image, dy.start + end * dy_image)
    e = padded_dims(d) if pad else d
    rows, together = min(d.oh, -(-_PIXELS // d.ow)), images_summed(d)
    filters = d.f // d.groups
    square = square_rows(e) > 0
    step, in_place = lanes(scratch) if square else 2 * lanes(scratch), square or filters_are_rows(d)
    for image in range(first, end, together):
        images = min(together, end - image)
        source = Rows(x, image * d.h * d.w * d.c, d.h * d.w * d.c)
        if pad:
            copy_padded(Place(x, source.start), d, Place(scratch, padded))
            source = Rows(scratch, padded, e.h * e.w * e.c)
        for low in range(0, d.oh, rows):
            part = Part(images, low, min(low + rows, d.oh))
            pixels, at = (part.high - low) * d.ow, dy.start + (image * d.oh + low) * d.ow * d.f
            for group in range(d.groups):
                for column in range(0, filters, step):
                    width = min(step, panel_width(column, filters, lanes(scratch)))
                    panel = Pixels(dy.memory, at, dy_image, d.f, width)
                    if d.groups > 1 or width != filters or (width < 2 * lanes(scratch) and not in_place):
                        panel = Pixels(scratch, packed, pixels * width, width, width)
                        for i in range(images):
                            channels = Rows(dy.memory, at + i * dy_image + group * filters + column, d.f)
                            to = Panel(scratch, packed + i * panel.image, width)
                            pack_rows(channels, pixels, min(width, filters - column), to)
                    add_panel(source, panel, part, e, group, column, Place(scratch, start))
    if sums_wanted:
        positions = Rows(dy.memory, dy.start + first * dy_image, d.f)
        sum_positions(positions, (end - first) * d.oh * d.ow, Place(scratch, start + sums))


@separate
def add_chunks(sums: Place, size: int, chunks: int, total: Flat, first: int, end: int) -> None:
    """total[i] = the sum over the chunks, in their order, of sums[chunk size + i], for first <= i < end."""
    for i in range(first, end):
        total[i] = sums.memory[sums.start + i]
    for chunk in range(1, chunks):
        for i in range(first, end):
            total[i] += sums.memory[sums.start + chunk * size + i]


@separate
def add_filter_chunks(sums: Place, size: int, chunks: int, d: Conv2dDims, dw: Flat, first: int, end: int) -> None:
    """`add_chunks` of dw, whose sums `sum_chunk` may leave filter by filter."""
    if filters_are_rows(d):
        taps = d.kh * d.kw * d.c
        for i in range(first, end):
            at = sums.start + i % d.f * taps + i // d.f
            total = sums.memory[at]
            for chunk in range(1, chunks):
                total += sums.memory[at + chunk * size]
            dw[i] = total
    else:
        add_chunks(sums, size, chunks, dw, first, end)
