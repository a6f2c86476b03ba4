"""What every layer is: configuration, parameters by the inputs' shapes, and how it is written as kernel calls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Self

from kernels import shapes
from kernels.shapes import Shape

from ..builder import Backward, PlanBuilder
from ..init import Constant, Initialiser
from ..plan import Value
from ..settings import Settings

__all__ = ["Layer", "Parameter"]

ONE = Constant(1.0)

Lowered = tuple[Value, Backward | None]


@dataclass(frozen=True)
class Parameter:
    """A parameter or a running statistic of a layer: its shape, how it starts, and the least that it can be."""

    shape: tuple[int, ...]
    init: Initialiser
    least: float = -math.inf


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


def check_weights(layer: Any) -> None:
    """Raise unless bias and init, the settings of layers with weights, are what they are expected to be."""
    name = type(layer).__name__
    shapes.flag(name, "bias", layer.bias)
    if not isinstance(layer.init, Initialiser):
        raise TypeError(f"{name}: init is {layer.init!r}, expected a models.Initialiser such as HeNormal()")


def vector(x: Shape, layer: Layer) -> tuple[int]:
    """The shape of what a layer has one of a channel."""
    return (shapes.channels(x, type(layer).__name__).channels,)
