"""Normalisation by channel, by position and by group: passes of `tiles.strips`, and rows one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..interface import InPlace, Input, Output, Scratch
from ..shapes import ChannelDims, GroupDims
from .compiler.jit import disjoint, inline, kernel, prange
from .tiles.chunks import CHUNK, block_rows, chunk, chunks, elementwise, rows, run, share
from .tiles.strips import (
    add_up,
    add_up_products,
    add_up_squares,
    affine,
    bounds,
    group_gradient,
    input_gradient,
    joined,
    parts,
    period,
    span,
    spread,
)
from .tiles.tile import flat

__all__ = [
    "batchnorm",
    "batchnorm_backward",
    "batchnorm_backward_scratch",
    "batchnorm_inference",
    "batchnorm_inference_backward",
    "batchnorm_inference_backward_scratch",
    "batchnorm_scratch",
    "ema_update",
    "groupnorm",
    "groupnorm_backward",
    "groupnorm_backward_scratch",
    "groupnorm_scratch",
    "layernorm",
    "layernorm_backward",
    "layernorm_backward_scratch",
    "local_response_norm",
    "local_response_norm_backward",
    "local_response_norm_backward_scratch",
    "meannorm",
    "meannorm_backward",
    "meannorm_backward_scratch",
    "meannorm_inference",
    "meannorm_inference_backward",
    "meannorm_inference_backward_scratch",
    "meannorm_scratch",
]


@inline
def add_up_all(x, length, partial, divisor, sums):
    """sums = Σ x / divisor by channel."""
    period = partial.shape[2]
    for c in prange(partial.shape[0]):
        start, stop = bounds(c, length, x.size)
        add_up(flat(x), start, stop, period, sums.size, flat(partial), c * period)
    for channel in range(sums.size):
        sums[channel] = joined(partial, 0, channel) / divisor


@inline
def apply(x, length, factors, channels, y):
    """y = (x − minus) times + plus by channel: the rows of `factors`, so far without their repetitions."""
    period = factors.shape[1]
    for row in range(3):
        spread(flat(factors), row * period, period, channels)
    for c in prange((x.size + length - 1) // length):
        start, stop = bounds(c, length, x.size)
        affine(flat(x), start, stop, period, flat(factors), flat(y))


@inline
def batch_factors(x, gamma, beta, eps, length, partial, mean, inv_std, var):
    """The batch's statistics, and of them the rows minus, times and plus of `affine`."""
    channels, m, rows = mean.size, x.size // mean.size, length // mean.size
    parts, _, period = partial.shape
    for c in prange(parts):
        start, stop = bounds(c, length, x.size)
        add_up_squares(flat(x), start, stop, period, channels, flat(partial), c * 3 * period)
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
    for row in range(3):
        spread(flat(factors), row * period, period, channels)
    return factors


@kernel
def _batchnorm(x, gamma, beta, eps, length, partial, y, mean, inv_std, var):
    factors = batch_factors(x, gamma, beta, eps, length, partial, mean, inv_std, var)
    for c in prange(partial.shape[0]):
        start, stop = bounds(c, length, x.size)
        affine(flat(x), start, stop, partial.shape[2], flat(factors), flat(y))


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
        at = c * 2 * period
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
        at = c * 2 * period
        add_up_products(flat(dy), flat(x), start, stop, period, channels, flat(means), flat(partial), at)
        if dx.size:
            affine(flat(dy), start, stop, period, flat(factors), flat(dx))
    for channel in range(channels):
        dbeta[channel] = joined(partial, 0, channel)
        dgamma[channel] = joined(partial, 1, channel) / np.sqrt(var[channel] + eps)


@inline
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


# By position: rows, one by one ------------------------------------------------------------------------------------

SHARES = 64
"""Of rows: each has sums of its own by channel."""


@disjoint
def standardise(xs, gamma, beta, eps, ys):
    """A row normalised: (its mean, 1 / its deviation)."""
    real = type(eps)
    sum_, square = real(0), real(0)
    for i in range(xs.size):
        sum_ += xs[i]
    mean = sum_ / xs.size
    for i in range(xs.size):
        difference = xs[i] - real(mean)
        square += difference * difference
        ys[i] = difference
    scale = real(1 / np.sqrt(square / xs.size + eps))
    for i in range(xs.size):
        ys[i] = ys[i] * scale * gamma[i] + beta[i]
    return real(mean), scale


