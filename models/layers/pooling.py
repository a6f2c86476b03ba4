"""Pooling over windows, over whole maps, and means over any axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Padding, Pair, Shape

from ..builder import Backward, PlanBuilder
from ..plan import BATCH, Value
from ..settings import settings
from .base import Layer, Lowered
from .shape import check_axis, flattened, viewed

__all__ = ["AvgPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d", "MaxPool2d", "Mean"]


@settings
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


@settings
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


@settings
class GlobalMaxPool2d(Layer):
    """The maximum over each channel's whole map: (N, H, W, C) to (N, C)."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.pool2d(x.shape, _whole_map(x.shape, "GlobalMaxPool2d"), None, 0, "GlobalMaxPool2d")
        return flattened(plan, *_maxpool(plan, x, d))


@settings
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


@settings
class Mean(Layer):
    """The mean over some axes, numbered from 1, or from −1 backwards; with keepdims they stay, of size 1."""

    axes: int | tuple[int, ...]
    keepdims: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in self.axes if isinstance(self.axes, tuple) else (self.axes,):
            check_axis(self, "axes", axis)
        shapes.flag("Mean", "keepdims", self.keepdims)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        axes = shapes.sample_axes("Mean", "axes", self.axes, len(x.shape))
        # A kernel takes axes that lie side by side, the last ones first: the numbers of the others then stay.
        ends = [axis for axis in axes if axis + 1 not in axes]
        backwards, y = [], x
        for end in reversed(ends):
            first = next(axis for axis in range(end, 0, -1) if axis - 1 not in axes)
            y, backward = _mean(plan, y, first, end)
            backwards.append(backward)
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        shape = kept if self.keepdims else y.shape

        def backward_all(dy: Value) -> Value | None:
            gradient: Value | None = viewed(plan, dy, y.shape)
            for backward in reversed(backwards):
                gradient = backward(gradient) if gradient else None
            return gradient

        return viewed(plan, y, shape), backward_all


def _mean(plan: PlanBuilder, x: Value, first: int, last: int) -> tuple[Value, Callable[[Value], Value | None]]:
    """The mean over the axes first to last."""
    d = shapes.axis(x.shape, first, last)
    y = plan.value("y", (*x.shape[:first], *x.shape[last + 1 :]))
    plan.call("mean", x, d, y)
    if plan.wants(x):
        plan.want(y)

    def backward(dy: Value) -> Value | None:
        dx = plan.gradient(x)
        if dx:
            plan.call("mean_backward", dy, d, dx)
        return dx

    return y, backward
