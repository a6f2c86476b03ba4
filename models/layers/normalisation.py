"""Normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Shape

from ..builder import PlanBuilder
from ..init import Zeros
from ..plan import Value
from .base import ONE, Layer, Lowered, Parameter, vector

__all__ = ["BatchNorm", "MeanNorm"]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = gamma (x − mean) / √(var + eps) + beta by channel; batch statistics in training, running ones after.

    `momentum` is the weight of the new batch's statistic in the running one; the running variance is unbiased.
    """

    eps: float = field(default=1e-5, kw_only=True)
    momentum: float = field(default=0.1, kw_only=True)
    follows = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("BatchNorm", "eps", self.eps, 0.0)
        shapes.number("BatchNorm", "momentum", self.momentum, 0.0, most=1.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"gamma": Parameter(vector(x, self), ONE), "beta": Parameter(vector(x, self), Zeros())}

    def statistics(self, x: Shape) -> Mapping[str, Parameter]:
        return {
            "running_mean": Parameter(vector(x, self), Zeros()),
            "running_var": Parameter(vector(x, self), ONE, least=0.0),
        }

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        if not plan.training:
            plan.call("batchnorm_inference", x, p.gamma, p.beta, p.running_mean, p.running_var, self.eps, y)
            return y, None
        d = shapes.channels(x.shape, "BatchNorm")
        mean, inv_std, var = (plan.like(p.gamma, name) for name in ("mean", "inv_std", "var"))
        plan.call("batchnorm", x, p.gamma, p.beta, self.eps, d, y, mean, inv_std, var)
        plan.call("ema_update", p.running_mean, mean, self.momentum)
        plan.call("ema_update", p.running_var, var, self.momentum)

        def backward(dy: Value) -> Value | None:
            dx, dgamma, dbeta = plan.gradient(x), plan.gradient(p.gamma), plan.gradient(p.beta)
            plan.call("batchnorm_backward", dy, x, p.gamma, mean, inv_std, d, dx, dgamma, dbeta)
            return dx

        return y, backward


@dataclass(frozen=True)
class MeanNorm(Layer):
    """y = x − mean + beta by channel: batch-norm without the division. `momentum` as in BatchNorm."""

    momentum: float = field(default=0.1, kw_only=True)
    follows = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("MeanNorm", "momentum", self.momentum, 0.0, most=1.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"beta": Parameter(vector(x, self), Zeros())}

    def statistics(self, x: Shape) -> Mapping[str, Parameter]:
        return {"running_mean": Parameter(vector(x, self), Zeros())}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        y = plan.like(x)
        if not plan.training:
            plan.call("meannorm_inference", x, p.beta, p.running_mean, y)
            return y, None
        d = shapes.channels(x.shape, "MeanNorm")
        mean = plan.like(p.beta, "mean")
        plan.call("meannorm", x, p.beta, d, y, mean)
        plan.call("ema_update", p.running_mean, mean, self.momentum)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call("meannorm_backward", dy, d, dx, plan.gradient(p.beta))
            return dx

        return y, backward
