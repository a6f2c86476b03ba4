"""Pooling: window after window, with a vector of one position's channels in registers.

Images are taken as their rows, (N·H, W, C), and cut by rows of windows; backwards by images, since windows may overlap.
Positions in a window are counted in the images' dtype, so that they lie in registers of the same kind: whole numbers
up to 2²⁴ in float32. Windows with more of them are gone through one by one.
"""

from __future__ import annotations

import numpy as np
from numpy import int64

from ..interface import Input, Output
from ..shapes import Pool2dDims
from .compiler.jit import inline, kernel, prange, serial
from .tiles.chunks import clear, load, run, store
from .tiles.tile import (
    TileShape,
    flat,
    lanes,
    tile_add,
    tile_fill,
    tile_load_integers,
    tile_multiply,
    tile_multiply_add,
    tile_rows,
    tile_store_integers,
    tile_where_equal,
    tile_where_exceeds,
    tile_zeros,
)

__all__ = ["avgpool2d", "avgpool2d_backward", "maxpool2d", "maxpool2d_backward"]

WINDOW = TileShape(1, 1, 1)
WINDOWS = TileShape(4, 1, 4)
"""Neighbouring windows in one row, a vector each: what it takes to go through their positions is shared."""


EXACT = 1 << 24  # positions that float32 counts


