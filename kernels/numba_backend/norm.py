"""Normalisation by channel.

Arrays are taken flat, and what belongs to a channel is repeated over a period, at least as long as a few vectors. A
strip is what a few registers hold of a period: a kernel goes down the array strip by strip, with sums or factors in
registers. Sums are taken in chunks, by place in the period, folded to channels, and joined in float64 (Chan, Golub and
LeVeque 1983).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy import int64

from ..interface import InPlace, Input, Output, Scratch
from ..shapes import ChannelDims
from .compiler.jit import Flat, inline, kernel, prange, region, separate
from .tiles.chunks import chunk, chunks, elementwise, load, run, store
from .tiles.tile import (
    REGISTERS,
    VECTOR_BYTES,
    TileShape,
    flat,
    lanes,
    tile_add,
    tile_multiply,
    tile_multiply_add,
    tile_subtract,
    tile_vectors,
)

__all__ = [
    "batchnorm",
    "batchnorm_backward",
    "batchnorm_backward_scratch",
    "batchnorm_inference",
    "batchnorm_inference_backward",
    "batchnorm_inference_backward_scratch",
    "batchnorm_scratch",
    "ema_update",
    "meannorm",
    "meannorm_backward",
    "meannorm_backward_scratch",
    "meannorm_inference",
    "meannorm_inference_backward",
    "meannorm_inference_backward_scratch",
    "meannorm_scratch",
]

# Four values a channel, for the gradient, fill half the registers.
STRIP, REST = TileShape(1, REGISTERS // 8, 1), TileShape(1, 1, 1)

WIDTH = REGISTERS // 8 * VECTOR_BYTES // 4
"""Elements of a strip of float32."""

SAMPLE = 512
"""Elements, about, whose mean stands for a chunk's; of eight positions at least."""

LEFT = 1 / 16
"""The least share of a sum of squares that may be left when the square of the sum is taken from it: four bits go."""


