"""Optimizers: each through a Trainer against its kernel called by hand, and the flat vector's edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels import Kernels
from models import SGD, Adam, AdamW, Linear, Optimizer, RMSProp, Sequential, Tanh, Trainer

RATE = 0.05

OPTIMIZERS: list[tuple[Optimizer, str, list[str], dict[str, Any]]] = [
    (SGD(RATE), "sgd", [], {}),
    (SGD(RATE, momentum=0.9), "sgd", ["v"], {"momentum": 0.9}),
    (SGD(RATE, momentum=0.9, nesterov=True), "sgd", ["v"], {"momentum": 0.9, "nesterov": True}),
    (SGD(RATE, weight_decay=0.1), "sgd", [], {"weight_decay": 0.1}),
    (
        SGD(RATE, 0.5, weight_decay=0.1, decoupled=True),
        "sgd",
        ["v"],
        {"momentum": 0.5, "weight_decay": 0.1, "decoupled": True},
    ),
    (RMSProp(RATE), "rmsprop", ["v"], {}),
    (
        RMSProp(RATE, rho=0.8, eps=1e-3, weight_decay=0.1),
        "rmsprop",
        ["v"],
        {"rho": 0.8, "eps": 1e-3, "weight_decay": 0.1},
    ),
    (RMSProp(RATE, weight_decay=0.1, decoupled=True), "rmsprop", ["v"], {"weight_decay": 0.1, "decoupled": True}),
    (Adam(RATE), "adam", ["m", "v"], {}),
    (
        Adam(RATE, 0.8, 0.95, 1e-4, weight_decay=0.1),
        "adam",
        ["m", "v"],
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-4, "weight_decay": 0.1},
    ),
    (AdamW(RATE), "adamw", ["m", "v"], {"weight_decay": 0.01}),
]


@pytest.mark.parametrize(("optimizer", "kernel", "state", "options"), OPTIMIZERS, ids=[str(o[0]) for o in OPTIMIZERS])
def test_a_trainers_update_is_the_kernels(
    k: Kernels, optimizer: Optimizer, kernel: str, state: list[str], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    model = Sequential([Linear(5), Tanh(), Linear(3)], (4,), k.name, dtype=np.float64)
    trainer = Trainer(model, optimizer, batch_size=6)
    expected = {name: view.copy() for name, view in model.parameters().items()}
    states = {name: [np.zeros_like(view) for _ in state] for name, view in expected.items()}
    for step in range(1, 6):
        trainer.step(rng.standard_normal((6, 4)), rng.integers(0, 3, 6))
        for name, gradient in trainer.gradients().items():
            vectors = states[name] if state else [None] if kernel == "sgd" else []
            number = [step] if kernel.startswith("adam") else []
            getattr(k, kernel)(expected[name], gradient, *vectors, *number, RATE, **options)
            np.testing.assert_allclose(model.parameters()[name], expected[name], rtol=1e-12, err_msg=f"step {step}")


def test_adam_corrects_by_the_steps_own_number(k: Kernels) -> None:
    """The first step has the size of the learning rate wherever the gradient is not tiny."""
    model = Sequential([Linear(3)], (4,), k.name, dtype=np.float64)
    before = {name: view.copy() for name, view in model.parameters().items()}
    trainer = Trainer(model, Adam(RATE), batch_size=6)
    rng = np.random.default_rng(0)
    trainer.step(rng.standard_normal((6, 4)), rng.integers(0, 3, 6))
    for name, gradient in trainer.gradients().items():
        step = before[name] - model.parameters()[name]
        np.testing.assert_allclose(step, RATE * gradient / (np.abs(gradient) + 1e-8), rtol=1e-9)


def test_the_gaps_between_parameters_stay_zero(k: Kernels) -> None:
    model = Sequential([Linear(3), Linear(3)], (4,), k.name)
    flat = model.arrays()["parameters"]
    used = np.zeros(flat.size, bool)
    for name, view in model.parameters().items():
        start = model.parameter_layout.offsets[name]
        used[start : start + view.size] = True
    assert not used.all()
    trainer = Trainer(model, AdamW(RATE, weight_decay=0.5), batch_size=2)
    for _ in range(3):
        trainer.step(np.ones((2, 4), np.float32), np.array([0, 2]))
    assert not flat[~used].any()
    assert np.count_nonzero(flat[used]) > 10


def test_state_starts_at_zero_and_belongs_to_the_trainer() -> None:
    model = Sequential([Linear(3)], (4,), "numpy")
    first, second = (Trainer(model, Adam(RATE), batch_size=2) for _ in range(2))
    first.step(np.ones((2, 4), np.float32), np.array([0, 2]))
    assert first.state["m"].any()
    assert not second.state["m"].any()
    assert list(Trainer(model, SGD(RATE)).state) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "SGD: learning_rate is 0.0, expected a finite number > 0"),
        (lambda: Adam(float("inf")), "Adam: learning_rate is inf"),
        (lambda: SGD(0.1, momentum=1.0), "SGD: momentum is 1.0"),
        (lambda: SGD(0.1, nesterov=True), "SGD: nesterov is True with momentum 0"),
        (lambda: SGD(0.1, weight_decay=-1.0), "SGD: weight_decay is -1.0"),
        (lambda: RMSProp(0.1, rho=1.5), "RMSProp: rho is 1.5"),
        (lambda: Adam(0.1, beta1=-0.1), "Adam: beta1 is -0.1"),
        (lambda: AdamW(0.1, beta2=1.0), "AdamW: beta2 is 1.0"),
        (lambda: Adam(0.1, eps=-1e-8), "Adam: eps is -1e-08"),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
