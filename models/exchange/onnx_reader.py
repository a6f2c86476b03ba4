"""A network from an `.onnx` file, as an ordinary `Graph`: channels last, any batch size, trainable."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

import kernels
from data.files import expanded

from ..architecture import Architecture
from ..encoding import ModelFormatError, harmless, printable
from ..graph import DEFAULT_BACKEND, Graph
from ..layers import Flatten
from ..nodes import INPUT, ordered
from ..saving import check_extent
from . import folding
from .folding import Refusal
from .metadata import NORMALISATION
from .onnx_file import MAX_BYTES, FileGraph, FileInput, FileNode, OnnxFile, UnsupportedOperatorError, read_file
from .onnx_operators import OPERATORS, Call, Tensor
from .translation import CHANNELS_LAST, Translation, layer_class
from .views import BATCH, View, axis_of, flat

MAX_SAMPLE = 1 << 28
"""Numbers of one sample between the layers: 1 GB of float32."""


def read_onnx(
    path: str | os.PathLike[str],
    backend: str | None = None,
    max_bytes: int = MAX_BYTES,
    input_shape: Sequence[int] | None = None,
) -> Graph:
    """The network in an ONNX file, on any backend, in inference the same function as the file's first output.

    input_shape: of one sample as the model shall take it, where the file leaves sizes open. max_bytes: of the file, and
    of all weights.

    Images come as (N, H, W, C), also where the file has (N, C, H, W), and so do maps that go out; everything else keeps
    the file's axes. Where the file's first axis cannot be a batch, because the network works along it, one sample is
    the file's whole input. Nothing in the file is executed, and no file outside its folder is read.

    Raises FileNotFoundError; ModelFormatError for a file that is damaged; UnsupportedOperatorError, which is one, for a
    network with a part that cannot run here, by operator, node and file.
    """
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}")
    kernels.get(DEFAULT_BACKEND if backend is None else backend)  # a wrong name is no fault of the file
    file = read_file(path, max_bytes)
    try:
        return Walk(file, input_shape, max_bytes=max_bytes).graph(backend)
    except UnsupportedOperatorError as error:
        try:
            return Walk(file, input_shape, whole=True, max_bytes=max_bytes).graph(backend)
        except ModelFormatError:
            raise error from None


@dataclass
class Row:
    """What became of one node of the file: nodes here, or the reason why it cannot run."""

    node: FileNode
    made: list[str] = field(default_factory=list)
    reason: str = ""
    output: Tensor | None = None


class Walk:
    """A file's nodes in order, as far as its first output needs them.

    survey: go on behind a node that cannot run, to see what else there is. whole: the input's first axis is no batch,
    what goes in is one sample as it is; for networks that work along that axis. max_bytes: of what is computed
    beforehand, and of the weights.
    """

    def __init__(
        self,
        file: OnnxFile,
        input_shape: Sequence[int] | None = None,
        survey: bool = False,
        whole: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.file = file
        self._max_bytes = max_bytes
        self._folded = 0
        self.whole = whole
        self.rows: list[Row] = []
        self.nodes = _needed(file)
        self.input = self._input()
        self.tensors: dict[str, Tensor] = dict(file.constants)
        self._own = _own_weights(file)
        self._uses = Counter(name for node in self.nodes for name in node.reads)
        self._uses[file.outputs[0].name] += 1
        self._start(input_shape)
        self._integers = {self.input.name} if self.input.dtype == np.uint8 else set()
        self._survey = survey
        self._walk(self.nodes)

    # The input ---------------------------------------------------------------------------------------------

    def _input(self) -> FileInput:
        """The one input that the first output depends on."""
        read = {name for node in self.nodes for name in node.reads} | {self.file.outputs[0].name}
        wanted = [each for each in self.file.inputs if each.name in read]
        if len(wanted) != 1:
            names = " and ".join(repr(harmless(each.name)) for each in wanted[:4]) or "none"
            training = "; a network in training is exported for inference first" if len(wanted) > 1 else ""
            raise UnsupportedOperatorError(
                f"{self.file.path}: its output {harmless(self.file.outputs[0].name)!r} depends on {len(wanted)} inputs "
                f"({names}), expected one: the images{training}"
            )
        return wanted[0]

    def _start(self, given: Sequence[int] | None) -> None:
        name, shape = self.input.name, self.input.shape
        where = f"{self.file.path}: input {harmless(name)!r}"
        if self.input.dtype is None or (self.input.dtype.kind != "f" and self.input.dtype != np.uint8):
            kind = "of an unknown type" if self.input.dtype is None else f"of {self.input.dtype}"
            raise UnsupportedOperatorError(f"{where} is {kind}, expected floats or uint8 images")
        if not shape:
            raise UnsupportedOperatorError(f"{where} has no shape with a batch axis; export it with one")
        if self.whole:
            shape = ("N", *shape)
        channels_last = self.whole or _is_channels_last(name, shape, self.nodes)
        order = list(range(len(shape)))
        if len(shape) == 4 and not channels_last:
            order = list(CHANNELS_LAST[4])
        sample = [shape[at] for at in order[1:]]
        image = len(shape) == 3 and not self.whole and _becomes_image(name, self.nodes, self.file.constants)
        if image:
            sample.append(1)  # a grey image without its axis of channels
        if given is not None:
            if len(given) != len(sample) or any(
                isinstance(size, int) and size != asked for size, asked in zip(sample, given, strict=True)
            ):
                raise ModelFormatError(f"{where} is {_text(sample)}, input_shape is {tuple(given)}")
            sample = list(given)
        if not all(isinstance(size, int) for size in sample):
            raise UnsupportedOperatorError(
                f"{where} leaves sizes open: {_text(sample)}; read_onnx(..., input_shape=) sets them"
            )
        sizes = tuple(int(size) for size in sample)
        if math.prod(sizes) > MAX_SAMPLE:
            raise ModelFormatError(f"{where} has {math.prod(sizes)} numbers, expected at most {MAX_SAMPLE}")
        self.input_shape = sizes
        self.input_order = tuple(order)
        """The file's axes of the input, in the order in which the network here takes them."""
        self.net = Translation(sizes, shape[0] if isinstance(shape[0], int) else None, self.whole)
        own = [(BATCH,), *(axis_of(size) for size in sizes)]
        axes = [own[order.index(at)] for at in range(len(shape))]
        self._set(name, View(INPUT, flat(own[1:]), tuple(axes)))

    # Nodes -------------------------------------------------------------------------------------------------

    def _walk(self, nodes: Sequence[FileNode]) -> None:
        for node in nodes:
            row = Row(node)
            self.rows.append(row)
            before = len(self.net.made)
            try:
                with np.errstate(all="ignore"):  # weights that are joined may overflow; what is not finite is refused
                    self._translate(row)
            except Refusal as refusal:
                row.reason = str(refusal)
                if not self._survey:
                    raise self._unsupported(row) from None
            row.made = list(self.net.made)[before:]

    def _choose(self, row: Row, condition: Tensor | None) -> None:
        """An If whose way is known beforehand: that way's nodes."""
        node = row.node
        if not isinstance(condition, np.ndarray) or condition.size != 1 or condition.dtype == object:
            raise Refusal("chooses by what an image holds, expected a condition that is constant")
        ways = [node.attributes.get(way) for way in ("then_branch", "else_branch")]
        taken, other = ways if condition.all() else ways[::-1]
        if not isinstance(taken, FileGraph) or taken.inputs or len(taken.outputs) < len(node.outputs):
            raise Refusal("has no graph to choose")
        own = taken.own
        if clash := own & self.tensors.keys():
            raise Refusal(f"makes {harmless(min(clash))!r}, which there is already")
        self.tensors.update(taken.constants)
        read = [name for inner in taken.nodes for name in inner.reads] + list(taken.outputs)
        self._uses.update(name for name in read if name in own)
        self._walk(taken.nodes)
        for name, source in zip(node.outputs, taken.outputs, strict=False):
            if source not in self.tensors:
                raise Refusal(f"gives {harmless(source)!r}, which cannot be computed")
            if name and self._uses[name]:
                self._set(name, self.tensors[source])
        for source in (*taken.outputs, *(other.outer if isinstance(other, FileGraph) else ())):
            self._was_read(self.tensors.get(source))
        row.output = self.tensors[taken.outputs[0]] if taken.outputs else None

    def _was_read(self, tensor: Tensor | None) -> None:
        if isinstance(tensor, View):
            self.net.remaining[tensor.node] -= 1

    def _set(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = tensor
        if isinstance(tensor, View):
            self.net.remaining[tensor.node] += self._uses[name]

    def _translate(self, row: Row) -> None:
        node = row.node
        missing = [name for name in node.inputs if name and name not in self.tensors]
        if missing and (node.operator in OPERATORS or node.operator in folding.FOLDS):
            raise Refusal(f"reads {harmless(missing[0])!r}, which cannot be computed")
        inputs = [self.tensors.get(name) if name else None for name in node.inputs]
        if node.operator == "If" and inputs and not missing:
            self._choose(row, inputs[0])
            return
        if missing or any(isinstance(self.tensors.get(name), View) for name in node.reads):
            if node.operator not in OPERATORS:
                raise Refusal(_QUANTISED if _is_quantised(node.operator) else "is not supported")
            self._check_integers(node)
            call = Call(self.net, node, inputs, self.file.opset, self._own)
            try:
                result = self._one_by_one(call) if node.operator in _ONE_BY_ONE else OPERATORS[node.operator](call)
            except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
                # What no operator looks at on its own: an attribute of another type, a constant without axes.
                raise Refusal(f"has inputs or attributes that do not fit ({error})") from None
        else:
            folded = folding.fold(node.operator, inputs, node.attributes, self.file.opset)
            if node.operator in _KEEP_NUMBERS and self._own.issuperset(node.inputs[:1]):
                self._own.update(node.outputs)
            result = list(folded)
            self._folded += sum(array.nbytes for array in folded if array.base is None)
            if self._folded > self._max_bytes:
                raise Refusal(f"brings the constants computed beforehand above {self._max_bytes} bytes")
        outputs = result if isinstance(result, list) else [result]
        for at, name in enumerate(node.outputs):
            if name and self._uses[name]:
                if at >= len(outputs):
                    raise Refusal(f"has its output {at} read, {harmless(name)!r}, which is not supported")
                self._set(name, outputs[at])
        row.output = outputs[0]
        for each in inputs:
            self._was_read(each)

    def _one_by_one(self, call: Call) -> Tensor | list[Tensor]:
        """An operator that takes images one by one; where the first axis is no batch, of one image that has none."""
        view, operator = call.inputs[0], OPERATORS[call.node.operator]
        if not self.net.lead or not isinstance(view, View) or view.axes[1:2] != ((),):
            return operator(call)
        call.inputs[0] = replace(view, axes=(view.axes[0], *view.axes[2:]))
        self.net.lead = 0
        try:
            result = operator(call)
        finally:
            self.net.lead = 1
        assert isinstance(result, View)
        return replace(result, axes=(result.axes[0], (), *result.axes[1:]))

    def _check_integers(self, node: FileNode) -> None:
        """Follow pixels until they are cast to floats. Raises Refusal for a node that computes with integers."""
        if not self._integers.intersection(node.inputs) or node.operator in ("Cast", "Shape", "Size"):
            return
        if node.operator not in ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose"):
            raise Refusal("computes with integers, expected a Cast to floats before it")
        self._integers.update(node.outputs)

    def _unsupported(self, row: Row) -> ModelFormatError:
        operator = row.node.operator
        return UnsupportedOperatorError(
            f"{self.file.path}: {row.node}, operator {operator}, {harmless(row.reason)}; "
            f"`twinkernels inspect {self.file.path.name}` shows what of the network can run here"
        )

    # The whole ---------------------------------------------------------------------------------------------

    def graph(self, backend: str | None = None) -> Graph:
        """The network. Raises ModelFormatError where it is none."""
        try:
            return self._graph(backend)
        except ModelFormatError as error:
            raise type(error)(f"{self.file.path}: {printable(error)}") from None
        except Refusal as refusal:
            name = harmless(self.file.outputs[0].name)
            raise UnsupportedOperatorError(f"{self.file.path}: its output {name!r} {refusal}") from None
        except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
            raise ModelFormatError(f"{self.file.path}: not a network ({printable(error)})") from error

    def _graph(self, backend: str | None) -> Graph:
        output = self._output()
        made = self.net.made
        wanted = {output}
        for name in reversed(list(made)):
            if name in wanted:
                wanted.update(made[name].inputs)
        nodes = {name: (made[name].layer, *made[name].inputs) for name in made if name in wanted}
        arrays = {f"{name}.{key}": array for name in nodes for key, array in made[name].arrays.items()}
        altered = tuple(name for name in nodes if made[name].altered and made[name].arrays)
        self._let_go()
        size = sum(array.nbytes for array in arrays.values())
        if size > self._max_bytes:
            raise ModelFormatError(f"{size} bytes of weights, expected at most {self._max_bytes}")
        floats = {array.dtype for array in arrays.values()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelFormatError(f"{harmless(name)} is not finite")
        architecture = Architecture(
            altered=None if self.net.exact else altered,
            nodes=ordered(nodes, output),
            output=output,
            input_shape=self.input_shape,
            dtype=np.dtype(np.float64 if floats == {np.dtype(np.float64)} else np.float32),
            normalisation=self._normalisation(),
        )
        model = Graph.of(architecture, backend, arrays)
        check_extent(model, MAX_SAMPLE)
        return model

    def _let_go(self) -> None:
        """Hold no array any more, neither the file's nor those made of them."""
        self.file.constants.clear()
        self.tensors.clear()
        for made in self.net.made.values():
            made.arrays.clear()

    def _output(self) -> str:
        """The node whose output is the file's first."""
        tensor = self.tensors[self.file.outputs[0].name]
        if not isinstance(tensor, View):
            raise Refusal("is constant")
        order = tuple(range(tensor.rank))
        first = tensor.axes[0] if tensor.axes else ()
        if first == (BATCH,):
            if tensor.rank == 4 and not self.whole and self._is_channels_first(tensor):
                order = CHANNELS_LAST[4]
            groups = self.net.groups(tensor, order)
        elif first[:1] == (BATCH,) and self.net.batch == 1:
            groups = [first[1:], *tensor.axes[1:]]  # a fixed batch of 1 that was joined with another axis
        else:
            raise Refusal("does not have the batch on the first axis")
        self.output_order = order
        """The file's axes of the output, in the order in which the network here gives them."""
        node = self.net.arranged(tensor, groups)
        if node == INPUT:
            shape = self.net.shape(INPUT)
            layer = layer_class("Reshape")(shape) if len(shape) > 1 else Flatten() if shape else layer_class("Clip")()
            node = self.net.add(layer, INPUT, name="output")
        return node

    def _is_channels_first(self, tensor: View) -> bool:
        """Whether a map that goes out is (N, C, H, W) in the file: as its input, or as it lies."""
        if len(self.input_order) == 4:
            return self.input_order == CHANNELS_LAST[4]
        return flat(self.net.groups(tensor, range(4))) != tensor.memory

    def _normalisation(self) -> tuple[float, float] | None:
        """What makes pixels the input: as this package's export says; pixels themselves where the file takes them."""
        told = self.file.metadata.get(NORMALISATION)
        if told is not None:
            try:
                mean, std = (float(each) for each in told.split())
            except ValueError:
                raise ModelFormatError(f"{NORMALISATION} is {told[:40]!r}, expected a mean and a std") from None
            return mean, std
        return (0.0, 1.0) if self.input.dtype == np.uint8 else None


def _text(sizes: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, sizes)) + ")"


def _needed(file: OnnxFile) -> list[FileNode]:
    """The nodes that lead to the first output."""
    wanted = {file.outputs[0].name}
    found = []
    for node in reversed(file.nodes):
        if wanted & set(node.outputs) - {""}:
            wanted.update(node.reads)
            found.append(node)
    return found[::-1]


_CHANNELS_FIRST = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN")
_ONE_BY_ONE = (
    *_CHANNELS_FIRST,
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "DepthToSpace",
    "SpaceToDepth",
    "Resize",
    "Upsample",
)
_QUANTISED = "computes with quantised numbers, which is not supported; export the network in floats"


def _is_quantised(operator: str) -> bool:
    name = operator.rpartition(".")[2]
    return name.startswith("QLinear") or name.endswith(("Integer", "QuantizeLinear", "quantizeLinear"))


_KEEP_NUMBERS = ("Constant", "Identity", "Transpose", "Cast", "Reshape", "Unsqueeze", "Squeeze")
_OF_MODULES = ("weight", "bias", "running_mean", "running_var")


def _own_weights(file: OnnxFile) -> set[str]:
    """The constants that may be weights as the file's program had them.

    Where PyTorch's exporter calls some as modules do, those of other names are what it has computed beforehand.
    """
    named = {name for name in file.constants if name.rpartition(".")[2] in _OF_MODULES}
    return named if any(name.endswith("weight") for name in named) else set(file.constants)


def _readers(name: str, nodes: Sequence[FileNode]) -> list[FileNode]:
    """What reads a tensor first, looking through nodes for every element."""
    through = ("Cast", "Identity", "Sub", "Add", "Mul", "Div", "Relu", "Clip", "Dropout")
    names, found = {name}, []
    for node in nodes:
        if names & set(node.inputs):
            if node.operator in through:
                names.update(node.outputs)
            else:
                found.append(node)
    return found


def _is_channels_last(name: str, shape: Sequence[int | str], nodes: Sequence[FileNode]) -> bool:
    """Whether an input of four axes is (N, H, W, C): what reads it says so, or else its sizes."""
    for node in _readers(name, nodes):
        if node.operator in (*_CHANNELS_FIRST, "BatchNormalization", "InstanceNormalization"):
            return False
        if node.operator == "Transpose":
            return tuple(node.attributes.get("perm", ())) == (0, 3, 1, 2)
    few = (1, 2, 3, 4)
    return len(shape) == 4 and shape[3] in few and shape[1] not in few


def _becomes_image(name: str, nodes: Sequence[FileNode], constants: Mapping[str, np.ndarray]) -> bool:
    """Whether an input of three axes is grey images: what reads it first gives it an axis for channels."""
    return any(node.operator == "Unsqueeze" and _adds_channels(node, constants) for node in _readers(name, nodes))


def _adds_channels(node: FileNode, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether an Unsqueeze makes (N, 1, H, W) or (N, H, W, 1) of (N, H, W)."""
    axes = node.attributes.get("axes", constants.get(node.inputs[-1], np.empty(0)))
    return [int(axis) for axis in np.ravel(axes)[:2]] in ([1], [-3], [3], [-1])
