"""PlanBuilder: what layers, losses and optimizers write their kernel calls into."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from kernels.interface import Backend, Fused, Kernel, Scalar
from kernels.shapes import Shape, plain, text

from .plan import GRADIENTS, PARAMETERS, UPDATES, WEIGHTS, Step, Value, given, gradient_name

T = TypeVar("T")
U = TypeVar("U")

Backward = Callable[[Value], "Value | tuple[Value | None, ...] | None"]


class PlanBuilder:
    """Builds a plan: layers call `value` for new arrays and `call` for kernels.

    `training` tells layers which form to write. A layer's `lower` returns its output and, when training, a
    function from the output's gradient to its inputs' gradients that writes the backward calls.
    """

    def __init__(self, training: bool, seed: int = 0) -> None:
        self.training = training
        self.phase = "forward"
        self.steps: list[Step] = []
        self.node = ""
        self._seed = seed
        self._nodes = 0
        self._names = dict.fromkeys((PARAMETERS, GRADIENTS, WEIGHTS), 1)  # no layer's and no loss's own
        self._parameters: dict[Value, Value] = {}
        self._fixed: set[Value] = set()
        self._statistics: set[Value] = set()
        self._wanted: set[Value] = set()

    def enter(self, phase: str) -> None:
        """What is written next belongs to this phase, and to no node yet."""
        self.phase, self.node = phase, ""

    def begin(self, node: str) -> None:
        """The layer of this node is lowered next; its values take the node's name."""
        self.node = node
        self._nodes += 1

    def value(self, name: str, shape: Shape, dtype: np.dtype | None = None) -> Value:
        """A new array of the current node."""
        value = Value(self._unique(f"{self.node}.{name}" if self.node else name), tuple(shape), dtype)
        if 0 in value.shape:
            raise ValueError(f"value {value.name}: shape {text(value.shape)} has an empty axis")
        return value

    def like(self, value: Value, name: str = "y", dtype: np.dtype | None = None) -> Value:
        """A new array of the current node with another value's shape."""
        return self.value(name, value.shape, dtype)

    def view(self, value: Value, shape: Shape) -> Value:
        """The same memory in another shape; ValueError for one of other elements."""
        viewed = Value(value.name, tuple(shape), value.dtype, value.origin)
        if self.wants(value):
            self.want(viewed)
        return viewed

    def _unique(self, name: str) -> str:
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}'{self._names[name]}"

    def call(self, kernel: str | Kernel, *arguments: Any) -> None:
        """Append a step; the arguments stand in the contract's order, without scratch.

        Raises ValueError for an unknown kernel, and for shapes or dims that do not fit; TypeError for arguments too few
        or too many, for any that is no value of the plan where the kernel reads or writes an array, and for other kinds
        and dtypes than the kernel's.
        """
        arguments = tuple(map(plain, arguments))
        _check(kernel, arguments)
        self.steps.append(Step(kernel, arguments, self.phase, node=self.node))

    def parameters(self, shapes: Mapping[str, Shape], gradients: bool = True, trained: bool = True) -> SimpleNamespace:
        """The current node's parameters (or, without gradients, its running statistics) as values.

        Those that are not trained have gradients where a kernel cannot do without, and nobody reads them.
        """
        values = {}
        for name, shape in shapes.items():
            values[name] = self.value(name, shape)
            if gradients and not trained:
                self._fixed.add(values[name])
            elif gradients:
                self._parameters[values[name]] = Value(gradient_name(f"{self.node}.{name}"), shape)
                self.want(values[name])
            else:
                self._statistics.add(values[name])
        return SimpleNamespace(**values)

    def updates_last(self) -> tuple[Step, ...]:
        """The steps, those that change running statistics behind all that compute: a step can be given up until then.

        One stays where it is if a later step uses what it writes, or writes what it reads.
        """
        computing: list[Step] = []
        updating: list[Step] = []
        used: set[Value] = set()
        written: set[Value] = set()
        for step in reversed(self.steps):
            changed, read = set(step.outputs.values()), set(step.inputs.values())
            if step.phase in UPDATES:
                updating.append(step)
            elif changed & self._statistics and not changed & used and not read & written:
                updating.append(replace(step, phase="statistics"))
            else:
                computing.append(step)
                used |= read | changed
                written |= changed
        return tuple(reversed(computing)) + tuple(reversed(updating))

    def want(self, value: Value) -> None:
        """The loss's gradient by this value is needed."""
        self._wanted.add(value)

    def wants(self, value: Value) -> bool:
        """Whether the gradient by this value is needed."""
        return value in self._wanted

    def gradient(self, value: Value | None) -> Value | None:
        """An array for the loss's gradient by a value; None where nobody needs it."""
        if value is None or not (self.wants(value) or value in self._fixed):
            return None
        name = gradient_name(value.name)
        return self._parameters.get(value) or Value(self._unique(name), value.shape, value.dtype)

    def trained(self) -> dict[Value, Value]:
        """The gradient by each parameter."""
        return dict(self._parameters)

    def seed(self) -> int:
        """A number for the current node's own randomness, drawn from the model's seed."""
        sequence = np.random.SeedSequence(self._seed, spawn_key=(1, self._nodes))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)


