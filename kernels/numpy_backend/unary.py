"""Functions of one number, element by element."""

from __future__ import annotations

import math

import numpy as np

from .. import polynomials
from ..interface import Input, Output
from .activation import normal, polynomial, select

__all__ = [
    "absolute",
    "absolute_backward",
    "erf",
    "erf_backward",
    "exp",
    "exp_backward",
    "log",
    "log_backward",
    "negative",
    "negative_backward",
    "power",
    "power_backward",
    "reciprocal",
    "reciprocal_backward",
    "sqrt",
    "sqrt_backward",
]

silent = np.errstate(all="ignore")
"""Decorator: infinities of poles and NaN outside of a domain are answers, not accidents."""


@silent
def exp(x: Input, y: Output) -> None:
    np.exp(x, out=y)


@silent
def exp_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.multiply(dy, y, out=dx)


@silent
def log(x: Input, y: Output) -> None:
    np.log(x, out=y)


@silent
def log_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.divide(dy, x, out=dx)


@silent
def sqrt(x: Input, y: Output) -> None:
    np.sqrt(x, out=y)


@silent
def sqrt_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.divide(dy, 2 * y, out=dx)


def absolute(x: Input, y: Output) -> None:
    np.abs(x, out=y)


@silent
def absolute_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.multiply(dy, np.sign(x), out=dx)


def negative(x: Input, y: Output) -> None:
    np.negative(x, out=y)


def negative_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.negative(dy, out=dx)


@silent
def reciprocal(x: Input, y: Output) -> None:
    np.reciprocal(x, out=y)


@silent
def reciprocal_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.negative(dy, out=dx)
    dx *= y
    dx *= y


@silent
def power(x: Input, exponent: float, y: Output) -> None:
    # In float64: an exponent rounded to float32 would show in the result.
    np.power(x, exponent, out=y, dtype=np.float64, casting="same_kind")


@silent
def power_backward(dy: Input, x: Input, y: Input, exponent: float, dx: Output) -> None:
    if exponent == 0:
        dx.fill(0)
        return
    power(x, exponent - 1, dx)
    dx *= exponent
    dx *= dy


@silent
def erf(x: Input, y: Output) -> None:
    coefficients = polynomials.ERF_32 if x.dtype == np.float32 else polynomials.ERF_64
    near = x * polynomial(coefficients, np.square(x))
    # 1 − 2 Φ(−√2 |x|), which loses what is small near zero
    tail, _ = normal(-math.sqrt(2) * np.abs(x))
    np.copysign(1 - 2 * tail, x, out=y)
    select(np.abs(x) <= 1, near, y.copy(), y)


@silent
def erf_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.square(x, out=dx)
    np.negative(dx, out=dx)
    np.exp(dx, out=dx)
    dx *= 2 / math.sqrt(math.pi)
    dx *= dy
