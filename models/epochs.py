"""A training plan over a data set: batches are gathered, run, and their losses kept, without a return to Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import data
from kernels import shapes
from kernels.interface import Program, Scalar

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
    plan, function = executor.plan, executor.kernels.function
    labelled = len(plan.inputs["target"].shape) == 1 and len(plan.outputs["output"].shape) == 2
    kept = _kept(executor, inputs, normalisation, len(order), batches)
    for first, last, n in ((0, full, size), (full, batches, rest)):
        if first == last:
            continue
        given = {name: executor.array(value, n) for name, value in plan.inputs.items()}
        found = {name: executor.array(value, n) for name, value in plan.outputs.items()}
        chosen = kept.order[first * size :]
        before: list[Call] = [
            (function("gather"), [source, chosen, _BATCH, levels, given[name]])
            for name, (source, levels) in kept.sources.items()
        ]
        after: list[Call] = [(function("keep"), [found["loss"], _BATCH, kept.losses[first:]])]
        if labelled:
            counting = [found["output"], given["target"], _BATCH, kept.counts[first:]]
            after.append((function("count_correct"), counting))
        own: dict[str, Any] = {name: values[first:last] for name, values in scalars.items()}
        own |= {_BATCH.name: range(last - first)}
        program = kept.programs.get((n, first))

        def fill(order: np.ndarray = order, kept: _Kept = kept) -> None:
            kept.order[: len(order)] = order

        kept.programs[n, first] = executor.run_rounds(n, last - first, own, before, after, version, program, fill)
    losses, counts = kept.losses[:batches].copy(), kept.counts[:batches].copy()
    return losses, counts if labelled else None


@dataclass
class _Kept:
    """What an epoch leaves for the next one over the same arrays: where order, losses and counts lie, and programs."""

    inputs: Mapping[str, np.ndarray]
    normalisation: tuple[float, float] | None
    sources: dict[str, tuple[np.ndarray, np.ndarray | None]]
    order: np.ndarray
    losses: np.ndarray
    counts: np.ndarray
    programs: dict[tuple[int, int], Program] = field(default_factory=dict)

    def serves(
        self, inputs: Mapping[str, np.ndarray], normalisation: tuple[float, float] | None, samples: int, batches: int
    ) -> bool:
        """Whether it is of these arrays as they lie, and has the room."""
        same = all(self.inputs[name] is array for name, array in inputs.items())
        as_they_lie = all(np.may_share_memory(self.sources[name][0], array) for name, array in inputs.items())
        room = len(self.order) >= samples and len(self.losses) >= batches
        return same and as_they_lie and room and self.normalisation == normalisation


def _kept(
    executor: Executor,
    inputs: Mapping[str, np.ndarray],
    normalisation: tuple[float, float] | None,
    samples: int,
    batches: int,
) -> _Kept:
    kept = executor.kept
    if not isinstance(kept, _Kept) or not kept.serves(inputs, normalisation, samples, batches):
        sources = {name: source_of(executor, name, array, normalisation) for name, array in inputs.items()}
        order, losses, counts = np.empty(samples, np.int64), np.empty(batches), np.empty(batches, np.int64)
        kept = executor.kept = _Kept(dict(inputs), normalisation, sources, order, losses, counts)
    return kept


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
