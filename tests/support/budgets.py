"""How far the backends may be apart, kernel by kernel, and how far they are.

`python -m tests.support.budgets` holds the Numba kernels' errors on every case of the table, in both dtypes, against
their budgets and keeps the worst of each kernel. `python -m benchmarks.pages` makes docs/determinism.md's table of it.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import kernels
from benchmarks import budgets
from benchmarks.suite.cases import CASES, Case, select
from benchmarks.suite.common import record
from kernels.accuracy import ULPS, closeness, reduction_length

from .conformance import MODULES, execute


def cases(kernel: str, dtype: str) -> list[Case]:
    """Those that a dtype is tested on: the large ones in float32 alone."""
    bench = select(tag="bench")
    return [case for case in CASES if case.kernel == kernel and (dtype == "float32" or case not in bench)]


def terms(kernel: str, dtype: str) -> int:
    """The longest sum of all cases."""
    return max(reduction_length(record(case, dtype)) for case in cases(kernel, dtype))


def measure(kernel: str, dtype: str) -> budgets.Seen:
    """The worst of all cases, in ulp of the outputs' scales."""
    worst = dict.fromkeys(("baseline", "error", "share"), 0.0)
    floats = False
    for case in cases(kernel, dtype):
        call = record(case, dtype)
        definition = execute(MODULES["numpy"], call)
        truth = execute(MODULES["numpy"], call.in_float64()) if dtype == "float32" else execute(MODULES["naive"], call)
        twin = closeness(
            call, execute(MODULES["numba"], call), truth, definition if dtype == "float32" else None
        ).values()
        own = closeness(call, definition, truth).values()
        floats = floats or any(array.dtype.kind == "f" for array in definition.values())
        found = {
            "baseline": max(output.ulps for output in own),
            "error": max(output.ulps for output in twin),
            "share": max(output.share for output in twin),
        }
        worst = {name: max(value, found[name]) for name, value in worst.items()}
    return budgets.Seen(kernel, dtype, terms(kernel, dtype) if floats else None, **worst)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and keep."""
    from kernels.numba_backend.tiles.tile import VECTOR_BYTES

    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m tests.support.budgets", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", type=Path, default=budgets.KEPT, metavar="FILE", help="instead of results/budgets.json"
    )
    options = parser.parse_args(arguments)
    machine = {
        "machine": platform.machine(),
        "vector_bits": 8 * int(VECTOR_BYTES),
        "numpy": version("numpy"),
        "numba": version("numba"),
    }
    budgets.keep(options.json, machine, [measure(kernel, dtype) for kernel in kernels.kernel_names() for dtype in ULPS])


if __name__ == "__main__":
    main()
