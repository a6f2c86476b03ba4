"""Trainer: the whole training step as one plan, and the loop over epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import data
from kernels import memory, shapes

from . import nonfinite
from .callbacks import Callback
from .execute import Executor
from .graph import INPUT, Graph, accuracy
from .history import Epoch, History, Progress
from .losses import Loss, SoftmaxCrossEntropy
from .nonfinite import NonFiniteError
from .optimizers import Optimizer
from .rewrite import rewrite
from .schedules import Schedule
from .snapshots import Checkpoints, Keeper

ON_NONFINITE = ("raise", "skip", "ignore")
GRADIENTS_EVERY = 100
"""Steps between two looks at the gradients with on_nonfinite="raise"."""

SAMPLES_TOGETHER = 1 << 14
"""Samples of the batches that run in one call: a quarter of a second, after which an interrupt is heard."""


class _Fit(NamedTuple):
    """What stays the same during a fit."""

    x: np.ndarray
    target: np.ndarray
    per_epoch: int
    total: int
    schedule: Schedule
    validation: tuple[np.ndarray, np.ndarray] | None
    callbacks: Sequence[Callback]
    augment: data.Augment | None
    keeper: Keeper | None


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
    `trainer.plan` is the whole step, and print(trainer.plan) lists it. `steps` counts the optimizer's steps, `epochs`
    the epochs, `skipped` the steps left out, and `progress` is where the running fit stands.
    """

    def __init__(
        self,
        model: Graph,
        optimizer: Optimizer,
        loss: Loss | None = None,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        rewrites: Iterable[str] | None = None,
        on_nonfinite: str = "raise",
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        self.schedule = Schedule() if schedule is None else schedule
        for name, kind in (("model", Graph), ("optimizer", Optimizer), ("loss", Loss), ("schedule", Schedule)):
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"Trainer: {name} is {value!r}, expected a models.{kind.__name__}")
        if on_nonfinite not in ON_NONFINITE:
            raise ValueError(f"Trainer: on_nonfinite is {on_nonfinite!r}, expected one of {', '.join(ON_NONFINITE)}")
        self.on_nonfinite = on_nonfinite
        self.batch_size = shapes.integer("Trainer", "batch_size", batch_size, 1)
        self.plan = rewrite(model.lower_training(self.loss, optimizer, self.batch_size), model.kernels, rewrites)
        if on_nonfinite == "skip" and (early := self._changed_early()):
            raise ValueError(
                f"Trainer: on_nonfinite is 'skip', but {', '.join(early)} must change before a step is known to be "
                "sound; expected 'raise' or 'ignore'"
            )
        size = model.parameter_layout.size
        self._gradients = memory.zeros(size, model.dtype)
        self.state = {name: memory.zeros(size, model.dtype) for name in optimizer.state}
        self._executor = Executor(self.plan, model.kernels, self.batch_size, self.arrays())
        statistics = (step for step in self.plan.steps if step.phase == "statistics")
        self._taken_in = [value for step in statistics for value in step.inputs.values()]
        self.steps = 0
        self.epochs = 0
        self.skipped = 0
        self.stop = False
        self.progress = Progress()

    def _changed_early(self) -> list[str]:
        """The statistics that a layer changes and uses again in the same step."""
        computing = self.plan.steps[: self.plan.updates]
        return sorted({v.name for step in computing for v in step.outputs.values()} & self.model.statistics().keys())

    def arrays(self) -> dict[str, np.ndarray]:
        """The persistent arrays by value name, writable: for executors alone."""
        gradients = self.model.parameter_layout.views(self._gradients)
        return (
            self.model.arrays()
            | {"gradients": self._gradients}
            | {f"d{name}": view for name, view in gradients.items()}
            | {f"optimizer.{name}": array for name, array in self.state.items()}
        )

    @property
    def bytes(self) -> int:
        """Memory that training holds: buffers and scratch of a step, parameters, gradients, statistics, state."""
        flat = (self._gradients, *self._changing().values())
        return self._executor.bytes + sum(array.nbytes for array in flat)

    def gradients(self) -> dict[str, np.ndarray]:
        """Copies of the last step's gradients by parameter name."""
        return {name: view.copy() for name, view in self.model.parameter_layout.views(self._gradients).items()}

    def step(self, x: np.ndarray, y: np.ndarray, learning_rate: float | None = None) -> float:
        """One optimizer step on one batch of at most batch_size samples; returns the batch's loss.

        x: float images, or uint8 ones if the model has a normalisation. y: integer labels, or the loss's targets.
        learning_rate: the optimizer's own unless told. Raises NonFiniteError as on_nonfinite says.
        """
        if len(x) > self.batch_size:
            raise ValueError(f"Trainer.step: x has {len(x)} samples, expected at most batch_size {self.batch_size}")
        target = self.loss.check(y, len(x), self.model.output_shape)
        rate = self.optimizer.learning_rate if learning_rate is None else learning_rate
        return float(self._step(self.model.prepare(x), target, rate)["loss"])

    def _step(self, x: np.ndarray, target: np.ndarray, learning_rate: float) -> dict[str, np.ndarray]:
        inputs = {INPUT: x, "target": target}
        scalars: dict[str, Any] = {"step": self.steps + 1, "learning_rate": learning_rate}

        def accept(outputs: dict[str, np.ndarray]) -> bool:
            if self._is_sound(outputs, len(x)):
                self.steps += 1
                return True
            if self.on_nonfinite == "raise" or not nonfinite.is_finite(self.model.arrays()["parameters"]):
                raise NonFiniteError(self._diagnosis(inputs, float(outputs["loss"]), scalars))
            self.skipped += 1
            return False

        try:
            with np.errstate(all="ignore"):
                return self._executor.run(inputs, len(x), accept, **scalars)
        finally:
            self.model.version += 1

    def _is_sound(self, outputs: dict[str, np.ndarray], n: int) -> bool:
        if self.on_nonfinite == "ignore":
            return True
        if not math.isfinite(outputs["loss"]):
            return False
        if self.on_nonfinite == "raise" and (self.steps + 1) % GRADIENTS_EVERY:
            return True
        statistics = (self._executor.array(value, n) for value in self._taken_in)
        return all(map(nonfinite.is_finite, (self._gradients, *statistics)))

    def _diagnosis(self, inputs: dict[str, np.ndarray], loss: float, scalars: dict[str, float]) -> str:
        n = len(inputs[INPUT])
        twin = Trainer(self.model.to("numpy"), self.optimizer, self.loss, n, rewrites=(), on_nonfinite="ignore")
        found = nonfinite.first(twin._executor, inputs, self.model.parameters(), n, **scalars)
        what = f"loss is {loss}" if not math.isfinite(loss) else "gradients or statistics are not finite"
        where = f"first not finite is {found}" if found else "on the NumPy backend the same batch stays finite"
        rate = scalars["learning_rate"]
        return f"training: {what} at step {scalars['step']}, learning rate {rate:g}; replayed by layer, {where}"

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
    ) -> History:
        """Train for a number of epochs, or of iterations (batches), in batches of seeded random order.

        x: images as in `step`; uint8 images give the model its normalisation if it has none yet. validation:
        (x, y) evaluated after each epoch. schedule: takes the place of the trainer's. The order of an epoch depends
        on the model's seed and the epoch's number alone. augment: distorts each image anew in each epoch, which
        depends on these two and on the image's index alone; validation images stay as they are. checkpoints: where the
        fit is kept while it runs. resume: go on from the newest checkpoint there, or start if there is none; everything
        else must be as it was then.

        Raises ValueError for a fit that is not the one kept, FileExistsError for a folder that holds one unless
        `resume`, OSError where a checkpoint cannot be written, NonFiniteError as on_nonfinite says.
        """
        if not isinstance(augment, data.Augment | None):
            raise TypeError(f"Trainer.fit: augment is {augment!r}, expected a data.Augment")
        if (epochs is None) == (iterations is None):
            raise ValueError(f"Trainer.fit: epochs is {epochs} and iterations is {iterations}, expected one of them")
        if resume and checkpoints is None:
            raise ValueError("Trainer.fit: resume is True and checkpoints is None, expected a models.Checkpoints")
        self.model.check_images(x)
        target = self.loss.check(y, len(x), self.model.output_shape)
        if validation is not None:
            self.model.check_images(validation[0], "validation images")
            self.loss.check(validation[1], len(validation[0]), self.model.output_shape)
        per_epoch = -(-len(x) // self.batch_size)
        if epochs is not None:
            total = shapes.integer("Trainer.fit", "epochs", epochs, 1) * per_epoch
        else:
            total = shapes.integer("Trainer.fit", "iterations", iterations or 0, 1)
        if x.dtype == np.uint8 and self.model.normalisation is None:
            self.model.normalisation = data.statistics((x, np.zeros(len(x))))  # of the images; targets of any shape
        if validation is not None:  # uint8 without a normalisation is refused now, not after an epoch
            self.model.prepare(validation[0][:1], "validation images")

        schedule = self.schedule if schedule is None else schedule
        keeper = None
        if checkpoints is not None:
            arrays = (x, target, *(validation or ()))
            keeper = Keeper(checkpoints, self, callbacks, schedule, per_epoch, total, arrays, augment, resume)
        images = np.ascontiguousarray(x, None if x.dtype == np.uint8 else self.model.dtype)
        fit = _Fit(images, target, per_epoch, total, schedule, validation, callbacks, augment, keeper)
        self.stop = False
        self.progress = Progress()
        for callback in callbacks:
            callback.on_fit_begin(self, total)
        if keeper and resume:
            keeper.restore()
        while self.progress.done < total and not self.stop:
            self._epoch(fit)
        for callback in callbacks:
            callback.on_fit_end(self)
        return self.progress.history

    def _epoch(self, fit: _Fit) -> None:
        """The epoch that the fit is in, from the batch that it has come to."""
        progress = self.progress
        batches = min(fit.per_epoch, fit.total - (progress.done - progress.position))
        order = data.epoch_order(len(fit.x), self.model.seed, self.epochs)
        began = time.perf_counter() - progress.seconds
        while progress.position < batches and not self.stop:
            together = max(1, min(self._together(fit), batches - progress.position))
            indices = order[progress.position * self.batch_size :][: together * self.batch_size]
            if together > 1:
                self._batches(fit, indices, together)
            else:
                self._batch(fit, indices)
            progress.seconds = time.perf_counter() - began
            for callback in fit.callbacks:
                callback.on_progress(self)
            if fit.keeper and progress.position < batches and not self.stop:
                fit.keeper.offer()
        self._end_epoch(fit)
        if fit.keeper:
            fit.keeper.write()

    def _together(self, fit: _Fit) -> int:
        """How many batches from here on may run in one compiled call, because nobody looks in between."""
        watched = any(type(callback).on_step_end is not Callback.on_step_end for callback in fit.callbacks)
        if watched or fit.augment or self.on_nonfinite == "skip" or not self._executor.compiled:
            return 1
        most = SAMPLES_TOGETHER // self.batch_size
        if self.on_nonfinite == "raise":
            most = min(most, GRADIENTS_EVERY - 1 - self.steps % GRADIENTS_EVERY)
        return min(most, fit.keeper.due_in()) if fit.keeper else most

    def _batches(self, fit: _Fit, indices: np.ndarray, count: int) -> None:
        """`_batch` of each of several batches, bit for bit. If one turns out bad, all of it is undone and done again
        one by one, which finds it; if somebody interrupts, it is undone."""
        progress = self.progress
        kept = {name: array.copy() for name, array in self._changing().items()}
        steps, first = self.steps, progress.done
        rates = [self._rate(fit, first + i) for i in range(count)]
        try:
            losses, correct = self._executor.epoch(
                {INPUT: fit.x, "target": fit.target},
                indices,
                self.model.normalisation,
                step=np.arange(steps + 1, steps + count + 1),
                learning_rate=np.array(rates),
            )
            self.model.version += 1
            sound = self.on_nonfinite == "ignore" or nonfinite.is_finite(losses)
        except BaseException:
            self._put_back(kept)
            raise
        if not sound:
            self._put_back(kept)
            for i in range(count):
                self._batch(fit, indices[i * self.batch_size :][: self.batch_size])
            return
        self.steps += count
        for i in range(count):
            samples = len(indices[i * self.batch_size :][: self.batch_size])
            share = math.nan if correct is None else float(correct[i] / samples)
            progress.add(float(losses[i]), share, samples)

    def _changing(self) -> dict[str, np.ndarray]:
        """Every array that steps change: parameters, running statistics, optimizer state."""
        return {"parameters": self.model.arrays()["parameters"]} | self.model.statistic_views() | self.state

    def _put_back(self, kept: dict[str, np.ndarray]) -> None:
        for name, array in self._changing().items():
            array[...] = kept[name]
        self.model.version += 1

    def _batch(self, fit: _Fit, indices: np.ndarray) -> None:
        before = self.skipped
        images, target = fit.x[indices], fit.target[indices]
        if fit.augment is not None:
            images = fit.augment(images, indices, self.model.seed, self.epochs, self.model.backend)
        outputs = self._step(self.model.prepare(images), target, self._rate(fit, self.progress.done))
        loss = float(outputs["loss"])
        if self.skipped > before:
            self.progress.skip()
        else:
            self.progress.add(loss, accuracy(outputs["output"], target), len(indices))
        for callback in fit.callbacks:
            callback.on_step_end(self, loss)

    def _rate(self, fit: _Fit, done: int) -> float:
        return self.optimizer.learning_rate * fit.schedule(done, fit.per_epoch, fit.total)

    def _end_epoch(self, fit: _Fit) -> None:
        progress = self.progress
        checked = None if fit.validation is None else self.model.evaluate(*fit.validation, self.loss)
        self.epochs += 1
        record = Epoch(
            epoch=self.epochs,
            step=self.steps,
            loss=progress.loss_sum / progress.samples if progress.samples else math.nan,
            accuracy=progress.accuracy_sum / progress.samples if progress.samples else math.nan,
            validation_loss=checked and checked.loss,
            validation_accuracy=checked and checked.accuracy,
            learning_rate=self._rate(fit, progress.done - 1),
            seconds=progress.seconds,
            skipped=progress.skipped,
        )
        progress.history.epochs.append(record)
        self.progress = Progress(done=progress.done, history=progress.history)
        for callback in fit.callbacks:
            callback.on_epoch_end(self, record)
