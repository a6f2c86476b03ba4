"""Plan: a model lowered to a straight line of kernel calls over named values.

A plan is data. It knows names, shapes and order, but holds no array and no backend; `execute` runs it. The batch
size is the symbol "N" in every shape, so one plan serves every batch. `print(plan)` is the listing of a whole
training step: forward, loss, backward in reverse, optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from kernels import rules, shapes
from kernels.interface import Kernel, Scalar, roles
from kernels.rules import BATCH as BATCH
from kernels.shapes import Shape, text


@dataclass(frozen=True, eq=False)
class Value:
    """One array of a plan: a name, a shape whose first axis may be "N", and where it lives.

    `dtype` None is the model's own. A value with a `base` is another shape of the same memory, or with a `part` the
    columns from the first of these to before the second of its base's last axis.

    Raises TypeError or ValueError for a shape that no array has, or that its base's memory does not fill.
    """

    name: str
    shape: Shape
    dtype: np.dtype | None = None
    base: Value | None = None
    part: tuple[int, int] | None = None
    origin: Value = field(init=False, repr=False)
    """The value whose memory this one is."""

    def __post_init__(self) -> None:
        sizes = tuple(self.shape)
        first = sizes[:1] if sizes[:1] == (BATCH,) else ()
        rest = (_size(self.name, size) for size in sizes[len(first) :])
        object.__setattr__(self, "shape", (*first, *rest))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", np.dtype(self.dtype))
        object.__setattr__(self, "origin", self if self.base is None else self.base.origin)
        if self.base is not None and self.base.part is not None:
            raise ValueError(f"value {self.name}: its base {self.base.name} is a part, expected a whole array")
        if self.base is not None and self.part is not None:
            start, end = self.part
            if not 0 <= start < end <= int(self.base.shape[-1]) or self.shape != (*self.base.shape[:-1], end - start):
                raise ValueError(
                    f"value {self.name}: shape {text(self.shape)} is not {self.part} of {text(self.base.shape)}"
                )
        elif self.base is not None and self._elements() != self.base._elements():
            raise ValueError(
                f"value {self.name}: shape {text(self.shape)} does not hold the elements of {text(self.base.shape)}"
            )

    def _elements(self) -> tuple[bool, int]:
        """Whether there are so many for each sample, or in all."""
        whole = self.shape[:1] == (BATCH,)
        return whole, math.prod(int(size) for size in self.shape[whole:])

    def sized(self, n: int) -> tuple[int, ...]:
        """The shape at batch size n."""
        return tuple(n if size == BATCH else int(size) for size in self.shape)


def _size(name: str, size: int | str) -> int:
    if isinstance(size, str):
        raise ValueError(f"value {name}: shape has {size!r}, expected sizes, and {BATCH!r} for the first alone")
    return shapes.integer(f"value {name}", "shape", size, 0)


UPDATES = ("statistics", "optimizer")
"""The phases that change the model; all others fill buffers and gradients alone."""

STEP = Scalar("step", int)
LEARNING_RATE = Scalar("learning_rate", float)

PARAMETERS, GRADIENTS = "parameters", "gradients"
"""The values that are all parameters, and all gradients by them, as one flat vector each."""


WEIGHTS = "weights"
"""The input of a plan that is how much each sample counts."""

AVERAGE = "average"
AVERAGE_MOMENTUM = Scalar("average_momentum", float)
"""The vector that is the parameters' moving average, and the weight of the new ones in it."""


def gradient_name(name: str) -> str:
    """The name of the gradient by a value."""
    return f"d{name}"


def state_name(name: str) -> str:
    """The name of a vector that the optimizer keeps."""
    return f"optimizer.{name}"


