"""Arithmetic of two arrays, their gradients, and means."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import AxisDims, BroadcastDims
from .compiler.jit import inline, kernel, prange
from .tiles.chunks import CHUNK, chunk, chunks, run
from .tiles.strided import (
    ADD,
    DIVIDE,
    MULTIPLY,
    SUBTRACT,
    Axes,
    combine,
    combine_equal,
    copy,
    merged,
    moved,
    repeated,
    steps,
)
from .tiles.strips import add_up, add_up_products, joined, parts, period, span
from .tiles.tile import flat, given

__all__ = [
    "add",
    "add_backward",
    "add_backward_scratch",
    "divide",
    "divide_backward",
    "divide_backward_scratch",
    "mean",
    "mean_backward",
    "multiply",
    "multiply_backward",
    "multiply_backward_scratch",
    "subtract",
    "subtract_backward",
    "subtract_backward_scratch",
]


# Arithmetic -------------------------------------------------------------------------------------------------------


def add(a: Input, b: Input, y: Output) -> None:
    _arithmetic(ADD, a, b, y)


def subtract(a: Input, b: Input, y: Output) -> None:
    _arithmetic(SUBTRACT, a, b, y)


def multiply(a: Input, b: Input, y: Output) -> None:
    _arithmetic(MULTIPLY, a, b, y)


def divide(a: Input, b: Input, y: Output) -> None:
    _arithmetic(DIVIDE, a, b, y)


def _arithmetic(operation: int, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    if a.size == b.size == y.size:
        run(combine_equal, y.size, operation, a.reshape(-1), b.reshape(-1), y.reshape(-1))
        return
    sizes, a_steps, b_steps = merged(y.shape, repeated(a.shape, y.shape), repeated(b.shape, y.shape))
    left, right = (a.reshape(-1), a_steps), (b.reshape(-1), b_steps)
    if operation in (ADD, MULTIPLY) and a_steps[-1] == 0:
        left, right = right, left
    run(combine, y.size, operation, *left, *right, sizes, y.reshape(-1))


# Sums over an axis ------------------------------------------------------------------------------------------------


@inline
def sums_of(x, times, start, stop, period, after, zeros, sums, at):
    """Where the sums lie: Σ x, or Σ x times, over start:stop, by place in `after`."""
    if given(times):
        if after > 1:
            add_up_products(x, times, start, stop, period, after, zeros, sums, at)
            at += period
        else:
            total = x[start] * times[start]
            for i in range(start + 1, stop):
                total += x[i] * times[i]
            sums[at] = total
    elif after > 1:
        add_up(x, start, stop, period, after, sums, at)
    else:
        total = x[start]
        for i in range(start + 1, stop):
            total += x[i]
        sums[at] = total
    return at


@kernel(optional={"times": 1})
def _total(x, times, axis, cut, divisor, y):
    """y = Σ x, or Σ x times, over an axis (before, size, after), by divisor.

    cut: (parts of the axis, elements of a part, axes that one piece of work takes, the period).
    """
    (before, size, after), (many, length, together, period) = axis, cut
    rows, whole = before * many, size * after
    sums = np.empty(((rows + together - 1) // together, 2, period), x.dtype)
    zeros = np.empty(period, x.dtype)
    for i in range(period):
        zeros[i] = 0
    for item in prange(sums.shape[0]):
        for row in range(item * together, min((item + 1) * together, rows)):
            end = (row // many + 1) * whole
            start = end - whole + row % many * length
            bounds = start, min(start + length, end)
            place = item * 2 * period
            found = sums_of(flat(x), flat(times), *bounds, period, after, flat(zeros), flat(sums), place)
            if many == 1:
                for i in range(after):
                    y[row * after + i] = flat(sums)[found + i] / divisor
    if many > 1:
        which = 1 if times.size and after > 1 else 0
        for row in range(before):
            for i in range(after):
                y[row * after + i] = joined(sums[row * many : (row + 1) * many], which, i) / divisor


def _sum(x: np.ndarray, times: np.ndarray | None, axis: Axes, divisor: float, y: np.ndarray) -> None:
    """y = Σ x, or Σ x times, over an axis (before, size, after), by divisor."""
    _, size, after = axis
    many = parts(size * after, after)
    together = 1 if many > 1 else max(1, 4 * CHUNK // (size * after))
    cut = many, span(size * after, after), together, period(after)
    run(_total, x.size, x.reshape(-1), None if times is None else times.reshape(-1), axis, cut, divisor, y.reshape(-1))


def mean(x: Input, d: AxisDims, y: Output) -> None:
    _sum(x, None, (len(x) * d.before, d.size, d.after), float(d.size), y)


def mean_backward(dy: Input, d: AxisDims, dx: Output) -> None:
    _copy(dy, (len(dy) * d.before, d.size, d.after), (d.after, 0, 1), d.size, dx)


def _copy(x: np.ndarray, sizes: Axes, x_steps: Axes, divisor: int, y: np.ndarray) -> None:
    """y = x / divisor; the sizes are y's."""
    sizes, x_steps, y_steps = moved(sizes, x_steps, steps(sizes))
    run(copy, y.size, x.reshape(-1), 0, x_steps, sizes, divisor, y.reshape(-1), 0, y_steps)


