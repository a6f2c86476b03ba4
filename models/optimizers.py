"""Optimizers: configuration, the state they keep, and their one kernel call over the flat parameter vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar

from kernels import shapes

from .builder import PlanBuilder
from .plan import LEARNING_RATE, STEP, Value
from .settings import Settings, settings


@settings
class Optimizer(Settings):
    """Base: `state` names the vectors kept beside the parameters, each starting at zero.

    clip_value: every element of the gradients is brought to at least its negative, and at most it. clip_norm: then all
    of them are scaled down together where their Euclidean norm is above it. None leaves them alone.
    """

    learning_rate: float
    clip_value: float | None = field(default=None, kw_only=True, repr=False)
    clip_norm: float | None = field(default=None, kw_only=True, repr=False)

    later: ClassVar[tuple[str, ...]] = ("clip_value", "clip_norm")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        shapes.number(name, "learning_rate", self.learning_rate, 0.0, above=True)
        for limit in ("clip_value", "clip_norm"):
            if getattr(self, limit) is not None:
                object.__setattr__(self, limit, shapes.number(name, limit, getattr(self, limit), 0.0, above=True))
        for bounded, low, below in self._bounds:
            shapes.number(name, bounded, getattr(self, bounded), low, below=below)

    _bounds: ClassVar[Sequence[tuple[str, float, float]]] = ()

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the state vectors."""
        return ()

    def lower(self, plan: PlanBuilder, p: Value, g: Value, state: Sequence[Value]) -> None:
        """Write the update of parameters p by gradients g."""
        raise TypeError(f"optimizer {type(self).__name__} does not define lower")


_INFINITY = float("inf")


@settings
class SGD(Optimizer):
    """p −= learning_rate v, v = momentum v + g; with nesterov p −= learning_rate (g + momentum v).

    weight_decay is coupled (added to the gradient as weight_decay p), or decoupled (p loses
    learning_rate · weight_decay · p by itself).
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled: bool = False

    _bounds = (("momentum", 0.0, 1.0), ("weight_decay", 0.0, _INFINITY))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov is True with momentum 0, expected momentum > 0")

    @property
    def state(self) -> tuple[str, ...]:
        return ("v",) if self.momentum else ()

    def lower(self, plan: PlanBuilder, p: Value, g: Value, state: Sequence[Value]) -> None:
        v = state[0] if state else None
        plan.call("sgd", p, g, v, LEARNING_RATE, self.momentum, self.nesterov, self.weight_decay, self.decoupled)


@settings
class RMSProp(Optimizer):
    """v = rho v + (1 − rho) g², p −= learning_rate g / (√v + eps)."""

    rho: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    _bounds = (("rho", 0.0, 1.0), ("eps", 0.0, _INFINITY), ("weight_decay", 0.0, _INFINITY))

    @property
    def state(self) -> tuple[str, ...]:
        return ("v",)

    def lower(self, plan: PlanBuilder, p: Value, g: Value, state: Sequence[Value]) -> None:
        plan.call("rmsprop", p, g, *state, LEARNING_RATE, self.rho, self.eps, self.weight_decay, self.decoupled)


@settings
class Adam(Optimizer):
    """Adam with bias correction by the step's own number, and coupled weight decay (L2). Kingma and Ba 2015."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    _bounds = (
        ("beta1", 0.0, 1.0),
        ("beta2", 0.0, 1.0),
        ("eps", 0.0, _INFINITY),
        ("weight_decay", 0.0, _INFINITY),
    )
    _decoupled: ClassVar[bool] = False

    @property
    def state(self) -> tuple[str, ...]:
        return ("m", "v")

    def lower(self, plan: PlanBuilder, p: Value, g: Value, state: Sequence[Value]) -> None:
        betas = self.beta1, self.beta2
        plan.call("adam", p, g, *state, STEP, LEARNING_RATE, *betas, self.eps, self.weight_decay, self._decoupled)


@settings
class AdamW(Adam):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019."""

    weight_decay: float = 0.01

    _decoupled: ClassVar[bool] = True
