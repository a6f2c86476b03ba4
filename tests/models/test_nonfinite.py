"""Losses and gradients that are NaN or infinite: found before they do harm, named, skipped or ignored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernels import Kernels, shapes
from models import (
    SGD,
    Adam,
    BatchNorm,
    Checkpoints,
    Constant,
    Dropout,
    Layer,
    Linear,
    MeanSquaredError,
    NonFiniteError,
    Parameter,
    ReLU,
    Sequential,
    Trainer,
)
from models.nonfinite import is_finite

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 4)).astype(np.float32), RNG.integers(0, 3, 40)


def trainer(backend: str, on_nonfinite: str = "raise") -> Trainer:
    layers = [Linear(6), BatchNorm(), ReLU(), Dropout(0.2), Linear(3)]
    return Trainer(Sequential(layers, (4,), backend), Adam(0.05), batch_size=8, on_nonfinite=on_nonfinite)


def everything(its: Trainer) -> dict[str, bytes]:
    """All that a step changes."""
    arrays = its.model.parameters() | its.model.statistics() | its.state
    return {name: array.tobytes() for name, array in arrays.items()} | {"steps": bytes(its.steps)}


def spoiled(value: float = math.nan) -> np.ndarray:
    x = X[:8].copy()
    x[3, 1] = value
    return x


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_raises_and_changes_nothing(k: Kernels, value: float) -> None:
    its = trainer(k.name)
    its.step(X[:8], Y[:8])
    before = everything(its)
    with pytest.raises(
        NonFiniteError, match=r"loss is nan at step 2, .* first not finite is the input of node '0', in l"
    ):
        its.step(spoiled(value), Y[:8])
    assert everything(its) == before
    assert math.isfinite(its.step(X[:8], Y[:8]))


def huge_gradient(backend: str, on_nonfinite: str = "raise") -> tuple[Trainer, np.ndarray, np.ndarray]:
    """A finite loss of 1e24 whose gradient by the weight, -2e42, is beyond float32."""
    model = Sequential([Linear(1, bias=False, init=Constant(1e-30))], (1,), backend)
    its = Trainer(model, SGD(1e-3), MeanSquaredError(), batch_size=1, on_nonfinite=on_nonfinite)
    return its, np.full((1, 1), 1e30, np.float32), np.full((1, 1), 1e12, np.float32)


@pytest.mark.parametrize(
    ("layers", "spoil", "found"),
    [
        ([Linear(3)], {"0.b": np.array([0, np.inf, 0])}, r"parameter '0\.b' of node '0', in linear"),
        ([Linear(3), Linear(3)], {"1.w": np.full((3, 3), np.nan)}, r"parameter '1\.w' of node '1', in linear"),
        ([Linear(4), Linear(3)], {"0.w": np.full((4, 4), 3e38)}, r"activation '0\.y' of node '0', in linear"),
    ],
)
def test_the_first_bad_layer_is_named(k: Kernels, layers: list[Layer], spoil: Any, found: str) -> None:
    model = Sequential(layers, (4,), k.name)
    model.set_parameters(spoil)
    x = np.array([[1, 2, 3, 4], [4, 3, 2, 9]], np.float32)
    with pytest.raises(NonFiniteError, match=f"first not finite is {found}"):
        Trainer(model, SGD(0.1), batch_size=2).step(x, Y[:2])


def test_targets_that_are_not_finite_are_named(k: Kernels) -> None:
    its, x, y = huge_gradient(k.name)
    with pytest.raises(NonFiniteError, match="first not finite is the target, in mse"):
        its.step(x, y * np.nan)


def test_gradients_are_looked_at_in_every_hundredth_step(k: Kernels) -> None:
    its, x, y = huge_gradient(k.name)
    weight = {"0.w": np.full((1, 1), 1e-30, np.float32)}
    for _ in range(99):
        its.step(x, np.ones_like(y))
        its.model.set_parameters(weight)
    with pytest.raises(NonFiniteError, match=r"not finite at step 100, .*gradient 'd0\.w' of node '0', in l"):
        its.step(x, y)
    assert its.model.parameters()["0.w"] == weight["0.w"]
    early, _, _ = huge_gradient(k.name)
    early.step(x, y)  # the first
    assert not is_finite(early.model.parameters()["0.w"])


def test_skip_looks_at_the_gradients_of_every_step(k: Kernels) -> None:
    its, x, y = huge_gradient(k.name, "skip")
    before = everything(its)
    assert math.isfinite(its.step(x, y))
    assert everything(its) == before
    assert (its.steps, its.skipped) == (0, 1)


def test_a_variance_beyond_the_dtype_is_skipped_too(k: Kernels) -> None:
    """The loss and the gradients stay finite, since the variance is divided by; the running one would not."""
    model = Sequential([Linear(3), BatchNorm()], (4,), k.name)
    model.set_parameters({"0.w": np.full((4, 3), 1e30)})
    its = Trainer(model, SGD(0.1), batch_size=8, on_nonfinite="skip")
    before = everything(its)
    assert math.isfinite(its.step(X[:8], Y[:8]))
    assert (everything(its), its.skipped) == (before, 1)


def test_a_skipped_step_leaves_no_trace(k: Kernels) -> None:
    """Dropout's mask and Adam's correction go by the optimizer's steps, which a skipped one is none of."""
    one, other = trainer(k.name, "skip"), trainer(k.name, "skip")
    for its in (one, other):
        its.step(X[:8], Y[:8])
    before = everything(one)
    assert math.isnan(one.step(spoiled(), Y[:8]))
    assert everything(one) == before
    assert one.step(X[8:16], Y[8:16]) == other.step(X[8:16], Y[8:16])
    assert everything(one) == everything(other)
    assert (one.skipped, other.skipped) == (1, 0)


