"""Layers: configuration, shape inference, and how each is written as kernel calls. No arrays, no backend.

A layer is a frozen dataclass. `lower` writes its forward calls into a plan and returns the output together with a
function that, given the output's gradient, writes the backward calls and returns the input's gradient. A layer of
your own subclasses `Layer` and does the same; docs/extend.md has a full example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np

from kernels import shapes
from kernels.shapes import Padding, Pair, Shape

from .builder import Backward, PlanBuilder
from .init import Constant, HeNormal, Initialiser, Zeros
from .plan import BATCH, STEP, Value
from .settings import Settings

_ONE = Constant(1.0)

Lowered = tuple[Value, Backward | None]


@dataclass(frozen=True)
class Parameter:
    """A parameter or a running statistic of a layer: its shape and how it starts."""

    shape: tuple[int, ...]
    init: Initialiser


class Layer(Settings):
    """Base of all layers. Shapes have the batch axis "N" first.

    A subclass names its inputs where `*x` stands here: `def lower(self, plan, p, x)`. `**_` is never given: it is there
    for type checkers, which then take any such signature.
    """

    arity: int = 1
    """Number of inputs; 0 stands for two or more."""

    follows: ClassVar[str] = ""
    """What PyTorch is told first and here follows from the layer before."""

    def __new__(cls, *given: Any, **_: Any) -> Self:
        settings = [f for f in getattr(cls, "__dataclass_fields__", {}).values() if f.init]
        placed = [f.name for f in settings if not f.kw_only]
        if len(given) > len(placed):
            expected = ", ".join([*placed, *(f"{f.name}=" for f in settings if f.kw_only)])
            hint = f"; {cls.follows} follows from the layer before" if cls.follows else ""
            raise TypeError(f"{cls.__name__}({', '.join(map(repr, given))}): expected {cls.__name__}({expected}){hint}")
        return super().__new__(cls)

    def parameters(self, *x: Any, **_: Any) -> Mapping[str, Parameter]:
        """The trained arrays, given the inputs' shapes."""
        return {}

    def statistics(self, *x: Any, **_: Any) -> Mapping[str, Parameter]:
        """The arrays that training updates without gradients, such as running means."""
        return {}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Any, **_: Any) -> Lowered:
        """Write the forward calls; return the output and the function that writes the backward calls.

        `p` holds the parameters and statistics as values, by name.
        """
        raise TypeError(f"layer {type(self).__name__} does not define lower")

    def __str__(self) -> str:
        """The layer as one would write it: fields at their default left out."""
        shown = []
        for name, setting in getattr(self, "__dataclass_fields__", {}).items():
            value = getattr(self, name)
            if setting.default is dataclasses.MISSING:
                shown.append(str(value))
            elif value != setting.default:
                shown.append(f"{name}={value}")
        return f"{type(self).__name__}({', '.join(shown)})"


