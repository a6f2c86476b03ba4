"""Training steps and inference under pytest-benchmark: a group a network and batch, the backends side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
import models

CASES = [(network, batch) for network in models.NETWORKS for batch in (1, 64)]
IDS = [f"{network}-b{batch}" for network, batch in CASES]


def images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 28, 28, 1), np.float32), rng.integers(0, 10, batch)


def report(benchmark: Any, batch: int, flops: int) -> None:
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info |= {
            "threads": kernels.get_threads(),
            "images/s": batch / seconds,
            "GFLOP/s": flops / seconds / 1e9,
        }


@pytest.mark.parametrize("backend", kernels.names())
@pytest.mark.parametrize(("network", "batch"), CASES, ids=IDS)
def test_training_step(benchmark: Any, network: str, batch: int, backend: str) -> None:
    benchmark.group = f"training step {network} b{batch}"
    x, y = images(batch)
    # So small a rate leaves the weights, and with them the work, as they are.
    trainer = models.Trainer(models.build(network, backend), models.SGD(1e-9), batch_size=batch)
    expected = models.Trainer(models.build(network, "numpy"), models.SGD(1e-9), batch_size=batch).step(x, y)
    assert trainer.step(x, y) == pytest.approx(expected, rel=1e-5)
    benchmark(trainer.step, x, y)
    report(benchmark, batch, trainer.plan.flops())


@pytest.mark.parametrize("backend", kernels.names())
@pytest.mark.parametrize(("network", "batch"), CASES, ids=IDS)
def test_inference(benchmark: Any, network: str, batch: int, backend: str) -> None:
    benchmark.group = f"inference {network} b{batch}"
    x, _ = images(batch)
    model = models.build(network, backend)
    expected = models.build(network, "numpy").predict(x)
    assert np.abs(model.predict(x) - expected).max() <= 1e-5 * np.abs(expected).max()
    benchmark(model.predict, x)
    report(benchmark, batch, model.plan.flops(batch))