@kernel
def _layernorm(x, gamma, beta, eps, y, mean, inv_std):
    height, least = block_rows(x), x.dtype.type(eps)
    for b in prange((x.shape[0] + height - 1) // height):
        for row in range(b * height, min((b + 1) * height, x.shape[0])):
            mean[row], inv_std[row] = standardise(x[row], gamma, beta, least, y[row])


def layernorm(
    x: Input, gamma: Input, beta: Input, eps: float, d: ChannelDims, y: Output, mean: Output, inv_std: Output
) -> None:
    matrices = x.reshape(-1, d.channels), gamma.reshape(-1), beta.reshape(-1), float(eps), y.reshape(-1, d.channels)
    run(_layernorm, x.size, *matrices, mean.reshape(-1), inv_std.reshape(-1))


@disjoint
def add_row(dys, xs, mean, scale, dgamma, dbeta):
    """dgamma += dy x̂, dbeta += dy."""
    for i in range(xs.size):
        dgamma[i] += dys[i] * ((xs[i] - mean) * scale)
        dbeta[i] += dys[i]


@disjoint
def row_gradient(dys, xs, gamma, mean, scale, dxs):
    """dx of a row."""
    real = type(scale)
    level, slope = real(0), real(0)
    for i in range(xs.size):
        dxs[i] = gamma[i] * dys[i]  # rounded: of a row of one value nothing must be left
        level += dxs[i]
        slope += dxs[i] * (xs[i] - mean)
    level = real(level / xs.size)
    slope = real(slope * scale * scale / xs.size)
    for i in range(xs.size):
        dxs[i] = scale * (dxs[i] - level - slope * (xs[i] - mean))


@kernel(optional={"dx": 2})
def _layernorm_backward(dy, x, gamma, mean, inv_std, sums, dx, dgamma, dbeta):
    rows, channels = x.shape
    for item in prange(sums.shape[0]):
        first, end = share(rows, item, sums.shape[0])
        own_gamma, own_beta = sums[item, 0], sums[item, 1]
        for i in range(channels):
            own_gamma[i] = 0
            own_beta[i] = 0
        for row in range(first, end):
            add_row(dy[row], x[row], mean[row], inv_std[row], own_gamma, own_beta)
            if dx.size:
                row_gradient(dy[row], x[row], gamma, mean[row], inv_std[row], dx[row])
    for i in range(channels):
        dgamma[i] = joined(sums, 0, i)
        dbeta[i] = joined(sums, 1, i)


def shares(rows: int) -> int:
    """Of rows, whose sums are taken one by one."""
    return min(SHARES, rows)


def layernorm_backward_scratch(d: ChannelDims, n: int) -> int:
    """Two sums a channel and share."""
    return 2 * d.channels * shares(n * d.positions)


def layernorm_backward(
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
    shape = (-1, d.channels)
    sums = scratch[: layernorm_backward_scratch(d, len(x))].reshape(-1, 2, d.channels)
    given = dy.reshape(shape), x.reshape(shape), gamma.reshape(-1), mean.reshape(-1), inv_std.reshape(-1)
    gradients = dx if dx is None else dx.reshape(shape), dgamma.reshape(-1), dbeta.reshape(-1)
    run(_layernorm_backward, x.size, *given, sums, *gradients)


# By group: sums by sample and channel, joined by group ------------------------------------------------------------


@inline
def piece(item, d, length, many):
    """(sample, start, stop) of one of the pieces of each sample, `length` elements each."""
    sample, size = item // many, d.positions * d.channels
    start, stop = bounds(item % many, length, size)
    return sample, sample * size + start, sample * size + stop


@inline
def group_statistics(sums, d, rows, group):
    """(mean, biased variance) of a group, from the `add_up_squares` of a sample's pieces of so many positions."""
    size = d.channels // d.groups
    total = square = 0.0
    for channel in range(group * size, (group + 1) * size):
        for c in range(sums.shape[0]):
            total += float(sums[c, 2, channel]) * min(rows, d.positions - c * rows) + float(sums[c, 0, channel])
    average = total / (d.positions * size)
    for channel in range(group * size, (group + 1) * size):
        for c in range(sums.shape[0]):
            offset = float(sums[c, 2, channel]) - average
            count = min(rows, d.positions - c * rows)
            square += float(sums[c, 1, channel]) + offset * (2 * float(sums[c, 0, channel]) + offset * count)
    square = 0.0 if square < 0 else square
    return average, square / (d.positions * size)


@kernel
def _groupnorm(x, gamma, beta, eps, d, length, sums, factors, y, mean, inv_std):
    many, period = sums.shape[1], sums.shape[3]
    for item in prange(sums.shape[0] * many):
        _, start, stop = piece(item, d, length, many)
        add_up_squares(flat(x), start, stop, period, d.channels, flat(sums), item * 3 * period)
    for n in range(sums.shape[0]):
        for group in range(d.groups):
            average, variance = group_statistics(sums[n], d, length // d.channels, group)
            mean[n, group] = average
            inv_std[n, group] = 1 / np.sqrt(variance + eps)
        for channel in range(d.channels):
            group = channel * d.groups // d.channels
            factors[n, 0, channel] = mean[n, group]
            factors[n, 1, channel] = gamma[channel] * inv_std[n, group]
            factors[n, 2, channel] = beta[channel]
        for row in range(3):
            spread(flat(factors), (n * 3 + row) * period, period, d.channels)
    for item in prange(sums.shape[0] * many):
        sample, start, stop = piece(item, d, length, many)
        affine(flat(x), start, stop, period, flat(factors[sample]), flat(y))


@kernel(optional={"dx": 1})
def _groupnorm_backward(dy, x, gamma, mean, inv_std, d, length, sums, factors, dx, dgamma, dbeta):
    many, period, size = sums.shape[1], sums.shape[3], d.channels // d.groups
    for n in range(sums.shape[0]):
        for channel in range(d.channels):
            factors[n, 0, channel] = mean[n, channel // size]
        spread(flat(factors), n * 5 * period, period, d.channels)
    for item in prange(sums.shape[0] * many):
        sample, start, stop = piece(item, d, length, many)
        means, at = flat(factors[sample]), item * 2 * period
        add_up_products(flat(dy), flat(x), start, stop, period, d.channels, means, flat(sums), at)
    for channel in range(d.channels):
        total = products = 0.0
        for n in range(sums.shape[0]):
            total += joined(sums[n], 0, channel)
            products += joined(sums[n], 1, channel) * inv_std[n, channel // size]
        dbeta[channel] = total
        dgamma[channel] = products
    if dx.size:
        for n in range(sums.shape[0]):
            for group in range(d.groups):
                level = slope = 0.0
                for channel in range(group * size, (group + 1) * size):
                    level += gamma[channel] * joined(sums[n], 0, channel)
                    slope += gamma[channel] * joined(sums[n], 1, channel)
                scale = inv_std[n, group]
                for channel in range(group * size, (group + 1) * size):
                    factors[n, 1, channel] = scale * scale * slope / (d.positions * size)
                    factors[n, 2, channel] = level / (d.positions * size)
                    factors[n, 3, channel] = gamma[channel]
                    # Of a group of one value nothing is left; a multiply-add would leave its product's rounding.
                    factors[n, 4, channel] = scale if d.positions * size > 1 else 0.0
            for row in range(1, 5):
                spread(flat(factors), (n * 5 + row) * period, period, d.channels)
        for item in prange(sums.shape[0] * many):
            sample, start, stop = piece(item, d, length, many)
            group_gradient(flat(dy), flat(x), start, stop, period, flat(factors[sample]), flat(dx))


def group_layout(d: GroupDims, n: int, sums: int, factors: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """(elements of a piece, the shapes of so many sums a sample and piece and of so many factors a sample)."""
    size, width = d.positions * d.channels, period(d.channels)
    return span(size, d.channels), (n, parts(size, d.channels), sums, width), (n, factors, width)


def group_scratch(d: GroupDims, scratch: np.ndarray, n: int, sums: int, factors: int) -> tuple[int, Any, Any]:
    """`group_layout`, of the scratch."""
    length, first, second = group_layout(d, n, sums, factors)
    at = math.prod(first)
    return length, scratch[:at].reshape(first), scratch[at : at + math.prod(second)].reshape(second)


def groupnorm_scratch(d: GroupDims, n: int) -> int:
    """Three sums a sample and piece, three factors a sample."""
    return sum(map(math.prod, group_layout(d, n, 3, 3)[1:]))


def groupnorm_backward_scratch(d: GroupDims, n: int) -> int:
    """Two sums a sample and piece, five factors a sample."""
    return sum(map(math.prod, group_layout(d, n, 2, 5)[1:]))


def groupnorm(
    x: Input,
    gamma: Input,
    beta: Input,
    eps: float,
    d: GroupDims,
    scratch: Scratch,
    y: Output,
    mean: Output,
    inv_std: Output,
) -> None:
    layout = group_scratch(d, scratch, len(x), 3, 3)
    run(_groupnorm, x.size, x.reshape(-1), gamma, beta, float(eps), d, *layout, y.reshape(-1), mean, inv_std)


def groupnorm_backward(
    dy: Input,
    x: Input,
    gamma: Input,
    mean: Input,
    inv_std: Input,
    d: GroupDims,
    scratch: Scratch,
    dx: Output | None,
    dgamma: Output,
    dbeta: Output,
) -> None:
    given = dy.reshape(-1), x.reshape(-1), gamma, mean, inv_std, d
    layout = group_scratch(d, scratch, len(x), 2, 5)
    run(_groupnorm_backward, x.size, *given, *layout, flattened(dx), dgamma, dbeta)


# By neighbouring channels -----------------------------------------------------------------------------------------


@disjoint
def sum_window(xs, before, after, sums):
    """sums[c] += Σ x[k] over c − before <= k <= c + after."""
    channels = xs.size
    for shift in range(max(-before, 1 - channels), min(after, channels - 1) + 1):
        source, target = xs[max(shift, 0) :], sums[max(-shift, 0) :]
        for c in range(channels - abs(shift)):
            target[c] += source[c]


@disjoint
def raise_to(values, exponent, out):
    """out = values ^ −exponent; roots, where they do, take a tenth of the time."""
    one = values.dtype.type(1)
    if exponent == 0.75:
        for i in range(values.size):
            root = np.sqrt(values[i])
            out[i] = one / (root * np.sqrt(root))
    elif exponent == 0.5:
        for i in range(values.size):
            out[i] = one / np.sqrt(values[i])
    elif exponent == 1.0:
        for i in range(values.size):
            out[i] = one / values[i]
    else:
        for i in range(values.size):
            out[i] = values[i] ** -exponent


@disjoint
def respond(xs, size, weight, beta, bias, ys, scales):
    """One position: y and scale. y holds the squares on the way."""
    for c in range(xs.size):
        ys[c] = xs[c] * xs[c]
        scales[c] = 0
    sum_window(ys, (size - 1) // 2, size // 2, scales)
    for c in range(xs.size):
        scales[c] = bias + weight * scales[c]
    raise_to(scales, beta, ys)
    for c in range(xs.size):
        ys[c] *= xs[c]


@kernel
def _local_response_norm(x, size, alpha, beta, bias, y, scale):
    real, height = x.dtype.type, block_rows(x)
    weight, exponent, least = real(alpha / size), real(beta), real(bias)
    for b in prange((x.shape[0] + height - 1) // height):
        for row in range(b * height, min((b + 1) * height, x.shape[0])):
            respond(x[row], size, weight, exponent, least, y[row], scale[row])


def local_response_norm(
    x: Input, size: int, alpha: float, beta: float, bias: float, d: ChannelDims, y: Output, scale: Output
) -> None:
    settings = size, float(alpha), float(beta), float(bias)
    run(_local_response_norm, x.size, rows(x), *settings, rows(y), rows(scale))


@disjoint
def response_gradient(dys, xs, scales, size, weight, beta, powers, terms, dxs):
    """dx of one position."""
    raise_to(scales, beta, powers)
    for c in range(xs.size):
        powers[c] *= dys[c]
        terms[c] = powers[c] * xs[c] / scales[c]
        dxs[c] = 0
    sum_window(terms, size // 2, (size - 1) // 2, dxs)
    for c in range(xs.size):
        dxs[c] = powers[c] - weight * xs[c] * dxs[c]


@kernel
def _local_response_norm_backward(dy, x, scale, size, alpha, beta, terms, dx):
    real, height = x.dtype.type, block_rows(x)
    weight, exponent = real(2 * alpha * beta / size), real(beta)
    for b in prange((x.shape[0] + height - 1) // height):
        for row in range(b * height, min((b + 1) * height, x.shape[0])):
            response_gradient(dy[row], x[row], scale[row], size, weight, exponent, terms[b, 0], terms[b, 1], dx[row])


def local_response_norm_backward_scratch(d: ChannelDims, n: int) -> int:
    """Two rows a block."""
    height = max(1, CHUNK // d.channels)
    return 2 * d.channels * -(-n * d.positions // height)


def local_response_norm_backward(
    dy: Input,
    x: Input,
    scale: Input,
    size: int,
    alpha: float,
    beta: float,
    d: ChannelDims,
    scratch: Scratch,
    dx: Output,
) -> None:
    terms = scratch[: local_response_norm_backward_scratch(d, len(x))].reshape(-1, 2, d.channels)
    given = rows(dy), rows(x), rows(scale), size, float(alpha), float(beta), terms
    run(_local_response_norm_backward, x.size, *given, rows(dx))
