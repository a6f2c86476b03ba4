"""Models and trainers copied, pickled, and handed to other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
import models
from kernels import Kernels
from models import Adam, BatchNorm, Dropout, Layer, Linear, OneCycle, PlanBuilder, ReLU, Sequential, Trainer, Value

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 4)).astype(np.float32), RNG.integers(0, 3, 30)

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
IDS = ["copy", "deepcopy", "pickle"]


@dataclass(frozen=True)
class Same(Layer):
    """y = x: a layer of another package."""

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Any:
        return x, lambda dy: dy


def trainer_of(k: Kernels) -> Trainer:
    model = Sequential([Linear(8), BatchNorm(), ReLU(), Dropout(0.5), Same(), Linear(3)], (4,), k.name, seed=3)
    trainer = Trainer(model, Adam(0.01), batch_size=8, schedule=OneCycle(), rewrites=("linear_relu",))
    trainer.fit(X, Y, epochs=1)
    return trainer


@pytest.mark.parametrize("copied", COPIES, ids=IDS)
def test_a_copy_goes_on_as_its_original(k: Kernels, copied: Callable[[Any], Any]) -> None:
    trainer = trainer_of(k)
    twin = copied(trainer)
    assert twin.plan is not trainer.plan
    assert str(twin.plan) == str(trainer.plan)
    assert (twin.steps, twin.epochs) == (trainer.steps, trainer.epochs)
    assert twin.gradients().keys() == trainer.gradients().keys()
    if copied is not copy.copy:
        assert twin.model is not trainer.model
        before = {name: array.copy() for name, array in trainer.model.parameters().items()}
        assert twin.step(X[:8], Y[:8]) > 0
        for name, array in trainer.model.parameters().items():
            np.testing.assert_array_equal(array, before[name])
        twin = copied(trainer)
        assert twin.fit(X, Y, epochs=1).loss == trainer.fit(X, Y, epochs=1).loss
        for name, array in trainer.model.parameters().items():
            assert twin.model.parameters()[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("copied", COPIES, ids=IDS)
def test_a_copied_model_predicts_the_same_and_is_another(k: Kernels, copied: Callable[[Any], Any]) -> None:
    model = trainer_of(k).model
    model.rewrites = ()
    twin = copied(model)
    assert type(twin) is type(model)
    assert twin.rewrites == ()
    assert twin.backend == k.name
    expected = model.predict(X)
    np.testing.assert_array_equal(twin.predict(X), expected)
    twin.set_parameters({"0.w": np.zeros((4, 8))})
    np.testing.assert_array_equal(model.predict(X), expected)


def test_a_graph_is_copied(k: Kernels) -> None:
    nodes = {"a": (Linear(3), "input"), "b": (Linear(3), "input"), "sum": (models.Add(), "a", "b")}
    model = models.Graph(nodes, "sum", (4,), k.name)
    for copied in COPIES:
        np.testing.assert_array_equal(copied(model).predict(X), model.predict(X))


def test_a_pickle_names_nothing_but_the_loader_and_the_layers_of_ones_own() -> None:
    content = pickle.dumps(models.build("cnn-bn", "numpy"))
    named = [argument for code, argument, _ in pickletools.genops(content) if code.name in ("GLOBAL", "INST")]
    strings = [argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)]
    assert named == []
    assert strings[:2] == ["models.loading", "from_bytes"]
    assert not any("numpy." in text for text in strings)


def test_kernels_are_pickled_by_name() -> None:
    for name in kernels.names():
        assert pickle.loads(pickle.dumps(kernels.get(name))) is kernels.get(name)


def _predicted(model: models.Graph) -> bytes:
    return model.predict(X).tobytes()


def test_a_model_is_handed_to_a_spawned_process() -> None:
    model = Sequential([Linear(3)], (4,), "numpy", seed=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(_predicted, (model,)).get(60) == model.predict(X).tobytes()
