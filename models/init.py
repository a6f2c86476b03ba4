"""Initialisers: distributions of starting weights. Fans count inputs and outputs of one unit.

For weights (..., K, M): fan_in is the product of all axes but the last, fan_out that of all axes but the one
before the last; so convolution weights (KH, KW, C, F) have fans KH·KW·C and KH·KW·F.
"""

from __future__ import annotations

import math

import numpy as np

from .settings import Settings, settings


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of weights with at least two axes."""
    if len(shape) < 2:
        raise ValueError(f"fans: shape is {shape}, expected weights with at least two axes")
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


@settings
class Initialiser(Settings):
    """A distribution of weights."""

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """A float64 array of the shape, drawn from rng."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


@settings
class Constant(Initialiser):
    """One value everywhere."""

    value: float

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, self.value)


@settings
class Zeros(Initialiser):
    """Zero everywhere."""

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)


@settings
class Normal(Initialiser):
    """N(0, std²), whatever the fans."""

    std: float

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, self.std, shape)


@settings
class XavierUniform(Initialiser):
    """U(−a, a), a = gain √(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""

    gain: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        bound = self.gain * math.sqrt(6 / sum(fans(shape)))
        return rng.uniform(-bound, bound, shape)


@settings
class XavierNormal(Initialiser):
    """N(0, σ²), σ = gain √(2 / (fan_in + fan_out)). Glorot and Bengio 2010."""

    gain: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, self.gain * math.sqrt(2 / sum(fans(shape))), shape)


@settings
class HeUniform(Initialiser):
    """U(−a, a), a = gain √(6 / fan_in), for ReLU. He et al. 2015."""

    gain: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        bound = self.gain * math.sqrt(6 / fans(shape)[0])
        return rng.uniform(-bound, bound, shape)


@settings
class HeNormal(Initialiser):
    """N(0, σ²), σ = gain √(2 / fan_in), for ReLU. He et al. 2015."""

    gain: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, self.gain * math.sqrt(2 / fans(shape)[0]), shape)
