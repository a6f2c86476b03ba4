"""What `twinkernels bench` prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import gate
from .measure import Measured
from .timing import Interval

HEADINGS = (
    "case",
    "contestant",
    "µs",
    "speed-up [99 %]",
    "GFLOP/s",
    "GB/s",
    "of limit",
    "compiling, s",
    "memory, MB",
    "error, ulp",
    "of budget",
)


def row(line: Measured) -> list[str]:
    """Of HEADINGS, and what an older revision took where that was asked."""
    case = line.case if line.dtype == "float32" else f"{line.case} {line.dtype}"
    if line.missing:
        return [case, line.contestant, "", f"left out: {line.missing}", *[""] * 7]
    return [
        case,
        line.contestant,
        f"{line.seconds * 1e6:,.1f}",
        "" if line.speedup is None else str(line.speedup),
        f"{line.flops / line.seconds / 1e9:,.1f}" if line.flops else "",
        f"{line.bytes / line.seconds / 1e9:,.1f}",
        "" if line.limit is None else f"{line.limit / line.seconds:.0%}",
        f"{line.compiling:.2f}",
        "" if line.memory is None else f"{line.memory / 1e6:,.1f}",
        f"{line.error:.3g}",
        f"{line.share:.0%}" if math.isfinite(line.share) else "WRONG",
    ]


def rows(lines: Sequence[Measured]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headings and rows."""
    older = any(line.older is not None for line in lines)
    found = [row(line) + ([str(line.older or "")] if older else []) for line in lines]
    return HEADINGS + (("older / this",) if older else ()), found


def complaints(lines: Sequence[Measured], older: Mapping[str, Interval] | None = None) -> list[str]:
    """A line for everything that is wrong: errors beyond their budgets, and what is slower than it was.

    older: speed-ups by id, as another run has kept them.
    """
    found = []
    for line in lines:
        if line.wrong:
            found.append(f"{line.id}: the error takes {line.share:.3g} times its budget")
        if line.older is not None and line.older.high < gate.NEAR:
            found.append(f"{line.id}: the older one takes {line.older} of its time")
        before = (older or {}).get(line.id)
        if before is not None and line.speedup is not None and line.speedup.high < gate.NEAR * before.low:
            found.append(f"{line.id}: speed-up {line.speedup}, it was {before}")
    return found


def kept(path: Path) -> dict[str, Interval]:
    """Speed-ups by id of a file that `--json` wrote. ValueError where it is none."""
    try:
        lines: Any = json.loads(path.read_text(encoding="utf-8"))["lines"]
        return {
            Measured(line["case"], line["contestant"], line["dtype"]).id: Interval(*line["speedup"])
            for line in lines
            if line["speedup"] is not None
        }
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no file that twinkernels bench --json has written") from None
