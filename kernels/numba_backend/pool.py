"""Pooling: window after window, with all channels of one position in the innermost loop.

Images are taken as their rows, (N·H, W, C), and cut by rows of windows; backwards by images, since windows may overlap.
"""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output
from ..shapes import Pool2dDims
from .chunks import clear, run
from .jit import disjoint, inline, kernel, prange, serial


@inline
def window(index, stride, padding, size, length):
    """(start, begin, end) along one axis: where the window starts, and which of its positions lie in the image."""
    start = index * stride - padding
    return start, max(0, -start), min(size, length - start)


@inline
def beats(value, best):
    """Whether a later value takes the maximum: by being greater, or as the first NaN."""
    return not (value <= best) and best == best


@disjoint
def first_maximum(x, position, y, argmax):
    """The first position of a window leads."""
    for c in range(y.size):
        y[c], argmax[c] = x[c], position


@disjoint
def next_maximum(x, position, y, argmax):
    """Another position may take the lead."""
    for c in range(y.size):
        best, at = y[c], argmax[c]
        if beats(x[c], best):
            best, at = x[c], position
        y[c], argmax[c] = best, at


@serial
def maxima(x, row, d, y, argmax):
    """One row of windows."""
    top, upper, lower = window(row % d.oh, d.stride_h, d.pad_h, d.kh, d.h)
    top += row // d.oh * d.h
    for q in range(d.ow):
        left, first, last = window(q, d.stride_w, d.pad_w, d.kw, d.w)
        position = argmax.dtype.type
        first_maximum(x[top + upper, left + first], position(upper * d.kw + first), y[q], argmax[q])
        for i in range(upper, lower):
            for j in range(first, last):
                next_maximum(x[top + i, left + j], position(i * d.kw + j), y[q], argmax[q])


@disjoint
def maximum_2x2(x00, x01, x10, x11, y, argmax):
    """One window of 2 by 2 in a single pass."""
    position = argmax.dtype.type
    for c in range(y.size):
        best, at = x00[c], position(0)
        if beats(x01[c], best):
            best, at = x01[c], position(1)
        if beats(x10[c], best):
            best, at = x10[c], position(2)
        if beats(x11[c], best):
            best, at = x11[c], position(3)
        y[c], argmax[c] = best, at


@kernel
def _maxpool2d(x, d, y, argmax):
    for row in prange(y.shape[0]):
        maxima(x, row, d, y[row], argmax[row])


@kernel
def _maxpool2d_2x2(x, d, y, argmax):
    """Windows of 2 by 2 without padding."""
    for row in prange(y.shape[0]):
        top = row // d.oh * d.h + row % d.oh * d.stride_h
        above, below, ys, at = x[top], x[top + 1], y[row], argmax[row]
        for q in range(d.ow):
            left = q * d.stride_w
            maximum_2x2(above[left], above[left + 1], below[left], below[left + 1], ys[q], at[q])


@disjoint
def add_where(dy, argmax, position, dx):
    """dx += dy where the maximum came from a position."""
    for c in range(dy.size):
        dx[c] += dy[c] if argmax[c] == position else dy.dtype.type(0)


