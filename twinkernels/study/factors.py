"""The factors of a study: a training that is the baseline, and what takes the place of each of its parts.

One part is changed at a time. Every setup is tried at several learning rates, since what suits one optimizer, or a
network without batch-norm, does not suit another; which rate counts is for `effects` to choose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple

import data
from models.encoding import encode
from models.init import HeNormal, Initialiser, Normal, XavierNormal
from models.layers import BatchNorm, Conv2d, Flatten, Layer, Linear, MaxPool2d, MeanNorm, ReLU
from models.losses import Loss, SoftmaxCrossEntropy
from models.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from models.schedules import Cosine, Exponential, MultiStep, OneCycle, Schedule

Block = Callable[[Layer], list[Layer]]
"""A layer with weights, and what follows it."""


def _convolutions(*filters: int) -> Callable[[Block, Initialiser], list[Layer]]:
    def layers(block: Block, init: Initialiser) -> list[Layer]:
        blocks = [layer for f in filters for layer in (*block(Conv2d(f, 5, init=init)), MaxPool2d(2))]
        return [*blocks, Flatten(), Linear(10, init=init)]

    return layers


def _perceptron(units: int) -> Callable[[Block, Initialiser], list[Layer]]:
    return lambda block, init: [Flatten(), *block(Linear(units, init=init)), Linear(10, init=init)]


STRUCTURES = {
    "two blocks": _convolutions(16, 32),
    "two wider blocks": _convolutions(32, 64),
    "one block": _convolutions(16),
    "784-512-10": _perceptron(512),
}
"""A block is a 5x5 convolution, batch-norm, ReLU and 2x2 max-pool; two, of 16 and 32 filters, are `cnn-bn`."""

NORMALISATIONS: dict[str, Block] = {
    "batch-norm": lambda layer: [layer, BatchNorm(), ReLU()],
    "mean only": lambda layer: [layer, MeanNorm(), ReLU()],
    "none": lambda layer: [layer, ReLU()],
}

INITIALISATIONS: dict[str, Initialiser] = {
    "He": HeNormal(),
    "Xavier": XavierNormal(),
    "normal, std 0.01": Normal(0.01),
    "normal, std 1": Normal(1.0),
}

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "Adam": Adam,
    "RMSProp": RMSProp,
    "momentum 0.9": partial(SGD, momentum=0.9),
    "SGD": SGD,
}

RATES: dict[str, tuple[float, ...]] = {
    "Adam": (3e-3, 1e-2, 3e-2, 0.1, 0.3),
    "RMSProp": (1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "momentum 0.9": (3e-2, 0.1, 0.3, 1.0, 3.0),
    "SGD": (0.1, 0.3, 1.0, 3.0, 10.0),
}
"""The learning rates that each optimizer is tried at: two decades about the best with batch-norm."""

SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "one-cycle": lambda epochs: OneCycle(),
    "cosine": lambda epochs: Cosine(),
    "exponential to 1/100": lambda epochs: Exponential(0.01 ** (1 / epochs)),
    "tenth after 1/2 and 3/4": lambda epochs: MultiStep((math.ceil(epochs / 2), math.ceil(3 * epochs / 4))),
    "constant": lambda epochs: Schedule(),
}

WEIGHT_DECAYS = {"none": 0.0, "L2 5e-4": 5e-4, "decoupled 0.05": 0.05}

_MILD = data.Augment(rotation=10, translation=1.5, scale=0.1)
AUGMENTATIONS: dict[str, data.Augment | None] = {
    "none": None,
    "rotation, translation, scaling": _MILD,
    "flips as well": replace(_MILD, flip_horizontal=True, flip_vertical=True),
}

SMOOTHINGS = {"0": 0.0, "0.1": 0.1, "0.2": 0.2}


@dataclass(frozen=True)
class Training:
    """What a setup comes to at a learning rate."""

    layers: tuple[Layer, ...]
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    augment: data.Augment | None

    @property
    def text(self) -> str:
        """All of it as JSON: equal texts are equal trainings."""
        return json.dumps({field.name: encode(getattr(self, field.name)) for field in fields(self)}, sort_keys=True)


@dataclass(frozen=True)
class Setup:
    """One choice for every part of a training, but for the learning rate; the defaults are the baseline."""

    structure: str = "two blocks"
    normalisation: str = "batch-norm"
    initialisation: str = "He"
    optimizer: str = "Adam"
    schedule: str = "one-cycle"
    weight_decay: str = "none"
    augmentation: str = "none"
    smoothing: str = "0"

    def training(self, learning_rate: float, epochs: int) -> Training:
        """The training; `epochs` are what schedules stretch over."""
        decay = WEIGHT_DECAYS[self.weight_decay]
        optimizer = OPTIMIZERS[self.optimizer]
        if self.weight_decay.startswith("decoupled"):
            optimizer = {"Adam": AdamW}.get(self.optimizer, partial(optimizer, decoupled=True))
        return Training(
            tuple(STRUCTURES[self.structure](NORMALISATIONS[self.normalisation], INITIALISATIONS[self.initialisation])),
            optimizer(learning_rate, weight_decay=decay),
            SCHEDULES[self.schedule](epochs),
            SoftmaxCrossEntropy(SMOOTHINGS[self.smoothing]),
            AUGMENTATIONS[self.augmentation],
        )


CHOICES: dict[str, Sequence[str]] = {
    "structure": tuple(STRUCTURES),
    "normalisation": tuple(NORMALISATIONS),
    "initialisation": tuple(INITIALISATIONS),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
    "weight_decay": tuple(WEIGHT_DECAYS),
    "augmentation": tuple(AUGMENTATIONS),
    "smoothing": tuple(SMOOTHINGS),
}
"""What every field of a Setup can be."""

BASELINE = Setup()


class Level(NamedTuple):
    """One choice within a factor: its setup, and the learning rates that it is tried at."""

    setup: Setup
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Factor:
    """Levels by name, the first of them the one that the others are compared with.

    published: the effect that another program found for it.
    """

    name: str
    published: str
    levels: Mapping[str, Level]


def _rates(setup: Setup) -> tuple[float, ...]:
    """Lower by half a decade where no batch-norm makes up for the scale of the weights."""
    rates = RATES[setup.optimizer]
    return rates if setup.normalisation == "batch-norm" else (round(rates[0] / 3, 9), *rates[:-1])


def _factor(name: str, field: str, published: str, among: Setup = BASELINE) -> Factor:
    """A factor of all choices for a field of a setup."""
    setups = {choice: replace(among, **{field: choice}) for choice in CHOICES[field]}
    return Factor(name, published, {choice: Level(setup, _rates(setup)) for choice, setup in setups.items()})


def _learning_rate() -> Factor:
    chosen = {"chosen": Level(BASELINE, RATES["Adam"])}
    return Factor("learning rate", "positive", chosen | {f"{r:g}": Level(BASELINE, (r,)) for r in RATES["Adam"]})


FACTORS = {
    factor.name: factor
    for factor in (
        _factor("structure", "structure", "positive"),
        _factor("normalisation", "normalisation", "batch-norm positive"),
        _factor("initialisation", "initialisation", "Xavier positive"),
        _factor(
            "initialisation without batch-norm", "initialisation", "not stated", replace(BASELINE, normalisation="none")
        ),
        _factor("optimizer", "optimizer", "Adam positive"),
        _learning_rate(),
        _factor("schedule", "schedule", "not stated"),
        _factor("weight decay", "weight_decay", "negative"),
        _factor("augmentation", "augmentation", "negative"),
        _factor("smoothing", "smoothing", "minimal"),
    )
}
