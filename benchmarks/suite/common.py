"""What the benchmarks share: a case as the call that a backend receives, and kernels compiled ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import kernels
from kernels import Kernels
from kernels.accuracy import Call
from kernels.interface import roles
from twinkernels.bench.errors import accuracy

from . import cases
from .cases import Case

# A case as a call of a backend -----------------------------------------------------------------------------------


class _Recorder:
    """A backend that keeps its arguments and fills nothing."""

    call: Call

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_scratch"):
            return lambda d, n: 0

        def keep(*arguments: Any) -> None:
            self.call = Call(name, dict(zip(roles(name), arguments, strict=True)))

        return keep


def record(case: Case, dtype: DTypeLike = np.float32, seed: int = 0) -> Call:
    """The call behind a case."""
    recorder = _Recorder()
    case.run(Kernels("recorder", recorder), dtype, seed)
    return recorder.call


def prepare(case_id: str, backend: str, dtype: DTypeLike = np.float32) -> Callable[[], Any]:
    """The call behind a case, ready to be timed; AssertionError where the backend's result is wrong."""
    call, k = record(cases.get(case_id), dtype), kernels.get(backend)
    if backend != "numpy":
        share = accuracy(call, k, kernels.get("numpy")).share
        assert share <= 1.0, f"{case_id} on {backend}: {share:.3g} times its error budget"
    run, _ = call.bind(k)
    run()
    return run


def compile_ahead(needed: Iterable[tuple[str, str]]) -> None:
    """Have the Numba kernels behind cases (id, dtype) compiled in as many processes as there are threads.

    Whatever cannot be is compiled by the benchmark that needs it, and fails there.
    """
    with contextlib.suppress(ImportError):  # no Numba, or a commit that compiles one kernel after the other
        from kernels.numba_backend.compiler.ahead import compile_for

        k = kernels.get("numba")
        compile_for(*(lambda c=c, d=d: record(cases.get(c), d).bind(k)[0]() for c, d in needed))


# Processes -------------------------------------------------------------------------------------------------------


def load() -> None:
    """Load what processes forked from this one would each load again; Numba's tables alone take 0.3 s."""
    for name in kernels.names():
        with contextlib.suppress(ImportError):
            kernels.get(name)
    with contextlib.suppress(ImportError):
        from numba.core.registry import cpu_target

        cpu_target.target_context.refresh()