@inline
def before(start, dilation, size, end):
    """How many of a window's positions along one axis lie before `end`."""
    if dilation == 1:  # without the division
        return min(size, end - start)
    return min(size, (end - 1 - start) // dilation + 1)


@inline
def window(index, stride, padding, dilation, size, length):
    """(start, begin, end) along one axis: where the window starts, and which of its positions lie in the image."""
    start = index * stride - padding
    begin = max(0, -start) if dilation == 1 else max(0, -(start // dilation))
    return start, begin, before(start, dilation, size, length)


@inline
def along(row, d, work, arguments):
    """work(shape, d, window, place, bounds, *arguments) for a row of windows, several at once where they are whole.

    `window` is the number of the first one, `place` where it starts in the images' memory, by channels, and `bounds`
    are those of the positions that lie in the image, how far these are apart, and how many lie in it or its padding.
    """
    image, p = row // d.oh, row % d.oh
    top, upper, lower = window(p, d.stride_h, d.pad_h, d.dilation_h, d.kh, d.h)
    rows = before(top, d.dilation_h, d.kh, d.h + d.end_h)
    dilated = d.dilation_h > 1 or d.dilation_w > 1
    whole = 0 if dilated else (d.w + d.pad_w - d.kw) // d.stride_w + 1
    q = 0
    while q < d.ow:
        number, left = row * d.ow + q, q * d.stride_w - d.pad_w
        place = (image * d.h + top) * d.w + left
        if left >= 0 and q + tile_rows(WINDOWS) <= whole:  # distances and the usual size are to the compiler constants
            if d.kh == 2 and d.kw == 2 and lower - upper == 2:
                work(WINDOWS, d, number, place, (0, 2, 0, 2, 1, 1, 4), *arguments)
            else:
                work(WINDOWS, d, number, place, (upper, lower, 0, d.kw, 1, 1, rows * d.kw), *arguments)
            q += tile_rows(WINDOWS)
            continue
        left, first, last = window(q, d.stride_w, d.pad_w, d.dilation_w, d.kw, d.w)
        counted = rows * before(left, d.dilation_w, d.kw, d.w + d.end_w)
        if dilated:
            distant = (upper, lower, first, last, d.dilation_h, d.dilation_w, counted)
            work(WINDOW, d, number, place, distant, *arguments)
        else:
            work(WINDOW, d, number, place, (upper, lower, first, last, 1, 1, counted), *arguments)
        q += 1


@inline
def maxima(shape, d, number, place, bounds, x, y, argmax):
    """The greatest of each window, and its position."""
    upper, lower, first, last, down, across, _ = bounds
    stride = d.stride_w * d.c
    for c in range(0, d.c, lanes(x)):
        at = tile_fill(shape, x, upper * d.kw + first)
        best = tile_fill(shape, x, -np.inf)
        for i in range(upper, lower):
            for j in range(first, last):
                value = load(shape, x, (place + i * down * d.w + j * across) * d.c + c, stride, d.c - c)
                at = tile_where_exceeds(value, best, tile_fill(shape, x, i * d.kw + j), at)
                best = tile_where_exceeds(value, best, value, best)
        store(shape, best, y, number * d.c + c, d.c, d.c - c)
        tile_store_integers(at, argmax, number * d.c + c, d.c, d.c - c)


@serial
def maxima_one_by_one(row, d, x, y, argmax):
    """`maxima` of a row of windows, with positions that are integers."""
    image, p = row // d.oh, row % d.oh
    top, upper, lower = window(p, d.stride_h, d.pad_h, d.dilation_h, d.kh, d.h)
    for q in range(d.ow):
        left, first, last = window(q, d.stride_w, d.pad_w, d.dilation_w, d.kw, d.w)
        for c in range(d.c):
            at, best = upper * d.kw + first, x.dtype.type(-np.inf)
            for i in range(upper, lower):
                for j in range(first, last):
                    place = (image * d.h + top + i * d.dilation_h) * d.w + left + j * d.dilation_w
                    value = x[place * d.c + c]
                    if value > best or (np.isnan(value) and not np.isnan(best)):
                        at, best = i * d.kw + j, value
            y[(row * d.ow + q) * d.c + c] = best
            argmax[(row * d.ow + q) * d.c + c] = at


@kernel
def _maxpool2d(x, d, y, argmax):
    for row in prange(y.size // (d.ow * d.c)):
        along(row, d, maxima, (flat(x), flat(y), flat(argmax)))


@kernel
def _maxpool2d_one_by_one(x, d, y, argmax):
    for row in prange(y.size // (d.ow * d.c)):
        maxima_one_by_one(row, d, x, y, argmax)


@inline
def averages(shape, d, number, place, bounds, count_include_pad, x, y):
    """The mean of each window."""
    upper, lower, first, last, down, across, _ = bounds
    stride = d.stride_w * d.c
    scale = tile_fill(shape, x, weight(d, count_include_pad, bounds))
    for c in range(0, d.c, lanes(x)):
        mean = tile_zeros(shape, x)
        for i in range(upper, lower):
            for j in range(first, last):
                value = load(shape, x, (place + i * down * d.w + j * across) * d.c + c, stride, d.c - c)
                mean = tile_multiply_add(mean, value, scale)
        store(shape, mean, y, number * d.c + c, d.c, d.c - c)


@inline
def weight(d, count_include_pad, bounds):
    """What each position of a window counts for."""
    upper, lower, first, last, _, _, counted = bounds
    return 1 / (counted if count_include_pad else (lower - upper) * (last - first))


@kernel
def _avgpool2d(x, d, count_include_pad, y):
    for row in prange(y.size // (d.ow * d.c)):
        along(row, d, averages, (count_include_pad, flat(x), flat(y)))


@inline
def give(shape, d, share, dx, place, columns):
    """Write what windows give to a position each, or add it where windows overlap."""
    stride = d.stride_w * d.c
    if d.stride_h <= d.dilation_h * (d.kh - 1) or d.stride_w <= d.dilation_w * (d.kw - 1):
        share = tile_add(share, load(shape, dx, place, stride, columns))
    store(shape, share, dx, place, stride, columns)


@inline
def to_maxima(shape, d, number, place, bounds, dy, argmax, dx):
    """Give each window's gradient to its maximum."""
    upper, lower, first, last, down, across, _ = bounds
    for c in range(0, d.c, lanes(dy)):
        gradient = load(shape, dy, number * d.c + c, d.c, d.c - c)
        at = tile_load_integers(shape, dy, argmax, number * d.c + c, d.c, d.c - c)
        for i in range(upper, lower):
            for j in range(first, last):
                position = tile_fill(shape, dy, i * d.kw + j)
                share = tile_where_equal(at, position, gradient)
                give(shape, d, share, dx, (place + i * down * d.w + j * across) * d.c + c, d.c - c)


@inline
def to_all(shape, d, number, place, bounds, count_include_pad, dy, dx):
    """Share each window's gradient out to its positions."""
    upper, lower, first, last, down, across, _ = bounds
    scale = tile_fill(shape, dy, weight(d, count_include_pad, bounds))
    for c in range(0, d.c, lanes(dy)):
        share = tile_multiply(load(shape, dy, number * d.c + c, d.c, d.c - c), scale)
        for i in range(upper, lower):
            for j in range(first, last):
                give(shape, d, share, dx, (place + i * down * d.w + j * across) * d.c + c, d.c - c)


@inline
def backward(image, d, work, arguments, dx):
    """`along` all rows of an image. Rows of dx are cleared just before they are written to, while they are cached."""
    start, row = image * d.h * d.w * d.c, d.w * d.c
    dense = d.dilation_h == 1 and d.dilation_w == 1
    apart = d.stride_h == d.kh and d.stride_w == d.kw and dense and not (d.pad_h or d.pad_w)
    cleared = d.h if apart and d.oh * d.kh == d.h and d.ow * d.kw == d.w else 0  # windows that leave no gaps need none
    for p in range(d.oh):
        top, _, lower = window(p, d.stride_h, d.pad_h, d.dilation_h, d.kh, d.h)
        reached = d.h if p == d.oh - 1 else top + (lower - 1) * d.dilation_h + 1
        if reached > cleared:
            clear(dx[start + cleared * row : start + reached * row])
            cleared = reached
        along(image * d.oh + p, d, work, arguments)


@serial
def to_maxima_one_by_one(image, d, dy, argmax, dx):
    """`to_maxima` of an image, with positions that are integers."""
    start = image * d.h * d.w * d.c
    clear(dx[start : start + d.h * d.w * d.c])
    for p in range(d.oh):
        for q in range(d.ow):
            number = (image * d.oh + p) * d.ow + q
            top, left = p * d.stride_h - d.pad_h, q * d.stride_w - d.pad_w
            for c in range(d.c):
                at = int64(argmax[number * d.c + c])
                row, column = top + at // d.kw * d.dilation_h, left + at % d.kw * d.dilation_w
                dx[start + (row * d.w + column) * d.c + c] += dy[number * d.c + c]


@kernel
def _maxpool2d_backward(dy, argmax, d, dx):
    for image in prange(dx.size // (d.h * d.w * d.c)):
        backward(image, d, to_maxima, (flat(dy), flat(argmax), flat(dx)), dx)


@kernel
def _maxpool2d_backward_one_by_one(dy, argmax, d, dx):
    for image in prange(dx.size // (d.h * d.w * d.c)):
        to_maxima_one_by_one(image, d, dy, argmax, dx)


@kernel
def _avgpool2d_backward(dy, d, count_include_pad, dx):
    for image in prange(dx.size // (d.h * d.w * d.c)):
        backward(image, d, to_all, (count_include_pad, flat(dy), flat(dx)), dx)


def maxpool2d(x: Input, d: Pool2dDims, y: Output, argmax: Output) -> None:
    pool = _maxpool2d_one_by_one if d.kh * d.kw > EXACT else _maxpool2d
    run(pool, x.size, x.reshape(-1), d, y.reshape(-1), argmax.reshape(-1))


def maxpool2d_backward(dy: Input, argmax: Input, d: Pool2dDims, dx: Output) -> None:
    spread = _maxpool2d_backward_one_by_one if d.kh * d.kw > EXACT else _maxpool2d_backward
    run(spread, dx.size, dy.reshape(-1), argmax.reshape(-1), d, dx.reshape(-1))


def avgpool2d(x: Input, d: Pool2dDims, count_include_pad: bool, y: Output) -> None:
    run(_avgpool2d, x.size, x.reshape(-1), d, count_include_pad, y.reshape(-1))


def avgpool2d_backward(dy: Input, d: Pool2dDims, count_include_pad: bool, dx: Output) -> None:
    run(_avgpool2d_backward, dx.size, dy.reshape(-1), d, count_include_pad, dx.reshape(-1))
