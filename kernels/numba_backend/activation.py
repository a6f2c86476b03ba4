"""Activations and dropout: one formula an element, over flat arrays.

The common ones are kernels of their own. The others share a pair, `activate` and `activate_backward`, which knows them
by number: they compile together, in less time than four kernels take.
"""

from __future__ import annotations

import math

import numpy as np

from ..interface import SPLITMIX64, Input, Output, Scratch
from ..polynomials import GELU_CUBIC, TAIL_LIMIT_32, TAIL_LIMIT_64
from ..shapes import ChannelDims
from .compiler.jit import Flat, disjoint, exact, inline, kernel, prange, separate
from .tiles import elementary
from .tiles.chunks import CHUNK, chunk, chunks, elementwise, run
from .tiles.strips import bounds, fold, joined, parts, period, span, spread
from .tiles.tile import flat

__all__ = [
    "celu",
    "celu_backward",
    "clip",
    "clip_backward",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "mish",
    "mish_backward",
    "prelu",
    "prelu_backward",
    "prelu_backward_scratch",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "tanh",
    "tanh_backward",
    "thresholded_relu",
    "thresholded_relu_backward",
]

DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


@elementwise
@kernel
def relu(x: Input, y: Output) -> None:
    zero = x.dtype.type(0)
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = zero if xs[i] <= zero else xs[i]


@elementwise
@kernel
def relu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    zero = x.dtype.type(0)
    for c in prange(chunks(x)):
        dys, xs, dxs = chunk(dy, c), chunk(x, c), chunk(dx, c)
        for i in range(xs.size):
            dxs[i] = zero if xs[i] <= zero else dys[i]


@elementwise
@kernel
def leaky_relu(x: Input, negative_slope: float, y: Output) -> None:
    slope = x.dtype.type(negative_slope)
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = xs[i] if xs[i] > 0 else slope * xs[i]


@elementwise
@kernel
def leaky_relu_backward(dy: Input, x: Input, y: Input, negative_slope: float, dx: Output) -> None:
    slope = x.dtype.type(negative_slope)
    for c in prange(chunks(x)):
        dys, xs, dxs = chunk(dy, c), chunk(x, c), chunk(dx, c)
        for i in range(xs.size):
            dxs[i] = dys[i] if xs[i] > 0 else slope * dys[i]


@elementwise
@kernel
def elu(x: Input, alpha: float, y: Output) -> None:
    scale, zero = x.dtype.type(alpha), x.dtype.type(0)
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            negative = scale * elementary.expm1_negative(zero if xs[i] > zero else xs[i])
            ys[i] = xs[i] if xs[i] > zero else negative


@elementwise
@kernel
def elu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    scale = x.dtype.type(alpha)
    for c in prange(chunks(x)):
        dys, xs, ys, dxs = chunk(dy, c), chunk(x, c), chunk(y, c), chunk(dx, c)
        for i in range(xs.size):
            dxs[i] = dys[i] if xs[i] > 0 else dys[i] * (ys[i] + scale)


@elementwise
@kernel
def gelu(x: Input, y: Output) -> None:
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            distribution, _ = elementary.normal(xs[i])
            ys[i] = xs[i] * distribution


@elementwise
@kernel
def gelu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    scale = x.dtype.type(DENSITY_AT_0)
    for c in prange(chunks(x)):
        dys, xs, dxs = chunk(dy, c), chunk(x, c), chunk(dx, c)
        for i in range(xs.size):
            distribution, bell = elementary.normal(xs[i])
            dxs[i] = dys[i] * (distribution + xs[i] * (scale * bell))


@elementwise
@kernel
def silu(x: Input, y: Output) -> None:
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = xs[i] * elementary.sigmoid(xs[i])


@elementwise
@kernel
def silu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    one = x.dtype.type(1)
    for c in prange(chunks(x)):
        dys, xs, dxs = chunk(dy, c), chunk(x, c), chunk(dx, c)
        for i in range(xs.size):
            s = elementary.sigmoid(xs[i])
            dxs[i] = dys[i] * s * (one + xs[i] * (one - s))


@elementwise
@kernel
def sigmoid(x: Input, y: Output) -> None:
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = elementary.sigmoid(xs[i])


@elementwise
@kernel
def sigmoid_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    one = x.dtype.type(1)
    for c in prange(chunks(x)):
        dys, ys, dxs = chunk(dy, c), chunk(y, c), chunk(dx, c)
        for i in range(ys.size):
            dxs[i] = dys[i] * ys[i] * (one - ys[i])


@elementwise
@kernel
def tanh(x: Input, y: Output) -> None:
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = elementary.tanh(xs[i])


