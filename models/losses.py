"""Losses: what a plan ends its forward with, and what `evaluate` computes over a whole set."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import numpy as np

from kernels import Kernels, shapes
from kernels.shapes import Shape

from .builder import PlanBuilder
from .plan import BATCH, Value
from .settings import Settings, settings

MAX_LABEL = 2**31 - 1
"""What a file holds as an integer."""


@settings
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

    @property
    def by_weight(self) -> bool:
        """Whether samples are weighed. Then `lower` and `value` are handed the weights (N,) as one argument more."""
        return False

    def weights(self, where: str, y: np.ndarray, given: object) -> np.ndarray | None:
        """How much each sample counts, for targets that are checked; None where the loss does not weigh.

        given: the user's own weights, or None. Raises TypeError or ValueError, which `where` begins, for weights that
        are none, and for any where the loss takes none.
        """
        if given is None:
            return None
        name = type(self).__name__
        raise ValueError(f"{where}: sample_weight is given and the loss is {name}, which takes no weights")


@settings
class _Weighing(Loss):
    """What losses that can weigh samples share."""

    weighted: bool = field(default=False, kw_only=True, repr=False)

    later: ClassVar[tuple[str, ...]] = ("weighted",)

    @property
    def by_weight(self) -> bool:
        return self.weighted

    def weights(self, where: str, y: np.ndarray, given: object) -> np.ndarray | None:
        if given is not None and not self.weighted:
            name = type(self).__name__
            raise ValueError(
                f"{where}: sample_weight is given and the loss does not weigh, expected {name}(weighted=True)"
            )
        return self._weighed(where, y, given) if self.by_weight else None

    def _weighed(self, where: str, y: np.ndarray, given: object) -> np.ndarray:
        return np.ones(len(y)) if given is None else sample_weights(where, given, len(y))


def sample_weights(where: str, given: object, rows: int, name: str = "sample_weight") -> np.ndarray:
    """A user's weights as (rows,) float64, finite, none below 0, and one above; else a TypeError or ValueError."""
    try:
        weights = _real(given)
    except (TypeError, ValueError):
        raise TypeError(f"{where}: {name} is {f'{given!r:.60}'}, expected numbers") from None
    if weights.shape != (rows,):
        raise ValueError(f"{where}: {name} has shape {weights.shape}, expected ({rows},)")
    unfit = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    if unfit.size:
        at = int(unfit[0])
        raise ValueError(f"{where}: {name}[{at}] is {weights[at]}, expected a finite number of at least 0")
    if not weights.any():
        raise ValueError(f"{where}: {name} holds zeros alone, expected one above at least")
    return weights


def _real(given: object) -> np.ndarray:
    """As float64; TypeError or ValueError for what are no real numbers."""
    found = np.asarray(given)
    if found.dtype.kind == "c":
        raise TypeError
    return np.asarray(found, np.float64)


_REGRESSION = "; a regression takes loss=models.MeanSquaredError()"


