"""Graph: a model written as named nodes and their inputs, any directed acyclic graph. Sequential is one in a line."""

from __future__ import annotations

import graphlib
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

import data
import kernels
from kernels import memory, shapes
from kernels.shapes import Shape

from .execute import Executor
from .layers import Array, Layer
from .losses import Loss, SoftmaxCrossEntropy
from .optimizers import Optimizer
from .plan import BATCH, Backward, Layout, Lowering, Plan, Value, table
from .rewrite import checked, rewrite

DEFAULT_BACKEND = "numba"
INPUT = "input"
PREDICT_BATCH = 512
MAX_NAME = 200


class Evaluation(NamedTuple):
    """Loss and accuracy over a set; accuracy is nan for a loss without classes."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Node:
    """One layer of a graph and the names of the nodes it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


class Graph:
    """A model: layers as nodes of a graph, parameters in one flat vector, and a backend.

    nodes: {name: (layer, input, ...)}, where an input is another node's name or "input".
    output: the name of the node whose output is the model's.
    input_shape: the shape of one sample, such as (28, 28, 1).
    backend: "numpy" or "numba", chosen here once; None takes the default.
    seed: of the initial weights, dropout and shuffling.
    dtype: float32 or float64.
    normalisation: (mean, std) in pixel units, by which uint8 images are normalised; float images are taken as
    they are.

    `model.node_shapes` are the shapes of the input and of every node's output, by name, with "N" for the batch.
    `model.plan` is the plan of inference as the layers wrote it; `model.rewrites` are the rewrites with which it runs.
    `model.version` counts the changes of parameters and running statistics.

    Raises ValueError for a cycle, an unknown input, a node that leads nowhere, or shapes that do not fit.
    """

    def __init__(
        self,
        nodes: Mapping[str, Sequence[Any]],
        output: str,
        input_shape: Sequence[int],
        backend: str | None = None,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        normalisation: tuple[float, float] | None = None,
    ) -> None:
        self.kernels = kernels.get(DEFAULT_BACKEND if backend is None else backend)
        self.seed = shapes.integer(type(self).__name__, "seed", seed, 0)
        self.dtype = np.dtype(dtype)
        if self.dtype not in shapes.FLOAT_DTYPES:
            raise TypeError(f"{type(self).__name__}: dtype is {self.dtype}, expected float32 or float64")
        self.input_shape = tuple(shapes.integer(type(self).__name__, "input_shape", size, 1) for size in input_shape)
        self.normalisation = normalisation
        self.output = output
        self.nodes = ordered(nodes, output)

        self.node_shapes, arrays, statistics = self.infer_shapes(self.nodes, self.input_shape)
        self._parameters, self.parameter_layout = self._initialise(arrays, stream=0)
        self._statistics, self.statistic_layout = self._initialise(statistics, stream=2)
        self._inference: Executor | None = None
        self._inference_lock = threading.Lock()
        self.plan = self._lower_inference()
        self.rewrites = None
        self.version = 0

    @property
    def normalisation(self) -> tuple[float, float] | None:
        """(mean, std) by which uint8 images are normalised; None if the model has none."""
        return self._normalisation

    @normalisation.setter
    def normalisation(self, value: tuple[float, float] | None) -> None:
        if value is not None:
            mean, std = value
            mean = shapes.number("normalisation", "mean", mean)
            value = mean, shapes.number("normalisation", "std", std, 0.0, above=True)
        self._normalisation = value

    @property
    def rewrites(self) -> tuple[str, ...] | None:
        """Names of the rewrites (`models.rewrite.REWRITES`) with which inference runs; None stands for all."""
        return self._rewrites

    @rewrites.setter
    def rewrites(self, names: Iterable[str] | None) -> None:
        self._rewrites = checked(names)
        with self._inference_lock:
            self._inference = None

    # Structure ---------------------------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.kernels.name

    @property
    def output_shape(self) -> Shape:
        """Shape of the output with "N" for the batch."""
        return self.plan.outputs["output"].shape

    @staticmethod
    def infer_shapes(
        nodes: Sequence[Node], input_shape: Sequence[int]
    ) -> tuple[dict[str, Shape], dict[str, Array], dict[str, Array]]:
        """Output shapes, parameters and statistics of all nodes, in the order of `ordered`; nothing is allocated."""
        lowering = Lowering(training=False)
        values = {INPUT: Value(INPUT, (BATCH, *input_shape))}
        parameters: dict[str, Array] = {}
        statistics: dict[str, Array] = {}
        for node in nodes:
            inputs = [values[name].shape for name in node.inputs]
            try:
                parameters |= {f"{node.name}.{k}": v for k, v in node.layer.parameters(*inputs).items()}
                statistics |= {f"{node.name}.{k}": v for k, v in node.layer.statistics(*inputs).items()}
                values[node.name], _ = Graph._lower_node(lowering, node, values)
            except (ValueError, TypeError) as error:
                raise type(error)(f"node {node.name!r} ({node.layer}): {error}") from error
        return {name: value.shape for name, value in values.items()}, parameters, statistics

    def _initialise(self, arrays: Mapping[str, Array], stream: int) -> tuple[np.ndarray, Layout]:
        layout = Layout({name: array.shape for name, array in arrays.items()})
        flat = memory.zeros(layout.size, self.dtype)
        for index, (name, view) in enumerate(layout.views(flat).items()):
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, index)))
            view[...] = arrays[name].init(view.shape, rng)
        return flat, layout

    # Lowering ----------------------------------------------------------------------------------------------

    @staticmethod
    def _lower_node(plan: Lowering, node: Node, values: Mapping[str, Value]) -> tuple[Value, Backward | None]:
        inputs = [values[name] for name in node.inputs]
        input_shapes = [value.shape for value in inputs]
        plan.begin(node.name)
        p = plan.parameters({k: a.shape for k, a in node.layer.parameters(*input_shapes).items()})
        statistics = node.layer.statistics(*input_shapes)
        vars(p).update(vars(plan.parameters({k: a.shape for k, a in statistics.items()}, gradients=False)))
        return node.layer.lower(plan, p, *inputs)

    def _lower_inference(self) -> Plan:
        plan = Lowering(training=False)
        x = Value(INPUT, (BATCH, *self.input_shape))
        values = {INPUT: x}
        for node in self.nodes:
            values[node.name], _ = self._lower_node(plan, node, values)
        return Plan(tuple(plan.steps), {INPUT: x}, {"output": values[self.output]}, None, self.dtype)

    def lower_training(
        self,
        loss: Loss,
        optimizer: Optimizer | None,
        batch_size: int | None = None,
        input_gradient: bool = False,
    ) -> Plan:
        """The plan of a training step: forward, loss, backward in reverse; then the updates of running
        statistics and the optimizer's.

        Without an optimizer the step ends with the gradients; `input_gradient` asks for the input's too.
        """
        plan = Lowering(training=True, seed=self.seed)
        x = Value(INPUT, (BATCH, *self.input_shape))
        if input_gradient:
            plan.want(x)
        values = {INPUT: x}
        backwards: dict[str, Backward | None] = {}
        for node in self.nodes:
            y, backwards[node.name] = self._lower_node(plan, node, values)
            has_parameters = bool(node.layer.parameters(*(values[name].shape for name in node.inputs)))
            if has_parameters or any(plan.wants(values[name]) for name in node.inputs):
                plan.want(y)
            values[node.name] = y

        plan.phase, plan.node = "loss", ""
        target = loss.target(values[self.output].shape)
        loss_value, gradient = loss.lower(plan, values[self.output], target)

        plan.phase = "backward"
        arriving: dict[str, list[Value]] = {self.output: [gradient]}
        for node in reversed(self.nodes):
            if not plan.wants(values[node.name]):
                continue
            dy = _summed(plan, node.name, arriving[node.name])
            plan.begin(node.name)
            backward = backwards[node.name]
            if backward is None:
                raise TypeError(f"layer {type(node.layer).__name__} gives no backward in training")
            gradients = backward(dy)
            gradients = gradients if isinstance(gradients, tuple) else (gradients,)
            for name, dx in zip(node.inputs, gradients, strict=True):
                if not plan.wants(values[name]):
                    continue
                if dx is None:
                    raise TypeError(f"layer {type(node.layer).__name__} gives no gradient by its input {name!r}")
                arriving.setdefault(name, []).append(dx)
        outputs = {"output": values[self.output], "loss": loss_value}
        if input_gradient:
            outputs["dinput"] = _summed(plan, INPUT, arriving[INPUT])

        if optimizer is not None:
            plan.phase, plan.node = "optimizer", ""
            flat: Shape = (self.parameter_layout.size,)
            state = [Value(f"optimizer.{name}", flat) for name in optimizer.state]
            optimizer.lower(plan, Value("parameters", flat), Value("gradients", flat), state)
        return Plan(plan.updates_last(), {INPUT: x, "target": target}, outputs, batch_size, self.dtype)

    # Arrays ------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """The persistent arrays by value name, writable: for executors alone."""
        return {"parameters": self._parameters} | self.parameter_layout.views(self._parameters) | self.statistic_views()

    def statistic_views(self) -> dict[str, np.ndarray]:
        """The running statistics by name, writable: for trainers alone."""
        return self.statistic_layout.views(self._statistics)

    def parameters(self) -> dict[str, np.ndarray]:
        """Read-only views of the trained arrays, by "node.name"."""
        return _read_only(self.parameter_layout.views(self._parameters))

    def statistics(self) -> dict[str, np.ndarray]:
        """Read-only views of the running statistics, by "node.name"."""
        return _read_only(self.statistic_layout.views(self._statistics))

    def set_parameters(self, new: Mapping[str, np.ndarray]) -> None:
        """Write parameters and running statistics by name, all or nothing.

        Raises ValueError for an unknown name or another shape, before anything is written.
        """
        views = self.arrays()
        del views["parameters"]
        for name, array in new.items():
            if name not in views:
                raise ValueError(f"set_parameters: unknown name {name!r}; expected some of {', '.join(views)}")
            shapes.equal("set_parameters", name, np.shape(array), views[name].shape)
        for name, array in {name: np.asarray(array, self.dtype) for name, array in new.items()}.items():
            views[name][...] = array
        self.version += 1

    # Use ---------------------------------------------------------------------------------------------------

    def prepare(self, x: object, name: str = "x") -> np.ndarray:
        """Images as the network takes them: uint8 normalised, floats as they are, contiguous in the model's dtype.

        Raises TypeError for another dtype, ValueError for another shape, an empty batch, or uint8 images where
        the model has no normalisation.
        """
        self.check_images(x, name)
        assert isinstance(x, np.ndarray)
        if x.dtype == np.uint8:
            if self.normalisation is None:
                raise ValueError(
                    f"{name} holds uint8 images and the model has no normalisation; "
                    "set model.normalisation = data.statistics(train), or pass normalised float images"
                )
            x = data.standardise(x, *self.normalisation)
        return np.ascontiguousarray(x, dtype=self.dtype)

    def check_images(self, x: object, name: str = "x") -> None:
        """Raise TypeError or ValueError unless x is a batch of images for this model."""
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{name} is a {type(x).__name__}, expected a numpy array")
        if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"{name} has dtype {x.dtype}, expected uint8 images or floats")
        shapes.equal("model", name, x.shape[1:], self.input_shape, "the model's input_shape, after the batch axis")
        if len(x) == 0:
            raise ValueError(f"{name} has an empty batch (shape {x.shape}), expected at least one sample")

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The model's output for every sample, in inference mode: logits (N, classes) for a classifier."""
        self.check_images(x)
        with self._inference_lock:
            wanted = min(len(x), PREDICT_BATCH)
            if self._inference is None or self._inference.batch_size < wanted:
                plan = rewrite(self.plan, self.kernels, self.rewrites)
                self._inference = Executor(plan, self.kernels, wanted, self.arrays())
            inference = self._inference
        parts = (x[start : start + inference.batch_size] for start in range(0, len(x), inference.batch_size))
        outputs = [
            inference.run({INPUT: self.prepare(part)}, n=len(part), version=self.version)["output"] for part in parts
        ]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def evaluate(self, x: np.ndarray, y: np.ndarray, loss: Loss | None = None) -> Evaluation:
        """Loss (cross-entropy unless told) and accuracy over a whole set, in inference mode."""
        loss = SoftmaxCrossEntropy() if loss is None else loss
        self.check_images(x)
        target = loss.check(y, len(x), self.output_shape)
        output = self.predict(x)
        return Evaluation(loss.value(self.kernels, output, target), accuracy(output, target))

    def to(self, backend: str, dtype: DTypeLike | None = None) -> Graph:
        """A copy with the same weights on another backend, or in another dtype."""
        twin = self._rebuilt(backend, self.dtype if dtype is None else dtype)
        twin.set_parameters(self.parameters() | self.statistics())
        twin.rewrites = self.rewrites
        return twin

    def _rebuilt(self, backend: str, dtype: DTypeLike) -> Graph:
        nodes = {node.name: (node.layer, *node.inputs) for node in self.nodes}
        return Graph(nodes, self.output, self.input_shape, backend, self.seed, dtype, self.normalisation)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file, architecture included; the file appears whole or not at all."""
        from .checkpoint import save

        save(self, path)

    # Print -------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """A table of the nodes: layer, inputs, output shape, number of parameters."""
        rows = [("node", "layer", "from", "output", "parameters")]
        counts = {node.name: 0 for node in self.nodes}
        for name, shape in self.parameter_layout.shapes.items():
            counts[name.rsplit(".", 1)[0]] += math.prod(shape)
        for node in self.nodes:
            output = shapes.text(self.node_shapes[node.name])
            rows.append((node.name, str(node.layer), ", ".join(node.inputs), output, f"{counts[node.name]:,}"))
        rows.append(("total", "", "", "", f"{sum(counts.values()):,}"))
        return table(rows, right=(4,))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.nodes)} layers on {self.backend}, {self.dtype}>"


def accuracy(output: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest output is at the label; nan where there are no labels."""
    if labels.ndim != 1 or output.ndim != 2:
        return math.nan
    return float(np.mean(output.argmax(axis=1) == labels))


