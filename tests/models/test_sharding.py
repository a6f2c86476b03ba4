"""Batches in shards: what a step in shards computes, and that nobody's number changes it."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import kernels
import models
from models import Adam, BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy, Trainer
from models.communicator import Communicator, blocks, complete, total
from models.sharding import cut

from ..support import ranks

needs_mpi = pytest.mark.skipif(bool(ranks.missing()), reason=ranks.missing())

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((24, 6)).astype(np.float32), RNG.integers(0, 3, 24)


def network(*layers: models.Layer, **options: Any) -> models.Sequential:
    return Sequential([Linear(8), *layers, Linear(3)], (6,), "numpy", 1, np.float64, **options)


def test_a_batch_is_cut_into_sizes_that_differ_by_one() -> None:
    assert [shard[1:] for shard in cut(10, 4)] == [(0, 2), (2, 5), (5, 7), (7, 10)]
    assert [shard.number for shard in cut(2, 4)] == [1, 3]


@pytest.mark.parametrize(("count", "size"), [(c, r) for c in range(1, 10) for r in range(1, c + 1)])
def test_sums_are_the_trees_whoever_has_the_parts(count: int, size: int) -> None:
    vectors = [np.float32(10.0) ** RNG.integers(-6, 6, 5).astype(np.float32) for _ in range(count)]
    alone = total((0, count), {(i, i + 1): v.copy() for i, v in enumerate(vectors)})
    parts = {}
    for block in blocks(count, size):
        for node in complete(count, block):
            parts[node] = total(node, {(i, i + 1): vectors[i].copy() for i in range(*node)})
    assert alone is not None
    assert total((0, count), parts).tobytes() == alone.tobytes()  # type: ignore[union-attr, arg-type]


def test_gradients_are_the_batchs() -> None:
    whole, sharded = (Trainer(network(ReLU()), Adam(0.1), batch_size=24, shards=s) for s in (1, 3))
    losses = [trainer.step(X, Y) for trainer in (whole, sharded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)
    for name, gradient in whole.gradients().items():
        np.testing.assert_allclose(sharded.gradients()[name], gradient, rtol=1e-11, atol=1e-16)


def test_shards_of_two_sizes_count_by_their_samples() -> None:
    whole, sharded = (Trainer(network(ReLU()), Adam(0.1), batch_size=24, shards=s) for s in (1, 5))
    assert whole.step(X, Y) == pytest.approx(sharded.step(X, Y), rel=1e-14)
    for name, gradient in whole.gradients().items():
        np.testing.assert_allclose(sharded.gradients()[name], gradient, rtol=1e-11, atol=1e-16)


def test_running_statistics_take_the_shards_in_a_row() -> None:
    sharded = Trainer(network(BatchNorm()), Adam(0.1), batch_size=24, shards=2)
    single = network(BatchNorm())
    expected = single.statistics()["1.running_mean"].copy()
    for half in np.split(single.until("0").predict(X.astype(np.float64)), 2):
        expected = 0.9 * expected + 0.1 * half.mean(axis=0)
    sharded.step(X, Y)
    np.testing.assert_allclose(sharded.model.statistics()["1.running_mean"], expected, rtol=1e-12)


def test_shards_have_masks_of_their_own() -> None:
    same = np.repeat(X[:12], 2, axis=0).reshape(12, 2, 6).swapaxes(0, 1).reshape(24, 6)  # both halves alike
    trainer = Trainer(network(Dropout(0.5)), Adam(1e-9), batch_size=24, shards=2)
    assert trainer.sharded is not None
    seen = [trainer.sharded._mask_step(shard) for _ in range(3) for shard in (trainer.step(same, Y), cut(24, 2))[1]]
    assert len(set(seen)) == len(seen)


def test_one_shard_changes_no_bit() -> None:
    fits = []
    for options in ({}, {"shards": 1}, {"communicator": Communicator()}):
        trainer = Trainer(network(BatchNorm(), Dropout(0.3)), Adam(0.1), batch_size=8, **options)  # type: ignore[arg-type]
        trainer.fit(X, Y, epochs=2)
        fits.append([array.tobytes() for array in trainer.changing().values()])
    assert fits[0] == fits[1] == fits[2]


def test_a_shard_of_one_sample_is_refused_where_it_has_no_variance() -> None:
    trainer = Trainer(network(BatchNorm()), Adam(0.1), batch_size=12, shards=4)
    with pytest.raises(ValueError, match=r"has one value a channel where a shard has one sample"):
        trainer.step(X[:5], Y[:5])
    with pytest.raises(ValueError, match=r"where a shard of the last batch has one sample"):
        trainer.fit(X[:17], Y[:17], epochs=1, last_batch="keep")
    trainer.fit(X[:17], Y[:17], epochs=1)
    assert trainer.steps == 1


@pytest.mark.parametrize(("how", "skipped"), [("raise", 0), ("skip", 1)])
def test_a_bad_shard_is_a_bad_step(how: str, skipped: int) -> None:
    trainer = Trainer(network(), Adam(0.1), batch_size=24, shards=3, on_nonfinite=how)
    bad = X.copy()
    bad[20, 0] = np.inf
    before = {name: array.copy() for name, array in trainer.changing().items()}
    if how == "raise":
        with pytest.raises(models.NonFiniteError, match=r"at step 1, .* first not finite is the input of node '0'"):
            trainer.step(bad, Y)
    else:
        trainer.step(bad, Y)
    assert (trainer.skipped, trainer.steps) == (skipped, 0)
    for name, array in trainer.changing().items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_no_number_of_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="shards"):
        Trainer(network(), Adam(0.1), batch_size=8, shards=0)
    with pytest.raises(ValueError, match="9 shards for 8 samples a batch"):
        Trainer(network(), Adam(0.1), batch_size=8, shards=9)
    with pytest.raises(TypeError, match="expected an mpi4py communicator"):
        Trainer(network(), Adam(0.1), communicator=4)


WEIGHTS = np.where(np.arange(24) % 5 == 0, 0.0, RNG.uniform(0.1, 3.0, 24))
WEIGHTS[:8] = 0.0  # of 3 shards the first weighs nothing


@pytest.mark.parametrize("shards", [2, 3, 5])
@pytest.mark.parametrize("sync", [False, True], ids=["apart", "synced"])
@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"loss": SoftmaxCrossEntropy(weighted=True)}, WEIGHTS),
        ({"loss": SoftmaxCrossEntropy(class_weights=(1.0, 0.0, 3.0))}, None),
        ({"loss": SoftmaxCrossEntropy(weighted=True, ignore_index=1, class_weights=(1.0, 1.0, 3.0))}, WEIGHTS),
        ({"learning_rates": {"0": 0.0}}, None),
        ({"learning_rates": {"0": 0.1, "2": 2.0}}, None),
        ({"average": 0.7}, None),
        ({"accumulate": 2, "average": 0.7, "loss": SoftmaxCrossEntropy(weighted=True)}, WEIGHTS),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray | None) else str(value),
)
def test_shards_compute_what_the_batch_does(
    options: dict[str, Any], weights: np.ndarray | None, sync: bool, shards: int
) -> None:
    layers = [BatchNorm(), ReLU()] if sync else [ReLU()]
    optimizer = models.SGD(0.3, momentum=0.9, clip_norm=0.5)  # Adam would make steps of what is 0 but for rounding
    trainers = [
        Trainer(network(*layers), optimizer, batch_size=24, shards=s, sync_batchnorm=sync, **options)
        for s in (1, shards)
    ]
    for trainer in trainers:
        trainer.fit(X, Y, epochs=3, sample_weight=weights)
        for part in (slice(0, 24), slice(8, 24), slice(1, 13)):
            trainer.step(X[part], Y[part], sample_weight=None if weights is None else weights[part])
    whole, cut_up = (trainer.progress.history.epochs for trainer in trainers)
    for one, other in zip(whole, cut_up, strict=True):
        assert (one.loss, one.accuracy) == (pytest.approx(other.loss, rel=1e-9), pytest.approx(other.accuracy))
    assert trainers[0].steps == trainers[1].steps == 6 // options.get("accumulate", 1)
    changing, sharded = (trainer.changing() for trainer in trainers)
    for name, array in changing.items():
        np.testing.assert_allclose(sharded[name], array, rtol=1e-7, atol=1e-9, err_msg=name)


def test_a_batch_of_which_nothing_counts_moves_nothing() -> None:
    loss = SoftmaxCrossEntropy(ignore_index=-1)
    for options in ({}, {"sync_batchnorm": True}):
        trainer = Trainer(network(BatchNorm()), models.SGD(0.1), loss, batch_size=24, shards=3, **options)  # type: ignore[arg-type]
        before = {name: array.copy() for name, array in trainer.model.parameters().items()}
        assert trainer.step(X, np.full(24, -1)) == 0
        for name, array in trainer.model.parameters().items():
            np.testing.assert_array_equal(array, before[name])


def test_batches_that_are_gathered_have_masks_of_their_own() -> None:
    trainer = Trainer(network(Dropout(0.5)), Adam(0.1), batch_size=24, shards=2, accumulate=3)
    assert trainer.sharded is not None
    seen = [trainer.sharded._mask_step(shard) for _ in range(7) for shard in (trainer.step(X, Y), cut(24, 2))[1]]
    assert (len(set(seen)), trainer.steps) == (len(seen), 2)


def test_validation_in_shards_weighs_as_well() -> None:
    loss = SoftmaxCrossEntropy(class_weights=(1.0, 0.0, 3.0))
    trainer = Trainer(network(), Adam(0.1), loss, batch_size=24, shards=2)
    assert trainer.sharded is not None
    assert trainer.sharded.evaluate(X, Y, loss) == trainer.model.evaluate(X, Y, loss)


def test_sample_weights_are_refused() -> None:
    trainer = Trainer(network(), Adam(0.1), batch_size=24, shards=2)
    for call in (trainer.step, lambda x, y, **given: trainer.fit(x, y, epochs=1, **given)):
        with pytest.raises(ValueError, match="sample_weight is given and the loss does not weigh"):
            call(X, Y, sample_weight=np.ones(24))
    assert trainer.steps == 0


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("limit", [{"clip_norm": 0.05}, {"clip_value": 0.01}, {"clip_value": 0.02, "clip_norm": 0.05}])
def test_gradients_are_clipped_as_a_whole(limit: dict[str, float], sync: bool) -> None:
    trainers = [
        Trainer(network(ReLU()), models.SGD(0.5, **limit), batch_size=24, shards=shards, sync_batchnorm=sync)
        for shards in (1, 2, 5)
    ]
    free = Trainer(network(ReLU()), models.SGD(0.5), batch_size=24)
    for trainer in (free, *trainers):
        trainer.step(X, Y)
        trainer.step(X[:7], Y[:7])
    for name, array in trainers[0].model.parameters().items():
        for other in trainers[1:]:
            np.testing.assert_allclose(other.model.parameters()[name], array, rtol=1e-10, atol=1e-14)
        assert not np.allclose(free.model.parameters()[name], array, rtol=1e-3)


def test_a_copy_goes_on_in_as_many_shards() -> None:
    trainer = Trainer(network(BatchNorm()), Adam(0.1), batch_size=24, shards=3, sync_batchnorm=True)
    trainer.step(X, Y)
    copied = pickle.loads(pickle.dumps(trainer))
    assert (copied.shards, copied.sync_batchnorm) == (3, True)
    assert copied.step(X, Y) == trainer.step(X, Y)


def test_logs_are_the_first_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank, count in ((1, 0), (0, 2)):
        trainer = Trainer(network(), Adam(0.1), batch_size=24)
        trainer.communicator.rank = rank
        logs = [models.CSVLog(tmp_path / "log.csv"), models.TensorBoardLog(tmp_path / "events")]
        trainer.fit(X, Y, epochs=1, callbacks=logs, verbose=True)
        assert len(list(tmp_path.iterdir())) == count
        assert len(capsys.readouterr().out.splitlines()) == (count > 0)


def test_evaluations_in_shards_tell_as_much() -> None:
    trainer = Trainer(network(), Adam(0.1), batch_size=24, shards=2)
    assert trainer.sharded is not None
    found, whole = trainer.sharded.evaluate(X, Y, trainer.loss), trainer.model.evaluate(X, Y)
    assert found == whole
    np.testing.assert_array_equal(found.confusion, whole.confusion)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_synced_statistics_are_the_batchs(backend: str) -> None:
    layers = [Linear(8), BatchNorm(), ReLU(), Linear(6), BatchNorm(momentum=0.3), Linear(3)]
    dtype = np.float64 if backend == "numpy" else np.float32
    bound = 1e-11 if backend == "numpy" else 1e-4
    trainers = [
        Trainer(Sequential(list(layers), (6,), backend, 1, dtype), models.SGD(0.5), batch_size=24, **options)
        for options in ({}, {"shards": 5, "sync_batchnorm": True})
    ]
    losses = [[trainer.step(X[:n], Y[:n]) for n in (24, 7, 3)] for trainer in trainers]
    np.testing.assert_allclose(losses[1], losses[0], rtol=bound)
    whole, synced = (trainer.changing() for trainer in trainers)
    for name, array in whole.items():
        np.testing.assert_allclose(synced[name], array, rtol=bound, atol=bound)


def test_a_plan_that_is_synced_is_not_a_plan_in_shards() -> None:
    apart, synced = (
        Trainer(network(BatchNorm()), Adam(0.1), batch_size=24, shards=3, sync_batchnorm=sync) for sync in (False, True)
    )
    assert apart.step(X, Y) != synced.step(X, Y)
    with pytest.raises(ValueError, match="sync_batchnorm"):
        Trainer(network(), Adam(0.1), sync_batchnorm=2)  # type: ignore[arg-type]


WEIGHING = {"learning_rates": {"0": 0.5}, "average": 0.9, "accumulate": 2}


def digests(count: int, works: list[dict[str, Any]], **environment: str) -> list[str]:
    works = [work | {"ranks": count} for work in works]
    if count:
        process = ranks.start(count, "tests.support.ranks", "--work", json.dumps(works), **environment)
        status, out, errors = ranks.ended(process)
        assert status == 0, errors
        return json.loads(out[-1])  # type: ignore[no-any-return]
    before = kernels.get_threads()
    try:
        return [ranks.train(work) for work in works]
    finally:
        kernels.set_threads(before)


def test_an_executor_that_gives_way_to_a_larger_one_is_not_taken_for_it() -> None:
    """Merged batches of several sizes, each larger than the one before."""
    sharded, again = (Trainer(network(BatchNorm()), Adam(0.1), batch_size=8, shards=2) for _ in range(2))
    for size in (9, 11, 13, 15):
        sharded.fit(X[:size], Y[:size], epochs=2, last_batch="merge")
        again._larger = None
        again.fit(X[:size], Y[:size], epochs=2, last_batch="merge")
    for name, array in sharded.changing().items():
        np.testing.assert_array_equal(again.changing()[name], array)


class Found(NamedTuple):
    """What one process came to, and what 2, 3 and 4 ranks did; of a work in small pieces by count of ranks as well."""

    expected: list[str]
    by_ranks: dict[int, list[str]]
    in_pieces: dict[int, str]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """All works of as many ranks by the same processes, which take longer to begin than to train."""
    works = [{"backend": b, "threads": t} for b, t in itertools.product(("numpy", "numba"), (1, 2))]
    works.append({"backend": "numpy", "threads": 1, "options": {"sync_batchnorm": True}})
    works.append({"backend": "numba", "threads": 1, "options": WEIGHING, "weighs": True})
    works.append({"backend": "numpy", "threads": 1, "options": WEIGHING | {"sync_batchnorm": True}, "weighs": True})
    kept = [works[i] | {"folder": str(tmp_path_factory.mktemp("kept"))} for i in (0, 2, 5)]
    small = works[0] | {"small": 64}
    *two, two_small = digests(2, [*works, *(work | {"until": 5} for work in kept), small])
    *four, four_small = digests(4, [works[1], works[2], works[6], *kept, small], **ranks.TCP)
    by_ranks = {2: two, 3: digests(3, works[:1], **ranks.TCP), 4: four}
    return Found(digests(0, works), by_ranks, {2: two_small, 4: four_small})


@needs_mpi
def test_the_same_bits_for_any_number_of_ranks_and_threads(found: Found) -> None:
    """And from checkpoints on, which another number of ranks has written; over shared memory and over TCP."""
    expected = found.expected
    assert len(set(expected[:4])) == 2, "threads changed a bit"
    assert found.by_ranks[2] == [*expected, *["stopped"] * 3]
    assert found.by_ranks[4] == [expected[i] for i in (1, 2, 6, 0, 2, 5)]
    assert found.by_ranks[3] == expected[:1]


@needs_mpi
@pytest.mark.parametrize("count", [2, 4])
def test_gradients_that_leave_early_and_in_pieces_change_no_bit(found: Found, count: int) -> None:
    assert found.in_pieces[count] == found.expected[0]
