"""Callbacks: when they are called, and early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels import Kernels
from models import SGD, Adam, BatchNorm, Callback, EarlyStopping, Epoch, Linear, Sequential, Trainer
from twinkernels import runs

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.integers(0, 3, 20)


def trainer(backend: str = "numpy") -> Trainer:
    return Trainer(Sequential([Linear(3), BatchNorm()], (4,), backend), Adam(0.1), batch_size=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"callbacks": EarlyStopping()}, r"callbacks is EarlyStopping\(.*\), expected models.Callback in a list"),
        ({"callbacks": [Callback(), print]}, r"callbacks\[1\] is <built-in .*>, expected a models.Callback"),
        ({"callbacks": [EarlyStopping]}, r"callbacks\[0\] is <class .*>, expected a models.Callback"),
        ({"validation": 0.2}, r"validation is 0.2, expected a pair of arrays \(x, y\); data.split sets some aside"),
        ({"validation": (X, Y, Y)}, r"validation is a tuple of 3, expected a pair of arrays"),
        ({"schedule": 0.1}, r"schedule is 0.1, expected a models.Schedule"),
        ({"checkpoints": "kept"}, r"checkpoints is 'kept', expected a models.Checkpoints"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^Trainer.fit: {message}"):
        trainer().fit(X, Y, epochs=1, **arguments)


@pytest.mark.parametrize("verbose", [False, True])
def test_a_fit_prints_a_line_an_epoch_if_asked(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    history = trainer().fit(X, Y, epochs=3, validation=(X, Y), verbose=verbose)
    assert capsys.readouterr().out.splitlines() == [str(epoch) for epoch in history.epochs] * verbose
    first = history.epochs[0]
    shares = f"loss {first.loss:.4f}  accuracy {first.accuracy:.4f}  validation {first.validation_accuracy:.4f}"
    assert str(first) == f"epoch   1  {shares}  {first.seconds:.1f} s"


def test_a_recipe_refuses_what_is_no_callback() -> None:
    with pytest.raises(TypeError, match=r"^run: callbacks is EarlyStopping"):
        runs.run("mlp-512", backend="numpy", iterations=1, callbacks=EarlyStopping())  # type: ignore[arg-type]


class Diary(Callback):
    """Writes down what it is told, with its name."""

    def __init__(self, name: str, lines: list[Any]) -> None:
        self.name, self.lines = name, lines

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.lines.append((self.name, "begin", total_steps))

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        assert isinstance(loss, float)
        self.lines.append((self.name, "step", trainer.steps))

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        self.lines.append((self.name, "epoch", epoch.epoch))

    def on_fit_end(self, trainer: Trainer) -> None:
        self.lines.append((self.name, "end", trainer.steps))


def test_callbacks_are_called_in_order() -> None:
    lines: list[Any] = []
    trainer().fit(X, Y, epochs=2, callbacks=[Diary("a", lines), Diary("b", lines)])
    moments = [("begin", 6), ("step", 1), ("step", 2), ("step", 3), ("epoch", 1)]
    moments += [("step", 4), ("step", 5), ("step", 6), ("epoch", 2), ("end", 6)]
    assert lines == [(name, *moment) for moment in moments for name in "ab"]


def test_a_callback_stops_the_fit_within_an_epoch() -> None:
    class Stop(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            trainer.stop = trainer.steps == 5

    lines: list[Any] = []
    its = trainer()
    history = its.fit(X, Y, epochs=9, callbacks=[Stop(), Diary("a", lines)])
    assert history.step == [3, 5]
    assert lines[-2:] == [("a", "epoch", 2), ("a", "end", 5)]
    assert its.fit(X, Y, epochs=1).step == [8]  # the next fit runs again


class Scripted(Callback):
    """Puts given validation scores in place of the real ones, and marks the weights with the epoch's number."""

    def __init__(self, scores: list[float], stopping: EarlyStopping) -> None:
        self.scores, self.stopping = scores, stopping

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.stopping.on_fit_begin(trainer, total_steps)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        mark = np.full(3, float(epoch.epoch))
        trainer.model.set_parameters({"0.b": mark, "1.running_mean": mark})
        score = self.scores[epoch.epoch - 1]
        fields = {**vars(epoch), self.stopping.monitor: score}
        self.stopping.on_epoch_end(trainer, Epoch(**fields))

    def on_fit_end(self, trainer: Trainer) -> None:
        self.stopping.on_fit_end(trainer)


@pytest.mark.parametrize(
    ("stopping", "scores", "epochs", "restored"),
    [
        (EarlyStopping(patience=2), [3, 2, 2.5, 2.1, 1], 4, 2),
        (EarlyStopping(patience=3), [3, 2, 2.5, 2.1, 1], 5, 5),
        (EarlyStopping(patience=2, restore_best=False), [3, 2, 2.5, 2.1, 1], 4, 4),
        (EarlyStopping(patience=2, minimum_change=0.5), [3, 2.8, 2.6, 1, 1], 3, 1),
        (EarlyStopping(patience=2), [2, 2, 2, 1, 1], 3, 1),
        (EarlyStopping("validation_accuracy", patience=2), [0.5, 0.7, 0.6, 0.65, 0.9], 4, 2),
        (EarlyStopping("validation_accuracy", patience=1, minimum_change=0.1), [0.5, 0.55, 0.9, 1.0, 1.0], 2, 1),
        (EarlyStopping("loss", patience=1), [3, 2, 1, float("nan"), 0], 4, 3),
    ],
)
def test_early_stopping(stopping: EarlyStopping, scores: list[float], epochs: int, restored: int) -> None:
    its = trainer()
    scripted = Scripted([float(s) for s in scores], stopping)
    history = its.fit(X, Y, epochs=5, validation=(X, Y), callbacks=[scripted])
    assert history.epoch == list(range(1, epochs + 1))
    assert (its.model.parameters()["0.b"] == restored).all()
    assert (its.model.statistics()["1.running_mean"] == restored).all()


def test_early_stopping_of_a_real_fit_restores_its_best_epoch(k: Kernels) -> None:
    its = trainer(k.name)
    noise = RNG.integers(0, 3, 20)
    history = its.fit(X, Y, epochs=200, validation=(X, noise), callbacks=[EarlyStopping(patience=4)])
    assert len(history.epochs) < 200
    losses = history.validation_loss
    assert len(losses) == 1 + int(np.argmin(losses)) + 4
    assert its.model.evaluate(X, noise).loss == min(losses)


def test_one_early_stopping_serves_two_fits() -> None:
    stopping = EarlyStopping("loss", patience=1)
    trainer().fit(X, Y, epochs=2, callbacks=[stopping])
    assert len(Trainer(trainer().model, SGD(1e-6)).fit(X, Y, epochs=2, callbacks=[stopping]).epochs) == 2


def test_early_stopping_is_checked() -> None:
    with pytest.raises(ValueError, match=r"monitor is 'validation_loss', .*need validation data in fit"):
        trainer().fit(X, Y, epochs=1, callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="patience is 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match=r"minimum_change is -0.1"):
        EarlyStopping(minimum_change=-0.1)
