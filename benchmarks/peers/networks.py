"""The networks that all libraries build, and the arrays that they start from. Needs NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

IMAGE = (28, 28, 1)
CLASSES = 10
KERNEL = 5
BATCHES = 8
RHO = 0.9
EPS = 1e-8
"""RMSProp's decay, and the eps of RMSProp and Adam, in every library."""


@dataclass(frozen=True)
class Network:
    """Blocks of 5x5 convolution, batch-norm, ReLU and 2x2 max-pool; linear + ReLU layers; a linear layer to 10 classes.

    filters, units: the sizes of the blocks and of the hidden linear layers. optimizer: "adam", "rmsprop" or "sgd".
    """

    name: str
    optimizer: str
    learning_rate: float
    filters: tuple[int, ...] = ()
    units: tuple[int, ...] = ()

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the first linear layer flattens."""
        size, channels = IMAGE[0], IMAGE[2]
        for filters in self.filters:
            size, channels = (size - KERNEL + 1) // 2, filters
        return size, size, channels

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the linear layers."""
        sizes = [math.prod(self.map_shape), *self.units, CLASSES]
        return list(pairwise(sizes))


NETWORKS = {
    network.name: network
    for network in (
        Network("cnn-bn", "adam", 1e-3, filters=(16, 32)),
        Network("mlp-512", "rmsprop", 1e-3, units=(512,)),
        Network("mlp-256-128", "sgd", 1e-2, units=(256, 128)),
    )
}


class Weights(NamedTuple):
    """Starting weights: convolutions [(KH, KW, C, F), ...], linear layers [(K, M), ...]. All biases start at zero."""

    convolutions: list[np.ndarray]
    linear: list[np.ndarray]


class Case(NamedTuple):
    """What a worker is to build.

    task: "train" or "infer". x: batches (BATCHES, N, 28, 28, 1) float32. y: labels (BATCHES, N) int64.
    """

    network: Network
    task: str
    variant: str
    batch_size: int
    threads: int
    weights: Weights
    x: np.ndarray
    y: np.ndarray


class Peer(NamedTuple):
    """A library made ready.

    call: (x, y) -> the loss of one training step as a float; for inference, y is not looked at and the result is the
    logits (N, 10). notes: what a reader of the figures should know. comparable: whether what call returns should be
    the same for every library.
    """

    call: Any
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    comparable: bool = True


class Unavailable(Exception):
    """Why a library cannot take part, in words."""


def initial_weights(network: Network, seed: int = 0) -> Weights:
    """He-normal weights, in our layouts."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        deviation = math.sqrt(2 / math.prod(shape[:-1]))
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)

    channels = [IMAGE[2], *network.filters]
    convolutions = [draw(KERNEL, KERNEL, c, f) for c, f in pairwise(channels)]
    return Weights(convolutions, [draw(*shape) for shape in network.linear_shapes])


def save(path: Path, network: Network, x: np.ndarray, y: np.ndarray) -> None:
    """Write starting weights and batches for the workers."""
    weights = initial_weights(network)
    arrays = {f"convolution{i}": w for i, w in enumerate(weights.convolutions)}
    arrays |= {f"linear{i}": w for i, w in enumerate(weights.linear)}
    arrays |= {"x": x, "y": y}
    np.savez(path, allow_pickle=False, **arrays)


def load(path: Path, network: Network) -> tuple[Weights, np.ndarray, np.ndarray]:
    """What `save` wrote: weights, x, y."""
    with np.load(path) as file:
        convolutions = [file[f"convolution{i}"] for i in range(len(network.filters))]
        linear = [file[f"linear{i}"] for i in range(len(network.linear_shapes))]
        return Weights(convolutions, linear), file["x"], file["y"]
