"""Arithmetic of two arrays, and means."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import AxisDims, BroadcastDims

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


def add(a: Input, b: Input, y: Output) -> None:
    np.add(a, b, out=y)


def add_backward_scratch(d: BroadcastDims, n: int) -> int:
    return 0


def add_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
    for gradient in (da, db):
        if gradient is not None:
            _sum_to(dy, gradient)


def subtract(a: Input, b: Input, y: Output) -> None:
    np.subtract(a, b, out=y)


def subtract_backward_scratch(d: BroadcastDims, n: int) -> int:
    return 0


def subtract_backward(dy: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None) -> None:
    add_backward(dy, d, scratch, da, db)
    if db is not None:
        np.negative(db, out=db)


def multiply(a: Input, b: Input, y: Output) -> None:
    np.multiply(a, b, out=y)


def multiply_backward_scratch(d: BroadcastDims, n: int) -> int:
    """Products."""
    return n * d.size


def multiply_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    if da is not None:
        _gradient(np.multiply, dy, b, scratch, da)
    if db is not None:
        _gradient(np.multiply, dy, a, scratch, db)


def divide(a: Input, b: Input, y: Output) -> None:
    with np.errstate(divide="ignore", over="ignore"):
        np.divide(a, b, out=y)


def divide_backward_scratch(d: BroadcastDims, n: int) -> int:
    """Quotients or products."""
    return n * d.size


def divide_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    with np.errstate(divide="ignore", over="ignore"):
        if da is not None:
            _gradient(np.divide, dy, b, scratch, da)
        if db is not None:
            _gradient(np.multiply, dy, a, scratch, db)
            db /= b
            db /= b
            np.negative(db, out=db)


@np.errstate(all="ignore")
def raise_to_power(a: Input, b: Input, y: Output) -> None:
    # In float64, as in `power`: what a logarithm is off by is magnified.
    np.power(a, b, out=y, dtype=np.float64, casting="same_kind")


def raise_to_power_backward_scratch(d: BroadcastDims, n: int) -> int:
    """Products."""
    return n * d.size


@np.errstate(all="ignore")
def raise_to_power_backward(
    dy: Input, a: Input, b: Input, d: BroadcastDims, scratch: Scratch, da: Output | None, db: Output | None
) -> None:
    base, exponent = a.astype(np.float64), b.astype(np.float64)
    if da is not None:
        slopes = np.where(b == 0, 0, exponent * base ** (exponent - 1))
        _gradient(np.multiply, dy, slopes, scratch, da)
    if db is not None:
        slopes = np.where((a == 0) & (b >= 0), 0, base**exponent * np.log(base))
        _gradient(np.multiply, dy, slopes, scratch, db)


def _gradient(function: np.ufunc, dy: np.ndarray, other: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> None:
    """out = function(dy, other), summed over the places where out's own array was repeated."""
    if out.shape == dy.shape:
        function(dy, other, out=out)
    else:
        terms = scratch[: dy.size].reshape(dy.shape)
        function(dy, other, out=terms)
        _sum_to(terms, out)


def _sum_to(x: np.ndarray, out: np.ndarray) -> None:
    """out = x, summed over the axes that out does not have, or has with size 1."""
    shape = (1,) * (x.ndim - out.ndim) + out.shape
    axes = tuple(axis for axis in range(x.ndim) if shape[axis] != x.shape[axis])
    np.sum(x, axis=axes, keepdims=True, out=out.reshape(shape))


def mean(x: Input, d: AxisDims, y: Output) -> None:
    np.mean(x.reshape(len(x), *d), axis=2, out=y.reshape(len(x), d.before, d.after))


def mean_backward(dy: Input, d: AxisDims, dx: Output) -> None:
    np.divide(dy.reshape(len(dy), d.before, 1, d.after), d.size, out=dx.reshape(len(dy), *d))
