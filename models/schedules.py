"""Schedules: the learning rate over a run, as a factor of the optimizer's own.

A schedule is called with the number of steps already done, the steps in an epoch and those in the whole run.
"""

from __future__ import annotations

import math

import numpy as np

from kernels import shapes

from .settings import Settings, settings


@settings
class Schedule(Settings):
    """Base, and the constant schedule: the factor 1 throughout."""

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """Factor for the step that follows `step` done ones, 0 <= step < total_steps."""
        return 1.0


@settings
class StepDecay(Schedule):
    """factor^⌊epoch / every⌋."""

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("StepDecay", "every", self.every, 1)
        shapes.number("StepDecay", "factor", self.factor, 0.0)

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return float(self.factor ** (step // steps_per_epoch // self.every))


@settings
class MultiStep(Schedule):
    """factor^(number of milestones, in epochs, that have passed)."""

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.milestones, list | tuple | np.ndarray) or np.ndim(self.milestones) != 1:
            raise TypeError(f"MultiStep: milestones is {self.milestones!r}, expected epochs, such as (10, 20)")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            shapes.integer("MultiStep", "milestones", milestone, 0)
        shapes.number("MultiStep", "factor", self.factor, 0.0)

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return float(self.factor ** sum(step // steps_per_epoch >= milestone for milestone in self.milestones))


@settings
class Exponential(Schedule):
    """factor^epoch."""

    factor: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("Exponential", "factor", self.factor, 0.0)

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return float(self.factor ** (step // steps_per_epoch))


@settings
class Cosine(Schedule):
    """From 1 to `final` along half a cosine over the whole run. Loshchilov and Hutter 2017."""

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("Cosine", "final", self.final, 0.0)

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * step / total_steps)) / 2


@settings
class OneCycle(Schedule):
    """Linear from `start` up to 1 during the first `warmup` share of the run, then linear down to `final`.

    The optimizer's learning rate is the peak. Smith 2018.
    """

    warmup: float = 0.3
    start: float = 0.04
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("OneCycle", "warmup", self.warmup, 0.0, below=1.0)
        shapes.number("OneCycle", "start", self.start, 0.0)
        shapes.number("OneCycle", "final", self.final, 0.0)

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        done = step / total_steps
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        return self.final + (1 - self.final) * (1 - done) / (1 - self.warmup)


@settings
class LinearWarmup(Schedule):
    """Linear up to 1 over the first `steps` steps, then `after`'s factor as if the run began there."""

    steps: int
    after: Schedule = Schedule()

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.integer("LinearWarmup", "steps", self.steps, 0)
        if not isinstance(self.after, Schedule):
            raise TypeError(f"LinearWarmup: after is {self.after!r}, expected a models.Schedule")

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        if step < self.steps:
            return (step + 1) / self.steps
        return self.after(step - self.steps, steps_per_epoch, max(total_steps - self.steps, 1))
