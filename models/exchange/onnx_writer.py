"""A model as an `.onnx` file: operators of its standard set alone, any batch size, channels first inside.

Needs the package onnx. ONNX's convolutions and pools are channels first; what lies otherwise is transposed where it has
to be, and the rows of a linear layer behind a flattened image are renumbered instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.files import expanded, write_atomically

from .. import layers
from ..encoding import ModelFormatError
from ..layers import Layer
from ..nodes import INPUT
from . import layout as turns
from .metadata import NORMALISATION

if TYPE_CHECKING:
    from ..graph import Graph

OPSET = 21
IR_VERSION = 10
LAYOUTS = ("NCHW", "NHWC")
MAX_BYTES = (1 << 31) - 1
"""Of a message of protobuf's."""

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Orders of axes: to channels first, and back."""

FLAT = "flat"
"""The order of a flattened image that still counts as channels first."""


@dataclass(frozen=True)
class Tensor:
    """A value of the file: its name, the shape of one sample as the model has it, and the order in which it lies.

    order: "first" for an image (C, H, W), FLAT for one in a row, "last" for what lies as in the model.
    """

    name: str
    shape: tuple[int, ...]
    order: str = "last"
    image: tuple[int, int, int] | None = None


def write_onnx(model: Graph, path: str | os.PathLike[str], layout: str = "NCHW") -> None:
    """Write the model for inference; the file appears whole or not at all.

    layout: of images that go in and of maps that come out, "NCHW" or "NHWC". Raises ModelFormatError for a layer that
    ONNX has no operator for, and for more than 2 GB; ImportError's words where the package onnx is missing.
    """
    write_atomically(expanded(path), content(model, layout))


def content(model: Graph, layout: str = "NCHW") -> bytes:
    """What `write_onnx` writes."""
    if layout not in LAYOUTS:
        raise ValueError(f"save: layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    try:
        import onnx
    except ImportError:
        raise ModelFormatError("writing ONNX needs the package onnx: pip install 'twinkernels[onnx]'") from None
    weights = model.parameters() | model.statistics()
    if (size := sum(array.nbytes for array in weights.values())) > MAX_BYTES:
        raise ModelFormatError(f"{size} bytes of weights, expected at most {MAX_BYTES} in an ONNX file")
    writer = Writer(model, layout)
    proto = writer.proto()
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


class Writer:
    """The nodes and constants of a file while it is written."""

    def __init__(self, model: Graph, layout: str) -> None:
        self.model = model
        self.layout = layout
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: dict[str, Tensor] = {}
        self._turned: dict[tuple[str, str], Tensor] = {}
        self._names: dict[str, int] = {}

    def proto(self) -> Any:
        """The whole file's message."""
        from onnx import helper, numpy_helper

        model = self.model
        kind = helper.np_dtype_to_tensor_dtype(model.dtype)
        shape = model.input_shape
        image = len(shape) == 3 and self.layout == "NCHW"
        self._names["input"] = self._names["output"] = 1
        self.tensors[INPUT] = Tensor("input", shape, "first" if image else "last")
        arrays = model.parameters() | model.statistics()
        for node in model.nodes:
            function = WRITERS.get(type(node.layer))
            if function is None:
                raise ModelFormatError(
                    f"node {node.name!r}: layer {type(node.layer).__name__} has no operator in ONNX; "
                    "cut the model before it with until(), or replace it"
                )
            own = {
                key.rpartition(".")[2]: array for key, array in arrays.items() if key.rpartition(".")[0] == node.name
            }
            call = Export(self, node.name, node.layer, [self.tensors[name] for name in node.inputs], own)
            self.tensors[node.name] = function(call)
        last = self.tensors[model.output]
        last = self.first(last) if len(last.shape) == 3 and self.layout == "NCHW" else self.last(last)
        self.nodes.append(helper.make_node("Identity", [last.name], ["output"]))
        graph = helper.make_graph(
            self.nodes,
            "twinkernels",
            [helper.make_tensor_value_info("input", kind, ["N", *_laid(shape, image)])],
            [helper.make_tensor_value_info("output", kind, ["N", *_laid(last.shape, last.order == "first")])],
            [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in self.constants.items()],
        )
        proto = helper.make_model(
            graph,
            producer_name="twinkernels",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        if model.normalisation is not None:
            mean, std = model.normalisation
            helper.set_model_props(proto, {NORMALISATION: f"{mean!r} {std!r}"})
        return proto

    def name(self, wanted: str) -> str:
        """A name that no value of the file has yet."""
        self._names[wanted] = self._names.get(wanted, 0) + 1
        return wanted if self._names[wanted] == 1 else f"{wanted}'{self._names[wanted]}"

    def constant(self, name: str, array: np.ndarray) -> str:
        """A constant of the file; its name."""
        name = self.name(name)
        self.constants[name] = array
        return name

    def operator(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node of the file with one output; the output's name."""
        from onnx import helper

        output = self.name(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    # Orders ------------------------------------------------------------------------------------------------

    def first(self, tensor: Tensor) -> Tensor:
        """An image with its channels first."""
        return self._in_order(tensor, "first")

    def last(self, tensor: Tensor) -> Tensor:
        """A value as it lies in the model."""
        return self._in_order(tensor, "last")

    def _in_order(self, tensor: Tensor, order: str) -> Tensor:
        if tensor.order == order:
            return tensor
        key = (tensor.name, order)
        if key not in self._turned:
            self._turned[key] = self._reordered(tensor, order)
        return self._turned[key]

    def _reordered(self, tensor: Tensor, order: str) -> Tensor:
        if tensor.order == FLAT:
            assert tensor.image is not None
            height, width, channels = tensor.image
            name = self.reshaped(tensor.name, (channels, height, width))
            name = self.operator("Transpose", [name], f"{tensor.name}.last", perm=LAST)
            return Tensor(self.reshaped(name, tensor.shape), tensor.shape)
        perm = FIRST if order == "first" else LAST
        return Tensor(
            self.operator("Transpose", [tensor.name], f"{tensor.name}.{order}", perm=perm), tensor.shape, order
        )

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        """Each sample in another shape."""
        sizes = self.constant(f"{name}.shape", np.array([-1, *shape], np.int64))
        return self.operator("Reshape", [name, sizes], f"{name}.reshaped")


def _laid(shape: Sequence[int], first: bool) -> list[int]:
    return [shape[2], shape[0], shape[1]] if first else list(shape)


@dataclass
class Export:
    """One node of the model while it is written."""

    writer: Writer
    name: str
    layer: Any
    inputs: list[Tensor]
    arrays: Mapping[str, np.ndarray]

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.inputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of the output."""
        return tuple(int(size) for size in self.writer.model.node_shapes[self.name][1:])

    def constant(self, key: str, array: np.ndarray | None = None) -> str:
        """An array of the layer, or another one under this name."""
        return self.writer.constant(f"{self.name}.{key}", self.arrays[key] if array is None else array)

    def number(self, key: str, value: float) -> str:
        """A number in the model's dtype."""
        return self.constant(key, np.array(value, self.writer.model.dtype))

    def operator(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node of the file."""
        return self.writer.operator(kind, inputs, self.name, **attributes)

    def image(self, kind: str, *more: str, **attributes: Any) -> Tensor:
        """An operator on images with their channels first."""
        name = self.operator(kind, [self.writer.first(self.x).name, *more], **attributes)
        return Tensor(name, self.shape, "first")

    def alike(self, kind: str, *more: str, **attributes: Any) -> Tensor:
        """An operator on every element, in whatever order."""
        x = self.x
        return Tensor(self.operator(kind, [x.name, *more], **attributes), x.shape, x.order, x.image)

    def row(self, kind: str, *more: str, **attributes: Any) -> Tensor:
        """An operator on values as they lie in the model."""
        return Tensor(self.operator(kind, [self.writer.last(self.x).name, *more], **attributes), self.shape)


Write = Callable[[Export], Tensor]

WRITERS: dict[type[Layer], Write] = {}
"""By class of layer."""


def writes(*names: str) -> Callable[[Write], Write]:
    """What follows writes layers of these names, as far as there are any."""

    def register(function: Write) -> Write:
        for name in names:
            if hasattr(layers, name):
                WRITERS[getattr(layers, name)] = function
        return function

    return register


# Activations --------------------------------------------------------------------------------------------------------


def _elementwise(name: str, kind: str, **attributes: str) -> None:
    """A layer that is an operator; attributes: the field that each of ONNX's is."""

    @writes(name)
    def write(call: Export) -> Tensor:
        given = {key: float(getattr(call.layer, field)) for key, field in attributes.items()}
        return call.alike(kind, **given)


for _name in (
    "Sigmoid",
    "Tanh",
    "Softplus",
    "HardSwish",
    "Mish",
    "Exp",
    "Log",
    "Sqrt",
    "Abs",
    "Reciprocal",
    "Softsign",
):
    _elementwise(_name, _name)
for _name in ("Erf", "Sin", "Cos"):
    _elementwise(_name, _name)
_elementwise("ReLU", "Relu")
_elementwise("Negative", "Neg")
_elementwise("LeakyReLU", "LeakyRelu", alpha="negative_slope")
_elementwise("ELU", "Elu", alpha="alpha")
_elementwise("CELU", "Celu", alpha="alpha")
_elementwise("SELU", "Selu", alpha="alpha", gamma="gamma")
_elementwise("ThresholdedReLU", "ThresholdedRelu", alpha="alpha")
_elementwise("HardSigmoid", "HardSigmoid", alpha="alpha", beta="beta")


@writes("SiLU")
def _silu(call: Export) -> Tensor:
    gate = call.operator("Sigmoid", [call.x.name])
    return call.alike("Mul", gate)


@writes("GELU")
def _gelu(call: Export) -> Tensor:
    return call.alike("Gelu", approximate=getattr(call.layer, "approximate", "none"))


@writes("Clip")
def _clip(call: Export) -> Tensor:
    bounds = [
        call.number(name, value) if math.isfinite(value) else ""
        for name, value in (("low", call.layer.low), ("high", call.layer.high))
    ]
    return call.alike("Clip", *bounds)


@writes("ReLU6")
def _relu6(call: Export) -> Tensor:
    return call.alike("Clip", call.number("low", 0.0), call.number("high", 6.0))


@writes("Power")
def _power(call: Export) -> Tensor:
    return call.alike("Pow", call.number("exponent", call.layer.exponent))


@writes("PReLU")
def _prelu(call: Export) -> Tensor:
    slope = call.arrays["slope"]
    x = call.x if len(call.x.shape) == 3 and call.x.order == "first" else call.writer.last(call.x)
    spread = slope.reshape(-1, 1, 1) if x.order == "first" else slope
    name = call.operator("PRelu", [x.name, call.constant("slope", spread)])
    return Tensor(name, x.shape, x.order)


@writes("Softmax", "LogSoftmax")
def _softmax(call: Export) -> Tensor:
    axis = getattr(call.layer, "axis", -1)
    return call.row(type(call.layer).__name__, axis=axis)


@writes("Dropout")
def _dropout(call: Export) -> Tensor:
    ratio = call.constant("ratio", np.array(call.layer.rate, np.float32))
    return call.alike("Dropout", ratio)


@writes("Dropout2d")
def _map_dropout(call: Export) -> Tensor:
    return call.alike("Identity")  # ONNX has no operator for it


# Layers with weights ------------------------------------------------------------------------------------------------


@writes("Linear")
def _linear(call: Export) -> Tensor:
    x, w = call.x, call.arrays["w"]
    if x.order == FLAT:
        assert x.image is not None
        w = turns.flattened_out(w, x.image)
    inputs = [x.name, call.constant("w", w), *([call.constant("b")] if call.layer.bias else [])]
    return Tensor(call.operator("Gemm", inputs), call.shape)


@writes("Conv2d")
def _conv2d(call: Export) -> Tensor:
    w = turns.convolution_out(call.arrays["w"])
    more = [call.constant("w", w), *([call.constant("b")] if call.layer.bias else [])]
    windows = _windows(call, call.layer.size, call.layer.stride, call.layer.dilation)
    return call.image("Conv", *more, group=call.layer.groups, **windows)


@writes("ConvTranspose2d")
def _conv_transpose2d(call: Export) -> Tensor:
    w = turns.transposed_out(call.arrays["w"])
    more = [call.constant("w", w), *([call.constant("b")] if call.layer.bias else [])]
    windows = _windows(call, call.layer.size, call.layer.stride, call.layer.dilation)
    extra = _pair(call.layer.output_padding)
    return call.image("ConvTranspose", *more, group=call.layer.groups, output_padding=extra, **windows)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _windows(call: Export, size: Any, stride: Any, dilation: Any = 1) -> dict[str, Any]:
    """The attributes of what slides over an image."""
    kernel, steps, spread = _pair(size), _pair(size if stride is None else stride), _pair(dilation)
    around: dict[str, Any]
    if isinstance(call.layer.padding, str):
        around = {"auto_pad": {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}[call.layer.padding]}
    else:
        (top, bottom), (left, right) = (_pair(each) for each in _pair(call.layer.padding))
        around = {"pads": [top, left, bottom, right]}
    return {"kernel_shape": kernel, "strides": steps, "dilations": spread, **around}


# Pools and shape ----------------------------------------------------------------------------------------------------


@writes("MaxPool2d", "AvgPool2d")
def _pool2d(call: Export) -> Tensor:
    layer = call.layer
    windows = _windows(call, layer.size, layer.stride, getattr(layer, "dilation", 1))
    average = isinstance(layer, layers.AvgPool2d)
    more = {"count_include_pad": int(layer.count_include_pad)} if average else {}
    ceil_mode = int(getattr(layer, "ceil_mode", False))
    return call.image("AveragePool" if average else "MaxPool", ceil_mode=ceil_mode, **more, **windows)


@writes("GlobalAvgPool2d", "GlobalMaxPool2d")
def _global_pool2d(call: Export) -> Tensor:
    kind = "GlobalAveragePool" if isinstance(call.layer, layers.GlobalAvgPool2d) else "GlobalMaxPool"
    pooled = call.operator(kind, [call.writer.first(call.x).name])
    return Tensor(call.operator("Flatten", [pooled]), call.shape)


@writes("Flatten")
def _flatten(call: Export) -> Tensor:
    x = call.x
    if x.order == "first":
        height, width, channels = x.shape
        return Tensor(call.operator("Flatten", [x.name]), call.shape, FLAT, (height, width, channels))
    return Tensor(call.writer.reshaped(x.name, call.shape), call.shape) if x.order == "last" else x


@writes("Add")
def _add(call: Export) -> Tensor:
    return _joined(call, "Add")


def _joined(call: Export, kind: str) -> Tensor:
    """An operator on two or more inputs of one rank."""
    parts = call.inputs
    like = parts[0]
    if any((part.order, part.image) != (like.order, like.image) for part in parts):
        parts = [call.writer.last(part) for part in parts]
    name = parts[0].name
    for part in parts[1:]:
        name = call.operator(kind, [name, part.name])
    return Tensor(name, call.shape, parts[0].order, parts[0].image)


@writes("Concat")
def _concat(call: Export) -> Tensor:
    axis = getattr(call.layer, "axis", -1)
    rank = len(call.shape) + 1
    if rank == 4 and all(part.order == "first" for part in call.inputs):
        name = call.operator("Concat", [part.name for part in call.inputs], axis=FIRST.index(axis % rank))
        return Tensor(name, call.shape, "first")
    return Tensor(call.operator("Concat", [call.writer.last(part).name for part in call.inputs], axis=axis), call.shape)


# Normalisation ------------------------------------------------------------------------------------------------------


def _channels(call: Export, kind: str, *more: str, **attributes: Any) -> Tensor:
    """An operator whose second axis is the channels."""
    rank = len(call.x.shape) + 1
    if rank == 4:
        return call.image(kind, *more, **attributes)
    x = call.writer.last(call.x)
    if rank == 2:
        return Tensor(call.operator(kind, [x.name, *more], **attributes), call.shape)
    there = (0, rank - 1, *range(1, rank - 1))
    back = (0, *range(2, rank), 1)
    turned = call.writer.operator("Transpose", [x.name], call.name, perm=there)
    return Tensor(
        call.operator("Transpose", [call.operator(kind, [turned, *more], **attributes)], perm=back), call.shape
    )


@writes("BatchNorm")
def _batch_norm(call: Export) -> Tensor:
    arrays = [call.constant(key) for key in ("gamma", "beta", "running_mean", "running_var")]
    return _channels(call, "BatchNormalization", *arrays, epsilon=call.layer.eps, momentum=1 - call.layer.momentum)


@writes("MeanNorm")
def _mean_norm(call: Export) -> Tensor:
    shift = call.arrays["beta"] - call.arrays["running_mean"]
    x = call.x
    if x.order == "first":
        return call.alike("Add", call.constant("shift", shift.reshape(-1, 1, 1)))
    return call.row("Add", call.constant("shift", shift))


def _over_rows(call: Export, kind: str, *more: str, **attributes: Any) -> Tensor:
    """As `_channels`, for an operator that wants an axis of places: rows have one of size 1."""
    if len(call.x.shape) > 1:
        return _channels(call, kind, *more, **attributes)
    x = call.writer.last(call.x)
    spread = call.writer.reshaped(x.name, (*x.shape, 1))
    return Tensor(call.writer.reshaped(call.operator(kind, [spread, *more], **attributes), x.shape), x.shape)


@writes("LayerNorm")
def _layer_norm(call: Export) -> Tensor:
    first = len(call.x.shape) + 1 - call.arrays["gamma"].ndim
    return call.row(
        "LayerNormalization", call.constant("gamma"), call.constant("beta"), axis=first, epsilon=call.layer.eps
    )


@writes("GroupNorm")
def _group_norm(call: Export) -> Tensor:
    arrays = [call.constant(key) for key in ("gamma", "beta")]
    return _over_rows(call, "GroupNormalization", *arrays, num_groups=call.layer.groups, epsilon=call.layer.eps)


@writes("InstanceNorm")
def _instance_norm(call: Export) -> Tensor:
    arrays = [call.constant(key) for key in ("gamma", "beta")]
    return _over_rows(call, "InstanceNormalization", *arrays, epsilon=call.layer.eps)


@writes("LocalResponseNorm")
def _local_response_norm(call: Export) -> Tensor:
    layer = call.layer
    return _over_rows(call, "LRN", size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.bias)


# Arithmetic, means, and what moves numbers --------------------------------------------------------------------------


_OF_TWO = {"Multiply": "Mul", "Subtract": "Sub", "Divide": "Div", "RaiseToPower": "Pow"}


@writes(*_OF_TWO)
def _arithmetic(call: Export) -> Tensor:
    return _joined(call, _OF_TWO[type(call.layer).__name__])


@writes("Affine", "ParametricPower")
def _affine(call: Export) -> Tensor:
    x = call.x
    first = x.order == "first" and call.layer.shape is None
    x = x if first else call.writer.last(x)
    name = x.name
    for key, kind in (("gamma", "Mul"), ("beta", "Add"), ("exponent", "Pow")):
        if key in call.arrays:
            array = call.arrays[key]
            name = call.operator(kind, [name, call.constant(key, array.reshape(-1, 1, 1) if first else array)])
    return Tensor(name, x.shape, x.order)


@writes("Mean")
def _mean(call: Export) -> Tensor:
    axes = call.layer.axes if isinstance(call.layer.axes, tuple) else (call.layer.axes,)
    given = call.constant("axes", np.array(axes, np.int64))
    return call.row("ReduceMean", given, keepdims=int(call.layer.keepdims))


@writes("Reshape")
def _reshape(call: Export) -> Tensor:
    return Tensor(call.writer.reshaped(call.writer.last(call.x).name, call.shape), call.shape)


@writes("Transpose")
def _transpose(call: Export) -> Tensor:
    return call.row("Transpose", perm=(0, *call.layer.axes))


@writes("Slice")
def _slice(call: Export) -> Tensor:
    layer = call.layer
    size = call.x.shape[layer.axis % (len(call.x.shape) + 1) - 1]
    start, stop, step = slice(layer.start, layer.stop, layer.step).indices(size)
    stop = -(1 << 62) if stop < 0 else stop
    given = {"starts": start, "ends": stop, "axes": layer.axis, "steps": step}
    return call.row("Slice", *(call.constant(key, np.array([value], np.int64)) for key, value in given.items()))


@writes("Pad2d")
def _pad2d(call: Export) -> Tensor:
    (top, bottom), (left, right) = (_pair(each) for each in _pair(call.layer.padding))
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    value = [call.number("value", call.layer.value)] if call.layer.mode == "constant" else []
    padded = call.image("Pad", call.constant("pads", np.maximum(pads, 0)), *value, mode=call.layer.mode)
    if pads.min() >= 0:
        return padded
    # Not every program takes places off by negative numbers.
    ends = np.where(pads[6:] < 0, pads[6:], np.iinfo(np.int64).max)
    given = {"starts": np.maximum(-pads[2:4], 0), "ends": ends, "axes": np.array([2, 3])}
    name = call.operator("Slice", [padded.name, *(call.constant(key, value) for key, value in given.items())])
    return Tensor(name, call.shape, "first")


@writes("Upsample2d")
def _upsample2d(call: Export) -> Tensor:
    scales = call.constant("scales", np.array([1, 1, *_pair(call.layer.factor)], np.float32))
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return call.image("Resize", "", scales, **settings)
