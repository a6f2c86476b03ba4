"""Trainer: the whole training step as one plan, and what becomes of a step whose numbers are not finite."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import data
from kernels import memory, shapes

from . import nonfinite
from .callbacks import Callback, EpochLines
from .callbacks import checked as checked_callbacks
from .checkpoints import Checkpoints
from .communicator import Communicator
from .execute import Executor
from .fit import Fit
from .graph import Graph
from .history import History, Progress
from .layers import LogSoftmax, Softmax
from .losses import Loss, SoftmaxCrossEntropy
from .lowering import lower_training
from .nodes import INPUT
from .nonfinite import NonFiniteError
from .optimizers import Optimizer
from .parts import Part, parts_of
from .plan import AVERAGE, AVERAGE_MOMENTUM, GRADIENTS, PARAMETERS, WEIGHTS, state_name
from .precision import checked as checked_precision
from .rewrite import checked, rewrite
from .schedules import Schedule
from .sharding import Fill, ShardedStep, SyncedStep, copied, one_blas_thread

ON_NONFINITE = ("raise", "skip", "ignore")
GATHERED = "gathered"
"""The vector that is the sum of the gradients that wait."""

GRADIENTS_EVERY = 100
"""Steps between two looks at the gradients with on_nonfinite="raise"."""


class Trainer:
    """Trains a model in place.

    batch_size: samples a step; buffers for it are allocated once, a smaller last batch uses part of them.
    loss: SoftmaxCrossEntropy() unless told.
    schedule: factor of the optimizer's learning rate over a fit; constant unless told.
    rewrites: names of the rewrites (`models.rewrite.REWRITES`) of the step; None for all that the backend has kernels
    for, () for none.
    on_nonfinite: what happens to a step whose loss, gradients or batch statistics are NaN or infinite, found before it
    has changed anything. "raise": a NonFiniteError, which names the first bad layer as a replay of the batch on the
    NumPy backend shows it; the loss is looked at in each step, the others in every hundredth. "skip": the step is left
    out, and counted; all are looked at in each step. "ignore": nothing.
    learning_rates: factors of the learning rate by node; a name stands for all nodes that begin with it and a dot.
    Nodes at 0 are frozen: their parameters stay as they are, and no gradients by them are computed.
    average: the weight of the old in a moving average of the parameters, such as 0.999, which begins with those of the
    first step; `averaged` gives the model that has them.
    accumulate: batches whose gradients are averaged before the optimizer steps.
    shards: parts into which a batch is cut, each with a mask and batch statistics of its own; their gradients are added
    in a fixed order. None: the number of ranks, or one process's batch as a whole.
    communicator: a `Communicator`, or an mpi4py communicator: its ranks share the shards, and all call what one calls,
    with the same arguments. Results depend on the shards alone, not on the ranks and threads that compute them.
    sync_batchnorm: batch-norm takes the statistics of the whole batch and not of the shard, which is slower: the
    shards wait for each other at every such layer, and no step is fused.
    precision: of the operands of linear layers and convolutions, forward and backward, "float32" or "bfloat16"; the
    model's own unless told. Parameters, sums and statistics are float32, and `evaluate` is as precise as the model.
    `trainer.plan` is the whole step, and print(trainer.plan) lists it. `steps` counts the optimizer's steps, `epochs`
    the epochs, `skipped` the steps left out, and `progress` is where the running fit stands.

    Model, optimizer, loss, batch size and the like are fixed: the plan is made of them. A trainer works for one
    Python thread at a time; RuntimeError where a second one asks.
    """

    _FIXED = frozenset(
        (
            "model",
            "optimizer",
            "loss",
            "batch_size",
            "on_nonfinite",
            "plan",
            "learning_rates",
            "average",
            "accumulate",
            "shards",
            "communicator",
            "sync_batchnorm",
            "precision",
        )
    )

    def __init__(
        self,
        model: Graph,
        optimizer: Optimizer,
        loss: Loss | None = None,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        rewrites: Iterable[str] | None = None,
        on_nonfinite: str = "raise",
        learning_rates: Mapping[str, float] | None = None,
        average: float | None = None,
        accumulate: int = 1,
        shards: int | None = None,
        communicator: Any = None,
        sync_batchnorm: bool = False,
        precision: str | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        self.schedule = Schedule() if schedule is None else schedule
        for name, kind in (("model", Graph), ("optimizer", Optimizer), ("loss", Loss), ("schedule", Schedule)):
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"Trainer: {name} is {value!r}, expected a models.{kind.__name__}")
        self.on_nonfinite = shapes.word("Trainer", "on_nonfinite", on_nonfinite, ON_NONFINITE)
        self.batch_size = shapes.integer("Trainer", "batch_size", batch_size, 1)
        self.communicator = communicator if isinstance(communicator, Communicator) else Communicator(communicator)
        self.shards = self.communicator.size if shards is None else shapes.integer("Trainer", "shards", shards, 1)
        for count, of in ((self.communicator.size, "ranks"), (self.shards, "shards")):
            limit, where = (self.shards, "shards") if of == "ranks" else (self.batch_size, "samples a batch")
            if count > limit:
                raise ValueError(f"Trainer: {count} {of} for {limit} {where}, expected at most as many")
        self._warn_of_softmax()
        self.average = None if average is None else shapes.number("Trainer", "average", average, 0.0, below=1.0)
        self.accumulate = shapes.integer("Trainer", "accumulate", accumulate, 1)
        self._parts: tuple[Part, ...] | None = None
        if learning_rates is not None:
            names = [node.name for node in model.nodes]
            self._parts = parts_of("Trainer", model.parameter_layout, names, learning_rates)
        self.learning_rates = None if learning_rates is None else dict(learning_rates)
        self.precision = checked_precision("Trainer", model.precision if precision is None else precision, model.dtype)
        plain = lower_training(
            model.architecture,
            self.loss,
            optimizer,
            self.batch_size,
            parts=self._parts,
            average=average is not None,
            precision=self.precision,
        )
        norms = (step for step in plain.steps if step.kernel in ("batchnorm", "meannorm"))
        self.over_samples = {step.node: step.name for step in norms if step.dims["d"].positions == 1}
        """Nodes that normalise over the samples alone, and by what: of one sample nothing is left."""
        self._rewrites = checked(rewrites)
        self.sync_batchnorm = shapes.flag("Trainer", "sync_batchnorm", sync_batchnorm) and self.shards > 1
        self.plan = rewrite(plain, model.kernels, () if self.sync_batchnorm else rewrites)
        if (on_nonfinite == "skip" or self.shards > 1) and (early := self._changed_early()):
            what = "on_nonfinite is 'skip'" if on_nonfinite == "skip" else f"shards is {self.shards}"
            known = "a step is known to be sound; expected 'raise' or 'ignore'"
            raise ValueError(
                f"Trainer: {what}, but {', '.join(early)} must change before "
                + (known if on_nonfinite == "skip" else "all shards are done; expected 1")
            )
        size = model.parameter_layout.size
        self._gradients = memory.zeros(size, model.dtype)
        kept = [*optimizer.state, *([AVERAGE] if average is not None else []), *([GATHERED] if accumulate > 1 else [])]
        self.state = {name: memory.zeros(size, model.dtype) for name in kept}
        self.executor = Executor(self.plan, model.kernels, -(-self.batch_size // self.shards), self.arrays())
        statistics = (step for step in self.plan.steps if step.phase == "statistics")
        self._batch_statistics = [value for step in statistics for value in step.inputs.values()]
        self.steps = 0
        self.epochs = 0
        self.skipped = 0
        self.gathered = 0
        """Batches whose gradients wait for the optimizer's step."""
        self.stop = False
        self.validates = False
        """Whether the running fit has validation data."""
        self.progress = Progress()
        self._larger: Executor | None = None
        self._busy = threading.RLock()
        self.sharded: ShardedStep | None = None
        """How a step is taken in shards; None where batches are whole."""
        if self.shards > 1:
            sharded = SyncedStep if self.sync_batchnorm else ShardedStep
            self.sharded = sharded(self, self.shards, self.communicator)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._FIXED and name in self.__dict__:
            raise AttributeError(f"Trainer: {name} is fixed, since the plan is made of it; make another Trainer")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        how = f"{self.optimizer}, {self.loss}, in batches of {self.batch_size}"
        how += "" if self.precision == self.model.precision else f" in {self.precision}"
        return f"<Trainer of {self.model!r} by {how}, {self.steps:,} steps done>"

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(repr(self))}</p>{self.model.summary()._repr_html_()}"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.communicator.size > 1:
            raise TypeError("Trainer: one of several ranks cannot be copied or pickled; its model can")
        counters = {name: getattr(self, name) for name in ("steps", "epochs", "skipped", "gathered", "progress")}
        settings = (
            self.optimizer,
            self.loss,
            self.batch_size,
            self.schedule,
            self._rewrites,
            self.on_nonfinite,
            self.learning_rates,
            self.average,
            self.accumulate,
            self.shards,
            None,
            self.sync_batchnorm,
            self.precision,
        )
        return _restored, (self.model, settings, self.state, self._gradients, counters)

    def _warn_of_softmax(self) -> None:
        nodes = {node.name: node.layer for node in self.model.nodes}
        if isinstance(self.loss, SoftmaxCrossEntropy) and isinstance(nodes[self.model.output], Softmax | LogSoftmax):
            name = type(nodes[self.model.output]).__name__
            warnings.warn(
                f"Trainer: the model ends in {name}() and SoftmaxCrossEntropy takes the softmax of its input again; "
                "leave the layer out, and take kernels.softmax of the logits where probabilities are wanted",
                stacklevel=3,
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other Python threads out; RuntimeError where one is at work."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("Trainer: another thread is at work with this trainer; make one for each thread")
        try:
            yield
        finally:
            self._busy.release()

    def _changed_early(self) -> list[str]:
        """The statistics that a layer changes and uses again in the same step."""
        computing = self.plan.steps[: self.plan.updates]
        return sorted({v.name for step in computing for v in step.outputs.values()} & self.model.statistics().keys())

    def arrays(self) -> dict[str, np.ndarray]:
        """The persistent arrays by value name, writable: for executors alone."""
        state = {state_name(name): array for name, array in self.state.items()}
        arrays = self.model.arrays(self._gradients) | state
        vectors = {name: arrays[name] for name in (PARAMETERS, GRADIENTS, *state)}
        return arrays | {k: view for part in self._parts or () for k, view in part.views(vectors).items()}

    def changing(self) -> dict[str, np.ndarray]:
        """Every array that steps change, writable: parameters, running statistics, optimizer state."""
        return {PARAMETERS: self.model.arrays()[PARAMETERS]} | self.model.statistic_views() | self.state

    def changed(self) -> None:
        """Steps have been taken: gaps between parameters are zero again, and the model is another."""
        self.model.parameter_layout.clear_gaps(self.model.arrays()[PARAMETERS], *self.state.values())
        self.model.changed()

    def refuse_nonfinite(self) -> None:
        """Raise NonFiniteError if a step has left numbers that are not finite, which no later step is there to show."""
        if self.on_nonfinite != "ignore":
            arrays = self.model.parameters() | self.model.statistics()
            nonfinite.refuse(f"training: a number has overflowed by step {self.steps}", arrays)

    @property
    def bytes(self) -> int:
        """Memory that training holds: buffers and scratch of a step, parameters, gradients, statistics, state."""
        flat = (self._gradients, *self.changing().values())
        return self.executor.bytes + sum(array.nbytes for array in flat)

    @property
    def flat_gradients(self) -> np.ndarray:
        """The gradients as one vector, writable: for steps alone."""
        return self._gradients

    def gradients(self) -> dict[str, np.ndarray]:
        """Copies of the last step's gradients by parameter name."""
        return {name: view.copy() for name, view in self.model.parameter_layout.views(self._gradients).items()}

    def averaged(self) -> Graph:
        """A copy of the model with the moving average of its parameters, and its own running statistics.

        Raises ValueError for a trainer that keeps none.
        """
        if self.average is None:
            raise ValueError("averaged: the trainer keeps no average, expected Trainer(..., average=0.999)")
        copy = self.model.to(self.model.backend)
        if self.steps:
            copy.set_parameters(self.model.parameter_layout.views(self.state[AVERAGE]))
        return copy

    def scalars(self, first: int, rates: np.ndarray) -> dict[str, np.ndarray]:
        """What steps from number `first` on, at these learning rates, are handed: values by name, one a step."""
        found = {"step": np.arange(first, first + len(rates)), "learning_rate": rates}
        found |= {part.learning_rate.name: part.factor * rates for part in self._parts or ()}
        if self.average is not None:
            momentum = np.full(len(rates), 1 - self.average)
            momentum[: first == 1] = 1.0
            found[AVERAGE_MOMENTUM.name] = momentum
        return found

    def step(
        self,
        x: np.ndarray,
        y: np.ndarray,
        learning_rate: float | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        """One optimizer step on one batch of at most batch_size samples; returns the batch's loss.

        x: float images, or uint8 ones if the model has a normalisation. y: integer labels, or the loss's targets.
        learning_rate: the optimizer's own unless told. sample_weight: how much each sample counts, for a loss that is
        `weighted`. Raises NonFiniteError as on_nonfinite says, and ValueError for
        one sample where a layer normalises over the samples.
        """
        self.model.check_images(x)
        if len(x) > self.batch_size:
            raise ValueError(f"Trainer.step: x has {len(x)} samples, expected at most batch_size {self.batch_size}")
        target = self.loss.check(y, len(x), self.model.output_shape)
        rate = self.optimizer.learning_rate
        if learning_rate is not None:
            rate = shapes.number("Trainer.step", "learning_rate", learning_rate, 0.0)
        weights = self.loss.weights("Trainer.step", target, sample_weight)
        with self.alone():
            images = self.model.prepare(x)
            if self.sharded is None:
                return float(self.run_step(images, target, rate, weights)["loss"])
            with self.together():
                inputs = {INPUT: images, "target": target} | ({} if weights is None else {WEIGHTS: weights})
                return self.sharded_step(len(x), copied(inputs), rate, weights)[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What shards need around their steps, and the ranks told where this one fails."""
        if self.sharded is None:
            yield
            return
        try:
            with one_blas_thread() if self.model.backend == "numpy" else contextlib.nullcontext():
                yield
        except BaseException as error:
            self.communicator.fail(error)
            raise

    def sharded_step(
        self, n: int, fill: Fill, learning_rate: float, weights: np.ndarray | None = None
    ) -> tuple[float, float]:
        """`step` in shards, on n samples that `fill` writes; returns the loss and the share of correct predictions."""
        assert self.sharded is not None
        if n < self.least_samples:
            self.refuse_single_samples("a shard")
        try:
            return self.sharded.run(n, fill, learning_rate, weights)
        finally:
            self.changed()

    def run_step(
        self, x: np.ndarray, target: np.ndarray, learning_rate: float, weights: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`step` with images, targets and weights that are checked and prepared, of any number; returns the plan's
        outputs."""
        if len(x) == 1:
            self.refuse_single_samples("a batch")
        executor = self.executor_for(len(x))
        inputs = {INPUT: x, "target": target} | ({} if weights is None else {WEIGHTS: weights})
        steps = self.scalars(self.steps + 1, np.array([learning_rate], np.float64)).items()
        scalars: dict[str, Any] = {name: values.item() for name, values in steps}

        def accept(outputs: dict[str, np.ndarray]) -> bool:
            if self._is_sound(executor, outputs, len(x)):
                if not self.is_gathered():
                    return False
                self.steps += 1
                return True
            if self.on_nonfinite == "raise" or not self.is_finite():
                raise NonFiniteError(self.diagnosis(inputs, float(outputs["loss"]), scalars, self.steps + 1))
            self.skipped += 1
            return False

        try:
            with np.errstate(all="ignore"):
                return executor.run(inputs, len(x), accept, **scalars)
        finally:
            self.changed()

    def is_gathered(self) -> bool:
        """Take the batch's gradients in; whether the optimizer may step: then they are the mean of all that waited."""
        if self.accumulate == 1:
            return True
        waiting = self.state[GATHERED]
        waiting += self._gradients
        self.gathered += 1
        if self.gathered < self.accumulate:
            return False
        np.divide(waiting, self.accumulate, out=self._gradients)
        waiting.fill(0)
        self.gathered = 0
        return True

    def executor_for(self, n: int) -> Executor:
        """The executor, or one for a larger batch, which only the last of an epoch can be."""
        if n <= self.executor.batch_size:
            return self.executor
        if self._larger is None or self._larger.batch_size < n:
            self._larger = Executor(self.plan, self.model.kernels, n, self.arrays())
        return self._larger

    def refuse_single_samples(self, where: str) -> None:
        """Raise ValueError where batch-norm has the samples alone: one has no variance."""
        for name in (name for name, kernel in self.over_samples.items() if kernel == "batchnorm"):
            layer = next(node.layer for node in self.model.nodes if node.name == name)
            raise ValueError(
                f"training: node {name!r} ({layer}) has one value a channel where {where} has one sample, "
                "expected two or more"
            )

    @property
    def least_samples(self) -> int:
        """Of a batch, for whatever takes statistics over its samples to have two."""
        return 2 if self.sync_batchnorm else 2 * self.shards

    def steps_together(self) -> int:
        """How many steps from here on may run in one call: those of which nothing but the loss has to be looked at."""
        if self.on_nonfinite == "skip" or self.accumulate > 1 or not self.executor.compiled:
            return 1
        return GRADIENTS_EVERY - 1 - self.steps % GRADIENTS_EVERY if self.on_nonfinite == "raise" else sys.maxsize

    def is_finite(self) -> bool:
        """Whether all parameters are finite numbers."""
        return nonfinite.is_finite(self.model.arrays()[PARAMETERS])

    def looks_at_gradients(self) -> bool:
        """Whether the next step's gradients and batch statistics are looked at, besides its loss."""
        return self.on_nonfinite == "skip" or (self.steps + 1) % GRADIENTS_EVERY == 0

    def _is_sound(self, executor: Executor, outputs: dict[str, np.ndarray], n: int) -> bool:
        if self.on_nonfinite == "ignore":
            return True
        if not math.isfinite(outputs["loss"]):
            return False
        if not self.looks_at_gradients():
            return True
        statistics = (executor.array(value, n) for value in self._batch_statistics)
        return all(map(nonfinite.is_finite, (self._gradients, *statistics)))

    def diagnosis(self, inputs: dict[str, np.ndarray], loss: float, scalars: dict[str, float], step: int) -> str:
        """What there is to say of a bad step, whose inputs are run again layer by layer."""
        n = len(inputs[INPUT])
        twin = Trainer(
            self.model.to("numpy"),
            self.optimizer,
            self.loss,
            n,
            rewrites=(),
            on_nonfinite="ignore",
            learning_rates=self.learning_rates,
            average=self.average,
            precision=self.precision,
        )
        found = nonfinite.first(twin.executor, inputs, self.model.parameters(), n, **scalars)
        what = f"loss is {loss}" if not math.isfinite(loss) else "gradients or statistics are not finite"
        where = f"first not finite is {found}" if found else "on the NumPy backend the same batch stays finite"
        rate = scalars["learning_rate"]
        return f"training: {what} at step {step}, learning rate {rate:g}; replayed by layer, {where}"

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        epochs: int | None = None,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        callbacks: Sequence[Callback] = (),
        iterations: int | None = None,
        schedule: Schedule | None = None,
        augment: data.Augment | None = None,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
        last_batch: str | None = None,
        verbose: bool = False,
        sample_weight: np.ndarray | None = None,
    ) -> History:
        """Train for a number of epochs, or of iterations (batches), in batches of seeded random order.

        x: images as in `step`; uint8 images give the model its normalisation if it has none yet. validation:
        (x, y) evaluated after each epoch. schedule: takes the place of the trainer's. The order of an epoch depends
        on the model's seed and the epoch's number alone. augment: distorts each image anew in each epoch, which
        depends on these two and on the image's index alone; validation images stay as they are. checkpoints: where the
        fit is kept while it runs. resume: go on from the newest checkpoint there, or start if there is none; everything
        else must be as it was then. last_batch: what becomes of the samples that make no whole batch. "keep": a smaller
        batch; "drop": they wait for an epoch whose order has them earlier; "merge": the batch before takes them in.
        Unless told they are kept, but merged where they are one sample and a layer normalises over the samples.
        verbose: print a line an epoch. sample_weight: how much each sample counts, for a loss that is `weighted`;
        in validation all count alike.

        Raises ValueError for a fit that is not the one kept, FileExistsError for a folder that holds one unless
        `resume`, OSError where a checkpoint cannot be written, NonFiniteError as on_nonfinite says.
        """
        chosen = self.schedule if schedule is None else schedule
        callbacks = checked_callbacks("Trainer.fit", callbacks)
        callbacks += [EpochLines()] if shapes.flag("Trainer.fit", "verbose", verbose) else []
        with self.alone(), self.together():
            fit = Fit(
                self,
                x,
                y,
                sample_weight,
                epochs,
                iterations,
                validation,
                callbacks,
                chosen,
                augment,
                checkpoints,
                resume,
                last_batch,
            )
            return fit.run()


def _restored(
    model: Graph,
    settings: tuple[Any, ...],
    state: dict[str, np.ndarray],
    gradients: np.ndarray,
    counters: dict[str, Any],
) -> Trainer:
    """The trainer that was copied or pickled, between two steps."""
    trainer = Trainer(model, *settings)
    for name, array in state.items():
        trainer.state[name][...] = array
    trainer._gradients[...] = gradients
    for name, value in counters.items():
        setattr(trainer, name, value)
    return trainer
