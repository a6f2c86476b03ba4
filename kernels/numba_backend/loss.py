"""Softmax and the losses, over blocks of whole rows.

Rows are short, so that exponentials are taken over whole blocks, where they fill vectors.
"""

from __future__ import annotations

import math

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import ChannelDims
from .compiler.jit import inline, kernel, prange, serial
from .tiles.chunks import CHUNK, block_rows, chunk, chunks, rows, run
from .tiles.elementary import exp, sigmoid, softplus
from .tiles.tile import flat

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


@serial
def shift(x, y):
    """y = x less each row's maximum, NaN where that is NaN or infinite."""
    for row in range(x.shape[0]):
        xs, ys = x[row], y[row]
        largest = xs[0]
        for i in range(1, xs.size):
            largest = largest if xs[i] <= largest or largest != largest else xs[i]
        for i in range(xs.size):
            ys[i] = xs[i] - largest


@serial
def exponentiate(memory, count):
    """x = eˣ, in place, for so many elements."""
    for i in range(count):
        memory[i] = exp(memory[i])


@inline
def total(x):
    """The sum of a row."""
    sum_ = x.dtype.type(0)
    for i in range(x.size):
        sum_ += x[i]
    return sum_


@kernel
def _softmax(x, y):
    rows, channels = block_rows(x), x.shape[1]
    for b in prange((x.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        ys = y[first:last]
        shift(x[first:last], ys)
        exponentiate(flat(ys), ys.size)
        for row in range(ys.shape[0]):
            scale = x.dtype.type(1) / total(ys[row])
            for i in range(channels):
                ys[row, i] *= scale


@kernel
def _softmax_backward(dy, y, dx):
    rows, channels = block_rows(y), y.shape[1]
    for b in prange((y.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        dys, ys, dxs = dy[first:last], y[first:last], dx[first:last]
        for row in range(ys.shape[0]):
            product = y.dtype.type(0)
            for i in range(channels):
                product += dys[row, i] * ys[row, i]
            for i in range(channels):
                dxs[row, i] = ys[row, i] * (dys[row, i] - product)


@kernel
def _log_softmax(x, y):
    rows, channels = block_rows(x), x.shape[1]
    for b in prange((x.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        ys = y[first:last]
        shift(x[first:last], ys)
        for row in range(ys.shape[0]):
            sum_ = x.dtype.type(0)
            for i in range(channels):
                sum_ += exp(ys[row, i])
            log_sum = x.dtype.type(math.log(sum_))
            for i in range(channels):
                ys[row, i] -= log_sum


@kernel
def _log_softmax_backward(dy, y, dx):
    rows, channels = block_rows(y), y.shape[1]
    for b in prange((y.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        dys, ys, dxs = dy[first:last], y[first:last], dx[first:last]
        for row in range(ys.shape[0]):
            sum_ = total(dys[row])
            for i in range(channels):
                dxs[row, i] = dys[row, i] - exp(ys[row, i]) * sum_


def softmax(x: Input, y: Output) -> None:
    run(_softmax, x.size, rows(x), rows(y))


def softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    run(_softmax_backward, x.size, rows(dy), rows(y), rows(dx))


def log_softmax(x: Input, y: Output) -> None:
    run(_log_softmax, x.size, rows(x), rows(y))


def log_softmax_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    run(_log_softmax_backward, x.size, rows(dy), rows(y), rows(dx))


def softmax_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@inline
def place(label, channels):
    """The label's place in its row; 0 for one that has none: whoever calls makes the row NaN."""
    return label if 0 <= label < channels else 0


@kernel
def _softmax_cross_entropy(logits, labels, smoothing, scratch, loss, dlogits):
    n, channels = logits.shape
    rows, real = block_rows(logits), logits.dtype.type
    hit, miss, scale = real(1 - smoothing), real(smoothing / channels), real(1 / n)
    for b in prange((logits.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        label, losses = labels[first:last], scratch[first:last]
        grads = dlogits[first:last]
        shift(logits[first:last], grads)
        for row in range(grads.shape[0]):
            at = place(label[row], channels)
            if at != label[row]:
                grads[row, 0] = np.nan
            losses[row] = -hit * grads[row, at]
            if smoothing > 0:  # 0 times a logit of −inf would be NaN
                losses[row] -= miss * total(grads[row])
        exponentiate(flat(grads), grads.size)
        for row in range(grads.shape[0]):
            sum_ = total(grads[row])
            losses[row] += real(math.log(sum_))
            for i in range(channels):
                grads[row, i] = (grads[row, i] / sum_ - miss) * scale
            grads[row, place(label[row], channels)] -= hit * scale
    sum_losses = 0.0
    for row in range(n):
        sum_losses += float(scratch[row])
    loss[()] = sum_losses / n


def softmax_cross_entropy(
    logits: Input,
    labels: Input,
    smoothing: float,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    run(_softmax_cross_entropy, logits.size, logits, labels, smoothing, scratch[: len(logits)], loss, dlogits)


def mse_scratch(d: ChannelDims, n: int) -> int:
    """One sum of squares a chunk."""
    return -(-n * d.positions * d.channels // CHUNK)


@kernel
def _mse(prediction, target, scratch, loss, dprediction):
    real = prediction.dtype.type
    scale = real(2 / prediction.size)
    for c in prange(chunks(prediction)):
        ps, ts, grads = chunk(prediction, c), chunk(target, c), chunk(dprediction, c)
        sum_ = real(0)
        for i in range(ps.size):
            difference = ps[i] - ts[i]
            sum_ += difference * difference
            grads[i] = scale * difference
        scratch[c] = sum_
    squares = 0.0
    for c in range(chunks(prediction)):
        squares += float(scratch[c])
    loss[()] = squares / prediction.size


def mse(prediction: Input, target: Input, d: ChannelDims, scratch: Scratch, loss: Output, dprediction: Output) -> None:
    flat = prediction.reshape(-1), target.reshape(-1), scratch, loss, dprediction.reshape(-1)
    run(_mse, prediction.size, *flat)


# Losses by weight: every sample's share of the mean is known before the first of them is looked at. -----------------


def samples(x: np.ndarray) -> np.ndarray:
    """An array as the matrix of its samples."""
    return x.reshape(len(x), -1)


@inline
def unit(weights, n):
    """What a weight of 1 is worth: 1 over the sum of the weights, which is n where there are none, or 0 of 0."""
    sum_ = 0.0
    for i in range(weights.size):
        sum_ += float(weights[i])
    if weights.size == 0:
        sum_ = float(n)
    return 1 / sum_ if sum_ > 0 else 0.0


@inline
def share(weights, row, worth):
    """A sample's share of the mean."""
    return float(weights[row]) * worth if weights.size else worth


@inline
def summed(losses):
    """Σ losses, in their order, in float64."""
    sum_ = 0.0
    for i in range(losses.size):
        sum_ += float(losses[i])
    return sum_


def weighted_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel
def _weighted_cross_entropy(logits, labels, weights, smoothing, scratch, loss, dlogits):
    n, channels = logits.shape
    rows, real = block_rows(logits), logits.dtype.type
    hit, miss, worth = real(1 - smoothing), real(smoothing / channels), unit(weights, n)
    for b in prange((logits.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        label, losses = labels[first:last], scratch[first:last]
        own, grads = weights[first:last], dlogits[first:last]
        shift(logits[first:last], grads)
        for row in range(grads.shape[0]):
            at = place(label[row], channels)
            if at != label[row]:
                grads[row, 0] = np.nan
            losses[row] = -hit * grads[row, at]
            if smoothing > 0:
                losses[row] -= miss * total(grads[row])
        exponentiate(flat(grads), grads.size)
        for row in range(grads.shape[0]):
            scale = real(share(own, row, worth))
            if scale == 0:
                losses[row] = real(0)
                for i in range(channels):
                    grads[row, i] = real(0)
            else:
                sum_ = total(grads[row])
                losses[row] = (losses[row] + real(math.log(sum_))) * scale
                for i in range(channels):
                    grads[row, i] = (grads[row, i] / sum_ - miss) * scale
                grads[row, place(label[row], channels)] -= hit * scale
    loss[()] = summed(scratch)


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
    own = scratch[: len(logits)]
    run(_weighted_cross_entropy, logits.size, logits, labels, weights, smoothing, own, loss, dlogits)


def soft_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel(optional={"weights": 1})
def _soft_cross_entropy(logits, target, weights, scratch, loss, dlogits):
    n, channels = logits.shape
    rows, real = block_rows(logits), logits.dtype.type
    worth = unit(weights, n)
    for b in prange((logits.shape[0] + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        own, wanted = weights[first:last], target[first:last]
        losses, grads = scratch[first:last], dlogits[first:last]
        shift(logits[first:last], grads)
        for row in range(grads.shape[0]):
            terms = real(0)
            for i in range(channels):
                if wanted[row, i] != 0:
                    terms += wanted[row, i] * grads[row, i]
            losses[row] = -terms
        exponentiate(flat(grads), grads.size)
        for row in range(grads.shape[0]):
            scale = real(share(own, row, worth))
            if scale == 0:
                losses[row] = real(0)
                for i in range(channels):
                    grads[row, i] = real(0)
            else:
                sum_, whole = total(grads[row]), total(wanted[row])
                losses[row] = (losses[row] + whole * real(math.log(sum_))) * scale
                for i in range(channels):
                    grads[row, i] = (grads[row, i] * (whole / sum_) - wanted[row, i]) * scale
    loss[()] = summed(scratch)


def soft_cross_entropy(
    logits: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    run(_soft_cross_entropy, logits.size, logits, target, weights, scratch[: len(logits)], loss, dlogits)


def binary_cross_entropy_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel(optional={"weights": 1})
def _binary_cross_entropy(logits, target, weights, scratch, loss, dlogits):
    n, size = logits.shape
    rows, real = block_rows(logits), logits.dtype.type
    worth = unit(weights, n) / size
    for b in prange((n + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        xs, ts, grads = logits[first:last], target[first:last], dlogits[first:last]
        own, losses = weights[first:last], scratch[first:last]
        for row in range(xs.shape[0]):
            scale = real(share(own, row, worth))
            sum_ = real(0)
            for i in range(size if scale != 0 else 0):
                x, t = xs[row, i], ts[row, i]
                sum_ += (x if x > 0 else real(0)) - x * t + softplus(-abs(x))
                grads[row, i] = (sigmoid(x) - t) * scale
            for i in range(0 if scale != 0 else size):
                grads[row, i] = real(0)
            losses[row] = sum_ * scale
    loss[()] = summed(scratch)


def binary_cross_entropy(
    logits: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dlogits: Output,
) -> None:
    flat = samples(logits), samples(target), weights, scratch[: len(logits)], loss, samples(dlogits)
    run(_binary_cross_entropy, logits.size, *flat)


def huber_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel(optional={"weights": 1})
def _huber(prediction, target, weights, threshold, scratch, loss, dprediction):
    n, size = prediction.shape
    rows, real = block_rows(prediction), prediction.dtype.type
    worth, half, most = unit(weights, n) / size, real(0.5), real(threshold)
    for b in prange((n + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        ps, ts, grads = prediction[first:last], target[first:last], dprediction[first:last]
        own, losses = weights[first:last], scratch[first:last]
        for row in range(ps.shape[0]):
            scale = real(share(own, row, worth))
            sum_ = real(0)
            for i in range(size if scale != 0 else 0):
                difference = ps[row, i] - ts[row, i]
                below = most if difference > most else difference
                slope = -most if below < -most else below
                sum_ += slope * (difference - half * slope)
                grads[row, i] = slope * scale
            for i in range(0 if scale != 0 else size):
                grads[row, i] = real(0)
            losses[row] = sum_ * scale
    loss[()] = summed(scratch)


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
    flat = (
        samples(prediction),
        samples(target),
        weights,
        threshold,
        scratch[: len(prediction)],
        loss,
        samples(dprediction),
    )
    run(_huber, prediction.size, *flat)


def mae_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel(optional={"weights": 1})
def _mae(prediction, target, weights, scratch, loss, dprediction):
    n, size = prediction.shape
    rows, real = block_rows(prediction), prediction.dtype.type
    worth = unit(weights, n) / size
    for b in prange((n + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        ps, ts, grads = prediction[first:last], target[first:last], dprediction[first:last]
        own, losses = weights[first:last], scratch[first:last]
        for row in range(ps.shape[0]):
            scale = real(share(own, row, worth))
            sum_ = real(0)
            for i in range(size if scale != 0 else 0):
                difference = ps[row, i] - ts[row, i]
                sum_ += abs(difference)
                if difference > 0:
                    grads[row, i] = scale
                elif difference < 0:
                    grads[row, i] = -scale
                else:
                    grads[row, i] = difference  # 0, or NaN
            for i in range(0 if scale != 0 else size):
                grads[row, i] = real(0)
            losses[row] = sum_ * scale
    loss[()] = summed(scratch)


def mae(
    prediction: Input,
    target: Input,
    weights: Input | None,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dprediction: Output,
) -> None:
    flat = samples(prediction), samples(target), weights, scratch[: len(prediction)], loss, samples(dprediction)
    run(_mae, prediction.size, *flat)


def weighted_mse_scratch(d: ChannelDims, n: int) -> int:
    """One loss a sample."""
    return n


@kernel
def _weighted_mse(prediction, target, weights, scratch, loss, dprediction):
    n, size = prediction.shape
    rows, real = block_rows(prediction), prediction.dtype.type
    worth = unit(weights, n) / size
    for b in prange((n + rows - 1) // rows):
        first, last = b * rows, (b + 1) * rows
        ps, ts, grads = prediction[first:last], target[first:last], dprediction[first:last]
        own, losses = weights[first:last], scratch[first:last]
        for row in range(ps.shape[0]):
            scale = real(share(own, row, worth))
            double = real(2) * scale
            sum_ = real(0)
            for i in range(size if scale != 0 else 0):
                difference = ps[row, i] - ts[row, i]
                sum_ += difference * difference
                grads[row, i] = double * difference
            for i in range(0 if scale != 0 else size):
                grads[row, i] = real(0)
            losses[row] = sum_ * scale
    loss[()] = summed(scratch)


def weighted_mse(
    prediction: Input,
    target: Input,
    weights: Input,
    d: ChannelDims,
    scratch: Scratch,
    loss: Output,
    dprediction: Output,
) -> None:
    flat = samples(prediction), samples(target), weights, scratch[: len(prediction)], loss, samples(dprediction)
    run(_weighted_mse, prediction.size, *flat)
