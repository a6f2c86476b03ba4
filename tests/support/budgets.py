"""How far the backends may be apart, kernel by kernel, and how far they are: `python -m tests.support.budgets`.

Over every case of the table, in both dtypes, the Numba kernel's error is held against its budget, and the worst of each
kernel is written into docs/determinism.md. A test holds the page's kernels and budgets against this file.
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

import kernels
from benchmarks.suite.cases import CASES, Case, select
from benchmarks.suite.common import record
from kernels.numba_backend.tiles.tile import VECTOR_BYTES

from .conformance import MODULES, closeness, execute, reduction_length

PAGE = Path(__file__).parents[2] / "docs" / "determinism.md"
START, END = "<!-- budgets -->\n", "<!-- /budgets -->\n"
HEAD = "| kernel | dtype | budget | NumPy's error | largest seen | of its budget |\n|---|---|---:|---:|---:|---:|\n"

ULPS = {"float32": 4.0, "float64": 16.0}
"""Of rounding, times √n for n terms in the longest sum; in float32 4 times NumPy's own error comes on top."""


class Seen(NamedTuple):
    """A kernel's errors over its cases, in ulp of the output's scale; used: the largest share of a budget."""

    baseline: float
    error: float
    used: float


def cases(kernel: str, dtype: str) -> list[Case]:
    """Those that a dtype is tested on: the large ones in float32 alone."""
    bench = select(tag="bench")
    return [case for case in CASES if case.kernel == kernel and (dtype == "float32" or case not in bench)]


def budget(kernel: str, dtype: str) -> str:
    """The budget in words."""
    terms = max(reduction_length(record(case, dtype)) for case in cases(kernel, dtype))
    rounding = f"{ULPS[dtype]:g}" if terms == 1 else f"{ULPS[dtype]:g} √n, n ≤ {terms:,}"
    return f"4 e + {rounding}" if dtype == "float32" else rounding


def measure(kernel: str, dtype: str) -> Seen | None:
    """The worst of all cases; None for a kernel without outputs of floats."""
    worst = Seen(0.0, 0.0, 0.0)
    found = False
    for case in cases(kernel, dtype):
        call = record(case, dtype)
        definition = execute(MODULES["numpy"], call)
        truth = execute(MODULES["numpy"], call.in_float64()) if dtype == "float32" else execute(MODULES["naive"], call)
        baseline = definition if dtype == "float32" else None
        twin = closeness(call, execute(MODULES["numba"], call), truth, ULPS[dtype], baseline)
        own = closeness(call, definition, truth, ULPS[dtype])
        for name, (error, allowed, ulp) in twin.items():
            found = True
            used = float(np.max(error / allowed, initial=0.0))
            worst = Seen(
                max(worst.baseline, _largest(own[name].error, ulp)),
                max(worst.error, _largest(error, ulp)),
                max(worst.used, used),
            )
    return worst if found else None


def _largest(error: np.ndarray, ulp: np.ndarray) -> float:
    return float(np.max(error / ulp, initial=0.0))


def line(kernel: str, dtype: str, seen: Seen | None) -> str:
    """A line of the table."""
    if seen is None:
        return f"| {kernel} | {dtype} | equal | | | |\n"
    share = f"{math.ceil(100 * seen.used)} %"
    return f"| {kernel} | {dtype} | {budget(kernel, dtype)} | {seen.baseline:.2f} | {seen.error:.2f} | {share} |\n"


def main() -> None:
    lines = [line(kernel, dtype, measure(kernel, dtype)) for kernel in kernels.kernel_names() for dtype in ULPS]
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    unit = f"{platform.machine()}, {8 * VECTOR_BYTES} bits a vector,"
    seen = f"\nSeen on {unit} with NumPy {version('numpy')} and Numba {version('numba')}.\n"
    PAGE.write_text(before + START + HEAD + "".join(lines) + seen + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