@cache
def given(kernel: str | Kernel) -> dict[str, str]:
    """The parameters that a step has arguments for, which are all but the scratch, each with its role."""
    return {name: role for name, role in roles(kernel).items() if role != "scratch"}


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call: the arguments in the contract's order, without scratch.

    A fused step carries the steps that it `replaces`, fused ones perhaps: they are its definition. `node` names the
    layer that wrote it; of a fused step, the first one forward whose steps it replaces; `nodes` are
    all of them.

    A step is held to its kernel's rule when it is made (`kernels.rules`), and what it writes has memory of its own:
    TypeError or ValueError.
    """

    kernel: str | Kernel
    arguments: tuple[Any, ...]
    phase: str
    replaces: tuple[Step, ...] = ()
    node: str = ""

    def __post_init__(self) -> None:
        rules.check(self.kernel, self.named)
        for name, value in (self.inputs | self.outputs).items():
            able = name == "y" and self.kernel in rules.WRITES_PARTS and self.named.get("residual") is None
            if value.part is not None and not able:
                raise ValueError(f"kernel {self.name}: {name} is {value.name}, a part; expected an array of its own")
        taken = {value.origin: name for name, value in self._of_role("input").items() if value is not None}
        for name, value in self.outputs.items():
            if value.origin in taken:
                other = taken[value.origin]
                raise ValueError(
                    f"kernel {self.name}: {name} is {value.name}, as {other} is; expected an array of its own"
                )
            taken[value.origin] = name

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel if isinstance(self.kernel, str) else self.kernel.name

    @property
    def nodes(self) -> tuple[str, ...]:
        """The layers that wrote it, or what it replaces, each once and in the forward's order."""
        own = (self.node,) if self.node else ()
        steps = reversed(self.replaces) if self.phase == "backward" else self.replaces
        return tuple(dict.fromkeys(node for step in steps for node in step.nodes)) or own

    @cached_property
    def named(self) -> dict[str, Any]:
        """The arguments by parameter name: made once, as `inputs` and `outputs` are, and nobody's to change."""
        return dict(zip(given(self.kernel), self.arguments, strict=True))

    def _of_role(self, *wanted: str) -> dict[str, Any]:
        by_role = given(self.kernel)
        return {name: value for name, value in self.named.items() if by_role[name] in wanted}

    @cached_property
    def inputs(self) -> dict[str, Value]:
        """Arrays that the kernel reads, by parameter name."""
        return {name: value for name, value in self._of_role("input", "in place").items() if value is not None}

    @cached_property
    def outputs(self) -> dict[str, Value]:
        """Arrays that the kernel writes, by parameter name."""
        return {name: value for name, value in self._of_role("output", "in place").items() if value is not None}

    @property
    def dims(self) -> dict[str, Any]:
        """Everything else: dims tuples and numbers, by parameter name."""
        return self._of_role("attribute")

    def expanded(self, available: Callable[[str], bool]) -> tuple[Step, ...]:
        """This step, or what it replaces where its kernel is not available."""
        if not self.replaces or available(self.name):
            return (self,)
        return tuple(inner for step in self.replaces for inner in step.expanded(available))

    def flops(self, n: int) -> int:
        """Useful floating-point operations of a contraction on n samples (an FMA counts two); 0 elsewhere.

        A fused step's are those of the steps that it replaces.
        """
        if self.replaces:
            return sum(step.flops(n) for step in self.replaces)
        macs = getattr(self.dims.get("d"), "macs", 0)
        gradients = [name for name in self.outputs if name in ("dx", "dw")]
        return int(2 * n * macs * (len(gradients) if self.name.endswith("_backward") else 1))

    def bytes(self, n: int, itemsize: int = 4) -> int:
        """Bytes of all arrays that the step reads or writes, each counted once a direction."""
        values = [*self.inputs.values(), *self.outputs.values()]
        return sum(math.prod(v.sized(n)) * (v.dtype.itemsize if v.dtype else itemsize) for v in values)

    def __str__(self) -> str:
        inputs = ", ".join(v.name for v in self.inputs.values())
        outputs = ", ".join(v.name for v in self.outputs.values())
        return f"{outputs} = {self.name}({inputs})"

    def definition(self) -> list[tuple[Step, str]]:
        """The steps that this one replaces and, below each, what that replaces: each with its indented line."""
        lines: list[tuple[Step, str]] = []
        for step in self.replaces:
            lines += [(step, f"    {step}"), *((inner, f"    {line}") for inner, line in step.definition())]
        return lines


