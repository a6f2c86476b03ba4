"""Batches that are no whole ones, and what a normalisation makes of a single sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from models import (
    SGD,
    BatchNorm,
    Callback,
    Checkpoints,
    Conv2d,
    Flatten,
    Linear,
    MeanNorm,
    ReLU,
    Sequential,
    Trainer,
)

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((101, 4)).astype(np.float32), RNG.integers(0, 3, 101)


def network(norm: Any = None, backend: str = "numpy") -> Sequential:
    return Sequential([Linear(8), *([norm] if norm else []), ReLU(), Linear(3)], (4,), backend, seed=1)


class Sizes(Callback):
    """How many samples each batch had: the loss is a mean, so the trainer's progress tells."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._before = 0

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.sizes.append(trainer.progress.samples - self._before)
        self._before = trainer.progress.samples


@pytest.mark.parametrize(
    ("last_batch", "norm", "expected"),
    [
        ("keep", None, [10] * 10 + [1]),
        ("drop", None, [10] * 10),
        ("merge", None, [10] * 9 + [11]),
        (None, None, [10] * 10 + [1]),
        (None, BatchNorm(), [10] * 9 + [11]),
        (None, MeanNorm(), [10] * 9 + [11]),
    ],
)
def test_the_samples_that_make_no_whole_batch(last_batch: str | None, norm: Any, expected: list[int]) -> None:
    trainer, sizes = Trainer(network(norm), SGD(0.1), batch_size=10), Sizes()
    trainer.fit(X, Y, epochs=1, callbacks=[sizes], last_batch=last_batch)
    assert sizes.sizes == expected


def test_two_samples_are_a_batch_of_their_own() -> None:
    trainer, sizes = Trainer(network(BatchNorm()), SGD(0.1), batch_size=9), Sizes()
    trainer.fit(X, Y, epochs=1, callbacks=[sizes])
    assert sizes.sizes == [9] * 11 + [2]


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    for last_batch in ("keep", "drop", "merge"):
        trainer, sizes = Trainer(network(BatchNorm()), SGD(0.1), batch_size=128), Sizes()
        trainer.fit(X, Y, epochs=2, callbacks=[sizes], last_batch=last_batch)
        assert sizes.sizes[:1] == [101]
        assert trainer.steps == 2


@pytest.mark.parametrize("backend", kernels.names())
def test_a_merged_batch_is_the_step_of_all_its_samples(backend: str) -> None:
    """Whether the whole ones before it ran in one compiled call or one by one."""
    watched, together = (Trainer(network(BatchNorm(), backend), SGD(0.1), batch_size=50) for _ in range(2))
    watched.fit(X, Y, iterations=2, callbacks=[Sizes()], last_batch="merge")
    together.fit(X, Y, iterations=2, last_batch="merge")
    for name, array in watched.model.parameters().items():
        np.testing.assert_array_equal(together.model.parameters()[name], array)
    order = np.random.default_rng(0).permutation(101)
    merged, single = (Trainer(network(BatchNorm(), backend), SGD(0.1), batch_size=size) for size in (100, 101))
    merged.fit(X[order], Y[order], epochs=1, last_batch="merge")
    single.fit(X[order], Y[order], epochs=1)
    assert merged.steps == single.steps == 1
    for name, array in single.model.parameters().items():
        np.testing.assert_array_equal(merged.model.parameters()[name], array)


def test_running_statistics_see_no_single_sample() -> None:
    """The variance of one sample is 0: with a momentum of 0.9 it would be what is left of the running one."""
    model = Sequential([BatchNorm(momentum=0.9), Linear(3)], (4,), "numpy")
    Trainer(model, SGD(0.1), batch_size=10).fit(X, Y, epochs=1)
    assert (model.statistics()["0.running_var"] > 0.3 * X.var(axis=0)).all()


def test_one_value_a_channel_is_refused_by_name() -> None:
    norm = BatchNorm()
    words = r"node '1' \(BatchNorm\(\)\) has one value a channel where (a|the last) batch has one sample"
    trainer = Trainer(network(norm), SGD(0.1), batch_size=10)
    with pytest.raises(ValueError, match=words):
        trainer.step(X[:1], Y[:1])
    with pytest.raises(ValueError, match=words):
        trainer.fit(X, Y, epochs=1, last_batch="keep")
    with pytest.raises(ValueError, match=words):
        trainer.fit(X[:1], Y[:1], epochs=1)
    with pytest.raises(ValueError, match=words):
        Trainer(network(norm), SGD(0.1), batch_size=1).fit(X, Y, epochs=1)
    assert trainer.steps == 0


def test_one_image_has_many_values_a_channel() -> None:
    model = Sequential([Conv2d(2, 3), BatchNorm(), Flatten(), Linear(3)], (6, 6, 1), "numpy")
    images = RNG.standard_normal((3, 6, 6, 1)).astype(np.float32)
    Trainer(model, SGD(0.1), batch_size=1).fit(images, Y[:3], epochs=1)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="last_batch is 'pad', expected one of keep, drop, merge"):
        Trainer(network(), SGD(0.1)).fit(X, Y, epochs=1, last_batch="pad")


def test_a_fit_is_resumed_with_the_same_last_batch(tmp_path: Path) -> None:
    def fit(last_batch: str, resume: bool = False, **length: int) -> Trainer:
        trainer = Trainer(network(BatchNorm()), SGD(0.1), batch_size=10)
        kept = Checkpoints(tmp_path, every_steps=1)
        trainer.fit(X, Y, checkpoints=kept, resume=resume, last_batch=last_batch, **length)
        return trainer

    whole = fit("merge", epochs=2)
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    assert len(list(tmp_path.iterdir())) == 1
    resumed = fit("merge", resume=True, epochs=2)
    for name, array in whole.model.parameters().items():
        np.testing.assert_array_equal(resumed.model.parameters()[name], array)
    with pytest.raises(ValueError, match='last_batch was "merge", is "drop" now'):
        fit("drop", resume=True, epochs=2)