@elementwise
@kernel
def tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    one = x.dtype.type(1)
    for c in prange(chunks(x)):
        dys, ys, dxs = chunk(dy, c), chunk(y, c), chunk(dx, c)
        for i in range(ys.size):
            dxs[i] = dys[i] * (one - ys[i] * ys[i])


@elementwise
@kernel
def softplus(x: Input, y: Output) -> None:
    for c in prange(chunks(x)):
        xs, ys = chunk(x, c), chunk(y, c)
        for i in range(xs.size):
            ys[i] = elementary.softplus(xs[i])


@elementwise
@kernel
def softplus_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    for c in prange(chunks(x)):
        dys, xs, dxs = chunk(dy, c), chunk(x, c), chunk(dx, c)
        for i in range(xs.size):
            dxs[i] = dys[i] * elementary.sigmoid(xs[i])


# The others, by number ------------------------------------------------------------------------------------------

CLIP, HARD_SIGMOID, HARD_SWISH, MISH, SELU, CELU, GELU_TANH, SOFTSIGN, THRESHOLDED_RELU = range(9)


@exact
def clipped(x, low, high):
    above = type(x)(low) if x <= low else x
    return type(x)(high) if above > high else above


@exact
def mish_of(x):
    e = elementary.exp(-abs(x))
    one, two = type(x)(1), type(x)(2)
    # tanh(log(1 + eˣ)) = n / (n + 2), n = eˣ (eˣ + 2); for x > 0 both parts times e^−2x.
    top = one + two * e if x > 0 else e * (e + two)
    return x * (top / (top + two * (e * e if x > 0 else one)))


@exact
def mish_slope(x):
    e = elementary.exp(-abs(x))
    one, two, four = type(x)(1), type(x)(2), type(x)(4)
    top = one + two * e if x > 0 else e * (e + two)
    below = top + two * (e * e if x > 0 else one)
    # σ(x) (1 − t²), whose difference would cancel
    rest = four * e * (one + e) * (e if x > 0 else one) / (below * below)
    return top / below + x * rest


@exact
def tanh_gate(x):
    """2u: (1 + tanh u) / 2 is σ(2u)."""
    real = type(x)
    return real(2 * math.sqrt(2 / math.pi)) * (x * (real(1) + real(GELU_CUBIC) * (x * x)))


@exact
def gelu_tanh_slope(x):
    real = type(x)
    limit = real(TAIL_LIMIT_32) if elementary.single(x) else real(TAIL_LIMIT_64)
    gate = tanh_gate(x)
    s, rest = elementary.sigmoid(gate), elementary.sigmoid(-gate)
    z = limit if abs(x) > limit else abs(x)  # whose square does not overflow; beyond it s · rest is 0
    slope = real(2 * math.sqrt(2 / math.pi)) * (real(1) + real(3 * GELU_CUBIC) * (z * z))
    return s + x * (slope * rest * s)


@separate
def activate(number: int, x: Flat, start: int, stop: int, a: float, b: float, y: Flat) -> None:
    """y = an activation of x over start:stop, with its attributes a and b."""
    real = type(x[start])
    if number == CLIP:
        for i in range(start, stop):
            y[i] = clipped(x[i], real(a), real(b))
    elif number == HARD_SIGMOID:
        for i in range(start, stop):
            y[i] = clipped(real(a) * x[i] + real(b), real(0), real(1))
    elif number == HARD_SWISH:
        for i in range(start, stop):
            y[i] = x[i] * (clipped(x[i] + real(3), real(0), real(6)) * real(1 / 6))
    elif number == MISH:
        for i in range(start, stop):
            y[i] = mish_of(x[i])
    elif number == SELU:
        for i in range(start, stop):
            e = elementary.expm1_negative(real(0) if x[i] > 0 else x[i])
            y[i] = real(b) * x[i] if x[i] > 0 else real(b * a) * e
    elif number == CELU:
        for i in range(start, stop):
            e = elementary.expm1_negative((real(0) if x[i] > 0 else x[i]) / real(a))
            y[i] = x[i] if x[i] > 0 else real(a) * e
    elif number == GELU_TANH:
        for i in range(start, stop):
            y[i] = x[i] * elementary.sigmoid(tanh_gate(x[i]))
    elif number == SOFTSIGN:
        for i in range(start, stop):
            y[i] = x[i] / (real(1) + abs(x[i]))
    else:  # THRESHOLDED_RELU
        for i in range(start, stop):
            y[i] = real(0) if x[i] <= real(a) else x[i]


