"""The promises of docs/determinism.md: the same bits where they are promised, and budgets where they are not."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import data
import kernels
import models
from benchmarks import budgets
from kernels import Kernels
from kernels.accuracy import ULPS
from models import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Constant,
    Conv2d,
    Dropout,
    EarlyStopping,
    Flatten,
    Linear,
    MaxPool2d,
    MeanNorm,
    MeanSquaredError,
    OneCycle,
    ReLU,
    Sequential,
    Trainer,
)
from twinkernels import runs
from twinkernels.bench.draw import Draw

from ..support.budgets import terms
from ..support.kill import digits
from ..support.processes import run

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (210, 12, 12, 1), dtype=np.uint8), RNG.integers(0, 10, 210)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


def trained(backend: str, dtype: Any = np.float32) -> bytes:
    """All that a training leaves, on images whose last batch is smaller."""
    layers = [Conv2d(8, 3), BatchNorm(), ReLU(), MaxPool2d(2), Flatten(), Dropout(0.3), Linear(32), MeanNorm(), ReLU()]
    model = Sequential([*layers, Linear(10)], (12, 12, 1), backend, 4, dtype)
    trainer = Trainer(model, Adam(1e-2), batch_size=64, schedule=OneCycle())
    history = trainer.fit(X, Y, epochs=3, validation=(X[:50], Y[:50]), callbacks=[EarlyStopping(patience=9)])
    arrays = model.parameters() | model.statistics() | trainer.state | {"predicted": model.predict(X)}
    numbers = [history.loss, history.accuracy, history.validation_loss, history.validation_accuracy]
    return b"".join(array.tobytes() for array in arrays.values()) + np.array(numbers).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_seed_gives_the_same_bits(k: Kernels, dtype: Any) -> None:
    kernels.set_threads(2)
    first = trained(k.name, dtype)
    unrelated = trained("numba" if k.name == "numpy" else "numpy", dtype)
    assert trained(k.name, dtype) == first
    assert unrelated != first


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numba_gives_the_same_bits_at_any_number_of_threads(dtype: Any) -> None:
    results = set()
    for n in (1, 2, 3, 5):
        kernels.set_threads(n)
        results.add(trained("numba", dtype))
    assert len(results) == 1


@functools.cache
def digests(sizes: str, hash_seed: int) -> dict[str, str]:
    """What a process of its own comes to on each backend."""
    program = f"""
import hashlib, kernels, numpy as np
kernels.set_threads(2)
from tests.house.test_determinism import trained
for backend in kernels.names():
    kept = [np.empty(n) for n in {sizes}]
    print(backend, hashlib.sha256(trained(backend)).hexdigest())
"""
    return dict(line.split() for line in run(program, PYTHONHASHSEED=str(hash_seed)))


def test_every_process_gives_the_same_bits(k: Kernels) -> None:
    """Whatever it did before, at whatever addresses, with whatever hashes."""
    assert digests("[]", 0)[k.name] == digests("[1001, 70001]", 1)[k.name]


class Masks(Callback):
    """Keeps what dropout let through, where its result is the model's output."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        output = trainer.executor.array(trainer.plan.outputs["output"], 32)
        self.seen.append((output != 0).tobytes())


def test_backend_and_threads_change_no_mask_shuffle_or_starting_weight() -> None:
    results = set()
    for backend in kernels.names():
        for n in (1, 3):
            kernels.set_threads(n)
            weights = models.build("cnn-bn", backend, seed=4).parameters()
            order = data.epoch_order(210, 4, 1).tobytes()
            for batch_size in (64, 32):  # a mask's first rows are the same in any batch
                model = Sequential([Linear(50, init=Constant(1.0)), Dropout(0.5)], (3,), backend, 4)
                trainer = Trainer(model, SGD(1e-30), MeanSquaredError(), batch_size)
                masks = Masks()
                trainer.fit(np.ones((128, 3)), np.ones((128, 50)), iterations=2, callbacks=[masks])
                assert masks.seen[0] != masks.seen[1], "a step has a mask of its own"
                results.add((b"".join(view.tobytes() for view in weights.values()), order, *masks.seen))
    assert len(results) == 1


def test_a_run_sets_blas_to_the_threads_that_it_records(tmp_path: Path) -> None:
    kernels.set_threads(2)
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    dataset = digits(60, 20)
    runs.run("mlp-512", dataset, backend="numpy", iterations=1, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["threads"] == 2
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert set(pools) == {2}


class Repeated(Draw):
    """The same few numbers over and over, where shapes alone count: to draw all of a large case takes seconds."""

    def normal(self, *shape: int, mean: float | np.ndarray = 0.0, std: float | np.ndarray = 1.0) -> np.ndarray:
        values = mean + std * np.resize(self.rng.standard_normal(1009), shape)
        return np.asarray(values, np.float32).astype(self.dtype)


def test_every_kernel_has_a_stated_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's table is made of what is kept; `test_pages` holds it to that."""
    monkeypatch.setattr("benchmarks.suite.cases.Draw", Repeated)
    _, kept = budgets.read()
    assert [(seen.kernel, seen.dtype) for seen in kept] == [
        (k, dtype) for k in kernels.kernel_names() for dtype in ULPS
    ]
    for seen in kept:
        assert seen.terms in (terms(seen.kernel, seen.dtype), None), seen


def test_no_kernel_was_seen_beyond_its_budget() -> None:
    for seen in budgets.read()[1]:
        assert 0.0 <= seen.share <= 1.0, seen
