"""Normalisation by channel.

Channels are few, often 16: a loop over them is too short to pay. Arrays are taken flat, and what belongs to a channel
is repeated over a period of 512 elements or more, so that inner loops run over whole periods. Sums are taken in chunks,
by place in the period, folded to channels, and joined in float64 (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ..interface import InPlace, Input, Output, Scratch
from ..shapes import ChannelDims
from .chunks import chunk, chunks, clear, elementwise, run
from .jit import disjoint, inline, kernel, prange, serial

PERIOD = 512
"""Elements of a period at least: with 256, the loops' starts cost a tenth of the time."""

CHUNK = 32768
"""Elements of a chunk, about: with half of that, folding costs a fifth of the time."""


@cache
def period(channels: int) -> int:
    """The smallest channels · 2ᵏ that is PERIOD or more: it folds in halves."""
    length = channels
    while length < PERIOD:
        length *= 2
    return length


@cache
def span(channels: int) -> int:
    """Elements of a chunk: whole periods, and no fewer than 16."""
    return period(channels) * max(16, CHUNK // period(channels))


def parts(size: int, channels: int) -> int:
    """The number of chunks."""
    return -(-size // span(channels))


@inline
def part(x, c, length):
    """Chunk c of a flat array."""
    return x[c * length : (c + 1) * length]


@serial
def fold(sums, channels):
    """Add the period up into its first `channels` elements, pairwise."""
    length = sums.size // 2
    while length >= channels:
        low, high = sums[:length], sums[length : 2 * length]
        for i in range(length):
            low[i] += high[i]
        length //= 2


@serial
def spread(values, channels):
    """Repeat the first `channels` elements over the period."""
    length = channels
    while length < values.size:
        low, high = values[:length], values[length : 2 * length]
        for i in range(length):
            high[i] = low[i]
        length *= 2


@disjoint
def accumulate(x, sums):
    for i in range(x.size):
        sums[i] += x[i]


@serial
def add_up(x, channels, sums):
    """sums[:channels] = Σ x."""
    clear(sums)
    for start in range(0, x.size, sums.size):
        accumulate(x[start : start + sums.size], sums)
    fold(sums, channels)


@disjoint
def accumulate_squares(x, x2, x3, x4, shift, sums, squares):
    """Of four periods at once, or what remains of one: three accesses to an accumulator saved out of four."""
    for i in range(x.size):
        d, d2, d3, d4 = x[i] - shift[i], x2[i] - shift[i], x3[i] - shift[i], x4[i] - shift[i]
        sums[i] += (d + d2) + (d3 + d4)
        squares[i] += (d * d + d2 * d2) + (d3 * d3 + d4 * d4)


@serial
def add_up_squares(x, channels, shift, sums, squares):
    """sums, squares[:channels] = Σ (x − shift), Σ (x − shift)².

    The shift is the mean over the first period. However the data lie, it is off the mean by no more than the standard
    deviation times the root of the number of periods, which bounds what is lost when Σ² is subtracted; and a second
    pass is saved.
    """
    first = x[: shift.size]
    add_up(first, channels, shift)
    zero, n = sums.dtype.type(0), sums.size
    for i in range(channels):
        mean = shift[i] / (first.size // channels)
        shift[i] = mean if abs(mean) < np.inf else zero
    spread(shift, channels)
    clear(sums)
    clear(squares)
    fours = x.size // (4 * n) * (4 * n)
    for start in range(0, fours, 4 * n):
        xs = x[start : start + 4 * n]
        accumulate_squares(xs[:n], xs[n : 2 * n], xs[2 * n : 3 * n], xs[3 * n :], shift, sums, squares)
    for start in range(fours, x.size, n):
        accumulate_squares(x[start : start + n], shift, shift, shift, shift, sums, squares)
    fold(sums, channels)
    fold(squares, channels)


@disjoint
def accumulate_products(dy, x, mean, sums, products):
    for i in range(x.size):
        sums[i] += dy[i]
        products[i] += dy[i] * (x[i] - mean[i])


@serial
def add_up_products(dy, x, mean, channels, sums, products):
    """sums, products[:channels] = Σ dy, Σ dy (x − mean), with the mean over a period."""
    clear(sums)
    clear(products)
    for start in range(0, x.size, sums.size):
        stop = start + sums.size
        accumulate_products(dy[start:stop], x[start:stop], mean, sums, products)
    fold(sums, channels)
    fold(products, channels)


@inline
def joined(sums, channel):
    """The sum over all chunks."""
    total = 0.0
    for c in range(sums.shape[0]):
        total += float(sums[c, channel])
    return total


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


@kernel
def _sums(x, length, divisor, partial, sums):
    """sums = Σ x / divisor by channel."""
    channels = sums.size
    for c in prange(partial.shape[1]):
        add_up(part(x, c, length), channels, partial[0, c])
    for channel in range(channels):
        sums[channel] = joined(partial[0], channel) / divisor


@kernel
def _moments(x, length, eps, partial, mean, inv_std, var):
    """The statistics of `batchnorm`."""
    channels, m, rows = mean.size, x.size // mean.size, length // mean.size
    shifts, sums, squares = partial[0], partial[1], partial[2]
    for c in prange(shifts.shape[0]):
        add_up_squares(part(x, c, length), channels, shifts[c], sums[c], squares[c])
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


@kernel
def _product_sums(dy, x, length, mean, inv_std, partial, dgamma, dbeta):
    """dgamma = Σ dy (x − mean) inv_std, dbeta = Σ dy by channel, with the mean over a period."""
    channels, sums, products = dbeta.size, partial[0], partial[1]
    for c in prange(sums.shape[0]):
        add_up_products(part(dy, c, length), part(x, c, length), mean, channels, sums[c], products[c])
    for channel in range(channels):
        dbeta[channel] = joined(sums, channel)
        dgamma[channel] = joined(products, channel) * inv_std[channel]


@disjoint
def affine(x, minus, times, plus, y):
    """y = (x − minus) times + plus."""
    for i in range(x.size):
        y[i] = (x[i] - minus[i]) * times[i] + plus[i]


@kernel
def _affine(x, length, minus, times, plus, y):
    """y = (x − minus) times + plus, with those over a period."""
    for c in prange((x.size + length - 1) // length):
        xs, ys = part(x, c, length), part(y, c, length)
        for start in range(0, xs.size, minus.size):
            stop = start + minus.size
            affine(xs[start:stop], minus, times, plus, ys[start:stop])


@disjoint
def input_gradient(dy, x, mean, slope, level, scale, dx):
    """dx = scale (dy − level − slope (x − mean))."""
    for i in range(x.size):
        dx[i] = scale[i] * (dy[i] - level[i] - slope[i] * (x[i] - mean[i]))


@kernel
def _input_gradient(dy, x, length, mean, slope, level, scale, dx):
    """dx = scale (dy − level − slope (x − mean)), with those over a period."""
    for c in prange((x.size + length - 1) // length):
        dys, xs, dxs = part(dy, c, length), part(x, c, length), part(dx, c, length)
        for start in range(0, xs.size, mean.size):
            stop = start + mean.size
            input_gradient(dys[start:stop], xs[start:stop], mean, slope, level, scale, dxs[start:stop])


def repeated(by_channel: np.ndarray) -> np.ndarray:
    """Values by channel, repeated over a period."""
    channels = by_channel.size
    full = np.empty((period(channels) // channels, channels), by_channel.dtype)
    full[:] = by_channel
    return full.reshape(-1)


def partial_sums(count: int, scratch: np.ndarray, x: np.ndarray, d: ChannelDims) -> np.ndarray:
    """The scratch as (count, chunks, period)."""
    shape = count, parts(x.size, d.channels), period(d.channels)
    return scratch[: math.prod(shape)].reshape(shape)


def normalise(x: np.ndarray, minus: np.ndarray, times: np.ndarray, plus: np.ndarray, y: np.ndarray) -> None:
    """y = (x − minus) times + plus by channel."""
    by_channel = repeated(minus), repeated(times), repeated(plus)
    run(_affine, x.size, x.reshape(-1), span(minus.size), *by_channel, y.reshape(-1))


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
    partial = partial_sums(3, scratch, x, d)
    run(_moments, x.size, x.reshape(-1), span(d.channels), eps, partial, mean, inv_std, var)
    normalise(x, mean, gamma * inv_std, beta, y)


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
    arrays, means = (dy.reshape(-1), x.reshape(-1), span(d.channels)), repeated(mean)
    run(_product_sums, x.size, *arrays, means, inv_std, partial_sums(2, scratch, x, d), dgamma, dbeta)
    if dx is not None:
        m = x.size // d.channels
        slope, level, scale = repeated(inv_std * dgamma / m), repeated(dbeta / m), repeated(gamma * inv_std)
        run(_input_gradient, x.size, *arrays, means, slope, level, scale, dx.reshape(-1))


def batchnorm_inference(x: Input, gamma: Input, beta: Input, mean: Input, var: Input, eps: float, y: Output) -> None:
    normalise(x, mean, gamma / np.sqrt(var + eps), beta, y)


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
    inv_std = 1 / np.sqrt(var + eps)
    batchnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, None, dgamma, dbeta)
    if dx is not None:
        zero = np.zeros_like(mean)
        normalise(dy, zero, gamma * inv_std, zero, dx)


def meannorm(x: Input, beta: Input, d: ChannelDims, scratch: Scratch, y: Output, mean: Output) -> None:
    partial = partial_sums(1, scratch, x, d)
    run(_sums, x.size, x.reshape(-1), span(d.channels), x.size // d.channels, partial, mean)
    meannorm_inference(x, beta, mean, y)


def meannorm_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    run(_sums, dy.size, dy.reshape(-1), span(d.channels), 1, partial_sums(1, scratch, dy, d), dbeta)
    if dx is not None:
        meannorm_inference(dy, np.zeros_like(dbeta), dbeta / (dy.size // d.channels), dx)


def meannorm_inference(x: Input, beta: Input, mean: Input, y: Output) -> None:
    normalise(x, mean, np.ones_like(mean), beta, y)


def meannorm_inference_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    run(_sums, dy.size, dy.reshape(-1), span(d.channels), 1, partial_sums(1, scratch, dy, d), dbeta)
    if dx is not None:
        np.copyto(dx, dy)


@elementwise
@kernel
def ema_update(running: InPlace, value: Input, momentum: float) -> None:
    weight = running.dtype.type(momentum)
    for c in prange(chunks(running)):
        kept, new = chunk(running, c), chunk(value, c)
        for i in range(kept.size):
            kept[i] += weight * (new[i] - kept[i])