@separate
def activate_backward(
    number: int, dy: Flat, x: Flat, y: Flat, start: int, stop: int, a: float, b: float, dx: Flat
) -> None:
    """dx of an activation over start:stop, with its attributes a and b."""
    real = type(x[start])
    if number == CLIP:
        for i in range(start, stop):
            dx[i] = real(0) if x[i] <= real(a) or x[i] >= real(b) else dy[i]
    elif number == HARD_SIGMOID:
        for i in range(start, stop):
            dx[i] = real(0) if y[i] <= real(0) or y[i] >= real(1) else real(a) * dy[i]
    elif number == HARD_SWISH:
        for i in range(start, stop):
            middle = dy[i] * (x[i] * real(1 / 3) + real(0.5))
            dx[i] = real(0) if x[i] <= real(-3) else dy[i] if x[i] >= real(3) else middle
    elif number == MISH:
        for i in range(start, stop):
            dx[i] = dy[i] * mish_slope(x[i])
    elif number == SELU:
        for i in range(start, stop):
            dx[i] = real(b) * dy[i] if x[i] > 0 else dy[i] * (y[i] + real(b * a))
    elif number == CELU:
        for i in range(start, stop):
            dx[i] = dy[i] if x[i] > 0 else dy[i] * (real(1) + y[i] / real(a))
    elif number == GELU_TANH:
        for i in range(start, stop):
            dx[i] = dy[i] * gelu_tanh_slope(x[i])
    elif number == SOFTSIGN:
        for i in range(start, stop):
            below = real(1) + abs(x[i])
            dx[i] = dy[i] / below / below
    else:  # THRESHOLDED_RELU
        for i in range(start, stop):
            dx[i] = real(0) if x[i] <= real(a) else dy[i]


@kernel
def _activate(x, number, a, b, y):
    for c in prange(chunks(x)):
        start, stop = bounds(c, CHUNK, x.size)
        activate(number, flat(x), start, stop, a, b, flat(y))


@kernel
def _activate_backward(dy, x, y, number, a, b, dx):
    for c in prange(chunks(x)):
        start, stop = bounds(c, CHUNK, x.size)
        activate_backward(number, flat(dy), flat(x), flat(y), start, stop, a, b, flat(dx))


def forward(number: int, x: Input, y: Output, a: float = 0.0, b: float = 0.0) -> None:
    run(_activate, x.size, x.reshape(-1), number, float(a), float(b), y.reshape(-1))


def backward(number: int, dy: Input, x: Input, y: Input, dx: Output, a: float = 0.0, b: float = 0.0) -> None:
    flat_ = dy.reshape(-1), x.reshape(-1), y.reshape(-1)
    run(_activate_backward, x.size, *flat_, number, float(a), float(b), dx.reshape(-1))


def clip(x: Input, low: float, high: float, y: Output) -> None:
    forward(CLIP, x, y, low, high)


def clip_backward(dy: Input, x: Input, y: Input, low: float, high: float, dx: Output) -> None:
    backward(CLIP, dy, x, y, dx, low, high)


def hard_sigmoid(x: Input, alpha: float, beta: float, y: Output) -> None:
    forward(HARD_SIGMOID, x, y, alpha, beta)


def hard_sigmoid_backward(dy: Input, x: Input, y: Input, alpha: float, beta: float, dx: Output) -> None:
    backward(HARD_SIGMOID, dy, x, y, dx, alpha, beta)


def hard_swish(x: Input, y: Output) -> None:
    forward(HARD_SWISH, x, y)


def hard_swish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(HARD_SWISH, dy, x, y, dx)


def mish(x: Input, y: Output) -> None:
    forward(MISH, x, y)


def mish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(MISH, dy, x, y, dx)


def selu(x: Input, alpha: float, gamma: float, y: Output) -> None:
    forward(SELU, x, y, alpha, gamma)


def selu_backward(dy: Input, x: Input, y: Input, alpha: float, gamma: float, dx: Output) -> None:
    backward(SELU, dy, x, y, dx, alpha, gamma)


def celu(x: Input, alpha: float, y: Output) -> None:
    forward(CELU, x, y, alpha)


def celu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    backward(CELU, dy, x, y, dx, alpha)


def gelu_tanh(x: Input, y: Output) -> None:
    forward(GELU_TANH, x, y)


def gelu_tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(GELU_TANH, dy, x, y, dx)


def softsign(x: Input, y: Output) -> None:
    forward(SOFTSIGN, x, y)


def softsign_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(SOFTSIGN, dy, x, y, dx)


def thresholded_relu(x: Input, alpha: float, y: Output) -> None:
    forward(THRESHOLDED_RELU, x, y, alpha)


def thresholded_relu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    backward(THRESHOLDED_RELU, dy, x, y, dx, alpha)


# With a slope a channel, over periods as in `norm` ------------------------------------------------------------------


@disjoint
def rectify(x, slopes, y):
    """y = x where x > 0, else slopes x; the slopes fill a period, at a start of which x begins."""
    for first in range(0, x.size, slopes.size):
        xs, ys = x[first : first + slopes.size], y[first : first + slopes.size]
        for i in range(xs.size):
            ys[i] = xs[i] if xs[i] > 0 else slopes[i] * xs[i]


