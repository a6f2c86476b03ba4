"""Layers that move numbers and compute none."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from kernels import shapes

from ..builder import Backward, PlanBuilder
from ..plan import BATCH, Value
from .base import Layer, Lowered

__all__ = ["Concat", "Flatten"]


@dataclass(frozen=True)
class Flatten(Layer):
    """Every sample as one row: (N, ...) to (N, K). The same memory, no work."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Lowered:
        return flattened(plan, x, lambda dx: dx)


@dataclass(frozen=True)
class Concat(Layer):
    """Two or more inputs side by side along the channel axis."""

    arity = 0

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Value) -> Lowered:
        joined = [x[0]]
        for other in x[1:]:
            y = plan.value("y", shapes.concat(joined[-1].shape, other.shape, "Concat"))
            plan.call("concat", joined[-1], other, y)
            joined.append(y)

        def backward(dy: Value) -> tuple[Value | None, ...]:
            gradients: list[Value | None] = []
            for before, last in zip(joined[-2::-1], x[:0:-1], strict=True):
                # The kernel fills both parts, so a part that nobody needs has an array all the same.
                d_before, d_last = plan.like(before, "dleft"), plan.like(last, "dright")
                plan.call("concat_backward", dy, d_before, d_last)
                gradients.append(d_last)
                dy = d_before
            return (dy, *reversed(gradients))

        return joined[-1], backward


def flattened(plan: PlanBuilder, y: Value, backward: Backward) -> Lowered:
    """An output as rows, and its backward from the rows' gradient."""
    flat = plan.view(y, (BATCH, int(np.prod([int(s) for s in y.shape[1:]]))))
    return flat, lambda dy: backward(plan.view(dy, y.shape))
