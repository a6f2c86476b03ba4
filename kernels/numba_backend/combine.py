"""Arithmetic of two arrays, their gradients, and means."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import AxisDims, BroadcastDims
from .compiler.jit import Flat, inline, kernel, prange, separate, serial
from .loss import exponentiate
from .tiles import elementary
from .tiles.chunks import CHUNK, chunk, chunks, run
from .tiles.strided import (
    ADD,
    DIVIDE,
    MULTIPLY,
    SUBTRACT,
    Axes,
    Operands,
    combine,
    combine_equal,
    copy,
    cut,
    merged,
    moved,
    operands_at,
    piece,
    pieces,
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
    "raise_to_power",
    "raise_to_power_backward",
    "raise_to_power_backward_scratch",
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


# Powers -----------------------------------------------------------------------------------------------------------

POWER, BY_BASE, BY_EXPONENT = range(3)
"""aᵇ, and its derivatives by a and by b."""


@inline
def spread(x, lines, columns, at, line_step, column_step, wide):
    """A block's part of an operand in float64, side by side."""
    for line in range(lines):
        first = at + line * line_step
        for i in range(columns):
            wide[line * columns + i] = x[first + i * column_step]


@serial
def magnify(bases, exponents, less, sizes):
    """sizes = (exponent − less) log |base|."""
    for i in range(sizes.size):
        sizes[i] = (exponents[i] - less) * elementary.log(abs(bases[i]))


@serial
def as_ieee(bases, exponents, less, sizes):
    """sizes, which are |base|^(exponent − less), become the base's own power as IEEE 754 has it."""
    for i in range(sizes.size):
        base, exponent, size = bases[i], exponents[i] - less, sizes[i]
        half = exponent * 0.5
        whole = exponent == np.floor(exponent)
        size = np.copysign(size, base) if whole and half != np.floor(half) else size
        size = size if whole or not (base < 0) or base == -np.inf else np.nan
        one = exponent == 0 or base == 1 or (base == -1 and abs(exponent) == np.inf)
        sizes[i] = 1.0 if one else size


@serial
def c_powers(bases, exponents, less, sizes):
    """sizes = base^(exponent − less) by the C library."""
    for i in range(sizes.size):
        sizes[i] = bases[i] ** (exponents[i] - less)


@serial
def by_base(exponents, sizes):
    """sizes, which are base^(exponent − 1), become the derivative by the base."""
    for i in range(sizes.size):
        sizes[i] = exponents[i] * sizes[i] if exponents[i] != 0 else 0.0


@serial
def by_exponent(bases, exponents, sizes):
    """sizes, which are base^exponent, become the derivative by the exponent."""
    for i in range(sizes.size):
        none = bases[i] == 0 and exponents[i] >= 0
        sizes[i] = 0.0 if none else sizes[i] * elementary.log(bases[i])


@separate
def power_block(operation: int, a: Flat, b: Flat, block: Operands, y: Flat) -> None:
    """y = aᵇ or a derivative of it, of one block.

    For float32 in float64, since what a logarithm is off by is magnified, and by functions of their own, as in
    `unary.raise_to`.
    """
    real, count, less = type(a[0]), block.lines * block.columns, 1.0 if operation == BY_BASE else 0.0
    bases, exponents, sizes = np.empty(count, np.float64), np.empty(count, np.float64), np.empty(count, np.float64)
    spread(a, block.lines, block.columns, block.a, block.a_line, block.a_column, bases)
    spread(b, block.lines, block.columns, block.b, block.b_line, block.b_column, exponents)
    if elementary.single(a[0]):
        magnify(bases, exponents, less, sizes)
        exponentiate(flat(sizes), sizes.size)
        as_ieee(bases, exponents, less, sizes)
    else:
        c_powers(bases, exponents, less, sizes)
    if operation == BY_BASE:
        by_base(exponents, sizes)
    elif operation == BY_EXPONENT:
        by_exponent(bases, exponents, sizes)
    for line in range(block.lines):
        for i in range(block.columns):
            y[block.at + line * block.apart + i] = real(sizes[line * block.columns + i])


@kernel
def _powers(operation, a, a_steps, b, b_steps, sizes, y):
    """y = aᵇ or a derivative of it, over axes of these sizes."""
    rows, height, width = cut(sizes, False)
    for item in prange(pieces(sizes, rows, height, width)):
        row, last, column, columns = piece(item, sizes, rows, height, width)
        while row < last:
            block = operands_at(row, last, column, columns, a_steps, b_steps, sizes)
            power_block(operation, flat(a), flat(b), block, flat(y))
            row += block.lines


def _power(operation: int, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    sizes, a_steps, b_steps = merged(y.shape, repeated(a.shape, y.shape), repeated(b.shape, y.shape))
    run(_powers, y.size, operation, a.reshape(-1), a_steps, b.reshape(-1), b_steps, sizes, y.reshape(-1))


def raise_to_power(a: Input, b: Input, y: Output) -> None:
    _power(POWER, a, b, y)


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
raise_to_power_backward_scratch = add_backward_scratch


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


def raise_to_power_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    slopes = scratch[: dy.size].reshape(dy.shape)
    if da is not None:
        _power(BY_BASE, a, b, slopes)
        _gradient(MULTIPLY, dy, slopes, 1, scratch, da)
    if db is not None:
        _power(BY_EXPONENT, a, b, slopes)
        _gradient(MULTIPLY, dy, slopes, 1, scratch, db)


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
