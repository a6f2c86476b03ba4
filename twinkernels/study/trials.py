"""Trials: the trainings that a study consists of, enumerated beforehand, and one of them carried out.

A trial's value is the accuracy on training images that were set aside; the test images have no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

import data
from models.nonfinite import NonFiniteError
from models.sequential import Sequential
from models.trainer import Trainer

from .factors import BASELINE, Factor, Setup

HELD_OUT = 1 / 6
"""Share of the training images that accuracies are taken on."""


class Trial(NamedTuple):
    """One training of the study."""

    setup: Setup
    learning_rate: float
    seed: int

    def __str__(self) -> str:
        plain = asdict(BASELINE)
        changed = [f"{name}: {value}" for name, value in asdict(self.setup).items() if value != plain[name]]
        changed = changed or ["baseline"]
        return f"{', '.join(changed)}, learning rate {self.learning_rate:g}, seed {self.seed}".replace("_", " ")

    def key(self, epochs: int) -> str:
        """All that decides it, options of the study aside: equal keys are equal trials."""
        return f"{self.seed} {self.setup.training(self.learning_rate, epochs).text}"


def trials(factors: Sequence[Factor], seeds: int) -> list[Trial]:
    """All trials of the factors in their order: seed by seed, so that what is done first stands for all of it."""
    setups = dict.fromkeys(
        (level.setup, rate) for factor in factors for level in factor.levels.values() for rate in level.rates
    )
    return [Trial(*setup, seed) for seed in range(seeds) for setup in setups]


class Outcome(NamedTuple):
    """What a trial came to: accuracy on the images held out, and whether its numbers ceased to be finite."""

    accuracy: float
    diverged: bool = False


def fit(trial: Trial, train: data.Split, options: Mapping[str, Any]) -> Outcome:
    """Train, and evaluate on what is held out of the training images; a training that diverges is taken as it stands.

    The seed decides what is held out, which of the others are trained on, the weights and the order.
    """
    setup, rate, seed = trial
    rest, held_out = data.split(train, max(1, round(HELD_OUT * len(train.labels))), seed)
    if options["images"] < len(rest.labels):
        _, rest = data.split(rest, options["images"], seed)
    training = setup.training(rate, options["epochs"])
    model = Sequential(list(training.layers), train.images.shape[1:], options["backend"], seed)
    trainer = Trainer(model, training.optimizer, training.loss, options["batch_size"], training.schedule)
    try:
        trainer.fit(rest.images, rest.labels, epochs=options["epochs"], augment=training.augment)
        diverged = False
    except NonFiniteError:
        diverged = True
    with np.errstate(all="ignore"):  # weights on their way to infinity overflow
        return Outcome(model.evaluate(*held_out).accuracy, diverged)
