"""Normalisation by channel.

Arrays are taken flat, and what belongs to a channel is repeated over a period, at least as long as a few vectors. A
strip is what a few registers hold of a period: a kernel goes down the array strip by strip, with sums or factors in
registers. Sums are taken in chunks, by place in the period, folded to channels, and joined in float64 (Chan, Golub and
LeVeque 1983).
"""

from __future__ import annotations

import math

import numpy as np

from ..interface import InPlace, Input, Output, Scratch
from ..shapes import ChannelDims
from .chunks import chunk, chunks, elementwise, load, run, store
from .jit import disjoint, inline, kernel, prange, region, serial
from .tile import (
    REGISTERS,
    VECTOR_BYTES,
    Shape,
    flat,
    lanes,
    tile_add,
    tile_multiply,
    tile_multiply_add,
    tile_subtract,
    tile_vectors,
    tile_zeros,
)

# Four values a channel, for the gradient, fill half the registers.
STRIP, REST = Shape(1, REGISTERS // 8, 1), Shape(1, 1, 1)

SHORTEST, LONGEST, CHUNKS = 1 << 13, 1 << 16, 64
"""A chunk's elements, about, and how many chunks there are as long as these allow: joining many takes long."""

FEW = 8
"""Periods whose mean stands for a chunk's."""


def period(channels: int) -> int:
    """The smallest multiple of the channels that fills a strip of float32."""
    width = REGISTERS // 8 * VECTOR_BYTES // 4
    return -(-width // channels) * channels


def span(size: int, channels: int) -> int:
    """Elements of a chunk: whole periods."""
    length = min(max(size // CHUNKS, SHORTEST), LONGEST)
    return -(-length // period(channels)) * period(channels)


def parts(size: int, channels: int) -> int:
    """The number of chunks."""
    return -(-size // span(size, channels))


@inline
def part(x, c, length):
    """Chunk c of a flat array."""
    return x[c * length : (c + 1) * length]


@inline
def by_strip(work, period, like, arguments):
    """work(shape, first, columns, *arguments) for every strip of a period: from `first` on, so many columns."""
    width = tile_vectors(STRIP) * lanes(like)
    rest = period // width * width
    for first in range(0, rest, width):
        work(STRIP, first, width, *arguments)
    for first in range(rest, period, lanes(like)):
        work(REST, first, period - first, *arguments)


@disjoint
def add_to(x, sums):
    for i in range(x.size):
        sums[i] += x[i]


@disjoint
def copy(x, y):
    for i in range(x.size):
        y[i] = x[i]


@serial
def fold(sums, channels):
    """Add the period up into its first `channels` elements, pairwise."""
    size = sums.size
    while size > channels:
        half = size // channels // 2 * channels
        add_to(sums[size - half : size], sums[:half])
        size -= half


@serial
def spread(values, channels):
    """Repeat the first `channels` elements of each row over the period."""
    for row in values:
        size = channels
        while size < row.size:
            more = min(size, row.size - size)
            copy(row[:more], row[size : size + more])
            size += more


@inline
def strip_sums(shape, first, columns, x, size, period, sums):
    total = tile_zeros(shape, x)
    for i in range(first, size, period):
        total = tile_add(total, load(shape, x, i, 0, min(columns, size - i)))
    store(shape, total, sums, first, 0, columns)


@serial
def add_up(x, channels, sums):
    """sums[:channels] = Σ x."""
    by_strip(strip_sums, sums.size, x, (flat(x), x.size, sums.size, flat(sums)))
    fold(sums, channels)


@inline
def strip_squares(shape, first, columns, x, size, period, shift, sums, squares):
    total, total_squares = tile_zeros(shape, x), tile_zeros(shape, x)
    for i in range(first, size, period):
        few = min(columns, size - i)  # of the shift as well: what lies beyond the end counts zero
        difference = tile_subtract(load(shape, x, i, 0, few), load(shape, shift, first, 0, few))
        total = tile_add(total, difference)
        total_squares = tile_multiply_add(total_squares, difference, difference)
    store(shape, total, sums, first, 0, columns)
    store(shape, total_squares, squares, first, 0, columns)


@serial
def add_up_squares(x, channels, shift, sums, squares):
    """sums, squares[:channels] = Σ (x − shift), Σ (x − shift)².

    The shift is the mean over the first few periods. However the data lie, it is off the mean by no more than the
    standard deviation times the root of how often these go into the chunk, which bounds what is lost when Σ² is
    subtracted; and a second pass is saved.
    """
    sample = x[: FEW * shift.size]
    add_up(sample, channels, shift)
    for channel in range(channels):
        mean = shift[channel] / (sample.size // channels)
        shift[channel] = mean if abs(mean) < np.inf else shift.dtype.type(0)
    spread(shift.reshape(1, -1), channels)
    by_strip(strip_squares, sums.size, x, (flat(x), x.size, sums.size, flat(shift), flat(sums), flat(squares)))
    fold(sums, channels)
    fold(squares, channels)


@inline
def strip_products(shape, first, columns, dy, x, size, period, mean, sums, products):
    total, total_products = tile_zeros(shape, x), tile_zeros(shape, x)
    for i in range(first, size, period):
        few = min(columns, size - i)
        gradient = load(shape, dy, i, 0, few)
        difference = tile_subtract(load(shape, x, i, 0, few), load(shape, mean, first, 0, few))
        total = tile_add(total, gradient)
        total_products = tile_multiply_add(total_products, gradient, difference)
    store(shape, total, sums, first, 0, columns)
    store(shape, total_products, products, first, 0, columns)


@serial
def add_up_products(dy, x, mean, channels, sums, products):
    """sums, products[:channels] = Σ dy, Σ dy (x − mean), with the mean over a period."""
    arguments = flat(dy), flat(x), x.size, sums.size, flat(mean), flat(sums), flat(products)
    by_strip(strip_products, sums.size, x, arguments)
    fold(sums, channels)
    fold(products, channels)


@inline
def strip_affine(shape, first, columns, x, size, period, factors, y):
    minus = load(shape, factors, first, 0, columns)
    times = load(shape, factors, period + first, 0, columns)
    plus = load(shape, factors, 2 * period + first, 0, columns)
    for i in range(first, size, period):
        few = min(columns, size - i)
        difference = tile_subtract(load(shape, x, i, 0, few), minus)
        store(shape, tile_multiply_add(plus, difference, times), y, i, 0, few)


@serial
def affine(x, factors, y):
    """y = (x − minus) times + plus, with those over a period."""
    period = factors.shape[1]
    by_strip(strip_affine, period, x, (flat(x), x.size, period, flat(factors), flat(y)))


@inline
def strip_gradient(shape, first, columns, dy, x, size, period, factors, dx):
    mean = load(shape, factors, first, 0, columns)
    slope = load(shape, factors, period + first, 0, columns)
    level = load(shape, factors, 2 * period + first, 0, columns)
    scale = load(shape, factors, 3 * period + first, 0, columns)
    for i in range(first, size, period):
        few = min(columns, size - i)
        gradient = tile_subtract(load(shape, dy, i, 0, few), level)
        difference = tile_subtract(load(shape, x, i, 0, few), mean)
        gradient = tile_subtract(gradient, tile_multiply(slope, difference))
        store(shape, tile_multiply(scale, gradient), dx, i, 0, few)


@serial
def input_gradient(dy, x, factors, dx):
    """dx = scale (dy − level − slope (x − mean)), with those over a period."""
    period = factors.shape[1]
    by_strip(strip_gradient, period, x, (flat(dy), flat(x), x.size, period, flat(factors), flat(dx)))


@inline
def joined(sums, channel):
    """The sum over all chunks."""
    total = 0.0
    for c in range(sums.shape[0]):
        total += float(sums[c, channel])
    return total


@region
def add_up_all(x, length, partial, divisor, sums):
    """sums = Σ x / divisor by channel."""
    for c in prange(partial.shape[1]):
        add_up(part(x, c, length), sums.size, partial[0, c])
    for channel in range(sums.size):
        sums[channel] = joined(partial[0], channel) / divisor


@region
def apply(x, length, factors, channels, y):
    """y = (x − minus) times + plus by channel: the rows of `factors`, so far without their repetitions."""
    spread(factors, channels)
    for c in prange((x.size + length - 1) // length):
        affine(part(x, c, length), factors, part(y, c, length))


@kernel
def _batchnorm(x, gamma, beta, eps, length, partial, y, mean, inv_std, var):
    channels, m, rows = mean.size, x.size // mean.size, length // mean.size
    shifts, sums, squares = partial[0], partial[1], partial[2]
    for c in prange(partial.shape[1]):
        add_up_squares(part(x, c, length), channels, shifts[c], sums[c], squares[c])
    factors = np.empty((3, partial.shape[2]), x.dtype)
    for channel in range(channels):
        total = 0.0
        for c in range(shifts.shape[0]):
            count = min(rows, m - c * rows)
            total += float(shifts[c, channel]) * count + float(sums[c, channel])
        average, square = total / m, 0.0
        for c in range(shifts.shape[0]):
            count = min(rows, m - c * rows)
            offset = float(shifts[c, channel]) - average
            square += float(squares[c, channel]) + offset * (2 * float(sums[c, channel]) + offset * count)
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
    sums, products = partial[0], partial[1]
    factors = np.empty((4, partial.shape[2]), x.dtype)
    factors[0, :channels] = mean
    spread(factors[:1], channels)
    for c in prange(partial.shape[1]):
        add_up_products(part(dy, c, length), part(x, c, length), factors[0], channels, sums[c], products[c])
    for channel in range(channels):
        dbeta[channel] = joined(sums, channel)
        dgamma[channel] = joined(products, channel) * inv_std[channel]
        factors[1, channel] = inv_std[channel] * dgamma[channel] / m
        factors[2, channel] = dbeta[channel] / m
        factors[3, channel] = gamma[channel] * inv_std[channel]
    if dx.size:
        spread(factors[1:], channels)
        for c in prange(partial.shape[1]):
            input_gradient(part(dy, c, length), part(x, c, length), factors, part(dx, c, length))


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
    channels, sums, products = mean.size, partial[0], partial[1]
    factors = np.zeros((4, partial.shape[2]), x.dtype)
    for channel in range(channels):
        factors[1, channel] = gamma[channel] / np.sqrt(var[channel] + eps)
        factors[3, channel] = mean[channel]
    spread(factors, channels)
    for c in prange(partial.shape[1]):
        dys = part(dy, c, length)
        add_up_products(dys, part(x, c, length), factors[3], channels, sums[c], products[c])
        if dx.size:
            affine(dys, factors[:3], part(dx, c, length))
    for channel in range(channels):
        dbeta[channel] = joined(sums, channel)
        dgamma[channel] = joined(products, channel) / np.sqrt(var[channel] + eps)


@region
def apply_mean(x, length, mean, divisor, beta, period, y):
    """y = x − mean / divisor + beta, an empty beta being zero."""
    factors = np.zeros((3, period), x.dtype)
    for channel in range(mean.size):
        factors[0, channel] = mean[channel] / divisor
        factors[1, channel] = 1
        if beta.size:
            factors[2, channel] = beta[channel]
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
        copy(chunk(dy, c), chunk(dx, c))


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
    """(the length of a chunk, the scratch as (count, chunks, period))."""
    shape = count, parts(x.size, d.channels), period(d.channels)
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
