"""Convolutions. Formulas and shapes: `kernels.interface`.

Forward, and the gradient of the input, are `tiles.correlate`; the gradient of the filters is `tiles.filter_gradient`.
A transposed convolution is the gradient of the input, and its own gradients are the forward, and the gradient of the
filters with the two images exchanged. With one filter a channel both are `tiles.depthwise`.
"""

from __future__ import annotations

from ..shapes import Conv2dDims
from .compiler.jit import inline, kernel, prange
from .tiles.chunks import share
from .tiles.correlate import (
    ITEMS,
    Filters,
    correlate_rows,
    correlation_layout,
    few_positions,
    images_of,
    interleave,
    is_depthwise,
    pack_filters,
)
from .tiles.depthwise import depthwise_row, sum_depthwise_chunk
from .tiles.filter_gradient import CHUNKS, add_chunks, add_filter_chunks, chunk_layout, sum_chunk, sum_positions
from .tiles.places import Maps, Place, Rows
from .tiles.tile import LANES, flat, lanes

__all__ = [
    "conv2d",
    "conv2d_backward",
    "conv2d_backward_scratch",
    "conv2d_scratch",
    "convtranspose2d",
    "convtranspose2d_backward",
    "convtranspose2d_backward_scratch",
    "convtranspose2d_scratch",
]


def conv2d_scratch(d: Conv2dDims, n: int) -> int:
    """Interleaved images and packed filters, in either dtype."""
    return max(int(correlation_layout(d, n, False, 0, vector).end) for vector in LANES)


