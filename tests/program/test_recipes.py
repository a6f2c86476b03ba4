"""Every recipe's network, at its full width, soon learns what it should, on each backend; and its figures."""

from __future__ import annotations

import json

import pytest

import data
import models
from benchmarks import recipes as benchmark
from data import strokes
from kernels import Kernels
from models import Trainer
from twinkernels import recipes
from twinkernels.recipes import RECIPES, Recipe

STEPS = {"cnn-bn": 50, "cnn-fast": 50, "cnn-record": 50}  # the others 200
LOSSES = {
    "mlp-meannorm": 2.1,  # up to 1.87; 2.43 with a tenth of the learning rate
    "mlp-nobias": 0.42,  # up to 0.34; 0.57
    "mlp-512": 0.32,  # up to 0.24; 0.45
    "mlp-rmsprop": 0.35,  # up to 0.26; 0.50
    "cnn-bn": 0.45,  # up to 0.33; 0.79
    "cnn-fast": 0.42,  # up to 0.33; 0.57
    "cnn-record": 0.37,  # up to 0.25; 0.57
}
"""Of 1,000 unseen strokes after training on 6,400.

What was seen over five seeds (two of cnn-record) on Numba; what becomes of it with a tenth of the learning rate. With
shuffled labels all stay above 2.2.
"""


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.Dataset(*(data.Split(*split) for split in strokes.load(train=6_400, test=1_000)))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_its_steps_reach_the_stated_loss(k: Kernels, recipe: Recipe, digits: data.Dataset) -> None:
    if k.name == "numpy" and recipe.name in benchmark.NUMBA_ALONE:
        pytest.skip("so many of its steps take NumPy minutes; its first steps are held to NumPy's by the losses")
    model = models.build(recipe.network, k.name)
    trainer = Trainer(model, recipe.optimizer, recipe.loss, recipe.batch_size, recipe.schedule)
    trainer.fit(*digits.train, iterations=STEPS.get(recipe.name, 200), augment=recipe.augment)
    assert model.evaluate(*digits.test).loss < LOSSES[recipe.name]


def test_the_figures_that_ship_are_those_that_were_kept() -> None:
    assert recipes.figures() == benchmark.figures(benchmark.read(benchmark.KEPT))


def test_the_figures_are_by_recipe_and_backend_or_absent() -> None:
    shipped = json.loads(recipes.FIGURES.read_text(encoding="utf-8"))
    assert shipped.keys() <= RECIPES.keys()
    for by_backend in shipped.values():
        assert by_backend.keys() <= {"numpy", "numba"}
        assert all(0.9 < share <= 1 for share in by_backend.values())
