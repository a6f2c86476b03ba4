"""One generic comparison of backends: the same fill-level call on each, every array argument compared.

`benchmarks.suite.common.record` turns a case of the table into the call that a backend receives. `execute` makes that
call on a backend with outputs and scratch poisoned, surrounds every array with guards, and checks that nothing was
written outside the outputs. `assert_close` holds the results to the budget of `kernels.accuracy`.
"""

from __future__ import annotations

from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

import kernels
from kernels import Kernels
from kernels.accuracy import SENTINEL, Call, Results, closeness
from kernels.interface import Backend, roles

from . import naive

GUARD = 32
"""Elements before and after every array that a kernel must leave alone."""

POISONS = (np.nan, 1e30)
"""What outputs and scratch hold on entry: a NaN shows in every sum, a number where NaN is the right answer."""

MODULES = {"naive": naive, **{name: kernels.get(name).backend for name in kernels.names()}}


def optional_outputs(kernel: str) -> list[str]:
    """The outputs that a caller may refuse by passing None."""
    hints = get_type_hints(getattr(Backend, kernel), include_extras=True)
    return [
        name
        for name, role in roles(kernel).items()
        if role == "output" and get_origin(hints[name]) is Union and type(None) in get_args(hints[name])
    ]


class _Guarded:
    """An array between two guards; `shift` moves it off every alignment but that of its elements."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, shift: int) -> None:
        size = int(np.prod(shape))
        self._whole = np.full(size + 2 * GUARD + shift, SENTINEL, dtype)
        self._before = GUARD + shift
        self._after = self._before + size
        self.array = self._whole[self._before : self._after].reshape(shape)

    def intact(self) -> bool:
        guards = np.concatenate([self._whole[: self._before], self._whole[self._after :]])
        return bool(np.all(guards == self._whole.dtype.type(SENTINEL)))


def execute(backend: Any, call: Call, poison: float = np.nan, shift: int = 0, omit: tuple[str, ...] = ()) -> Results:
    """Call the backend on copies and return every array it may write to.

    Asserts that inputs are unchanged bit for bit and that nothing was written beside any array. Outputs in
    `omit` are passed as None.
    """
    guarded: list[_Guarded] = []

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        guarded.append(_Guarded(shape, dtype, shift))
        return guarded[-1].array

    arguments = call.fresh(Kernels("", backend), allocate, poison, omit)
    with np.errstate(invalid="ignore"):
        returned = getattr(backend, call.name)(*arguments.values())
    assert returned is None, f"{call.name} returned {type(returned).__name__}"
    for guard in guarded:
        written = [name for name, value in arguments.items() if value is guard.array]
        assert guard.intact(), f"{call.name} wrote outside {', '.join(written)}"
    for name, before in call.arrays("input").items():
        assert arguments[name].tobytes() == before.tobytes(), f"{call.name} wrote to its input {name}"
    return {name: arguments[name] for name in call.arrays("output", "in place") if name not in omit}


def assert_close(call: Call, got: Results, truth: Results, baseline: Results | None = None) -> None:
    """Every output within its budget, as `kernels.accuracy` has it."""
    for name, found in closeness(call, got, truth, baseline).items():
        where = f"{call.name}: {name}: {found.share:.3g} times its budget, {found.ulps:.3g} ulp"
        assert found.share <= 1.0, f"{where}; infinite where NaN, infinity or a whole number is wrong"
