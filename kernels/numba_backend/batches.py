"""Around a plan's kernels: reading batches, keeping results."""

from __future__ import annotations

from ..interface import InPlace, Input, Output
from .compiler.jit import kernel, prange
from .tiles.chunks import run

__all__ = ["count_correct", "gather", "keep"]


@kernel
def _gather(x, order, batch, y):
    chosen = order[batch * y.shape[0] :]
    for i in prange(y.shape[0]):
        source, target = x[chosen[i]], y[i]
        for j in range(target.size):
            target[j] = source[j]


@kernel
def _gather_levels(x, order, batch, levels, y):
    chosen = order[batch * y.shape[0] :]
    for i in prange(y.shape[0]):
        source, target = x[chosen[i]], y[i]
        for j in range(target.size):
            target[j] = levels[source[j]]


@kernel
def _keep(value, batch, values):
    values[batch] = value[()]


@kernel
def _count_correct(output, labels, batch, counts):
    correct = 0
    for row in range(labels.size):
        best = 0
        for i in range(1, output.shape[1]):
            # Not "greater": a NaN is the maximum, the first of them.
            if not output[row, i] <= output[row, best] and output[row, best] == output[row, best]:
                best = i
        correct += best == labels[row]
    counts[batch] = correct


def gather(x: Input, order: Input, batch: int, levels: Input | None, y: Output) -> None:
    rows, filled = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if levels is None:
        run(_gather, y.size, rows, order, batch, filled)
    else:
        run(_gather_levels, y.size, rows, order, batch, levels, filled)


def keep(value: Input, batch: int, values: InPlace) -> None:
    _keep.alone(value, batch, values)


def count_correct(output: Input, labels: Input, batch: int, counts: InPlace) -> None:
    _count_correct.alone(output, labels, batch, counts)
