"""Pooling over windows and over whole maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Padding, Pair, Shape

from ..builder import Backward, PlanBuilder
from ..plan import BATCH, Value
from .base import Layer, Lowered
from .shape import flattened

__all__ = ["AvgPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d", "MaxPool2d"]


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
        return flattened(plan, *_maxpool(plan, x, d))


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """The mean over each channel's whole map: (N, H, W, C) to (N, C)."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.pool2d(x.shape, _whole_map(x.shape, "GlobalAvgPool2d"), None, 0, "GlobalAvgPool2d")
        return flattened(plan, *_avgpool(plan, x, d, True))


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
