"""The operators of ONNX, each as the layers that compute it; where versions of an operator differ, all of them.

Definitions: https://onnx.ai/onnx/operators/. A function takes a `Call` and gives a view for each output; what it cannot
take over it refuses in words (`Refusal`), never by an approximation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import layers
from ..layers import Layer
from . import folding, layout
from .folding import BatchSize, Refusal
from .onnx_file import FileNode
from .translation import CHANNELS_LAST, Made, Translation, layer_class
from .views import BATCH, Axis, View, axis_of, extent, flat, fresh, transposed

Tensor = View | np.ndarray
Operator = Callable[["Call"], "Tensor | list[Tensor]"]

MAX_PARAMETERS = 1 << 29
"""Numbers that a network may have in all: 2 GB of float32."""

OPERATORS: dict[str, Operator] = {}
"""By ONNX's name."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """What follows translates these operators."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def _written(value: float) -> float:
    """What was meant by a float32: 0.1 where the file has the nearest to it."""
    return float(str(np.float32(value)))


@dataclass
class Call:
    """One node of the file while it is translated."""

    net: Translation
    node: FileNode
    inputs: list[Tensor | None]
    opset: int
    own: Collection[str] = ()
    """The names of constants that are weights as the file's program had them, not computed from such."""
    altered: bool = False
    """Whether arrays have been taken that are not the file's own, or in another order."""

    # What the file says ------------------------------------------------------------------------------------

    def view(self, at: int = 0) -> View:
        """An input that depends on the network's."""
        tensor = self.inputs[at] if at < len(self.inputs) else None
        if not isinstance(tensor, View):
            raise Refusal(f"reads {self._named(at)}, which is {'constant' if tensor is not None else 'missing'}")
        return tensor

    def has(self, at: int) -> bool:
        """Whether an optional input is there."""
        return at < len(self.inputs) and self.inputs[at] is not None

    def array(self, at: int) -> np.ndarray:
        """An input that is a constant."""
        tensor = self.inputs[at] if at < len(self.inputs) else None
        if isinstance(tensor, View):
            raise Refusal(f"reads {self._named(at)}, which is computed where a constant is expected")
        if tensor is None:
            raise Refusal(f"lacks its input {at}")
        if tensor.size > MAX_PARAMETERS:
            raise Refusal(f"has weights {self._named(at)} of shape {tensor.shape}, expected {MAX_PARAMETERS} at most")
        return tensor

    def weights(self, at: int) -> np.ndarray:
        """A constant of floats."""
        array = self.array(at)
        if array.dtype == object or not np.issubdtype(array.dtype, np.floating):
            raise Refusal(f"has weights {self._named(at)} of type {array.dtype}, expected floats")
        self.altered |= self.node.inputs[at] not in self.own
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _named(self, at: int) -> str:
        return repr(self.node.inputs[at]) if at < len(self.node.inputs) else f"input {at}"

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, of the default's type."""
        value = self.node.attributes.get(name, default)
        wanted = type(default)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if default is not None and not fits:
            raise Refusal(f"has {name} = {value!r}, expected {wanted.__name__}")
        return _written(value) if wanted is float else value

    def ints(self, name: str, at: int | None = None) -> list[int] | None:
        """An attribute of whole numbers, or the input that later versions have in its place; None if left out."""
        value = self.node.attributes.get(name)
        if value is None:
            return folding.integers(self.array(at)) if at is not None and self.has(at) else None
        if not isinstance(value, tuple) or not all(isinstance(each, int) for each in value):
            raise Refusal(f"has {name} = {value!r}, expected integers")
        return list(value)

    def scalar(self, at: int) -> float:
        """An input that is one number."""
        array = self.array(at)
        if array.size != 1 or array.dtype == object:
            raise Refusal(f"has {self._named(at)} of shape {array.shape}, expected one number")
        return _written(array.reshape(()).item()) if array.dtype == np.float32 else float(array.reshape(()))

    def axis(self, value: int, rank: int) -> int:
        """The file's axis as one of a view, which has `rank` of them."""
        lead = self.net.lead
        if not isinstance(value, int) or not lead - rank <= value < rank - lead:
            raise Refusal(f"has axis {value} of a tensor with {rank - lead} axes")
        return value % (rank - lead) + lead

    def sizes(self, view: View) -> list[int | BatchSize]:
        """The file's sizes of a tensor."""
        return self.net.sizes(view)[self.net.lead :]

    # What it becomes ---------------------------------------------------------------------------------------

    def layer(self, name: str, *values: Any, **settings: Any) -> Layer:
        """A layer of the package."""
        try:
            return layer_class(name)(*values, **settings)
        except (TypeError, ValueError) as error:
            raise Refusal(f"does not fit: {error}") from None

    @property
    def name(self) -> str:
        """What the node is called here: as the module whose weights it has, or as it is in the file."""
        for source in self.node.inputs[1:2]:
            if source.endswith(".weight") and len(source) > 7:
                return source[:-7]
        return self.node.name or self.node.operator.lower()

    def add(self, layer: Layer, *inputs: str, **arrays: np.ndarray) -> str:
        """A new node."""
        name = self.net.add(layer, *inputs, name=self.name, **arrays)
        self.net.made[name].altered = self.altered
        return name

    def elementwise(self, layer: Layer, view: View) -> View:
        """A node for every element, wherever it lies."""
        return replace(view, node=self.add(layer, view.node))


# Activations --------------------------------------------------------------------------------------------------------


def _activation(operator_name: str, name: str, **attributes: tuple[str, float]) -> None:
    """An operator that is a layer; attributes: the setting that each becomes, and its default in ONNX."""

    def translate(call: Call) -> Tensor:
        settings = {setting: float(call.get(key, default)) for key, (setting, default) in attributes.items()}
        return call.elementwise(call.layer(name, **settings), call.view())

    OPERATORS[operator_name] = translate


for _operator, _layer in {
    "Relu": "ReLU",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Softplus": "Softplus",
    "HardSwish": "HardSwish",
    "Mish": "Mish",
    "Exp": "Exp",
    "Sqrt": "Sqrt",
    "Abs": "Abs",
    "Neg": "Negative",
    "Reciprocal": "Reciprocal",
    "Softsign": "Softsign",
    "Erf": "Erf",
    "Sin": "Sin",
    "Cos": "Cos",
}.items():
    _activation(_operator, _layer)
