"""Which learning rate to take: one step at each of many that grow, and what becomes of the loss. Smith 2017."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np

import data
from kernels import shapes

from .nonfinite import NonFiniteError
from .trainer import Trainer

SMOOTHING = 0.9
DIVERGED = 4.0
"""Times the best loss so far at which the search ends."""


@dataclass(frozen=True)
class LearningRates:
    """What `find_learning_rate` has seen: learning rates, the loss of the batch at each, and its moving average.

    suggestion: a tenth of the rate at which the average is least, as a peak for `Trainer`.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def suggestion(self) -> float:
        """A tenth of the rate of the least average loss."""
        return float(self.rates[int(np.argmin(self.smoothed))] / 10)

    def __str__(self) -> str:
        rates = self.rates
        return f"{len(rates)} rates from {rates[0]:.2g} to {rates[-1]:.2g}, suggested {self.suggestion:.2g}"


def find_learning_rate(
    trainer: Trainer, x: np.ndarray, y: np.ndarray, low: float = 1e-6, high: float = 10.0, steps: int = 100
) -> LearningRates:
    """Take steps at learning rates from low to high, each a constant factor above the one before, on a copy.

    The trainer and its model stay as they are. The search ends where the loss has become DIVERGED times its least, or
    is no number. Raises ValueError for a range that is none, and what `Trainer.step` raises.
    """
    low = shapes.number("find_learning_rate", "low", low, 0.0, above=True)
    high = shapes.number("find_learning_rate", "high", high, low, above=True)
    steps = shapes.integer("find_learning_rate", "steps", steps, 2)
    twin = copy.deepcopy(trainer)
    twin.model.check_images(x)
    if x.dtype == np.uint8 and twin.model.normalisation is None:
        twin.model.normalisation = data.statistics((x, np.zeros(len(x))))
    size, epoch = min(twin.batch_size, len(x)), 0
    waiting: list[np.ndarray] = []
    rates, losses, smoothed = [], [], []
    average, least = 0.0, math.inf
    for at, rate in enumerate(np.geomspace(low, high, steps)):
        while len(waiting) == 0:
            order = data.epoch_order(len(x), twin.model.seed, epoch)
            waiting = [order[start : start + size] for start in range(0, len(x) - size + 1, size)]
            epoch += 1
        batch = waiting.pop(0)
        try:
            loss = twin.step(x[batch], y[batch], float(rate))
        except NonFiniteError:
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        corrected = average / (1 - SMOOTHING ** (at + 1))  # for its start at 0
        if not math.isfinite(corrected) or corrected > DIVERGED * least:
            break
        least = min(least, corrected)
        rates.append(float(rate))
        losses.append(loss)
        smoothed.append(corrected)
    if not rates:
        raise ValueError(f"find_learning_rate: the loss is no number at {low:g} already, expected a smaller low")
    return LearningRates(np.array(rates), np.array(losses), np.array(smoothed))
