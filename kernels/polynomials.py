"""Coefficients of the elementary functions that vector code evaluates itself, for float32 and for float64.

Highest power first, as `numpy.polyval` takes them. All are near-minimax fits of the relative error, derived in
60-digit arithmetic: linear least squares at Chebyshev nodes (for the quotient, Sanathanan and Koerner's iteration),
reweighted by its own error until that error is level (Lawson). Each line gives the largest relative error that the
fit itself adds to the function's value, next to half a unit in the last place: 6e-8 in float32, 1.1e-16 in float64.

The standard normal tail. For z >= 0, with Φ the normal distribution function,

    Φ(−z) = e^(−z²/2) · polyval(TAIL_NUMERATOR, z) / polyval(TAIL_DENOMINATOR, z)    and    Φ(z) = 1 − Φ(−z).

The relative error holds far into the tail; every coefficient is positive, so that nothing cancels in evaluation.
Clamp z at TAIL_LIMIT: there the exponential is zero, and beyond it the powers of z would overflow.
"""

from __future__ import annotations

# 5.9e-9 and 5.2e-17
TAIL_NUMERATOR_32 = (
    0.004116278957275303,
    0.04063303374793171,
    0.18323458208975457,
    0.43829422555215064,
    0.5000000029543564,
)
TAIL_DENOMINATOR_32 = (
    0.010317861472786771,
    0.10185835851581519,
    0.46946915838988534,
    1.2025008736086484,
    1.6744734323102126,
    1.0,
)
TAIL_LIMIT_32 = 14.5
TAIL_NUMERATOR_64 = (
    1.3858108201935445e-06,
    3.7256555144660476e-05,
    0.0004904431422933493,
    0.004089487707578205,
    0.023623225797134214,
    0.09770190452550089,
    0.28933817669684797,
    0.5940538152727626,
    0.7748789792219113,
    0.5,
)
TAIL_DENOMINATOR_64 = (
    3.4737125851970212e-06,
    9.338833453882112e-05,
    0.0012328323603557935,
    0.010344213839928286,
    0.060437057368820955,
    0.2549663935018908,
    0.7820541642263175,
    1.7144027148204022,
    2.561255350937116,
    2.3476425192466777,
    1.0,
)
TAIL_LIMIT_64 = 39.0

# e^r = 1 + r + r² polyval(EXP, r) for |r| <= log(2) / 2: 7.5e-9 and 1.2e-17
EXP_32 = (
    0.001390123869606242,
    0.008363199943197714,
    0.04166685494892231,
    0.16666576963245566,
    0.49999999548891644,
)
EXP_64 = (
    2.506809128396463e-08,
    2.762015947423756e-07,
    2.75573559251799e-06,
    2.4801521159217224e-05,
    0.00019841269784102162,
    0.0013888888917290875,
    0.00833333333335645,
    0.041666666666624004,
    0.16666666666666644,
    0.5000000000000001,
)

# log(1 + e) = 2 s (1 + s² polyval(LOG1P, s²)) with s = e / (2 + e), for 0 <= e <= 1: 1.5e-8 and 4.6e-18
LOG1P_32 = (
    0.13430333418239898,
    0.14117550082796557,
    0.20003811689981157,
    0.33333319978204,
)
LOG1P_64 = (
    0.08086178617545664,
    0.043982952649731524,
    0.06000967558582356,
    0.06657023784889797,
    0.07692788187392759,
    0.09090894597119456,
    0.11111111361316998,
    0.14285714283526335,
    0.20000000000007406,
    0.3333333333333333,
)

# erf(x) = x polyval(ERF, x²) for |x| <= 1: 1.2e-9 and 3.7e-17, coefficients rounded
ERF_32 = (
    7.854966415665245e-05,
    -0.0008010490351358057,
    0.005188356127501079,
    -0.026853823330181787,
    0.1128358530725803,
    -0.3761262582386106,
    1.1283791657231486,
)
ERF_64 = (
    -7.780189925494642e-10,
    1.3711348189803712e-08,
    -1.620639337781001e-07,
    1.6447141081978485e-06,
    -1.4924712982518353e-05,
    0.00012055293606377939,
    -0.0008548325930046657,
    0.005223977606126935,
    -0.026866170643111413,
    0.11283791670944175,
    -0.3761263890318352,
    1.1283791670955126,
)

GELU_CUBIC = 0.044715
"""What `gelu_tanh` takes of x³."""

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805
"""With these `selu` keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
