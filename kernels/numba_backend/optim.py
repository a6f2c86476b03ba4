"""Optimizers over flat vectors: everything in one pass.

They are strict: weights are what a run is judged by, bit for bit, and memory sets the pace anyhow.
"""

from __future__ import annotations

import math

import numpy as np

from ..interface import InPlace, Input, Scratch
from ..shapes import FlatDims
from .compiler.jit import kernel, prange, strict
from .tiles.chunks import CHUNK, chunk, chunks, elementwise, run
from .tiles.elementary import single

__all__ = ["adam", "clip_norm", "clip_norm_scratch", "rmsprop", "sgd"]


@strict
def decayed(p, g, rate, weight_decay, decoupled):
    """(parameter, gradient) after weight decay."""
    if weight_decay == 0:
        return p, g
    if decoupled:
        return p - rate * weight_decay * p, g
    return p, g + weight_decay * p


@strict
def flushed(state):
    """The state, or zero where it has decayed to a denormal; a NaN stays."""
    real = type(state)
    tiny = real(2.0**-126) if single(state) else real(2.0**-1022)
    return real(0) if abs(state) < tiny else state


@elementwise
@kernel(optional={"v": 1}, strict=True)
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


@elementwise
@kernel(strict=True)
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
    real = p.dtype.type
    rate, small, decay = real(learning_rate), real(eps), real(weight_decay)
    keep, gain = real(rho), real(1 - rho)
    for c in prange(chunks(p)):
        ps, gs, vs = chunk(p, c), chunk(g, c), chunk(v, c)
        for i in range(ps.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            square = flushed(keep * vs[i] + gain * (gradient * gradient))
            vs[i] = square
            ps[i] = parameter - rate * gradient / (np.sqrt(square) + small)


@strict
def power(base, exponent):
    """base^exponent, for a natural exponent. `base**exponent` comes to the same, and takes longer to compile."""
    if exponent > 1 << 16:
        return math.pow(base, float(exponent))
    result = 1.0
    while exponent != 0:
        if exponent & 1:
            result *= base
        exponent >>= 1
        base *= base
    return result


@elementwise
@kernel(strict=True)
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
    real = p.dtype.type
    rate, small, decay = real(learning_rate), real(eps), real(weight_decay)
    # The corrections are factors of the rate and of √v: two numbers instead of two divisions an element.
    rate_m, root_v = real(learning_rate / (1 - power(beta1, step))), real(1 / math.sqrt(1 - power(beta2, step)))
    keep_m, gain_m, keep_v, gain_v = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    for c in prange(chunks(p)):
        ps, gs, ms, vs = chunk(p, c), chunk(g, c), chunk(m, c), chunk(v, c)
        for i in range(ps.size):
            parameter, gradient = decayed(ps[i], gs[i], rate, decay, decoupled)
            mean = flushed(keep_m * ms[i] + gain_m * gradient)
            square = flushed(keep_v * vs[i] + gain_v * (gradient * gradient))
            ms[i], vs[i] = mean, square
            ps[i] = parameter - rate_m * mean / (np.sqrt(square) * root_v + small)


def clip_norm_scratch(d: FlatDims, n: int) -> int:
    """A norm a chunk."""
    return -(-d.size // CHUNK)


@kernel(strict=True)
def _clip_norm(g, limit, norms):
    for c in prange(chunks(g)):
        gs, sum_ = chunk(g, c), 0.0
        for i in range(gs.size):
            sum_ += np.float64(gs[i]) * np.float64(gs[i])
        norms[c] = math.sqrt(sum_)
    total = 0.0
    for c in range(chunks(g)):
        total += np.float64(norms[c]) * np.float64(norms[c])
    norm = math.sqrt(total) + 1e-6
    factor = g.dtype.type(limit / norm)
    for c in prange(chunks(g) if not norm <= limit else 0):
        gs = chunk(g, c)
        for i in range(gs.size):
            gs[i] *= factor


def clip_norm(g: InPlace, limit: float, d: FlatDims, scratch: Scratch) -> None:
    run(_clip_norm, g.size, g, limit, scratch)
