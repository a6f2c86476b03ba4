"""Precision: a plan whose contractions take their operands in bfloat16, and sum in float32.

With v̂ for v rounded to bfloat16, the number of 8 significant bits next to it, a linear layer becomes

    forward     y = x̂ ŵ + b
    backward    dx = dŷ ŵᵀ,  dw = x̂ᵀ dŷ,  db = Σ dy

and a convolution alike. That is all: parameters, biases, sums, statistics and everything between contractions are
float32, and a gradient by v̂ is taken for the gradient by v. v̂ is kept in float32, so that the kernels are the same; the
product of two is exact there. Where the processor multiplies bfloat16 numbers, `rewrite` puts kernels in their place
that round what they read themselves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kernels import shapes

from .plan import Plan, Step, Value

PRECISIONS = ("float32", "float64", "bfloat16")

CONTRACTIONS = frozenset(
    name + suffix for name in ("linear", "conv2d", "convtranspose2d") for suffix in ("", "_backward")
)
OPERANDS = ("dy", "x", "w")
"""What contractions multiply, as the contract calls it."""


def checked(who: str, precision: str | None, dtype: np.dtype) -> str:
    """The name of a precision in which models of a dtype can run; None stands for the dtype's own.

    Raises ValueError for an unknown name, and for one that does not go with the dtype.
    """
    if precision is None:
        return dtype.name
    shapes.word(who, "precision", precision, PRECISIONS)
    possible = ("float32", "bfloat16") if dtype == np.float32 else (dtype.name,)
    if precision not in possible:
        raise ValueError(f"{who}: precision is {precision!r} and dtype is {dtype}, expected {' or '.join(possible)}")
    return precision


def in_precision(plan: Plan, precision: str | None) -> Plan:
    """The plan, its contractions' operands rounded where the precision is bfloat16."""
    return _rounded(plan) if precision == "bfloat16" else plan


def _rounded(plan: Plan) -> Plan:
    """Every operand is rounded once, before its first contraction; weights in inference once for all runs."""
    inference = all(step.phase == "forward" for step in plan.steps)
    changing = {value.origin for step in plan.steps for value in step.outputs.values()}
    changing |= {value.origin for value in plan.inputs.values()}
    names = {value.name for value in plan.values()}
    rounded: dict[Value, Value] = {}
    steps: list[Step] = []
    constants: list[Step] = []
    for step in plan.steps:
        if isinstance(step.kernel, str) and step.kernel in CONTRACTIONS:
            arguments = dict(step.named)
            for operand in OPERANDS:
                if operand not in arguments:
                    continue
                v = arguments[operand]
                if v not in rounded:
                    rounded[v] = Value(_unused(f"{v.name}.bfloat16", names), v.shape)
                    constant = inference and v.origin not in changing
                    phase = "constant" if constant else step.phase
                    rounding = Step("round_to_bfloat16", (v, rounded[v]), phase, node=step.node)
                    (constants if constant else steps).append(rounding)
                arguments[operand] = rounded[v]
            if (db := arguments.get("db")) is not None:  # a sum and no product: of dy as it is
                dy = step.named["dy"]
                steps.append(
                    Step("add_backward", (dy, shapes.elements(dy.shape), None, db), step.phase, node=step.node)
                )
                arguments["db"] = None
            step = replace(step, arguments=tuple(arguments.values()))
        steps.append(step)
        changed = {value.origin for value in step.outputs.values()}
        rounded = {v: own for v, own in rounded.items() if v.origin not in changed}
    return replace(plan, steps=tuple(steps), constants=tuple(constants))


def _unused(name: str, names: set[str]) -> str:
    """The name, or one like it that no array has; it is taken from then on."""
    while name in names:
        name += "'"
    names.add(name)
    return name
