"""Softmax and the losses."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import ChannelDims

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_scratch",
    "huber",
    "huber_scratch",
    "log_softmax",
    "log_softmax_backward",
    "mae",
    "mae_scratch",
    "mse",
    "mse_scratch",
    "soft_cross_entropy",
    "soft_cross_entropy_scratch",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_scratch",
    "weighted_cross_entropy",
    "weighted_cross_entropy_scratch",
    "weighted_mse",
    "weighted_mse_scratch",
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


def _average(losses: np.ndarray, weights: np.ndarray | None, loss: Output, gradient: Output) -> None:
    """loss = mean of the samples' losses (N,), by weight where there are weights; gradient (N, ...) is scaled alike.

    What weighs nothing takes no part: 0 times infinity would be NaN.
    """
    if weights is None:
        loss[...] = losses.mean()
        gradient /= len(losses)
        return
    counted = weights > 0
    losses[~counted] = 0
    gradient[~counted] = 0
    shares = weights / (float(weights.sum()) or 1.0)
    loss[...] = shares @ losses
    gradient *= shares.reshape(-1, *(1,) * (gradient.ndim - 1))


def _average_elements(elements: np.ndarray, weights: np.ndarray | None, loss: Output, gradient: Output) -> None:
    """`_average` of samples whose loss is the mean of their elements' losses (N, ...)."""
    n = len(elements)
    gradient /= elements.size // n
    _average(elements.reshape(n, -1).mean(axis=1), weights, loss, gradient)


def weighted_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    return 0


def weighted_cross_entropy(
    logits: Input,
    labels: Input,
    weights: Input,
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
    if smoothing:
        target += smoothing * dlogits.mean(axis=1)
    np.exp(dlogits, out=dlogits)
    total = dlogits.sum(axis=1, keepdims=True)
    dlogits /= total
    dlogits[rows, labels] -= 1 - smoothing
    dlogits -= smoothing / d.channels
    _average(np.log(total[:, 0]) - target, weights, loss, dlogits)


def soft_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """The terms."""
    return n * d.channels


def soft_cross_entropy(
    logits: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    terms = scratch[: logits.size].reshape(logits.shape)
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=dlogits)
    np.multiply(target, dlogits, out=terms)
    terms[target == 0] = 0  # and so of a logit of −inf, unlike of one that is NaN
    np.exp(dlogits, out=dlogits)
    total, share = dlogits.sum(axis=1, keepdims=True), target.sum(axis=1, keepdims=True)
    dlogits *= share / total
    dlogits -= target
    _average((share * np.log(total))[:, 0] - terms.sum(axis=1), weights, loss, dlogits)


def binary_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """The elements' losses."""
    return n * d.positions * d.channels


def binary_cross_entropy(
    logits: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    elements = scratch[: logits.size].reshape(logits.shape)
    np.abs(logits, out=dlogits)
    np.negative(dlogits, out=dlogits)
    np.exp(dlogits, out=dlogits)
    np.log1p(dlogits, out=elements)
    elements += np.maximum(logits, 0)
    elements -= logits * target
    # σ(x) = 1 / (1 + e) for x >= 0, else e / (1 + e), where e = exp(−|x|) <= 1.
    np.divide(np.where(logits < 0, dlogits, 1), 1 + dlogits, out=dlogits)
    dlogits -= target
    _average_elements(elements, weights, loss, dlogits)


def huber_scratch(d: ChannelDims, n: int) -> int:
    """The elements' losses."""
    return n * d.positions * d.channels


def huber(
    prediction: Input,
    target: Input,
    weights: Input | None,
    threshold: float,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dprediction: Output,
) -> None:
    elements = scratch[: prediction.size].reshape(prediction.shape)
    np.subtract(prediction, target, out=elements)
    np.clip(elements, -threshold, threshold, out=dprediction)
    elements -= dprediction / 2
    elements *= dprediction
    _average_elements(elements, weights, loss, dprediction)


def mae_scratch(d: ChannelDims, n: int) -> int:
    """The elements' losses."""
    return n * d.positions * d.channels


def mae(
    prediction: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dprediction: Output,
) -> None:
    elements = scratch[: prediction.size].reshape(prediction.shape)
    np.subtract(prediction, target, out=elements)
    np.sign(elements, out=dprediction)
    np.abs(elements, out=elements)
    _average_elements(elements, weights, loss, dprediction)


def weighted_mse_scratch(d: ChannelDims, n: int) -> int:
    """The elements' losses."""
    return n * d.positions * d.channels


def weighted_mse(
    prediction: Input,
    target: Input,
    weights: Input,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dprediction: Output,
) -> None:
    elements = scratch[: prediction.size].reshape(prediction.shape)
    np.subtract(prediction, target, out=dprediction)
    np.square(dprediction, out=elements)
    dprediction *= 2
    _average_elements(elements, weights, loss, dprediction)
