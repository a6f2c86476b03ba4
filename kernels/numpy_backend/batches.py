"""What stands around the kernels of a plan when it runs over a whole data set: reading batches, keeping results.

Of a data set and an order of its samples, `batch` counts batches of the size that the outputs have.
"""

from __future__ import annotations

import numpy as np

from ..interface import InPlace, Input, Output


def gather(x: Input, order: Input, batch: int, levels: Input | None, y: Output) -> None:
    """y[i] = x[order[batch · n + i]] for i < n = len(y), contiguous arrays of one dtype.

    With levels (256,) of y's dtype, x is uint8 and y[i] = levels[x[..]]: normalised as it is read.
    """
    chosen = x[order[batch * len(y) : (batch + 1) * len(y)]]
    y[...] = chosen if levels is None else levels[chosen]


def keep(value: Input, batch: int, values: InPlace) -> None:
    """values[batch] = value, which has no axes."""
    values[batch] = value


def count_correct(output: Input, labels: Input, batch: int, counts: InPlace) -> None:
    """counts[batch] = how many rows of output (N, C) have their first maximum, or their first NaN, at the label."""
    counts[batch] = np.count_nonzero(output.argmax(axis=1) == labels)
