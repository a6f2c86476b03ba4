"""Sequential: layers in a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from .architecture import Architecture
from .graph import Graph
from .layers import Layer
from .nodes import INPUT


class Sequential(Graph):
    """A Graph whose nodes "0", "1", ... each read the one before. The other arguments are Graph's."""

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        backend: str | None = None,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        normalisation: tuple[float, float] | None = None,
        precision: str | None = None,
    ) -> None:
        if not isinstance(layers, Sequence):
            raise TypeError(f"Sequential: layers is {layers!r}, expected layers in a row")
        if not layers:
            raise ValueError("Sequential: layers is empty, expected at least one layer")
        nodes = {str(i): (layer, str(i - 1) if i else INPUT) for i, layer in enumerate(layers)}
        super().__init__(nodes, str(len(layers) - 1), input_shape, backend, seed, dtype, normalisation, precision)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return tuple(node.layer for node in self.nodes)

    def _build(
        self,
        architecture: Architecture,
        backend: str | None,
        arrays: dict[str, np.ndarray] | None = None,
        precision: str | None = None,
    ) -> None:
        line = [(str(i), (str(i - 1) if i else INPUT,)) for i in range(len(architecture.nodes))]
        if [(node.name, node.inputs) for node in architecture.nodes] != line:
            raise ValueError("Sequential: the nodes are not in a line")
        super()._build(architecture, backend, arrays, precision)

    def _rebuilt(self, architecture: Architecture, backend: str, precision: str | None) -> Graph:
        return Sequential.of(architecture, backend, precision=precision)
