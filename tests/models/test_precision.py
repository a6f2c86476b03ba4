"""bfloat16, opt in: what is rounded and what is not, alike on both backends, and where it is kept and where not."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
import models
from kernels import Kernels
from models import (
    SGD,
    Adam,
    BatchNorm,
    Checkpoints,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Sequential,
    Trainer,
)

bfloat16 = kernels.get("numpy").round_to_bfloat16
CONVOLUTIONS = [Conv2d(3, 3), BatchNorm(), ReLU(), MaxPool2d(2), ConvTranspose2d(4, 2), ReLU(), Flatten(), Linear(3)]


def convolutional(backend: str, precision: str | None = None) -> Sequential:
    return Sequential(CONVOLUTIONS, (8, 8, 2), backend, precision=precision)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_definition_in_full_rounds_what_is_multiplied_and_nothing_else() -> None:
    model = Sequential([Linear(6), ReLU(), Linear(4)], (5,), "numpy", precision="bfloat16")
    model.set_parameters({"0.b": normal(6), "2.b": normal(4)})
    x, target = normal(8, 5), normal(8, 4)
    p = {name: view.copy() for name, view in model.parameters().items()}
    hidden = bfloat16(x) @ bfloat16(p["0.w"]) + p["0.b"]
    y = bfloat16(np.maximum(hidden, 0)) @ bfloat16(p["2.w"]) + p["2.b"]
    np.testing.assert_array_equal(model.predict(x), y)

    trainer = Trainer(model, SGD(0.5), MeanSquaredError(), batch_size=8)
    loss = trainer.step(x, target)
    assert loss == pytest.approx(np.mean((y - target) ** 2), rel=1e-6)
    dy = 2 * (y - target) / y.size
    dhidden = np.where(hidden > 0, bfloat16(dy) @ bfloat16(p["2.w"]).T, 0).astype(np.float32)
    gradients = {
        "0.w": bfloat16(x).T @ bfloat16(dhidden),
        "0.b": dhidden.sum(0),
        "2.w": bfloat16(np.maximum(hidden, 0)).T @ bfloat16(dy),
        "2.b": dy.sum(0),
    }
    for name, gradient in gradients.items():
        np.testing.assert_allclose(trainer.gradients()[name], gradient, rtol=1e-6, atol=1e-7, err_msg=name)
        np.testing.assert_array_equal(model.parameters()[name], p[name] - np.float32(0.5) * trainer.gradients()[name])
    # What tells this from sums of rounded gradients, and from parameters that are rounded themselves.
    assert np.abs(bfloat16(dy).sum(0) - dy.sum(0)).max() > 1e-4
    assert any((bfloat16(np.ascontiguousarray(view)) != view).any() for view in model.parameters().values())


def whole(rng: np.random.Generator, most: int, *shape: int) -> np.ndarray:
    return rng.integers(-most, most + 1, shape).astype(np.float32)


@pytest.mark.parametrize("layers", [CONVOLUTIONS[:1] + CONVOLUTIONS[2:], CONVOLUTIONS[2:]], ids=["conv", "transposed"])
def test_whole_numbers_give_the_same_bits_on_both_backends(layers: list[Any]) -> None:
    """Of more than eight bits, so that rounding shows, and few enough for sums in float32 to be exact."""
    rng = np.random.default_rng(0)
    model = Sequential(layers, (8, 8, 2), "numpy", precision="bfloat16")
    most = {name: 3 if name.startswith("0") else 1 for name in model.parameters()}
    model.set_parameters({name: whole(rng, most[name], *view.shape) for name, view in model.parameters().items()})
    x, target = whole(rng, 300, 16, 8, 8, 2), whole(rng, 9, 16, 3)
    found = []
    for twin in (model, model.to("numba"), model.to("numpy", precision="float32")):
        trainer = Trainer(twin, SGD(1e-9), MeanSquaredError(), batch_size=16)
        answer = twin.predict(x)
        trainer.step(x, target)
        dy = trainer.gradients()[f"{len(layers) - 1}.b"]
        found.append((twin.precision, answer, dy))
    (_, first, dy), (precision, second, other_dy), (_, exact, _) = found
    assert precision == "bfloat16"
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(dy, other_dy, rtol=1e-6)
    assert (first != exact).any()


def test_the_backends_agree_as_closely_as_roundings_that_flip_allow() -> None:
    """What lies next to the middle of two numbers may be rounded to either: a part in 2⁸ of one term of a sum."""
    x, y = normal(32, 8, 8, 2), np.arange(32) % 3
    gradients = []
    for backend in kernels.names():
        trainer = Trainer(convolutional(backend), Adam(1e-3), batch_size=32, precision="bfloat16")
        trainer.step(x, y)
        gradients.append(trainer.gradients())
    for name, definition in gradients[0].items():
        scale = max(np.abs(definition).max(), 1e-3)
        assert np.abs(gradients[1][name] - definition).max() < 2.0**-8 * scale, name


def test_weights_are_rounded_once_and_again_when_they_change(k: Kernels) -> None:
    model = convolutional(k.name, "bfloat16")
    assert [str(step) for step in model.plan.constants] == [
        f"{node}.w.bfloat16 = round_to_bfloat16({node}.w)" for node in (0, 4, 7)
    ]
    x = normal(3, 8, 8, 2)
    before = model.predict(x)
    model.set_parameters({name: 2 * view for name, view in model.parameters().items() if name.startswith("7")})
    np.testing.assert_allclose(model.predict(x), 2 * before, rtol=1e-6)


def test_a_model_says_in_which_precision_it_runs_and_copies_do_too(tmp_path: Path) -> None:
    model = convolutional("numpy").to("numpy", precision="bfloat16")
    assert repr(model) == "<Sequential of 8 layers on numpy, bfloat16>"
    assert (model.dtype, model.precision) == (np.float32, "bfloat16")
    for twin in (
        model.to("numba"),
        model.to("numpy", np.float32),
        model.until("3"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        Trainer(model, Adam(1e-3), average=0.5).averaged(),
    ):
        assert twin.precision == "bfloat16"
        assert any("bfloat16" in value.name for value in twin.plan.values())
    assert model.to("numpy", np.float64).precision == "float64"
    assert model.to("numpy", precision="float32").plan.constants == ()
    assert models.build("mlp-512", "numpy", precision="bfloat16").precision == "bfloat16"


def test_a_file_keeps_float32_and_no_precision(tmp_path: Path) -> None:
    model = convolutional("numpy", "bfloat16")
    files = [tmp_path / "rounded.safetensors", tmp_path / "plain.safetensors", tmp_path / "m.onnx"]
    model.save(files[0])
    model.to("numpy", precision="float32").save(files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    model.to("numpy").save(files[2])
    x = normal(2, 8, 8, 2)
    assert models.load(files[0], "numpy").precision == "float32"
    for file in (files[0], files[2]):
        loaded = models.load(file, "numpy", precision="bfloat16")
        assert loaded.precision == "bfloat16"
        np.testing.assert_allclose(loaded.predict(x), model.predict(x), rtol=1e-5)


def test_a_trainer_takes_the_models_precision_unless_told() -> None:
    model = convolutional("numpy")
    for own, told, expected in (
        (None, None, "float32"),
        (None, "bfloat16", "bfloat16"),
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
    ):
        trainer = Trainer(model.to("numpy", precision=own), Adam(1e-3), precision=told)
        assert trainer.precision == expected
        assert ("bfloat16" in str(trainer.plan)) == (expected == "bfloat16")
        assert pickle.loads(pickle.dumps(trainer)).precision == expected
    assert "in batches of 128 in bfloat16" in repr(Trainer(model, Adam(1e-3), precision="bfloat16"))
    with pytest.raises(AttributeError, match="Trainer: precision is fixed"):
        Trainer(model, Adam(1e-3)).precision = "bfloat16"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.to("numpy", precision="half"), "model: precision is 'half', expected one of float32, float64, b"),
        (lambda m: m.to("numpy", np.float64, "bfloat16"), "model: precision is 'bfloat16' and dtype is float64, exp"),
        (lambda m: m.to("numpy", precision="float64"), "model: precision is 'float64' and dtype is float32, expected"),
        (
            lambda m: Trainer(m.to("numpy", np.float64), SGD(1), precision="bfloat16"),
            "Trainer: precision is 'bfloat16'",
        ),
        (
            lambda m: models.load(__file__, precision=1),
            "load: precision is 1, expected one of float32, float64, bfloat",
        ),
        (
            lambda m: models.load(__file__, into=m, precision="bfloat16"),
            "load: precision is 'bfloat16', and into runs in",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(convolutional("numpy"))
    assert "\n" not in str(caught.value)


def test_a_fit_is_resumed_in_the_precision_in_which_it_began(tmp_path: Path) -> None:
    x, y = normal(20, 4), np.arange(20) % 3

    def fit(folder: Path, resume: bool, **own: Any) -> Trainer:
        trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), Adam(0.1), batch_size=8, **own)
        trainer.fit(x, y, iterations=6, checkpoints=Checkpoints(folder, every_steps=2), resume=resume)
        return trainer

    whole = fit(tmp_path / "a", False, precision="bfloat16")
    for file in Checkpoints(tmp_path / "a").files()[:-1]:
        file.unlink()
    with pytest.raises(ValueError, match='precision was "bfloat16", is "float32" now'):
        fit(tmp_path / "a", True)
    again = fit(tmp_path / "a", True, precision="bfloat16")
    for name, view in whole.model.parameters().items():
        np.testing.assert_array_equal(again.model.parameters()[name], view)


@pytest.mark.parametrize("sync_batchnorm", [False, True])
def test_shards_round_as_whole_batches_do(sync_batchnorm: bool) -> None:
    x, y = normal(24, 8, 8, 2), np.arange(24) % 3
    given: dict[str, Any] = {"batch_size": 24, "precision": "bfloat16"}
    layers = [Conv2d(3, 3, bias=False), *([BatchNorm()] if sync_batchnorm else []), ReLU(), Flatten(), Linear(3)]
    whole = Trainer(Sequential(layers, (8, 8, 2), "numpy"), SGD(0.1), **given)
    cut = Trainer(Sequential(layers, (8, 8, 2), "numpy"), SGD(0.1), shards=3, sync_batchnorm=sync_batchnorm, **given)
    assert cut.step(x, y) == pytest.approx(whole.step(x, y), rel=1e-6)
    for name, gradient in whole.gradients().items():
        np.testing.assert_allclose(cut.gradients()[name], gradient, atol=2.0**-8 * np.abs(gradient).max(), err_msg=name)
