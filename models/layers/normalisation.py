"""Normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import SimpleNamespace

from kernels import shapes
from kernels.shapes import Shape

from ..builder import PlanBuilder
from ..init import Zeros
from ..plan import BATCH, Value
from ..settings import settings
from .base import ONE, Layer, Lowered, Parameter, vector
from .shape import check_axis

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm", "MeanNorm"]


@settings
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


@settings
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


@settings
class LayerNorm(Layer):
    """y = gamma (x − mean) / √(var + eps) + beta, statistics of each sample over its last axes: the channels, or more.

    axes: −1, or the last ones in a row, such as (−3, −2, −1) or (1, 2, 3) for a whole image. gamma and beta have
    an element for each of theirs.
    """

    axes: int | tuple[int, ...] = -1
    eps: float = field(default=1e-5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in self.axes if isinstance(self.axes, tuple) else (self.axes,):
            check_axis(self, "axes", axis)
        shapes.number("LayerNorm", "eps", self.eps, 0.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        axes = shapes.sample_axes("LayerNorm", "axes", self.axes, len(x))
        if axes != tuple(range(axes[0], len(x))):
            raise ValueError(f"LayerNorm: axes is {self.axes}, expected the last axes of x {shapes.text(x)}")
        own = tuple(int(size) for size in x[axes[0] :])
        return {"gamma": Parameter(own, ONE), "beta": Parameter(own, Zeros())}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.layers(x.shape, p.gamma.shape, "LayerNorm")
        y = plan.like(x)
        mean, inv_std = (plan.value(name, x.shape[: -len(p.gamma.shape)]) for name in ("mean", "inv_std"))
        plan.call("layernorm", x, p.gamma, p.beta, self.eps, d, y, mean, inv_std)

        def backward(dy: Value) -> Value | None:
            dx, dgamma, dbeta = plan.gradient(x), plan.gradient(p.gamma), plan.gradient(p.beta)
            plan.call("layernorm_backward", dy, x, p.gamma, mean, inv_std, d, dx, dgamma, dbeta)
            return dx

        return y, backward


@settings
class GroupNorm(Layer):
    """y = gamma (x − mean) / √(var + eps) + beta by channel, statistics of each sample's `groups` of channels."""

    groups: int
    eps: float = field(default=1e-5, kw_only=True)
    follows = "num_channels"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("GroupNorm", "groups", self.groups, 1)
        shapes.number("GroupNorm", "eps", self.eps, 0.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"gamma": Parameter(vector(x, self), ONE), "beta": Parameter(vector(x, self), Zeros())}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return _by_group(plan, p, x, shapes.groups(x.shape, self.groups, "GroupNorm"), self.eps)


@settings
class InstanceNorm(Layer):
    """y = gamma (x − mean) / √(var + eps) + beta by channel, statistics of each sample's channel on its own."""

    eps: float = field(default=1e-5, kw_only=True)
    follows = "num_features"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("InstanceNorm", "eps", self.eps, 0.0)

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"gamma": Parameter(vector(x, self), ONE), "beta": Parameter(vector(x, self), Zeros())}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        channels = shapes.channels(x.shape, "InstanceNorm").channels
        return _by_group(plan, p, x, shapes.groups(x.shape, channels, "InstanceNorm"), self.eps)


def _by_group(plan: PlanBuilder, p: SimpleNamespace, x: Value, d: shapes.GroupDims, eps: float) -> Lowered:
    y = plan.like(x)
    mean, inv_std = (plan.value(name, (BATCH, d.groups)) for name in ("mean", "inv_std"))
    plan.call("groupnorm", x, p.gamma, p.beta, eps, d, y, mean, inv_std)

    def backward(dy: Value) -> Value | None:
        dx, dgamma, dbeta = plan.gradient(x), plan.gradient(p.gamma), plan.gradient(p.beta)
        plan.call("groupnorm_backward", dy, x, p.gamma, mean, inv_std, d, dx, dgamma, dbeta)
        return dx

    return y, backward


@settings
class LocalResponseNorm(Layer):
    """y = x / (bias + alpha / size · Σ x²)^beta, the sum over `size` neighbouring channels around each."""

    size: int
    alpha: float = field(default=1e-4, kw_only=True)
    beta: float = field(default=0.75, kw_only=True)
    bias: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("LocalResponseNorm", "size", self.size, 1)
        shapes.number("LocalResponseNorm", "alpha", self.alpha)
        shapes.number("LocalResponseNorm", "beta", self.beta)
        shapes.number("LocalResponseNorm", "bias", self.bias, 0.0, above=True)

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        d = shapes.channels(x.shape, "LocalResponseNorm")
        y, scale = plan.like(x), plan.like(x, "scale")
        plan.call("local_response_norm", x, self.size, self.alpha, self.beta, self.bias, d, y, scale)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            if dx:
                plan.call("local_response_norm_backward", dy, x, scale, self.size, self.alpha, self.beta, d, dx)
            return dx

        return y, backward