@dataclass(frozen=True, repr=False)
class Plan:
    """Steps in the order of execution, over `inputs` that the caller fills and `outputs` that it reads.

    `constants` are steps that depend on parameters and running statistics alone. They run before the others, once and
    again when those have changed; what they write is kept between runs.
    """

    steps: tuple[Step, ...]
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    batch_size: int | None = None
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    constants: tuple[Step, ...] = ()

    @property
    def updates(self) -> int:
        """Where the steps begin that change parameters, statistics and optimizer state; the plan's end if none does."""
        return next((i for i, step in enumerate(self.steps) if step.phase in UPDATES), len(self.steps))

    def values(self) -> list[Value]:
        """Every value of the plan, bases before their other shapes, in order of first appearance."""
        seen: dict[Value, None] = {}
        mentioned = [
            *self.inputs.values(),
            *(v for s in (*self.constants, *self.steps) for v in s.arguments),
            *self.outputs.values(),
        ]
        for value in mentioned:
            chain = []
            while isinstance(value, Value):
                chain.append(value)
                value = value.base
            seen.update(dict.fromkeys(reversed(chain)))
        return list(seen)

    def flops(self, n: int | None = None) -> int:
        """Useful floating-point operations of the contractions, for n samples or the plan's batch."""
        return sum(step.flops(n or self.batch_size or 1) for step in self.steps)

    def expanded(self, available: Callable[[str], bool]) -> Plan:
        """The same plan in available kernels: fused steps whose kernel is not give way to what they replace.

        Kernels that hand values to each other, such as a fused forward and its backward, are available together or
        not at all.
        """
        steps = tuple(inner for step in self.steps for inner in step.expanded(available))
        read = {value for step in steps for value in step.inputs.values()}
        constants: list[Step] = []
        for step in reversed(self.constants):
            if not read.isdisjoint(step.outputs.values()):
                constants.insert(0, step)
                read.update(step.inputs.values())
        return replace(self, steps=steps, constants=tuple(constants))

    def __str__(self) -> str:
        n = self.batch_size or 1
        batch = f"batch of {n}" if self.batch_size else "a sample (N = 1)"
        count = f"{len(self.constants)} constants, " if self.constants else ""
        rows = [self._row("", step.phase, step, str(step)) for step in self.constants]
        for i, step in enumerate(self.steps):
            flops = f"{step.flops(n) / 1e6:,.2f}" if step.flops(n) else ""
            size = f"{step.bytes(n, self.dtype.itemsize) / 1e3:,.1f}"
            rows.append(self._row(str(i), step.phase, step, str(step), flops, size))
            rows += [self._row("", "", inner, line) for inner, line in step.definition()]
        total = sum(step.bytes(n, self.dtype.itemsize) for step in self.steps)
        rows.append(("", "", "total", "", f"{self.flops(n) / 1e6:,.2f}", f"{total / 1e3:,.1f}"))
        head = ("", "phase", "step", "shapes written", "MFLOP", "kB")
        return f"{count}{len(self.steps)} steps, {batch}, {self.dtype}\n" + table([head, *rows], right=(0, 4, 5))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return Listing(self)._repr_html_()

    def _row(self, number: str, phase: str, step: Step, line: str, flops: str = "", size: str = "") -> tuple[str, ...]:
        n = self.batch_size
        shapes = " ".join(text(v.sized(n) if n else v.shape) for v in step.outputs.values())
        return (number, phase, line, shapes, flops, size)


class Listing(str):
    """Lines of text that a prompt or a notebook shows as they are, where it echoes a value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        import html

        return f'<pre style="white-space: pre">{html.escape(self)}</pre>'


def table(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> Listing:
    """Rows of text as aligned columns, some of them to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return Listing("\n".join(line.rstrip() for line in lines))
