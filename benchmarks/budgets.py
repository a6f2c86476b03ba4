"""The table of error budgets in docs/determinism.md, made of what `python -m tests.support.budgets` has kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kernels.accuracy import BASELINES, ULPS, rounding

from .text import table

KEPT = Path(__file__).parent / "results" / "budgets.json"
HEADINGS = ("kernel", "dtype", "budget", "NumPy's error", "largest seen", "of its budget")


class Seen(NamedTuple):
    """A kernel's errors over its cases, in ulp; share: the largest of a budget.

    terms: in the longest sum; None for a kernel without outputs of floats, which have to be equal.
    """

    kernel: str
    dtype: str
    terms: int | None
    baseline: float
    error: float
    share: float

    @property
    def budget(self) -> str:
        """The budget in words."""
        if self.terms is None:
            return "equal"
        bound = f"{rounding(1, self.dtype):g}"
        if self.terms > 1:
            bound = f"{ULPS[self.dtype]:g} (1 + √n), n ≤ {self.terms:,}"
        return f"{BASELINES:g} e + {bound}" if self.dtype == "float32" else bound


def keep(path: Path, machine: dict[str, Any], seen: Sequence[Seen]) -> None:
    """Write a file that `read` reads: a line a kernel and dtype."""
    lines = ",\n".join(json.dumps(list(line)) for line in seen)
    path.write_text(f'{{"machine": {json.dumps(machine)},\n"seen": [\n{lines}\n]}}\n', encoding="utf-8")


def read(path: Path = KEPT) -> tuple[dict[str, Any], list[Seen]]:
    """The machine, and what was seen there."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["machine"], [Seen(*line) for line in kept["seen"]]


def text(path: Path = KEPT) -> str:
    """The table and what it was measured on."""
    machine, seen = read(path)
    rows = []
    for line in seen:
        figures = ["", "", ""]
        if line.terms is not None:
            figures = [f"{line.baseline:.2f}", f"{line.error:.2f}", f"{math.ceil(100 * line.share)} %"]
        rows.append([line.kernel, line.dtype, line.budget, *figures])
    unit = f"{machine['machine']}, {machine['vector_bits']} bits a vector"
    versions = f"NumPy {machine['numpy']} and Numba {machine['numba']}"
    return f"{table(HEADINGS, rows, left=2)}\n\nSeen on {unit}, with {versions}."