@kernel
def _maxpool2d_backward(dy, argmax, d, dx):
    for n in prange(dy.shape[0] // d.oh):
        image = dx[n * d.h : (n + 1) * d.h]
        clear(image.reshape(-1))
        for p in range(d.oh):
            top, upper, lower = window(p, d.stride_h, d.pad_h, d.kh, d.h)
            for q in range(d.ow):
                left, first, last = window(q, d.stride_w, d.pad_w, d.kw, d.w)
                dys, at = dy[n * d.oh + p, q], argmax[n * d.oh + p, q]
                for i in range(upper, lower):
                    for j in range(first, last):
                        add_where(dys, at, i * d.kw + j, image[top + i, left + j])


@disjoint
def share_2x2(dy, argmax, dx00, dx01, dx10, dx11):
    """One window of 2 by 2."""
    zero = dy.dtype.type(0)
    for c in range(dy.size):
        dx00[c] = dy[c] if argmax[c] == 0 else zero
        dx01[c] = dy[c] if argmax[c] == 1 else zero
        dx10[c] = dy[c] if argmax[c] == 2 else zero
        dx11[c] = dy[c] if argmax[c] == 3 else zero


@kernel
def _maxpool2d_backward_2x2(dy, argmax, d, dx):
    """Windows of 2 by 2 side by side: each place is written once."""
    for row in prange(dy.shape[0]):
        n, p = row // d.oh, row % d.oh
        top = n * d.h + 2 * p
        dys, at, above, below = dy[row], argmax[row], dx[top], dx[top + 1]
        for q in range(d.ow):
            share_2x2(dys[q], at[q], above[2 * q], above[2 * q + 1], below[2 * q], below[2 * q + 1])
        for q in range(2 * d.ow, d.w):
            clear(above[q])
            clear(below[q])
        if p == d.oh - 1:
            for rest in range(top + 2, (n + 1) * d.h):
                for q in range(d.w):
                    clear(dx[rest, q])


@inline
def share(d, count_include_pad, height, width):
    """What each position counts for in a window with so many of them inside the image."""
    return 1 / (d.kh * d.kw if count_include_pad else height * width)


@disjoint
def add_scaled(x, scale, y):
    """y += x scale."""
    for c in range(x.size):
        y[c] += x[c] * scale


@kernel
def _avgpool2d(x, d, count_include_pad, y):
    for row in prange(y.shape[0]):
        top, upper, lower = window(row % d.oh, d.stride_h, d.pad_h, d.kh, d.h)
        top += row // d.oh * d.h
        for q in range(d.ow):
            clear(y[row, q])
            left, first, last = window(q, d.stride_w, d.pad_w, d.kw, d.w)
            scale = y.dtype.type(share(d, count_include_pad, lower - upper, last - first))
            for i in range(upper, lower):
                for j in range(first, last):
                    add_scaled(x[top + i, left + j], scale, y[row, q])


@kernel
def _avgpool2d_backward(dy, d, count_include_pad, dx):
    for n in prange(dy.shape[0] // d.oh):
        windows, image = dy[n * d.oh : (n + 1) * d.oh], dx[n * d.h : (n + 1) * d.h]
        clear(image.reshape(-1))
        for p in range(d.oh):
            top, upper, lower = window(p, d.stride_h, d.pad_h, d.kh, d.h)
            for q in range(d.ow):
                left, first, last = window(q, d.stride_w, d.pad_w, d.kw, d.w)
                scale = dx.dtype.type(share(d, count_include_pad, lower - upper, last - first))
                for i in range(upper, lower):
                    for j in range(first, last):
                        add_scaled(windows[p, q], scale, image[top + i, left + j])


def maxpool2d(x: Input, d: Pool2dDims, y: Output, argmax: Output) -> None:
    pairs = d.kh == d.kw == 2 and not (d.pad_h or d.pad_w)
    run(_maxpool2d_2x2 if pairs else _maxpool2d, x.size, by_rows(x), d, by_rows(y), by_rows(argmax))


def maxpool2d_backward(dy: Input, argmax: Input, d: Pool2dDims, dx: Output) -> None:
    pairs = d.kh == d.kw == d.stride_h == d.stride_w == 2 and not (d.pad_h or d.pad_w)
    backward = _maxpool2d_backward_2x2 if pairs else _maxpool2d_backward
    run(backward, dx.size, by_rows(dy), by_rows(argmax), d, by_rows(dx))


def avgpool2d(x: Input, d: Pool2dDims, count_include_pad: bool, y: Output) -> None:
    run(_avgpool2d, x.size, by_rows(x), d, count_include_pad, by_rows(y))


def avgpool2d_backward(dy: Input, d: Pool2dDims, count_include_pad: bool, dx: Output) -> None:
    run(_avgpool2d_backward, dx.size, by_rows(dy), d, count_include_pad, by_rows(dx))


def by_rows(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as (N·H, W, C)."""
    return images.reshape(-1, *images.shape[2:])
