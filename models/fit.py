"""Fit: the loop over epochs and batches around a trainer's step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

import data
from kernels import shapes

from .callbacks import Callback
from .checkpoints import Checkpointer, Checkpoints, fit_options
from .epochs import run_epoch
from .execute import Executor
from .graph import accuracy
from .history import Epoch, History, Progress
from .nodes import INPUT
from .nonfinite import is_finite
from .plan import WEIGHTS
from .schedules import Schedule
from .sharding import Feed, Fill, copied

if TYPE_CHECKING:
    from .trainer import Trainer

LAST_BATCH = ("keep", "drop", "merge")

LABELS_TOGETHER = 1 << 20
"""Labels that are checked in one call, where there are more than memory should hold."""

SAMPLES_TOGETHER = 1 << 14
"""Samples of the batches that run in one call: a quarter of a second, after which an interrupt is heard."""


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _pair(validation: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray] | None:
    if validation is None:
        return None
    try:
        x, y = validation
    except (TypeError, ValueError):
        count = len(validation) if isinstance(validation, (tuple, list)) else None
        got = repr(validation) if count is None else f"a {type(validation).__name__} of {count}"
        raise TypeError(
            f"Trainer.fit: validation is {got}, expected a pair of arrays (x, y); data.split sets some aside"
        ) from None
    return x, y


class Fit:
    """One call of `Trainer.fit`, which says what the arguments are and what is raised."""

    def __init__(
        self,
        trainer: Trainer,
        x: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        epochs: int | None,
        iterations: int | None,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: Sequence[Callback],
        schedule: Schedule,
        augment: data.Augment | None,
        checkpoints: Checkpoints | None,
        resume: bool,
        last_batch: str | None,
    ) -> None:
        model, loss = trainer.model, trainer.loss
        for name, value, kind in (
            ("augment", augment, data.Augment),
            ("checkpoints", checkpoints, Checkpoints),
            ("schedule", schedule, Schedule),
        ):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"Trainer.fit: {name} is {value!r}, expected a {_package(kind)}.{kind.__name__}")
        validation = _pair(validation)
        if (epochs is None) == (iterations is None):
            raise ValueError(f"Trainer.fit: epochs is {epochs} and iterations is {iterations}, expected one of them")
        if last_batch is not None:
            shapes.word("Trainer.fit", "last_batch", last_batch, LAST_BATCH)
        if shapes.flag("Trainer.fit", "resume", resume) and checkpoints is None:
            raise ValueError("Trainer.fit: resume is True and checkpoints is None, expected a models.Checkpoints")
        model.check_images(x)
        if isinstance(x, data.DiskArray):
            if loss.by_weight:
                raise ValueError(
                    f"Trainer.fit: x is a DiskArray and the loss {loss} weighs samples (weighted, class_weights or "
                    "ignore_index), expected an array, or a loss that does not"
                )
            target = self._checked_labels(trainer, x, y)
        else:
            target = loss.check(y, len(x), model.output_shape)
        weights = loss.weights("Trainer.fit", target, sample_weight)
        if validation is not None:
            model.check_images(validation[0], "validation images")
            loss.check(validation[1], len(validation[0]), model.output_shape)
        whole, rest = divmod(len(x), trainer.batch_size)
        least = trainer.least_samples
        if trainer.batch_size < least or len(x) < least or (0 < rest < least and last_batch == "keep"):
            part = "" if trainer.shards == 1 else "a shard of "
            trainer.refuse_single_samples(part + ("a batch" if trainer.batch_size < least else "the last batch"))
        if last_batch is None:
            last_batch = "merge" if 0 < rest < least and trainer.over_samples else "keep"
        per_epoch = whole if whole and last_batch != "keep" else whole + (rest > 0)
        if epochs is not None:
            total = shapes.integer("Trainer.fit", "epochs", epochs, 1) * per_epoch
        else:
            total = shapes.integer("Trainer.fit", "iterations", iterations or 0, 1)
        if x.dtype == np.uint8 and model.normalisation is None:
            labels = np.broadcast_to(np.int8(0), len(x))  # of the images; targets have any shape
            model.normalisation = data.statistics((x, labels))
        if validation is not None:  # uint8 without a normalisation is refused now, not after an epoch
            model.prepare(validation[0][:1], "validation images")
            model.check_range(validation[0], "validation images")

        self._trainer = trainer
        self._reader = None
        if isinstance(x, data.DiskArray):
            self._reader = reader = data.Reader(
                x,
                target,
                trainer.batch_size + rest,
                lambda part: loss.check(part, len(part), model.output_shape),
                None if x.dtype == np.uint8 else model.dtype,
            )
            self._x, self._target = reader.images, reader.targets
        else:
            self._x = np.ascontiguousarray(x, None if x.dtype == np.uint8 else model.dtype)
            # A label that changes meanwhile has been checked.
            self._target = target.copy() if target.dtype.kind in "iu" else target
        self._weights = None if weights is None else weights.astype(model.dtype)
        if weights is not None and target.dtype.kind in "iu":
            self._target[weights == 0] = -1  # of no class: it does not count, and is not counted
        self._samples_in_all = len(x)
        self._per_epoch, self._total = per_epoch, total
        self._merged = last_batch == "merge" and rest > 0 and whole > 0
        self._validation = validation
        self._callbacks = callbacks
        self._schedule = schedule
        self._augment = augment
        self._resume = resume
        self._feed = None
        if trainer.sharded is not None and augment is None:
            self._feed = Feed(self._inputs(), model.normalisation)
        self._checkpointer = None
        if checkpoints is not None or trainer.communicator.size > 1:
            given = (x, target, weights, *(validation or ()))
            arrays = [array for array in given if array is not None]
            self._options = fit_options(trainer, callbacks, schedule, augment, total, last_batch, arrays)
        if checkpoints is not None:
            self._checkpointer = Checkpointer(checkpoints, trainer, callbacks, self._options, per_epoch, total, resume)

    @staticmethod
    def _checked_labels(trainer: Trainer, x: data.DiskArray, y: np.ndarray) -> np.ndarray:
        """The targets as they were given, checked part by part: of all at once a copy could be too large."""
        if len(y) != len(x):
            trainer.loss.check(y, len(x), trainer.model.output_shape)  # which says so
        for start in range(0, len(x), LABELS_TOGETHER):
            part = y[start : start + LABELS_TOGETHER]
            trainer.loss.check(part, len(part), trainer.model.output_shape)
        return y

    def run(self) -> History:
        """From the start, or from where a checkpoint is, to the end."""
        trainer = self._trainer
        if trainer.communicator.size > 1:
            trainer.communicator.agree("Trainer.fit", self._options)
        trainer.stop = False
        trainer.progress = Progress()
        trainer.validates = self._validation is not None
        for callback in self._callbacks:
            callback.on_fit_begin(trainer, self._total)
        if self._checkpointer and self._resume:
            self._checkpointer.restore()
        try:
            while trainer.progress.done < self._total and not trainer.stop:
                self._epoch()
        finally:
            if self._reader is not None:
                self._reader.close()
        for callback in self._callbacks:
            callback.on_fit_end(trainer)
        return trainer.progress.history

    def _epoch(self) -> None:
        """The epoch that the fit is in, from the batch that it has come to."""
        trainer, progress = self._trainer, self._trainer.progress
        batches = min(self._per_epoch, self._total - (progress.done - progress.position))
        order = self._order()
        size, end = trainer.batch_size, self._samples_in_all
        began = time.perf_counter() - progress.seconds
        while progress.position < batches and not trainer.stop:
            whole = self._per_epoch - self._merged - progress.position  # batches of no more than batch_size
            count = max(1, min(self._batches_per_call(), batches - progress.position, whole))
            start = progress.position * size
            if self._reader is not None:
                count = max(1, min(count, self._reader.together(start) // size))
            here, samples = order(start, min(end, start + count * size) if whole > 0 else end)
            if count > 1:
                self._batches(here, count)
            else:
                self._batch(here, samples)
            progress.seconds = time.perf_counter() - began
            for callback in self._callbacks:
                callback.on_progress(trainer)
            if self._checkpointer and progress.position < batches and not trainer.stop:
                self._checkpointer.offer()
        self._end_epoch()
        if self._checkpointer:
            self._checkpointer.write()

    def _order(self) -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
        """Of a stretch of the epoch: where its samples are in memory, and which of the data set they are."""
        seed, epoch = self._trainer.model.seed, self._trainer.epochs
        if self._reader is not None:
            self._reader.begin(seed, epoch)
            return self._reader.take
        order = data.epoch_order(self._samples_in_all, seed, epoch)
        return lambda start, stop: (order[start:stop], order[start:stop])

    def _batches_per_call(self) -> int:
        """How many batches from here on may run in one compiled call, because nobody looks in between."""
        watched = any(type(callback).on_step_end is not Callback.on_step_end for callback in self._callbacks)
        if watched or self._augment or self._trainer.sharded is not None:
            return 1
        most = min(SAMPLES_TOGETHER // self._trainer.batch_size, self._trainer.steps_together())
        return min(most, self._checkpointer.due_in()) if self._checkpointer else most

    def _batches(self, indices: np.ndarray, count: int) -> None:
        """`_batch` of each of several batches, bit for bit. If one turns out bad, all of it is undone and done again
        one by one, which finds it; if somebody interrupts, it is undone."""
        trainer, progress = self._trainer, self._trainer.progress
        kept = {name: array.copy() for name, array in trainer.changing().items()}
        sound = False
        try:
            losses, correct = run_epoch(
                trainer.executor,
                self._inputs(),
                indices,
                trainer.model.normalisation,
                0,
                **trainer.scalars(trainer.steps + 1, np.array([self._rate(progress.done + i) for i in range(count)])),
            )
            sound = trainer.on_nonfinite == "ignore" or is_finite(losses)
        finally:
            if not sound:
                for name, array in trainer.changing().items():
                    array[...] = kept[name]
            trainer.changed()
        parts = [indices[i * trainer.batch_size :][: trainer.batch_size] for i in range(count)]
        if not sound:
            for part in parts:
                self._batch(part, part)  # none are augmented, which alone asks for their numbers
            return
        trainer.steps += count
        for i, part in enumerate(parts):
            counted = len(part) if self._weights is None else np.count_nonzero(self._weights[part])
            share = math.nan if correct is None else float(correct[i] / max(counted, 1))
            progress.add(float(losses[i]), share, len(part))

    def _batch(self, indices: np.ndarray, numbers: np.ndarray) -> None:
        trainer, progress = self._trainer, self._trainer.progress
        before = trainer.skipped
        rate = self._rate(progress.done)
        weights = None if self._weights is None else self._weights[indices]
        if trainer.sharded is None:
            images, target = self._samples(indices, numbers)
            outputs = trainer.run_step(images, target, rate, weights)
            loss, share = float(outputs["loss"]), accuracy(outputs["output"], target, weights)
        else:
            fill = self._fill(indices, numbers) if self._feed is None else self._feed.fill(indices)
            loss, share = trainer.sharded_step(len(indices), fill, rate, weights)
        if trainer.skipped > before:
            progress.skip()
        else:
            progress.add(loss, share, len(indices))
        for callback in self._callbacks:
            callback.on_step_end(trainer, loss)

    def _inputs(self) -> dict[str, np.ndarray]:
        """The whole set by the names of the plan's inputs."""
        return {INPUT: self._x, "target": self._target} | ({} if self._weights is None else {WEIGHTS: self._weights})

    def _samples(self, indices: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images as the network takes them, and targets."""
        model, images = self._trainer.model, self._x[indices]
        if self._augment is not None:
            images = self._augment(images, numbers, model.seed, self._trainer.epochs, model.backend)
        return model.prepare(images), self._target[indices]

    def _fill(self, indices: np.ndarray, numbers: np.ndarray) -> Fill:
        """What writes shards of samples that are made anew in each epoch: a rank makes its own alone."""

        def write(start: int, stop: int, executor: Executor) -> None:
            images, target = self._samples(indices[start:stop], numbers[start:stop])
            inputs = {INPUT: images, "target": target}
            if self._weights is not None:
                inputs[WEIGHTS] = self._weights[indices[start:stop]]
            copied(inputs)(0, stop - start, executor)

        return write

    def _rate(self, done: int) -> float:
        name = type(self._schedule).__name__
        factor = shapes.number(name, f"factor at step {done}", self._schedule(done, self._per_epoch, self._total), 0.0)
        return self._trainer.optimizer.learning_rate * factor

    def _end_epoch(self) -> None:
        trainer, progress = self._trainer, self._trainer.progress
        trainer.refuse_nonfinite()
        checked = None
        if self._validation is not None:
            evaluate = trainer.model.evaluate if trainer.sharded is None else trainer.sharded.evaluate
            checked = evaluate(*self._validation, trainer.loss)
        trainer.epochs += 1
        record = Epoch(
            epoch=trainer.epochs,
            step=trainer.steps,
            loss=progress.loss_sum / progress.samples if progress.samples else math.nan,
            accuracy=progress.accuracy_sum / progress.samples if progress.samples else math.nan,
            validation_loss=checked and checked.loss,
            validation_accuracy=checked and checked.accuracy,
            learning_rate=self._rate(progress.done - 1),
            seconds=progress.seconds,
            skipped=progress.skipped,
        )
        progress.history.epochs.append(record)
        trainer.progress = Progress(done=progress.done, history=progress.history)
        for callback in self._callbacks:
            callback.on_epoch_end(trainer, record)
        if trainer.communicator.size > 1:
            trainer.stop = any(trainer.communicator.gather(trainer.stop))
