"""Trainer: one step against a step written by hand, fits, refusals, and what decides the order of samples."""

from __future__ import annotations

import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
from kernels import Kernels
from models import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Cosine,
    Dropout,
    Epoch,
    Flatten,
    Linear,
    MeanSquaredError,
    NonFiniteError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
)


def problem(n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n)


def mlp(backend: str = "numpy", seed: int = 0, dtype: Any = np.float64) -> Sequential:
    return Sequential([Linear(5), ReLU(), Linear(3)], (4,), backend, seed, dtype)


class Losses(Callback):
    """Keeps the loss of every step."""

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.values: list[float] = []

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.values.append(loss)


# One step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_is_the_one_written_by_hand(k: Kernels, smoothing: float) -> None:
    model = mlp(k.name)
    w1, b1, w2, b2 = (view.copy() for view in model.parameters().values())
    trainer = Trainer(model, SGD(0.3), SoftmaxCrossEntropy(smoothing), batch_size=8)
    x, y = problem(8)
    for _ in range(3):
        loss = trainer.step(x, y)

        hidden = x @ w1 + b1
        active = np.maximum(hidden, 0)
        logits = active @ w2 + b2
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        target = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
        assert loss == pytest.approx(-(target * np.log(probability)).sum() / 8, rel=1e-12)
        dlogits = (probability - target) / 8
        dhidden = dlogits @ w2.T * (hidden > 0)
        gradients = {"0.w": x.T @ dhidden, "0.b": dhidden.sum(0), "2.w": active.T @ dlogits, "2.b": dlogits.sum(0)}
        w1, b1 = w1 - 0.3 * gradients["0.w"], b1 - 0.3 * gradients["0.b"]
        w2, b2 = w2 - 0.3 * gradients["2.w"], b2 - 0.3 * gradients["2.b"]
        for name, expected in zip(model.parameters(), (w1, b1, w2, b2), strict=True):
            np.testing.assert_allclose(model.parameters()[name], expected, rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(trainer.gradients()[name], gradients[name], rtol=1e-11, atol=1e-14)


def test_a_step_returns_a_float_and_takes_a_learning_rate(k: Kernels) -> None:
    x, y = problem(6)
    model = mlp(k.name, dtype=np.float32)
    trainer = Trainer(model, SGD(0.1), batch_size=6)
    before = model.parameters()["2.b"].copy()
    loss = trainer.step(x.astype(np.float32), y.astype(np.uint8), learning_rate=0.5)
    assert type(loss) is float
    step = before - model.parameters()["2.b"]
    np.testing.assert_allclose(step, 0.5 * trainer.gradients()["2.b"], rtol=1e-5, atol=1e-7)
    trainer.step(x, y)
    assert trainer.steps == 2


def test_gradients_are_copies(k: Kernels) -> None:
    trainer = Trainer(mlp(k.name), SGD(0.1), batch_size=6)
    trainer.step(*problem(6))
    first = trainer.gradients()
    kept = first["0.w"].copy()
    trainer.step(*problem(6))
    np.testing.assert_array_equal(first["0.w"], kept)
    assert not np.array_equal(trainer.gradients()["0.w"], kept)


def test_inputs_and_labels_are_left_alone(k: Kernels) -> None:
    x, y = problem(6)
    given = x.copy(), y.copy()
    Trainer(mlp(k.name), Adam(0.1), batch_size=4).fit(x, y, epochs=2)
    np.testing.assert_array_equal(x, given[0])
    np.testing.assert_array_equal(y, given[1])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((7, 4)), ValueError, "Trainer.step: x has 7 samples, expected at most batch_size 6"),
        (np.zeros((0, 4)), ValueError, "x has an empty batch"),
        (np.zeros((2, 5)), ValueError, r"x has shape \(2, 5\), expected \(N, 4\)"),
        (np.zeros((2, 4), int), TypeError, "x has dtype int64"),
        (np.zeros((2, 4), np.uint8), ValueError, "the model has no normalisation"),
        ([[0.0] * 4] * 2, TypeError, "x is a list"),
    ],
)
def test_wrong_batches_are_refused_and_count_no_step(x: Any, error: type[Exception], message: str) -> None:
    trainer = Trainer(mlp(), SGD(0.1), batch_size=6)
    with pytest.raises(error, match=message):
        trainer.step(x, np.zeros(len(x), np.int64))
    assert trainer.steps == 0


