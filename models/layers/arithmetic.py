"""Arithmetic of two and more inputs."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from kernels import shapes

from ..builder import PlanBuilder
from ..plan import Value
from .base import Layer, Lowered

__all__ = ["Add"]


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
