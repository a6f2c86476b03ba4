"""Elementwise kernels where they are special: zeros and their signs, NaN, infinities, denormals, kinks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernels
from benchmarks.suite.cases import select
from benchmarks.suite.common import record
from kernels import Kernels
from kernels.interface import roles

from ..support.conformance import MODULES

KERNELS = [
    name.removesuffix("_backward")
    for name in kernels.kernel_names()
    if list(roles(name))[:3] == ["dy", "x", "y"] and "softmax" not in name
]
INF, NAN = math.inf, math.nan


def options(kernel: str) -> dict[str, Any]:
    """The attributes of its first case."""
    call = record(select(kernel, "small")[0], np.float64)
    return {name: call.arguments[name] for name, role in roles(kernel).items() if role == "attribute"}


def same(one: np.ndarray, other: np.ndarray) -> None:
    """NaN, infinities and signs, those of zeros too, in the same places."""
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    numbers = ~np.isnan(one)
    np.testing.assert_array_equal(np.isinf(one), np.isinf(other))
    np.testing.assert_array_equal(np.signbit(one[numbers]), np.signbit(other[numbers]))
    np.testing.assert_array_equal(one[numbers] == 0, other[numbers] == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS)
def test_special_values_are_the_formulas(k: Kernels, kernel: str, dtype: type) -> None:
    tiny = float(np.finfo(dtype).smallest_subnormal)
    special = np.array([0.0, -0.0, NAN, INF, -INF, 1000 * tiny, -1000 * tiny, 1.0, -1.0], dtype)
    x = np.repeat(special, 5)  # in vector code and in what is left over
    own, expected = options(kernel), np.empty(x.shape)
    getattr(MODULES["naive"], kernel)(x.astype(np.float64), *own.values(), expected)
    with np.errstate(all="ignore"):
        y = getattr(k, kernel)(x, **own)
        same(y, expected.astype(dtype))
        dy, gradient = np.full_like(x, 2.0), np.empty(x.shape)
        MODULES["naive"].__dict__[f"{kernel}_backward"](dy, x, y, *own.values(), gradient)
        dx = getattr(k, f"{kernel}_backward")(dy, x, y, **own)
        gradient = gradient.astype(dtype)
    numbers = np.isfinite(gradient)
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(gradient))
    np.testing.assert_allclose(dx[numbers], gradient[numbers], rtol=1e-5, atol=1e-6)


KINKS: list[tuple[str, dict[str, float], list[float], list[float]]] = [
    ("relu", {}, [0.0, -0.0], [0, 0]),
    ("leaky_relu", {"negative_slope": 0.25}, [0.0], [0.25]),
    ("elu", {"alpha": 1.5}, [0.0], [1.5]),
    ("selu", {"alpha": 2.0, "gamma": 1.5}, [0.0], [3.0]),
    ("celu", {"alpha": 1.5}, [0.0], [1.0]),
    ("clip", {"low": 0.0, "high": 6.0}, [0.0, 6.0, 3.0], [0, 0, 1]),
    ("hard_sigmoid", {"alpha": 0.25, "beta": 0.5}, [-2.0, 2.0, 0.0], [0, 0, 0.25]),
    ("hard_swish", {}, [-3.0, 3.0, 0.0], [0, 1, 0.5]),
    ("thresholded_relu", {"alpha": 1.0}, [1.0, 1.5], [0, 1]),
    ("absolute", {}, [0.0, -0.0], [0, 0]),
    ("sqrt", {}, [0.0], [INF]),
    ("power", {"exponent": 0.0}, [0.0, 2.0], [0, 0]),
    ("power", {"exponent": 1.0}, [0.0, -2.0], [1, 1]),
]


@pytest.mark.parametrize(("kernel", "own", "x", "slopes"), KINKS, ids=[f"{row[0]}-{row[1]}" for row in KINKS])
def test_slopes_at_kinks_are_those_of_pytorch(
    k: Kernels, kernel: str, own: dict[str, float], x: list[float], slopes: list[float]
) -> None:
    x_ = np.array(x)
    y = getattr(k, kernel)(x_, **own)
    np.testing.assert_array_equal(getattr(k, f"{kernel}_backward")(np.ones_like(x_), x_, y, **own), slopes)


def test_bounds_that_cross_leave_the_upper(k: Kernels) -> None:
    """As ONNX has it."""
    np.testing.assert_array_equal(k.clip(np.array([-9.0, 0.0, 9.0]), 5.0, -2.0), [-2.0] * 3)


def test_a_power_of_whole_numbers_is_exact(k: Kernels) -> None:
    x = np.arange(-40, 41, dtype=np.float32)
    for exponent in (1.0, 2.0, 3.0, 4.0):
        np.testing.assert_array_equal(k.power(x, exponent), x.astype(np.float64) ** exponent)


def test_the_prelu_of_one_slope_is_leaky_relu(k: Kernels) -> None:
    x = np.random.default_rng(0).standard_normal((7, 5, 3))
    x.flat[:2] = 0.0, -0.0
    assert k.prelu(x, np.array([0.25])).tobytes() == k.leaky_relu(x, 0.25).tobytes()
