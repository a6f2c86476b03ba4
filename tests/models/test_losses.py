"""Losses through a model: value, gradient, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import models
from kernels import Kernels
from models import SGD, Conv2d, Linear, MeanSquaredError, Sequential, SoftmaxCrossEntropy, Tanh, Trainer


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_without_its_loss_is_told_which(outputs: int) -> None:
    model = Sequential([Linear(outputs)], (3,), "numpy")
    x, y = np.ones((4, 3), np.float32), np.ones((4, outputs), np.float32)
    with pytest.raises((TypeError, ValueError), match=r"; a regression takes loss=models.MeanSquaredError\(\)$"):
        model.evaluate(x, y)
    with pytest.raises((TypeError, ValueError), match=r"; a regression takes loss=models.MeanSquaredError\(\)$"):
        Trainer(model, SGD(0.1)).fit(x, y, epochs=1)
    assert model.evaluate(x, y, MeanSquaredError()).loss > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothing_reaches_the_gradient_through_the_model(k: Kernels, smoothing: float) -> None:
    model = Sequential([Linear(4), Tanh(), Linear(3)], (5,), k.name)
    check = models.gradcheck(model, loss=SoftmaxCrossEntropy(smoothing))
    assert check.error < 1e-7, check


def test_smoothing_pulls_a_certain_prediction_back(k: Kernels) -> None:
    """At logits (20, 0) for label 0 a hard target has no gradient to speak of, a smooth one has."""
    x, y = np.ones((1, 1)), np.array([0])
    for smoothing, slope in ((0.0, 0.0), (0.2, 0.1)):
        model = Sequential([Linear(2, bias=False)], (1,), k.name, dtype=np.float64)
        model.set_parameters({"0.w": [[20.0, 0.0]]})
        trainer = Trainer(model, SGD(1.0), SoftmaxCrossEntropy(smoothing), batch_size=1)
        loss = trainer.step(x, y)
        np.testing.assert_allclose(trainer.gradients()["0.w"], [[slope, -slope]], atol=1e-8)
        assert loss == pytest.approx(20 * smoothing / 2, abs=1e-8)


def test_the_loss_is_the_mean_over_the_batch(k: Kernels) -> None:
    model = Sequential([Linear(2)], (3,), k.name, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    expected = np.mean((x @ model.parameters()["0.w"] - y) ** 2)
    assert Trainer(model, SGD(0.1), MeanSquaredError(), batch_size=6).step(x, y) == pytest.approx(expected, rel=1e-12)


def test_squared_error_takes_images_and_either_float_width(k: Kernels) -> None:
    model = Sequential([Conv2d(1, 3, padding=1)], (5, 5, 1), k.name)
    assert models.gradcheck(model, loss=MeanSquaredError()).error < 1e-7
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 5, 5, 1), dtype=np.uint8)
    history = Trainer(model, SGD(0.1), MeanSquaredError(), batch_size=8).fit(x, x / 255.0, epochs=10)
    assert history.loss[-1] < history.loss[0] / 2
    assert np.isnan(history.accuracy[-1])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array([0, 3]), ValueError, r"labels\[1\] is 3, expected 0 to 2 for 3 classes"),
        (np.array([-1, 0]), ValueError, r"labels\[0\] is -1"),
        (np.array([0.0, 1.0]), TypeError, "labels have dtype float64, expected an array of integers"),
        (np.array([True, False]), TypeError, "labels have dtype bool"),
        ([0, 1], TypeError, "labels have type list"),
        (np.array([0, 1, 2]), ValueError, r"labels have shape \(3,\), expected \(2,\)"),
        (np.zeros((2, 3), np.int64), ValueError, r"labels have shape \(2, 3\), expected \(2,\)"),
    ],
)
def test_wrong_labels_are_refused_and_nothing_is_trained(y: Any, error: type[Exception], message: str) -> None:
    model = Sequential([Linear(3)], (4,), "numpy")
    before = model.parameters()["0.w"].copy()
    trainer = Trainer(model, SGD(0.1), batch_size=4)
    x = np.ones((2, 4), np.float32)
    for call in (trainer.step, model.evaluate, lambda x, y: trainer.fit(x, y, epochs=1)):
        with pytest.raises(error, match=message):
            call(x, y)
    np.testing.assert_array_equal(model.parameters()["0.w"], before)
    assert trainer.steps == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int32, ">i4"])
def test_any_integers_are_labels(k: Kernels, dtype: Any) -> None:
    x, y = np.ones((3, 4), np.float32), np.array([0, 2, 1])
    losses = [
        Trainer(Sequential([Linear(3)], (4,), k.name), SGD(0.1), batch_size=3).step(x, labels)
        for labels in (y, y.astype(dtype))
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros((2, 3)), ValueError, r"target has shape \(2, 3\), expected \(2, 2\)"),
        (np.zeros((2, 2), int), TypeError, "target has dtype int64, expected an array of floats"),
        ([[0.0, 0.0]] * 2, TypeError, "target has type list"),
    ],
)
def test_wrong_targets_are_refused(y: Any, error: type[Exception], message: str) -> None:
    trainer = Trainer(Sequential([Linear(2)], (4,), "numpy"), SGD(0.1), MeanSquaredError(), batch_size=2)
    with pytest.raises(error, match=message):
        trainer.step(np.ones((2, 4), np.float32), y)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing is 1\.0, expected a finite number >= 0 and < 1"):
        SoftmaxCrossEntropy(1.0)
    with pytest.raises(ValueError, match=r"SoftmaxCrossEntropy: output has shape \(N, 4, 4, 1\)"):
        Trainer(Sequential([Conv2d(1, 1)], (4, 4, 1), "numpy"), SGD(0.1))