@disjoint
def rectify_backward(dy, x, slopes, dx):
    """dx = dy where x > 0, else slopes dy."""
    for first in range(0, x.size, slopes.size):
        last = first + slopes.size
        dys, xs, dxs = dy[first:last], x[first:last], dx[first:last]
        for i in range(xs.size):
            dxs[i] = dys[i] if xs[i] > 0 else slopes[i] * dys[i]


@disjoint
def add_up_negative(dy, x, sums):
    """sums += Σ dy min(x, 0) by place in a period."""
    zero = x.dtype.type(0)
    for first in range(0, x.size, sums.size):
        dys, xs = dy[first : first + sums.size], x[first : first + sums.size]
        for i in range(xs.size):
            sums[i] += dys[i] * (zero if xs[i] > 0 else xs[i])


@inline
def repeated(slope, size):
    """The slopes over a period of that size."""
    slopes = np.empty(size, slope.dtype)
    for i in range(slope.size):
        slopes[i] = slope[i]
    spread(slopes, 0, size, slope.size)
    return slopes


@kernel
def _prelu(x, slope, length, size, y):
    slopes = repeated(slope, size)
    for c in prange((x.size + length - 1) // length):
        start, stop = bounds(c, length, x.size)
        rectify(x[start:stop], slopes, y[start:stop])


@kernel(optional={"dx": 1})
def _prelu_backward(dy, x, slope, length, partial, dx, dslope):
    slopes = repeated(slope, partial.shape[2])
    for c in prange(partial.shape[0]):
        start, stop = bounds(c, length, x.size)
        sums = partial[c, 0]
        for i in range(sums.size):
            sums[i] = 0
        add_up_negative(dy[start:stop], x[start:stop], sums)
        fold(sums, 0, sums.size, slope.size)
        if dx.size:
            rectify_backward(dy[start:stop], x[start:stop], slopes, dx[start:stop])
    for channel in range(slope.size):
        dslope[channel] = joined(partial, 0, channel)


def prelu(x: Input, slope: Input, y: Output) -> None:
    channels = slope.size
    run(_prelu, x.size, x.reshape(-1), slope, span(x.size, channels), period(channels), y.reshape(-1))


def prelu_backward_scratch(d: ChannelDims, n: int) -> int:
    return parts(n * d.positions * d.channels, d.channels) * period(d.channels)


def prelu_backward(
    dy: Input, x: Input, slope: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dslope: Output
) -> None:
    partial = scratch.reshape(-1, 1, period(d.channels))
    dx = None if dx is None else dx.reshape(-1)
    run(_prelu_backward, x.size, dy.reshape(-1), x.reshape(-1), slope, span(x.size, d.channels), partial, dx, dslope)


# Dropout ----------------------------------------------------------------------------------------------------------


@inline
def mix(z):
    """The finaliser of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(SPLITMIX64[1])
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SPLITMIX64[2])
    return z ^ (z >> np.uint64(31))


@inline
def stream(seed, step):
    """The key of a step's random words."""
    return draw(mix(seed), step)


@inline
def draw(key, i):
    """Word i of the words that a key stands for."""
    return mix(key + (i + np.uint64(1)) * np.uint64(SPLITMIX64[0]))


@kernel
def _dropout(x, scale, seed, step, threshold, y, mask):
    zero, scale, key = x.dtype.type(0), x.dtype.type(scale), stream(seed, np.uint64(step))
    for c in prange(chunks(x)):
        xs, ys, kept = chunk(x, c), chunk(y, c), chunk(mask, c)
        first = np.uint64(c) * np.uint64(CHUNK)
        for i in range(xs.size):
            kept[i] = draw(key, first + np.uint64(i)) >> np.uint64(32) >= threshold
            ys[i] = xs[i] * scale if kept[i] else zero


def dropout(x: Input, rate: float, seed: int, step: int, y: Output, mask: Output) -> None:
    chances = 1 / (1 - rate), np.uint64(seed % 2**64), step, np.uint64(int(rate * 2**32))
    run(_dropout, x.size, x.reshape(-1), *chances, y.reshape(-1), mask.reshape(-1))


@elementwise
@kernel
def dropout_backward(dy: Input, mask: Input, rate: float, dx: Output) -> None:
    zero, scale = dy.dtype.type(0), dy.dtype.type(1 / (1 - rate))
    for c in prange(chunks(dy)):
        dys, kept, dxs = chunk(dy, c), chunk(mask, c), chunk(dx, c)
        for i in range(dys.size):
            dxs[i] = dys[i] * scale if kept[i] else zero