def test_wrong_arguments_of_a_trainer_are_refused() -> None:
    model: Any = mlp()
    with pytest.raises(ValueError, match="Trainer: batch_size is 0"):
        Trainer(model, SGD(0.1), batch_size=0)
    wrong: Any
    for wrong in (SGD, "sgd", 0.1):
        with pytest.raises(TypeError, match=r"Trainer: optimizer is .*, expected a models.Optimizer"):
            Trainer(model, wrong)
    wrong = 128
    with pytest.raises(TypeError, match="Trainer: loss is 128"):
        Trainer(model, SGD(0.1), wrong)
    with pytest.raises(TypeError, match="Trainer: schedule is 128"):
        Trainer(model, SGD(0.1), schedule=wrong)
    with pytest.raises(TypeError, match="Trainer: model is 128"):
        Trainer(wrong, SGD(0.1))


# Fit ------------------------------------------------------------------------------------------------------------


def test_a_fit_is_its_steps_in_seeded_order(k: Kernels) -> None:
    """The last batch of each epoch is smaller: 30 = 8 + 8 + 8 + 6."""
    x, y = problem()
    fitted, stepped = mlp(k.name, seed=3), mlp(k.name, seed=3)
    losses = Losses()
    history = Trainer(fitted, Adam(0.01), batch_size=8).fit(x, y, epochs=2, callbacks=[losses])
    trainer = Trainer(stepped, Adam(0.01), batch_size=8)
    expected = []
    for epoch in range(2):
        for batch in data.batches((x, y), 8, seed=3, epoch=epoch):
            expected.append(trainer.step(*batch))
    assert losses.values == expected
    for name, view in fitted.parameters().items():
        np.testing.assert_array_equal(view, stepped.parameters()[name])
    means = [(8 * sum(part[:3]) + 6 * part[3]) / 30 for part in (expected[:4], expected[4:])]
    np.testing.assert_allclose(history.loss, means, rtol=1e-12)


def test_a_smaller_batch_gives_what_a_trainer_of_that_size_gives(k: Kernels) -> None:
    x, y = problem(5)
    layers = [Linear(5), BatchNorm(), ReLU(), Dropout(0.2), Linear(3)]
    small, large = (
        Trainer(Sequential(layers, (4,), k.name, dtype=np.float64), Adam(0.01), batch_size=n) for n in (5, 64)
    )
    for _ in range(3):
        assert small.step(x, y) == large.step(x, y)
    for name, view in (small.model.parameters() | small.model.statistics()).items():
        np.testing.assert_array_equal(view, (large.model.parameters() | large.model.statistics())[name])


def test_the_order_of_samples_depends_on_seed_and_epoch_alone() -> None:
    x, y = np.arange(12.0)[:, None], np.zeros((12, 1))

    class Order(Callback):
        def __init__(self) -> None:
            self.seen: list[list[float]] = []

        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            value = trainer.plan.inputs["input"]
            self.seen.append(trainer.executor.array(value, 4)[:, 0].tolist())

    def order(backend: str, seed: int) -> list[list[float]]:
        seen = Order()
        model = Sequential([Linear(1)], (1,), backend, seed, np.float64)
        Trainer(model, SGD(1e-9), MeanSquaredError(), batch_size=4).fit(x, y, epochs=2, callbacks=[seen])
        return seen.seen

    reference = order("numpy", 0)
    assert all(order(backend, 0) == reference for backend in kernels.names())
    for epoch in (reference[:3], reference[3:]):
        assert sorted(itertools.chain(*epoch)) == x[:, 0].tolist()
    assert reference[:3] != reference[3:]
    assert order("numpy", 1) != reference


