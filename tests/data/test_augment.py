"""`data.Augment`: the distortions it says, the same for the same sample and epoch, and its place in training."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
import models
from models import SGD, Trainer
from twinkernels import recipes, runs

SOME = data.Augment(rotation=15, translation=2, scale=0.1, shear=10, elastic_alpha=20)


@pytest.fixture(scope="module")
def digits() -> data.Split:
    from data import strokes

    images, labels = strokes.generate(300, seed=0)
    return data.Split(images[..., None], labels)


@pytest.fixture(params=kernels.names())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def drawn(**numbers: float) -> np.ndarray:
    """Random numbers (1, 7) as `_matrix` takes them, each 0 but for those named."""
    names = ("rotation", "shear", "scale", "flip_vertical", "flip_horizontal", "rows", "columns")
    return np.array([[numbers.get(name, 0.0) for name in names]])


# What it does --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_without_settings_nothing_changes(backend: str, digits: data.Split, dtype: type) -> None:
    images = digits.images.astype(dtype)
    result = data.Augment()(images, np.arange(300), backend=backend)
    assert result.dtype == dtype
    assert not np.shares_memory(result, images)
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("side", [9, 12])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_is_counterclockwise(backend: str, side: int, quarters: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, side, side, 2))
    matrix = data.Augment(rotation=90.0 * quarters)._matrix(drawn(rotation=1.0))
    rotated = kernels.get(backend).warp(x, matrix)
    np.testing.assert_allclose(rotated, np.rot90(x, quarters, axes=(1, 2)), rtol=0, atol=1e-12)


def spot(row: float, column: float) -> np.ndarray:
    """An image of a small round spot, so many pixels from the centre."""
    h, w = np.indices((41, 51))
    return np.exp(-((h - 20 - row) ** 2 + (w - 25 - column) ** 2) / 4)[None, :, :, None]


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    h, w = np.indices(image.shape[1:3])
    mass = image[0, :, :, 0] / image.sum()
    return float((h * mass).sum()) - 20, float((w * mass).sum()) - 25


@pytest.mark.parametrize(
    ("augment", "numbers", "expected"),
    [
        # A spot 6 pixels above the centre and 4 to its right.
        (data.Augment(translation=5), {"rows": 0.5, "columns": -1}, (-6 + 2.5, 4 - 5)),
        (data.Augment(scale=0.5), {"scale": 1}, (-9, 6)),
        (data.Augment(scale=(0.5, 2)), {"scale": -1}, (-3, 2)),
        (data.Augment(scale=(0.5, 1)), {"scale": 0}, (-4.5, 3)),
        (data.Augment(rotation=180), {"rotation": 0.5}, (-4, -6)),
        (data.Augment(rotation=30), {"rotation": 1}, (-6 * math.cos(math.pi / 6) - 2, 4 * math.cos(math.pi / 6) - 3)),
        (data.Augment(shear=45), {"shear": 1}, (-6, 4 - 6)),
        (data.Augment(shear=45), {"shear": -1}, (-6, 4 + 6)),
        (data.Augment(flip_horizontal=True), {"flip_horizontal": -1, "flip_vertical": -1}, (-6, -4)),
        (data.Augment(flip_vertical=True), {"flip_horizontal": -1, "flip_vertical": -1}, (6, 4)),
        # q = z R K F p + t: flipped to (6, 4), slanted to (6, 10), turned to (-10, 6), then 1.25 times as far, moved
        (
            data.Augment(rotation=90, translation=3, scale=(0.5, 1.5), shear=45, flip_vertical=True),
            {"rotation": 1, "shear": 1, "scale": 0.5, "flip_vertical": -1, "rows": 1, "columns": -1 / 3},
            (-12.5 + 3, 7.5 - 1),
        ),
    ],
)
def test_a_spot_goes_where_the_formula_says(
    backend: str, augment: data.Augment, numbers: dict[str, float], expected: tuple[float, float]
) -> None:
    moved = kernels.get(backend).warp(spot(-6, 4), augment._matrix(drawn(**numbers)))
    assert centre_of_mass(moved) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("augment", "of", "low", "high"),
    [
        (data.Augment(rotation=20), lambda m: np.degrees(np.arctan2(m[:, 0, 1], m[:, 0, 0])), -20, 20),
        (data.Augment(translation=3), lambda m: m[:, 0, 2], -3, 3),
        (data.Augment(translation=3), lambda m: m[:, 1, 2], -3, 3),
        (data.Augment(scale=0.25), lambda m: 1 / m[:, 0, 0], 0.75, 1.25),
        (data.Augment(scale=(0.9, 1.5)), lambda m: 1 / m[:, 1, 1], 0.9, 1.5),
        (data.Augment(shear=30), lambda m: np.degrees(np.arctan(m[:, 1, 0])), -30, 30),
    ],
)
def test_ranges_are_filled_evenly(augment: data.Augment, of: Any, low: float, high: float) -> None:
    n = 4000
    values = of(augment._matrix(kernels.get("numpy").uniform(np.arange(n), (7,), dtype=np.float64)))
    assert values.min() >= low - 1e-9
    assert values.max() <= high + 1e-9
    counts = np.histogram(values, 8, (low, high))[0]
    assert np.abs(counts - n / 8).max() < 5 * math.sqrt(n / 8)


def test_flips_are_exact_and_fall_on_half_of_the_images(backend: str, digits: data.Split) -> None:
    x = digits.images[:, 2:]  # 26 by 28
    counts = {}
    for name, flipped in (("flip_horizontal", x[:, :, ::-1]), ("flip_vertical", x[:, ::-1])):
        y = data.Augment(**{name: True})(x, np.arange(300), backend=backend)
        same, other = (y == x).all(axis=(1, 2, 3)), (y == flipped).all(axis=(1, 2, 3))
        assert (same | other).all()
        counts[name] = other
        assert abs(other.sum() - 150) < 5 * math.sqrt(75)
    assert 40 < (counts["flip_horizontal"] != counts["flip_vertical"]).sum() < 260


@pytest.mark.parametrize(("alpha", "sigma"), [(34.0, 4.0), (8.0, 1.5)])
def test_displacements_have_the_size_that_is_stated(backend: str, alpha: float, sigma: float) -> None:
    k = kernels.get(backend)
    weights = data.augment.gaussian(sigma)
    assert 2 * weights.sum() - weights[0] == pytest.approx(1, rel=1e-15)
    field = alpha * k.smooth2d(k.uniform(np.arange(400), (31, 31, 2), dtype=np.float64), weights)
    middle = field[:, 15, 15]
    expected = alpha / (2 * sigma * math.sqrt(3 * math.pi))
    assert middle.std() == pytest.approx(expected, rel=0.1)
    assert abs(middle.mean()) < 5 * expected / math.sqrt(800)
    # Neighbours move together, by the autocorrelation exp(−d² / 4σ²) of a Gaussian; rows and columns apart.
    near = np.mean(field[:, 15, 15] * field[:, 15, 17]) / expected**2
    assert near == pytest.approx(math.exp(-1 / sigma**2), abs=0.15)
    assert abs(np.mean(middle[:, 0] * middle[:, 1])) < 5 * expected**2 / math.sqrt(400)


def test_what_is_elastic_stays_near(backend: str) -> None:
    x = np.indices((28, 28)).transpose(1, 2, 0)[None].astype(np.float64)  # each pixel holds its own coordinates
    y = data.Augment(elastic_alpha=34)(np.repeat(x, 50, axis=0), np.arange(50), backend=backend)
    moved = (y - x)[:, 8:-8, 8:-8]
    assert 0.5 < np.abs(moved).mean() < 2
    assert np.abs(moved).max() < 8


def test_fill_is_the_black_of_normalised_images(backend: str, digits: data.Split) -> None:
    x = digits.images[:20].astype(np.float64)
    shifted = replace(SOME, fill=-3.0)(x - 3, np.arange(20), backend=backend)
    np.testing.assert_allclose(shifted, SOME(x, np.arange(20), backend=backend) - 3, rtol=0, atol=1e-10)


def test_other_shapes_and_channels(backend: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 12, 19, 3), np.uint8)
    y = SOME(x, np.arange(4), backend=backend)
    assert y.shape == x.shape
    for c in range(3):
        np.testing.assert_array_equal(SOME(x[..., c : c + 1], np.arange(4), backend=backend)[..., 0], y[..., c])


# What it depends on --------------------------------------------------------------------------------------------


def test_a_sample_can_be_made_again_alone(backend: str, digits: data.Split) -> None:
    indices = np.random.default_rng(0).permutation(300)
    whole = SOME(digits.images[indices], indices, seed=7, epoch=3, backend=backend)
    for size in (1, 17, 128):
        part = indices[40 : 40 + size]
        again = SOME(digits.images[part], part, seed=7, epoch=3, backend=backend)
        np.testing.assert_array_equal(again, whole[40 : 40 + size])


def test_threads_change_nothing(digits: data.Split) -> None:
    before = kernels.get_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            results.append(SOME(digits.images.astype(np.float32), np.arange(300)).tobytes())
    finally:
        kernels.set_threads(before)
    assert results[0] == results[1] == results[2]


def test_epochs_seeds_and_samples_differ(backend: str, digits: data.Split) -> None:
    one = np.repeat(digits.images[:1], 40, axis=0)
    calls = [SOME(one, np.arange(40), seed, epoch, backend) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    every = np.concatenate(calls).reshape(120, -1)
    assert len(np.unique(every, axis=0)) == 120


def test_no_two_epochs_share_random_numbers(digits: data.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    uniform = kernels.Kernels.uniform

    def watched(k: kernels.Kernels, indices: Any, shape: Any, seed: int, step: int, dtype: Any) -> Any:
        steps.append(step)
        return uniform(k, indices, shape, seed, step, dtype)

    monkeypatch.setattr(kernels.Kernels, "uniform", watched)
    for epoch in range(4):
        SOME(digits.images[:2], np.arange(2), epoch=epoch, backend="numpy")
    assert len(steps) == len(set(steps)) == 8


def test_backends_agree(digits: data.Split) -> None:
    indices = np.arange(300)
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 2e-3), (np.uint8, 1)):
        x = digits.images.astype(dtype)
        one, other = (SOME(x, indices, 1, 2, name).astype(np.float64) for name in kernels.names())
        assert np.abs(one - other).max() <= tolerance
        assert (one != x).any()
    assert (one != other).mean() < 1e-3  # where rounding to a whole grey level went two ways


# Training ------------------------------------------------------------------------------------------------------


def trainer(backend: str) -> Trainer:
    return Trainer(models.build("mlp-512", backend, seed=5), SGD(0.05), batch_size=64)


def test_training_sees_what_can_be_made_again(backend: str, digits: data.Split) -> None:
    fitted, stepped = trainer(backend), trainer(backend)
    fitted.fit(digits.images, digits.labels, epochs=2, augment=SOME)
    stepped.model.normalisation = data.statistics(digits)
    for epoch in range(2):
        order = data.epoch_order(300, 5, epoch)
        for batch in (order[at : at + 64] for at in range(0, 300, 64)):
            stepped.step(SOME(digits.images[batch], batch, 5, epoch, backend), digits.labels[batch])
    for name, value in fitted.model.parameters().items():
        assert value.tobytes() == stepped.model.parameters()[name].tobytes(), name


def test_an_augmentation_that_does_nothing_trains_alike(backend: str, digits: data.Split) -> None:
    plain, same, distorted = trainer(backend), trainer(backend), trainer(backend)
    plain.fit(*digits, epochs=1)
    same.fit(*digits, epochs=1, augment=data.Augment())
    distorted.fit(*digits, epochs=1, augment=SOME)
    weights = [t.model.parameters()["1.w"].tobytes() for t in (plain, same, distorted)]
    assert weights[0] == weights[1] != weights[2]


def test_a_recipe_has_an_augmentation(digits: data.Split, tmp_path: Path) -> None:
    recipe = replace(recipes.RECIPES["mlp-512"], augment=SOME)
    dataset = data.Dataset(digits, digits)
    with_, without = (
        runs.run(r, dataset, backend="numpy", epochs=1, out=tmp_path / name)
        for name, r in (("with", recipe), ("without", recipes.RECIPES["mlp-512"]))
    )
    assert with_.history.loss != without.history.loss
    config = json.loads((tmp_path / "with/config.json").read_text())
    assert config["augment"]["rotation"] == 15
    assert json.loads((tmp_path / "without/config.json").read_text())["augment"] is None


# Errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": -1}, "Augment: rotation is -1, expected a finite number >= 0"),
        ({"rotation": "10"}, "Augment: rotation is '10'"),
        ({"translation": math.nan}, "Augment: translation is nan"),
        ({"scale": 1.0}, "Augment: scale is 1.0, expected a finite number >= 0 and < 1"),
        ({"scale": -0.1}, "Augment: scale is -0.1"),
        ({"scale": (1.2, 0.8)}, "Augment: scale[1] is 0.8, expected a finite number >= 1.2"),
        ({"scale": (0.0, 1.0)}, "Augment: scale[0] is 0.0, expected a finite number > 0"),
        ({"scale": (1.0,)}, "Augment: scale is (1.0,), expected a fraction or a pair"),
        ({"shear": 90}, "Augment: shear is 90"),
        ({"elastic_alpha": -3}, "Augment: elastic_alpha is -3"),
        ({"elastic_sigma": 0}, "Augment: elastic_sigma is 0, expected a finite number > 0"),
        ({"flip_horizontal": 1}, "Augment: flip_horizontal is 1, expected True or False"),
        ({"flip_vertical": None}, "Augment: flip_vertical is None"),
        ({"fill": math.inf}, "Augment: fill is inf"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        data.Augment(**settings)


X = np.zeros((3, 5, 6, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SOME(X.tolist(), np.arange(3)), TypeError, "Augment: images is a list, expected an array of uint8"),
        (lambda: SOME(X.astype(int), np.arange(3)), TypeError, "Augment: images is of dtype int64"),
        (lambda: SOME(X[0], np.arange(3)), ValueError, "Augment: images has shape (5, 6, 1), expected 4 axes"),
        (lambda: SOME(X[:0], np.arange(0)), ValueError, "Augment: images has an empty batch"),
        (lambda: SOME(X, np.arange(2)), ValueError, "Augment: indices has shape (2,), expected (3,)"),
        (lambda: SOME(X, [0, 1, 2]), TypeError, "Augment: indices is a list"),
        (lambda: SOME(X, np.arange(3) - 1), ValueError, "Augment: indices[0] is -1"),
        (lambda: SOME(X, np.arange(3), seed=-1), ValueError, "Augment: seed is -1"),
        (lambda: SOME(X, np.arange(3), epoch=1.5), ValueError, "Augment: epoch is 1.5"),
        (lambda: SOME(X, np.arange(3), backend="cuda"), ValueError, "unknown backend 'cuda'"),
        (
            lambda: replace(SOME, fill=-0.4)(X.astype(np.uint8), np.arange(3)),
            ValueError,
            "Augment: fill is -0.4, expected 0 to 255 for uint8 images",
        ),
        (
            lambda: trainer("numpy").fit(np.zeros((3, 28, 28, 1), np.uint8), np.arange(3), epochs=1, augment=10),
            TypeError,
            "Trainer.fit: augment is 10, expected a data.Augment",
        ),
    ],
)
def test_calls_are_checked(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()
