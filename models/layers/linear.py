"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Shape

from ..builder import PlanBuilder
from ..init import HeNormal, Initialiser, Zeros
from ..plan import BATCH, Value
from ..settings import settings
from .base import Layer, Lowered, Parameter, check_weights

__all__ = ["Linear"]


@settings
class Linear(Layer):
    """y = x w + b with `outputs` units; x (N, K), w (K, outputs), b (outputs,)."""

    outputs: int
    bias: bool = field(default=True, kw_only=True)
    init: Initialiser = field(default=HeNormal(), kw_only=True)
    follows = "in_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("Linear", "outputs", self.outputs, 1)
        check_weights(self)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        shapes.rank("Linear", "x", x, 2, "samples, inputs; put Flatten() before it")
        arrays = {"w": Parameter((int(x[1]), self.outputs), self.init)}
        return arrays | ({"b": Parameter((self.outputs,), Zeros())} if self.bias else {})

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        b = p.b if self.bias else None
        d = shapes.linear(x.shape, p.w.shape, None)
        y = plan.value("y", (BATCH, d.m))
        plan.call("linear", x, p.w, b, d, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("linear_backward", dy, x, p.w, d, dx, plan.gradient(p.w), plan.gradient(b))
            return dx

        return y, backward
