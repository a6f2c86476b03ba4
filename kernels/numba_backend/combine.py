"""Joining branches."""

from __future__ import annotations

from ..interface import Input, Output
from .compiler.jit import kernel, prange
from .tiles.chunks import chunk, chunks, elementwise, rows, run

__all__ = ["add", "add_backward", "concat", "concat_backward"]


@elementwise
@kernel
def add(a: Input, b: Input, y: Output) -> None:
    for c in prange(chunks(y)):
        left, right, ys = chunk(a, c), chunk(b, c), chunk(y, c)
        for i in range(ys.size):
            ys[i] = left[i] + right[i]


@elementwise
@kernel
def add_backward(dy: Input, da: Output, db: Output) -> None:
    for c in prange(chunks(dy)):
        dys, left, right = chunk(dy, c), chunk(da, c), chunk(db, c)
        for i in range(dys.size):
            left[i] = dys[i]
            right[i] = dys[i]


@kernel
def _concat(a, b, y):
    for row in prange(y.shape[0]):
        left, right, ys = a[row], b[row], y[row]
        for i in range(left.size):
            ys[i] = left[i]
        for i in range(right.size):
            ys[left.size + i] = right[i]


@kernel
def _concat_backward(dy, da, db):
    for row in prange(dy.shape[0]):
        dys, left, right = dy[row], da[row], db[row]
        for i in range(left.size):
            left[i] = dys[i]
        for i in range(right.size):
            right[i] = dys[left.size + i]


def concat(a: Input, b: Input, y: Output) -> None:
    run(_concat, y.size, rows(a), rows(b), rows(y))


def concat_backward(dy: Input, da: Output, db: Output) -> None:
    run(_concat_backward, dy.size, rows(dy), rows(da), rows(db))
