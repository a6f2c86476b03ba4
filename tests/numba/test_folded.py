"""`conv2d_folded` on Numba by each of its ways: into some of the channels of a larger array, with a residual, over many
images at once. All three give the bits of the plain call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import kernels
from kernels.shapes import conv2d, pool2d

NUMBA = kernels.get("numba").backend

CASES: dict[str, dict[str, Any]] = {
    "pointwise, by rows": {"x": (2, 9, 8, 20), "k": 1, "f": 37},
    "pointwise, by columns": {"x": (1, 4, 5, 70), "k": 1, "f": 200},
    "pointwise, in groups": {"x": (2, 9, 8, 20), "k": 1, "f": 40, "groups": 4},
    "pointwise, in groups of two panels": {"x": (1, 7, 7, 56), "k": 1, "f": 56, "groups": 2},
    "pointwise, in groups of two panels and a rest": {"x": (2, 9, 8, 136), "k": 1, "f": 136, "groups": 4},
    "pointwise, in pieces": {"x": (1, 7, 7, 600), "k": 1, "f": 40},
    "pointwise, by rows of more filters than places": {"x": (2, 17, 16, 20), "k": 1, "f": 560},
    "one filter a channel, in rows of three taps": {"x": (2, 9, 8, 44), "k": 3, "f": 44, "groups": 44, "stride": 2},
    "one filter a channel": {"x": (2, 9, 8, 21), "k": 3, "f": 21, "groups": 21, "padding": 1},
    "minimal filtering": {"x": (2, 9, 8, 20), "k": 3, "f": 37, "padding": 1},
    "strides": {"x": (8, 9, 8, 20), "k": 3, "f": 37, "stride": 2},
    "many filters": {"x": (2, 5, 5, 64), "k": 3, "f": 300, "stride": 2},
    "a wide map": {"x": (8, 75, 140, 3), "k": 3, "f": 40, "stride": 2, "padding": 1},
    "along padded rows": {"x": (2, 27, 31, 5), "k": 5, "f": 100, "stride": 2, "padding": 3},
    "along padded rows, by columns": {"x": (1, 5, 25, 70), "k": 3, "f": 200, "stride": 2, "padding": 1},
    "along rows as they lie": {"x": (2, 9, 31, 17), "k": 3, "f": 70, "stride": 2},
    "along rows of fourteen": {"x": (1, 29, 28, 70), "k": 3, "f": 48, "stride": 2, "padding": 1},
    "gathered": {"x": (3, 15, 15, 65), "k": 3, "f": 70, "stride": 2, "padding": 1},
    "gathered, by columns": {"x": (1, 9, 9, 33), "k": 5, "f": 264, "stride": 2, "padding": 2},
}

POOLED: dict[str, dict[str, Any]] = {
    "along padded rows": {"x": (2, 64, 75, 3), "k": 7, "f": 64, "stride": 2, "padding": 3},
    "more parts than rows": {"x": (2, 9, 33, 5), "k": 5, "f": 72, "stride": 2, "padding": 2},
    "gathered": {"x": (3, 15, 15, 20), "k": 3, "f": 70, "stride": 2, "padding": 1},
    "pointwise": {"x": (2, 13, 14, 20), "k": 1, "f": 70},
    "minimal filtering": {"x": (2, 13, 14, 20), "k": 3, "f": 37, "padding": 1},
    "few filters": {"x": (9, 13, 14, 3), "k": 3, "f": 20, "stride": 2, "padding": 1},
    "few filters, pointwise": {"x": (2, 13, 14, 20), "k": 1, "f": 20},
    "few filters along padded rows": {"x": (2, 13, 26, 3), "k": 3, "f": 26, "stride": 2, "padding": 1},
    "pointwise, in groups": {"x": (2, 13, 14, 68), "k": 1, "f": 68, "groups": 2},
}

WINDOWS: dict[str, dict[str, Any]] = {
    "overlapping": {"size": 3, "stride": 2},
    "over padding": {"size": 3, "stride": 2, "padding": 1},
    "beyond the map": {"size": 3, "stride": 2, "ceil_mode": True},
    "side by side": {"size": 2},
    "apart": {"size": (2, 1), "stride": 3},
    "whole": {"size": (4, 5), "stride": 1},
}


def folded(
    case: str,
    residual: bool,
    relu: bool,
    images: slice = slice(None),
    y: np.ndarray | None = None,
    windows: Mapping[str, Any] | None = None,
) -> Any:
    """(y, residual) of a case, of these images alone; written to y if that is given, or its windows' maxima."""
    given = (CASES if windows is None else POOLED)[case]
    rng, groups, f, k = np.random.default_rng(0), given.get("groups", 1), given["f"], given["k"]
    x = rng.standard_normal(given["x"], np.float32)[images]
    w = rng.standard_normal((k, k, x.shape[-1] // groups, f), np.float32)
    d = conv2d(x.shape, w.shape, None, given.get("stride", 1), given.get("padding", 0), 1, groups)
    b = rng.standard_normal(f, np.float32)
    shape = (len(x), d.oh, d.ow, f)
    other = rng.standard_normal(shape, np.float32) if residual else None
    pool = windows_of(shape, **{"size": 1} if windows is None else windows)
    y = np.empty((len(x), pool.oh, pool.ow, f), np.float32) if y is None else y
    write(x, w, b, d, other, relu, pool, y)
    return y, other


def write(x: Any, w: Any, b: Any, d: Any, residual: Any, relu: bool, pool: Any, y: Any) -> None:
    """Fold the filters and call the kernel."""
    packed, bias = np.empty(NUMBA.conv2d_fold_size(d), np.float32), np.empty(len(b), np.float32)
    NUMBA.conv2d_fold(w, b, None, None, None, None, 0.0, d, packed, bias)
    scratch = np.full(NUMBA.conv2d_folded_scratch(d, len(x)), np.nan, np.float32)
    NUMBA.conv2d_folded(x, packed, bias, residual, relu, pool, d, scratch, y)


def windows_of(shape: tuple[int, ...], size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> Any:
    """The dims of windows over maps."""
    return pool2d(shape, size, stride, padding, "conv2d_folded", ceil_mode=ceil_mode)


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_come_out_as_in_the_definition(case: str) -> None:
    """Their sums are exact, whatever the order."""
    given = CASES[case]
    draw, groups, k, channels = np.random.default_rng(0), given.get("groups", 1), given["k"], given["x"][-1]
    shapes = given["x"], (k, k, channels // groups, given["f"]), given["f"]
    x, w, b = (draw.integers(-9, 10, shape).astype(np.float32) for shape in shapes)
    stride, padding = given.get("stride", 1), given.get("padding", 0)
    expected = kernels.get("numpy").conv2d(x, w, b, stride=stride, padding=padding, groups=groups)
    y = np.empty_like(expected)
    write(x, w, b, conv2d(x.shape, w.shape, None, stride, padding, 1, groups), None, False, windows_of(y.shape, 1), y)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("case", CASES)
def test_some_channels_of_a_larger_array_are_written_and_no_others(case: str) -> None:
    plain, _ = folded(case, residual=False, relu=True)
    whole = np.full((*plain.shape[:-1], plain.shape[-1] + 8), np.nan, np.float32)
    folded(case, residual=False, relu=True, y=whole[..., 3:-5])
    assert whole[..., 3:-5].tobytes() == plain.tobytes()
    assert np.isnan(whole[..., :3]).all()
    assert np.isnan(whole[..., -5:]).all()


@pytest.mark.parametrize("case", CASES)
def test_a_residual_is_added_last_and_before_the_relu(case: str) -> None:
    plain, _ = folded(case, residual=False, relu=False)
    for relu in (False, True):
        y, other = folded(case, residual=True, relu=relu)
        total = plain + other
        np.testing.assert_array_equal(y, np.maximum(total, 0) if relu else total)


@pytest.mark.parametrize("case", CASES)
def test_an_image_comes_out_the_same_in_any_company(case: str) -> None:
    together, _ = folded(case, residual=False, relu=True)
    for at in range(len(together)):
        alone, _ = folded(case, residual=False, relu=True, images=slice(at, at + 1))
        assert alone.tobytes() == together[at : at + 1].tobytes()


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("case", POOLED)
def test_windows_of_any_kind_are_pooled_as_if_afterwards(case: str, windows: str) -> None:
    plain, _ = folded(case, residual=False, relu=True, windows={"size": 1})
    pool = windows_of(plain.shape, **WINDOWS[windows])
    expected = np.empty((len(plain), pool.oh, pool.ow, plain.shape[-1]), np.float32)
    NUMBA.maxpool2d_inference(plain, pool, expected)
    pooled, _ = folded(case, residual=False, relu=True, windows=WINDOWS[windows])
    assert pooled.tobytes() == expected.tobytes()
    for at in range(len(pooled)):
        alone, _ = folded(case, residual=False, relu=True, images=slice(at, at + 1), windows=WINDOWS[windows])
        assert alone.tobytes() == pooled[at : at + 1].tobytes()
    whole = np.full((*pooled.shape[:-1], pooled.shape[-1] + 8), np.nan, np.float32)
    folded(case, residual=False, relu=True, y=whole[..., 3:-5], windows=WINDOWS[windows])
    assert whole[..., 3:-5].tobytes() == pooled.tobytes()
    assert np.isnan(whole[..., :3]).all()
    assert np.isnan(whole[..., -5:]).all()


@pytest.mark.parametrize("n", [1, 2, 5, 8, 12, 13])
def test_few_rows_times_weights_that_no_near_cache_holds(n: int) -> None:
    """Weights are read where they lie, some rows at a time, but for the last columns. Of whole numbers every sum is
    exact, whatever its order."""
    draw = np.random.default_rng(n)
    x, w, b = (draw.integers(-9, 10, shape).astype(np.float32) for shape in ((n, 1100), (1100, 2070), 2070))
    np.testing.assert_array_equal(kernels.get("numba").linear(x, w, b), x @ w + b)


@pytest.mark.parametrize("columns", [700, 777])
def test_many_rows_that_no_near_cache_holds(columns: int) -> None:
    """Weights are packed, some panels and some of their rows at a time; sums are exact as above."""
    draw = np.random.default_rng(columns)
    x, w, b = (draw.integers(-9, 10, shape).astype(np.float32) for shape in ((530, 1100), (1100, columns), columns))
    np.testing.assert_array_equal(kernels.get("numba").linear(x, w, b), x @ w + b)
