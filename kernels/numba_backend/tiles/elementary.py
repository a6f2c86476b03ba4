"""Exponentials and their relatives as straight-line code that LLVM turns into vector instructions.

Each takes a float32 or float64 and answers in its type, within a few units in the last place everywhere: at ±0, ±inf
and NaN, in overflow and in gradual underflow. The polynomials are in `kernels.polynomials`.
"""

from __future__ import annotations

import numpy as np

from ...polynomials import (
    ERF_32,
    ERF_64,
    EXP_32,
    EXP_64,
    LOG1P_32,
    LOG1P_64,
    TAIL_DENOMINATOR_32,
    TAIL_DENOMINATOR_64,
    TAIL_LIMIT_32,
    TAIL_LIMIT_64,
    TAIL_NUMERATOR_32,
    TAIL_NUMERATOR_64,
)
from ..compiler.jit import exact
from .tile import reinterpret

LOG2_E = 1.4426950408889634
# log 2 in two parts; the first is so short that its product with the exponent is exact.
LOG_2_HIGH_32, LOG_2_LOW_32 = 0.693359375, -0.00021219444005469057
LOG_2_HIGH_64, LOG_2_LOW_64 = 0.6931471803691238, 1.9082149292705877e-10
# Added to a number, these leave it rounded to an integer in the last bits of the sum.
ROUND_32, ROUND_BITS_32 = 12582912.0, 0x4B400000
ROUND_64, ROUND_BITS_64 = 6755399441055744.0, 0x4338000000000000
# The bits of √½, and what takes denormals to normal numbers, as a factor and as an exponent.
ROOT_BITS_32, NORMAL_32, NORMAL_EXPONENT_32 = 0x3F3504F3, 2.0**23, 23
ROOT_BITS_64, NORMAL_64, NORMAL_EXPONENT_64 = 0x3FE6A09E667F3BCD, 2.0**52, 52


@exact
def single(x):
    """Whether x is a float32. The compiler knows the answer and drops the other branch."""
    real = type(x)
    return real(1 + 1e-9) == real(1)


