"""A training plan over a data set: batches are gathered, run, and their losses kept, without a return to Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import data
from kernels import shapes
from kernels.interface import Scalar

from .execute import Call, Executor

_BATCH = Scalar("batch", int)


def run_epoch(
    executor: Executor,
    inputs: Mapping[str, np.ndarray],
    order: np.ndarray,
    normalisation: tuple[float, float] | None = None,
    version: int = 0,
    **scalars: Sequence[float] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a training plan on one batch of a data set after the other, bit for bit as `Executor.run` does with each.

    inputs: the whole set by name, "input" (S, ...) and "target" (S, ...); arrays that are not contiguous and of
    the plan's dtypes are copied first. Images of uint8 are normalised by (mean, std) as they are read.
    order: indices of samples; every batch_size of them make a batch, the last may be smaller.
    scalars: `step` and `learning_rate`, each with one value a batch.

    Returns the loss of every batch, float64, and the number of its correct predictions, int64, or None where the
    targets are no labels. Raises IndexError for an index out of range, ValueError for uint8 images without a
    normalisation, for other inputs than the plan's and for scalars of another number than the batches', TypeError for
    numbers of another kind.
    """
    order = np.array(order, np.int64)  # its own, which nobody changes under the loop
    if inputs.keys() != executor.plan.inputs.keys():
        names = ", ".join(inputs) or "nothing"
        raise ValueError(f"run_epoch: the inputs are {names}; expected {', '.join(executor.plan.inputs)}")
    for name, array in inputs.items():
        if len(order) and not 0 <= order.min() <= order.max() < len(array):
            raise IndexError(f"run_epoch: order holds {order.min()} to {order.max()}, {name} has {len(array)} samples")
    size = executor.batch_size
    full, rest = divmod(len(order), size)
    batches = full + (rest > 0)
    for name, values in scalars.items():
        if len(values) != batches:
            raise ValueError(f"run_epoch: {name} has {len(values)} values, expected {batches}, one a batch")
    losses, counts = np.empty(batches), np.empty(batches, np.int64)
    plan, function = executor.plan, executor.kernels.function
    labelled = len(plan.inputs["target"].shape) == 1 and len(plan.outputs["output"].shape) == 2
    sources = {name: source_of(executor, name, array, normalisation) for name, array in inputs.items()}
    for first, last, n in ((0, full, size), (full, batches, rest)):
        if first == last:
            continue
        given = {name: executor.array(value, n) for name, value in plan.inputs.items()}
        found = {name: executor.array(value, n) for name, value in plan.outputs.items()}
        chosen = order[first * size :]
        before: list[Call] = [
            (function("gather"), [source, chosen, _BATCH, levels, given[name]])
            for name, (source, levels) in sources.items()
        ]
        after: list[Call] = [(function("keep"), [found["loss"], _BATCH, losses[first:]])]
        if labelled:
            after.append((function("count_correct"), [found["output"], given["target"], _BATCH, counts[first:]]))
        own = {name: values[first:last] for name, values in scalars.items()}
        executor.run_rounds(n, last - first, own | {_BATCH.name: range(last - first)}, before, after, version)
    return losses, counts if labelled else None


def source_of(
    executor: Executor, name: str, array: np.ndarray, normalisation: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """A set as batches are gathered from it; and for uint8 images, what each level becomes."""
    shapes.equal("run_epoch", name, array.shape[1:], executor.plan.inputs[name].shape[1:], "of one sample")
    dtype = executor.plan.inputs[name].dtype or executor.plan.dtype
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"run_epoch: {name} has dtype {array.dtype}, expected {dtype}")
    if array.dtype != np.uint8 or dtype.kind != "f":
        return np.ascontiguousarray(array, dtype), None
    if normalisation is None:
        raise ValueError(f"run_epoch: {name} holds uint8 images, expected a normalisation with them")
    levels = data.standardise(np.arange(256, dtype=np.uint8), *normalisation)
    return np.ascontiguousarray(array), levels.astype(dtype)