@cache
def period(channels: int) -> int:
    """A multiple of the channels: whole vectors that fill a strip; the channels alone if that would be far too long."""
    vectors = math.lcm(channels, VECTOR_BYTES // 4)
    return channels if vectors > 16 * WIDTH else -(-WIDTH // vectors) * vectors


@cache
def span(size: int, channels: int) -> int:
    """Elements of a chunk: whole periods, so many that it pays to fold them, and that there are few chunks to join."""
    periods = max(32, min(max(size // 32, 1 << 14), 1 << 16) // period(channels))
    return periods * period(channels)


def parts(size: int, channels: int) -> int:
    """The number of chunks."""
    return -(-size // span(size, channels))


@inline
def by_strip(work, start, stop, period, like, arguments):
    """work(shape, first, columns, places, *arguments) for the strips of start <= i < stop, which is whole positions.

    A strip is `columns` wide, begins at `first` of a period, and at `places` of the array. What it needs is passed as
    `flat` memory: threads that share an array would wait for each other to count its references.
    """
    width = tile_vectors(STRIP) * lanes(like)
    rest, whole = period // width * width, start + (stop - start) // period * period
    for first in range(0, rest, width):
        work(STRIP, first, width, range(start + first, whole, period), *arguments)
    for first in range(rest, period, lanes(like)):
        work(REST, first, period - first, range(start + first, whole, period), *arguments)
    for first in range(0, stop - whole, lanes(like)):
        work(REST, first, stop - whole - first, range(whole + first, stop, period), *arguments)


@inline
def clear(sums, at, size):
    """sums[at : at + size] = 0."""
    for i in range(at, at + size):
        sums[i] = 0


@inline
def fold(sums, at, period, channels):
    """Add the period at `at` up into its first `channels` elements, pairwise."""
    size = period
    while size > channels:
        half = size // channels // 2 * channels
        size -= half
        for i in range(at, at + half):
            sums[i] += sums[i + size]


@inline
def spread(values, at, period, channels):
    """Repeat the first `channels` elements from `at` on over the period."""
    for i in range(at + channels, at + period):
        values[i] = values[i - channels]


@inline
def strip_sums(shape, first, columns, places, x, sums, at):
    total = load(shape, sums, at + first, 0, columns)
    for i in places:
        total = tile_add(total, load(shape, x, i, 0, columns))
    store(shape, total, sums, at + first, 0, columns)


@separate
def add_up(x: Flat, start: int, stop: int, period: int, channels: int, sums: Flat, at: int) -> None:
    """sums[at:][:channels] = Σ x[start:stop]; a period there is written over."""
    clear(sums, at, period)
    by_strip(strip_sums, start, stop, period, x, (x, sums, at))
    fold(sums, at, period, channels)


@inline
def strip_squares(shape, first, columns, places, x, sums, at, squares, shift):
    total, total_squares = load(shape, sums, at + first, 0, columns), load(shape, sums, squares + first, 0, columns)
    shifts = load(shape, sums, shift + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, x, i, 0, columns), shifts)
        total = tile_add(total, difference)
        total_squares = tile_multiply_add(total_squares, difference, difference)
    store(shape, total, sums, at + first, 0, columns)
    store(shape, total_squares, sums, squares + first, 0, columns)


@inline
def add_up_offsets(x, start, stop, period, channels, sums, at):
    """The first two of the periods of `add_up_squares`, by the shifts at the beginning of the third."""
    squares, shift = at + period, at + 2 * period
    spread(sums, shift, period, channels)
    clear(sums, at, 2 * period)
    by_strip(strip_squares, start, stop, period, x, (x, sums, at, squares, shift))
    fold(sums, at, period, channels)
    fold(sums, squares, period, channels)


@separate
def add_up_squares(x: Flat, start: int, stop: int, period: int, channels: int, sums: Flat, at: int) -> None:
    """Three periods from `at` on: Σ (x − shift), Σ (x − shift)² and the shift of each channel, over x[start:stop].

    The shift is the mean over the first periods, which are seldom unlike the rest; then a second pass is saved, which
    costs a quarter of `batchnorm`. Where they are, so that less than LEFT would be left of Σ (x − shift)² and what is
    left would lose its digits, the chunk's own mean takes its place.
    """
    shift = at + 2 * period
    count = (stop - start) // channels
    sample = min(max(SAMPLE // period, -(-8 * channels // period)) * period, stop - start)
    add_up(x, start, start + sample, period, channels, sums, shift)
    for i in range(shift, shift + channels):
        sums[i] /= sample // channels
        if not abs(sums[i]) < np.inf:
            sums[i] = 0
    add_up_offsets(x, start, stop, period, channels, sums, at)
    far = False
    for i in range(at, at + channels):
        offset = sums[i] / count
        if sums[i] * offset > (1 - LEFT) * sums[i + period] and abs(sums[i + 2 * period] + offset) < np.inf:
            sums[i + 2 * period] += offset
            far = True
    if far:
        add_up_offsets(x, start, stop, period, channels, sums, at)


@inline
def strip_products(shape, first, columns, places, dy, x, mean, sums, at, products):
    total, total_products = load(shape, sums, at + first, 0, columns), load(shape, sums, products + first, 0, columns)
    means = load(shape, mean, first, 0, columns)
    for i in places:
        gradient = load(shape, dy, i, 0, columns)
        difference = tile_subtract(load(shape, x, i, 0, columns), means)
        total = tile_add(total, gradient)
        total_products = tile_multiply_add(total_products, gradient, difference)
    store(shape, total, sums, at + first, 0, columns)
    store(shape, total_products, sums, products + first, 0, columns)


@separate
def add_up_products(
    dy: Flat, x: Flat, start: int, stop: int, period: int, channels: int, mean: Flat, sums: Flat, at: int
) -> None:
    """Two periods from `at` on: Σ dy and Σ dy (x − mean) of each channel over start:stop; the mean fills a period."""
    products = at + period
    clear(sums, at, 2 * period)
    by_strip(strip_products, start, stop, period, x, (dy, x, mean, sums, at, products))
    fold(sums, at, period, channels)
    fold(sums, products, period, channels)


@inline
def strip_affine(shape, first, columns, places, x, period, factors, y):
    minus = load(shape, factors, first, 0, columns)
    times = load(shape, factors, period + first, 0, columns)
    plus = load(shape, factors, 2 * period + first, 0, columns)
    for i in places:
        difference = tile_subtract(load(shape, x, i, 0, columns), minus)
        store(shape, tile_multiply_add(plus, difference, times), y, i, 0, columns)


@separate
def affine(x: Flat, start: int, stop: int, period: int, factors: Flat, y: Flat) -> None:
    """y = (x − minus) times + plus over start:stop, the rows of `factors`."""
    by_strip(strip_affine, start, stop, period, x, (x, period, factors, y))


@inline
def strip_gradient(shape, first, columns, places, dy, x, period, factors, dx):
    mean = load(shape, factors, first, 0, columns)
    slope = load(shape, factors, period + first, 0, columns)
    level = load(shape, factors, 2 * period + first, 0, columns)
    scale = load(shape, factors, 3 * period + first, 0, columns)
    for i in places:
        gradient = tile_subtract(load(shape, dy, i, 0, columns), level)
        difference = tile_subtract(load(shape, x, i, 0, columns), mean)
        gradient = tile_subtract(gradient, tile_multiply(slope, difference))
        store(shape, tile_multiply(scale, gradient), dx, i, 0, columns)


@separate
def input_gradient(dy: Flat, x: Flat, start: int, stop: int, period: int, factors: Flat, dx: Flat) -> None:
    """dx = scale (dy − level − slope (x − mean)) over start:stop; rows of `factors`: mean, slope, level, scale."""
    by_strip(strip_gradient, start, stop, period, x, (dy, x, period, factors, dx))


@inline
def bounds(c, length, size):
    """Where chunk c starts and stops."""
    start = int64(c) * length
    return start, min(start + length, size)


@inline
def joined(partial, k, channel):
    """The k-th sum of a channel over all chunks."""
    total = 0.0
    for c in range(partial.shape[0]):
        total += float(partial[c, k, channel])
    return total


@region
def add_up_all(x, length, partial, divisor, sums):
    """sums = Σ x / divisor by channel."""
    period = partial.shape[2]
    for c in prange(partial.shape[0]):
        start, stop = bounds(c, length, x.size)
        add_up(flat(x), start, stop, period, sums.size, flat(partial), int64(c) * period)
    for channel in range(sums.size):
        sums[channel] = joined(partial, 0, channel) / divisor


@region
def apply(x, length, factors, channels, y):
    """y = (x − minus) times + plus by channel: the rows of `factors`, so far without their repetitions."""
    period = factors.shape[1]
    for row in range(3):
        spread(flat(factors), row * period, period, channels)
    for c in prange((x.size + length - 1) // length):
        start, stop = bounds(c, length, x.size)
        affine(flat(x), start, stop, period, flat(factors), flat(y))


# What belongs to channels is computed in loops: np.zeros or an assignment of arrays would be one more parallel region.


@kernel
def _batchnorm(x, gamma, beta, eps, length, partial, y, mean, inv_std, var):
    channels, m, rows = mean.size, x.size // mean.size, length // mean.size
    parts, _, period = partial.shape
    for c in prange(parts):
        start, stop = bounds(c, length, x.size)
        add_up_squares(flat(x), start, stop, period, channels, flat(partial), int64(c) * 3 * period)
    factors = np.empty((3, period), x.dtype)
    for channel in range(channels):
        total = 0.0
        for c in range(parts):
            count = min(rows, m - c * rows)
            total += float(partial[c, 2, channel]) * count + float(partial[c, 0, channel])
        average, square = total / m, 0.0
        for c in range(parts):
            count = min(rows, m - c * rows)
            offset = float(partial[c, 2, channel]) - average
            square += float(partial[c, 1, channel]) + offset * (2 * float(partial[c, 0, channel]) + offset * count)
        square = 0.0 if square < 0 else square
        mean[channel] = average
        inv_std[channel] = 1 / np.sqrt(square / m + eps)
        var[channel] = square / max(m - 1, 1)
        factors[0, channel] = mean[channel]
        factors[1, channel] = gamma[channel] * inv_std[channel]
        factors[2, channel] = beta[channel]
    apply(x, length, factors, channels, y)


@kernel(optional={"dx": 1})
def _batchnorm_backward(dy, x, gamma, mean, inv_std, length, partial, dx, dgamma, dbeta):
    channels, m = mean.size, x.size // mean.size
    parts, _, period = partial.shape
    factors = np.empty((4, period), x.dtype)
    for channel in range(channels):
        factors[0, channel] = mean[channel]
    spread(flat(factors), 0, period, channels)
    for c in prange(parts):
        start, stop = bounds(c, length, x.size)
        at = int64(c) * 2 * period
        add_up_products(flat(dy), flat(x), start, stop, period, channels, flat(factors), flat(partial), at)
    for channel in range(channels):
        dbeta[channel] = joined(partial, 0, channel)
        dgamma[channel] = joined(partial, 1, channel) * inv_std[channel]
        factors[1, channel] = inv_std[channel] * dgamma[channel] / m
        factors[2, channel] = dbeta[channel] / m
        factors[3, channel] = gamma[channel] * inv_std[channel]
    if dx.size:
        for row in range(1, 4):
            spread(flat(factors), row * period, period, channels)
        for c in prange(parts):
            start, stop = bounds(c, length, x.size)
            input_gradient(flat(dy), flat(x), start, stop, period, flat(factors), flat(dx))


@kernel
def _batchnorm_inference(x, gamma, beta, mean, var, eps, length, period, y):
    factors = np.empty((3, period), x.dtype)
    for channel in range(mean.size):
        factors[0, channel] = mean[channel]
        factors[1, channel] = gamma[channel] / np.sqrt(var[channel] + eps)
        factors[2, channel] = beta[channel]
    apply(x, length, factors, mean.size, y)


@kernel(optional={"dx": 1})
def _batchnorm_inference_backward(dy, x, gamma, mean, var, eps, length, partial, dx, dgamma, dbeta):
    channels = mean.size
    parts, _, period = partial.shape
    means, factors = np.empty(period, x.dtype), np.empty((3, period), x.dtype)
    for channel in range(channels):
        means[channel] = mean[channel]
        factors[0, channel] = 0
        factors[1, channel] = gamma[channel] / np.sqrt(var[channel] + eps)
        factors[2, channel] = 0
    spread(flat(means), 0, period, channels)
    for row in range(3):
        spread(flat(factors), row * period, period, channels)
    for c in prange(parts):
        start, stop = bounds(c, length, x.size)
        at = int64(c) * 2 * period
        add_up_products(flat(dy), flat(x), start, stop, period, channels, flat(means), flat(partial), at)
        if dx.size:
            affine(flat(dy), start, stop, period, flat(factors), flat(dx))
    for channel in range(channels):
        dbeta[channel] = joined(partial, 0, channel)
        dgamma[channel] = joined(partial, 1, channel) / np.sqrt(var[channel] + eps)


@region
def apply_mean(x, length, mean, divisor, beta, period, y):
    """y = x − mean / divisor + beta, an empty beta being zero."""
    factors = np.empty((3, period), x.dtype)
    for channel in range(mean.size):
        factors[0, channel] = mean[channel] / divisor
        factors[1, channel] = 1
        factors[2, channel] = beta[channel] if beta.size else 0
    apply(x, length, factors, mean.size, y)


@kernel
def _meannorm(x, beta, length, partial, y, mean):
    add_up_all(x, length, partial, x.size // mean.size, mean)
    apply_mean(x, length, mean, 1, beta, partial.shape[2], y)


@kernel(optional={"dx": 1})
def _meannorm_backward(dy, length, partial, dx, dbeta):
    add_up_all(dy, length, partial, 1, dbeta)
    if dx.size:
        apply_mean(dy, length, dbeta, dy.size // dbeta.size, dbeta[:0], partial.shape[2], dx)


@kernel
def _meannorm_inference(x, beta, mean, length, period, y):
    apply_mean(x, length, mean, 1, beta, period, y)


@kernel(optional={"dx": 1})
def _meannorm_inference_backward(dy, length, partial, dx, dbeta):
    add_up_all(dy, length, partial, 1, dbeta)
    for c in prange(chunks(dx)):
        gradient, copy = chunk(dy, c), chunk(dx, c)
        for i in range(copy.size):
            copy[i] = gradient[i]


def meannorm_scratch(d: ChannelDims, n: int) -> int:
    """A period a chunk."""
    return period(d.channels) * parts(n * d.positions * d.channels, d.channels)


meannorm_backward_scratch = meannorm_inference_backward_scratch = meannorm_scratch


def batchnorm_backward_scratch(d: ChannelDims, n: int) -> int:
    """Two periods a chunk."""
    return 2 * meannorm_scratch(d, n)


batchnorm_inference_backward_scratch = batchnorm_backward_scratch


def batchnorm_scratch(d: ChannelDims, n: int) -> int:
    """Three periods a chunk."""
    return 3 * meannorm_scratch(d, n)


def partial_sums(count: int, scratch: np.ndarray, x: np.ndarray, d: ChannelDims) -> tuple[int, np.ndarray]:
    """(the length of a chunk, the scratch as (chunks, count, period))."""
    shape = parts(x.size, d.channels), count, period(d.channels)
    return span(x.size, d.channels), scratch[: math.prod(shape)].reshape(shape)


def batchnorm(
    x: Input,
    gamma: Input,
    beta: Input,
    eps: float,
    d: ChannelDims,
    scratch: Scratch,
    y: Output,
    mean: Output,
    inv_std: Output,
    var: Output,
) -> None:
    chunked = partial_sums(3, scratch, x, d)
    run(_batchnorm, x.size, x.reshape(-1), gamma, beta, eps, *chunked, y.reshape(-1), mean, inv_std, var)


def batchnorm_backward(
    dy: Input,
    x: Input,
    gamma: Input,
    mean: Input,
    inv_std: Input,
    d: ChannelDims,
    scratch: Scratch,
    dx: Output | None,
    dgamma: Output,
    dbeta: Output,
) -> None:
    given, chunked = (dy.reshape(-1), x.reshape(-1), gamma, mean, inv_std), partial_sums(2, scratch, x, d)
    run(_batchnorm_backward, x.size, *given, *chunked, flattened(dx), dgamma, dbeta)


def batchnorm_inference(x: Input, gamma: Input, beta: Input, mean: Input, var: Input, eps: float, y: Output) -> None:
    sizes = span(x.size, mean.size), period(mean.size)
    run(_batchnorm_inference, x.size, x.reshape(-1), gamma, beta, mean, var, eps, *sizes, y.reshape(-1))


def batchnorm_inference_backward(
    dy: Input,
    x: Input,
    gamma: Input,
    mean: Input,
    var: Input,
    eps: float,
    d: ChannelDims,
    scratch: Scratch,
    dx: Output | None,
    dgamma: Output,
    dbeta: Output,
) -> None:
    given, chunked = (dy.reshape(-1), x.reshape(-1), gamma, mean, var, eps), partial_sums(2, scratch, x, d)
    run(_batchnorm_inference_backward, x.size, *given, *chunked, flattened(dx), dgamma, dbeta)


def meannorm(x: Input, beta: Input, d: ChannelDims, scratch: Scratch, y: Output, mean: Output) -> None:
    run(_meannorm, x.size, x.reshape(-1), beta, *partial_sums(1, scratch, x, d), y.reshape(-1), mean)


def meannorm_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    run(_meannorm_backward, dy.size, dy.reshape(-1), *partial_sums(1, scratch, dy, d), flattened(dx), dbeta)


def meannorm_inference(x: Input, beta: Input, mean: Input, y: Output) -> None:
    sizes = span(x.size, mean.size), period(mean.size)
    run(_meannorm_inference, x.size, x.reshape(-1), beta, mean, *sizes, y.reshape(-1))


def meannorm_inference_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    run(_meannorm_inference_backward, dy.size, dy.reshape(-1), *partial_sums(1, scratch, dy, d), flattened(dx), dbeta)


def flattened(x: np.ndarray | None) -> np.ndarray | None:
    """The array as one axis, if it is wanted."""
    return None if x is None else x.reshape(-1)


@elementwise
@kernel
def ema_update(running: InPlace, value: Input, momentum: float) -> None:
    weight = running.dtype.type(momentum)
    for c in prange(chunks(running)):
        kept, new = chunk(running, c), chunk(value, c)
        for i in range(kept.size):
            kept[i] += weight * (new[i] - kept[i])
