"""Callbacks: what happens at the steps and epochs of a fit, besides training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernels import shapes

from .history import Epoch

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Base: override what you need. Set `trainer.stop = True` to end the fit after the current epoch or step."""

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        """Before the first step."""

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """After every optimizer step, with the batch's loss."""

    def on_progress(self, trainer: Trainer) -> None:
        """Several times an epoch, for displays: `trainer.progress` tells where the fit stands.

        Unlike `on_step_end` it does not keep the trainer from running several steps in one compiled call.
        """

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        """After every epoch, with its record."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of this callback: numbers, strings and arrays by name.

        Names, types and shapes must be the same from `on_fit_begin` on. A callback without a `state` keeps nothing.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave: the fit goes on from a checkpoint. Called after `on_fit_begin`."""


class EpochLines(Callback):
    """Prints a line an epoch, of several ranks on the first: what `Trainer.fit(..., verbose=True)` adds."""

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        if trainer.communicator.rank == 0:
            print(epoch, flush=True)


def checked(where: str, callbacks: Iterable[Callback]) -> list[Callback]:
    """`callbacks` as a list; ``where`` opens the message of the TypeError for anything that is no callback."""
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"{where}: callbacks is {callbacks!r}, expected models.Callback in a list")
    found = list(callbacks)
    for i, callback in enumerate(found):
        if not isinstance(callback, Callback):
            raise TypeError(f"{where}: callbacks[{i}] is {callback!r}, expected a models.Callback")
    return found


MONITORS = tuple(name for name in Epoch.__dataclass_fields__ if name.endswith(("loss", "accuracy")))
"""What of an epoch can be waited for."""


@dataclass
class EarlyStopping(Callback):
    """Stop when `monitor` (a field of Epoch) has not improved by `minimum_change` for `patience` epochs.

    Losses improve downwards, accuracies upwards. With restore_best the best epoch's parameters and running
    statistics are put back at the end. Choose by validation, never by test scores.
    """

    monitor: str = "validation_loss"
    patience: int = 3
    minimum_change: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str) or self.monitor not in MONITORS:
            raise ValueError(f"EarlyStopping: monitor is {self.monitor!r}, expected one of {', '.join(MONITORS)}")
        self.patience = shapes.integer("EarlyStopping", "patience", self.patience, 1)
        self.minimum_change = shapes.number("EarlyStopping", "minimum_change", self.minimum_change, 0.0)
        self.restore_best = shapes.flag("EarlyStopping", "restore_best", self.restore_best)

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        measured = [name for name in MONITORS if trainer.validates or not name.startswith("validation")]
        if self.monitor not in measured:
            hint = "" if trainer.validates else "; those of validation need validation data in fit"
            raise ValueError(f"EarlyStopping: monitor is {self.monitor!r}, expected one of {', '.join(measured)}{hint}")
        self._best = math.inf
        self._waited = 0
        self._keep(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        value = getattr(epoch, self.monitor, None)
        if not isinstance(value, float) or (math.isnan(value) and self._best == math.inf):  # later it is no improvement
            raise ValueError(f"EarlyStopping: monitor {self.monitor!r} is {value}, expected a number")
        score = -value if self.monitor.endswith("accuracy") else value
        if score < self._best - self.minimum_change:
            self._best, self._waited = score, 0
            self._keep(trainer)
            return
        self._waited += 1
        trainer.stop = trainer.stop or self._waited >= self.patience

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.restore_best and self._best < math.inf:
            trainer.model.set_parameters(self._weights)

    def _keep(self, trainer: Trainer) -> None:
        arrays = trainer.model.parameters() | trainer.model.statistics()
        self._weights = {name: array.copy() for name, array in arrays.items()}

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited} | self._weights

    def restore(self, state: dict[str, Any]) -> None:
        weights = dict(state)
        self._best, self._waited = weights.pop("best"), weights.pop("waited")
        self._weights = weights
