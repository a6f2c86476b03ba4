"""A graph put together node by node, from a file that is not believed: each array is held against its layer's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels import shapes
from kernels.shapes import Shape

from .. import layers
from ..builder import PlanBuilder
from ..encoding import ModelFormatError
from ..graph import Graph
from ..layers import Layer
from ..nodes import INPUT, MAX_NAME
from ..plan import BATCH, Value, gradient_name
from ..saving import MAX_NODES, check_extent

PIXELS = (0.0, 1.0)
"""The normalisation that takes uint8 images as the numbers that they are, as other frameworks do."""


def layer_class(name: str) -> Any:
    """A layer of this package by name; ModelFormatError where there is none."""
    found = getattr(layers, name, None)
    if not (isinstance(found, type) and issubclass(found, Layer)):
        raise ModelFormatError(f"there is no layer {name} here to run it with")
    return found


class Assembly:
    """Nodes, their arrays, and the shape of every output so far.

    >>> assembly = Assembly((4,))
    >>> assembly.add("relu", layers.ReLU(), "input")
    'relu'
    >>> assembly.shapes["relu"]
    ('N', 4)
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = tuple(shapes.integer("model", "input_shape", size, 1) for size in input_shape)
        self.nodes: dict[str, tuple[Any, ...]] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self._plan = PlanBuilder(training=False)
        self._values = {INPUT: Value(INPUT, (BATCH, *self.input_shape))}

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each node's output, and of "input"; the batch is "N"."""
        return {name: value.shape for name, value in self._values.items()}

    def shape(self, name: str) -> Shape:
        """The shape of a node's output, or of "input"."""
        return self._values[name].shape

    def add(self, wanted: str, layer: Layer, *inputs: str, **arrays: np.ndarray) -> str:
        """Append a node that reads others; return its name, which is the wanted one unless that is taken or reserved.

        arrays: all parameters and statistics of the layer, by their names. Raises ModelFormatError for one that is
        missing or of another shape, and whatever the layer raises for inputs that it cannot take.
        """
        if len(self.nodes) == MAX_NODES:
            raise ModelFormatError(f"more than {MAX_NODES} layers")
        values = [self._values[name] for name in inputs]
        given = [value.shape for value in values]
        parameters, statistics = layer.parameters(*given), layer.statistics(*given)
        expected = {name: array.shape for name, array in (*parameters.items(), *statistics.items())}
        if odd := sorted(expected.keys() ^ arrays.keys()):
            raise ModelFormatError(f"{layer} has {list(expected)}, and the file {list(arrays)}: {', '.join(odd)}")
        for key, shape in expected.items():
            shapes.equal(str(layer), key, np.shape(arrays[key]), shape)
        name = self._free(wanted)
        self._plan.begin(name)
        p = self._plan.parameters({key: array.shape for key, array in parameters.items()})
        running = self._plan.parameters({key: array.shape for key, array in statistics.items()}, gradients=False)
        vars(p).update(vars(running))
        self._values[name], _ = layer.lower(self._plan, p, *values)
        self.nodes[name] = (layer, *inputs)
        self.arrays |= {f"{name}.{key}": arrays[key] for key in expected}
        return name

    def _free(self, wanted: str) -> str:
        """A name that a node may have and none has yet, as close to the wanted one as can be."""
        parts = [part for part in wanted.replace("\\", "/").replace("'", "").split("/") if part not in ("", "..")]
        start = "".join(c for c in "/".join(parts) if c.isprintable())[: MAX_NAME - 8] or "layer"
        name, count = start, 1
        while self._taken(name):
            count += 1
            name = f"{start}_{count}"
        return name

    def _taken(self, name: str) -> bool:
        return name in self._values or gradient_name(name) in self._values or name in map(gradient_name, self._values)

    def graph(self, output: str, backend: str | None, dtype: DTypeLike = np.float32) -> Graph:
        """The model whose output is a node's; nodes that do not lead to it are left out.

        Raises ModelFormatError for arrays that are not finite, and for a model that is too large to run.
        """
        if output == INPUT:
            raise ModelFormatError("its output is its input: there is no layer in it")
        wanted, waiting = set(), [output]
        while waiting:
            if (name := waiting.pop()) not in wanted and name != INPUT:
                wanted.add(name)
                waiting += self.nodes[name][1:]
        nodes = {name: node for name, node in self.nodes.items() if name in wanted}
        arrays = {name: array for name, array in self.arrays.items() if name.rpartition(".")[0] in wanted}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelFormatError(f"{name} is not finite")
        model = Graph(nodes, output, self.input_shape, backend, dtype=dtype, normalisation=PIXELS)
        check_extent(model)
        model.set_parameters(arrays)
        return model
