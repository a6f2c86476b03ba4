"""Layers that join, cut and move numbers, and compute none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import field
from types import SimpleNamespace

import numpy as np

from kernels import shapes
from kernels.shapes import Pair, Shape, Sides

from ..builder import Backward, PlanBuilder
from ..plan import BATCH, Value
from ..settings import settings
from .base import Layer, Lowered

__all__ = ["Concat", "Flatten", "Pad2d", "Reshape", "Slice", "Transpose", "Upsample2d"]


@settings
class Flatten(Layer):
    """Every sample as one row: (N, ...) to (N, K). The same memory, no work."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return flattened(plan, x, lambda dx: dx)


@settings
class Reshape(Layer):
    """Every sample in another shape of as many elements, one size of which may be −1. The same memory, no work."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.shape if isinstance(self.shape, tuple) else (self.shape,)
        if sizes:  # () is one number a sample
            shapes.sizes("Reshape", "shape", [1 if isinstance(size, int) and size == -1 else size for size in sizes])
        if sizes.count(-1) > 1:
            raise ValueError(f"Reshape: shape is {self.shape!r}, expected at most one -1")
        object.__setattr__(self, "shape", sizes)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        elements = math.prod(int(size) for size in x.shape[1:])
        known = math.prod(size for size in self.shape if size != -1)
        sizes = tuple(elements // known if size == -1 else size for size in self.shape)
        if math.prod(sizes) != elements:
            raise ValueError(f"Reshape: shape is {self.shape}, expected {elements} elements (x {shapes.text(x.shape)})")
        return reshaped(plan, x, (BATCH, *sizes))


@settings
class Transpose(Layer):
    """A sample's axes in another order: axis i of the output is axis axes[i − 1] of x, numbered from 1."""

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.axes) if isinstance(self.axes, tuple) else 0
        if sorted(self.axes if count else (), key=repr) != list(range(1, count + 1)) or not count:
            raise ValueError(
                f"Transpose: axes is {self.axes!r}, expected the numbers of a sample's axes from 1, once each"
            )

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        if len(self.axes) != len(x.shape) - 1:
            raise ValueError(
                f"Transpose: axes is {self.axes}, x has axes 1 to {len(x.shape) - 1} ({shapes.text(x.shape)})"
            )
        return transposed(plan, x, (0, *self.axes))


MOST = 4
"""Inputs of the kernel `concat`."""


