"""Convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Padding, Pair, Shape

from ..builder import PlanBuilder
from ..init import HeNormal, Initialiser, Zeros
from ..plan import BATCH, Value
from ..settings import settings
from .base import Layer, Lowered, Parameter, check_weights

__all__ = ["Conv2d", "ConvTranspose2d"]


@settings
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
        check_weights(self)

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


@settings
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
        check_weights(self)

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
