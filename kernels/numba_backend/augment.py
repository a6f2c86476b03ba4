"""Augmentation, image by image: random numbers that belong to a sample, a smoothing filter, and a warp."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import ImageDims
from .activation import draw, stream
from .compiler.jit import disjoint, exact, kernel, prange
from .tiles.chunks import run

__all__ = ["smooth2d", "smooth2d_scratch", "uniform", "warp", "warp_scratch"]


@kernel
def _uniform(indices, seed, step, u):
    key, scale = stream(seed, step), 2.0**-31
    for n in prange(indices.size):
        sample, numbers = draw(key, np.uint64(indices[n])), u[n]
        for j in range(numbers.size):
            numbers[j] = np.int32(draw(sample, np.uint64(j)) >> np.uint64(32)) * scale


def uniform(indices: Input, seed: int, step: int, u: Output) -> None:
    seed, step = np.uint64(seed % 2**64), np.uint64(step % 2**64)
    run(_uniform, u.size, indices, seed, step, u.reshape(len(u), -1))


def smooth2d_scratch(d: ImageDims, n: int) -> int:
    return n * d.h * d.w * d.c


@disjoint
def smooth(x, weights, stride, y):
    """y = x filtered along an axis whose neighbours lie a stride apart, from the first element to the last.

    128 fields of 28 by 28 by 2 take 570 µs on one core, 450 of them for the rows, whose loops are short. All rows of an
    image in one loop, with gaps of zeros between them, took 410 µs in all, for twice the code and three times the
    scratch.
    """
    for i in range(y.size):
        y[i] = x[i] * weights[0]
    for t in range(1, weights.size):
        shift = t * stride
        if shift >= y.size:
            break
        x_before, x_after = x[: x.size - shift], x[shift:]
        y_before, y_after = y[: y.size - shift], y[shift:]
        for i in range(y_after.size):
            y_after[i] += x_before[i] * weights[t]
        for i in range(y_before.size):
            y_before[i] += x_after[i] * weights[t]


@kernel
def _smooth2d(x, weights, d, columns, y):
    row = d.w * d.c
    for n in prange(x.shape[0]):
        smooth(x[n], weights, row, columns[n])
        for h in range(d.h):
            here = slice(h * row, (h + 1) * row)
            smooth(columns[n, here], weights, d.c, y[n, here])


def smooth2d(x: Input, weights: Input, d: ImageDims, scratch: Scratch, y: Output) -> None:
    run(_smooth2d, x.size, x.reshape(len(x), -1), weights, d, scratch.reshape(len(x), -1), y.reshape(len(x), -1))


def warp_scratch(d: ImageDims, n: int) -> int:
    return n * (d.h + 3) * (d.w + 3)


@exact
def cell(place, size):
    """(⌊place⌋, place − ⌊place⌋) along an axis, with −1 or size for a place farther out; the fraction of NaN is NaN."""
    near = place if place > -1.0 else -1.0
    near = near if near < size else size
    corner = np.floor(near)
    return np.int32(corner), (near - corner if place == place else place)


@exact
def blend(a, b, x00, x01, x10, x11):
    """Bilinear interpolation."""
    one = type(x00)(1)
    return (one - a) * ((one - b) * x00 + b * x01) + a * ((one - b) * x10 + b * x11)


@exact
def place(row, h, w):
    """A row of a matrix times (h, w, 1)."""
    return np.float64(row[0]) * h + np.float64(row[1]) * w + np.float64(row[2])


@disjoint
def warp_row(padded, matrix, field, displaced, d, h, y):
    """Row h of one channel, from its image with a border of one pixel before and two behind."""
    real, h0, w0, one = y.dtype.type, (d.h - 1) / 2, (d.w - 1) / 2, np.uint64(1)
    row = d.w + 3
    for w in range(y.size):
        r, s = h0 + place(matrix[0], h - h0, w - w0), w0 + place(matrix[1], h - h0, w - w0)
        if displaced:
            r += np.float64(field[w, 0])
            s += np.float64(field[w, 1])
        i, a = cell(r, np.float64(d.h))
        j, b = cell(s, np.float64(d.w))
        # Without a sign: an index that might be negative costs a comparison, and the loop its vector instructions.
        above = np.uint64((i + 1) * row + j + 1)
        below = above + np.uint64(row)
        y[w] = blend(real(a), real(b), padded[above], padded[above + one], padded[below], padded[below + one])


@kernel(optional={"field": 4})
def _warp(x, matrix, field, fill, d, padded, y):
    displaced, row = field.size > 0, d.w + 3
    for n in prange(x.shape[0]):
        image = padded[n]
        for i in range(image.size):
            image[i] = fill
        for c in range(d.c):
            for h in range(d.h):
                pixels = image[(h + 1) * row + 1 : (h + 2) * row - 2]
                for w in range(d.w):
                    pixels[w] = x[n, h, w, c]
            for h in range(d.h):
                # What stands in for a field that is absent is never read.
                warp_row(image, matrix[n], field[n, h] if displaced else x[n, h], displaced, d, h, y[n, h, :, c])


def warp(x: Input, matrix: Input, field: Input | None, fill: float, d: ImageDims, scratch: Scratch, y: Output) -> None:
    run(_warp, x.size, x, matrix, field, fill, d, scratch.reshape(len(x), -1), y)
