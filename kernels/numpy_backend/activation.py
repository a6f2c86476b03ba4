"""Activations and dropout.

`np.where` and masked copies take a branch for every element, and random signs mispredict every other one:
5 ms for 1.2 million elements, where `masked` and `select` take 0.3 and 0.6.
"""

from __future__ import annotations

import math

import numpy as np

from .. import polynomials
from ..interface import SPLITMIX64, Input, Output

__all__ = [
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
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
    np.minimum(x, 0, out=y)
    y *= negative_slope
    y += np.maximum(x, 0)


def leaky_relu_backward(dy: Input, x: Input, y: Input, negative_slope: float, dx: Output) -> None:
    select(x > 0, dy, negative_slope * dy, dx)


def elu(x: Input, alpha: float, y: Output) -> None:
    np.minimum(x, 0, out=y)
    np.expm1(y, out=y)
    y *= alpha
    y += np.maximum(x, 0)


def elu_backward(dy: Input, x: Input, y: Input, alpha: float, dx: Output) -> None:
    slope = y + alpha
    slope *= dy
    select(x > 0, dy, slope, dx)


def gelu(x: Input, y: Output) -> None:
    distribution, _ = _normal(x)
    np.multiply(x, distribution, out=y)


def gelu_backward(dy: Input, x: Input, y: Input, dx: Output) -> None:
    distribution, density = _normal(x)
    np.multiply(x, density, out=dx)
    dx += distribution
    dx *= dy


def _normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Φ(x) and φ(x)."""
    single = x.dtype == np.float32
    numerator = polynomials.TAIL_NUMERATOR_32 if single else polynomials.TAIL_NUMERATOR_64
    denominator = polynomials.TAIL_DENOMINATOR_32 if single else polynomials.TAIL_DENOMINATOR_64
    z = np.abs(x)
    np.minimum(z, polynomials.TAIL_LIMIT_32 if single else polynomials.TAIL_LIMIT_64, out=z)
    tail = _polynomial(numerator, z)
    tail /= _polynomial(denominator, z)
    density = np.square(z, out=z)
    density *= -0.5
    np.exp(density, out=density)
    tail *= density
    density *= 1 / math.sqrt(2 * math.pi)
    # Φ(x) is the tail for x <= 0, else 1 less the tail.
    return np.abs(np.subtract(x > 0, tail, out=tail), out=tail), density


def _polynomial(coefficients: tuple[float, ...], z: np.ndarray) -> np.ndarray:
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
