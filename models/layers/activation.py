"""Activations and dropout."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from kernels import shapes

from ..builder import PlanBuilder
from ..plan import STEP, Value
from .base import Layer, Lowered
from .shape import check_axis, transposed

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "Dropout",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


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


class AlongAxis(Activation):
    """A kernel over the last axis, along any other of a sample's."""

    axis: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axis(self, "axis", self.axis)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        at = shapes.sample_axis(type(self).__name__, "axis", self.axis, len(x.shape))
        last = (*(axis for axis in range(len(x.shape)) if axis != at), at)
        turned, turn_back = transposed(plan, x, last)
        z = plan.like(turned)
        plan.call(self.kernel, turned, z)
        y, turn = transposed(plan, z, tuple(last.index(axis) for axis in range(len(last))))

        def backward(dy: Value) -> Value | None:
            if not plan.wants(x):
                return None
            dx = plan.like(turned, "dx")
            plan.call(f"{self.kernel}_backward", turn(dy), turned, z, dx)
            return turn_back(dx)

        return y, backward


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """y = eˣ / Σ eˣ along an axis, the last unless told. Not before SoftmaxCrossEntropy, which holds its own."""

    axis: int = -1
    kernel = "softmax"


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """y = x − log Σ eˣ along an axis, the last unless told."""

    axis: int = -1
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
