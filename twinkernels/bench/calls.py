"""One way to make a call: on arrays of its own, poisoned, between guards, and what is wrong with what it did."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kernels import Kernels
from kernels.accuracy import Call, Results

from .arrays import Guarded

Function = Callable[..., Any]


class Fault(NamedTuple):
    """What a check found: its name, and a line or more in words."""

    check: str
    text: str


@dataclass(frozen=True)
class Ran:
    """What a call did. results: of outputs and arrays in place, by name; returned: what it gave back."""

    results: Results
    returned: Any
    faults: tuple[Fault, ...]


def run(
    call: Call,
    function: Function,
    k: Kernels,
    poison: float = np.nan,
    *,
    shift: int = 0,
    gap: int = 0,
    read_only: bool = False,
    omit: Collection[str] = (),
) -> Ran:
    """Make a call on copies of its arguments.

    function: takes the arguments in the call's order. k: whose scratch it is. shift and gap: as in `Guarded`; arrays
    that do not lie as C does keep the order that they have. read_only: no input can be written.
    """
    guarded: list[Guarded] = []
    templates = iter(call.arrays("input", "in place", "output", "scratch").items())

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        template = next(value for name, value in templates if name not in omit)
        apart, fortran = _layout(template) if template.shape == shape else (0, False)
        guarded.append(Guarded(shape, dtype, shift, gap or apart, fortran and not gap))
        return guarded[-1].array

    arguments = call.fresh(k, allocate, poison, omit)
    inputs = call.arrays("input")
    if read_only:
        for name in inputs:
            arguments[name].flags.writeable = False
    with np.errstate(invalid="ignore"):
        returned = function(*arguments.values())
    faults = []
    for guard in guarded:
        if not guard.intact():
            names = ", ".join(name for name, value in arguments.items() if value is guard.array)
            faults.append(Fault("bounds", f"{call.name} wrote outside {names}"))
    for name, before in inputs.items():
        if arguments[name].tobytes() != before.tobytes():
            at = _first(arguments[name], before)
            faults.append(Fault("inputs", f"{call.name} wrote to its input {name}: {at}"))
    results = {name: arguments[name] for name in call.arrays("output", "in place") if name not in omit}
    return Ran(results, returned, tuple(faults))


def _layout(array: np.ndarray) -> tuple[int, bool]:
    """Elements between two neighbours of the last axis, and whether the first varies fastest."""
    if array.flags.c_contiguous:
        return 0, False
    return (0, True) if array.flags.f_contiguous else (1, False)


def _first(after: np.ndarray, before: np.ndarray) -> str:
    same = (after == before) | ((after != after) & (before != before))
    at = tuple(int(i) for i in np.argwhere(~same)[0]) if not same.all() else ()
    return f"{list(at)} was {before[at]}, is {after[at]}" if at else "a bit is another"
