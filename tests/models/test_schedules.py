"""Schedules: their formulas at the points that name them, and the rates that a fit really uses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models import (
    SGD,
    Callback,
    Cosine,
    Exponential,
    Linear,
    LinearWarmup,
    MultiStep,
    OneCycle,
    Schedule,
    Sequential,
    StepDecay,
    Trainer,
)

PER_EPOCH, TOTAL = 4, 20


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Schedule(), {0: 1, 19: 1}),
        (StepDecay(2, 0.5), {0: 1, 7: 1, 8: 0.5, 15: 0.5, 16: 0.25, 19: 0.25}),
        (StepDecay(1), {3: 1, 4: 0.1, 8: 0.01}),
        (MultiStep((1, 3), 0.5), {0: 1, 3: 1, 4: 0.5, 11: 0.5, 12: 0.25, 19: 0.25}),
        (MultiStep((0,), 0.5), {0: 0.5}),
        (Exponential(0.5), {0: 1, 3: 1, 4: 0.5, 19: 0.5**4}),
        (Cosine(), {0: 1, 5: (1 + math.sqrt(0.5)) / 2, 10: 0.5, 19: (1 + math.cos(math.pi * 0.95)) / 2}),
        (Cosine(final=0.2), {0: 1, 10: 0.6}),
        (OneCycle(0.25, 0.04, 0.0), {0: 0.04, 1: 0.04 + 0.96 / 5, 5: 1, 10: 10 / 15, 19: 1 / 15}),
        (OneCycle(0.5, 0.5, 0.1), {0: 0.5, 5: 0.75, 10: 1, 15: 0.55}),
        (OneCycle(warmup=0.0), {0: 1, 10: 0.5}),
        (LinearWarmup(4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 19: 1}),
        (LinearWarmup(4, Cosine()), {3: 1, 4: 1, 12: 0.5}),
        (LinearWarmup(4, Exponential(0.5)), {4: 1, 7: 1, 8: 0.5}),
        (LinearWarmup(0, Exponential(0.5)), {0: 1, 4: 0.5}),
    ],
    ids=str,
)
def test_factors_at_their_named_points(schedule: Schedule, points: dict[int, float]) -> None:
    for step, factor in points.items():
        assert schedule(step, PER_EPOCH, TOTAL) == pytest.approx(factor, rel=1e-12), step


class Rates(Callback):
    """Keeps the learning rate that each step used, from what it did to a parameter whose gradient is known."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.total_steps = total_steps
        self._before = {name: view.copy() for name, view in trainer.model.parameters().items()}

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        now, gradient = trainer.model.parameters()["0.b"], trainer.gradients()["0.b"]
        at = np.abs(gradient).argmax()
        self.rates.append(float((self._before["0.b"] - now)[at] / gradient[at]))
        self._before = {name: view.copy() for name, view in trainer.model.parameters().items()}


def fitted_rates(schedule: Schedule | None, samples: int, in_fit: bool = False, **length: int) -> tuple[Rates, Any]:
    rng = np.random.default_rng(0)
    model = Sequential([Linear(3)], (4,), "numpy", dtype=np.float64)
    trainer = Trainer(model, SGD(0.2), batch_size=5, schedule=None if in_fit else schedule)
    rates = Rates()
    x, y = rng.standard_normal((samples, 4)), rng.integers(0, 3, samples)
    history = trainer.fit(x, y, callbacks=[rates], schedule=schedule if in_fit else None, **length)
    return rates, history


@pytest.mark.parametrize("in_fit", [False, True])
@pytest.mark.parametrize("schedule", [OneCycle(), StepDecay(1, 0.5), LinearWarmup(3, Cosine())], ids=str)
def test_a_fit_follows_its_schedule(schedule: Schedule, in_fit: bool) -> None:
    rates, history = fitted_rates(schedule, samples=18, in_fit=in_fit, epochs=3)
    assert rates.total_steps == 12
    expected = [0.2 * schedule(step, 4, 12) for step in range(12)]
    np.testing.assert_allclose(rates.rates, expected, rtol=1e-9)
    np.testing.assert_allclose(history.learning_rate, [expected[3], expected[7], expected[11]])


def test_a_schedule_stretches_over_iterations() -> None:
    rates, history = fitted_rates(OneCycle(), samples=18, iterations=6)
    assert rates.total_steps == 6
    np.testing.assert_allclose(rates.rates, [0.2 * OneCycle()(step, 4, 6) for step in range(6)], rtol=1e-9)
    assert history.step == [4, 6]


def test_without_a_schedule_the_rate_is_constant() -> None:
    rates, _ = fitted_rates(None, samples=10, epochs=2)
    np.testing.assert_allclose(rates.rates, 0.2, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(0), "StepDecay: every is 0"),
        (lambda: StepDecay(1, -0.1), "StepDecay: factor is -0.1"),
        (lambda: MultiStep((1, -2)), "MultiStep: milestones is -2"),
        (lambda: Exponential(float("nan")), "Exponential: factor is nan"),
        (lambda: Cosine(final=-1.0), "Cosine: final is -1.0"),
        (lambda: OneCycle(warmup=1.0), "OneCycle: warmup is 1.0"),
        (lambda: LinearWarmup(-1), "LinearWarmup: steps is -1"),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
