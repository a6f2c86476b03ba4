"""Activations and dropout: one formula an element, over flat arrays."""

from __future__ import annotations

import math

import numpy as np

from ..interface import SPLITMIX64, Input, Output
from .compiler.jit import inline, kernel, prange
from .tiles import elementary
from .tiles.chunks import CHUNK, chunk, chunks, elementwise, run

__all__ = [
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
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
