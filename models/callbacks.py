"""Callbacks: what happens at the steps and epochs of a fit, besides training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kernels import shapes

if TYPE_CHECKING:
    from .trainer import Epoch, Trainer


class Callback:
    """Base: override what you need. Set `trainer.stop = True` to end the fit after the current epoch or step."""

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        """Before the first step."""

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """After every optimizer step, with the batch's loss."""

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        """After every epoch, with its record."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step."""


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
        shapes.integer("EarlyStopping", "patience", self.patience, 1)
        shapes.number("EarlyStopping", "minimum_change", self.minimum_change, 0.0)

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self._best = math.inf
        self._waited = 0
        self._weights: dict[str, np.ndarray] = {}

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        value = getattr(epoch, self.monitor, None)
        if not isinstance(value, float):
            raise ValueError(f"EarlyStopping: monitor {self.monitor!r} has no value; pass validation data to fit")
        score = -value if self.monitor.endswith("accuracy") else value
        if score < self._best - self.minimum_change:
            self._best, self._waited = score, 0
            state = trainer.model.parameters() | trainer.model.statistics()
            self._weights = {name: array.copy() for name, array in state.items()}
            return
        self._waited += 1
        trainer.stop = trainer.stop or self._waited >= self.patience

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.restore_best and self._weights:
            trainer.model.set_parameters(self._weights)
