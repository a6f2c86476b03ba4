"""Sharding: a training step whose batch is cut into shards, and which several processes may share.

Each shard of a batch is a small batch of its own: it is run forward and backward alone, with masks and batch statistics
of its own, and whoever runs it comes to the same. Gradients are added in the order of a tree over the shards, running
statistics take the shards in a row: one process and many come to the same bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kernels.interface import Program
from kernels.threads import blas

from . import nonfinite
from .communicator import Communicator, Sum, blocks, complete, total
from .epochs import source_of
from .execute import Executor
from .graph import PREDICT_BATCH, Evaluation
from .nonfinite import NonFiniteError
from .plan import BATCH, Plan, Step, gradient_name

if TYPE_CHECKING:
    from .layout import Layout
    from .losses import Loss
    from .trainer import Trainer

BUCKET = 1 << 20
"""Bytes of gradients that are sent together, while the backward goes on: a message has a price of its own."""

Fill = Callable[[int, int, Executor], None]
"""Writes the samples from one place of the batch to another into an executor's inputs."""

Scalars = Mapping[str, Sequence[float] | np.ndarray]


class Shard(NamedTuple):
    """A shard that has samples: its number, and where they lie in the batch."""

    number: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Its samples."""
        return self.stop - self.start


def cut(n: int, count: int) -> list[Shard]:
    """A batch of n samples in shards of one size, or one more; those without a sample are left out."""
    ends = [number * n // count for number in range(count + 1)]
    return [Shard(i, ends[i], ends[i + 1]) for i in range(count) if ends[i] < ends[i + 1]]


def shares_of(shards: Sequence[Shard], weights: np.ndarray | None = None) -> list[float]:
    """How much of a batch's loss each of its shards is: its samples, or what they weigh, of all."""
    if weights is None:
        return [shard.size / shards[-1].stop for shard in shards]
    # Exactly rounded, so that it does not depend on how a machine adds.
    sums = [math.fsum(weights[shard.start : shard.stop].tolist()) for shard in shards]
    whole = math.fsum(weights.tolist())
    return [found / whole if whole else 0.0 for found in sums]


