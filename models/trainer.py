"""Trainer: the whole training step as one plan, and the loop over epochs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import data
from kernels import memory, shapes

from .callbacks import Callback
from .execute import Executor
from .graph import INPUT, Graph, accuracy
from .losses import Loss, SoftmaxCrossEntropy
from .optimizers import Optimizer
from .rewrite import rewrite
from .schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch. Loss and accuracy are means over its batches, seen while training."""

    epoch: int
    step: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass
class History:
    """The epochs of a fit; `history.loss` and the other fields give one list each."""

    epochs: list[Epoch] = field(default_factory=list)

    def __getattr__(self, name: str) -> list[float]:
        if name.startswith("_") or name not in Epoch.__dataclass_fields__:
            raise AttributeError(f"History has no {name!r}; expected one of {', '.join(Epoch.__dataclass_fields__)}")
        return [getattr(epoch, name) for epoch in self.epochs]


class Trainer:
    """Trains a model in place.

    batch_size: samples a step; buffers for it are allocated once, a smaller last batch uses part of them.
    loss: SoftmaxCrossEntropy() unless told.
    schedule: factor of the optimizer's learning rate over a fit; constant unless told.
    rewrites: names of the rewrites (`models.rewrite.REWRITES`) of the step; None for all that the backend has kernels
    for, () for none.
    `trainer.plan` is the whole step, and print(trainer.plan) lists it.
    """

    def __init__(
        self,
        model: Graph,
        optimizer: Optimizer,
        loss: Loss | None = None,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        rewrites: Iterable[str] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = SoftmaxCrossEntropy() if loss is None else loss
        self.schedule = Schedule() if schedule is None else schedule
        for name, kind in (("model", Graph), ("optimizer", Optimizer), ("loss", Loss), ("schedule", Schedule)):
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"Trainer: {name} is {value!r}, expected a models.{kind.__name__}")
        self.batch_size = shapes.integer("Trainer", "batch_size", batch_size, 1)
        self.plan = rewrite(model.lower_training(self.loss, optimizer, self.batch_size), model.kernels, rewrites)
        size = model.parameter_layout.size
        self._gradients = memory.zeros(size, model.dtype)
        self.state = {name: memory.zeros(size, model.dtype) for name in optimizer.state}
        self._executor = Executor(self.plan, model.kernels, self.batch_size, self.arrays())
        self.steps = 0
        self.epochs = 0
        self.stop = False

    def arrays(self) -> dict[str, np.ndarray]:
        """The persistent arrays by value name, writable: for executors alone."""
        gradients = self.model.parameter_layout.views(self._gradients)
        return (
            self.model.arrays()
            | {"gradients": self._gradients}
            | {f"d{name}": view for name, view in gradients.items()}
            | {f"optimizer.{name}": array for name, array in self.state.items()}
        )

    def gradients(self) -> dict[str, np.ndarray]:
        """Copies of the last step's gradients by parameter name."""
        return {name: view.copy() for name, view in self.model.parameter_layout.views(self._gradients).items()}

    def step(self, x: np.ndarray, y: np.ndarray, learning_rate: float | None = None) -> float:
        """One optimizer step on one batch of at most batch_size samples; returns the batch's loss.

        x: float images, or uint8 ones if the model has a normalisation. y: integer labels, or the loss's targets.
        learning_rate: the optimizer's own unless told.
        """
        if len(x) > self.batch_size:
            raise ValueError(f"Trainer.step: x has {len(x)} samples, expected at most batch_size {self.batch_size}")
        target = self.loss.check(y, len(x), self.model.output_shape)
        rate = self.optimizer.learning_rate if learning_rate is None else learning_rate
        return float(self._step(self.model.prepare(x), target, rate)["loss"])

    def _step(self, x: np.ndarray, target: np.ndarray, learning_rate: float) -> dict[str, np.ndarray]:
        self.steps += 1
        inputs = {INPUT: x, "target": target}
        try:
            return self._executor.run(inputs, len(x), step=self.steps, learning_rate=learning_rate)
        finally:
            self.model.version += 1

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
    ) -> History:
        """Train for a number of epochs, or of iterations (optimizer steps), in batches of seeded random order.

        x: images as in `step`; uint8 images give the model its normalisation if it has none yet. validation:
        (x, y) evaluated after each epoch. schedule: takes the place of the trainer's. The order of an epoch depends
        on the model's seed and the epoch's number alone. augment: distorts each image anew in each epoch, which
        depends on these two and on the image's index alone; validation images stay as they are.
        """
        if not isinstance(augment, data.Augment | None):
            raise TypeError(f"Trainer.fit: augment is {augment!r}, expected a data.Augment")
        if (epochs is None) == (iterations is None):
            raise ValueError(f"Trainer.fit: epochs is {epochs} and iterations is {iterations}, expected one of them")
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

        history = History()
        schedule = self.schedule if schedule is None else schedule
        self.stop = False
        for callback in callbacks:
            callback.on_fit_begin(self, total)
        done = 0
        while done < total and not self.stop:
            done = self._epoch(x, target, done, per_epoch, total, schedule, validation, callbacks, history, augment)
        for callback in callbacks:
            callback.on_fit_end(self)
        return history

    def _epoch(
        self,
        x: np.ndarray,
        target: np.ndarray,
        done: int,
        per_epoch: int,
        total: int,
        schedule: Schedule,
        validation: tuple[np.ndarray, np.ndarray] | None,
        callbacks: Sequence[Callback],
        history: History,
        augment: data.Augment | None,
    ) -> int:
        began = time.perf_counter()
        samples, loss_sum, accuracy_sum, rate = 0, 0.0, 0.0, 0.0
        for indices in self._batches(len(x), min(per_epoch, total - done)):
            rate = self.optimizer.learning_rate * schedule(done, per_epoch, total)
            images = x[indices]
            if augment is not None:
                images = augment(images, indices, self.model.seed, self.epochs, self.model.backend)
            outputs = self._step(self.model.prepare(images), target[indices], rate)
            loss = float(outputs["loss"])
            done += 1
            samples += len(indices)
            loss_sum += loss * len(indices)
            accuracy_sum += accuracy(outputs["output"], target[indices]) * len(indices)
            for callback in callbacks:
                callback.on_step_end(self, loss)
            if self.stop:
                break
        self.epochs += 1
        seconds = time.perf_counter() - began
        checked = None if validation is None else self.model.evaluate(*validation, self.loss)
        record = Epoch(
            epoch=self.epochs,
            step=self.steps,
            loss=loss_sum / samples,
            accuracy=accuracy_sum / samples,
            validation_loss=checked and checked.loss,
            validation_accuracy=checked and checked.accuracy,
            learning_rate=rate,
            seconds=seconds,
        )
        history.epochs.append(record)
        for callback in callbacks:
            callback.on_epoch_end(self, record)
        return done

    def _batches(self, count: int, steps: int) -> Iterator[np.ndarray]:
        order = data.epoch_order(count, self.model.seed, self.epochs)
        return (order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(steps))