_activation("LeakyRelu", "LeakyReLU", alpha=("negative_slope", 0.01))
_activation("Elu", "ELU", alpha=("alpha", 1.0))
_activation("Celu", "CELU", alpha=("alpha", 1.0))
_activation("ThresholdedRelu", "ThresholdedReLU", alpha=("alpha", 1.0))
_activation("HardSigmoid", "HardSigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5))
_activation("Selu", "SELU", alpha=("alpha", 1.67326319217681884765625), gamma=("gamma", 1.05070102214813232421875))


@operator("Gelu")
def _gelu(call: Call) -> Tensor:
    layer = call.layer("GELU", **_unless("none", approximate=call.get("approximate", "none")))
    return call.elementwise(layer, call.view())


@operator("Swish")
def _swish(call: Call) -> Tensor:
    if call.get("alpha", 1.0) != 1:
        raise Refusal(f"has alpha = {call.get('alpha')}, expected 1")
    return call.elementwise(layers.SiLU(), call.view())


@operator("Clip")
def _clip(call: Call) -> Tensor:
    low = call.scalar(1) if call.has(1) else call.get("min", -math.inf)
    high = call.scalar(2) if call.has(2) else call.get("max", math.inf)
    # Versions below 11 say "no bound" by the largest float.
    low, high = (math.copysign(math.inf, each) if abs(each) >= 3.4028234e38 else each for each in (low, high))
    if (low, high) == (-math.inf, math.inf):
        return call.view()
    if (low, high) == (0.0, math.inf):
        return call.elementwise(layers.ReLU(), call.view())
    return call.elementwise(call.layer("Clip", low, high), call.view())


@operator("Max", "Min")
def _bound(call: Call) -> Tensor:
    views = [each for each in call.inputs if isinstance(each, View)]
    bounds = [call.scalar(at) for at, each in enumerate(call.inputs) if isinstance(each, np.ndarray)]
    least = call.node.operator == "Min"
    view = _least_as_largest(call, views, _largest) if least else _largest(call, views)
    if not bounds:
        return view
    if least:
        return call.elementwise(call.layer("Clip", high=min(bounds)), view)
    return call.elementwise(call.layer("Clip", max(bounds)) if max(bounds) else layers.ReLU(), view)


def _least_as_largest(call: Call, views: list[View], largest: Callable[[Call, list[View]], View]) -> View:
    """The least of numbers: the negative of the largest of their negatives."""
    turned = [call.elementwise(layers.Negative(), view) for view in views]
    return call.elementwise(layers.Negative(), largest(call, turned))


def _largest(call: Call, views: list[View]) -> View:
    """The largest at each place of tensors of one shape: side by side, and a pool over them."""
    net, first = call.net, views[0]
    if len(views) == 1:
        return first
    if all(net.signature(view) == net.signature(first) for view in views):
        nodes = [view.node for view in views]
    else:
        order = net.orders(*views)
        nodes = [net.in_order(view, order) for view in views]
        first = _in_file_order(net, nodes[0], order)
    shape = net.shape(nodes[0])
    if any(net.shape(name) != shape for name in nodes) or len({view.rank for view in views}) > 1:
        raise Refusal(f"compares tensors of {' and '.join(str(net.sizes(view)) for view in views)}, expected one shape")
    *_, channels = (1, *shape)
    apart = (math.prod(shape) // channels, 1, channels)
    beside = call.add(call.layer("Concat", axis=2), *(net.reshaped(name, apart) for name in nodes))
    pooled = call.add(call.layer("MaxPool2d", (1, len(nodes))), beside)
    return replace(first, node=net.reshaped(pooled, shape))


@operator("PRelu")
def _prelu(call: Call) -> Tensor:
    view, slope = call.view(), call.weights(1)
    if slope.size == 1:
        return replace(view, node=call.add(call.layer("PReLU", shared=True), view.node, slope=slope.reshape(1)))
    if call.opset < 7 and slope.ndim == 1:  # one a channel, before operators broadcast as NumPy does
        slope = slope.reshape(-1, *(1,) * (view.rank - call.net.lead - 2))
    if (last := _by_channel(call.net.operand(slope, view), call.net.shape(view.node))) is not None:
        call.altered |= call.net.own_axes(view)[-1] not in view.axes
        return replace(view, node=call.add(call.layer("PReLU"), view.node, slope=last))
    at = 1 + call.net.lead
    vector = np.moveaxis(slope.reshape((1,) * (view.rank - slope.ndim) + slope.shape), at, -1)
    if vector.size != vector.shape[-1] or vector.shape[-1] != extent(view.axes[at]):
        # A slope for every place: max(x, 0) + slope min(x, 0).
        high = call.elementwise(layers.ReLU(), view)
        return _joined(
            call, "Add", [high, _affine(call, call.elementwise(call.layer("Clip", high=0.0), view), slope, None)]
        )
    view, in_order = _channels(call, view)
    return replace(view, node=call.add(call.layer("PReLU"), view.node, slope=in_order(vector.reshape(-1))))


@operator("Log")
def _log(call: Call) -> Tensor:
    view, net = call.view(), call.net
    made = net.made.get(view.node)
    if made is not None and isinstance(made.layer, layers.Softmax) and net.sole(view.node):
        # The same function, and finite where the softmax is smaller than any float.
        made.layer = call.layer("LogSoftmax", **vars(made.layer))
        return view
    return call.elementwise(call.layer("Log"), view)


@operator("Pow")
def _pow(call: Call) -> Tensor:
    a, b = call.inputs[:2]
    if isinstance(a, View) and isinstance(b, View):
        return _joined(call, "RaiseToPower", [a, b])
    if isinstance(a, View):
        exponent = _floating(_legacy(call, call.array(1), a))
        if exponent.size == 1:
            return call.elementwise(call.layer("Power", call.scalar(1)), a)
        a = _with_an_axis(call.net, a)
        exponent = call.net.operand(exponent, a)
        channel = _by_channel(exponent, call.net.shape(a.node))
        layer = call.layer("ParametricPower", *([exponent.shape] if channel is None else []))
        return replace(a, node=call.add(layer, a.node, exponent=exponent if channel is None else channel))
    base = _floating(call.array(0))
    if not np.all(base > 0):
        raise Refusal("raises a constant that is not above zero to a power that is computed")
    logs = np.log(base.astype(np.float64)).astype(base.dtype)
    return call.elementwise(layers.Exp(), _affine(call, call.view(1), logs, None))


@operator("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Tensor:
    view, net = call.view(), call.net
    axis = call.axis(call.get("axis", -1 if call.opset >= 13 else 1), view.rank)
    joined = [axis] if call.opset >= 13 else range(axis, view.rank)
    over = flat([view.axes[at] for at in joined])
    if BATCH in over:
        raise Refusal("works along the batch")
    own = _own_axis(net, view, over)
    if own is None:
        rest = tuple(atom for atom in view.memory if atom not in over)
        view = replace(view, node=net.arranged(view, [rest, over]), memory=(*rest, *over))
        own = len(net.shape(view.node))
    last = own == len(net.shape(view.node))
    return call.elementwise(call.layer(call.node.operator, **({} if last else {"axis": own})), view)


def _own_axis(net: Translation, view: View, atoms: Axis) -> int | None:
    """The axis of a node's output (the batch is 0) that is made of these atoms, in whatever order; None if none is."""
    own = net.own_axes(view)
    return next((at for at, axis in enumerate(own, 1) if axis and set(axis) == set(atoms)), None)


# What changes no number ---------------------------------------------------------------------------------------------


@operator("Identity")
def _identity(call: Call) -> Tensor:
    return call.view()


@operator("Dropout")
def _dropout(call: Call) -> Tensor:
    rate = call.scalar(1) if call.has(1) else call.get("ratio", 0.5)
    if rate and call.has(2) and call.array(2).any():
        raise Refusal("drops at random, as in training; export the network for inference")
    return call.elementwise(call.layer("Dropout", rate), call.view()) if rate else call.view()


MAP_DROPOUT = "feature_dropout"
"""PyTorch's dropout of whole maps, for which ONNX has no operator."""


@operator(MAP_DROPOUT)
def _map_dropout(call: Call) -> Tensor:
    view, net = call.view(), call.net
    rate = call.get("ratio", 0.5)
    return net.as_image(call.add(call.layer("Dropout2d", rate), net.image(view)), view.rank) if rate else view


@operator("DepthToSpace", "SpaceToDepth")
def _depth_to_space(call: Call) -> Tensor:
    view, net = call.view(), call.net
    block = call.get("blocksize", 0)
    sizes = net.sizes(view)
    if view.rank != 4 or block < 1 or not all(isinstance(size, int) for size in sizes[1:]):
        raise Refusal(f"takes blocks of {block} of a tensor of {sizes}")
    _, channels, height, width = (size if isinstance(size, int) else 0 for size in sizes)
    if call.node.operator == "SpaceToDepth":
        split = net.reshape(view, [sizes[0], channels, height // block, block, width // block, block])
        order = (0, 1, 3, 5, 2, 4) if call.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
        return net.reshape(transposed(split, order), [sizes[0], channels * block**2, height // block, width // block])
    inner = channels // block**2
    if call.get("mode", "DCR") == "CRD":
        split, order = net.reshape(view, [sizes[0], inner, block, block, height, width]), (0, 1, 4, 2, 5, 3)
    else:
        split, order = net.reshape(view, [sizes[0], block, block, inner, height, width]), (0, 3, 4, 1, 5, 2)
    return net.reshape(transposed(split, order), [sizes[0], inner, height * block, width * block])


@operator("Cast")
def _cast(call: Call) -> Tensor:
    if call.get("to") not in (1, 10, 11, 16):
        raise Refusal(f"casts to type {call.get('to')}, expected floats")
    return call.view()


@operator("CastLike")
def _cast_like(call: Call) -> Tensor:
    return call.view()


@operator("Shape")
def _shape(call: Call) -> Tensor:
    return folding.sliced_shape(call.sizes(call.view()), call.node.attributes)


@operator("Size")
def _size(call: Call) -> Tensor:
    array = np.empty((), object)
    array[()] = math.prod(call.sizes(call.view()), start=1)
    return array if folding.symbolic(array) else array.astype(np.int64)


@operator("Flatten")
def _flatten(call: Call) -> Tensor:
    view, lead = call.view(), call.net.lead
    axis = call.get("axis", 1)
    at = view.rank if axis == view.rank - lead else call.axis(axis, view.rank)
    return replace(view, axes=(*view.axes[:lead], flat(view.axes[lead:at]), flat(view.axes[at:])))


@operator("Reshape")
def _reshape(call: Call) -> Tensor:
    view, net = call.view(), call.net
    asked: list[Any] = list(call.get("shape", ())) if "shape" in call.node.attributes else list(call.array(1).flat)
    before = call.sizes(view)
    sizes: list[int | BatchSize] = []
    for at, size in enumerate(asked):
        if isinstance(size, BatchSize):
            sizes.append(size)
        elif size == 0 and not call.get("allowzero", 0):
            if at >= len(before):
                raise Refusal(f"keeps axis {at} of a tensor of {before}")
            sizes.append(before[at])
        else:
            sizes.append(int(size))
    return net.reshape(view, net.sizes(view)[: net.lead] + _solved(sizes, before))


def _solved(sizes: list[int | BatchSize], before: Sequence[int | BatchSize]) -> list[int | BatchSize]:
    """The sizes with their -1 worked out, and a batch that was fixed where the file's input leaves it open."""
    total = math.prod(size.times if isinstance(size, BatchSize) else size for size in before)
    given = math.prod(size.times if isinstance(size, BatchSize) else size for size in sizes if size != -1)
    has_batch = any(isinstance(size, BatchSize) for size in before)
    batch_given = any(isinstance(size, BatchSize) for size in sizes)
    open_at = [at for at, size in enumerate(sizes) if size == -1]
    if len(open_at) > 1 or not sizes or given < 0:
        raise Refusal(f"makes {sizes} of a tensor of {list(before)}")
    solved = list(sizes)
    if has_batch and not batch_given:
        if open_at and given and total % given == 0 and (open_at[0] == 0 or sizes[0] != 1):
            solved[open_at[0]] = BatchSize(total // given)
            return solved
        # A batch of the size that the exporter saw stands in the first place.
        first = int(sizes[0])
        if first < 1:
            raise Refusal(f"makes {sizes} of a tensor of {list(before)}")
        given //= first
        solved[0] = BatchSize(1)
    if open_at and solved[open_at[0]] == -1:
        if not given or total % given:
            raise Refusal(f"makes {sizes} of a tensor of {list(before)}")
        solved[open_at[0]] = total // given
    return solved


@operator("Transpose")
def _transpose(call: Call) -> Tensor:
    view, lead = call.view(), call.net.lead
    rank = view.rank - lead
    order = call.ints("perm")
    order = list(range(rank))[::-1] if order is None else order
    if sorted(order) != list(range(rank)):
        raise Refusal(f"has perm = {order} for a tensor with {rank} axes")
    return transposed(view, [*range(lead), *(axis + lead for axis in order)])


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Tensor:
    view = call.view()
    given = call.ints("axes", 1) or []
    rank = view.rank + len(given)
    new = {call.axis(axis, rank) for axis in given}
    rest = iter(view.axes)
    return replace(view, axes=tuple(() if at in new else next(rest, ()) for at in range(rank)))


@operator("Squeeze")
def _squeeze(call: Call) -> Tensor:
    view = call.view()
    given = call.ints("axes", 1)
    gone = [at for at, axis in enumerate(view.axes) if axis == ()] if given is None else []
    for axis in given or ():
        gone.append(call.axis(axis, view.rank))
        if view.axes[gone[-1]] == (BATCH,) and call.net.batch == 1:
            raise Refusal("takes the batch axis away")
        if view.axes[gone[-1]] != ():
            raise Refusal(f"takes away axis {axis} of a tensor of {call.net.sizes(view)}")
    return replace(view, axes=tuple(axis for at, axis in enumerate(view.axes) if at not in gone))


# Layers with weights ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Windows:
    """What convolutions and pools say of their windows, in two axes: (h, w) pairs, and padding as layers take it."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: Any


def _pair(call: Call, name: str, axes: int, default: tuple[int, ...]) -> tuple[int, int]:
    """An attribute of one or two numbers, a row's as one of height 1."""
    given = call.ints(name)
    values = list(default) if given is None else given
    if len(values) != axes:
        raise Refusal(f"has {name} = {values}, expected {axes} numbers")
    first, *rest = [1, *values] if axes == 1 else values
    return first, rest[0]


def _windows(call: Call, image: tuple[int, ...], axes: int, size: tuple[int, ...]) -> _Windows:
    """The windows over an image (H, W, ...); axes: one for a row, two for a map; size: what the weights say."""
    kernel = _pair(call, "kernel_shape", axes, size)
    stride = _pair(call, "strides", axes, (1,) * axes)
    dilation = _pair(call, "dilations", axes, (1,) * axes)
    if min(*kernel, *stride, *dilation) < 1:
        raise Refusal(f"has windows of {kernel} with strides {stride} and dilations {dilation}")
    return _Windows(kernel, stride, dilation, _plain_padding(_pads(call, image, axes, kernel, stride, dilation)))


Pads = tuple[tuple[int, int], tuple[int, int]]


def _pads(
    call: Call,
    image: tuple[int, ...],
    axes: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Pads:
    """((top, bottom), (left, right)), from `pads` or from what `auto_pad` asks for."""
    mode = call.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        around = []
        for extent_, window, step, spread in zip(image, kernel, stride, dilation, strict=False):
            wanted = max(0, (-(-extent_ // step) - 1) * step + spread * (window - 1) + 1 - extent_)
            less, more = wanted // 2, wanted - wanted // 2
            around.append((less, more) if mode == "SAME_UPPER" else (more, less))
        return around[0], around[1]
    if mode not in ("NOTSET", "VALID", ""):
        raise Refusal(f"has auto_pad = {mode}")
    given = call.ints("pads") if mode != "VALID" else None
    values = [0] * (2 * axes) if given is None else given
    if len(values) != 2 * axes:
        raise Refusal(f"has pads = {values}, expected {2 * axes} numbers")
    if axes == 1:
        return (0, 0), (values[0], values[1])
    return (values[0], values[2]), (values[1], values[3])


def _plain_padding(pads: Pads) -> Any:
    """Padding as one writes it for a layer: a number, a pair, or two pairs."""
    (top, bottom), (left, right) = pads
    if (top, left) != (bottom, right):
        return pads
    return top if top == left else (top, left)


def _plain(pair: tuple[int, int]) -> Any:
    """A pair as one writes it: one number where both are equal."""
    return pair[0] if pair[0] == pair[1] else pair


def _unless(default: Any, **settings: Any) -> dict[str, Any]:
    """The settings that are not the default."""
    return {name: value for name, value in settings.items() if value != default}


@operator("Conv")
def _conv(call: Call) -> Tensor:
    view, w, net = call.view(), call.weights(1), call.net
    axes = view.rank - 2
    x = net.image(view)
    if w.ndim != view.rank:
        raise Refusal(f"has weights of shape {w.shape} for a tensor with {view.rank} axes")
    windows = _windows(call, net.shape(x), axes, w.shape[2:])
    w = w[:, :, np.newaxis] if axes == 1 else w
    if windows.size != w.shape[2:]:
        raise Refusal(f"has kernel_shape = {windows.size}, weights of shape {w.shape}")
    padding, x = _with_pad_before(call, x, windows.padding)
    layer = call.layer(
        "Conv2d",
        w.shape[0],
        _plain(windows.size),
        bias=call.has(2),
        **_unless(1, stride=_plain(windows.stride), dilation=_plain(windows.dilation), groups=call.get("group", 1)),
        **_unless(0, padding=padding),
    )
    bias = {"b": call.weights(2)} if call.has(2) else {}
    return net.as_image(call.add(layer, x, w=layout.convolution_in(w), **bias), view.rank)


def _with_pad_before(call: Call, x: str, padding: Any) -> tuple[Any, str]:
    """A Pad of zeros that a convolution alone reads becomes its own padding."""
    net = call.net
    made = net.made.get(x)
    if made is None or type(made.layer).__name__ != "Pad2d" or not net.sole(x):
        return padding, x
    before: Any = made.layer
    if before.mode != "constant" or before.value != 0:
        return padding, x
    (top, bottom), (left, right) = _both_sides(padding)
    (more_top, more_bottom), (more_left, more_right) = _both_sides(before.padding)
    if min(more_top, more_bottom, more_left, more_right) < 0:
        return padding, x
    source = made.inputs[0]  # the node itself, now without a reader, falls away at the end
    return (
        _plain_padding(((top + more_top, bottom + more_bottom), (left + more_left, right + more_right))),
        source,
    )


def _both_sides(padding: Any) -> Pads:
    """Padding in any of its forms as ((top, bottom), (left, right))."""
    h, w = (padding, padding) if isinstance(padding, int) else padding
    return ((h, h) if isinstance(h, int) else h), ((w, w) if isinstance(w, int) else w)


@operator("ConvTranspose")
def _conv_transpose(call: Call) -> Tensor:
    view, w, net = call.view(), call.weights(1), call.net
    axes = view.rank - 2
    x = net.image(view)
    groups = call.get("group", 1)
    if w.ndim != view.rank:
        raise Refusal(f"has weights of shape {w.shape} for a tensor with {view.rank} axes")
    kernel = _pair(call, "kernel_shape", axes, w.shape[2:])
    stride, dilation = (_pair(call, name, axes, (1,) * axes) for name in ("strides", "dilations"))
    more = [0, *(call.ints("output_padding") or [0])] if axes == 1 else call.ints("output_padding") or [0, 0]
    w = w[:, :, np.newaxis] if axes == 1 else w
    image = net.shape(x)
    wanted = call.ints("output_shape")
    if wanted is None and call.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * step for size, step in zip(image, stride, strict=False)][-axes:]
    if wanted is None:
        pads = _pads(call, image, axes, kernel, stride, dilation)
    else:
        around = []
        for at, asked in enumerate([1, *wanted] if axes == 1 else wanted[-2:]):
            total = (image[at] - 1) * stride[at] + dilation[at] * (kernel[at] - 1) + 1 + more[at] - asked
            if total < 0:
                more[at], total = more[at] - total, 0
            less = total // 2
            upper = call.get("auto_pad", "NOTSET") == "SAME_UPPER"
            around.append((less, total - less) if upper else (total - less, less))
        pads = around[0], around[1]
    layer = call.layer(
        "ConvTranspose2d",
        w.shape[1] * groups,
        _plain(kernel),
        bias=call.has(2),
        **_unless(1, stride=_plain(stride), dilation=_plain(dilation), groups=groups),
        **_unless(0, padding=_plain_padding(pads), output_padding=_plain((more[0], more[1]))),
    )
    bias = {"b": call.weights(2)} if call.has(2) else {}
    return net.as_image(call.add(layer, x, w=layout.transposed_in(w), **bias), view.rank)


@operator("MatMul")
def _matmul(call: Call) -> Tensor:
    if call.has(1) and isinstance(call.inputs[1], View):
        raise Refusal("multiplies two tensors that are both computed")
    view, w, lead = call.view(), call.weights(1), call.net.lead
    row = view.rank - lead == 1 and w.ndim > 1  # as a matrix of one row, which is taken away again
    if row:
        view = replace(view, axes=(*view.axes[:-1], (), view.axes[-1]))
    if (more := w.ndim - (view.rank - lead)) > 0 and w.ndim > 2:
        if not lead:
            raise Refusal(f"multiplies a tensor of {call.net.sizes(view)} with one of more axes, shape {w.shape}")
        view = replace(view, axes=(*view.axes[:lead], *[()] * more, *view.axes[lead:]))
    product = _product(call, view, w, None)
    return replace(product, axes=(*product.axes[:-2], product.axes[-1])) if row else product


@operator("Gemm")
def _gemm(call: Call) -> Tensor:
    view, w = call.view(), call.weights(1)
    if call.get("transA", 0):
        view = transposed(view, [*range(view.rank - 2), view.rank - 1, view.rank - 2])
    w = w.T if call.get("transB", 0) else w
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    w = w if alpha == 1 else w * w.dtype.type(alpha)
    call.altered |= alpha != 1 or (beta != 1 and call.has(2))
    bias = None
    if call.has(2) and beta == 1 and isinstance(call.inputs[2], View):
        return _joined(call, "Add", [_product(call, view, w, None), call.view(2)])
    if call.has(2) and beta:
        c = call.weights(2) * call.weights(2).dtype.type(beta)
        if c.size not in (1, w.shape[-1]) or (c.ndim == 2 and c.shape[0] != 1):
            return _affine(call, _product(call, view, w, None), None, c)
        bias = np.broadcast_to(c.reshape(-1), w.shape[-1:])
    return _product(call, view, w, bias)


def _product(call: Call, view: View, w: np.ndarray, bias: np.ndarray | None) -> View:
    """The last axis times w (K, M): a linear layer, or a 1x1 convolution where there are places beside the batch."""
    net = call.net
    while w.ndim > 2 and w.shape[0] == 1:
        w = w[0]
    if w.ndim > 2 and bias is None:
        return _products(call, view, w)
    if w.ndim == 1:
        product = _product(call, view, w[:, np.newaxis], bias)
        return replace(product, axes=product.axes[:-1])
    if w.ndim != 2 or view.rank < 2 or BATCH in view.axes[-1]:
        raise Refusal(f"multiplies a tensor of {net.sizes(view)} with one of shape {w.shape}")
    inputs = view.axes[-1]
    if extent(inputs) != len(w):
        raise Refusal(f"multiplies {extent(inputs)} inputs with weights of shape {w.shape}")
    rest = tuple(atom for atom in view.memory if atom not in inputs)
    arrays = {} if bias is None else {"b": bias}
    outputs = axis_of(w.shape[1])
    if not rest:
        order = view.memory if net.renumbers(inputs, view) else inputs
        x = net.arranged(view, [order])
        call.altered |= order != inputs and not net.follows(inputs, view)
        w = _rows(w, inputs, order)
        node = call.add(call.layer("Linear", w.shape[1], bias=bias is not None), x, w=w, **arrays)
        return View(node, outputs, (*view.axes[:-1], outputs))
    tail = view.memory[len(view.memory) - len(inputs) :]
    if set(tail) == set(inputs) and not net.exact:
        call.altered |= tail != inputs
        w = _rows(w, inputs, tail)
    else:
        tail = inputs
    shape = net.shape(view.node)
    if tail != view.memory[len(rest) :] or len(shape) != 3 or shape[-1] != len(w):
        x = net.arranged(view, [rest, (), tail])
    else:
        x = view.node
    layer = call.layer("Conv2d", w.shape[1], 1, bias=bias is not None)
    node = call.add(layer, x, w=w.reshape(1, 1, *w.shape), **arrays)
    return View(node, (*rest, *outputs), (*view.axes[:-1], outputs))


def _products(call: Call, view: View, w: np.ndarray) -> View:
    """The last axis times w (B, ..., K, M), another matrix at each place of some axes: a convolution in as many groups.

    The axes of w before its last two are those of the tensor before its last two, from behind.
    """
    net = call.net
    *places, k, m = w.shape
    lead = view.axes[: view.rank - 2]
    if len(places) <= len(lead) and not any(lead[len(lead) - len(places) :]):  # each matrix meets the same rows
        kept = lead[: len(lead) - len(places)]
        together = w.reshape(-1, k, m).transpose(1, 0, 2).reshape(k, -1)
        product = _product(call, replace(view, axes=(*kept, *view.axes[-2:])), together, None)
        split = net.reshape(product, [*net.sizes(product)[:-1], *places, m])
        at, last = len(kept), len(kept) + len(places) + 1
        return transposed(split, [*range(at), *range(at + 1, last), at, last])
    own = lead[len(lead) - len(places) :]
    if len(places) > len(lead) or [extent(axis) for axis in own] != places or BATCH in flat([*own, *view.axes[-2:]]):
        raise Refusal(f"multiplies a tensor of {net.sizes(view)} with one of shape {w.shape}")
    if extent(view.axes[-1]) != k:
        raise Refusal(f"multiplies {extent(view.axes[-1])} inputs with weights of shape {w.shape}")
    apart = tuple(atom for atom in flat([*lead[: len(lead) - len(places)], view.axes[-2]]) if atom is not BATCH)
    x = net.arranged(view, [apart, (), flat([*own, view.axes[-1]])])
    groups, outputs = math.prod(places), axis_of(m)
    layer = call.layer("Conv2d", groups * m, 1, bias=False, groups=groups)
    spread = w.reshape(groups, k, m).transpose(1, 0, 2).reshape(1, 1, k, groups * m)
    node = call.add(layer, x, w=spread)
    return View(node, (*apart, *flat(own), *outputs), (*view.axes[:-1], outputs))


def _rows(w: np.ndarray, axis: Axis, memory: Axis) -> np.ndarray:
    """The rows of w, which the file numbers by an axis, in the order of the memory."""
    if axis == memory:
        return w
    place = {atom: at for at, atom in enumerate(axis)}
    order = [place[atom] for atom in memory]
    sizes = [atom.size for atom in axis]
    if w.ndim == 2 and w.flags.f_contiguous:  # (M, K) in the file: three times as fast within its rows
        return w.T.reshape(-1, *sizes).transpose(0, *(at + 1 for at in order)).reshape(w.T.shape).T
    spread = w.reshape(*sizes, *w.shape[1:])
    return spread.transpose(*order, *range(len(axis), spread.ndim)).reshape(w.shape)


# Normalisation ------------------------------------------------------------------------------------------------------


def _channels(call: Call, view: View) -> tuple[View, Callable[[np.ndarray], np.ndarray]]:
    """The tensor on a node whose last axis is the file's axis 1, and how that axis's vectors are brought into order."""
    net = call.net
    if view.rank < 2 + net.lead:
        raise Refusal(f"takes a tensor of {call.sizes(view)}")
    axis = view.axes[call.axis(1, view.rank)]
    if BATCH in axis:
        raise Refusal(f"takes a tensor of {call.sizes(view)}")
    tail = net.own_axes(view)[-1] if net.shape(view.node) else ()
    other = tail != axis if net.exact else set(tail) != set(axis)
    if other or net.shape(view.node)[-1] != extent(axis):
        at = 1 + net.lead
        order = CHANNELS_LAST.get(view.rank) if at == 1 else None
        groups = net.groups(view, order or (*range(at), *range(at + 1, view.rank), at))
        view, tail = replace(view, node=net.arranged(view, groups), memory=flat(groups)), axis
    call.altered |= tail != axis
    return view, lambda vector: _rows(vector, axis, tail)


@operator("BatchNormalization")
def _batch_normalization(call: Call) -> Tensor:
    if call.get("training_mode", 0) or (call.opset < 7 and not call.get("is_test", 0)):
        if call.net.lead:  # the file's batch is an axis of one sample here, and its statistics that sample's
            return _by_its_own_statistics(call, call.view())
        raise Refusal("normalises by the batch's own statistics, as in training; export the network for inference")
    if call.get("spatial", 1) != 1:
        raise Refusal("normalises every place on its own (spatial = 0)")
    view, in_order = _channels(call, call.view())
    gamma, beta, mean, var = (in_order(call.weights(at)) for at in range(1, 5))
    momentum = min(1.0, max(0.0, round(1 - call.get("momentum", 0.9), 7)))
    layer = call.layer(
        "BatchNorm",
        **_eps(call),
        **_unless(0.1, momentum=momentum),
    )
    node = call.add(layer, view.node, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    return replace(view, node=node)


@operator("InstanceNormalization")
def _instance_normalization(call: Call) -> Tensor:
    call.net.check_batch()
    return _by_its_own_statistics(call, call.view())


def _by_its_own_statistics(call: Call, view: View) -> View:
    view, in_order = _channels(call, view)
    gamma, beta = (in_order(call.weights(at)) for at in (1, 2))
    layer = call.layer("InstanceNorm", **_eps(call))
    return replace(view, node=call.add(layer, view.node, gamma=gamma, beta=beta))


@operator("GroupNormalization")
def _group_normalization(call: Call) -> Tensor:
    call.net.check_batch()
    view, in_order = _channels(call, call.view())
    groups = call.get("num_groups", 1)
    channels = extent(view.axes[1])
    gamma, beta = (call.weights(at) for at in (1, 2))
    if call.opset < 21:  # one a group, then
        gamma, beta = (np.repeat(each, channels // max(1, len(each))) for each in (gamma, beta))
    layer = call.layer("GroupNorm", groups, **_eps(call))
    return replace(view, node=call.add(layer, view.node, gamma=in_order(gamma), beta=in_order(beta)))


@operator("LayerNormalization")
def _layer_normalization(call: Call) -> Tensor:
    view, net = call.view(), call.net
    first = call.axis(call.get("axis", -1), view.rank)
    over = flat(view.axes[first:])
    if BATCH in over or not over:
        raise Refusal(f"normalises a tensor of {net.sizes(view)} from axis {first} on")
    own = net.own_axes(view)
    starts = [at for at in range(len(own)) if set(flat(own[at:])) == set(over)]
    if not starts:  # the statistics take any order of what they go over, but nothing else may lie in between
        rest = tuple(atom for atom in view.memory if atom not in over)
        view = replace(view, node=net.arranged(view, [rest, over] if rest else [over]), memory=(*rest, *over))
        own = net.own_axes(view)
        starts = [len(own) - 1]
    start = starts[-1]
    shape = net.shape(view.node)[start:]
    call.altered |= flat(own[start:]) != over and not net.follows(over, view)
    arrays = []
    for at, missing in ((1, 1.0), (2, 0.0)):
        given = call.weights(at) if call.has(at) else np.full(1, missing, call.weights(1).dtype)
        arrays.append(np.broadcast_to(net.operand(given, view), net.shape(view.node))[(0,) * start])
    axes = tuple(range(start + 1, len(own) + 1))
    layer = call.layer("LayerNorm", **_unless(-1, axes=-1 if len(axes) == 1 else axes), **_eps(call))
    node = call.add(layer, view.node, gamma=arrays[0].reshape(shape), beta=arrays[1].reshape(shape))
    return replace(view, node=node)


def _eps(call: Call) -> dict[str, float]:
    return _unless(1e-5, eps=call.get("epsilon", 1e-5))


@operator("LRN")
def _lrn(call: Call) -> Tensor:
    view, net = call.view(), call.net
    layer = call.layer(
        "LocalResponseNorm",
        call.get("size", 0),
        alpha=call.get("alpha", 1e-4),
        beta=call.get("beta", 0.75),
        bias=call.get("bias", 1.0),
    )
    return net.as_image(call.add(layer, net.image(view)), view.rank)


# Pools and means ----------------------------------------------------------------------------------------------------


@operator("MaxPool", "AveragePool")
def _pool(call: Call) -> Tensor:
    view, net = call.view(), call.net
    axes = view.rank - 2
    if call.ints("kernel_shape") is None:
        raise Refusal("lacks kernel_shape")
    if axes > 2:
        return _pooled_along_few(call, view)
    x = net.image(view)
    windows = _windows(call, net.shape(x), axes, ())
    average = call.node.operator == "AveragePool"
    counts_padding = not average or not windows.padding or bool(call.get("count_include_pad", 0))
    layer = call.layer(
        "AvgPool2d" if average else "MaxPool2d",
        _plain(windows.size),
        None if windows.stride == windows.size else _plain(windows.stride),
        _needed_padding(windows, net.shape(x)),
        **_unless(1, dilation=_plain(windows.dilation)),
        **_unless(False, ceil_mode=bool(call.get("ceil_mode", 0))),
        **_unless(True, count_include_pad=counts_padding),
    )
    return net.as_image(call.add(layer, x), view.rank)


def _pooled_along_few(call: Call, view: View) -> Tensor:
    """A pool over three axes or more, whose windows are more than one place along two of them at most.

    The other axes are channels. PyTorch's exporter writes its local response normalisation so.
    """
    net, count = call.net, view.rank - 2
    net.check_batch()
    sizes = {name: call.ints(name) or [1] * count for name in ("kernel_shape", "strides", "dilations")}
    pads = call.ints("pads") or [0] * (2 * count)
    if any(len(given) != count for given in sizes.values()) or len(pads) != 2 * count:
        raise Refusal(f"has {' and '.join(f'{name} = {given}' for name, given in sizes.items())} and pads = {pads}")
    plain = list(zip(sizes["kernel_shape"], sizes["strides"], pads[:count], pads[count:], strict=True))
    along = [at for at, each in enumerate(plain) if each != (1, 1, 0, 0)] or [0]
    if len(along) > 2:
        raise Refusal(f"has {count} axes of space, expected one or two")
    others = [at for at in range(count) if at not in along]
    told = {name: tuple(given[at] for at in along) for name, given in sizes.items()}
    told["pads"] = tuple(pads[at + side] for side in (0, count) for at in along)
    # Pads are none where auto_pad finds them.
    node = replace(call.node, attributes={**call.node.attributes, **told})
    channels = flat([view.axes[at] for at in (1, *(at + 2 for at in others))])
    few = replace(view, axes=(view.axes[0], channels, *(view.axes[at + 2] for at in along)))
    pooled = _pool(replace(call, node=node, inputs=[few]))
    assert isinstance(pooled, View)
    before, after = net.sizes(view), net.sizes(pooled)
    split = net.reshape(pooled, [after[0], before[1], *(before[at + 2] for at in others), *after[2:]])
    return transposed(split, [0, 1, *((*others, *along).index(at) + 2 for at in range(count))])


def _needed_padding(windows: _Windows, image: tuple[int, ...]) -> Any:
    """The padding, without what no window reaches, where a window would lie in it as a whole.

    PyTorch's exporter wrote ceil mode so before ONNX had it.
    """
    around = []
    for at, (before, after) in enumerate(_both_sides(windows.padding)):
        reach = windows.dilation[at] * (windows.size[at] - 1) + 1
        count = (image[at] + before + after - reach) // windows.stride[at] + 1
        needed = (count - 1) * windows.stride[at] + reach - image[at] - before
        around.append((before, max(0, needed) if after >= windows.size[at] else after))
    return _plain_padding((around[0], around[1]))


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Tensor:
    view, net = call.view(), call.net
    rank = view.rank
    if rank > 4:
        view = replace(view, axes=(*view.axes[:2], flat(view.axes[2:])))
    layer = layers.GlobalMaxPool2d() if "Max" in call.node.operator else layers.GlobalAvgPool2d()
    node = call.add(layer, net.image(view))
    channels = axis_of(net.shape(node)[0])
    return View(node, channels, ((BATCH,), channels, *[()] * (rank - 2)))


@operator("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def _sum(call: Call) -> Tensor:
    """The mean of n numbers, n times; of their sizes or squares, and a function of that."""
    view, kind = call.view(), call.node.operator
    if kind == "ReduceL1":
        view = call.elementwise(layers.Abs(), view)
    elif kind in ("ReduceL2", "ReduceSumSquare"):
        view = replace(view, node=call.add(layers.Multiply(), view.node, view.node))
    mean = _reduced(call, view)
    before, after = (math.prod(call.net.shape(each.node)) for each in (view, mean))
    count = before // after
    total = mean if count == 1 else _affine(call, mean, np.full(1, count, np.float32), None)
    outer = {"ReduceL2": layers.Sqrt, "ReduceLogSum": layers.Log}.get(kind)
    return call.elementwise(outer(), total) if outer else total


@operator("Tile")
def _tile(call: Call) -> Tensor:
    view = call.view()
    times = folding.integers(call.array(1))
    if len(times) != view.rank - call.net.lead or min(times, default=1) < 1 or max(times, default=1) > MAX_RUNS:
        raise Refusal(f"repeats {times} times a tensor of {call.sizes(view)}")
    for axis, count in enumerate(times, call.net.lead):
        view = _side_by_side(call, [view] * count, axis) if count > 1 else view
    return view


@operator("Expand")
def _expand(call: Call) -> Tensor:
    view, net = call.view(), call.net
    wanted = folding.sizes(call.array(1))
    sizes = call.sizes(view)
    more = len(wanted) - len(sizes)
    if more > 0 and net.lead:
        view = replace(view, axes=(*view.axes[: net.lead], *[()] * more, *view.axes[net.lead :]))
        sizes = call.sizes(view)
    elif more > 0:
        raise Refusal(f"makes {wanted} of a tensor of {sizes}")
    aligned = itertools.chain([1] * -more, wanted)
    for axis, (size, asked) in enumerate(zip(sizes, aligned, strict=True), net.lead):
        if asked in (1, size) or (axis == 0 and asked == net.batch):
            continue
        if size != 1 or not isinstance(asked, int) or not 1 < asked <= MAX_RUNS:
            raise Refusal(f"makes {wanted} of a tensor of {sizes}")
        view = _side_by_side(call, [view] * asked, axis)
    return view


@operator("ReduceMean", "ReduceMax")
def _reduce(call: Call) -> Tensor:
    return _reduced(call, call.view())


@operator("ReduceMin")
def _reduce_min(call: Call) -> Tensor:
    return _least_as_largest(call, [call.view()], lambda call, views: _reduced(call, *views))


def _reduced(call: Call, view: View) -> View:
    """The mean over some axes, or the largest where the operator's name says so."""
    net, mean = call.net, call.node.operator not in ("ReduceMax", "ReduceMin")
    given = call.ints("axes", 1)
    if not given and call.get("noop_with_empty_axes", 0):
        return view
    over = sorted({call.axis(axis, view.rank) for axis in given or range(view.rank - net.lead)})
    if any(BATCH in view.axes[at] for at in over):
        raise Refusal("works along the batch")
    kept = [() if at in over else axis for at, axis in enumerate(view.axes)]
    axes = tuple(kept if call.get("keepdims", 1) else [axis for at, axis in enumerate(kept) if at not in over])
    atoms = {atom for at in over for atom in view.axes[at]}
    if not atoms:
        return replace(view, axes=axes)
    own = net.own_axes(view)
    gone = [at for at, axis in enumerate(own, 1) if axis and set(axis) <= atoms]
    if {atom for at in gone for atom in own[at - 1]} != atoms:
        order = net.orders(view)
        groups = net.groups(view, order)
        view = replace(view, node=net.arranged(view, groups), memory=flat(groups))
        gone = [at for at, axis in enumerate(groups, 1) if axis and set(axis) <= atoms]
    rest = tuple(atom for atom in view.memory if atom not in atoms)
    if len(net.shape(view.node)) == 3 and _covers(net, view, gone):
        layer: Layer = layers.GlobalAvgPool2d() if mean else layers.GlobalMaxPool2d()
    elif mean:
        layer = call.layer("Mean", gone[0] if len(gone) == 1 else tuple(gone))
    else:
        groups = net.around(view, tuple(atom for atom in view.memory if atom in atoms))
        layer = call.layer("MaxPool2d", (1, extent(groups[1])))
        view = replace(view, node=net.arranged(view, groups))
    return View(call.add(layer, view.node), rest, axes)


def _covers(net: Translation, view: View, gone: Sequence[int]) -> bool:
    """Whether these are the two axes of a map, apart from those of size 1."""
    shape = net.shape(view.node)
    return all(at in gone or shape[at - 1] == 1 for at in (1, 2)) and 3 not in gone


# Arithmetic ---------------------------------------------------------------------------------------------------------


def _by_channel(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """One number, or one for each place of the last axis, as a vector of that axis; None for any other operand."""
    if any(size != 1 for size in array.shape[:-1]) or not shape:
        return None
    return np.broadcast_to(array.reshape(-1), shape[-1:])


def _floating(array: np.ndarray) -> np.ndarray:
    if array.dtype == object:
        raise Refusal("computes with the batch size")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _affine(call: Call, view: View, scale: np.ndarray | None, shift: np.ndarray | None) -> View:
    """scale x + shift by constants that broadcast: part of the layer before where it can be, or a layer of its own."""
    net = call.net
    view = _with_an_axis(net, view)
    shape = net.shape(view.node)
    scale, shift = (None if each is None else net.operand(_floating(each), view) for each in (scale, shift))
    vectors = [None if each is None else _by_channel(each, shape) for each in (scale, shift)]
    made = net.made.get(view.node)
    by_channel = all((given is None) == (vector is None) for given, vector in zip((scale, shift), vectors, strict=True))
    mergeable = by_channel and not net.exact
    if mergeable and made is not None and net.sole(view.node) and _absorbed(made, *vectors):
        # What was multiplied by two and then by a half has come to nothing.
        return replace(view, node=made.inputs[0]) if _is_affine(made, 1.0, None) else view
    given = {name: each for name, each in (("gamma", scale), ("beta", shift)) if each is not None}
    size = shape[-1:] if by_channel else np.broadcast_shapes(*(each.shape for each in given.values()))
    settings = {"scale": scale is not None, "bias": shift is not None, "shape": None if by_channel else tuple(size)}
    layer = call.layer("Affine", **_unless(True, **_unless(None, **settings)))
    arrays = {name: _spread(each, size) for name, each in given.items()}
    return replace(view, node=call.add(layer, view.node, **arrays))


def _with_an_axis(net: Translation, view: View) -> View:
    """A tensor on a node whose output has an axis for a layer's arrays: one of size 1 where a sample is one number."""
    return view if net.shape(view.node) else replace(view, node=net.reshaped(view.node, (1,)))


def _spread(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """An operand of as many axes as `size` or more, those before of size 1, in that size."""
    return np.broadcast_to(array.reshape(array.shape[array.ndim - len(size) :]), size)


def _absorbed(made: Made, scale: np.ndarray | None, shift: np.ndarray | None) -> bool:
    """Whether a layer took scale and shift by channel into its own arrays."""
    layer: Any = made.layer
    arrays = made.arrays
    if isinstance(layer, layers.BatchNorm) or (isinstance(layer, layers.Affine) and layer.shape is None):
        weight, bias = "gamma", "beta"
    elif isinstance(layer, (layers.Linear, layers.Conv2d)):
        weight, bias = "w", "b"
    else:
        return False
    made.altered |= scale is not None or bias in arrays
    if scale is not None:
        if weight not in arrays:
            layer, arrays[weight] = replace(layer, scale=True), np.ones_like(scale)
        arrays[weight] = arrays[weight] * scale
        if bias in arrays:
            arrays[bias] = arrays[bias] * scale
    if shift is not None:
        if bias in arrays:
            arrays[bias] = arrays[bias] + shift
        else:
            layer, arrays[bias] = replace(layer, bias=True), shift
    made.layer = layer
    return True


def _is_affine(made: Made | None, scale: float | None, shift: float | None) -> bool:
    """Whether a node multiplies everything by one number and adds another; None stands for none."""
    if made is None or not isinstance(made.layer, layers.Affine):
        return False
    for key, number in (("gamma", scale), ("beta", shift)):
        array = made.arrays.get(key)
        if array is None or number is None:
            if array is not None or number is not None:
                return False
        elif not np.allclose(array, number, 1e-6, 0):
            return False
    return True


@operator("Add", "Sum")
def _add(call: Call) -> Tensor:
    views = [each for each in call.inputs if isinstance(each, View)]
    constants = [each for each in call.inputs if isinstance(each, np.ndarray)]
    if not views:
        raise Refusal("adds constants")
    view = views[0] if len(views) == 1 else _joined(call, "Add", views)
    for constant in constants:
        view = _affine(call, view, None, _legacy(call, constant, view))
    return view


@operator("Mean")
def _mean(call: Call) -> Tensor:
    total = _add(call)
    assert isinstance(total, View)
    return _affine(call, total, np.full(1, 1 / len(call.inputs), np.float32), None)


def _legacy(call: Call, constant: np.ndarray, view: View) -> np.ndarray:
    """A constant as versions below 7 align it: from `axis` on, if there is `broadcast`."""
    if call.opset >= 7 or not call.get("broadcast", 0) or "axis" not in call.node.attributes:
        return constant
    after = view.rank - call.axis(call.get("axis"), view.rank) - constant.ndim
    return constant.reshape(constant.shape + (1,) * max(0, after))


@operator("Sub")
def _sub(call: Call) -> Tensor:
    a, b = call.inputs[:2]
    if isinstance(a, View) and isinstance(b, View):
        return _joined(call, "Subtract", [a, b])
    if isinstance(b, np.ndarray):
        return _affine(call, call.view(), None, -_floating(_legacy(call, b, call.view())))
    view = call.view(1)
    return _affine(call, view, np.full(1, -1, np.float32), _floating(call.array(0)))


@operator("Mul")
def _mul(call: Call) -> Tensor:
    a, b = call.inputs[:2]
    if isinstance(a, View) and isinstance(b, View):
        return _gated(call, a, b) or _gated(call, b, a) or _joined(call, "Multiply", [a, b])
    view, constant = (call.view(0), call.array(1)) if isinstance(a, View) else (call.view(1), call.array(0))
    return _affine(call, view, _legacy(call, constant, view), None)


@operator("Div")
def _div(call: Call) -> Tensor:
    a, b = call.inputs[:2]
    if isinstance(a, View) and isinstance(b, View):
        return _joined(call, "Divide", [a, b])
    if isinstance(b, np.ndarray):
        divisor = _floating(_legacy(call, b, call.view()))
        if not np.all(divisor):
            raise Refusal("divides by zero")
        return _affine(call, call.view(), 1 / divisor, None)
    view = call.view(1)
    return _affine(call, call.elementwise(call.layer("Reciprocal"), view), _floating(call.array(0)), None)


def _gated(call: Call, x: View, gate: View) -> View | None:
    """x times a function of x that is a layer as a whole; None where it is none."""
    net = call.net
    made = net.made.get(gate.node)
    if made is None or not net.sole(gate.node) or (gate.memory, gate.axes) != (x.memory, x.axes):
        return None
    if made.inputs != (x.node,):
        return _written_out(call, x, gate)
    if isinstance(made.layer, layers.Sigmoid):
        made.layer = layers.SiLU()
        return gate
    if type(made.layer).__name__ == "HardSigmoid" and np.allclose([*vars(made.layer).values()], [1 / 6, 0.5], 1e-6, 0):
        made.layer = call.layer("HardSwish")
        return gate
    return None


def _written_out(call: Call, x: View, gate: View) -> View | None:
    """GELU and HardSwish as versions without an operator for them spell them out; None for anything else."""
    net = call.net
    chain: list[Made] = []
    node = gate.node
    while len(chain) < 3 and node in net.made and net.made[node].inputs and (not chain or net.read(node) == 1):
        chain.append(net.made[node])
        node = chain[-1].inputs[0]
    if len(chain) < 3:
        return None
    first, second, third = chain
    erf = isinstance(second.layer, layers.Erf) and _is_affine(first, None, 1.0) and _is_affine(third, 0.5**0.5, None)
    if erf and node == x.node:  # x (1 + erf(x / √2)) is twice the function
        return _affine(call, call.elementwise(layers.GELU(), x), np.full(1, 2, np.float32), None)
    half = net.made.get(x.node)
    if erf and _is_affine(half, 0.5, None) and half is not None and half.inputs == (node,) and net.sole(x.node):
        return call.elementwise(layers.GELU(), replace(x, node=node))
    clip = second.layer == layers.Clip(0.0, 6.0) and _is_affine(first, 1 / 6, None) and _is_affine(third, None, 3.0)
    return call.elementwise(layers.HardSwish(), x) if clip and node == x.node else None


def _joined(call: Call, name: str, views: list[View]) -> View:
    """A layer over tensors that broadcast to one shape."""
    net = call.net
    first = views[0]
    if all(net.signature(view) == net.signature(first) for view in views):
        return replace(first, node=call.add(call.layer(name), *(view.node for view in views)))
    order = net.orders(*views)
    node = call.add(call.layer(name), *(net.in_order(view, order) for view in views))
    return _in_file_order(net, node, order)


def _in_file_order(net: Translation, node: str, order: Sequence[int]) -> View:
    """The whole output of a node, whose axes are the file's in this order."""
    back = [order.index(axis) for axis in range(len(order))]
    return fresh(node, net.shape(node), back)


@operator("Concat")
def _concat(call: Call) -> Tensor:
    views = [call.view(at) for at in range(len(call.inputs))]
    if len(views) == 1:
        return views[0]
    rank = max(view.rank for view in views)
    if any(view.rank != rank for view in views):
        raise Refusal("joins tensors of different ranks")
    return _side_by_side(call, views, call.axis(call.get("axis", 1), rank))


def _side_by_side(call: Call, views: list[View], axis: int) -> View:
    """Tensors of one rank joined along one of the file's axes."""
    net, rank = call.net, views[0].rank
    if axis == 0:
        raise Refusal("joins along the batch")
    order = net.orders(*views)
    own = order.index(axis)
    layer = layers.Concat() if own == rank - 1 else call.layer("Concat", axis=own)
    return _in_file_order(net, call.add(layer, *(net.in_order(view, order) for view in views)), order)


@operator("Slice")
def _slice(call: Call) -> Tensor:
    view, net = call.view(), call.net
    given = [call.array(at) if call.has(at) else None for at in range(1, len(call.inputs))]
    taken = folding.slices([None, *given], call.node.attributes, call.sizes(view))
    for axis, part in enumerate(taken, net.lead):
        size = net.sizes(view)[axis]
        if part == slice(None) or (part.start == 0 and part.step in (None, 1) and _at_end(part.stop, size)):
            continue
        if BATCH in view.axes[axis] or not isinstance(size, int):
            raise Refusal("takes a part of the batch")
        start, stop, step = part.indices(size)
        view = _taken(call, view, axis, start, stop, step)
    return view


def _at_end(stop: Any, size: Any) -> bool:
    return isinstance(stop, int) and stop >= (size if isinstance(size, int) else 1 << 30)


def _taken(call: Call, view: View, axis: int, start: int, stop: int, step: int = 1) -> View:
    """A part of one of the file's axes."""
    net = call.net
    if (start, stop, step) == (0, extent(view.axes[axis]), 1):
        return view
    if len(range(start, stop, step)) == 0:
        raise Refusal(f"takes nothing of an axis ({start}:{stop}:{step})")
    order = net.orders(view)
    own = order.index(axis)
    layer = call.layer("Slice", axis=own, start=start, stop=None if stop < 0 else stop, **_unless(1, step=step))
    return _in_file_order(net, call.add(layer, net.in_order(view, order)), order)


@operator("Split")
def _split(call: Call) -> list[Tensor]:
    view = call.view()
    axis = call.axis(call.get("axis", 0), view.rank)
    if BATCH in view.axes[axis]:
        raise Refusal("works along the batch")
    size = extent(view.axes[axis])
    parts = call.ints("split", 1)
    if parts is None:
        count = call.get("num_outputs", len(call.node.outputs))
        if not 1 <= count <= size:
            raise Refusal(f"splits an axis of {size} into {count}")
        each = -(-size // count)
        parts = [min(each, size - each * at) for at in range(count)]
    if sum(parts) != size or min(parts) < 1:
        raise Refusal(f"splits an axis of {size} into {parts}")
    ends = np.cumsum(parts).tolist()
    return [
        _taken(call, view, axis, end - part, end) if name else np.empty(0)
        for part, end, name in zip(parts, ends, call.node.outputs, strict=False)
    ]


@operator("Gather")
def _gather(call: Call) -> Tensor:
    view, at = call.view(), call.array(1)
    axis = call.axis(call.get("axis", 0), view.rank)
    if BATCH in view.axes[axis]:
        raise Refusal("picks samples of the batch")
    size = extent(view.axes[axis])
    picked = [index + size if index < 0 else index for index in folding.integers(at)]
    if not picked or min(picked) < 0 or max(picked) >= size:
        raise Refusal(f"picks {picked[:8]} of an axis of {size}")
    starts = [place for place in range(len(picked)) if place == 0 or picked[place] != picked[place - 1] + 1]
    runs = [picked[start:end] for start, end in itertools.pairwise([*starts, len(picked)])]
    if len(runs) > MAX_RUNS:
        raise Refusal(f"picks {len(runs)} parts of an axis, expected at most {MAX_RUNS}")
    parts = [_taken(call, view, axis, run[0], run[-1] + 1) for run in runs]
    part = parts[0] if len(parts) == 1 else _side_by_side(call, parts, axis)
    if at.ndim == 1:
        return part
    sizes = call.net.sizes(part)
    return call.net.reshape(part, [*sizes[:axis], *at.shape, *sizes[axis + 1 :]])


MAX_RUNS = 64
"""Parts of which a Gather is put together."""


@operator("Pad")
def _pad(call: Call) -> Tensor:
    view, net = call.view(), call.net
    pads = call.ints("pads", 1) or call.ints("paddings") or []
    told = folding.integers(call.array(3)) if call.has(3) else range(view.rank)
    axes = [call.axis(each, view.rank) for each in told]
    if len(pads) != 2 * len(axes):
        raise Refusal(f"has pads = {pads} for {len(axes)} axes")
    around = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    asked = {axis for axis, both in around.items() if both != (0, 0)}
    if not asked:
        return view
    mode = call.get("mode", "constant")
    value = call.scalar(2) if call.has(2) else call.get("value", 0.0)
    if view.rank not in (3, 4) or not asked <= set(range(2, view.rank)):
        for axis in sorted(asked):
            view = _padded(call, view, axis, around[axis], mode, value)
        return view
    both = [around.get(axis, (0, 0)) for axis in range(2, view.rank)]
    pads2 = ((0, 0), both[0]) if view.rank == 3 else (both[0], both[1])
    layer = call.layer("Pad2d", pads2, **_unless("constant", mode=mode), **_unless(0.0, value=value))
    return net.as_image(call.add(layer, net.map(view)), view.rank)


def _padded(call: Call, view: View, axis: int, both: tuple[int, int], mode: str, value: float) -> View:
    """Places before and behind one of the file's axes."""
    net = call.net
    if BATCH in view.axes[axis]:
        raise Refusal("pads the batch")
    groups = net.around(view, view.axes[axis])
    layer = call.layer("Pad2d", ((0, 0), both), **_unless("constant", mode=mode), **_unless(0.0, value=value))
    node = call.add(layer, net.arranged(view, groups))
    longer = axis_of(net.shape(node)[1])
    axes = (*view.axes[:axis], longer, *view.axes[axis + 1 :])
    return View(node, (*groups[0], *longer, *groups[2]), axes)


@operator("Resize", "Upsample")
def _resize(call: Call) -> Tensor:
    view, net = call.view(), call.net
    mode = call.get("mode", "nearest")
    sizes = call.sizes(view)
    if mode != "nearest" or view.rank != 4 or not all(isinstance(size, int) for size in sizes[1:]):
        raise Refusal(f"resizes by {mode}, expected nearest over images")
    told = folding.integers(call.array(3)) if call.has(3) else None
    at = 2 if call.node.operator == "Resize" and call.opset > 10 else 1
    axes = call.ints("axes") or list(range(4))
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch" or sorted(axes) not in ([2, 3], [0, 1, 2, 3]):
        raise Refusal("resizes by a rule of its own")
    scales = np.ones(4)
    scales[axes] = np.ravel(call.array(at)) if told is None else told
    if told is not None:
        scales[1:] /= np.where(np.isin([1, 2, 3], axes), np.array(sizes[1:], float), 1)
    factors = []
    for axis in range(1, 4):
        size = sizes[axis]
        assert isinstance(size, int)
        wanted = round(float(scales[axis]) * size, 6)
        if wanted < size or wanted % size or not _repeats(call, size, int(wanted) // size):
            raise Refusal(f"makes {wanted:g} places of {size}, expected each repeated as often")
        factors.append(int(wanted) // size)
    if factors[0] != 1:
        raise Refusal("resizes the channels")
    if factors == [1, 1, 1]:
        return view
    layer = call.layer("Upsample2d", _plain((factors[1], factors[2])))
    return net.as_image(call.add(layer, net.image(view)))


def _repeats(call: Call, size: int, factor: int) -> bool:
    """Whether the nearest of the file's rule is, for every place, the one that is repeated there."""
    if size * factor > 1 << 20:
        return False
    at = np.arange(size * factor)
    # Versions below 11 knew one rule.
    rule = call.get("coordinate_transformation_mode", "half_pixel") if call.opset > 10 else "asymmetric"
    nearest = call.get("nearest_mode", "round_prefer_floor") if call.opset > 10 else "floor"
    if rule == "align_corners" and size * factor > 1:
        source = at * (size - 1) / (size * factor - 1)
    else:
        source = at / factor if rule == "asymmetric" else (at + 0.5) / factor - 0.5
    rounds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if nearest not in rounds or rule not in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
        return False
    return bool(np.array_equal(np.clip(rounds[nearest](source), 0, size - 1), at // factor))
