"""Flow: every array of a plan is written once, by somebody, before it is read.

What a step does with its arrays is its kernel's rule, which `plan.Step` holds it to; this is what steps do to each
other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .plan import Plan, Step, Value

_NOBODY: Mapping[str, object] = {}


def check_flow(plan: Plan, kept: Collection[str], layers: Mapping[str, object] = _NOBODY) -> None:
    """Raise ValueError for a plan that reads what it has not, in one line with layer, kernel and parameter.

    kept: names of the arrays that hold something before the plan runs, and may be changed by it. layers: by node, for
    the message.
    """
    inputs = {value.origin for value in plan.inputs.values()}
    written: dict[Value, tuple[Step, str]] = {}
    parts: dict[Value, list[tuple[int, int]]] = {}
    own: dict[str, Value] = {}
    for step in (*plan.constants, *plan.steps):
        for name, value in step.inputs.items():
            if not (value.origin in written or value.origin in inputs or value.origin.name in kept):
                raise ValueError(f"{_at(step, layers)}: {name} is {value.name}, which nothing has written before")
        for name, value in (step.inputs | step.outputs).items():
            if value.origin.name in kept and own.setdefault(value.origin.name, value.origin) is not value.origin:
                raise ValueError(f"{_at(step, layers)}: {name} is another {value.name} than the model's own")
        _check_argmax(step, written, layers)
        for name, value in step.outputs.items():
            if value.origin in inputs:
                raise ValueError(
                    f"{_at(step, layers)}: {name} is {value.name}, an input of the plan, which is only read"
                )
            if name not in step.inputs and value.origin in written:
                before, _ = written[value.origin]
                raise ValueError(f"{_at(step, layers)}: {name} is {value.name}, which {before.name} has written before")
            if value.part is None or _completes(value, parts.setdefault(value.origin, [])):
                written[value.origin] = step, name
    for name, value in plan.outputs.items():
        if value.origin not in written and value.origin not in inputs:
            raise ValueError(f"plan: its output {name!r} is {value.name}, which nothing has written")


def _completes(value: Value, parts: list[tuple[int, int]]) -> bool:
    """Whether a part of a value is the last of it to be written, after these others."""
    assert value.part is not None
    start, end = value.part
    if any(start < other_end and other < end for other, other_end in parts):
        raise ValueError(f"plan: {value.name} is written in parts that overlap")
    parts.append(value.part)
    return sum(end - start for start, end in parts) == value.origin.shape[-1]


def _check_argmax(step: Step, written: Mapping[Value, tuple[Step, str]], layers: Mapping[str, object]) -> None:
    """Places in windows are followed without a look: they have to come from windows of the same geometry."""
    if "argmax" not in step.inputs:
        return
    value = step.inputs["argmax"]
    writer, name = written.get(value.origin, (step, ""))
    if name != "argmax" or _windows(writer) != _windows(step) or value.shape != value.origin.shape:
        raise ValueError(
            f"{_at(step, layers)}: argmax is {value.name}, expected what a max-pooling by the same d has written"
        )


def _windows(step: Step) -> object:
    return step.dims.get("pool", step.dims.get("d"))


def _at(step: Step, layers: Mapping[str, object]) -> str:
    layer = f" ({layers[step.node]})" if step.node in layers else ""
    return f"node {step.node!r}{layer}: kernel {step.name}" if step.node else f"kernel {step.name}"