@settings
class SoftmaxCrossEntropy(_Weighing):
    """Cross-entropy of integer labels under the softmax of the model's output (N, C).

    With smoothing s the target is (1 − s) onehot + s / C, in the loss and in its gradient. class_weights: how much the
    samples of each class count, C numbers. ignore_index: the label of samples that do not count, which may lie outside
    the classes. weighted: whether `fit`, `step` and `evaluate` take a sample_weight. By weight the loss of a batch is
    Σ weight · loss / Σ weight, a sample's weight being its own times its class's.
    """

    smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    ignore_index: int | None = None

    later: ClassVar[tuple[str, ...]] = ("weighted", "class_weights", "ignore_index")

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("SoftmaxCrossEntropy", "smoothing", self.smoothing, 0.0, below=1.0)
        if self.ignore_index is not None:
            shapes.integer("SoftmaxCrossEntropy", "ignore_index", self.ignore_index, -MAX_LABEL)
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", _class_weights(self.class_weights))

    @property
    def by_weight(self) -> bool:
        return self.weighted or self.class_weights is not None or self.ignore_index is not None

    def target(self, output: Shape) -> Value:
        shapes.rank("SoftmaxCrossEntropy", "output", output, 2, "samples, classes")
        if output[1] == 1:
            raise ValueError(
                "SoftmaxCrossEntropy: the model has 1 output, whose softmax is always 1; expected one for each class"
                + _REGRESSION
            )
        if self.class_weights is not None and len(self.class_weights) != output[1]:
            raise ValueError(
                f"SoftmaxCrossEntropy: class_weights has {len(self.class_weights)} numbers, expected {output[1]}, "
                "one a class"
            )
        return Value("labels", (BATCH,), np.dtype(np.int64))

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        self.target(output)
        if isinstance(y, np.ndarray) and y.shape == (rows, output[1]) and _are_shares(y):
            raise ValueError(
                f"SoftmaxCrossEntropy: labels have shape {y.shape}, expected ({rows},), one label a sample; of one-hot "
                "rows that is y.argmax(axis=1), and probabilities take loss=models.SoftCrossEntropy()"
            )
        counted = y != self.ignore_index if isinstance(y, np.ndarray) and self.ignore_index is not None else None
        try:
            return shapes.labels("SoftmaxCrossEntropy", y, rows, int(output[1]), counted)
        except TypeError as error:
            raise TypeError(f"{error}{_hint(y)}") from None

    def _weighed(self, where: str, y: np.ndarray, given: object) -> np.ndarray:
        weights = super()._weighed(where, y, given)
        counted = np.ones(len(y), bool) if self.ignore_index is None else y != self.ignore_index
        if self.class_weights is not None:
            weights = weights * np.asarray(self.class_weights)[np.where(counted, y, 0)]
        return np.where(counted, weights, 0.0)

    def lower(
        self, plan: PlanBuilder, output: Value, target: Value, weights: Value | None = None
    ) -> tuple[Value, Value]:
        loss, gradient = plan.value("loss", ()), plan.value("dlogits", output.shape)
        d = shapes.channels(output.shape, "SoftmaxCrossEntropy", "output")
        if weights is None:
            plan.call("softmax_cross_entropy", output, target, self.smoothing, d, loss, gradient)
        else:
            plan.call("weighted_cross_entropy", output, target, weights, self.smoothing, d, loss, gradient)
        return loss, gradient

    def value(self, kernels: Kernels, output: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
        if weights is None:
            return float(kernels.softmax_cross_entropy(output, y, self.smoothing)[0])
        return float(kernels.weighted_cross_entropy(output, y, weights.astype(output.dtype), self.smoothing)[0])


def _class_weights(given: object) -> tuple[float, ...]:
    try:
        weights = _real(given)
        if weights.ndim != 1:
            raise ValueError
        return tuple(sample_weights("SoftmaxCrossEntropy", weights, weights.size, "class_weights").tolist())
    except (TypeError, ValueError):
        raise ValueError(
            f"SoftmaxCrossEntropy: class_weights is {given!r}, expected a number a class, finite and not below 0"
        ) from None


def _are_shares(y: np.ndarray) -> bool:
    """Whether rows are one-hot or probabilities."""
    return y.dtype.kind in "biuf" and bool((y >= 0).all()) and bool(np.allclose(y.sum(axis=1), 1, atol=1e-3))


def _hint(y: object) -> str:
    """How what was given for labels may become some."""
    if isinstance(y, np.ndarray) and y.dtype.kind in "USO":
        return "; names of classes are numbered by numpy.unique(y, return_inverse=True)"
    if isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.size and bool((y == np.floor(y)).all()):
        return f"; whole numbers become labels by y.astype(int){_REGRESSION}"
    if isinstance(y, np.ndarray) and y.dtype.kind == "b":
        return "; y.astype(int) makes 0 and 1"
    if isinstance(y, list | tuple):
        return "; numpy.asarray makes one"
    if hasattr(y, "to_numpy"):
        return "; y.to_numpy() gives one"
    return _REGRESSION


@settings
class _Elementwise(_Weighing):
    """Base of losses between outputs and targets of the same shape, by a kernel of that name."""

    kernel: ClassVar[str] = ""
    weighted_kernel: ClassVar[str] = ""
    gradient: ClassVar[str] = "dprediction"

    def target(self, output: Shape) -> Value:
        return Value("target", output)

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        name = type(self).__name__
        if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.floating):
            got = f"dtype {y.dtype}" if isinstance(y, np.ndarray) else f"type {type(y).__name__}"
            hint = "; y.astype(float) makes one" if isinstance(y, np.ndarray) and y.dtype.kind in "iu" else ""
            raise TypeError(f"{name}: target has {got}, expected an array of floats{hint}")
        if y.shape == (rows,) and tuple(output[1:]) == (1,):
            raise ValueError(
                f"{name}: target has shape {y.shape}, expected ({rows}, 1), the shape of the output; y[:, np.newaxis]"
            )
        shapes.equal(name, "target", y.shape, (rows, *output[1:]), "the shape of the output")
        return y

    @property
    def _attributes(self) -> tuple[float, ...]:
        """Numbers that the kernel takes."""
        return ()

    def _kernel(self, weights: object) -> tuple[str, tuple[object, ...]]:
        """The kernel's name, and its weights where it has a parameter for them."""
        if self.weighted_kernel:
            return (self.weighted_kernel, (weights,)) if weights is not None else (self.kernel, ())
        return self.kernel, (weights,)

    def lower(
        self, plan: PlanBuilder, output: Value, target: Value, weights: Value | None = None
    ) -> tuple[Value, Value]:
        loss, gradient = plan.value("loss", ()), plan.value(self.gradient, output.shape)
        kernel, own = self._kernel(weights)
        d = shapes.channels(output.shape, kernel, "output")
        plan.call(kernel, output, target, *own, *self._attributes, d, loss, gradient)
        return loss, gradient

    def value(self, kernels: Kernels, output: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
        kernel, own = self._kernel(None if weights is None else weights.astype(output.dtype))
        target = np.ascontiguousarray(y, output.dtype)
        return float(getattr(kernels, kernel)(output, target, *own, *self._attributes)[0])


@settings
class MeanSquaredError(_Elementwise):
    """Mean of (output − target)² over all elements; targets have the output's shape.

    weighted: whether `fit`, `step` and `evaluate` take a sample_weight; then it is the mean by weight over samples.
    """

    kernel: ClassVar[str] = "mse"
    weighted_kernel: ClassVar[str] = "weighted_mse"


@settings
class MeanAbsoluteError(_Elementwise):
    """Mean of |output − target| over all elements; targets have the output's shape. weighted: as for squares."""

    kernel: ClassVar[str] = "mae"


@settings
class Huber(_Elementwise):
    """Mean of e² / 2 where |e| = |output − target| is at most delta, else of delta (|e| − delta / 2). Huber 1964.

    Targets have the output's shape. weighted: as for squares.
    """

    delta: float = 1.0

    kernel: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes.number("Huber", "delta", self.delta, 0.0, above=True)

    @property
    def _attributes(self) -> tuple[float, ...]:
        return (self.delta,)


@settings
class BinaryCrossEntropy(_Elementwise):
    """Mean of −t log σ(x) − (1 − t) log(1 − σ(x)) over all outputs x and targets t from 0 to 1, of one shape.

    The outputs are logits: σ(x) = 1 / (1 + e⁻ˣ) is part of the loss, and no layer of the model. weighted: as for
    squares.
    """

    kernel: ClassVar[str] = "binary_cross_entropy"
    gradient: ClassVar[str] = "dlogits"

    def check(self, y: object, rows: int, output: Shape) -> np.ndarray:
        target = super().check(y, rows, output)
        if target.size and not (target.min() >= 0 and target.max() <= 1):
            raise ValueError(f"BinaryCrossEntropy: target holds {target.min():g} to {target.max():g}, expected 0 to 1")
        return target


@settings
class SoftCrossEntropy(_Elementwise):
    """Cross-entropy of targets (N, C) that are shares of the classes, such as another model's probabilities, under the
    softmax of the model's output (N, C). weighted: as for squares.
    """

    kernel: ClassVar[str] = "soft_cross_entropy"
    gradient: ClassVar[str] = "dlogits"

    def target(self, output: Shape) -> Value:
        shapes.rank("SoftCrossEntropy", "output", output, 2, "samples, classes")
        return super().target(output)