# Gradients --------------------------------------------------------------------------------------------------------


def add_backward_scratch(d: BroadcastDims, n: int) -> int:
    """Terms, and sums over one of several axes."""
    return n * d.size + n * d.size // 2


subtract_backward_scratch = multiply_backward_scratch = divide_backward_scratch = add_backward_scratch


def add_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
    if da is not None:
        _sum_to(dy, None, 1, scratch, da)
    if db is not None:
        _sum_to(dy, None, 1, scratch, db)


def subtract_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
    if da is not None:
        _sum_to(dy, None, 1, scratch, da)
    if db is not None:
        _sum_to(dy, None, -1, scratch, db)


def multiply_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    if da is not None:
        _gradient(MULTIPLY, dy, b, 1, scratch, da)
    if db is not None:
        _gradient(MULTIPLY, dy, a, 1, scratch, db)


def divide_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    if da is not None:
        _gradient(DIVIDE, dy, b, 1, scratch, da)
    if db is not None:
        _gradient(MULTIPLY, dy, a, 1, scratch, db)
        run(_divide_twice, db.size, b.reshape(-1), db.reshape(-1))


@kernel(strict=True)
def _divide_twice(b, db):
    """db = −db / b / b."""
    for c in prange(chunks(db)):
        products, divisors = chunk(db, c), chunk(b, c)
        for i in range(products.size):
            products[i] = -(products[i] / divisors[i] / divisors[i])


def _gradient(
    operation: int, dy: np.ndarray, other: np.ndarray, divisor: int, scratch: np.ndarray, out: np.ndarray
) -> None:
    """out = dy operation other, summed over the places where out's own array was repeated."""
    if out.size == dy.size:
        _arithmetic(operation, dy, other, out.reshape(dy.shape))
    elif operation == MULTIPLY and other.size == dy.size:
        _sum_to(dy, other, divisor, scratch, out)
    else:
        terms = scratch[: dy.size].reshape(dy.shape)
        _arithmetic(operation, dy, other, terms)
        _sum_to(terms, None, divisor, scratch, out)


def _sum_to(x: np.ndarray, times: np.ndarray | None, divisor: int, scratch: np.ndarray, out: np.ndarray) -> None:
    """out = Σ x, or Σ x times, by divisor, over the places where an array of out's shape is repeated."""
    axes = _repeated_axes(x.shape, out.shape)
    if not axes:
        _copy(x, (1, 1, x.size), (0, 0, 1), divisor, out)
    whole = x.size
    for turn, axis in enumerate(axes):
        before, _, after = axis
        last = turn == len(axes) - 1
        at = 0 if turn % 2 else whole  # where terms lay that are summed up, or behind them
        sums = out if last else scratch[at : at + before * after]
        _sum(x, times, axis, float(divisor) if last else 1.0, sums)
        x, times = sums, None


@lru_cache(maxsize=4096)
def _repeated_axes(sizes: Axes, shape: Axes) -> list[Axes]:
    """The axes (before, size, after) over which an array of this shape is repeated, from the last on."""
    kept, own = merged(sizes, repeated(shape, sizes))
    left = [[size, step] for size, step in zip(kept, own, strict=True) if size > 1]
    found = []
    for at in range(len(left) - 1, -1, -1):
        size, step = left[at]
        if step == 0:
            before, after = (math.prod(size for size, _ in part) for part in (left[:at], left[at + 1 :]))
            found.append((before, size, after))
            left[at][0] = 1
    return found
