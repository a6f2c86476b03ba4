"""Batch statistics wherever the values lie: no single element, nor a few in a row, may cost the others their digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import kernels
from kernels.accuracy import BASELINES, rounding
from kernels.shapes import ChannelDims, conv2d, pool2d
from models import SGD, BatchNorm, Constant, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential, Trainer

NUMPY, NUMBA = kernels.get("numpy"), kernels.get("numba")
N, SIZE = 80, 33  # images that 64 shares part unevenly, and a row and a column that no window covers
NOISE = np.random.default_rng(0).standard_normal((N, SIZE, SIZE))
ALL = slice(None)


def at(*place: int | slice, value: float = 1e4, rest: float = 0.0) -> np.ndarray:
    """Some noise, and a value in one place or many."""
    x = rest * NOISE
    x[place] = value
    return x


PLACINGS = {
    "noise": NOISE,
    "first of all": at(0, 0, 0, rest=1e-3),
    "last of all": at(-1, -1, -1, rest=1e-3),
    "first of each image": at(ALL, 0, 0),
    "first row of each image": at(ALL, 0, rest=1e-3),
    "last of each image": at(ALL, -1, -1, rest=1e-3),
    "an image alone": at(slice(40, 41)),
    "first image": at(slice(0, 1), rest=1e-3),
    "first half": at(slice(0, N // 2)),
    "first of a chunk": at(0, 0, slice(0, 32), value=0.3),
    "growing": np.linspace(0, 1e4, NOISE.size).reshape(NOISE.shape),
    "huge mean": 1e5 + NOISE,
    "constant": np.full(NOISE.shape, 0.3),
    "zero": np.zeros(NOISE.shape),
}
X = np.stack(list(PLACINGS.values()), axis=-1).astype(np.float32)
CHANNELS = len(PLACINGS)

Statistics = tuple[np.ndarray, np.ndarray]
"""Mean and unbiased variance by channel."""


def vectors(count: int) -> np.ndarray:
    return np.empty((count, CHANNELS), np.float32)


def alone(k: kernels.Kernels, x: np.ndarray) -> Statistics:
    mean, inv_std, var = vectors(3)
    d = ChannelDims(SIZE * SIZE, CHANNELS)
    scratch = np.empty(k.scratch_size("batchnorm", d, N), x.dtype)
    gamma, beta = np.ones_like(mean), np.zeros_like(mean)
    k.function("batchnorm")(x, gamma, beta, 0.0, d, scratch, np.empty_like(x), mean, inv_std, var)
    return mean, var


def with_pooling(k: kernels.Kernels, x: np.ndarray) -> Statistics:
    (mean, inv_std, var), name = vectors(3), "batchnorm_relu_maxpool2d"
    d = pool2d(x.shape, 2, None, 0, name)
    peak, y = np.empty((2, N, d.oh, d.ow, CHANNELS), x.dtype)
    argmax, scratch = np.empty(y.shape, np.uint8), np.empty(k.scratch_size(name, d, N), x.dtype)
    gamma, beta = np.ones_like(mean), np.zeros_like(mean)
    k.function(name)(x, gamma, beta, 0.0, d, scratch, mean, inv_std, var, peak, y, argmax)
    return mean, var


def with_convolution(k: kernels.Kernels, x: np.ndarray) -> Statistics:
    """Of one tap, whose output is its input."""
    (mean, inv_std, var), name = vectors(3), "conv2d_batchnorm_relu_maxpool2d"
    w = np.eye(CHANNELS, dtype=x.dtype)[np.newaxis, np.newaxis]
    d, pool = conv2d(x.shape, w.shape, None), pool2d(x.shape, 2, None, 0, name)
    peak, y = np.empty((2, N, pool.oh, pool.ow, CHANNELS), x.dtype)
    argmax, scratch = np.empty(y.shape, np.uint8), np.empty(k.scratch_size(name, d, N), x.dtype)
    gamma, beta, z = np.ones_like(mean), np.zeros_like(mean), np.empty_like(x)
    k.function(name)(x, w, None, gamma, beta, 0.0, pool, d, scratch, z, mean, inv_std, var, peak, y, argmax)
    return mean, var


@pytest.mark.parametrize("statistics", [alone, with_pooling, with_convolution])
def test_statistics_keep_their_budget_wherever_the_values_lie(
    statistics: Callable[[kernels.Kernels, np.ndarray], Statistics],
) -> None:
    values = X.reshape(-1, CHANNELS).astype(np.float64)
    truth = values.mean(axis=0), values.var(axis=0, ddof=1)
    sizes = np.abs(values).max(axis=0), truth[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # of a constant, with eps 0
        both = statistics(NUMBA, X), alone(NUMPY, X)
    for name, found, own, right, size in zip(("mean", "var"), *both, truth, sizes, strict=True):
        ulp = np.finfo(np.float32).eps * size
        budget = BASELINES * np.abs(own - right) + rounding(len(values), np.float32) * ulp
        shares = dict(zip(PLACINGS, np.abs(found - right) / np.maximum(budget, 1e-30), strict=True))
        assert max(shares.values()) <= 1, (name, shares)


def test_the_corner_of_an_image_is_no_scale_for_the_others() -> None:
    x = np.zeros((128, 64, 64, 1), np.float32)
    x[:, 0, 0, 0] = 1.64285714
    losses = []
    for rewrites in (None, ()):
        layers = [Conv2d(1, 1, bias=False, init=Constant(1.0)), BatchNorm(), ReLU(), MaxPool2d(2), Flatten(), Linear(3)]
        model = Sequential(layers, (64, 64, 1), "numba", seed=1)
        trainer = Trainer(model, SGD(0.1), rewrites=rewrites)
        losses.append(trainer.step(x, np.arange(128) % 3))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
