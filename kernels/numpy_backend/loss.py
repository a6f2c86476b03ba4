"""Softmax and the losses."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import ChannelDims

__all__ = [
    "log_softmax",
    "log_softmax_backward",
    "mse",
    "mse_scratch",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_scratch",
]


def softmax(x: Input, y: Output) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=y)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)


def softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.multiply(dy, y, out=dx)
    np.subtract(dy, dx.sum(axis=-1, keepdims=True), out=dx)
    dx *= y


def log_softmax(x: Input, y: Output) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=y)
    y -= np.log(np.exp(y).sum(axis=-1, keepdims=True))


def log_softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.exp(y, out=dx)
    dx *= dy.sum(axis=-1, keepdims=True)
    np.subtract(dy, dx, out=dx)


def softmax_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    return 0


def softmax_cross_entropy(
    logits: Input,
    labels: Input,
    smoothing: float,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    rows = np.arange(len(logits))
    outside = (labels < 0) | (labels >= d.channels)
    if outside.any():
        labels = np.where(outside, 0, labels)
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=dlogits)
    dlogits[outside] = np.nan
    target = (1 - smoothing) * dlogits[rows, labels]
    if smoothing:  # 0 times a logit of −inf would be NaN
        target += smoothing * dlogits.mean(axis=1)
    np.exp(dlogits, out=dlogits)
    total = dlogits.sum(axis=1, keepdims=True)
    loss[...] = np.mean(np.log(total[:, 0]) - target)
    dlogits /= total
    dlogits[rows, labels] -= 1 - smoothing
    dlogits -= smoothing / d.channels
    dlogits /= len(logits)


def mse_scratch(d: ChannelDims, n: int) -> int:
    """The squares."""
    return n * d.positions * d.channels


def mse(prediction: Input, target: Input, d: ChannelDims, scratch: Scratch, loss: Output, dprediction: Output) -> None:
    squares = scratch[: prediction.size].reshape(prediction.shape)
    np.subtract(prediction, target, out=dprediction)
    np.square(dprediction, out=squares)
    loss[...] = squares.mean()
    dprediction *= 2 / prediction.size
