"""Activations and dropout.

`np.where` and masked copies take a branch for every element, and random signs mispredict every other one:
5 ms for 1.2 million elements, where `masked` and `select` take 0.3 and 0.6.
"""

from __future__ import annotations

import math

import numpy as np

from .. import polynomials
from ..interface import SPLITMIX64, Input, Output, Scratch
from ..shapes import ChannelDims
from .linear import sum_rows

__all__ = [
    "celu",
    "celu_backward",
    "clip",
    "clip_backward",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "mish",
    "mish_backward",
    "prelu",
    "prelu_backward",
    "prelu_backward_scratch",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "tanh",
    "tanh_backward",
    "thresholded_relu",
    "thresholded_relu_backward",
]


def masked(a: np.ndarray, mask: np.ndarray, out: np.ndarray) -> None:
    """out = a where mask, else 0. As integers, for which infinity times zero is zero."""
    np.multiply(_bits(a), mask, out=_bits(out))


def select(mask: np.ndarray, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a where mask, else b. As integers b + mask (a − b), exact as they wrap. out may be a, not b."""
    bits = _bits(out)
    np.subtract(_bits(a), _bits(b), out=bits)
    bits *= mask
    bits += _bits(b)


def _bits(a: np.ndarray) -> np.ndarray:
    return a.view(np.int32 if a.itemsize == 4 else np.int64)


def relu(x: Input, y: Output) -> None:
    np.maximum(x, 0, out=y)


def relu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    masked(dy, ~(x <= 0), dx)


def leaky_relu(x: Input, negative_slope: float, y: Output) -> None:
    select(x > 0, x, negative_slope * x, y)


def leaky_relu_backward(dy: Input, x: Input, y: Input, negative_slope: float, dx: Output) -> None:
    select(x > 0, dy, negative_slope * dy, dx)


def elu(x: Input, alpha: float, y: Output) -> None:
    select(x > 0, x, _exponential(x, alpha), y)


@np.errstate(over="ignore", invalid="ignore")
def _exponential(x: np.ndarray, scale: float, divisor: float = 1.0) -> np.ndarray:
    """scale (e^(x / divisor) − 1), meant for x <= 0: what becomes of others goes unused."""
    y = x / divisor
    np.expm1(y, out=y)
    y *= scale
    return y


def elu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    slope = y + alpha
    slope *= dy
    select(x > 0, dy, slope, dx)


def gelu(x: Input, y: Output) -> None:
    distribution, _ = normal(x)
    np.multiply(x, distribution, out=y)


def gelu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    distribution, density = normal(x)
    np.multiply(x, density, out=dx)
    dx += distribution
    dx *= dy


def normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Φ(x) and φ(x)."""
    single = x.dtype == np.float32
    numerator = polynomials.TAIL_NUMERATOR_32 if single else polynomials.TAIL_NUMERATOR_64
    denominator = polynomials.TAIL_DENOMINATOR_32 if single else polynomials.TAIL_DENOMINATOR_64
    z = np.abs(x)
    np.minimum(z, polynomials.TAIL_LIMIT_32 if single else polynomials.TAIL_LIMIT_64, out=z)
    tail = polynomial(numerator, z)
    tail /= polynomial(denominator, z)
    density = np.square(z, out=z)
    density *= -0.5
    np.exp(density, out=density)
    tail *= density
    density *= 1 / math.sqrt(2 * math.pi)
    # Φ(x) is the tail for x <= 0, else 1 less the tail.
    return np.abs(np.subtract(x > 0, tail, out=tail), out=tail), density


def polynomial(coefficients: tuple[float, ...], z: np.ndarray) -> np.ndarray:
    value = np.full_like(z, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= z
        value += coefficient
    return value


def silu(x: Input, y: Output) -> None:
    sigmoid(x, y)
    y *= x


def silu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    sigma = np.empty_like(x)
    sigmoid(x, sigma)
    np.subtract(1, sigma, out=dx)
    dx *= x
    dx += 1
    dx *= sigma
    dx *= dy


def sigmoid(x: Input, y: Output) -> None:
    np.negative(x, out=y)
    with np.errstate(over="ignore"):  # 1 / (1 + ∞) = 0 is right
        np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)


def sigmoid_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.subtract(1, y, out=dx)
    dx *= y
    dx *= dy


def tanh(x: Input, y: Output) -> None:
    np.tanh(x, out=y)


def tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    np.square(y, out=dx)
    np.subtract(1, dx, out=dx)
    dx *= dy


def softplus(x: Input, y: Output) -> None:
    # max(x, 0) + log(1 + e^−|x|): np.logaddexp is slower, and warns of a NaN.
    np.abs(x, out=y)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(x, 0)


def softplus_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    sigmoid(x, dx)
    dx *= dy


def clip(x: Input, low: float, high: float, y: Output) -> None:
    np.maximum(x, low, out=y)
    np.minimum(y, high, out=y)


def clip_backward(dy: Input, x: Input, y: Input, low: float, high: float, dx: Output) -> None:
    masked(dy, ~((x <= low) | (x >= high)), dx)


def hard_sigmoid(x: Input, alpha: float, beta: float, y: Output) -> None:
    np.multiply(x, alpha, out=y)
    y += beta
    clip(y, 0, 1, y)


def hard_sigmoid_backward(dy: Input, x: Input, y: Input, alpha: float, beta: float, dx: Output) -> None:
    np.multiply(dy, alpha, out=dx)
    masked(dx, ~((y <= 0) | (y >= 1)), dx)


def hard_swish(x: Input, y: Output) -> None:
    np.add(x, 3, out=y)
    clip(y, 0, 6, y)
    y /= 6
    y *= x


def hard_swish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    slope = x / 3
    slope += 0.5
    slope *= dy
    select(x >= 3, dy, slope, dx)
    masked(dx, ~(x <= -3), dx)


def mish(x: Input, y: Output) -> None:
    softplus(x, y)
    np.tanh(y, out=y)
    y *= x


def mish_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    t = np.empty_like(x)
    softplus(x, t)
    np.tanh(t, out=t)
    sigmoid(x, dx)
    dx *= x
    dx *= 1 - np.square(t)
    dx += t
    dx *= dy


def selu(x: Input, alpha: float, gamma: float, y: Output) -> None:
    np.multiply(x, gamma, out=y)
    select(x > 0, y, _exponential(x, gamma * alpha), y)


def selu_backward(dy: Input, x: Input, y: Input, alpha: float, gamma: float, dx: Output) -> None:
    slope = y + gamma * alpha
    slope *= dy
    np.multiply(dy, gamma, out=dx)
    select(x > 0, dx, slope, dx)


def celu(x: Input, alpha: float, y: Output) -> None:
    select(x > 0, x, _exponential(x, alpha, alpha), y)


def celu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    slope = y / alpha
    slope += 1
    slope *= dy
    select(x > 0, dy, slope, dx)


def gelu_tanh(x: Input, y: Output) -> None:
    _twice_u(x, y)
    sigmoid(y, y)
    y *= x


def gelu_tanh_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    gate, rest = np.empty_like(x), np.empty_like(x)
    _twice_u(x, rest)
    sigmoid(rest, gate)
    np.negative(rest, out=rest)
    sigmoid(rest, rest)  # 1 − gate would lose what is left of it
    # Beyond the limit gate · rest is 0, and the square could overflow.
    np.minimum(np.abs(x), polynomials.TAIL_LIMIT_32 if x.dtype == np.float32 else polynomials.TAIL_LIMIT_64, out=dx)
    np.square(dx, out=dx)
    dx *= 3 * polynomials.GELU_CUBIC
    dx += 1
    dx *= 2 * math.sqrt(2 / math.pi)
    dx *= rest
    dx *= gate
    dx *= x
    dx += gate
    dx *= dy


@np.errstate(over="ignore")
def _twice_u(x: np.ndarray, out: np.ndarray) -> None:
    """out = 2u: (1 + tanh u) / 2 is σ(2u)."""
    np.square(x, out=out)
    out *= polynomials.GELU_CUBIC
    out += 1
    out *= x
    out *= 2 * math.sqrt(2 / math.pi)


def softsign(x: Input, y: Output) -> None:
    np.divide(x, 1 + np.abs(x), out=y)


def softsign_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    divisor = 1 + np.abs(x)
    np.divide(dy, divisor, out=dx)
    dx /= divisor  # twice: the square may overflow


def thresholded_relu(x: Input, alpha: float, y: Output) -> None:
    masked(x, ~(x <= alpha), y)


def thresholded_relu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    masked(dy, ~(x <= alpha), dx)


def prelu(x: Input, slope: Input, y: Output) -> None:
    select(x > 0, x, slope * x, y)


def prelu_backward_scratch(d: ChannelDims, n: int) -> int:
    return 0


def prelu_backward(
    dy: Input, x: Input, slope: Input, d: ChannelDims, scratch: Scratch, dx: Output | None, dslope: Output
) -> None:
    sum_rows(dy.reshape(-1, d.channels), dslope, np.minimum(x, 0))
    if dx is not None:
        select(x > 0, dy, slope * dy, dx)


def dropout(x: Input, rate: float, seed: int, step: int, y: Output, mask: Output) -> None:
    random = draw(stream(seed, step), np.arange(x.size, dtype=np.uint64))
    random >>= np.uint64(32)
    np.greater_equal(random.reshape(mask.shape), np.uint64(math.floor(rate * 2**32)), out=mask)
    dropout_backward(x, mask, rate, y)


def dropout_backward(dy: Input, mask: Input, rate: float, dx: Output) -> None:
    np.divide(dy, 1 - rate, out=dx)
    masked(dx, mask, dx)


def stream(seed: int, step: int) -> np.ndarray:
    """The key (1,) of a step's random words."""
    seed_, step_ = np.array([[seed % 2**64], [step % 2**64]], np.uint64)
    return draw(_mix(seed_), step_)


def draw(key: np.ndarray, i: np.ndarray) -> np.ndarray:
    """mix(key + (i + 1) g): word i of the words that a key stands for, uint64."""
    z = i + np.uint64(1)
    z *= np.uint64(SPLITMIX64[0])
    return _mix(z + key)


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, in place. Arrays of uint64 wrap; a lone NumPy number would warn."""
    _, first, second = SPLITMIX64
    z ^= z >> np.uint64(30)
    z *= np.uint64(first)
    z ^= z >> np.uint64(27)
    z *= np.uint64(second)
    z ^= z >> np.uint64(31)
    return z
