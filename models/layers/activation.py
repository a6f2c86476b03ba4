"""Activations and dropout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import SimpleNamespace

import numpy as np

from kernels import polynomials, shapes
from kernels.shapes import Shape

from ..builder import PlanBuilder
from ..init import Constant, Initialiser
from ..plan import STEP, Value
from ..settings import settings
from .base import Layer, Lowered, Parameter, vector
from .shape import check_axis, transposed

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Abs",
    "Activation",
    "Clip",
    "Dropout",
    "Dropout2d",
    "Erf",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "LeakyReLU",
    "Log",
    "LogSoftmax",
    "Mish",
    "Negative",
    "PReLU",
    "Power",
    "ReLU",
    "ReLU6",
    "Reciprocal",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedReLU",
]


class Activation(Layer):
    """A layer that applies the kernel named `kernel` to every element, with the layer's fields as attributes."""

    kernel: str

    def call(self) -> tuple[str, tuple[float, ...]]:
        """The kernel and its attributes."""
        return self.kernel, tuple(map(float, vars(self).values()))

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        kernel, attributes = self.call()
        plan.call(kernel, x, *attributes, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call(f"{kernel}_backward", dy, x, y, *attributes, dx)
            return dx

        return y, backward


@settings
class ReLU(Activation):
    """y = max(x, 0)."""

    kernel = "relu"


@settings
class LeakyReLU(Activation):
    """y = x where x > 0, else negative_slope x."""

    negative_slope: float = 0.01
    kernel = "leaky_relu"


@settings
class ELU(Activation):
    """y = x where x > 0, else alpha (eˣ − 1)."""

    alpha: float = 1.0
    kernel = "elu"


@settings
class GELU(Activation):
    """y = x Φ(x), the exact form; or its approximation by tanh, `approximate="tanh"`, as PyTorch and ONNX name them."""

    approximate: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.word("GELU", "approximate", self.approximate, ("none", "tanh"))

    def call(self) -> tuple[str, tuple[float, ...]]:
        return "gelu_tanh" if self.approximate == "tanh" else "gelu", ()


@settings
class SiLU(Activation):
    """y = x σ(x)."""

    kernel = "silu"


@settings
class Sigmoid(Activation):
    """y = 1 / (1 + e⁻ˣ)."""

    kernel = "sigmoid"


@settings
class Tanh(Activation):
    """y = tanh x."""

    kernel = "tanh"


@settings
class Softplus(Activation):
    """y = log(1 + eˣ)."""

    kernel = "softplus"


@settings
class Clip(Activation):
    """y = min(max(x, low), high), either of which may be infinite; no gradient at or beyond the bounds."""

    low: float = -np.inf
    high: float = np.inf
    kernel = "clip"
    unbounded = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.unbounded:
            shapes.number("Clip", name, getattr(self, name), infinite=True)


@settings
class ReLU6(Activation):
    """y = min(max(x, 0), 6)."""

    def call(self) -> tuple[str, tuple[float, ...]]:
        return "clip", (0.0, 6.0)


@settings
class HardSigmoid(Activation):
    """y = max(0, min(1, alpha x + beta)). The defaults are PyTorch's; ONNX's alpha is 0.2."""

    alpha: float = 1 / 6
    beta: float = 0.5
    kernel = "hard_sigmoid"


@settings
class HardSwish(Activation):
    """y = x max(0, min(6, x + 3)) / 6."""

    kernel = "hard_swish"


@settings
class Mish(Activation):
    """y = x tanh(log(1 + eˣ))."""

    kernel = "mish"


@settings
class SELU(Activation):
    """y = gamma x where x > 0, else gamma alpha (eˣ − 1)."""

    alpha: float = polynomials.SELU_ALPHA
    gamma: float = polynomials.SELU_GAMMA
    kernel = "selu"


@settings
class CELU(Activation):
    """y = x where x > 0, else alpha (e^(x / alpha) − 1)."""

    alpha: float = 1.0
    kernel = "celu"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("CELU", "alpha", self.alpha, 0.0, above=True)


@settings
class PReLU(Layer):
    """y = x where x > 0, else slope x, with a trained slope a channel, (C,); or one for all, (1,), if `shared`."""

    init: Initialiser = Constant(0.25)
    shared: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.init, Initialiser):
            raise TypeError(f"PReLU: init is {self.init!r}, expected a models.Initialiser such as Constant(0.25)")

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"slope": Parameter((1,) if self.shared else vector(x, self), self.init)}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.prelu(x.shape, p.slope.shape, "PReLU")
        y = plan.like(x)
        plan.call("prelu", x, p.slope, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("prelu_backward", dy, x, p.slope, d, dx, plan.gradient(p.slope))
            return dx

        return y, backward


@settings
class Softsign(Activation):
    """y = x / (1 + |x|)."""

    kernel = "softsign"


@settings
class ThresholdedReLU(Activation):
    """y = x where x > alpha, else 0."""

    alpha: float = 1.0
    kernel = "thresholded_relu"


@settings
class Exp(Activation):
    """y = eˣ."""

    kernel = "exp"


@settings
class Log(Activation):
    """y = log x, the natural logarithm."""

    kernel = "log"


@settings
class Sqrt(Activation):
    """y = √x."""

    kernel = "sqrt"


@settings
class Abs(Activation):
    """y = |x|."""

    kernel = "absolute"


@settings
class Negative(Activation):
    """y = −x."""

    kernel = "negative"


@settings
class Reciprocal(Activation):
    """y = 1 / x."""

    kernel = "reciprocal"


@settings
class Power(Activation):
    """y = x^exponent."""

    exponent: float
    kernel = "power"


@settings
class Erf(Activation):
    """y = 2/√π ∫₀ˣ e^(−t²) dt, the error function."""

    kernel = "erf"


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


@settings
class Softmax(AlongAxis):
    """y = eˣ / Σ eˣ along an axis, the last unless told. Not before SoftmaxCrossEntropy, which holds its own."""

    axis: int = -1
    kernel = "softmax"


@settings
class LogSoftmax(AlongAxis):
    """y = x − log Σ eˣ along an axis, the last unless told."""

    axis: int = -1
    kernel = "log_softmax"


@settings
class Dropout(Layer):
    """In training each element is zero with probability `rate`, the others are divided by 1 − rate.

    Which ones follows from the model's seed, the layer, the step and the element's place in the batch.
    """

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


@settings
class Dropout2d(Dropout):
    """Dropout of whole maps: in training each channel of an image (N, H, W, C) is zero with probability `rate`.

    The others are divided by 1 − rate. Which ones follows from the model's seed, the layer, the step, the image's place
    in the batch and the channel (J. Tompson et al., "Efficient object localization using convolutional networks",
    2015).
    """

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.image(x.shape, "Dropout2d")
        if not plan.training:
            return x, None
        # Ones, one a map: x⁰ is 1 whatever x is, a NaN included.
        row = shapes.slice(x.shape, 1, 0, 1, 1, "Dropout2d")
        rows = plan.value("rows", (x.shape[0], 1, *x.shape[2:]))
        plan.call("slice", x, row, rows)
        place = shapes.slice(rows.shape, 2, 0, 1, 1, "Dropout2d")
        places, ones, gate = (plan.value(name, (x.shape[0], 1, 1, d.c)) for name in ("places", "ones", "gate"))
        plan.call("slice", rows, place, places)
        plan.call("power", places, 0.0, ones)
        plan.call("dropout", ones, self.rate, plan.seed(), STEP, gate, plan.like(ones, "mask", np.dtype(np.bool_)))
        y = plan.like(x)
        plan.call("multiply", x, gate, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            if dx:
                plan.call("multiply", dy, gate, dx)
            return dx

        return y, backward