# What is wrong with a call --------------------------------------------------------------------------------------


def _check(kernel: str | Kernel, arguments: Sequence[Any]) -> None:
    """Raise unless these are arguments for the kernel."""
    if isinstance(kernel, str):
        items = (vars(Backend) | vars(Fused)).items()
        known = [name for name, item in items if isinstance(item, staticmethod)]
        if kernel not in known:
            import difflib

            near = " or ".join(map(repr, difflib.get_close_matches(kernel, known)))
            meant = f"did you mean {near}?" if near else "kernels.kernel_names() lists them"
            raise ValueError(f"unknown kernel {kernel!r}; {meant}")
    elif not isinstance(kernel, Kernel):
        raise TypeError(f"kernel is {kernel!r}, expected the name of one or a kernels.Kernel")
    expected = given(kernel)
    name = kernel if isinstance(kernel, str) else kernel.name
    call = f"{name}({', '.join(map(_shown, arguments))}), expected {name}({', '.join(expected)})"
    roles = expected.items()
    if missing := _left_over(roles, arguments, lambda parameter, argument: _fits(parameter[1], argument)):
        names = " and ".join(parameter for parameter, _ in missing)
        raise TypeError(f"kernel {name} has no argument for {names}: {call}")
    if extra := _left_over(arguments, roles, lambda argument, parameter: _fits(parameter[1], argument)):
        raise TypeError(f"kernel {name} has no parameter for {' and '.join(map(_shown, extra))}: {call}")
    for (parameter, role), argument in zip(roles, arguments, strict=True):
        if role != "attribute" and not _fits(role, argument):
            raise TypeError(f"kernel {name}: {parameter} is {_shown(argument)}, expected a value of the plan: {call}")


def _left_over(many: Collection[T], few: Collection[U], fits: Callable[[T, U], bool]) -> list[T]:
    """Which of many find no partner among the few, both in their order; the last ones, where that cannot be told."""
    rest, alone = list(few), []
    for item in many if len(many) > len(few) else ():
        if rest and fits(item, rest[0]):
            rest.pop(0)
        else:
            alone.append(item)
    return list(many)[len(few) :] if rest else alone


def _fits(role: str, argument: Any) -> bool:
    """Whether an argument may stand where a kernel has a parameter of this role."""
    return argument is None or isinstance(argument, Value) != (role == "attribute")


def _shown(argument: Any) -> str:
    """An argument in an error: values and numbers as they are, whatever else by its type."""
    if isinstance(argument, Value | Scalar):
        return argument.name
    return repr(argument) if isinstance(argument, int | float | str | None) else type(argument).__name__
