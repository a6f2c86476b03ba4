"""A graph put together layer by layer, for files whose images lie as ours do."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import shapes

from ..architecture import Architecture
from ..encoding import ModelFormatError
from ..graph import Graph
from ..nodes import INPUT, ordered
from ..saving import check_extent
from .onnx_file import MAX_FILE_NODES
from .onnx_reader import MAX_SAMPLE
from .translation import Translation, layer_class


class Assembly:
    """Nodes, their arrays, and the shape of every output so far."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = tuple(shapes.integer("model", "input_shape", size, 1) for size in input_shape)
        self._net = Translation(self.input_shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one sample of a node's output, or of "input"."""
        return self._net.shape(name)

    def add(self, name: str, layer: str, *inputs: str, arrays: dict[str, np.ndarray], **settings: Any) -> str:
        """Append a layer by the name of its class; the node's name, which is the wanted one unless that is taken.

        arrays: all parameters and statistics of the layer. Raises Refusal where there is no such layer, or it does not
        take such inputs or arrays.
        """
        if len(self._net.made) == MAX_FILE_NODES:
            raise ModelFormatError(f"more than {MAX_FILE_NODES} layers")
        return self._net.add(layer_class(layer)(**settings), *inputs, name=name, **arrays)

    def graph(self, output: str, backend: str | None, normalisation: tuple[float, float] | None) -> Graph:
        """The model whose output is a node's; nodes that do not lead to it are left out.

        Raises ModelFormatError for arrays that are not finite, and for a model that is too large to run.
        """
        if output == INPUT:
            raise ModelFormatError("its output is its input: there is no layer in it")
        made = self._net.made
        wanted, waiting = {INPUT}, [output]
        while waiting:
            if (name := waiting.pop()) not in wanted:
                wanted.add(name)
                waiting += made[name].inputs
        nodes = {name: (node.layer, *node.inputs) for name, node in made.items() if name in wanted}
        arrays = {f"{name}.{key}": array for name in nodes for key, array in made[name].arrays.items()}
        double = bool(arrays) and all(array.dtype == np.float64 for array in arrays.values())
        dtype = np.dtype(np.float64 if double else np.float32)
        with np.errstate(all="ignore"):
            arrays = {name: np.asarray(array, dtype) for name, array in arrays.items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelFormatError(f"{name} is not finite")
        architecture = Architecture(
            ordered(nodes, output), output, self.input_shape, dtype, normalisation=normalisation
        )
        model = Graph.of(architecture, backend, arrays)
        check_extent(model, MAX_SAMPLE)
        return model