class ShardedStep:
    """A trainer's step in shards. What it is handed has been checked, and all ranks hand it the same.

    Raises ValueError for a plan that cannot be cut: one that changes statistics and uses them again, or keeps
    statistics of single samples.
    """

    synced = False
    """Whether batch-norm's statistics are the batch's."""

    def __init__(self, trainer: Trainer, count: int, communicator: Communicator) -> None:
        self._trainer, self.count, self.communicator = trainer, count, communicator
        self.blocks = blocks(count, communicator.size)
        plan = trainer.executor.plan
        self._optimizer = next((i for i, s in enumerate(plan.steps) if s.phase == "optimizer"), len(plan.steps))
        statistics = plan.steps[plan.updates : self._optimizer]
        running = trainer.model.statistics().keys()
        self._statistics = list(
            dict.fromkeys(v for step in statistics for v in step.inputs.values() if v.name not in running)
        )
        for value in self._statistics:
            if value.shape[:1] == (BATCH,):
                raise ValueError(f"Trainer: shards is {count}, but {value.name} is a statistic of single samples")
        self._buckets = _buckets(plan, trainer.model.parameter_layout, trainer.model.dtype.itemsize)
        self._stages: dict[tuple[Executor, int], list[Program]] = {}
        self._labelled = len(plan.inputs["target"].shape) == 1 and len(plan.outputs["output"].shape) == 2
        sizes = [math.prod(int(size) for size in value.shape) for value in self._statistics]
        self._places = [slice(end - size, end) for size, end in zip(sizes, np.cumsum([2, *sizes])[1:], strict=True)]
        self._width = 2 + sum(sizes)
        self._leaves: dict[int, np.ndarray] = {}
        self._counting: dict[tuple[Executor, int], Program] = {}
        self._correct = np.zeros(1, np.int64)
        self._subtrees: dict[int, dict[tuple[int, int], int]] = {}

    def cut(self, n: int) -> list[Shard]:
        """The shards of a batch of n samples."""
        return cut(n, self.count)

    def own(self, n: int) -> list[Shard]:
        """This rank's shards of a batch of n samples."""
        block = self.blocks[self.communicator.rank]
        return [shard for shard in self.cut(n) if shard.number in block]

    def run(self, n: int, fill: Fill, learning_rate: float, weights: np.ndarray | None = None) -> tuple[float, float]:
        """One step on a batch of n samples; returns its loss and the share of correct predictions.

        weights: of the batch's samples (n,), for a loss that weighs them. Raises NonFiniteError as the trainer's
        on_nonfinite says, on all ranks alike.
        """
        trainer, c = self._trainer, self.communicator
        shards = self.cut(n)
        shares = shares_of(shards, weights)
        with np.errstate(all="ignore"):
            figures, sums = self._compute(n, shards, fill, learning_rate, shares)
            counts = [sum(shard.number in block for shard in shards) for block in self.blocks]
            figures = c.rows(figures, counts)
            for pending in sums:
                pending.finish()
            loss = math.fsum(share * found for share, found in zip(shares, figures[:, 0], strict=True))
            if not math.isfinite(loss):
                loss = float(np.dot(shares, figures[:, 0]))
            if self._accepts(loss, figures):
                self._update(figures, learning_rate)
            elif trainer.on_nonfinite == "raise" or not trainer.is_finite():
                raise NonFiniteError(self._diagnosis(loss, figures, shards, fill, learning_rate))
            else:
                trainer.skipped += 1
        counted = n if weights is None else np.count_nonzero(weights)
        return loss, float(figures[:, 1].sum() / counted) if self._labelled and counted else math.nan

    def _compute(
        self, n: int, shards: Sequence[Shard], fill: Fill, learning_rate: float, shares: Sequence[float]
    ) -> tuple[np.ndarray, list[Sum]]:
        """Run this rank's shards; gives their figures, and the sums of gradients that have begun.

        shares: of the shards in the batch's loss. Where they are equal the sum is scaled; else gradients are weighted
        before they are added.
        """
        trainer, c = self._trainer, self.communicator
        gradients, own = trainer.flat_gradients, self.own(n)
        figures = np.zeros((len(own), self._width))
        sums: list[Sum] = []
        equal = len(set(shares)) == 1
        scale = shares[0] if equal else 1.0
        by_number = {shard.number: share for shard, share in zip(shards, shares, strict=True)}
        alone = len(own) == 1  # the only shard's gradients can leave while they are computed
        for row, shard in zip(figures, own, strict=True):
            executor = trainer.executor_for(shard.size)
            fill(shard.start, shard.stop, executor)
            stages = self._programs(executor, shard.size)
            scalars: Scalars = {"step": [self._mask_step(shard)], "learning_rate": [learning_rate]}
            for i, bucket in enumerate(self._buckets):
                stages[i].run(1, scalars)
                part = gradients[bucket.piece]
                if not equal:
                    part *= part.dtype.type(by_number[shard.number])
                if alone:
                    sums.append(Sum(c, {self._node(shard): part}, self._owners(shards), self.count, part, i, scale))
            if not alone:
                self._leaf(shard)[...] = gradients
            self._note(row, executor, shard)
        return figures, sums if alone else self._sums(shards, own, scale)

    def _sums(self, shards: Sequence[Shard], own: Sequence[Shard], scale: float) -> list[Sum]:
        """Begin to add up the gradients that this rank's shards have left, and scale the sum."""
        c, gradients = self.communicator, self._trainer.flat_gradients
        owners = self._owners(shards)
        leaves = {(shard.number, shard.number + 1): self._leaf(shard) for shard in own}
        nodes = {node: total(node, leaves) for node, rank in owners.items() if rank == c.rank}
        sums = []
        for i, (piece, _) in enumerate(self._buckets):
            mine = {node: part[piece] for node, part in nodes.items() if part is not None}
            sums.append(Sum(c, mine, owners, self.count, gradients[piece], i, scale))
        return sums

    def _leaf(self, shard: Shard) -> np.ndarray:
        """Memory for the gradients of one of this rank's shards, where there are several."""
        if shard.number not in self._leaves:
            self._leaves[shard.number] = np.zeros_like(self._trainer.flat_gradients)
        return self._leaves[shard.number]

    def _owners(self, shards: Sequence[Shard]) -> dict[tuple[int, int], int]:
        """The rank of every subtree that has samples."""
        n = shards[-1].stop
        if n not in self._subtrees:
            if len(self._subtrees) > 8:
                self._subtrees.clear()
            self._subtrees[n] = {
                node: rank
                for rank, block in enumerate(self.blocks)
                for node in complete(self.count, block)
                if any(node[0] <= shard.number < node[1] for shard in shards)
            }
        return self._subtrees[n]

    def _node(self, shard: Shard) -> tuple[int, int]:
        """The subtree that a rank's only shard fills: others of its block may have no sample."""
        block = self.blocks[self.communicator.rank]
        return next(node for node in complete(self.count, block) if node[0] <= shard.number < node[1])

    def _mask_step(self, shard: Shard) -> int:
        """The number that masks are drawn by: no other step, batch of it and shard has it."""
        trainer = self._trainer
        batch = trainer.steps * trainer.accumulate + trainer.gathered
        return batch * self.count + shard.number + 1

    def _programs(self, executor: Executor, n: int) -> list[Program]:
        key = executor, n
        if key not in self._stages:
            if len(self._stages) > 8:
                self._stages.clear()
            self._stages[key] = executor.stages(n, [*(bucket.end for bucket in self._buckets), self._optimizer])
        return self._stages[key]

    def _note(self, row: np.ndarray, executor: Executor, shard: Shard) -> None:
        """Loss, correct predictions and batch statistics of the shard that has just run."""
        plan = executor.plan
        row[0] = executor.array(plan.outputs["loss"], shard.size)
        if self._labelled:
            target = executor.array(plan.inputs["target"], shard.size)
            key = executor, shard.size
            if key not in self._counting:
                if len(self._counting) > 8:
                    self._counting.clear()
                call = executor.kernels.function("count_correct")
                output = executor.array(plan.outputs["output"], shard.size)
                self._counting[key] = executor.program([(call, [output, target, 0, self._correct])])
            self._counting[key].run(1, {})
            row[1] = self._correct[0]
        for value, place in zip(self._statistics, self._places, strict=True):
            row[place] = executor.array(value, shard.size).ravel()

    def _accepts(self, loss: float, figures: np.ndarray) -> bool:
        trainer = self._trainer
        if trainer.on_nonfinite == "ignore":
            return True
        if not math.isfinite(loss):
            return False
        if not trainer.looks_at_gradients():
            return True
        return nonfinite.is_finite(trainer.flat_gradients) and nonfinite.is_finite(figures[:, 2:])

    def _update(self, figures: np.ndarray, learning_rate: float) -> None:
        trainer = self._trainer
        if not trainer.is_gathered():
            return
        trainer.steps += 1
        executor = trainer.executor
        *_, statistics, optimizer = self._programs(executor, executor.batch_size)
        scalars = trainer.scalars(trainer.steps, np.array([learning_rate], np.float64))
        if self._statistics:
            for row in figures[:1] if self.synced else figures:
                for value, place in zip(self._statistics, self._places, strict=True):
                    array = executor.array(value, executor.batch_size)
                    array[...] = row[place].reshape(array.shape)
                statistics.run(1, scalars)
        optimizer.run(1, scalars)

    def _diagnosis(
        self, loss: float, figures: np.ndarray, shards: Sequence[Shard], fill: Fill, learning_rate: float
    ) -> str:
        """The trainer's, of the first shard that is bad, from the rank whose it is."""
        bad = next((i for i, found in enumerate(figures[:, 0]) if not math.isfinite(found)), 0)
        text = ""
        if (shard := shards[bad]).number in self.blocks[self.communicator.rank]:
            executor = self._trainer.executor_for(shard.size)
            fill(shard.start, shard.stop, executor)
            inputs = {name: executor.array(v, shard.size).copy() for name, v in executor.plan.inputs.items()}
            steps = self._trainer.scalars(self._mask_step(shard), np.array([learning_rate], np.float64))
            scalars = {name: values.item() for name, values in steps.items()}
            text = self._trainer.diagnosis(inputs, loss, scalars, self._trainer.steps + 1)
        return "".join(self.communicator.gather(text))

    def evaluate(self, x: np.ndarray, y: np.ndarray, loss: Loss) -> Evaluation:
        """What the model's `evaluate` gives, each rank having predicted a part; its batches are the same."""
        model, c = self._trainer.model, self.communicator
        target = loss.check(y, len(x), model.output_shape)
        weights = loss.weights("evaluate", target, None)
        batches = -(-len(x) // PREDICT_BATCH)
        ends = [min(len(x), block.stop * PREDICT_BATCH) for block in blocks(batches, c.size)]
        counts = np.diff([0, *ends]).tolist()
        mine = x[ends[c.rank] - counts[c.rank] : ends[c.rank]]
        shape = tuple(int(size) for size in model.output_shape[1:])
        output = c.rows(model.predict(mine) if len(mine) else np.empty((0, *shape), model.dtype), counts)
        return model.judged(output, target, loss, weights)


class SyncedStep(ShardedStep):
    """A step in shards whose batch-norms take the statistics of the whole batch.

    All shards stop at every batch-norm, and at every backward of one. What the kernel has found of a shard is joined to
    that of the others, in float64 and in the order of the shards: means and sums of squares as T. F. Chan, G. H. Golub
    and R. J. LeVeque have them (1979). Gradients are the batch's from the loss on, each shard's times its share: one
    that weighs nothing has gradients through the others' statistics alone.
    """

    synced = True

    def __init__(self, trainer: Trainer, count: int, communicator: Communicator) -> None:
        super().__init__(trainer, count, communicator)
        plan = trainer.executor.plan
        norms = ("batchnorm", "batchnorm_backward")
        computing = list(enumerate(plan.steps[: plan.updates]))
        self._norms = [(i, step) for i, step in computing if step.kernel in norms]
        self._loss_end = max(i for i, step in computing if step.phase == "loss") + 1
        found = {v.origin for _, step in computing if step.phase == "loss" for v in step.outputs.values()}
        read = (v.origin for _, step in computing if step.phase == "backward" for v in step.inputs.values())
        self._from_loss = list(dict.fromkeys(value for value in read if value in found))
        self._own: dict[int, Executor] = {}

    def _compute(
        self, n: int, shards: Sequence[Shard], fill: Fill, learning_rate: float, shares: Sequence[float]
    ) -> tuple[np.ndarray, list[Sum]]:
        own = self.own(n)
        figures = np.zeros((len(own), self._width))
        counts = [sum(shard.number in block for shard in shards) for block in self.blocks]
        by_number = {shard.number: share for shard, share in zip(shards, shares, strict=True)}
        stops = sorted([*((i + 1, step) for i, step in self._norms), (self._loss_end, None)], key=lambda stop: stop[0])
        running = []
        for shard in own:
            executor = self._executor(shard)
            fill(shard.start, shard.stop, executor)
            key = executor, shard.size
            if key not in self._stages:
                places = [*(place for place, _ in stops), executor.plan.updates]
                self._stages[key] = executor.stages(shard.size, places)
            scalars: Scalars = {"step": [self._mask_step(shard)], "learning_rate": [learning_rate]}
            running.append((shard, executor, self._stages[key], scalars))
        for at, (_, step) in enumerate(stops):
            for _, _, stages, scalars in running:
                stages[at].run(1, scalars)
            if step is None:
                for shard, executor, _, _ in running:
                    for value in self._from_loss:
                        gradient = executor.array(value, shard.size)
                        gradient *= gradient.dtype.type(by_number[shard.number])
                continue
            norms = [_Norm(executor, step, shard.size) for shard, executor, _, _ in running]
            channels = step.dims["d"].channels
            found = np.array([norm.figures() for norm in norms]).reshape(len(norms), 2, channels)
            joined = self.communicator.rows(found, counts)
            for norm in norms:
                norm.join(joined, [other.size for other in shards], n)
        for row, (shard, executor, stages, scalars) in zip(figures, running, strict=True):
            stages[len(stops)].run(1, scalars)
            self._note(row, executor, shard)
        return figures, self._sums(shards, own, 1.0)

    def _executor(self, shard: Shard) -> Executor:
        """One for each of this rank's shards, with gradients of its own."""
        trainer = self._trainer
        executor = self._own.get(shard.number)
        if executor is None or executor.batch_size < shard.size:
            size = max(shard.size, trainer.executor.batch_size)
            arrays = trainer.arrays() | trainer.model.arrays(self._leaf(shard))
            executor = self._own[shard.number] = Executor(trainer.plan, trainer.model.kernels, size, arrays)
        return executor


class _Norm:
    """A batch-norm that has run on one shard of n samples, forward or backward."""

    def __init__(self, executor: Executor, step: Step, n: int) -> None:
        self._step = step
        self._arrays = {name: executor.array(v, n) for name, v in (step.inputs | step.outputs).items()}
        self._values = n * step.dims["d"].positions
        self._backward = step.kernel == "batchnorm_backward"

    def figures(self) -> np.ndarray:
        """Mean and sum of squares, or the gradients by gamma and beta, of each channel: (2, C)."""
        a = self._arrays
        if self._backward:
            return np.array([a["dgamma"], a["dbeta"]], np.float64)
        return np.array([a["mean"], a["var"].astype(np.float64) * max(self._values - 1, 1)], np.float64)

    def join(self, figures: np.ndarray, sizes: Sequence[int], n: int) -> None:
        """Make the output what it is with the figures of all shards, (shards, 2, C)."""
        a, positions = self._arrays, self._step.dims["d"].positions
        if self._backward:
            if "dx" in a:
                # The kernel has taken the shard's sums over the shard's values from dy.
                own = np.array([a["dgamma"], a["dbeta"]], np.float64) / self._values
                dgamma, dbeta = own - figures.sum(axis=0) / (n * positions)
                scale, dtype = a["gamma"] * a["inv_std"], a["dx"].dtype
                normalised = (a["x"] - a["mean"]) * a["inv_std"]
                a["dx"] += scale * (dbeta.astype(dtype) + normalised * dgamma.astype(dtype))
            return
        count, mean, squares = 0, np.zeros(figures.shape[2]), np.zeros(figures.shape[2])
        for size, (other, more) in zip(sizes, figures, strict=True):
            m = size * positions
            apart = other - mean
            squares += more + apart * apart * (count * m / (count + m))
            count += m
            mean += apart * (m / count)
        a["mean"][...] = mean
        a["var"][...] = squares / max(count - 1, 1)
        a["inv_std"][...] = 1 / np.sqrt(squares / count + self._step.dims["eps"])
        np.subtract(a["x"], a["mean"], out=a["y"])
        a["y"] *= a["gamma"] * a["inv_std"]
        a["y"] += a["beta"]


class _Bucket(NamedTuple):
    """A piece of the flat gradients, and the step before which all of it is there."""

    piece: slice
    end: int


def _buckets(plan: Plan, layout: Layout, itemsize: int) -> list[_Bucket]:
    """The flat gradients from the back, where the backward begins, in pieces of BUCKET bytes or more."""
    written: dict[str, int] = {}
    for i, step in enumerate(plan.steps[: plan.updates], start=1):
        written |= {value.origin.name: i for value in step.outputs.values()}
    found: list[_Bucket] = []
    stop, end = layout.size, 0
    for name, start in reversed(layout.offsets.items()):
        end = max(end, written.get(gradient_name(name), 0))  # of a frozen node nobody writes any
        if (stop - start) * itemsize >= BUCKET and start > 0:
            found.append(_Bucket(slice(start, stop), end))
            stop = start
    return [*found, _Bucket(slice(0, stop), plan.updates)]


class Feed:
    """Gathers a batch's samples from a whole set, in compiled code where the backend has it."""

    def __init__(self, inputs: Mapping[str, np.ndarray], normalisation: tuple[float, float] | None) -> None:
        self._inputs, self._normalisation = inputs, normalisation
        self._programs: dict[tuple[Executor, int], tuple[Program, np.ndarray]] = {}

    def fill(self, indices: np.ndarray) -> Fill:
        """What writes the samples of these indices."""

        def write(start: int, stop: int, executor: Executor) -> None:
            key = executor, stop - start
            if key not in self._programs:
                if len(self._programs) > 8:
                    self._programs.clear()
                self._programs[key] = self._gathering(executor, stop - start)
            program, chosen = self._programs[key]
            chosen[...] = indices[start:stop]
            program.run(1, {})

        return write

    def _gathering(self, executor: Executor, n: int) -> tuple[Program, np.ndarray]:
        chosen = np.empty(n, np.int64)
        gather = executor.kernels.function("gather")
        calls = []
        for name, value in executor.plan.inputs.items():
            array, levels = source_of(executor, name, self._inputs[name], self._normalisation)
            calls.append((gather, [array, chosen, 0, levels, executor.array(value, n)]))
        return executor.program(calls), chosen


def copied(inputs: Mapping[str, np.ndarray]) -> Fill:
    """What writes the samples of a batch that is at hand."""

    def write(start: int, stop: int, executor: Executor) -> None:
        for name, value in executor.plan.inputs.items():
            executor.array(value, stop - start)[...] = inputs[name][start:stop]

    return write


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's products on one thread of the BLAS, whose sums depend on how many there are."""
    with blas().limit(limits=1):
        yield