@settings
class Concat(Layer):
    """Two or more inputs side by side along an axis (from 1, or from −1 backwards); the channels' unless told."""

    axis: int = -1
    arity = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axis(self, "axis", self.axis)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Value) -> Lowered:
        first = x[0].shape
        at = shapes.sample_axis("Concat", "axis", self.axis, len(first))
        for other in x[1:]:
            of = other.shape
            if len(of) != len(first) or (*of[:at], *of[at + 1 :]) != (*first[:at], *first[at + 1 :]):
                raise ValueError(
                    f"Concat: {other.name} has shape {shapes.text(of)}, {x[0].name} has {shapes.text(first)}; "
                    f"expected equal shapes but for axis {at}"
                )
        # Seen with all that lies behind the axis as one, it is the last axis that is joined.
        parts = [viewed(plan, part, (*part.shape[:at], math.prod(map(int, part.shape[at:])))) for part in x]
        ends = list(itertools.accumulate(int(part.shape[at]) for part in x))
        shape = (*first[:at], ends[-1], *first[at + 1 :])

        def backward(dy: Value) -> tuple[Value | None, ...]:
            gradients = tuple(map(plan.gradient, x))
            for part, dx, end in zip(x, gradients, ends, strict=True):
                if dx:
                    plan.call("slice", dy, shapes.slice(shape, at, end - int(part.shape[at]), end), dx)
            return gradients

        return viewed(plan, self._joined(plan, parts), shape), backward

    def _joined(self, plan: PlanBuilder, parts: Sequence[Value]) -> Value:
        """The parts along their last axis: in as few turns as a kernel of four inputs allows."""
        if len(parts) == 1:
            return parts[0]
        if len(parts) > MOST:
            ends = [len(parts) * turn // MOST for turn in range(MOST + 1)]
            parts = [self._joined(plan, parts[start:end]) for start, end in itertools.pairwise(ends)]
        shape = shapes.concat("Concat", **{f"x{at}": part.shape for at, part in enumerate(parts)})
        y = plan.value("y", shape)
        plan.call("concat", *parts, *(None,) * (MOST - len(parts)), y)
        return y


@settings
class Slice(Layer):
    """x from `start` to `stop` along an axis, by NumPy's rules; axes count from 1, or backwards from −1."""

    axis: int
    start: int | None = None
    stop: int | None = None
    step: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axis(self, "axis", self.axis)
        shapes.slice_bounds("Slice", self.start, self.stop, self.step)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.slice(x.shape, self.axis, self.start, self.stop, self.step, "Slice")
        at = self.axis % len(x.shape)
        y = plan.value("y", (*x.shape[:at], d.kept, *x.shape[at + 1 :]))
        plan.call("slice", x, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            if dx:
                plan.call("slice_backward", dy, d, dx)
            return dx

        return y, backward


@settings
class Pad2d(Layer):
    """Images with places added around them, or taken off where the padding is negative.

    padding: an int, an (h, w) pair, or ((top, bottom), (left, right)). mode: "constant" fills in `value`, "edge" the
    nearest pixel, "reflect" the one as far inside the outermost pixel.
    """

    padding: Sides
    mode: str = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.pad_sides("Pad2d", "padding", self.padding)
        shapes.pad_mode("Pad2d", self.mode)
        shapes.number("Pad2d", "value", self.value)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.pad2d(x.shape, self.padding, self.mode, "Pad2d")
        y = plan.value("y", (BATCH, d.oh, d.ow, d.c))
        plan.call("pad2d", x, d, self.mode, self.value, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            if dx:
                plan.call("pad2d_backward", dy, d, self.mode, dx)
            return dx

        return y, backward


@settings
class Upsample2d(Layer):
    """Images `factor` times as large; mode "nearest", the only one, repeats every pixel."""

    factor: Pair = 2
    mode: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.pair("Upsample2d", "factor", self.factor, 1)
        shapes.word("Upsample2d", "mode", self.mode, ("nearest",))

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.upsample2d(x.shape, self.factor, "Upsample2d")
        y = plan.value("y", (BATCH, d.h * d.factor_h, d.w * d.factor_w, d.c))
        plan.call("upsample2d", x, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            if dx:
                plan.call("upsample2d_backward", dy, d, dx)
            return dx

        return y, backward


def check_axis(layer: Layer, name: str, axis: int) -> None:
    """Raise unless an axis is the number of one of a sample's: of how many is not known yet."""
    if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
        raise ValueError(f"{type(layer).__name__}: {name} is {axis!r}, expected an int from 1 on, or from -1 backwards")


def flattened(plan: PlanBuilder, y: Value, backward: Backward) -> Lowered:
    """An output as rows, and its backward from the rows' gradient."""
    flat = plan.view(y, (BATCH, int(np.prod([int(s) for s in y.shape[1:]]))))
    return flat, lambda dy: backward(plan.view(dy, y.shape))


def viewed(plan: PlanBuilder, x: Value, shape: Shape) -> Value:
    """x in another shape, which may be its own."""
    return x if x.shape == shape else plan.view(x, shape)


def reshaped(plan: PlanBuilder, x: Value, shape: Shape) -> tuple[Value, Callable[[Value], Value]]:
    """x in another shape, and the way back."""
    return viewed(plan, x, shape), lambda dy: viewed(plan, dy, x.shape)


def transposed(plan: PlanBuilder, x: Value, order: tuple[int, ...]) -> tuple[Value, Callable[[Value], Value]]:
    """x with its axes in this order, the batch first, and the gradient by x from the result's."""
    shape = tuple(x.shape[axis] for axis in order)
    moved = [axis for axis in order if x.shape[axis] != 1]
    if moved == sorted(moved):  # what stands in memory stays where it is
        return reshaped(plan, x, shape)
    y = plan.value("y", shape)
    plan.call("transpose", x, order, y)

    def backward(dy: Value) -> Value:
        back = tuple(order.index(axis) for axis in range(len(order)))
        dx = plan.like(x, "dx")
        plan.call("transpose", dy, back, dx)
        return dx

    return y, backward
