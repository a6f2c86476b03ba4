"""Convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Pair, Shape

from ..builder import PlanBuilder
from ..init import HeNormal, Initialiser, Zeros
from ..plan import BATCH, Value
from .base import Layer, Lowered, Parameter, check_weights

__all__ = ["Conv2d"]


@dataclass(frozen=True)
class Conv2d(Layer):
    """A convolution with `filters` filters of `size`; x (N, H, W, C), w (KH, KW, C / groups, filters)."""

    filters: int
    size: Pair
    stride: Pair = field(default=1, kw_only=True)
    padding: Pair = field(default=0, kw_only=True)
    dilation: Pair = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    init: Initialiser = field(default=HeNormal(), kw_only=True)
    follows = "in_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("Conv2d", "filters", self.filters, 1)
        shapes.integer("Conv2d", "groups", self.groups, 1)
        for name, minimum in (("size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            shapes.pair("Conv2d", name, getattr(self, name), minimum)
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
