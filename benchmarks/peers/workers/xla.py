"""JAX: the whole step in one jit, NHWC, buffers donated."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..networks import EPS, RHO, Case, Peer

BETA1, BETA2 = 0.9, 0.999
MOMENTUM, BATCH_NORM_EPS = 0.1, 1e-5

Tree = Any


def parameters(case: Case) -> tuple[Tree, Tree]:
    """Trained arrays, and running statistics."""
    convolutions = [
        {
            "w": jnp.asarray(w),
            "b": jnp.zeros(w.shape[-1]),
            "gamma": jnp.ones(w.shape[-1]),
            "beta": jnp.zeros(w.shape[-1]),
        }
        for w in case.weights.convolutions
    ]
    linear = [{"w": jnp.asarray(w), "b": jnp.zeros(w.shape[-1])} for w in case.weights.linear]
    statistics = [{"mean": jnp.zeros(f), "var": jnp.ones(f)} for f in case.network.filters]
    return {"convolutions": convolutions, "linear": linear}, statistics


def pool(x: jax.Array, by_windows: bool) -> jax.Array:
    """The maximum over 2x2 windows.

    By reshaping: XLA's gradient of a window reduction on the CPU made the whole step 2.7 times slower.
    """
    if by_windows:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def network(p: Tree, statistics: Tree, x: jax.Array, training: bool, by_windows: bool) -> tuple[jax.Array, Tree]:
    """Logits, and the new running statistics."""
    updated = []
    for layer, running in zip(p["convolutions"], statistics, strict=True):
        x = lax.conv_general_dilated(x, layer["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = x + layer["b"]
        if training:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            count = x.size // x.shape[-1]
            new = {"mean": mean, "var": var * count / (count - 1)}
            updated.append(jax.tree.map(lambda old, value: (1 - MOMENTUM) * old + MOMENTUM * value, running, new))
        else:
            mean, var = running["mean"], running["var"]
        x = (x - mean) * (lax.rsqrt(var + BATCH_NORM_EPS) * layer["gamma"]) + layer["beta"]
        x = pool(jax.nn.relu(x), by_windows)
    x = x.reshape(len(x), -1)
    *hidden, last = p["linear"]
    for layer in hidden:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"], updated


def loss_function(p: Tree, statistics: Tree, x: jax.Array, y: jax.Array, by_windows: bool) -> tuple[jax.Array, Tree]:
    logits, statistics = network(p, statistics, x, True, by_windows)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
    return -chosen.mean(), statistics


def optimizer(name: str, rate: float, p: Tree, g: Tree, state: Tree, step: jax.Array) -> tuple[Tree, Tree]:
    """New parameters and state."""
    tree_map = jax.tree.map
    if name == "sgd":
        return tree_map(lambda p, g: p - rate * g, p, g), state
    if name == "rmsprop":
        v = tree_map(lambda v, g: RHO * v + (1 - RHO) * g * g, state, g)
        return tree_map(lambda p, g, v: p - rate * g / (jnp.sqrt(v) + EPS), p, g, v), v
    m = tree_map(lambda m, g: BETA1 * m + (1 - BETA1) * g, state[0], g)
    v = tree_map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, state[1], g)
    corrected, root = rate / (1 - BETA1**step), jnp.sqrt(1 - BETA2**step)
    return tree_map(lambda p, m, v: p - corrected * m / (jnp.sqrt(v) / root + EPS), p, m, v), (m, v)


def prepare(case: Case) -> Peer:
    """Variants: jit, and jit reduce_window, which pools by the operation that is meant for it."""
    by_windows = case.variant == "jit reduce_window"
    jax.config.update("jax_platforms", "cpu")
    p, statistics = parameters(case)
    versions = {"jax": jax.__version__}
    flat = not case.network.filters

    def images(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1) if flat else x

    if case.task == "infer":
        predict = jax.jit(lambda x: network(p, statistics, x, False, by_windows)[0])
        return Peer(lambda x, y: np.asarray(predict(images(x))), versions)

    zeros = jax.tree.map(jnp.zeros_like, p)
    match case.network.optimizer:
        case "adam":
            state: Tree = (zeros, jax.tree.map(jnp.copy, zeros))
        case "rmsprop":
            state = zeros
        case _:
            state = ()

    @partial(jax.jit, donate_argnums=0)
    def compiled(everything: Tree, x: jax.Array, y: jax.Array) -> tuple[Tree, jax.Array]:
        p, statistics, state, count = everything
        count = count + 1
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, statistics), g = gradient(p, statistics, x, y, by_windows)
        p, state = optimizer(case.network.optimizer, case.network.learning_rate, p, g, state, count)
        return (p, statistics, state, count), loss

    held: list[Tree] = [(p, statistics, state, jnp.zeros((), jnp.float32))]

    def step(x: np.ndarray, y: np.ndarray) -> float:
        held[0], loss = compiled(held[0], images(x), y)
        return float(loss)  # waits for the whole call, which ends at once for all its outputs

    return Peer(step, versions)
