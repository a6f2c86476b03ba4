"""What a network makes of a drawing: probabilities, its first layer's responses, and each backend's time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
import kernels
from models.graph import Graph
from models.layers import Activation, BatchNorm, Conv2d, ConvTranspose2d, Linear, MeanNorm
from models.nodes import Node

from ..classify import probabilities

SHIPPED = Path(__file__).parent / "cnn-bn.safetensors"
ROUNDS = 5  # of which the fastest counts


class Reading(NamedTuple):
    """What came of a drawing.

    image: (H, W) uint8, as the network was given it. probabilities: (classes,). responses: (maps, H, W), the positive
    part, as shares of the largest. seconds: of one image through the network, by backend.
    """

    image: np.ndarray
    probabilities: np.ndarray
    responses: np.ndarray
    seconds: dict[str, float]


class Reader:
    """A classifier of grey images, ready to read drawings on its own backend and to be timed on every other.

    Raises ValueError for a model that takes no grey images, gives no row of classes, or has no normalisation.
    """

    def __init__(self, model: Graph) -> None:
        if len(model.input_shape) != 3 or model.input_shape[2] != 1:
            raise ValueError(f"draw: the model takes inputs {model.input_shape}, expected grey images (H, W, 1)")
        self.model = model
        self._twins = {name: model if name == model.backend else model.to(name) for name in kernels.names()}
        self.front = front(model)
        self.read(np.full(model.input_shape[:2], 255, np.uint8))  # so that nobody waits for a compiler later

    def read(self, ink: np.ndarray) -> Reading:
        """Read ink (H, W) uint8 of any size, 255 on 0.

        Raises ValueError where there is none, and where the model's numbers are not finite.
        """
        image = data.frame(ink, *self.model.input_shape[:2])
        x = image[np.newaxis, ..., np.newaxis]
        return Reading(
            image,
            probabilities(self.model, x)[0],
            _maps(self.front.predict(x)[0]),
            {name: _seconds(twin, x) for name, twin in self._twins.items()},
        )


def front(model: Graph) -> Graph:
    """A copy of the model's first layer: its first convolution or linear layer, with the normalisation and activation
    that follow. Raises ValueError where there is no such layer.
    """
    chain: list[Node] = []
    for node in model.nodes:
        if chain:
            goes_on = node.inputs == (chain[-1].name,) and isinstance(node.layer, BatchNorm | MeanNorm | Activation)
        else:
            goes_on = isinstance(node.layer, Conv2d | ConvTranspose2d | Linear)
        if goes_on:
            chain.append(node)
    if not chain:
        raise ValueError("draw: the model has no convolution and no linear layer")
    return model.until(chain[-1].name)


def _maps(responses: np.ndarray) -> np.ndarray:
    """Responses (H, W, maps), or (units,) as one map that is about square, as positive shares of the largest."""
    if responses.ndim == 1:
        width = math.ceil(math.sqrt(responses.size))
        height = -(-responses.size // width)
        responses = np.pad(responses, (0, width * height - responses.size)).reshape(height, width, 1)
    if not np.isfinite(responses).all():
        raise ValueError("the model's numbers overflow: its first layer's responses are not finite")
    positive = np.clip(responses, 0, None)
    return np.moveaxis(positive / (positive.max() or 1), -1, 0)


def _seconds(model: Graph, x: np.ndarray) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model.predict(x)
        times.append(time.perf_counter() - began)
    return min(times)
