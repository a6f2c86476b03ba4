"""Optimizers."""

from __future__ import annotations

import math

import numpy as np

from ..interface import InPlace, Input, Scratch
from ..shapes import FlatDims

__all__ = ["adam", "clip_norm", "clip_norm_scratch", "rmsprop", "sgd"]


def sgd(
    p: InPlace,
    g: Input,
    v: InPlace | None,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decoupled: bool,
) -> None:
    g = _decay(p, g, learning_rate, weight_decay, decoupled)
    if v is None:
        p -= learning_rate * g
        return
    v *= momentum
    v += g
    _flush(v)
    if nesterov:
        update = momentum * v
        update += g
        update *= learning_rate
    else:
        update = learning_rate * v
    p -= update


def rmsprop(
    p: InPlace,
    g: Input,
    v: InPlace,
    learning_rate: float,
    rho: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    g = _decay(p, g, learning_rate, weight_decay, decoupled)
    work = np.square(g)
    work *= 1 - rho
    v *= rho
    v += work
    _flush(v)
    np.sqrt(v, out=work)
    work += eps
    np.divide(g, work, out=work)
    work *= learning_rate
    p -= work


def adam(
    p: InPlace,
    g: Input,
    m: InPlace,
    v: InPlace,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    g = _decay(p, g, learning_rate, weight_decay, decoupled)
    work = (1 - beta1) * g
    m *= beta1
    m += work
    _flush(m)
    np.square(g, out=work)
    work *= 1 - beta2
    v *= beta2
    v += work
    _flush(v)
    # √v̂ = √v / √(1 − β₂ᵗ), and m's correction is a factor of the step: two scalars instead of two vectors.
    np.sqrt(v, out=work)
    work /= math.sqrt(1 - beta2**step)
    work += eps
    np.divide(m, work, out=work)
    work *= learning_rate / (1 - beta1**step)
    p -= work


def _decay(p: np.ndarray, g: np.ndarray, learning_rate: float, weight_decay: float, decoupled: bool) -> np.ndarray:
    """The gradient to go on with: g itself, after p lost its share if decoupled, or g + weight_decay p."""
    if not weight_decay:
        return g
    if decoupled:
        p *= 1 - learning_rate * weight_decay
        return g
    coupled: np.ndarray = weight_decay * p
    coupled += g
    return coupled


def _flush(state: np.ndarray) -> None:
    """Denormals to zero: arithmetic on them is many times slower. A NaN stays NaN."""
    state *= np.abs(state) >= np.finfo(state.dtype).tiny


def clip_norm_scratch(d: FlatDims, n: int) -> int:
    return 0


def clip_norm(g: InPlace, limit: float, d: FlatDims, scratch: Scratch) -> None:
    norm = math.sqrt(np.square(g, dtype=np.float64).sum())
    if not norm + 1e-6 <= limit:  # a norm that is NaN is handed on
        g *= limit / (norm + 1e-6)
