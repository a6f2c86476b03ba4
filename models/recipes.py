"""Recipes: named trainings, each with the published figure that it answers to.

Hyper-parameters were chosen on 50,000 of MNIST's training images with the other 10,000 for validation; those of
mlp-meannorm are the ones of the program that it answers to. A recipe's result is the test accuracy after its last
epoch; no test image has a say before.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import data
import kernels
from kernels import shapes

from .callbacks import Callback
from .checkpoint import encode, write_atomically
from .graph import Evaluation, Graph
from .losses import Loss, SoftmaxCrossEntropy
from .optimizers import SGD, Adam, Optimizer, RMSProp
from .schedules import Cosine, OneCycle, Schedule
from .trainer import Epoch, History, Trainer
from .zoo import build


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, data and seed aside.

    network: a name of the zoo. epochs, iterations: the length, one of them None.
    validation: share of the training images set aside; they are evaluated after each epoch and never trained on.
    Images are normalised by the mean and standard deviation of the images trained on.
    published: what the program that this recipe answers to reached on MNIST's test images.
    floor: what this recipe reaches there at least, as the mean of several seeds.
    """

    name: str
    description: str
    network: str
    optimizer: Optimizer
    published: str
    floor: float
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int = 128
    schedule: Schedule = Schedule()
    loss: Loss = SoftmaxCrossEntropy()
    validation: float = 0.0
    augment: data.Augment | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError(
                f"recipe {self.name}: epochs is {self.epochs} and iterations is {self.iterations}, expected one of them"
            )
        for name in ("epochs", "iterations", "batch_size"):
            if (value := getattr(self, name)) is not None:
                shapes.integer(f"recipe {self.name}", name, value, 1)
        shapes.number(f"recipe {self.name}", "validation", self.validation, 0.0, below=1.0)

    @property
    def length(self) -> str:
        """ "3 epochs" or "10,000 iterations"."""
        return f"{self.epochs} epochs" if self.epochs else f"{self.iterations:,} iterations"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mlp-meannorm",
            description="784-256-128-10, mean-only batch normalisation",
            network="mlp-meannorm",
            optimizer=SGD(1e-3),
            batch_size=64,
            epochs=250,
            validation=1 / 6,
            published="0.97",
            floor=0.97,
        ),
        Recipe(
            name="mlp-nobias",
            description="784-128-64-10, linear units without bias",
            network="mlp-nobias",
            optimizer=SGD(0.2),
            schedule=Cosine(),
            iterations=10_000,
            published="0.77 (0.51 after 1,000)",
            floor=0.95,
        ),
        Recipe(
            name="mlp-512",
            description="784-512-10",
            network="mlp-512",
            optimizer=RMSProp(2e-3),
            schedule=OneCycle(),
            epochs=5,
            published="over 0.90",
            floor=0.975,
        ),
        Recipe(
            name="mlp-rmsprop",
            description="784-256-10",
            network="mlp-rmsprop",
            optimizer=RMSProp(2e-3),
            schedule=OneCycle(),
            epochs=5,
            published="not stated",
            floor=0.975,
        ),
        Recipe(
            name="cnn-bn",
            description="two blocks of 5x5 convolution, batch-norm, ReLU, max-pool; linear 512-10",
            network="cnn-bn",
            optimizer=Adam(1e-2),
            schedule=OneCycle(),
            epochs=3,
            published="0.9885",
            floor=0.9885,
        ),
        Recipe(
            name="cnn-fast",
            description="cnn-bn in two epochs, in seconds",
            network="cnn-bn",
            optimizer=Adam(2e-2),
            schedule=OneCycle(),
            batch_size=64,
            epochs=2,
            published="none",
            floor=0.99,
        ),
    )
}


class Outcome(NamedTuple):
    """What a training leaves: the model, the record of its epochs, and its figures on the test images."""

    model: Graph
    history: History
    test: Evaluation


def get(name: str) -> Recipe:
    """The recipe of that name; ValueError for an unknown one."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def run(
    recipe: str | Recipe,
    source: str | os.PathLike[str] | data.Dataset = "strokes",
    *,
    backend: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    out: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Train by a recipe, and evaluate on the test images once, after the last epoch.

    recipe: a name in RECIPES, or a Recipe of your own. source: what `data.load` takes, or a loaded Dataset.
    epochs or iterations, and batch_size: in place of the recipe's; its schedule stretches over the new length.
    out: a new folder, which then holds config.json, history.jsonl (a line an epoch) and, at the end,
    model.safetensors.

    Raises ValueError for an unknown name and for data that does not fit the network, FileExistsError where `out`
    is there already, and what `data.load` raises; all of it before training begins.
    """
    recipe = _with_length(get(recipe) if isinstance(recipe, str) else recipe, epochs, iterations, batch_size)
    model = build(recipe.network, backend, seed)
    folder = None if out is None else RunFolder(Path(out), recipe, source)
    train, test = source if isinstance(source, data.Dataset) else data.load(source)
    model.check_images(test.images, "test images")
    recipe.loss.check(test.labels, len(test.images), model.output_shape)
    validation = None
    if held_out := round(recipe.validation * len(train.labels)):
        train, validation = data.split(train, held_out, seed)

    trainer = Trainer(model, recipe.optimizer, recipe.loss, recipe.batch_size, recipe.schedule)
    history = trainer.fit(
        train.images,
        train.labels,
        epochs=recipe.epochs,
        iterations=recipe.iterations,
        validation=validation,
        callbacks=[*callbacks, *([folder] if folder else [])],
        augment=recipe.augment,
    )
    return Outcome(model, history, model.evaluate(test.images, test.labels))


def _with_length(recipe: Recipe, epochs: int | None, iterations: int | None, batch_size: int | None) -> Recipe:
    if epochs is not None or iterations is not None:
        recipe = replace(recipe, epochs=epochs, iterations=iterations)
    return recipe if batch_size is None else replace(recipe, batch_size=batch_size)


class RunFolder(Callback):
    """Keeps a run in a folder, which is made when training begins; every file appears whole or not at all."""

    def __init__(self, path: Path, recipe: Recipe, source: object) -> None:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(f"{path} exists already; expected a new folder for the run")
        self.path = path
        self._recipe = recipe
        self._source = source
        self._lines: list[str] = []

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        config = {
            "recipe": self._recipe.name,
            "network": self._recipe.network,
            "data": "given" if isinstance(self._source, data.Dataset) else os.fspath(str(self._source)),
            "backend": trainer.model.backend,
            "seed": trainer.model.seed,
            "threads": kernels.get_threads(),
            "epochs": self._recipe.epochs,
            "iterations": self._recipe.iterations,
            "batch_size": trainer.batch_size,
            "validation": self._recipe.validation,
            "optimizer": encode(trainer.optimizer),
            "loss": encode(trainer.loss),
            "schedule": encode(trainer.schedule),
            "augment": encode(self._recipe.augment),
            "versions": {name: version(name) for name in ("numpy", "numba")},
        }
        write_atomically(self.path / "config.json", (json.dumps(config, indent=2) + "\n").encode())

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        # NaN is no JSON; a loss that diverged is null.
        numbers = {
            name: None if value is None or not math.isfinite(value) else value for name, value in asdict(epoch).items()
        }
        self._lines.append(json.dumps(numbers) + "\n")
        write_atomically(self.path / "history.jsonl", "".join(self._lines).encode())

    def on_fit_end(self, trainer: Trainer) -> None:
        trainer.model.save(self.path / "model.safetensors")
