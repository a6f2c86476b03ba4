"""Fully connected layers, and the sum over rows that every bias gradient and batch statistic needs."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import LinearDims

__all__ = ["linear", "linear_backward", "linear_backward_scratch", "linear_scratch"]

ROWS = 128
"""Rows that `sum_rows` adds in the arrays' own precision before it goes on in float64."""


def linear_scratch(d: LinearDims, n: int) -> int:
    return 0


def linear(x: Input, w: Input, b: Input | None, d: LinearDims, scratch: Scratch, y: Output) -> None:
    np.matmul(x, w, out=y)
    if b is not None:
        y += b


def linear_backward_scratch(d: LinearDims, n: int) -> int:
    return 0


def linear_backward(
    dy: Input,
    x: Input,
    w: Input,
    d: LinearDims,
    scratch: Scratch,
    dx: Output | None,
    dw: Output,
    db: Output | None,
) -> None:
    np.matmul(x.T, dy, out=dw)
    if db is not None:
        sum_rows(dy, db)
    if dx is not None:
        np.matmul(dy, w.T, out=dx)


def sum_rows(a: np.ndarray, out: np.ndarray, times: np.ndarray | None = None) -> None:
    """out = Σ a, or Σ a · times, over all axes but the last.

    Seen as ROWS long rows, an array is summed over them at the speed of memory; the short rest is summed in
    float64. Reducing (M, C) float32 along its first axis at once takes ten times as long for C = 16, and adds
    M numbers one after the other to a float32, with twenty times the error for M = 74,000.
    """
    channels = a.shape[-1]
    a = a.reshape(-1, channels)
    b = None if times is None else times.reshape(-1, channels)
    whole = len(a) - len(a) % ROWS
    if b is None:
        long_rows = np.add.reduce(a[:whole].reshape(ROWS, -1), axis=0)
        rest = a[whole:]
    else:
        long_rows = np.einsum("rl,rl->l", a[:whole].reshape(ROWS, -1), b[:whole].reshape(ROWS, -1))
        rest = a[whole:] * b[whole:]
    total = np.add.reduce(long_rows.reshape(-1, channels), axis=0, dtype=np.float64)
    total += np.add.reduce(rest, axis=0, dtype=np.float64)
    out[...] = total
