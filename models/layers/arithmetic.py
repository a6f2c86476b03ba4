"""Arithmetic of two and more inputs, and with trained arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from types import SimpleNamespace
from typing import ClassVar

from kernels import shapes
from kernels.shapes import Shape

from ..builder import PlanBuilder
from ..init import Zeros
from ..plan import Value
from ..settings import settings
from .base import ONE, Layer, Lowered, Parameter, vector

__all__ = ["Add", "Affine", "Divide", "Multiply", "ParametricPower", "RaiseToPower", "Subtract"]


Pair = tuple[Value | None, Value | None]
"""The gradients by two inputs."""


class Arithmetic(Layer):
    """The kernel named `kernel`, of one input after the other. Axes of size 1 are repeated, but for the batch's."""

    kernel: ClassVar[str]

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Value) -> Lowered:
        total, backwards = x[0], []
        for other in x[1:]:
            total, backward = self._pair(plan, total, other)
            backwards.append(backward)

        def backward_all(dy: Value) -> tuple[Value | None, ...]:
            gradients: list[Value | None] = []
            left: Value | None = dy
            for backward in reversed(backwards):
                # Nobody needs what lies before, where nobody needs the gradient by it.
                left, right = backward(left) if left is not None else (None, None)
                gradients.append(right)
            return (left, *reversed(gradients))

        return total, backward_all

    def _pair(self, plan: PlanBuilder, a: Value, b: Value) -> tuple[Value, Callable[[Value], Pair]]:
        y = plan.value("y", self._shape(a, b))
        plan.call(self.kernel, a, b, y)
        if plan.wants(a) or plan.wants(b):
            plan.want(y)
        return y, lambda dy: self._gradients(plan, dy, a, b)

    def _gradients(self, plan: PlanBuilder, dy: Value, a: Value, b: Value) -> Pair:
        da, db = plan.gradient(a), plan.gradient(b)
        if da or db:
            plan.call(f"{self.kernel}_backward", dy, a, b, shapes.elements(dy.shape), da, db)
        return da, db

    def _shape(self, a: Value, b: Value) -> Shape:
        """The shape of the result."""
        name, pairs = type(self).__name__, list(zip(a.shape, b.shape, strict=False))
        if len(a.shape) != len(b.shape) or any(left != right and 1 not in (left, right) for left, right in pairs):
            own, other = shapes.text(a.shape), shapes.text(b.shape)
            repeated = "or an axis of size 1 in either where the other has more"
            raise ValueError(f"{name}: {b.name} has shape {other}, expected {own} (the shape of {a.name}), {repeated}")
        return shapes.broadcast(a.shape, b.shape, name)


class _ByShape(Arithmetic):
    """Whose gradients follow from dy alone."""

    def _gradients(self, plan: PlanBuilder, dy: Value, a: Value, b: Value) -> Pair:
        # The gradient by an input that is added as it is, is dy itself.
        plain_a, plain_b = a.shape == dy.shape, b.shape == dy.shape and self.kernel == "add"
        da, db = None if plain_a else plan.gradient(a), None if plain_b else plan.gradient(b)
        if da or db:
            plan.call(f"{self.kernel}_backward", dy, shapes.elements(dy.shape), da, db)
        return dy if plain_a else da, dy if plain_b else db


@settings
class Add(_ByShape):
    """The sum of two or more inputs. Axes of size 1 are repeated: (N, 1, 1, C) and (N, H, W, C) give (N, H, W, C)."""

    arity = 0
    kernel = "add"


@settings
class Subtract(_ByShape):
    """The first of two inputs less the second. Axes of size 1 are repeated."""

    arity = 2
    kernel = "subtract"


@settings
class Multiply(Arithmetic):
    """The product of two or more inputs. Axes of size 1 are repeated, as in a squeeze-and-excitation block."""

    arity = 0
    kernel = "multiply"


@settings
class Divide(Arithmetic):
    """The first of two inputs by the second. Axes of size 1 are repeated."""

    arity = 2
    kernel = "divide"


@settings
class RaiseToPower(Arithmetic):
    """The first of two inputs to the power of the second. Axes of size 1 are repeated."""

    arity = 2
    kernel = "raise_to_power"


@settings
class ParametricPower(Layer):
    """y = x^exponent, the exponents trained from 1 on: one a channel, or an array of `shape`, as in generalised means.

    shape: that of one sample's last axes, an axis of size 1 being repeated; None for the channels alone. By the
    exponent of a negative x the gradient is NaN. (F. Radenović et al., "Fine-tuning CNN image retrieval with no human
    annotation", 2018.)
    """

    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape is not None:
            shapes.sizes("ParametricPower", "shape", self.shape)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"exponent": Parameter(_repeated_over(self, x), ONE)}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d, y = shapes.elements(x.shape), plan.like(x)
        plan.call("raise_to_power", x, p.exponent, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("raise_to_power_backward", dy, x, p.exponent, d, dx, plan.gradient(p.exponent))
            return dx

        return y, backward


def _repeated_over(layer: Affine | ParametricPower, x: Shape) -> tuple[int, ...]:
    """The shape of a layer's arrays, which broadcast over x."""
    own = vector(x, layer) if layer.shape is None else tuple(layer.shape)
    if len(own) >= len(x) or any(size not in (1, of) for size, of in zip(own[::-1], x[::-1], strict=False)):
        raise ValueError(
            f"{type(layer).__name__}: shape is {own}, "
            f"expected sizes of last axes of x {shapes.text(x)}, or 1 in their places"
        )
    return own


@settings
class Affine(Layer):
    """y = gamma x + beta, gamma and beta trained: one of each a channel, or arrays of `shape`.

    shape: that of one sample's last axes, an axis of size 1 being repeated; None for the channels alone.
    """

    shape: tuple[int, ...] | None = None
    scale: bool = field(default=True, kw_only=True)
    bias: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.flag("Affine", "scale", self.scale)
        shapes.flag("Affine", "bias", self.bias)
        if not (self.scale or self.bias):
            raise ValueError("Affine: scale and bias are False, expected one of them at least")
        if self.shape is not None:
            shapes.sizes("Affine", "shape", self.shape)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        own = _repeated_over(self, x)
        wanted = {"gamma": (self.scale, ONE), "beta": (self.bias, Zeros())}
        return {name: Parameter(own, init) for name, (there, init) in wanted.items() if there}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d, y = shapes.elements(x.shape), x
        if self.scale:
            y = plan.like(x)
            plan.call("multiply", x, p.gamma, y)
        if self.bias:
            scaled, y = y, plan.like(x)
            plan.call("add", scaled, p.beta, y)

        def backward(dy: Value) -> Value | None:
            if self.bias:
                plan.call("add_backward", dy, d, None, plan.gradient(p.beta))
            if not self.scale:
                return dy
            dx = plan.gradient(x)
            plan.call("multiply_backward", dy, x, p.gamma, d, dx, plan.gradient(p.gamma))
            return dx

        return y, backward
