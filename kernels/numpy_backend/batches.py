"""Around a plan's kernels: reading batches, keeping results."""

from __future__ import annotations

import numpy as np

from ..interface import InPlace, Input, Output

__all__ = ["count_correct", "gather", "keep"]


def gather(x: Input, order: Input, batch: int, levels: Input | None, y: Output) -> None:
    chosen = x[order[batch * len(y) : (batch + 1) * len(y)]]
    y[...] = chosen if levels is None else levels[chosen]


def keep(value: Input, batch: int, values: InPlace) -> None:
    values[batch] = value


def count_correct(output: Input, labels: Input, batch: int, counts: InPlace) -> None:
    counts[batch] = np.count_nonzero(output.argmax(axis=1) == labels)