def test_a_fit_counts_what_it_skips_and_leaves_it_out_of_its_means(k: Kernels) -> None:
    x = X.copy()
    x[5] = np.nan
    history = trainer(k.name, "skip").fit(x, Y, epochs=3)
    assert history.skipped == [1, 1, 1]
    assert history.step == [4, 8, 12]
    assert all(map(math.isfinite, history.loss))
    nothing = trainer(k.name, "skip").fit(x * np.nan, Y, epochs=1)
    assert nothing.skipped == [5]
    assert math.isnan(nothing.loss[0])


def test_parameters_that_are_not_finite_cannot_be_skipped(k: Kernels) -> None:
    its = trainer(k.name, "skip")
    its.model.set_parameters({"4.b": np.array([0, np.nan, 0])})
    with pytest.raises(NonFiniteError, match=r"parameter '4\.b'"):
        its.step(X[:8], Y[:8])


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_adam_without_eps_leaves_the_gaps_between_parameters_alone(k: Kernels, on_nonfinite: str) -> None:
    """There 0 / √0 is NaN, which is no parameter's."""
    model = Sequential([Linear(3)], (4,), k.name)  # 12 and 3 elements, each in 16 places
    its = Trainer(model, Adam(0.01, eps=0.0, weight_decay=0.1), batch_size=8, on_nonfinite=on_nonfinite)
    its.step(X[:8], Y[:8])
    its.fit(X, Y, epochs=2)
    assert (its.steps, its.skipped) == (11, 0)
    for flat in (its.arrays()["parameters"], *its.state.values()):
        np.testing.assert_array_equal(flat[[*range(12, 16), *range(19, 32)]], 0)


def overflowing() -> tuple[Sequential, dict[str, Any]]:
    """A model of one weight, whose only step takes it beyond float32, with a loss that is finite."""
    model = Sequential([Linear(1, bias=False, init=Constant(1.0))], (1,), "numpy")
    return model, {"x": np.full((2, 1), 1e10, np.float32), "y": np.zeros((2, 1), np.float32), "epochs": 1}


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_a_last_step_that_overflows_ends_the_fit_and_keeps_what_was_written(tmp_path: Path, on_nonfinite: str) -> None:
    model, data = overflowing()
    its = Trainer(model, SGD(1e30), MeanSquaredError(), batch_size=2, on_nonfinite=on_nonfinite)
    with pytest.raises(NonFiniteError, match=r"training: a number has overflowed by step 1: '0\.w' is not finite"):
        its.fit(**data, checkpoints=Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model, data = overflowing()
    model.save(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    Trainer(model, SGD(1e30), MeanSquaredError(), batch_size=2, on_nonfinite="ignore").fit(**data)
    with pytest.raises(NonFiniteError, match=r"model: '0\.w' is not finite"):
        model.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == before


def test_ignore_goes_on(k: Kernels) -> None:
    its = trainer(k.name, "ignore")
    assert math.isnan(its.step(spoiled(), Y[:8]))
    assert its.steps == 1
    assert not is_finite(its.model.parameters()["0.w"])


def test_on_nonfinite_is_checked() -> None:
    with pytest.raises(ValueError, match="on_nonfinite is 'warn', expected one of raise, skip, ignore"):
        trainer("numpy", "warn")


@dataclass(frozen=True)
class Eager(Layer):
    """Subtracts its running mean after changing it, which no skipped step could take back."""

    def statistics(self, *x: Any) -> Any:
        return {"mean": Parameter((int(x[0][-1]),), Constant(1.0))}

    def lower(self, plan: Any, p: SimpleNamespace, *x: Any) -> Any:
        if not plan.training:
            return x[0], None
        mean = plan.like(p.mean, "batch_mean")
        plan.call("meannorm", x[0], p.mean, shapes.channels(x[0].shape, "Eager"), plan.like(x[0], "centred"), mean)
        plan.call("ema_update", p.mean, mean, 0.5)
        y = plan.like(x[0])
        plan.call("meannorm_inference", x[0], mean, p.mean, y)
        plan.call("ema_update", p.mean, mean, 0.5)
        return y, lambda dy: dy


def test_statistics_that_are_used_after_their_change_stay_and_cannot_be_skipped() -> None:
    model = Sequential([Linear(3), BatchNorm(), Eager()], (4,), "numpy")
    plan = Trainer(model, SGD(0.1), batch_size=8).plan
    computing = [step.name for step in plan.steps[: plan.updates]]
    assert computing.count("ema_update") == 1
    assert [step.name for step in plan.steps[plan.updates :]] == ["ema_update", "ema_update", "ema_update", "sgd"]
    with pytest.raises(ValueError, match=r"on_nonfinite is 'skip', but 2\.mean must change before"):
        Trainer(model, SGD(0.1), batch_size=8, on_nonfinite="skip")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_finite(dtype: type) -> None:
    largest = np.finfo(dtype).max
    assert is_finite(np.full(100, largest, dtype))  # whose sum is not
    assert is_finite(np.zeros(0, dtype))
    for value in (np.nan, np.inf, -np.inf):
        array = np.full(100, largest, dtype)
        array[[17, 18]] = value, -value
        assert not is_finite(array)
