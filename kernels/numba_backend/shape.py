"""Joining, cutting and moving: numbers change their places and nothing else."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output
from ..shapes import PAD_MODES, Pad2dDims, SliceDims, Upsample2dDims
from .compiler.jit import inline, kernel, prange
from .tiles.chunks import chunk, chunks, clear, rows, run
from .tiles.strided import Axes, copy, moved, steps, turn, turns
from .tiles.tile import flat

__all__ = [
    "concat",
    "concat_backward",
    "pad2d",
    "pad2d_backward",
    "slice",
    "slice_backward",
    "transpose",
    "upsample2d",
    "upsample2d_backward",
]


@inline
def copy_to(y, at, x, start, size):
    """y[at:] = x[start:], of so many elements; where y's next ones begin."""
    for i in range(size):
        y[at + i] = x[start + i]
    return at + size


@kernel(optional={"third": 2, "fourth": 2})
def _concat(a, b, third, fourth, y):
    for row in prange(y.shape[0]):
        at = copy_to(flat(y), row * y.shape[1], flat(a), row * a.shape[1], a.shape[1])
        at = copy_to(flat(y), at, flat(b), row * b.shape[1], b.shape[1])
        at = copy_to(flat(y), at, flat(third), row * third.shape[1], third.shape[1])
        copy_to(flat(y), at, flat(fourth), row * fourth.shape[1], fourth.shape[1])


@kernel
def _concat_backward(dy, da, db):
    for row in prange(dy.shape[0]):
        dys, left, right = dy[row], da[row], db[row]
        for i in range(left.size):
            left[i] = dys[i]
        for i in range(right.size):
            right[i] = dys[left.size + i]


def concat(a: Input, b: Input, third: Input | None, fourth: Input | None, y: Output) -> None:
    parts = (part if part is None else rows(part) for part in (a, b, third, fourth))
    run(_concat, y.size, *parts, rows(y))


def concat_backward(dy: Input, da: Output, db: Output) -> None:
    run(_concat_backward, dy.size, rows(dy), rows(da), rows(db))


def _move(x: np.ndarray, source: int, x_steps: Axes, sizes: Axes, y: np.ndarray, target: int, y_steps: Axes) -> None:
    """Copy elements over axes of these sizes."""
    sizes, x_steps, y_steps = moved(sizes, x_steps, y_steps)
    run(copy, y.size, x.reshape(-1), source, x_steps, sizes, 1, y.reshape(-1), target, y_steps)


def slice(x: Input, d: SliceDims, y: Output) -> None:
    whole = steps((len(x), d.before, d.size, d.after))
    cut = (*whole[:2], d.step * d.after, 1)
    sizes = len(x), d.before, d.kept, d.after
    _move(x, d.start * d.after, cut, sizes, y, 0, steps(sizes))


def slice_backward(dy: Input, d: SliceDims, dx: Output) -> None:
    whole = steps((len(dy), d.before, d.size, d.after))
    cut = (*whole[:2], d.step * d.after, 1)
    sizes = len(dy), d.before, d.kept, d.after
    if d.kept < d.size:
        run(_zero, dx.size, dx.reshape(-1))
    _move(dy, 0, steps(sizes), sizes, dx, d.start * d.after, cut)


@kernel
def _zero(x):
    for c in prange(chunks(x)):
        clear(chunk(x, c))


def transpose(x: Input, axes: tuple[int, ...], y: Output) -> None:
    own = steps(x.shape)
    sizes, x_steps, y_steps = moved(y.shape, tuple(own[axis] for axis in axes), steps(y.shape))
    if turns(x_steps, y_steps):
        run(turn, y.size, x.reshape(-1), x_steps, sizes, y.reshape(-1), y_steps)
    else:
        run(copy, y.size, x.reshape(-1), 0, x_steps, sizes, 1, y.reshape(-1), 0, y_steps)


def upsample2d(x: Input, d: Upsample2dDims, y: Output) -> None:
    row, pixel = d.w * d.c, d.factor_w * d.c
    line = d.w * pixel
    sizes = len(x) * d.h, d.factor_h, d.factor_w, d.w, d.c
    _move(x, 0, (row, 0, 0, d.c, 1), sizes, y, 0, (d.factor_h * line, line, d.c, pixel, 1))