@kernel(optional={"b": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def conv2d(x, w, b, d, scratch, y):
    """y = x * w + b."""
    correlate(x, w, b, d, False, d.h * d.w * d.c, d.oh * d.ow * d.f, scratch, 0, y)


@inline
def correlate(x, w, b, d, flipped, x_image, y_image, scratch, start, y):
    """y = x * w + b, transposed if `flipped`, of images of so many elements each, with scratch from `start` on."""
    n, depthwise = x.shape[0], is_depthwise(d)
    layout, rows = correlation_layout(d, n, flipped, start, lanes(y)), n * y.shape[1]
    if not depthwise:
        rows = layout.rows
        pack_filters(flat(w), d, flipped, Place(flat(scratch), layout.filters))
        if layout.block > 0:
            for block in prange(layout.blocks):
                interleave(Place(flat(x), 0), n, x_image, block, layout, flat(scratch))
    items = min(rows, ITEMS)
    for i in prange(items):
        low, high = share(rows, i, items)
        if depthwise:
            for row in range(low, high):
                depthwise_row(flat(x), row, d, flipped, flat(w), flat(b), False, Rows(flat(y), 0, d.c))
        else:
            images = images_of(Place(flat(x), 0), flat(scratch), n, layout)
            filters = Filters(flat(scratch), layout.filters, flat(b), False)
            maps = Maps(flat(y), 0, y_image, d.c if flipped else d.f)
            correlate_rows(images, low, high, d, flipped, filters, maps)


def conv2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Chunks, and what the gradient of the input takes, in either dtype."""
    return max(int(gradient_layout(d, n, vector).end) for vector in LANES)


@inline
def gradient_layout(d, n, vector):
    """The layout in scratch of the gradient of the input, behind the chunks."""
    return correlation_layout(d, n, True, min(n, CHUNKS) * chunk_layout(d).size, vector)


@kernel(optional={"dx": 4, "db": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def conv2d_backward(dy, x, w, d, scratch, dx, dw, db):
    """dx, dw and db = the sum of dy over images and positions."""
    n, none, depthwise = x.shape[0], scratch[:0], is_depthwise(d)
    size, chunks = chunk_layout(d).size, min(n, CHUNKS)
    layout = gradient_layout(d, n, lanes(dw))
    rows, blocks = 0, 0
    if dx.size:
        rows = n * d.h
        if not depthwise:
            rows = layout.rows
            if layout.block > 0:
                blocks = layout.blocks
            pack_filters(flat(w), d, True, Place(flat(scratch), layout.filters))
    for chunk in prange(chunks):
        first, end = share(n, chunk, chunks)
        place = Place(flat(scratch), chunk * size)
        if depthwise:
            sum_depthwise_chunk(flat(x), flat(dy), d, first, end, db.size > 0, place)
        else:
            sum_chunk(flat(x), Place(flat(dy), 0), d, first, end, True, db.size > 0, place)
        first, end = share(blocks, chunk, chunks)
        for block in range(first, end):
            interleave(Place(flat(dy), 0), n, d.oh * d.ow * d.f, block, layout, flat(scratch))
    if db.size:
        add_chunks(Place(flat(scratch), chunk_layout(d).sums), size, chunks, flat(db), 0, db.size)
    items = max(min(rows, ITEMS), CHUNKS)
    for item in prange(items):  # each with its share of dw, so that every thread gets as much of either
        first, end = share(dw.size, item, items)
        add_filter_chunks(Place(flat(scratch), 0), size, chunks, d, flat(dw), first, end)
        low, high = share(rows, item, items)
        if depthwise:
            for row in range(low, high):
                depthwise_row(flat(dy), row, d, True, flat(w), flat(none), False, Rows(flat(dx), 0, d.c))
        else:
            images = images_of(Place(flat(dy), 0), flat(scratch), n, layout)
            filters = Filters(flat(scratch), layout.filters, flat(none), False)
            correlate_rows(images, low, high, d, True, filters, Maps(flat(dx), 0, d.h * d.w * d.c, d.c))


def convtranspose2d_scratch(d: Conv2dDims, n: int) -> int:
    """Interleaved images and packed filters, in either dtype."""
    return max(int(correlation_layout(d, n, True, 0, vector).end) for vector in LANES)


@kernel(optional={"b": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def convtranspose2d(x, w, b, d, scratch, y):
    """y = the gradient by the input of the convolution, and b."""
    correlate(x, w, b, d, True, d.oh * d.ow * d.f, d.h * d.w * d.c, scratch, 0, y)


@inline
def transposed_slot(d):
    """Elements of a chunk and of the sums of dy behind it."""
    return chunk_layout(d).size + (d.c + 15) // 16 * 16


def convtranspose2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """Chunks with sums of dy, and what the convolution of dy takes, in either dtype."""
    start = min(n, CHUNKS) * transposed_slot(d)
    return max(int(correlation_layout(d, n, False, start, vector).end) for vector in LANES)


@kernel(optional={"dx": 4, "db": 1}, small=lambda x, w, d: few_positions(len(x), d, w.size))
def convtranspose2d_backward(dy, x, w, d, scratch, dx, dw, db):
    """dx = dy * w, dw as that of the convolution from dy to x, and db = the sum of dy over images and positions."""
    n, none, depthwise = x.shape[0], scratch[:0], is_depthwise(d)
    slot, chunks, image = transposed_slot(d), min(x.shape[0], CHUNKS), d.h * d.w * d.c
    for chunk in prange(chunks):
        first, end = share(n, chunk, chunks)
        place = Place(flat(scratch), chunk * slot)
        if depthwise:
            sum_depthwise_chunk(flat(dy), flat(x), d, first, end, False, place)
        else:
            sum_chunk(flat(dy), Place(flat(x), 0), d, first, end, True, False, place)
        if db.size:
            sums = Place(flat(scratch), chunk * slot + chunk_layout(d).size)
            sum_positions(Rows(flat(dy), first * image, d.c), (end - first) * d.h * d.w, sums)
    if db.size:
        add_chunks(Place(flat(scratch), chunk_layout(d).size), slot, chunks, flat(db), 0, db.size)
    for i in prange(CHUNKS):
        first, end = share(dw.size, i, CHUNKS)
        add_filter_chunks(Place(flat(scratch), 0), slot, chunks, d, flat(dw), first, end)
    if dx.size:
        correlate(dy, w, none, d, False, image, d.oh * d.ow * d.f, scratch, chunks * slot, dx)
