"""The networks: their sizes, that each learns, and the mistakes that their models once made."""

from __future__ import annotations

import numpy as np
import pytest

import models
from kernels import Kernels
from models import SGD, Adam, AdamW, Optimizer, RMSProp, Trainer

SIZES = {
    "mlp-meannorm": 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10,
    "mlp-nobias": 784 * 128 + 128 * 64 + 64 * 10,
    "mlp-512": 784 * 512 + 512 + 512 * 10 + 10,
    "mlp-rmsprop": 784 * 256 + 256 + 256 * 10 + 10,
    "cnn-bn": 25 * 16 + 16 + 32 + 25 * 16 * 32 + 32 + 64 + 512 * 10 + 10,
    "cnn-record": (25 + 3) * 32 + (9 * 32 + 3 + 9 * 48 + 3) * 48 + (9 * 48 + 3 + 9 * 96 + 3) * 96 + 864 * 10 + 10,
}
OPTIMIZERS: dict[str, Optimizer] = {
    "mlp-meannorm": SGD(0.1),
    "mlp-nobias": SGD(0.1),
    "mlp-512": RMSProp(1e-3),
    "mlp-rmsprop": RMSProp(1e-3),
    "cnn-bn": Adam(1e-2),
    "cnn-record": AdamW(5e-3),
}


def test_the_zoo_is_complete() -> None:
    assert set(models.NETWORKS) == set(SIZES)
    with pytest.raises(ValueError, match="unknown network 'resnet'; expected one of mlp-meannorm, mlp-nobias"):
        models.build("resnet")
    with pytest.raises(ValueError, match="unknown backend 'cuda'"):
        models.build("cnn-bn", backend="cuda")


@pytest.mark.parametrize("name", SIZES)
def test_a_network_has_its_size(name: str) -> None:
    model = models.build(name)
    assert model.input_shape == (28, 28, 1)
    assert model.output_shape == ("N", 10)
    assert sum(view.size for view in model.parameters().values()) == SIZES[name]
    assert model.summary().splitlines()[-1].split()[:2] == ["total", f"{SIZES[name]:,}"]


@pytest.mark.parametrize("name", SIZES)
def test_a_network_learns_a_small_batch(k: Kernels, name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 32)
    model = models.build(name, k.name, seed=1)
    trainer = Trainer(model, OPTIMIZERS[name], batch_size=32)
    losses = [trainer.step(x, y) for _ in range(20)]
    assert 1.5 < losses[0] < 6.0
    assert losses[-1] < losses[0] / 4
    assert model.evaluate(x, y).accuracy > 0.8


def test_networks_differ_by_seed_alone() -> None:
    a, b, c = (models.build("mlp-nobias", seed=seed).parameters()["1.w"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_linear_units_without_bias_send_zero_to_zero(k: Kernels) -> None:
    assert not models.build("mlp-nobias", k.name).predict(np.zeros((1, 28, 28, 1), np.float32)).any()


def test_the_shift_of_mean_only_norm_is_trained(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    model = models.build("mlp-meannorm", k.name)
    trainer = Trainer(model, SGD(0.1), batch_size=16)
    trainer.step(rng.standard_normal((16, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 16))
    assert trainer.gradients()["2.beta"].any()
    np.testing.assert_allclose(model.parameters()["2.beta"], -0.1 * trainer.gradients()["2.beta"], rtol=1e-5, atol=1e-8)
    assert model.statistics()["2.running_mean"].any()


@pytest.mark.parametrize("name", ["mlp-meannorm", "cnn-bn"])
def test_training_differs_from_inference_by_the_statistics_alone(k: Kernels, name: str) -> None:
    """With momentum 1 the running mean is the last batch's; then both differ by the unbiased variance only."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 28, 28, 1))
    layers = [type(layer)(momentum=1.0) if hasattr(layer, "momentum") else layer for layer in models.NETWORKS[name]()]
    model = models.Sequential(layers, (28, 28, 1), k.name, dtype=np.float64)
    trainer = Trainer(model, SGD(1e-30), batch_size=40)
    y = rng.integers(0, 10, 40)
    loss = trainer.step(x, y)
    # of 40 · 64 values in the smaller map the two variances differ by 1 in 2,560
    assert model.evaluate(x, y).loss == pytest.approx(loss, rel=1e-3 if name == "cnn-bn" else 1e-12)