@kernel
def _upsample2d_backward(dy, d, dx):
    row, pixel = d.w * d.c, d.factor_w * d.c
    line = d.w * pixel
    for n in prange(dx.size // row):
        sums, copies = dx[n * row : (n + 1) * row], dy[n * d.factor_h * line : (n + 1) * d.factor_h * line]
        clear(sums)
        for p in range(d.factor_h):
            for w in range(d.w):
                for q in range(d.factor_w):
                    add_to(flat(sums), w * d.c, flat(copies), p * line + w * pixel + q * d.c, d.c)


@inline
def add_to(sums, at, x, start, size):
    """sums[at:] += x[start:], of so many elements."""
    for i in range(size):
        sums[at + i] += x[start + i]


def upsample2d_backward(dy: Input, d: Upsample2dDims, dx: Output) -> None:
    run(_upsample2d_backward, dy.size, dy.reshape(-1), d, dx.reshape(-1))


# Padding ----------------------------------------------------------------------------------------------------------

CONSTANT, REFLECT, EDGE = range(len(PAD_MODES))


@inline
def inside(place, size, mode):
    """The place of x that a place stands for; −1 for none."""
    if mode == REFLECT:
        place = size - 1 - abs(size - 1 - abs(place))
    elif mode == EDGE:
        place = min(max(place, 0), size - 1)
    elif place >= size:
        place = -1
    return max(place, -1)


@inline
def fill(y, at, size, value):
    """y[at:] = value, of so many elements."""
    for i in range(size):
        y[at + i] = value


@inline
def middle(d):
    """(first, end) of the columns of y that are x's own."""
    return max(d.left, 0), min(d.left + d.w, d.ow)


@kernel
def _pad2d(x, d, mode, value, y):
    first, end = middle(d)
    fixed = x.dtype.type(value)
    for n in prange(y.size // (d.ow * d.c)):
        image, at = n // d.oh, n * d.ow * d.c
        h = inside(n % d.oh - d.top, d.h, mode)
        if h < 0:
            fill(flat(y), at, d.ow * d.c, fixed)
        else:
            row = (image * d.h + h) * d.w * d.c
            for q in range(first):
                pad_pixel(flat(x), row, d, mode, fixed, flat(y), at, q)
            copy_to(flat(y), at + first * d.c, flat(x), row + (first - d.left) * d.c, (end - first) * d.c)
            for q in range(end, d.ow):
                pad_pixel(flat(x), row, d, mode, fixed, flat(y), at, q)


@inline
def pad_pixel(x, row, d, mode, value, y, at, q):
    """Column q, outside x, of a row of y."""
    w = inside(q - d.left, d.w, mode)
    if w < 0:
        fill(y, at + q * d.c, d.c, value)
    else:
        copy_to(y, at + q * d.c, x, row + w * d.c, d.c)


@kernel
def _pad2d_backward(dy, d, mode, dx):
    first, end = middle(d)
    for n in prange(dx.size // (d.h * d.w * d.c)):
        image = n * d.h * d.w * d.c
        fill(flat(dx), image, d.h * d.w * d.c, dx.dtype.type(0))
        for p in range(d.oh):
            h = inside(p - d.top, d.h, mode)
            if h >= 0:
                row, at = image + h * d.w * d.c, (n * d.oh + p) * d.ow * d.c
                add_to(flat(dx), row + (first - d.left) * d.c, flat(dy), at + first * d.c, (end - first) * d.c)
                for q in range(d.ow):
                    w = inside(q - d.left, d.w, mode)
                    if w >= 0 and (q < first or q >= end):
                        add_to(flat(dx), row + w * d.c, flat(dy), at + q * d.c, d.c)


def pad2d(x: Input, d: Pad2dDims, mode: str, value: float, y: Output) -> None:
    run(_pad2d, y.size, x.reshape(-1), d, PAD_MODES.index(mode), float(value), y.reshape(-1))


def pad2d_backward(dy: Input, d: Pad2dDims, mode: str, dx: Output) -> None:
    run(_pad2d_backward, dy.size, dy.reshape(-1), d, PAD_MODES.index(mode), dx.reshape(-1))
