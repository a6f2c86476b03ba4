"""Named networks: the architectures of five "MNIST from scratch" programs, and one that reads MNIST best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from .graph import Graph
from .layers import BatchNorm, Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, MeanNorm, ReLU
from .sequential import Sequential

IMAGE = (28, 28, 1)


def mlp_meannorm() -> list[Layer]:
    """784-256-128-10 with mean-only batch normalisation; its shift beta serves as the bias."""
    hidden = [layer for units in (256, 128) for layer in (Linear(units, bias=False), MeanNorm(), ReLU())]
    return [Flatten(), *hidden, Linear(10)]


def mlp_nobias() -> list[Layer]:
    """784-128-64-10 of linear units without bias, ReLU between."""
    return [
        Flatten(),
        Linear(128, bias=False),
        ReLU(),
        Linear(64, bias=False),
        ReLU(),
        Linear(10, bias=False),
    ]


def mlp_512() -> list[Layer]:
    """784-512-10 with ReLU."""
    return [Flatten(), Linear(512), ReLU(), Linear(10)]


def mlp_rmsprop() -> list[Layer]:
    """784-256-10 with ReLU."""
    return [Flatten(), Linear(256), ReLU(), Linear(10)]


def cnn_bn() -> list[Layer]:
    """Two blocks of 5x5 convolution, batch-norm, ReLU and 2x2 max-pool (16, then 32 filters), linear 512-10."""
    blocks = [layer for filters in (16, 32) for layer in (Conv2d(filters, 5), BatchNorm(), ReLU(), MaxPool2d(2))]
    return [*blocks, Flatten(), Linear(10)]


def cnn_record() -> list[Layer]:
    """Five convolutions with batch-norm and ReLU in three blocks, each ended by 2x2 max-pool; dropout, linear 864-10.

    5x5 of 32 filters, then twice two of 3x3, of 48 and of 96 filters.
    """

    def convolution(filters: int, size: int, padding: int) -> list[Layer]:
        return [Conv2d(filters, size, padding=padding), BatchNorm(), ReLU()]

    layers = [*convolution(32, 5, 0), MaxPool2d(2)]
    for filters in (48, 96):
        layers += [*convolution(filters, 3, 1), *convolution(filters, 3, 1), MaxPool2d(2)]
    return [*layers, Flatten(), Dropout(0.3), Linear(10)]


NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "mlp-meannorm": mlp_meannorm,
    "mlp-nobias": mlp_nobias,
    "mlp-512": mlp_512,
    "mlp-rmsprop": mlp_rmsprop,
    "cnn-bn": cnn_bn,
    "cnn-record": cnn_record,
}


def build(
    name: str,
    backend: str | None = None,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
    normalisation: tuple[float, float] | None = None,
    input_shape: Sequence[int] = IMAGE,
    classes: int = 10,
    precision: str | None = None,
) -> Graph:
    """A network of the zoo with fresh weights, for images of any shape (H, W, C) and any number of classes.
    precision: as of a `Graph`.

    Raises ValueError for an unknown name, and for images that are too small for it.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")
    *hidden, last = NETWORKS[name]()
    assert isinstance(last, Linear)
    layers = [*hidden, replace(last, outputs=classes)]
    return Sequential(layers, input_shape, backend, seed, dtype, normalisation, precision)