@exact
def polyval(coefficients, x):
    """The polynomial at x, highest power first."""
    real = type(x)
    y = real(coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + real(coefficient)
    return y


@exact
def _reduce(x, low):
    """(eʳ − 1, 2ʰ, 2ⁿ⁻ʰ) with x + low = n log 2 + r. Two powers, since one reaches neither end of the range."""
    real = type(x)
    if single(x):
        x = real(-105) if x < real(-105) else x
        x = real(89) if x > real(89) else x
        n = np.int32(reinterpret(np.float32(x * real(LOG2_E) + real(ROUND_32))) - np.int32(ROUND_BITS_32))
        r = ((x - real(n) * real(LOG_2_HIGH_32)) - real(n) * real(LOG_2_LOW_32)) + low
        h = np.int32(n >> np.int32(1))
        first = real(reinterpret(np.int32(np.int32(h + np.int32(127)) << np.int32(23))))
        second = real(reinterpret(np.int32(np.int32(n - h + np.int32(127)) << np.int32(23))))
        return polyval(EXP_32, r) * r * r + r, first, second
    x = real(-746) if x < real(-746) else x
    x = real(710) if x > real(710) else x
    n = reinterpret(np.float64(x * real(LOG2_E) + real(ROUND_64))) - np.int64(ROUND_BITS_64)
    # By way of int32: only AVX-512 converts vectors of int64.
    r = ((x - real(np.int32(n)) * real(LOG_2_HIGH_64)) - real(np.int32(n)) * real(LOG_2_LOW_64)) + low
    h = n >> np.int64(1)
    first = real(reinterpret(np.int64((h + np.int64(1023)) << np.int64(52))))
    second = real(reinterpret(np.int64((n - h + np.int64(1023)) << np.int64(52))))
    return polyval(EXP_64, r) * r * r + r, first, second


@exact
def exp(x):
    """eˣ."""
    q, first, second = _reduce(x, type(x)(0))
    return (type(x)(1) + q) * first * second


@exact
def expm1_negative(x):
    """eˣ − 1 for x <= 0, accurate near zero, and a zero for a zero."""
    q, first, second = _reduce(x, type(x)(0))
    power = first * second
    return np.copysign(q * power + (power - type(x)(1)), x)


@exact
def log(x):
    """log x: −∞ at 0, NaN below."""
    real = type(x)
    if single(x):
        small = x < real(2.0**-126)
        bits = reinterpret(np.float32(x * (real(NORMAL_32) if small else real(1))))
        n = np.int32((bits - np.int32(ROOT_BITS_32)) >> np.int32(23))
        m = real(reinterpret(np.int32(bits - np.int32(n << np.int32(23)))))
        exponent = real(n) - (real(NORMAL_EXPONENT_32) if small else real(0))
        high, low = exponent * real(LOG_2_HIGH_32), exponent * real(LOG_2_LOW_32)
    else:
        small = x < real(2.0**-1022)
        bits = reinterpret(np.float64(x * (real(NORMAL_64) if small else real(1))))
        n = (bits - np.int64(ROOT_BITS_64)) >> np.int64(52)
        m = real(reinterpret(np.int64(bits - (n << np.int64(52)))))
        exponent = real(np.int32(n)) - (real(NORMAL_EXPONENT_64) if small else real(0))
        high, low = exponent * real(LOG_2_HIGH_64), exponent * real(LOG_2_LOW_64)
    # m is in [√½, √2): its logarithm is twice the area tangent of (m − 1) / (m + 1).
    s = (m - real(1)) / (m + real(1))
    t = s * s
    q = polyval(LOG1P_32, t) if single(x) else polyval(LOG1P_64, t)
    value = high + ((s + s) + ((s + s) * t * q + low))
    value = value if x < real(np.inf) else x
    return value if x > real(0) else real(-np.inf) if x == real(0) else real(np.nan)


@exact
def bfloat16_bits(x):
    """The bfloat16 number next to x as the bits of a float32: `kernels.numpy_backend.precision` says how."""
    bits = np.float32(x).view(np.int32)
    last = np.int32(bits >> np.int32(16)) & np.int32(1)
    rounded = np.int32(bits + np.int32(0x7FFF) + last) & np.int32(-65536)
    nan = np.int32(bits & np.int32(-65536)) | np.int32(0x400000)  # whose upper half could be that of an infinity
    return np.int32(rounded) if x == x else np.int32(nan)


@exact
def bfloat16(x):
    """The bfloat16 number next to x, in x's type."""
    return type(x)(bfloat16_bits(x).view(np.float32))


@exact
def bfloat16_pair(first, second):
    """Two numbers of float32 rounded to bfloat16, in the place of one: what `tile_fma` of pairs multiplies."""
    lower = np.int32(bfloat16_bits(first) >> np.int32(16)) & np.int32(0xFFFF)
    return np.int32(bfloat16_bits(second) | np.int32(lower)).view(np.float32)


@exact
def erf(x):
    """2/√π ∫₀ˣ e^(−t²) dt."""
    real = type(x)
    coefficients = polyval(ERF_32, x * x) if single(x) else polyval(ERF_64, x * x)
    tail, _ = normal(real(-(2.0**0.5)) * abs(x))
    return x * coefficients if abs(x) <= real(1) else np.copysign(real(1) - real(2) * tail, x)


@exact
def log1p_unit(e):
    """log(1 + e) for 0 <= e <= 1: twice the area tangent of e / (2 + e), hence no range reduction."""
    s = e / (type(e)(2) + e)
    t = s * s
    q = polyval(LOG1P_32, t) if single(e) else polyval(LOG1P_64, t)
    return (s + s) + (s + s) * t * q


@exact
def sigmoid(x):
    """1 / (1 + e⁻ˣ)."""
    one = type(x)(1)
    e = exp(-abs(x))
    return (one if x >= 0 else e) / (one + e)


@exact
def tanh(x):
    """(1 − e⁻²ˣ) / (1 + e⁻²ˣ), computed for |x|."""
    two = type(x)(2)
    e = expm1_negative(-two * abs(x))
    return np.copysign(e / (e + two), x)


@exact
def softplus(x):
    """log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|)."""
    zero = type(x)(0)
    return (x if x > zero else zero) + log1p_unit(exp(-abs(x)))


@exact
def normal(x):
    """(Φ(x), e^(−x²/2)): the standard normal distribution function and its density times √(2π)."""
    real = type(x)
    limit = real(TAIL_LIMIT_32) if single(x) else real(TAIL_LIMIT_64)
    z = limit if abs(x) > limit else abs(x)
    # The square of z would be rounded, and far out the exponential magnifies that: square a short part exactly.
    if single(x):
        short = real(reinterpret(np.int32(reinterpret(np.float32(z)) & np.int32(-4096))))
    else:
        short = real(reinterpret(np.int64(reinterpret(np.float64(z)) & np.int64(-(1 << 27)))))
    q, first, second = _reduce(real(-0.5) * short * short, real(-0.5) * (z - short) * (z + short))
    e = (real(1) + q) * first * second
    if single(x):
        tail = e * (polyval(TAIL_NUMERATOR_32, z) / polyval(TAIL_DENOMINATOR_32, z))
    else:
        tail = e * (polyval(TAIL_NUMERATOR_64, z) / polyval(TAIL_DENOMINATOR_64, z))
    return (real(1) - tail if x > 0 else tail), e
