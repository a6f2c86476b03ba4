import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data
from data import splits


def numbered(count, dtype=np.uint8):
    """Images that tell their number, so that a mixed-up pair shows."""
    numbers = np.arange(count)
    return data.Split(np.broadcast_to(numbers[:, None, None, None], (count, 2, 3, 1)).astype(dtype), numbers)


def noise(count=50, seed=0):
    rng = np.random.default_rng(seed)
    return data.Split(rng.integers(0, 256, (count, 4, 5, 1), np.uint8), rng.integers(0, 10, count))


@pytest.mark.parametrize("part", [slice(100), slice(None, None, -1), slice(0, 1)], ids=str)
def test_a_split_refuses_to_be_cut_as_its_samples_would_be(part):
    with pytest.raises(TypeError, match=r"a Split is a pair .*; expected Split\(split.images\[.*\], split.labels\["):
        noise()[part]


def test_a_split_has_no_length_of_its_own():
    with pytest.raises(TypeError, match=r"a Split is a pair and has no length; len\(split.labels\) counts its samples"):
        len(noise())


def test_a_split_is_a_pair_in_every_other_way():
    split = noise()
    images, labels = split
    assert images is split.images is split[0] is split[-2]
    assert labels is split.labels is split[1] is split[-1]
    assert split
    assert tuple(split) == (images, labels)
    assert list(split) == [images, labels]
    assert (lambda *pair: pair)(*split) == (images, labels)
    for same in (copy.copy(split), split._replace(labels=labels), data.Split(*split)):
        assert same.images is images
        assert isinstance(same, data.Split)
    again = pickle.loads(pickle.dumps(split))
    assert isinstance(again, data.Split)
    np.testing.assert_array_equal(again.images, images)
    assert "images=array" in repr(split)
    with pytest.raises(IndexError):
        split[2]


def test_a_dataset_is_made_of_pairs():
    train, test = noise(), noise(seed=1)
    for made in (
        data.Dataset(tuple(train), list(test)),
        splits.as_dataset("source", (tuple(train), tuple(test))),
        splits.as_dataset("source", [train, test]),
        pickle.loads(pickle.dumps(data.Dataset(train, test))),
    ):
        assert isinstance(made, data.Dataset)
        assert all(isinstance(half, data.Split) for half in made)
        np.testing.assert_array_equal(made.train.images, train.images)
        np.testing.assert_array_equal(made.test.labels, test.labels)
    with pytest.raises(TypeError, match="Dataset: test is a ndarray, expected a pair of arrays"):
        data.Dataset(tuple(train), test.images)
    with pytest.raises(ValueError, match=r"Dataset: train has images \(50, 4, 5, 1\) and labels \(49,\)"):
        data.Dataset((train.images, train.labels[1:]), tuple(test))
    with pytest.raises(TypeError, match=r"source is a tuple, expected \(\(images, labels\), \(images, labels\)\)"):
        splits.as_dataset("source", (train, test, test))


def test_statistics_are_those_of_every_pixel(monkeypatch):
    train = noise()
    expected = train.images.mean(dtype=np.float64), train.images.std(dtype=np.float64)
    assert data.statistics(train) == pytest.approx(expected, rel=1e-14)
    monkeypatch.setattr(splits, "_CHUNK", 7)
    assert data.statistics(train) == pytest.approx(expected, rel=1e-14)


def test_statistics_by_hand():
    images = np.array([0, 0, 0, 255], np.uint8).reshape(1, 2, 2, 1)
    mean, std = data.statistics((images, np.zeros(1, np.uint8)))
    assert mean == 63.75
    assert std == pytest.approx(63.75 * 3**0.5, rel=1e-15)


def test_a_large_mean_does_not_swallow_the_deviation():
    images = np.array([1e6, 1e6 + 1], np.float32).reshape(2, 1, 1, 1)
    assert data.statistics((images, np.zeros(2, np.uint8))) == (1e6 + 0.5, 0.5)


