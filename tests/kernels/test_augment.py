"""Augmentation's kernels: what they do to images whose fate is known, and what their random numbers depend on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import kernels
from kernels import Kernels

from ..support import naive

ORACLE = Kernels("naive", naive)
F32 = np.float32


def images(*shape: int, dtype: type = F32) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


def matrices(*rows: list[float], count: int = 2, dtype: type = F32) -> np.ndarray:
    return np.tile(np.array(rows, dtype), (count, 1, 1))


IDENTITY = ([1, 0, 0], [0, 1, 0])
QUARTER_TURN = ([0, 1, 0], [-1, 0, 0])
HALF_TURN = ([-1, 0, 0], [0, -1, 0])
THREE_QUARTER_TURN = ([0, -1, 0], [1, 0, 0])


# Warp ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 7, 7, 1), (2, 6, 6, 3), (2, 1, 1, 2), (2, 5, 8, 2)])
def test_the_identity_is_exact(k: Kernels, shape: tuple[int, ...], dtype: type) -> None:
    x = images(*shape, dtype=dtype)
    matrix = matrices(*IDENTITY, dtype=dtype)
    np.testing.assert_array_equal(k.warp(x, matrix), x)
    np.testing.assert_array_equal(k.warp(x, matrix, np.zeros((*shape[:3], 2), dtype)), x)


@pytest.mark.parametrize("side", [7, 8, 28])
@pytest.mark.parametrize(
    ("matrix", "quarters"), [(QUARTER_TURN, 1), (HALF_TURN, 2), (THREE_QUARTER_TURN, 3)], ids=["90", "180", "270"]
)
def test_quarter_turns_are_exact(k: Kernels, matrix: tuple[list[float], ...], quarters: int, side: int) -> None:
    x = images(2, side, side, 3)
    np.testing.assert_array_equal(k.warp(x, matrices(*matrix)), np.rot90(x, quarters, axes=(1, 2)))


def test_flips_and_half_turns_of_other_shapes_are_exact(k: Kernels) -> None:
    x = images(2, 4, 7, 2)
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, 0], [0, -1, 0])), x[:, :, ::-1])
    np.testing.assert_array_equal(k.warp(x, matrices([-1, 0, 0], [0, 1, 0])), x[:, ::-1])
    np.testing.assert_array_equal(k.warp(x, matrices(*HALF_TURN)), x[:, ::-1, ::-1])


def test_a_shift_lets_fill_in_and_nothing_wraps_around(k: Kernels) -> None:
    x = images(2, 6, 9, 2)
    expected = np.full_like(x, 0.25)
    expected[:, 2:, :-3] = x[:, :-2, 3:]
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, -2], [0, 1, 3]), fill=0.25), expected)
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, 6], [0, 1, 0])), 0)
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, 0], [0, 1, -1e30]), fill=7.0), 7)


def test_half_a_pixel_is_the_mean_of_neighbours(k: Kernels) -> None:
    x = images(2, 5, 6, 1)
    wide = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, 0], [0, 1, 0.5])), (wide[:, :, 1:] + wide[:, :, :-1]) / 2)
    tall = np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))
    np.testing.assert_array_equal(k.warp(x, matrices([1, 0, -0.5], [0, 1, 0])), (tall[:, 1:] + tall[:, :-1]) / 2)


def test_a_linear_image_is_resampled_exactly(k: Kernels) -> None:
    """Bilinear interpolation has no error on h and w themselves: the warped coordinates can be read off."""
    height, width = 20, 24
    h, w = np.indices((height, width), np.float64)
    matrix = np.array([[[0.5, 0.2, 0.7], [-0.1, 0.4, -0.3]]])
    field = np.stack([0.1 * h, -0.05 * w], axis=-1)[None]
    y = k.warp(np.stack([h, w], axis=-1)[None], matrix, field)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    from_centre = np.stack([h - centre[0], w - centre[1]], axis=-1)
    place = from_centre @ matrix[0, :, :2].T + matrix[0, :, 2] + centre + field[0]
    inside = ((place >= 0) & (place <= [height - 1, width - 1])).all(axis=-1)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(y[0][inside], place[inside], rtol=0, atol=1e-12)


def test_channels_move_together_and_samples_apart(k: Kernels) -> None:
    rng = np.random.default_rng(1)
    x, field = images(3, 9, 7, 4), rng.normal(0, 1, (3, 9, 7, 2)).astype(F32)
    matrix = (matrices(*IDENTITY, count=3) + rng.normal(0, 0.2, (3, 2, 3))).astype(F32)
    y = k.warp(x, matrix, field)
    for n, c in np.ndindex(3, 4):
        one = np.ascontiguousarray(x[n : n + 1, :, :, c : c + 1])
        np.testing.assert_array_equal(k.warp(one, matrix[n : n + 1], field[n : n + 1])[0, :, :, 0], y[n, :, :, c])


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    st.sampled_from([0.0, 0.3, 3.0]),
    st.sampled_from([None, 0.5, 20.0]),
    st.integers(0, 99),
)
def test_any_warp_equals_the_scalar_loops(
    k: Kernels, shape: tuple[int, ...], spread: float, displacement: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, matrix = rng.normal(size=shape), rng.normal(0, spread, (shape[0], 2, 3))
    matrix[:, [0, 1], [0, 1]] += 1
    field = None if displacement is None else rng.normal(0, displacement, (*shape[:3], 2))
    expected = ORACLE.warp(x, matrix, field, fill=0.5)
    np.testing.assert_allclose(k.warp(x, matrix, field, fill=0.5), expected, rtol=0, atol=1e-13 * (1 + abs(x).max()))


def test_places_that_are_no_number(k: Kernels) -> None:
    x, field = images(1, 4, 5, 2), np.zeros((1, 4, 5, 2), F32)
    field[0, 1, 2, 0], field[0, 2, 3, 1], field[0, 0, 0] = np.nan, np.inf, (-np.inf, np.nan)
    y = k.warp(x, matrices(*IDENTITY, count=1), field, fill=3.0)
    expected = x.copy()
    expected[0, 1, 2], expected[0, 2, 3], expected[0, 0, 0] = np.nan, 3.0, np.nan
    np.testing.assert_array_equal(y, expected)


# Smoothing -----------------------------------------------------------------------------------------------------


def test_a_point_is_smoothed_to_the_filter(k: Kernels) -> None:
    weights = np.array([4, 2, 1], F32)
    x = np.zeros((1, 9, 11, 2), F32)
    x[0, 4, 5, 1] = 1
    profile = np.array([1, 2, 4, 2, 1], F32)
    expected = np.zeros_like(x)
    expected[0, 2:7, 3:8, 1] = np.outer(profile, profile)
    np.testing.assert_array_equal(k.smooth2d(x, weights), expected)


def test_smoothing_sees_zeros_outside(k: Kernels) -> None:
    y = k.smooth2d(np.ones((1, 3, 4, 1), F32), np.ones(2, F32))[0, :, :, 0]
    np.testing.assert_array_equal(y, np.outer([2, 3, 2], [2, 3, 3, 2]))
    np.testing.assert_array_equal(k.smooth2d(np.ones((1, 2, 3, 1), F32), np.ones(20, F32)), 6)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8), st.integers(1, 3)), st.integers(1, 9), st.data()
)
def test_smoothing_whole_numbers_is_exact(k: Kernels, shape: tuple[int, ...], taps: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, weights = rng.integers(-9, 10, shape).astype(F32), rng.integers(-3, 4, taps).astype(F32)
    np.testing.assert_array_equal(k.smooth2d(x, weights), ORACLE.smooth2d(x, weights))


# Random numbers ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
    st.integers(0, 2**64),
    st.integers(0, 2**40),
    st.sampled_from([np.float32, np.float64]),
)
def test_random_numbers_equal_the_scalar_loops(
    k: Kernels, indices: list[int], seed: int, step: int, dtype: type
) -> None:
    indices_ = np.array(indices)
    expected = ORACLE.uniform(indices_, (3, 5), seed, step, dtype)
    np.testing.assert_array_equal(k.uniform(indices_, (3, 5), seed, step, dtype), expected)


def test_random_numbers_depend_on_seed_step_and_index_alone(k: Kernels) -> None:
    indices = np.array([5, 3, 60_000, 3])
    u = k.uniform(indices, (4, 6), seed=1, step=2)
    np.testing.assert_array_equal(u[1], u[3])
    np.testing.assert_array_equal(k.uniform(indices[2:3], (24,), seed=1, step=2)[0], u[2].ravel())
    np.testing.assert_array_equal(k.uniform(indices[:1].astype(np.uint8), (3,), seed=1, step=2)[0], u[0].flat[:3])
    np.testing.assert_array_equal(k.uniform(indices, (4, 6), 1, 2, np.float64).astype(F32), u)
    for other in (
        k.uniform(indices, (4, 6), 1, 3),
        k.uniform(indices, (4, 6), 2, 2),
        k.uniform(indices + 1, (4, 6), 1, 2),
    ):
        assert not np.isin(other, u).any()


def test_random_numbers_are_uniform_and_unrelated(k: Kernels) -> None:
    n, m = 2000, 50
    u = k.uniform(np.arange(n), (m,), seed=3, dtype=np.float64)
    assert u.min() >= -1
    assert u.max() < 1
    histogram = np.histogram(u, 20, (-1, 1))[0]
    share = n * m / 20
    assert np.abs(histogram - share).max() < 5 * np.sqrt(share)
    limit = 5 / np.sqrt(n * m)
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1]), (u[1:, 1:], u[:-1, :-1])):
        assert abs(3 * np.mean(a * b)) < limit


# Errors --------------------------------------------------------------------------------------------------------

X, M = np.ones((2, 4, 5, 1), F32), matrices(*IDENTITY)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda k: k.warp(X[0], M), ValueError, "warp: x has shape (4, 5, 1), expected 4 axes"),
        (
            lambda k: k.warp(X, M[:1]),
            ValueError,
            "warp: matrix has shape (1, 2, 3), expected (2, 2, 3) (x (2, 4, 5, 1))",
        ),
        (lambda k: k.warp(X, M.astype(float)), TypeError, "warp: matrix has dtype float64, x has float32"),
        (lambda k: k.warp(X, M, X), ValueError, "warp: field has shape (2, 4, 5, 1), expected (2, 4, 5, 2)"),
        (lambda k: k.warp(X, M, fill=np.nan), ValueError, "warp: fill is nan, expected a finite number"),
        (lambda k: k.smooth2d(X[0], np.ones(3, F32)), ValueError, "smooth2d: x has shape (4, 5, 1), expected 4 axes"),
        (
            lambda k: k.smooth2d(X, np.ones((3, 3), F32)),
            ValueError,
            "smooth2d: weights has shape (3, 3), expected 1 axes",
        ),
        (lambda k: k.smooth2d(X, np.ones(0, F32)), ValueError, "smooth2d: weights has an empty"),
        (lambda k: k.uniform([1, 2], (3,)), TypeError, "uniform: indices is a list, expected an array of integers"),
        (lambda k: k.uniform(np.ones(2), (3,)), TypeError, "uniform: indices is of dtype float64"),
        (lambda k: k.uniform(np.ones((2, 2), int), (3,)), ValueError, "uniform: indices has shape (2, 2)"),
        (lambda k: k.uniform(np.array([3, -1]), (3,)), ValueError, "uniform: indices[1] is -1, expected 0 or more"),
        (lambda k: k.uniform(np.arange(2), (3, 0)), ValueError, "uniform: shape[1] is 0, expected an int >= 1"),
        (lambda k: k.uniform(np.arange(2), (3,), seed=-1), ValueError, "uniform: seed is -1"),
        (lambda k: k.uniform(np.arange(2), (3,), step=0.5), ValueError, "uniform: step is 0.5"),
        (lambda k: k.uniform(np.arange(2), (3,), dtype=np.int32), TypeError, "uniform: dtype is int32"),
    ],
)
def test_errors(k: Kernels, call: Callable[[Kernels], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call(k)


def test_threads_change_no_bit() -> None:
    k = kernels.get("numba")
    x = images(64, 28, 28, 1)
    before = kernels.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            field = k.smooth2d(k.uniform(np.arange(64), (28, 28, 2)), np.full(9, 0.2, F32))
            results.append(k.warp(x, matrices(*IDENTITY, count=64), field).tobytes())
    finally:
        kernels.set_threads(before)
    assert results[0] == results[1] == results[2]
