"""The one measure of errors: its unit, its budget, and that nothing which is no number passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks.suite.cases import get
from benchmarks.suite.common import record
from kernels import Kernel, accuracy
from kernels.accuracy import Call, Results, closeness
from kernels.interface import Input, Output

from ..support.conformance import assert_close

NUMPY = kernels.get("numpy")
WRONG = (np.nan, np.inf, -np.inf)
FLOATS = ("relu/small", "tanh/odd", "linear/small", "conv2d_backward/small", "batchnorm/image", "adam/first-step")


def middle(array: np.ndarray, value: float) -> np.ndarray:
    """A copy with another value in the middle."""
    changed = array.copy()
    changed.flat[array.size // 2] = value
    return changed


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case_id", FLOATS)
def test_what_is_no_number_has_no_budget(case_id: str, dtype: str, wrong: float) -> None:
    call = record(get(case_id), dtype)
    truth, right = call.in_float64().results(NUMPY), call.results(NUMPY)
    assert_close(call, right, truth, right)
    for name, array in right.items():
        if array.dtype.kind == "f":
            planted = {**right, name: middle(array, wrong)}
            found = closeness(call, planted, truth)[name]
            assert found.ulps == found.share == math.inf
            with pytest.raises(AssertionError, match=f"{name}: inf times its budget"):
                assert_close(call, planted, truth)
            # Nor is a number right where the truth is none, nor any where the definition itself is wrong.
            assert closeness(call, right, {**truth, name: middle(truth[name], wrong)})[name].share == math.inf
            assert closeness(call, planted, truth, planted)[name].share == math.inf


def test_a_wrong_baseline_excuses_nothing() -> None:
    call = record(get("linear/small"))
    truth, right = call.in_float64().results(NUMPY), call.results(NUMPY)
    off: Results = {"y": right["y"] * np.float32(1.001)}
    for value in WRONG:
        alone = closeness(call, off, truth)["y"].share
        assert closeness(call, off, truth, {"y": middle(right["y"], value)})["y"].share == alone > 1.0


def test_nan_and_infinities_are_right_where_the_truth_has_them() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert accuracy.errors(values, values.astype(np.float64)).tolist() == [0.0] * 4
    assert accuracy.errors(values, values[[1, 2, 0, 3]].astype(np.float64)).tolist() == [math.inf] * 3 + [0.0]
    # 1e39 is infinite in float32, and its truth there.
    assert accuracy.errors(values[1:2], np.array([1e39])).tolist() == [0.0]
    assert accuracy.errors(values[3:], np.array([1e39])).tolist() == [math.inf]


def test_whole_numbers_are_equal_or_wrong() -> None:
    assert accuracy.errors(np.array([1, 2]), np.array([1, 3])).tolist() == [0.0, math.inf]
    assert accuracy.errors(np.array([True, False]), np.array([True, True])).tolist() == [0.0, math.inf]


def test_a_unit_is_an_elements_own_where_outputs_do_not_mix() -> None:
    x = np.array([1.0, 1e-3], np.float32)
    call = Call("relu", {"x": x, "y": np.empty_like(x)})
    truth = {"y": x.astype(np.float64)}
    off = {"y": np.nextafter(x, np.float32(2.0), dtype=np.float32)}
    found = closeness(call, off, truth)["y"]
    assert found.ulps == pytest.approx(1.0, abs=0.2)
    assert found.budget[0] / found.budget[1] == pytest.approx(1e3)
    assert closeness(call, {"y": off["y"] + np.float32([0, 1e-6])}, truth)["y"].share > 1.0


def test_a_unit_is_the_terms_where_they_cancel() -> None:
    x = np.full((4, 2), 3.0, np.float32)
    d = kernels.shapes.channels(x.shape, "batchnorm")
    call = Call(
        "batchnorm",
        {"x": x, "d": d, **dict.fromkeys(("gamma", "beta", "eps", "scratch"), None)}
        | {name: np.empty(2, np.float32) for name in ("mean", "inv_std", "var")}
        | {"y": np.empty_like(x)},
    )
    assert accuracy.scales(call, "y", np.zeros((4, 2))).tolist() == [[3.0] * 2] * 4
    assert accuracy.scales(call, "mean", np.array([0.5, 2.0])).tolist() == [2.0] * 2
    assert accuracy.scales(call, "mean", np.array([0.5, 2.0]), cancelling=True).tolist() == [3.0] * 2


@pytest.mark.parametrize(("dtype", "one", "hundred"), [("float32", 4.0, 22.0), ("float64", 16.0, 88.0)])
def test_a_budget_grows_with_the_root_of_the_terms(dtype: str, one: float, hundred: float) -> None:
    tiny = float(np.finfo(dtype).tiny)
    assert accuracy.budget(1.0, 1, dtype) == one + tiny
    assert accuracy.budget(1.0, 100, dtype) == hundred + tiny
    assert accuracy.budget(0.5, 100, dtype, baseline=2.0) == 0.5 * hundred + 8.0 + tiny


def test_shapes_and_names_are_compared_first() -> None:
    with pytest.raises(ValueError, match=r"result has shape \(2,\), expected the truth's, \(1,\)"):
        accuracy.errors(np.zeros(2), np.zeros(1))
    call = record(get("relu/small"))
    with pytest.raises(ValueError, match="results are of z; expected the truth's, y"):
        closeness(call, {"z": np.zeros(1)}, {"y": np.zeros(1)})


def test_a_kernel_written_elsewhere_is_measured_at_its_largest() -> None:
    def double(x: Input, y: Output) -> None:
        np.multiply(x, 2.0, out=y)

    x = np.array([1.0, 4.0], np.float32)
    call = Call(Kernel(double), {"x": x, "y": np.empty_like(x)})
    written: dict[str, Any] = call.results(NUMPY)
    assert written["y"].tolist() == [2.0, 8.0]
    assert accuracy.scales(call, "y", written["y"]).tolist() == [8.0, 8.0]
