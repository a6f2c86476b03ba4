"""Normalisation by channel. A statistic is tiled to a sample's length: NumPy's inner loops are then long, and
a pass over (128, 24, 24, 16) takes a third of the time of broadcasting 16 numbers 73,728 times."""

from __future__ import annotations

import numpy as np

from ..interface import InPlace, Input, Output, Scratch
from ..shapes import ChannelDims
from .linear import sum_rows

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


def batchnorm_scratch(d: ChannelDims, n: int) -> int:
    return 0


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
    m = len(x) * d.positions
    sum_rows(x, mean)
    mean /= m
    _apply(np.subtract, x, mean, y)
    # The second pass sums squares of centred values: E(x²) − mean² would cancel.
    sum_rows(y, var, times=y)
    np.divide(var, m, out=inv_std)
    inv_std += eps
    np.sqrt(inv_std, out=inv_std)
    np.reciprocal(inv_std, out=inv_std)
    var /= max(m - 1, 1)
    _apply(np.multiply, y, gamma * inv_std, y)
    _apply(np.add, y, beta, y)


def batchnorm_backward_scratch(d: ChannelDims, n: int) -> int:
    """x − mean."""
    return n * d.positions * d.channels


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
    m = len(x) * d.positions
    centred = scratch[: x.size].reshape(x.shape)
    _apply(np.subtract, x, mean, centred)
    sum_rows(dy, dbeta)
    sum_rows(dy, dgamma, times=centred)
    dgamma *= inv_std
    if dx is not None:
        _apply(np.multiply, centred, inv_std * dgamma / m, dx)
        np.subtract(dy, dx, out=dx)
        _apply(np.subtract, dx, dbeta / m, dx)
        _apply(np.multiply, dx, gamma * inv_std, dx)


def batchnorm_inference(x: Input, gamma: Input, beta: Input, mean: Input, var: Input, eps: float, y: Output) -> None:
    _apply(np.subtract, x, mean, y)
    _apply(np.multiply, y, gamma / np.sqrt(var + eps), y)
    _apply(np.add, y, beta, y)


def batchnorm_inference_backward_scratch(d: ChannelDims, n: int) -> int:
    """x − mean."""
    return n * d.positions * d.channels


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
    std = np.sqrt(var + eps)
    centred = scratch[: x.size].reshape(x.shape)
    _apply(np.subtract, x, mean, centred)
    sum_rows(dy, dbeta)
    sum_rows(dy, dgamma, times=centred)
    dgamma /= std
    if dx is not None:
        _apply(np.multiply, dy, gamma / std, dx)


def meannorm_scratch(d: ChannelDims, n: int) -> int:
    return 0


def meannorm(x: Input, beta: Input, d: ChannelDims, scratch: Scratch, y: Output, mean: Output) -> None:
    sum_rows(x, mean)
    mean /= len(x) * d.positions
    meannorm_inference(x, beta, mean, y)


def meannorm_backward_scratch(d: ChannelDims, n: int) -> int:
    return 0


def meannorm_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    sum_rows(dy, dbeta)
    if dx is not None:
        _apply(np.subtract, dy, dbeta / (len(dy) * d.positions), dx)


def meannorm_inference(x: Input, beta: Input, mean: Input, y: Output) -> None:
    _apply(np.subtract, x, mean, y)
    _apply(np.add, y, beta, y)


def meannorm_inference_backward_scratch(d: ChannelDims, n: int) -> int:
    return 0


def meannorm_inference_backward(dy: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dbeta: Output) -> None:
    sum_rows(dy, dbeta)
    if dx is not None:
        np.copyto(dx, dy)


def ema_update(running: InPlace, value: Input, momentum: float) -> None:
    running += momentum * (value - running)


def _apply(function: np.ufunc, x: np.ndarray, by_channel: np.ndarray, out: np.ndarray) -> None:
    """out = function(x, by_channel), the latter one number a channel."""
    rows = (len(x), -1)
    tiled = np.tile(by_channel, x[0].size // by_channel.size)
    function(x.reshape(rows), tiled, out=out.reshape(rows))