def test_a_second_fit_goes_on_with_the_next_epochs() -> None:
    x, y = problem()
    once, twice = mlp(), mlp()
    Trainer(once, Adam(0.01), batch_size=8).fit(x, y, epochs=3)
    trainer = Trainer(twice, Adam(0.01), batch_size=8)
    first, second = trainer.fit(x, y, epochs=1), trainer.fit(x, y, epochs=2)
    np.testing.assert_array_equal(once.parameters()["0.w"], twice.parameters()["0.w"])
    assert (first.epoch, second.epoch) == ([1], [2, 3])
    assert (trainer.epochs, trainer.steps) == (3, 12)


def test_iterations_end_within_an_epoch() -> None:
    losses = Losses()
    history = Trainer(mlp(), SGD(0.1), batch_size=8).fit(*problem(), iterations=6, callbacks=[losses])
    assert len(losses.values) == 6
    assert history.step == [4, 6]
    assert history.loss[1] == pytest.approx(np.mean(losses.values[4:]), rel=1e-12)


def test_the_history_holds_every_field_of_every_epoch(k: Kernels) -> None:
    x, y = problem()
    model = mlp(k.name)
    history = Trainer(model, Adam(0.02), batch_size=10).fit(x[:20], y[:20], epochs=3, validation=(x[20:], y[20:]))
    assert history.epoch == [1, 2, 3]
    assert history.step == [2, 4, 6]
    assert history.learning_rate == [0.02] * 3
    assert all(seconds > 0 for seconds in history.seconds)
    assert len(history.loss) == len(history.accuracy) == 3
    final = model.evaluate(x[20:], y[20:])
    assert (history.validation_loss[-1], history.validation_accuracy[-1]) == final
    assert history.epochs[-1].validation_loss == final.loss
    with pytest.raises(AttributeError, match="History has no 'losses'; expected one of epoch, step, loss"):
        _ = history.losses
    without = Trainer(model, SGD(0.1), batch_size=10).fit(x, y, epochs=1)
    assert without.validation_loss == [None]


def test_a_history_has_the_fields_of_its_epochs_for_type_checkers_too(tmp_path: Path) -> None:
    mypy = pytest.importorskip("mypy.api")
    names = list(Epoch.__dataclass_fields__)
    lines = [f"history.{name}" for name in names]
    (tmp_path / "use.py").write_text(
        "\n".join(["from models.history import History", "history = History()", *lines, "history.nosuch"])
    )
    alone = ["--cache-dir", str(tmp_path), "--no-error-summary", "--follow-imports", "skip"]  # NumPy's stubs take ten s
    out, err, status = mypy.run([*alone, str(tmp_path / "use.py"), inspect.getfile(Epoch)])
    assert (err, status) == ("", 1)
    assert out.count("error:") == 1
    assert f'use.py:{3 + len(names)}: error: "History" has no attribute "nosuch"' in out


def test_accuracy_is_counted_while_training(k: Kernels) -> None:
    x, y = problem(20)
    model = mlp(k.name)
    expected = model.evaluate(x, y)
    history = Trainer(model, SGD(1e-12), batch_size=8).fit(x, y, epochs=1)
    assert history.accuracy[0] == pytest.approx(expected.accuracy, abs=1e-12)
    assert history.loss[0] == pytest.approx(expected.loss, rel=1e-9)


