"""Numbers that go bad: whether an array holds any, and where in a training step the first one comes up."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from .execute import Calls, Executor
from .plan import Step, Value


class NonFiniteError(FloatingPointError):
    """A training step whose loss, gradients or parameters are not finite, which changed nothing; or a model with such
    numbers, which was not written."""


def is_finite(array: np.ndarray) -> bool:
    """Whether no element is NaN or infinite. One sum decides, unless it overflows: NaN and infinity pass through it."""
    with np.errstate(all="ignore"):
        return math.isfinite(array.sum()) or bool(np.isfinite(array).all())


def refuse(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise NonFiniteError that names the first array that is not finite; `what` begins its message."""
    for name, array in arrays.items():
        if not is_finite(array):
            raise NonFiniteError(f"{what}: {name!r} is not finite")


def first(
    executor: Executor, inputs: Mapping[str, np.ndarray], parameters: Collection[str], n: int, **scalars: float
) -> str | None:
    """Run a training plan step by step up to its updates, and name the first array that is not finite; None if none is.

    executor: bound to a plan without rewrites, so that every step is one kernel of one layer. parameters: their names.
    """
    plan = executor.plan
    for name, given in inputs.items():
        executor.array(plan.inputs[name], n)[...] = given
    sources = {value: f"the {name}" for name, value in plan.inputs.items()}
    rounds = {name: [value] for name, value in scalars.items()}

    def bad(value: Value) -> bool:
        array = executor.array(value, n)
        return array.dtype.kind == "f" and not is_finite(array)

    with np.errstate(all="ignore"):
        for step, call in zip(plan.steps[: plan.updates], executor.calls(n), strict=False):
            for value in step.inputs.values():
                source = sources.get(value.origin)
                if (source or value.name in parameters) and bad(value):
                    return f"{source or f'parameter {value.name!r}'}{_reader(step)}"
            Calls([call]).run(1, rounds)
            for value in step.outputs.values():
                if bad(value):
                    kind = {"forward": "activation", "backward": "gradient"}.get(step.phase, step.phase)
                    return f"{kind} {value.name!r}{_reader(step)}"
    return None


def _reader(step: Step) -> str:
    return f" of node {step.node!r}, in {step.name}" if step.node else f", in {step.name}"
