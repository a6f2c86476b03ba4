"""Functions of one number, element by element: a pair of kernels that knows them by number, as in `activation`."""

from __future__ import annotations

import math

import numpy as np

from ..interface import Input, Output
from .compiler.jit import Flat, inline, kernel, prange, separate, serial
from .loss import exponentiate
from .tiles import elementary
from .tiles.chunks import CHUNK, chunks, run
from .tiles.strips import bounds
from .tiles.tile import flat

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

EXP, LOG, SQRT, ABSOLUTE, NEGATIVE, RECIPROCAL, POWER, ERF = range(8)


@serial
def magnify(x, start, exponent, sizes):
    """sizes = exponent log |x| from `start` on."""
    for i in range(sizes.size):
        sizes[i] = exponent * elementary.log(np.float64(abs(x[start + i])))


@inline
def raise_to(x, start, stop, exponent, y):
    """y = x to a power over start:stop, as IEEE 754 has it.

    For float32 in float64, since what a logarithm is off by is magnified, and by functions of their own: LLVM makes no
    vector code of everything in one. For float64 by the C library.
    """
    real = type(x[start])
    if exponent == 1:
        for i in range(start, stop):
            y[i] = x[i]
        return
    if exponent == 2:  # one rounding, as of the power itself
        for i in range(start, stop):
            y[i] = x[i] * x[i]
        return
    if not elementary.single(x[start]):
        for i in range(start, stop):
            y[i] = x[i] ** exponent
        return
    n = stop - start
    sizes = np.empty(n, np.float64)
    magnify(x, start, exponent, sizes)
    exponentiate(flat(sizes), n)
    if exponent == 0:
        for i in range(n):
            y[start + i] = real(1)
    elif exponent != np.floor(exponent):
        for i in range(n):
            outside = x[start + i] < real(0) and x[start + i] > real(-np.inf)
            y[start + i] = real(np.nan) if outside else real(sizes[i])
    elif exponent * 0.5 == np.floor(exponent * 0.5):
        for i in range(n):
            y[start + i] = real(sizes[i])
    else:
        for i in range(n):
            y[start + i] = np.copysign(real(sizes[i]), x[start + i])


@separate
def apply(number: int, x: Flat, start: int, stop: int, exponent: float, y: Flat) -> None:
    """y = a function of x over start:stop."""
    real = type(x[start])
    if number == EXP:
        for i in range(start, stop):
            y[i] = elementary.exp(x[i])
    elif number == LOG:
        for i in range(start, stop):
            y[i] = elementary.log(x[i])
    elif number == SQRT:
        for i in range(start, stop):
            y[i] = np.sqrt(x[i])
    elif number == ABSOLUTE:
        for i in range(start, stop):
            y[i] = abs(x[i])
    elif number == NEGATIVE:
        for i in range(start, stop):
            y[i] = -x[i]
    elif number == RECIPROCAL:
        for i in range(start, stop):
            y[i] = real(1) / x[i]
    elif number == POWER:
        raise_to(x, start, stop, exponent, y)
    else:  # ERF
        for i in range(start, stop):
            y[i] = elementary.erf(x[i])


@separate
def apply_backward(number: int, dy: Flat, x: Flat, y: Flat, start: int, stop: int, exponent: float, dx: Flat) -> None:
    """dx of a function over start:stop."""
    real = type(x[start])
    if number == EXP:
        for i in range(start, stop):
            dx[i] = dy[i] * y[i]
    elif number == LOG:
        for i in range(start, stop):
            dx[i] = dy[i] / x[i]
    elif number == SQRT:
        for i in range(start, stop):
            dx[i] = dy[i] / (real(2) * y[i])
    elif number == ABSOLUTE:
        for i in range(start, stop):
            # As a product, so that a NaN of x stays.
            dx[i] = dy[i] * (real(1) if x[i] > 0 else real(-1) if x[i] < 0 else x[i])
    elif number == NEGATIVE:
        for i in range(start, stop):
            dx[i] = -dy[i]
    elif number == RECIPROCAL:
        for i in range(start, stop):
            dx[i] = -dy[i] * y[i] * y[i]
    elif number == POWER:
        raise_to(x, start, stop, exponent - 1, dx)
        for i in range(start, stop):
            dx[i] = dy[i] * (real(exponent) * dx[i]) if exponent != 0 else real(0)
    else:  # ERF
        for i in range(start, stop):
            dx[i] = dy[i] * (real(2 / math.sqrt(math.pi)) * elementary.exp(-(x[i] * x[i])))


@kernel
def _apply(x, number, exponent, y):
    for c in prange(chunks(x)):
        start, stop = bounds(c, CHUNK, x.size)
        apply(number, flat(x), start, stop, exponent, flat(y))


@kernel
def _apply_backward(dy, x, y, number, exponent, dx):
    for c in prange(chunks(x)):
        start, stop = bounds(c, CHUNK, x.size)
        apply_backward(number, flat(dy), flat(x), flat(y), start, stop, exponent, flat(dx))


def forward(number: int, x: Input, y: Output, exponent: float = 0.0) -> None:
    run(_apply, x.size, x.reshape(-1), number, float(exponent), y.reshape(-1))


def backward(number: int, dy: Input, x: Input, y: Input, dx: Output, exponent: float = 0.0) -> None:
    flat_ = dy.reshape(-1), x.reshape(-1), y.reshape(-1)
    run(_apply_backward, x.size, *flat_, number, float(exponent), dx.reshape(-1))


def exp(x: Input, y: Output) -> None:
    forward(EXP, x, y)


def exp_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(EXP, dy, x, y, dx)


def log(x: Input, y: Output) -> None:
    forward(LOG, x, y)


def log_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(LOG, dy, x, y, dx)


def sqrt(x: Input, y: Output) -> None:
    forward(SQRT, x, y)


def sqrt_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(SQRT, dy, x, y, dx)


def absolute(x: Input, y: Output) -> None:
    forward(ABSOLUTE, x, y)


def absolute_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(ABSOLUTE, dy, x, y, dx)


def negative(x: Input, y: Output) -> None:
    forward(NEGATIVE, x, y)


def negative_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(NEGATIVE, dy, x, y, dx)


def reciprocal(x: Input, y: Output) -> None:
    forward(RECIPROCAL, x, y)


def reciprocal_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(RECIPROCAL, dy, x, y, dx)


def power(x: Input, exponent: float, y: Output) -> None:
    forward(POWER, x, y, exponent)


def power_backward(dy: Input, x: Input, y: Input, exponent: float, dx: Output) -> None:
    backward(POWER, dy, x, y, dx, exponent)


def erf(x: Input, y: Output) -> None:
    forward(ERF, x, y)


def erf_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    backward(ERF, dy, x, y, dx)
