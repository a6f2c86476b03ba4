"""Losses: what a plan ends its forward with, and what `evaluate` computes over a whole set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels import Kernels, shapes
from kernels.shapes import Shape

from .builder import PlanBuilder
from .plan import BATCH, Value
from .settings import Settings


@dataclass(frozen=True)
class Loss(Settings):
    """Base: a mean over the batch of something between outputs and targets."""

    def target(self, output: Shape) -> Value:
        """The value that holds a batch's targets."""
        raise TypeError(f"loss {type(self).__name__} does not define target")

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        """`y` as targets for `rows` samples with this output shape, or a TypeError or ValueError."""
        raise TypeError(f"loss {type(self).__name__} does not define check")

    def lower(self, plan: PlanBuilder, output: Value, target: Value) -> tuple[Value, Value]:
        """Write the call; return the loss and its gradient by the output."""
        raise TypeError(f"loss {type(self).__name__} does not define lower")

    def value(self, kernels: Kernels, output: np.ndarray, y: np.ndarray) -> float:
        """The loss of a whole set."""
        raise TypeError(f"loss {type(self).__name__} does not define value")


_REGRESSION = "; a regression takes loss=models.MeanSquaredError()"


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of integer labels under the softmax of the model's output (N, C).

    With smoothing s the target is (1 − s) onehot + s / C, in the loss and in its gradient.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("SoftmaxCrossEntropy", "smoothing", self.smoothing, 0.0, below=1.0)

    def target(self, output: Shape) -> Value:
        shapes.rank("SoftmaxCrossEntropy", "output", output, 2, "samples, classes")
        if output[1] == 1:
            raise ValueError(
                "SoftmaxCrossEntropy: the model has 1 output, whose softmax is always 1; expected one for each class"
                + _REGRESSION
            )
        return Value("labels", (BATCH,), np.dtype(np.int64))

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        self.target(output)
        try:
            return shapes.labels("SoftmaxCrossEntropy", y, rows, int(output[1]))
        except TypeError as error:
            raise TypeError(f"{error}{_REGRESSION}") from None

    def lower(self, plan: PlanBuilder, output: Value, target: Value) -> tuple[Value, Value]:
        loss, gradient = plan.value("loss", ()), plan.value("dlogits", output.shape)
        d = shapes.channels(output.shape, "SoftmaxCrossEntropy", "output")
        plan.call("softmax_cross_entropy", output, target, self.smoothing, d, loss, gradient)
        return loss, gradient

    def value(self, kernels: Kernels, output: np.ndarray, y: np.ndarray) -> float:
        return float(kernels.softmax_cross_entropy(output, y, self.smoothing)[0])


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean of (output − target)² over all elements; targets have the output's shape."""

    def target(self, output: Shape) -> Value:
        return Value("target", output)

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.floating):
            got = f"dtype {y.dtype}" if isinstance(y, np.ndarray) else f"type {type(y).__name__}"
            raise TypeError(f"MeanSquaredError: target has {got}, expected an array of floats")
        shapes.equal("MeanSquaredError", "target", y.shape, (rows, *output[1:]), "the shape of the output")
        return y

    def lower(self, plan: PlanBuilder, output: Value, target: Value) -> tuple[Value, Value]:
        loss, gradient = plan.value("loss", ()), plan.value("dprediction", output.shape)
        plan.call("mse", output, target, shapes.channels(output.shape, "mse", "output"), loss, gradient)
        return loss, gradient

    def value(self, kernels: Kernels, output: np.ndarray, y: np.ndarray) -> float:
        return float(kernels.mse(output, np.ascontiguousarray(y, output.dtype))[0])