def test_uint8_images_give_the_model_its_normalisation(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    train = data.Split(rng.integers(0, 200, (24, 3, 3, 1), dtype=np.uint8), rng.integers(0, 2, 24))
    (floats,) = data.normalise(train)
    raw, ready = (Sequential([Flatten(), Linear(2)], (3, 3, 1), k.name) for _ in range(2))
    histories = [
        Trainer(model, SGD(0.1), batch_size=10).fit(*split, epochs=2, validation=split)
        for model, split in ((raw, train), (ready, floats))
    ]
    assert raw.normalisation == data.statistics(train)
    assert ready.normalisation is None
    assert histories[0].loss == histories[1].loss
    assert histories[0].validation_loss == histories[1].validation_loss
    own = Sequential([Flatten(), Linear(2)], (3, 3, 1), k.name, normalisation=(10.0, 20.0))
    Trainer(own, SGD(0.1), batch_size=10).fit(*train, epochs=1)
    assert own.normalisation == (10.0, 20.0)


X, Y = problem(6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "epochs is None and iterations is None, expected one of them"),
        ({"epochs": 1, "iterations": 1}, ValueError, "epochs is 1 and iterations is 1, expected one of them"),
        ({"epochs": 0}, ValueError, "Trainer.fit: epochs is 0"),
        ({"iterations": -1}, ValueError, "Trainer.fit: iterations is -1"),
        ({"epochs": 1.5}, ValueError, "Trainer.fit: epochs is 1.5"),
        ({"epochs": 1, "validation": (X[:, :2], Y)}, ValueError, r"validation images has shape \(6, 2\)"),
        ({"epochs": 1, "validation": (X, Y[:2])}, ValueError, r"labels have shape \(2,\), expected \(6,\)"),
        ({"epochs": 1, "validation": (X[:0], Y[:0])}, ValueError, "validation images has an empty batch"),
        ({"epochs": 1, "validation": (X.astype(np.uint8), Y)}, ValueError, "validation images holds uint8 images"),
    ],
)
def test_wrong_fits_are_refused_before_training(arguments: Any, error: type[Exception], message: str) -> None:
    trainer = Trainer(mlp(), SGD(0.1), batch_size=4)
    with pytest.raises(error, match=message):
        trainer.fit(X, Y, **arguments)
    assert trainer.steps == 0


def test_a_refused_fit_leaves_the_normalisation_unset() -> None:
    model = Sequential([Flatten(), Linear(2)], (3, 3, 1), "numpy")
    x = np.random.default_rng(0).integers(0, 9, (4, 3, 3, 1), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"labels\[0\] is 5"):
        Trainer(model, SGD(0.1)).fit(x, np.full(4, 5), epochs=1)
    assert model.normalisation is None


def test_a_loss_that_diverges_is_reported_where_it_is_ignored(k: Kernels) -> None:
    model = Sequential([Linear(1)], (1,), k.name)
    trainer = Trainer(model, SGD(1e30), MeanSquaredError(), batch_size=2, on_nonfinite="ignore")
    x, y = np.full((2, 1), 1e10, np.float32), np.zeros((2, 1), np.float32)
    with np.errstate(all="ignore"):
        losses = [trainer.step(x, y) for _ in range(4)]
    assert not math.isfinite(losses[-1])


def test_a_long_fit_is_the_same_in_stretches_and_step_by_step(k: Kernels) -> None:
    """Over two looks at the gradients, and a smaller last batch; a callback that wants every step forbids stretches."""
    x, y = problem(1001)

    def trained(*callbacks: Callback) -> tuple[bytes, list[float], list[float], int]:
        layers = [Linear(6), BatchNorm(), ReLU(), Dropout(0.2), Linear(3)]
        trainer = Trainer(Sequential(layers, (4,), k.name), Adam(0.01), batch_size=9, schedule=Cosine())
        history = trainer.fit(x, y, epochs=2, callbacks=callbacks)
        state = trainer.model.parameters() | trainer.model.statistics() | trainer.state
        bits = b"".join(np.ascontiguousarray(view).tobytes() for view in state.values())
        return bits, history.loss, history.accuracy, trainer.steps

    assert trained() == trained(Losses())
    assert trained()[3] == 2 * 112


def test_a_bad_batch_within_a_stretch_is_found_and_nothing_after_it_done(k: Kernels) -> None:
    x, y = problem(400)
    x = x.astype(np.float32)
    x[data.epoch_order(400, 0, 0)[8 * 20]] = np.nan  # in batch 20
    trainer = Trainer(Sequential([Linear(5), ReLU(), Linear(3)], (4,), k.name), Adam(0.01), batch_size=8)
    with pytest.raises(NonFiniteError, match=r"step 21.*input"):
        trainer.fit(x, y, epochs=1)
    assert trainer.steps == trainer.progress.done == 20
    twin = Trainer(Sequential([Linear(5), ReLU(), Linear(3)], (4,), k.name), Adam(0.01), batch_size=8)
    twin.fit(np.nan_to_num(x), y, iterations=20)
    np.testing.assert_array_equal(trainer.model.parameters()["0.w"], twin.model.parameters()["0.w"])
