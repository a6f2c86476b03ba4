"""Optimizers over flat vectors: everything in one pass."""

from __future__ import annotations

import math

import numpy as np

from ..interface import InPlace, Input
from .compiler.jit import inline, kernel, prange
from .tiles.chunks import chunk, chunks, elementwise
from .tiles.elementary import single


@inline
def decayed(p, g, rate, weight_decay, decoupled):
    """(parameter, gradient) after weight decay."""
    if weight_decay == 0:
        return p, g
    if decoupled:
        return p - rate * weight_decay * p, g
    return p, g + weight_decay * p


@inline
def flushed(state):
    """The state, or zero where it has decayed to a denormal; a NaN stays."""
    real = type(state)
    tiny = real(2.0**-126) if single(state) else real(2.0**-1022)
    return real(0) if abs(state) < tiny else state


@elementwise
@kernel(optional={"v": 1})
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
    real = p.dtype.type
    rate, keep, decay = real(learning_rate), real(momentum), real(weight_decay)
    for c in prange(chunks(p)):
        ps, gs, vs = chunk(p, c), chunk(g, c), chunk(v, c)
        for i in range(vs.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            velocity = flushed(keep * vs[i] + gradient)
            vs[i] = velocity
            ps[i] = parameter - rate * (gradient + keep * velocity if nesterov else velocity)
        for i in range(0 if vs.size else ps.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            ps[i] = parameter - rate * gradient


# 1 − rho and its like are arguments: of a difference that it sees, LLVM makes g² + rho (v − g²), which is NaN for an
# infinite g.


@elementwise
@kernel
def _rmsprop(p, g, v, learning_rate, rho, gain, eps, weight_decay, decoupled):
    real = p.dtype.type
    rate, small, decay = real(learning_rate), real(eps), real(weight_decay)
    keep, gain = real(rho), real(gain)
    for c in prange(chunks(p)):
        ps, gs, vs = chunk(p, c), chunk(g, c), chunk(v, c)
        for i in range(ps.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            square = flushed(keep * vs[i] + gain * (gradient * gradient))
            vs[i] = square
            ps[i] = parameter - rate * gradient / (np.sqrt(square) + small)


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
    _rmsprop(p, g, v, learning_rate, rho, 1 - rho, eps, weight_decay, decoupled)


@elementwise
@kernel
def _adam(p, g, m, v, step, learning_rate, beta1, gain_m, beta2, gain_v, eps, weight_decay, decoupled):
    real = p.dtype.type
    rate, small, decay = real(learning_rate), real(eps), real(weight_decay)
    # The corrections are factors of the rate and of √v: two numbers instead of two divisions an element.
    rate_m, root_v = real(learning_rate / (1 - beta1**step)), real(1 / math.sqrt(1 - beta2**step))
    keep_m, gain_m, keep_v, gain_v = real(beta1), real(gain_m), real(beta2), real(gain_v)
    for c in prange(chunks(p)):
        ps, gs, ms, vs = chunk(p, c), chunk(g, c), chunk(m, c), chunk(v, c)
        for i in range(ps.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            mean = flushed(keep_m * ms[i] + gain_m * gradient)
            square = flushed(keep_v * vs[i] + gain_v * (gradient * gradient))
            ms[i], vs[i] = mean, square
            ps[i] = parameter - rate_m * mean / (np.sqrt(square) * root_v + small)


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
    given = step, learning_rate, beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay, decoupled
    _adam(p, g, m, v, *given)
