"""Gradients against central differences, on every coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kernels import memory, shapes

from .execute import Executor
from .graph import Graph
from .layers import Layer
from .losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from .nodes import INPUT
from .plan import WEIGHTS, gradient_name
from .sequential import Sequential


class GradientCheck(NamedTuple):
    """The largest error |analytic − numeric| / max(1, |analytic|, |numeric|), and the coordinate where it lies."""

    error: float
    where: str


def gradcheck(
    model: Graph | Layer,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    loss: Loss | None = None,
    input_shape: Sequence[int] | None = None,
    backend: str | None = None,
    step: float = 1e-6,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradients of a training step, by every parameter and the input, with central differences.

    model: a Graph (copied in float64, left as it is), or a layer together with the input_shape of one sample.
    x, y: a small batch; drawn from the seed if left out. loss: squared error for a layer, cross-entropy for a model,
    unless told. Right gradients give an error below about 1e-7; a kink (ReLU at 0, ties of a maximum) within
    `step` of a value does not.
    """
    step = shapes.number("gradcheck", "step", step, 0.0, above=True)
    seed = shapes.integer("gradcheck", "seed", seed, 0)
    if x is not None and (not isinstance(x, np.ndarray) or not x.ndim or x.dtype.kind not in "uif"):
        raise TypeError(f"gradcheck: x is {type(x).__name__}, expected a numpy array of numbers, samples first")
    rng = np.random.default_rng(seed)
    if isinstance(model, Layer):
        if input_shape is None:
            raise ValueError("gradcheck: input_shape is None, expected the shape of one sample for a layer")
        loss = MeanSquaredError() if loss is None else loss
        twin: Graph = Sequential([model], input_shape, backend, seed, np.float64)
    elif not isinstance(model, Graph):
        raise TypeError(f"gradcheck: model is {model!r}, expected a models.Graph or a models.Layer")
    else:
        twin = model.to(backend or model.backend, np.float64)
    loss = SoftmaxCrossEntropy() if loss is None else loss
    x = rng.standard_normal((3, *twin.input_shape)) if x is None else np.array(x, np.float64)
    plan = twin.lower_training(loss, None, input_gradient=True)
    n = len(x)
    if y is None:
        output = plan.outputs["output"].sized(n)
        labelled = isinstance(loss, SoftmaxCrossEntropy)
        y = rng.integers(0, output[-1], n) if labelled else rng.standard_normal(output)
    target = loss.check(y, n, twin.output_shape)

    weights = loss.weights("gradcheck", target, None)
    inputs = {INPUT: x, "target": target} | ({} if weights is None else {WEIGHTS: weights})

    gradients = memory.zeros(twin.parameter_layout.size, np.float64)
    views = twin.parameter_layout.views(gradients)
    arrays = twin.arrays(gradients)
    executor = Executor(plan, twin.kernels, n, arrays)

    def run() -> dict[str, np.ndarray]:
        return executor.run(inputs, n, step=1)

    analytic = {INPUT: run()[gradient_name(INPUT)]} | {name: view.copy() for name, view in views.items()}
    worst = GradientCheck(0.0, "none")
    for name, gradient in analytic.items():
        values = x if name == INPUT else arrays[name]
        for index in np.ndindex(values.shape):
            kept = values[index]
            values[index] = kept + step
            above = float(run()["loss"])
            values[index] = kept - step
            below = float(run()["loss"])
            values[index] = kept
            numeric = (above - below) / (2 * step)
            exact = float(gradient[index])
            error = abs(exact - numeric) / max(1.0, abs(exact), abs(numeric))
            if math.isnan(error):  # which no later coordinate may cover up
                return GradientCheck(error, f"{name}{list(index)}")
            if error > worst.error:
                worst = GradientCheck(error, f"{name}{list(index)}")
    return worst
