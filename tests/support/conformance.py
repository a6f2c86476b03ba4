"""One generic comparison of backends: the same fill-level call on each, every array argument compared.

`benchmarks.suite.common.record` turns a case of the table into the call that a backend receives. `execute` makes that
call on a backend in the way of `twinkernels.bench.calls`: outputs and scratch poisoned, every array between guards, and
nothing written outside the outputs. `assert_close` holds the results to the budget of `kernels.accuracy`.
"""

from __future__ import annotations

from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

import kernels
from kernels import Kernels
from kernels.accuracy import Call, Results, closeness
from kernels.interface import Backend, roles
from twinkernels.bench.arrays import POISONS as POISONS
from twinkernels.bench.calls import run

from . import naive

TWINS = [kernels.get(name) for name in kernels.names()]
"""The kernels of each backend, for tests that ask both of a case: what is true of it is then computed once."""

MODULES = {"naive": naive, **{name: kernels.get(name).backend for name in kernels.names()}}


def optional_outputs(kernel: str) -> list[str]:
    """The outputs that a caller may refuse by passing None."""
    hints = get_type_hints(getattr(Backend, kernel), include_extras=True)
    return [
        name
        for name, role in roles(kernel).items()
        if role == "output" and get_origin(hints[name]) is Union and type(None) in get_args(hints[name])
    ]


def execute(backend: Any, call: Call, poison: float = np.nan, shift: int = 0, omit: tuple[str, ...] = ()) -> Results:
    """Call the backend on copies and return every array it may write to.

    Asserts that inputs are unchanged bit for bit and that nothing was written beside any array. Outputs in
    `omit` are passed as None.
    """
    ran = run(call, getattr(backend, call.name), Kernels("", backend), poison, shift=shift, omit=omit)
    assert ran.returned is None, f"{call.name} returned {type(ran.returned).__name__}"
    assert not ran.faults, "; ".join(fault.text for fault in ran.faults)
    return ran.results


def assert_close(call: Call, got: Results, truth: Results, baseline: Results | None = None) -> None:
    """Every output within its budget, as `kernels.accuracy` has it."""
    for name, found in closeness(call, got, truth, baseline).items():
        where = f"{call.name}: {name}: {found.share:.3g} times its budget, {found.ulps:.3g} ulp"
        assert found.share <= 1.0, f"{where}; infinite where NaN, infinity or a whole number is wrong"