def test_normalise_uses_the_first_split_alone():
    train, test = noise(seed=1), numbered(20)
    normal_train, normal_test = data.normalise(train, test)
    mean, std = data.statistics(train)
    for before, after in (train, normal_train), (test, normal_test):
        assert isinstance(after, data.Split)
        assert after.images.dtype == np.float32
        assert after.images.flags.c_contiguous
        assert after.labels is before.labels
        np.testing.assert_allclose(after.images, (before.images.astype(np.float64) - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(normal_test.images, data.standardise(test.images, mean, std))


def test_normalise_gives_one_split_for_each_argument():
    assert [len(data.normalise(*[noise()] * count)) for count in (1, 2, 3)] == [1, 2, 3]


def test_normalise_takes_strided_and_float_images_and_leaves_them_alone():
    whole = noise()
    strided = data.Split(whole.images.T[:, ::-1, ::2], np.zeros(1))
    kept = strided.images.copy()
    (normal,) = data.normalise(strided)
    assert normal.images.flags.c_contiguous
    np.testing.assert_array_equal(strided.images, kept)
    (doubles,) = data.normalise(data.Split(kept.astype(np.float64), strided.labels))
    assert doubles.images.dtype == np.float32
    np.testing.assert_allclose(doubles.images, normal.images, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((3, 2, 2, 1), 7, np.uint8), r"standard deviation 0.0 \(mean 7.0\)"),
        (np.full((3, 2, 2, 1), np.nan, np.float32), "standard deviation nan"),
        (np.zeros((0, 2, 2, 1), np.uint8), "train holds no pixels"),
    ],
)
def test_nothing_to_normalise_by(images, message):
    split = data.Split(images, np.zeros(len(images), np.uint8))
    with pytest.raises(ValueError, match=message):
        data.statistics(split)
    with pytest.raises(ValueError, match=message):
        data.normalise(split, noise())


def test_what_is_no_split_is_refused_by_name():
    images, labels = noise()
    with pytest.raises(TypeError, match="normalise: argument 1 is a Dataset, expected a pair of arrays"):
        data.normalise(data.Dataset(noise(), noise()))
    with pytest.raises(TypeError, match="normalise: argument 2 is a ndarray"):
        data.normalise(noise(), images)
    with pytest.raises(ValueError, match=r"split: train has images \(50, 4, 5, 1\) and labels \(49,\)"):
        data.split((images, labels[1:]), 10)


def test_split_divides_without_overlap_and_keeps_pairs():
    whole = numbered(100)
    train, validation = data.split(whole, 30, seed=3)
    assert len(train.labels) == 70
    assert len(validation.labels) == 30
    assert sorted([*train.labels, *validation.labels]) == list(range(100))
    for part in train, validation:
        np.testing.assert_array_equal(part.images[:, 1, 2, 0], part.labels)
    assert not np.array_equal(validation.labels, np.arange(70, 100))


def test_split_depends_on_the_seed_alone():
    whole = numbered(100)
    first, again, other = (data.split(whole, 30, seed)[1].labels for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "split: count is 0, expected 1 or more"),
        ((100,), ValueError, "split: count is 100, expected less than the 100 samples"),
        ((-1,), ValueError, "split: count is -1"),
        ((0.1,), TypeError, "split: count is 0.1, expected an integer"),
        ((10, -1), ValueError, "split: seed is -1"),
        ((10, None), TypeError, "split: seed is None"),
    ],
)
def test_split_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        data.split(numbered(100), *arguments)


@given(count=st.integers(0, 300), seed=st.integers(0, 2**64), epoch=st.integers(0, 2**32))
def test_epoch_order_is_a_permutation_made_again_at_will(count, seed, epoch):
    order = data.epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    np.testing.assert_array_equal(data.epoch_order(count, seed, epoch), order)


def test_epoch_order_differs_by_seed_and_epoch():
    orders = {tuple(data.epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_epoch_order_is_fixed_forever():
    assert data.epoch_order(10, seed=0, epoch=0).tolist() == [0, 8, 5, 3, 6, 2, 4, 1, 7, 9]


@given(count=st.integers(0, 40), size=st.integers(1, 50), shuffle=st.booleans())
def test_batches_visit_every_sample_once(count, size, shuffle):
    seen = list(data.batches(numbered(count), size, seed=1, epoch=2, shuffle=shuffle))
    assert all(isinstance(batch, data.Split) for batch in seen)
    assert [len(batch.labels) for batch in seen[:-1]] == [size] * (len(seen) - 1)
    order = data.epoch_order(count, 1, 2) if shuffle else np.arange(count)
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *(batch.labels for batch in seen)]), order)
    for images, labels in seen:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_drop_last_leaves_out_the_smaller_batch():
    assert [len(batch.labels) for batch in data.batches(numbered(10), 4)] == [4, 4, 2]
    assert [len(batch.labels) for batch in data.batches(numbered(10), 4, drop_last=True)] == [4, 4]
    assert [len(batch.labels) for batch in data.batches(numbered(8), 4, drop_last=True)] == [4, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batches: batch_size is 0, expected 1 or more"),
        ({"batch_size": 2.0}, TypeError, "batches: batch_size is 2.0"),
        ({"batch_size": 2, "seed": -1}, ValueError, "seed is -1"),
        ({"batch_size": 2, "epoch": -1}, ValueError, "epoch is -1"),
    ],
)
def test_batches_refuses_at_the_call(arguments, error, message):
    with pytest.raises(error, match=message):
        data.batches(numbered(5), **arguments)
