"""Graph: a model written as named nodes and their inputs, any directed acyclic graph. Sequential is one in a line."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike

import data
import kernels
from kernels import memory, shapes
from kernels.shapes import Shape

from .architecture import Architecture
from .execute import Executor
from .layers import Parameter
from .layout import Layout
from .locks import Turn
from .losses import Loss, SoftmaxCrossEntropy
from .lowering import lower_inference, lower_training
from .nodes import INPUT, Node, ordered
from .optimizers import Optimizer
from .plan import BATCH, GRADIENTS, PARAMETERS, Listing, Plan, gradient_name, table
from .precision import checked as checked_precision
from .rewrite import checked, rewrite
from .saving import save

DEFAULT_BACKEND = "numba"
PREDICT_BATCH = 512
_MANY = 32  # samples in a turn: of more, each is so small that turns are best as long as they may be
_CACHE = 1 << 25  # bytes: what the last caches of today's processors hold, or the part of them that is one core's


class _Figures(NamedTuple):
    loss: float
    accuracy: float


class Evaluation(_Figures):
    """Loss and accuracy over a set, a pair; accuracy is nan for a loss without classes.

    output: the model's own, of every sample. labels: what they were held against, -1 for those that do not count; None
    where there are no classes.
    """

    output: np.ndarray | None = None
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, loss: float, output: np.ndarray, target: np.ndarray) -> Self:
        """The evaluation of a model's output (N, ...) and its targets."""
        labelled = target.ndim == 1 and output.ndim == 2
        found = cls(loss, accuracy(output, target, target >= 0) if labelled else math.nan)
        if labelled:
            found.output, found.labels = output, target
        return found

    def top(self, k: int) -> float:
        """Share of samples whose label is among the k classes of the largest outputs; of equal ones the first count.

        Raises ValueError where there are no classes, or not so many.
        """
        output, labels = self._classes("top")
        if not 1 <= shapes.integer("top", "k", k, 1) <= output.shape[1]:
            raise ValueError(f"top: k is {k}, expected 1 to {output.shape[1]}, the number of classes")
        own = output[np.arange(len(output)), labels][:, np.newaxis]
        before = np.arange(output.shape[1]) < labels[:, np.newaxis]
        ahead = np.count_nonzero((output > own) | ((output == own) & before), axis=1)
        return float(np.mean(ahead < k))

    @property
    def confusion(self) -> np.ndarray:
        """Counts (classes, classes) of samples: row the label, column the answer. ValueError without classes."""
        output, labels = self._classes("confusion")
        classes = output.shape[1]
        counts: np.ndarray = np.bincount(labels * classes + output.argmax(axis=1), minlength=classes**2)
        return counts.reshape(classes, classes)

    def _classes(self, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and labels of the samples that count."""
        if self.output is None or self.labels is None:
            raise ValueError(f"{what}: the evaluation has no classes, expected one of labels")
        counted = self.labels >= 0
        return self.output[counted], self.labels[counted]


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
    precision: "bfloat16" has linear layers and convolutions of float32 multiply numbers that are rounded to bfloat16;
    where a model runs, like the backend, and nothing that a file keeps. None stands for the dtype.

    `model.plan` is the plan of inference as the layers wrote it; `model.rewrites` are the rewrites with which it runs.
    `model.version` counts the changes of parameters and running statistics, and `model.architecture` is all that a
    model is made from but the backend.

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
        precision: str | None = None,
    ) -> None:
        sizes: Any = input_shape  # made a tuple where it is checked
        architecture = Architecture(ordered(nodes, output), output, sizes, _dtype(dtype), seed, normalisation)
        self._build(architecture, backend, precision=precision)

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        backend: str | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        precision: str | None = None,
    ) -> Self:
        """The model of an architecture, with its starting weights, or with these arrays, which are all that it has.

        They are taken out of `arrays` one after the other: a large network's would be in memory twice.
        """
        model = cls.__new__(cls)
        model._build(architecture, backend, arrays, precision)
        return model

    def _build(
        self,
        architecture: Architecture,
        backend: str | None,
        arrays: dict[str, np.ndarray] | None = None,
        precision: str | None = None,
    ) -> None:
        self.architecture = architecture
        if not isinstance(backend, str | None):
            raise TypeError(f"model: backend is {backend!r}, expected one of {', '.join(kernels.names())}")
        self.kernels = kernels.get(DEFAULT_BACKEND if backend is None else backend)
        self._precision = checked_precision("model", precision, architecture.dtype)
        self.plan, network = lower_inference(architecture, self.precision)
        self.node_shapes = {name: value.shape for name, value in network.values.items()}
        """The shape of each node's output, and of "input"."""
        self._parameters, self.parameter_layout = self._initialise(network.parameters, 0, arrays)
        self._statistics, self.statistic_layout = self._initialise(network.statistics, 2, arrays)
        self._inference: Executor | None = None
        self._served: tuple[Plan, int] | None = None
        self._turn = Turn()  # of predictions, and of those who write parameters beside them
        self._written = 0
        self.rewrites = None
        self.version = 0
        self._range_checked = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, each behind those that it reads."""
        return self.architecture.nodes

    @property
    def output(self) -> str:
        """The name of the node whose output is the model's."""
        return self.architecture.output

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.architecture.input_shape

    @property
    def dtype(self) -> np.dtype:
        """Of parameters and everything computed: float32 or float64."""
        return self.architecture.dtype

    @property
    def seed(self) -> int:
        """Of the initial weights, dropout and shuffling."""
        return self.architecture.seed

    @property
    def normalisation(self) -> tuple[float, float] | None:
        """(mean, std) by which uint8 images are normalised; None if the model has none."""
        return self.architecture.normalisation

    @normalisation.setter
    def normalisation(self, value: tuple[float, float] | None) -> None:
        self.architecture = replace(self.architecture, normalisation=value)
        self._range_checked = False

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes that the outputs stand for, which a file keeps; None if the model has none."""
        return self.architecture.classes

    @classes.setter
    def classes(self, names: Sequence[str] | None) -> None:
        if names is not None and (len(self.output_shape) != 2 or len(names) != self.output_shape[1]):
            raise ValueError(
                f"model: classes has {len(names)} names and the output is {shapes.text(self.output_shape)}, "
                "expected a name an output"
            )
        self.architecture = replace(self.architecture, classes=None if names is None else tuple(names))

    @property
    def rewrites(self) -> tuple[str, ...] | None:
        """Names of the rewrites (`models.rewrite.REWRITES`) with which inference runs; None stands for all."""
        return self._rewrites

    @rewrites.setter
    def rewrites(self, names: Iterable[str] | None) -> None:
        self._rewrites = checked(names)
        with self._turn.lock:
            self._inference = self._served = None

    # Structure ---------------------------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.kernels.name

    @property
    def precision(self) -> str:
        """Of the operands of linear layers and convolutions: the dtype's name, or "bfloat16"."""
        return self._precision

    @property
    def output_shape(self) -> Shape:
        """Shape of the output with "N" for the batch."""
        return self.plan.outputs["output"].shape

    def _initialise(
        self, parameters: Mapping[str, Parameter], stream: int, given: dict[str, np.ndarray] | None
    ) -> tuple[np.ndarray, Layout]:
        layout = Layout({name: parameter.shape for name, parameter in parameters.items()})
        flat = memory.zeros(layout.size, self.dtype)
        for index, (name, view) in enumerate(layout.views(flat).items()):
            if given is None:
                rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, index)))
                view[...] = parameters[name].init(view.shape, rng)
            else:
                array = given.pop(name)
                shapes.equal("model", name, array.shape, view.shape)
                view[...] = array
        return flat, layout

    def lower_training(
        self,
        loss: Loss,
        optimizer: Optimizer | None,
        batch_size: int | None = None,
        input_gradient: bool = False,
    ) -> Plan:
        """The plan of a training step: see `lowering.lower_training`."""
        return lower_training(self.architecture, loss, optimizer, batch_size, input_gradient, precision=self.precision)

    # Arrays ------------------------------------------------------------------------------------------------

    def arrays(self, gradients: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The persistent arrays by value name, writable: for executors alone.

        gradients: a vector like that of the parameters, for the arrays of a training step. Whoever has written to
        parameters or statistics calls `changed`.
        """
        arrays = {PARAMETERS: self._parameters} | self.parameter_layout.views(self._parameters) | self.statistic_views()
        if gradients is not None:
            views = self.parameter_layout.views(gradients)
            arrays |= {GRADIENTS: gradients} | {gradient_name(name): view for name, view in views.items()}
        return arrays

    def changed(self) -> None:
        """Parameters or running statistics have been written to: what was computed from them is stale."""
        self.version += 1

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

        A prediction beside it, of another thread or interrupted by a signal, is of the old ones or of the new.

        Raises ValueError for an unknown name or another shape, before anything is written.
        """
        if not isinstance(new, Mapping):
            raise TypeError(f"set_parameters: new is a {type(new).__name__}, expected arrays by name")
        views = self.arrays()
        del views[PARAMETERS]
        for name, array in new.items():
            if name not in views:
                raise ValueError(f"set_parameters: unknown name {name!r}; expected some of {', '.join(views)}")
            shapes.equal("set_parameters", name, np.shape(array), views[name].shape)
        arrays = {name: np.array(array, self.dtype) for name, array in new.items()}
        with self._turn.lock:
            mine = 0
            while self._written != mine or not mine:  # a signal handler's, in between, would leave some of each
                self._written = mine = self._written + 1
                for name, array in arrays.items():
                    views[name][...] = array
                self.changed()

    # Use ---------------------------------------------------------------------------------------------------

    def prepare(self, x: object, name: str = "x") -> np.ndarray:
        """Images as the network takes them: uint8 normalised, floats as they are, contiguous in the model's dtype.

        Raises TypeError for another dtype, ValueError for another shape, an empty batch, or uint8 images where
        the model has no normalisation.
        """
        self.check_images(x, name)
        assert isinstance(x, np.ndarray | data.DiskArray)
        return self._prepared(x, name)

    def _prepared(self, x: np.ndarray | data.DiskArray, name: str = "x") -> np.ndarray:
        """`prepare` of what has been checked."""
        x = x[:] if isinstance(x, data.DiskArray) else x
        if x.dtype == np.uint8:
            if self.normalisation is None:
                raise ValueError(
                    f"{name} holds uint8 images and the model has no normalisation; "
                    "set model.normalisation = data.statistics(train), or pass normalised float images"
                )
            x = data.standardise(x, *self.normalisation)
        return np.ascontiguousarray(x, dtype=self.architecture.dtype)

    def check_images(self, x: object, name: str = "x") -> None:
        """Raise TypeError or ValueError unless x is a batch of images for this model."""
        if not isinstance(x, np.ndarray | data.DiskArray):
            raise TypeError(f"{name} is a {type(x).__name__}, expected a numpy array{_array_hint(name, x)}")
        if x.dtype.kind != "f" and x.dtype != np.uint8:
            raise TypeError(f"{name} has dtype {x.dtype}, expected uint8 images or floats{_dtype_hint(name, x)}")
        if x.shape[1:] != (expected := self.architecture.input_shape):
            hint = _shape_hint(name, x.shape, expected)
            raise ValueError(f"model: {name} has shape {x.shape}, expected {shapes.text((BATCH, *expected))}{hint}")
        if len(x) == 0:
            raise ValueError(f"{name} has an empty batch (shape {x.shape}), expected at least one sample")

    def check_range(self, x: np.ndarray | data.DiskArray, name: str = "x") -> None:
        """Warn of floats that the model's normalisation cannot have made of pixels, as x / 255 or pixels themselves."""
        self._range_checked = True
        if self.normalisation is None or x.dtype == np.uint8:
            return
        mean, std = self.normalisation
        x = x[:PREDICT_BATCH] if isinstance(x, data.DiskArray) else x
        low, high = -mean / std, (255 - mean) / std
        slack = 0.01 * (high - low)
        smallest, largest = float(x.min()), float(x.max())
        if smallest < low - slack or largest > high + slack or (low < -slack and smallest >= 0 and largest <= 1):
            warnings.warn(
                f"{name} holds floats from {smallest:.4g} to {largest:.4g}, but the model's normalisation makes "
                f"{low:.4g} to {high:.4g} of pixels; pass uint8 images, or those of data.standardise",
                stacklevel=3,
            )

    def predict(self, x: np.ndarray | data.DiskArray) -> np.ndarray:
        """The model's output for every sample, in inference mode: logits (N, classes) for a classifier.

        x: as in `prepare`; float images must be normalised as the model's training images were. The first ones are
        looked at, with a warning where they cannot be. It is read where it lies: another thread that writes to it
        meanwhile changes the answer.
        """
        self.check_images(x)
        if not self._range_checked:
            self.check_range(x)
        outputs: list[np.ndarray] = []
        seen = -1
        with self._turn.lock:
            while self._written != seen:  # else a signal handler has written parameters in between
                seen = self._written
                turns = -(-len(x) // self._serving()[1])
                size = -(-len(x) // turns)
                inference = self._executor(size)
                outputs = []
                for start in range(0, len(x), size):
                    part = x[start : start + size]
                    given = {INPUT: self._prepared(part)}
                    outputs.append(inference.run(given, len(part), version=self.version)["output"])
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _executor(self, batch_size: int) -> Executor:
        """The one of inference, made anew where it is too small."""
        inference = self._inference
        if inference is None or inference.batch_size < batch_size:
            inference = self._inference = None  # both at once would take twice the memory
            inference = self._inference = Executor(self._serving()[0], self.kernels, batch_size, self.arrays())
        return inference

    def _serving(self) -> tuple[Plan, int]:
        """The plan with which inference runs, and how many samples are best predicted at a time."""
        if self._served is None:
            plan = rewrite(self.plan, self.kernels, self.rewrites)
            self._served = plan, _together(plan, self._parameters.nbytes)
        return self._served

    def evaluate(
        self,
        x: np.ndarray | data.DiskArray,
        y: np.ndarray,
        loss: Loss | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> Evaluation:
        """Loss (cross-entropy unless told) and accuracy over a whole set, in inference mode; x as for `predict`.

        sample_weight: how much each sample counts in the loss, for one that is `weighted`; what weighs 0 has no part in
        the accuracy either. Of a classifier, `top` and `confusion` of what is returned tell more.
        """
        loss = SoftmaxCrossEntropy() if loss is None else loss
        if not isinstance(loss, Loss):
            raise TypeError(f"evaluate: loss is {loss!r}, expected a models.Loss")
        self.check_images(x)
        self.check_range(x)
        target = loss.check(y, len(x), self.output_shape)
        weights = loss.weights("evaluate", target, sample_weight)
        return self.judged(self.predict(x), target, loss, weights)

    def judged(self, output: np.ndarray, target: np.ndarray, loss: Loss, weights: np.ndarray | None) -> Evaluation:
        """What `evaluate` gives for outputs that are at hand; targets and weights are the loss's own."""
        own = () if weights is None else (weights,)
        value = loss.value(self.kernels, output, target, *own)
        if weights is not None and target.ndim == 1:
            target = np.where(weights > 0, target, -1)
        return Evaluation.of(value, output, target)

    def to(self, backend: str, dtype: DTypeLike | None = None, precision: str | None = None) -> Graph:
        """A copy with the same weights on another backend, in another dtype, or in another precision; another dtype
        brings its own."""
        other = self.architecture if dtype is None else replace(self.architecture, dtype=_dtype(dtype))
        if precision is None and other.dtype == self.dtype:
            precision = self.precision
        return self._copied_to(self._rebuilt(other, backend, precision))

    def until(self, node: str) -> Graph:
        """A copy of the part that leads to a node, with the same weights: its prediction is that node's output.

        Raises ValueError for an unknown node.
        """
        return self._copied_to(Graph.of(self.architecture.until(node), self.backend, precision=self.precision))

    def _rebuilt(self, architecture: Architecture, backend: str, precision: str | None) -> Graph:
        return Graph.of(architecture, backend, precision=precision)

    def _copied_to(self, other: Graph) -> Graph:
        """Another model with this one's weights, as far as it has them, and rewrites."""
        state = self.parameters() | self.statistics()
        with self._turn.lock:
            other.set_parameters({name: state[name] for name in other.parameters() | other.statistics()})
        other.rewrites = self.rewrites
        return other

    def __deepcopy__(self, memo: object) -> Graph:
        return self.to(self.backend)

    def save(self, path: str | os.PathLike[str], layout: str | None = None) -> None:
        """Write the model to one file, architecture included; the file appears whole or not at all.

        A path that ends in .onnx becomes an ONNX file for inference elsewhere, with a batch of any size: `layout` says
        whether its images are "NCHW", as most programs have them, or "NHWC" as here. Of the weights alone, .weights.h5
        is what Keras' `load_weights` takes, .pth a state dict of PyTorch. Any other is a safetensors file. Raises
        ModelFormatError for what the file cannot hold, ValueError for .keras and .h5, which hold networks of Keras';
        NonFiniteError, and leaves what is there, if a parameter or a running statistic is NaN or infinite.
        """
        with self._turn.lock:
            save(self, path, layout)

    # Print -------------------------------------------------------------------------------------------------

    def summary(self) -> Listing:
        """A table of the nodes: layer, inputs, output shape, number of parameters, MFLOP of one sample; a str."""
        rows = [("node", "layer", "from", "output", "parameters", "MFLOP")]
        counts = {node.name: 0 for node in self.nodes}
        for name, shape in self.parameter_layout.shapes.items():
            counts[name.rsplit(".", 1)[0]] += math.prod(shape)
        for node in self.nodes:
            output = shapes.text(self.node_shapes[node.name])
            flops = sum(step.flops(1) for step in self.plan.steps if step.node == node.name)
            count, share = f"{counts[node.name]:,}", f"{flops / 1e6:,.3f}" if flops else ""
            rows.append((node.name, str(node.layer), ", ".join(node.inputs), output, count, share))
        rows.append(("total", "", "", "", f"{sum(counts.values()):,}", f"{self.plan.flops(1) / 1e6:,.3f}"))
        return table(rows, right=(4, 5))

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(repr(self))}</p>{self.summary()._repr_html_()}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.nodes)} layers on {self.backend}, {self.precision}>"


def _together(plan: Plan, parameters: int) -> int:
    """Samples in a turn of inference: so many that what a step reads and writes stays in a cache.

    But no fewer than it takes for the samples to outweigh the parameters, so many bytes, which are read once for all.
    """
    sizes = [0]
    for step in plan.steps:
        of_samples = [v for v in (*step.inputs.values(), *step.outputs.values()) if v.shape[:1] == (BATCH,)]
        sizes.append(sum(math.prod(value.sized(1)) for value in of_samples) * plan.dtype.itemsize)
    samples = max(1, _CACHE // max(1, *sizes), -(-parameters // max(1, sum(sizes))))
    return samples if samples < _MANY else PREDICT_BATCH


def _dtype(dtype: DTypeLike) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError:
        raise TypeError(f"model: dtype is {dtype!r}, expected float32 or float64") from None


def _in_code(name: str) -> str:
    """What stands for an array in a line of Python: messages call some by several words."""
    return name if name.isidentifier() else "x"


def _array_hint(name: str, x: object) -> str:
    """How something else may become an array."""
    name = _in_code(name)
    if hasattr(x, "to_numpy"):
        return f"; {name}.to_numpy() gives one"
    if hasattr(x, "detach"):
        return f"; {name}.detach().cpu().numpy() gives one"
    return f"; numpy.asarray({name}) makes one" if isinstance(x, list | tuple) else ""


def _dtype_hint(name: str, x: np.ndarray | data.DiskArray) -> str:
    """How numbers of another kind may become what a model takes."""
    name = _in_code(name)
    if isinstance(x, np.ndarray) and x.dtype.kind == "O":
        return f"; {name}.astype(numpy.uint8) makes pixels, {name}.astype(numpy.float32) floats"
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iub" or not x.size:
        return ""
    if x.dtype.kind != "b" and x.min() >= 0 and x.max() <= 255:
        return f"; pixels are {name}.astype(numpy.uint8)"
    return f"; {name}.astype(numpy.float32) makes floats"


def _shape_hint(name: str, shape: tuple[int, ...], sample: tuple[int, ...]) -> str:
    """How an array of another shape may become a batch of samples."""
    name = _in_code(name)
    hints = {
        sample: f"one sample is {name}[np.newaxis]",
        (*shape[:1], *sample[:-1]) if sample[-1:] == (1,) else (): f"grey images are {name}[..., np.newaxis]",
        (*shape[:1], *sample[-1:], *sample[:-1]): f"channels come last: {name}.transpose(0, 2, 3, 1)",
        (*shape[:1], math.prod(sample)): f"{name}.reshape(-1, {', '.join(map(str, sample))})",
    }
    return f"; {hints[shape]}" if shape in hints else ""


def accuracy(output: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Share of rows of output (N, K) whose largest is at the label (N,), among those that weigh (N,); nan where there
    are no labels.

    Raises TypeError for what is no array, ValueError for another number of labels than rows.
    """
    for name, array in (("output", output), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"accuracy: {name} is a {type(array).__name__}, expected a numpy array")
    if labels.ndim != 1 or output.ndim != 2:
        return math.nan
    if len(labels) != len(output):
        raise ValueError(f"accuracy: labels are {len(labels)}, output has {len(output)} rows; expected one label a row")
    right = output.argmax(axis=1) == labels
    if weights is not None:
        if not isinstance(weights, np.ndarray) or weights.dtype.kind not in "biuf":
            raise TypeError(f"accuracy: weights are {weights!r}, expected a numpy array of numbers")
        shapes.equal("accuracy", "weights", weights.shape, labels.shape, "one a row")
        right = right[weights > 0]
    return float(np.mean(right)) if right.size else math.nan


def _read_only(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for view in views.values():
        view.flags.writeable = False
    return views