# Layers with weights -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear(Layer):
    """y = x w + b with `outputs` units; x (N, K), w (K, outputs), b (outputs,)."""

    outputs: int
    bias: bool = field(default=True, kw_only=True)
    init: Initialiser = field(default=HeNormal(), kw_only=True)
    follows = "in_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("Linear", "outputs", self.outputs, 1)
        _check_weights(self)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        shapes.rank("Linear", "x", x, 2, "samples, inputs; put Flatten() before it")
        arrays = {"w": Parameter((int(x[1]), self.outputs), self.init)}
        return arrays | ({"b": Parameter((self.outputs,), Zeros())} if self.bias else {})

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        b = p.b if self.bias else None
        d = shapes.linear(x.shape, p.w.shape, None)
        y = plan.value("y", (BATCH, d.m))
        plan.call("linear", x, p.w, b, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("linear_backward", dy, x, p.w, d, dx, plan.gradient(p.w), plan.gradient(b))
            return dx

        return y, backward


@dataclass(frozen=True)
class Conv2d(Layer):
    """A convolution with `filters` filters of `size`; x (N, H, W, C), w (KH, KW, C / groups, filters).

    padding: an int, an (h, w) pair, ((top, bottom), (left, right)), or "same" for ⌈size / stride⌉ outputs, an odd place
    of padding at the end, or "same_lower", at the beginning.
    """

    filters: int
    size: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    init: Initialiser = field(default=HeNormal(), kw_only=True)
    follows = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("Conv2d", "filters", self.filters, 1)
        shapes.integer("Conv2d", "groups", self.groups, 1)
        for name in ("size", "stride", "dilation"):
            shapes.pair("Conv2d", name, getattr(self, name), 1)
        shapes.sides("Conv2d", self.padding)
        _check_weights(self)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        shapes.rank("Conv2d", "x", x, 4, "samples, height, width, channels")
        kh, kw = shapes.pair("Conv2d", "size", self.size, 1)
        arrays = {"w": Parameter((kh, kw, int(x[3]) // self.groups, self.filters), self.init)}
        return arrays | ({"b": Parameter((self.filters,), Zeros())} if self.bias else {})

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        b = p.b if self.bias else None
        d = shapes.conv2d(x.shape, p.w.shape, None, self.stride, self.padding, self.dilation, self.groups)
        y = plan.value("y", (BATCH, d.oh, d.ow, d.f))
        plan.call("conv2d", x, p.w, b, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("conv2d_backward", dy, x, p.w, d, dx, plan.gradient(p.w), plan.gradient(b))
            return dx

        return y, backward


@dataclass(frozen=True)
class ConvTranspose2d(Layer):
    """A transposed convolution to `filters` channels; x (N, H, W, C), w (KH, KW, filters / groups, C).

    It spreads each pixel over a window of `size`, `stride` apart: the gradient of Conv2d by its input. `padding`, as
    Conv2d's but for the words, takes places off the output's sides, `output_padding` adds some at its end.
    """

    filters: int
    size: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Padding = field(default=0, kw_only=True)
    output_padding: Pair = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    init: Initialiser = field(default=HeNormal(), kw_only=True)
    follows = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("ConvTranspose2d", "filters", self.filters, 1)
        shapes.integer("ConvTranspose2d", "groups", self.groups, 1)
        for name, minimum in (("size", 1), ("stride", 1), ("output_padding", 0), ("dilation", 1)):
            shapes.pair("ConvTranspose2d", name, getattr(self, name), minimum)
        shapes.sides("ConvTranspose2d", self.padding, ())
        if self.filters % self.groups:
            raise ValueError(f"ConvTranspose2d: groups is {self.groups}, expected a divisor of {self.filters} filters")
        _check_weights(self)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        shapes.rank("ConvTranspose2d", "x", x, 4, "samples, height, width, channels")
        kh, kw = shapes.pair("ConvTranspose2d", "size", self.size, 1)
        arrays = {"w": Parameter((kh, kw, self.filters // self.groups, int(x[3])), self.init)}
        return arrays | ({"b": Parameter((self.filters,), Zeros())} if self.bias else {})

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        b = p.b if self.bias else None
        options = (self.stride, self.padding, self.output_padding, self.dilation, self.groups)
        d = shapes.convtranspose2d(x.shape, p.w.shape, None, *options)
        y = plan.value("y", (BATCH, d.h, d.w, d.c))
        plan.call("convtranspose2d", x, p.w, b, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("convtranspose2d_backward", dy, x, p.w, d, dx, plan.gradient(p.w), plan.gradient(b))
            return dx

        return y, backward


def _check_weights(layer: Linear | Conv2d | ConvTranspose2d) -> None:
    name = type(layer).__name__
    shapes.flag(name, "bias", layer.bias)
    if not isinstance(layer.init, Initialiser):
        raise TypeError(f"{name}: init is {layer.init!r}, expected a models.Initialiser such as HeNormal()")


# Pooling and shape -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """The maximum over windows of `size`; the stride defaults to the size.

    `padding` as Conv2d's. With ceil_mode the number of windows is rounded up: one that reaches beyond the padding
    counts if it begins before the image's end.
    """

    size: Pair = 2
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = field(default=1, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_windows(self)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return _maxpool(plan, x, _windows(self, x.shape))


@dataclass(frozen=True)
class AvgPool2d(Layer):
    """The mean over windows of `size`; padding counts as zeros unless count_include_pad is False.

    The other settings as MaxPool2d's. What a window covers beyond the padding is never counted.
    """

    size: Pair = 2
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = field(default=1, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    count_include_pad: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_windows(self)
        shapes.flag("AvgPool2d", "count_include_pad", self.count_include_pad)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return _avgpool(plan, x, _windows(self, x.shape), self.count_include_pad)


@dataclass(frozen=True)
class GlobalMaxPool2d(Layer):
    """The maximum over each channel's whole map: (N, H, W, C) to (N, C)."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.pool2d(x.shape, _whole_map(x.shape, "GlobalMaxPool2d"), None, 0, "GlobalMaxPool2d")
        return _flattened(plan, *_maxpool(plan, x, d))


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """The mean over each channel's whole map: (N, H, W, C) to (N, C)."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.pool2d(x.shape, _whole_map(x.shape, "GlobalAvgPool2d"), None, 0, "GlobalAvgPool2d")
        return _flattened(plan, *_avgpool(plan, x, d, True))


def _check_windows(layer: MaxPool2d | AvgPool2d) -> None:
    name = type(layer).__name__
    shapes.pair(name, "size", layer.size, 1)
    shapes.pair(name, "dilation", layer.dilation, 1)
    shapes.sides(name, layer.padding)
    shapes.flag(name, "ceil_mode", layer.ceil_mode)
    if layer.stride is not None:
        shapes.pair(name, "stride", layer.stride, 1)


def _windows(layer: MaxPool2d | AvgPool2d, x: Shape) -> shapes.Pool2dDims:
    name = type(layer).__name__
    return shapes.pool2d(x, layer.size, layer.stride, layer.padding, name, layer.dilation, layer.ceil_mode)


def _whole_map(x: Shape, layer: str) -> tuple[int, int]:
    shapes.rank(layer, "x", x, 4, "samples, height, width, channels")
    return int(x[1]), int(x[2])


def _maxpool(plan: PlanBuilder, x: Value, d: shapes.Pool2dDims) -> tuple[Value, Backward]:
    y = plan.value("y", (BATCH, d.oh, d.ow, d.c))
    argmax = plan.like(y, "argmax", d.argmax_dtype)
    plan.call("maxpool2d", x, d, y, argmax)

    def backward(dy: Value) -> Value | None:
        dx = plan.gradient(x)
        plan.call("maxpool2d_backward", dy, argmax, d, dx)
        return dx

    return y, backward


def _avgpool(plan: PlanBuilder, x: Value, d: shapes.Pool2dDims, count_include_pad: bool) -> tuple[Value, Backward]:
    y = plan.value("y", (BATCH, d.oh, d.ow, d.c))
    plan.call("avgpool2d", x, d, count_include_pad, y)

    def backward(dy: Value) -> Value | None:
        dx = plan.gradient(x)
        plan.call("avgpool2d_backward", dy, d, count_include_pad, dx)
        return dx

    return y, backward


def _flattened(plan: PlanBuilder, y: Value, backward: Backward) -> Lowered:
    flat = plan.view(y, (BATCH, int(np.prod([int(s) for s in y.shape[1:]]))))
    return flat, lambda dy: backward(plan.view(dy, y.shape))


@dataclass(frozen=True)
class Flatten(Layer):
    """Every sample as one row: (N, ...) to (N, K). The same memory, no work."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return _flattened(plan, x, lambda dx: dx)


# Normalisation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = gamma (x − mean) / √(var + eps) + beta by channel; batch statistics in training, running ones after.

    `momentum` is the weight of the new batch's statistic in the running one; the running variance is unbiased.
    """

    eps: float = field(default=1e-5, kw_only=True)
    momentum: float = field(default=0.1, kw_only=True)
    follows = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("BatchNorm", "eps", self.eps, 0.0)
        shapes.number("BatchNorm", "momentum", self.momentum, 0.0, most=1.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"gamma": Parameter(_vector(x, self), _ONE), "beta": Parameter(_vector(x, self), Zeros())}

    def statistics(self, x: Shape) -> Mapping[str, Parameter]:
        return {
            "running_mean": Parameter(_vector(x, self), Zeros()),
            "running_var": Parameter(_vector(x, self), _ONE),
        }

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        if not plan.training:
            plan.call("batchnorm_inference", x, p.gamma, p.beta, p.running_mean, p.running_var, self.eps, y)
            return y, None
        d = shapes.channels(x.shape, "BatchNorm")
        mean, inv_std, var = (plan.like(p.gamma, name) for name in ("mean", "inv_std", "var"))
        plan.call("batchnorm", x, p.gamma, p.beta, self.eps, d, y, mean, inv_std, var)
        plan.call("ema_update", p.running_mean, mean, self.momentum)
        plan.call("ema_update", p.running_var, var, self.momentum)

        def backward(dy: Value) -> Value | None:
            dx, dgamma, dbeta = plan.gradient(x), plan.gradient(p.gamma), plan.gradient(p.beta)
            plan.call("batchnorm_backward", dy, x, p.gamma, mean, inv_std, d, dx, dgamma, dbeta)
            return dx

        return y, backward


@dataclass(frozen=True)
class MeanNorm(Layer):
    """y = x − mean + beta by channel: batch-norm without the division. `momentum` as in BatchNorm."""

    momentum: float = field(default=0.1, kw_only=True)
    follows = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("MeanNorm", "momentum", self.momentum, 0.0, most=1.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"beta": Parameter(_vector(x, self), Zeros())}

    def statistics(self, x: Shape) -> Mapping[str, Parameter]:
        return {"running_mean": Parameter(_vector(x, self), Zeros())}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        if not plan.training:
            plan.call("meannorm_inference", x, p.beta, p.running_mean, y)
            return y, None
        d = shapes.channels(x.shape, "MeanNorm")
        mean = plan.like(p.beta, "mean")
        plan.call("meannorm", x, p.beta, d, y, mean)
        plan.call("ema_update", p.running_mean, mean, self.momentum)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("meannorm_backward", dy, d, dx, plan.gradient(p.beta))
            return dx

        return y, backward


def _vector(x: Shape, layer: Layer) -> tuple[int]:
    return (shapes.channels(x, type(layer).__name__).channels,)


# Activations and dropout -------------------------------------------------------------------------------------


class Activation(Layer):
    """A layer that applies the kernel named `kernel` to every element, with the layer's fields as attributes."""

    kernel: str

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        attributes = tuple(vars(self).values())
        plan.call(self.kernel, x, *attributes, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call(f"{self.kernel}_backward", dy, x, y, *attributes, dx)
            return dx

        return y, backward


@dataclass(frozen=True)
class ReLU(Activation):
    """y = max(x, 0)."""

    kernel = "relu"


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """y = x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01
    kernel = "leaky_relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("LeakyReLU", "negative_slope", self.negative_slope)


@dataclass(frozen=True)
class ELU(Activation):
    """y = x where x > 0, else alpha (eˣ − 1)."""

    alpha: float = 1.0
    kernel = "elu"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("ELU", "alpha", self.alpha)


@dataclass(frozen=True)
class GELU(Activation):
    """y = x Φ(x), the exact form."""

    kernel = "gelu"


@dataclass(frozen=True)
class SiLU(Activation):
    """y = x σ(x)."""

    kernel = "silu"


@dataclass(frozen=True)
class Sigmoid(Activation):
    """y = 1 / (1 + e⁻ˣ)."""

    kernel = "sigmoid"


@dataclass(frozen=True)
class Tanh(Activation):
    """y = tanh x."""

    kernel = "tanh"


@dataclass(frozen=True)
class Softplus(Activation):
    """y = log(1 + eˣ)."""

    kernel = "softplus"


@dataclass(frozen=True)
class Softmax(Activation):
    """y = eˣ / Σ eˣ over the last axis. Not before SoftmaxCrossEntropy, which holds its own."""

    kernel = "softmax"


@dataclass(frozen=True)
class LogSoftmax(Activation):
    """y = x − log Σ eˣ over the last axis."""

    kernel = "log_softmax"


@dataclass(frozen=True)
class Dropout(Layer):
    """In training each element is zero with probability `rate`, the others are divided by 1 − rate."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("Dropout", "rate", self.rate, 0.0, below=1.0)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        if not plan.training:
            return x, None
        y, mask = plan.like(x), plan.like(x, "mask", np.dtype(np.bool_))
        plan.call("dropout", x, self.rate, plan.seed(), STEP, y, mask)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("dropout_backward", dy, mask, self.rate, dx)
            return dx

        return y, backward


# Joining branches --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two or more inputs of one shape."""

    arity = 0

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Value) -> Lowered:
        total = x[0]
        for other in x[1:]:
            shapes.equal("Add", other.name, other.shape, total.shape, f"the shape of {x[0].name}")
            y = plan.like(total)
            plan.call("add", total, other, y)
            total = y
        return total, lambda dy: (dy,) * len(x)


@dataclass(frozen=True)
class Concat(Layer):
    """Two or more inputs side by side along the channel axis."""

    arity = 0

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Value) -> Lowered:
        joined = [x[0]]
        for other in x[1:]:
            y = plan.value("y", shapes.concat(joined[-1].shape, other.shape, "Concat"))
            plan.call("concat", joined[-1], other, y)
            joined.append(y)

        def backward(dy: Value) -> tuple[Value | None, ...]:
            gradients: list[Value | None] = []
            for before, last in zip(joined[-2::-1], x[:0:-1], strict=True):
                # The kernel fills both parts, so a part that nobody needs has an array all the same.
                d_before, d_last = plan.like(before, "dleft"), plan.like(last, "dright")
                plan.call("concat_backward", dy, d_before, d_last)
                gradients.append(d_last)
                dy = d_before
            return (dy, *reversed(gradients))

        return joined[-1], backward