def _summed(plan: Lowering, name: str, gradients: list[Value]) -> Value:
    """Fan-out: the gradient by a node's output is the sum over its readers."""
    total = gradients[0]
    for other in gradients[1:]:
        joined = plan.value(f"d{name}.sum", total.shape)
        plan.call("add", total, other, joined)
        total = joined
    return total


def _read_only(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for view in views.values():
        view.flags.writeable = False
    return views


def _is_name(name: object) -> bool:
    """Whether a node may be called so: names stand in files and in messages, and are no paths to elsewhere."""
    if not isinstance(name, str) or name == INPUT or "'" in name or not name.isprintable() or len(name) > MAX_NAME:
        return False
    first, *others = name.replace("\\", "/").split("/")
    return bool(first) and ".." not in (first, *others)


def ordered(nodes: Mapping[str, Sequence[Any]], output: str) -> list[Node]:
    """The nodes with every input before its readers, after checking names, arity, cycles and reachability."""
    parsed: dict[str, Node] = {}
    for name, entry in nodes.items():
        if not _is_name(name):
            raise ValueError(f"node name {name!r} is not allowed; expected a printable string other than {INPUT!r}")
        if not isinstance(entry, (tuple, list)) or len(entry) < 2 or not isinstance(entry[0], Layer):
            raise TypeError(f"node {name!r} is {entry!r}, expected (layer, input, ...)")
        layer, *inputs = entry
        if len(inputs) != layer.arity if layer.arity else len(inputs) < 2:
            expected = layer.arity or "two or more"
            raise ValueError(f"node {name!r} has {len(inputs)} inputs, {type(layer).__name__} expects {expected}")
        if f"d{name}" in nodes:  # both would own an array "dname.w"
            raise ValueError(f"node names {name!r} and 'd{name}' clash: d{name}.w is the gradient by {name}.w")
        parsed[name] = Node(name, layer, tuple(inputs))
    if output not in parsed:
        raise ValueError(f"output {output!r} is not a node; expected one of {', '.join(parsed) or 'no nodes'}")
    for node in parsed.values():
        for source in node.inputs:
            if source != INPUT and source not in parsed:
                raise ValueError(
                    f"node {node.name!r} reads {source!r}, which is no node; expected one of "
                    f"{INPUT}, {', '.join(parsed)}"
                )
    try:
        sorter = graphlib.TopologicalSorter({n.name: [s for s in n.inputs if s != INPUT] for n in parsed.values()})
        order = list(sorter.static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"the graph has a cycle: {' -> '.join(error.args[1])}") from None
    leads = {output}
    for name in reversed(order):
        if name not in leads:
            raise ValueError(f"node {name!r} does not lead to the output {output!r}")
        leads.update(parsed[name].inputs)
    return [parsed[name] for name in order]
