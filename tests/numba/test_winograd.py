"""Inference of convolutions by minimal filtering: as close as any other, and each output by its own pixels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels.accuracy import Call
from kernels.numba_backend.tiles.winograd import is_winograd
from kernels.shapes import Conv2dDims, conv2d, pool2d

from ..support.conformance import MODULES, POISONS, assert_close, execute
from ..support.fused import REFERENCE

NUMBA = kernels.get("numba")
EVEN, NONE, UNEVEN, WIDE = ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 1), (2, 0)), ((2, 2), (2, 2))

CASES: dict[str, dict[str, Any]] = {
    "one tile of channels": {"x": (1, 7, 7, 16), "f": 16},
    "odd channels and filters, no padding": {"x": (1, 8, 9, 17), "f": 33, "padding": NONE},
    "uneven padding": {"x": (2, 7, 7, 40), "f": 72, "padding": UNEVEN},
    "more padding than filters reach": {"x": (1, 14, 14, 36), "f": 32, "padding": WIDE},
    "small maps": {"x": (40, 6, 6, 16), "f": 16, "padding": NONE},
    "blocks of one thread": {"x": (8, 28, 28, 16), "f": 20, "padding": WIDE},
    "blocks of all threads": {"x": (5, 17, 19, 24), "f": 300, "padding": UNEVEN},
    "without a ReLU": {"x": (2, 9, 8, 24), "f": 40, "relu": False},
    "windows of 2 by 2": {"x": (3, 13, 11, 20), "f": 48, "pool": 2},
    "windows of 2 by 2, in blocks": {"x": (16, 12, 13, 32), "f": 32, "pool": 2, "padding": UNEVEN},
    "windows of 3 by 3": {"x": (2, 15, 15, 33), "f": 40, "pool": 3, "padding": NONE},
    "windows of 2 by 3": {"x": (1, 9, 30, 64), "f": 65, "pool": (2, 3), "relu": False},
}


def fold(backend: Any, w: np.ndarray, constants: dict[str, np.ndarray], d: Conv2dDims) -> dict[str, np.ndarray]:
    """What `conv2d_fold` writes on a backend, to arrays that hold NaN."""
    packed = np.full(backend.conv2d_fold_size(d), np.nan, w.dtype)
    bias = np.full(d.f, np.nan, w.dtype)
    backend.conv2d_fold(w, *constants.values(), 1e-3, d, packed, bias)
    return {"packed": packed, "bias": bias}


def calls(
    x: tuple[int, ...], f: int, dtype: Any, padding: Any = EVEN, pool: Any = 1, relu: bool = True
) -> tuple[Call, Call, Call]:
    """`conv2d_folded` as Numba is called, as the reference is, and as that is in float64."""
    rng = np.random.default_rng(0)
    image, w = rng.standard_normal(x).astype(dtype), rng.standard_normal((3, 3, x[-1], f)).astype(dtype)
    d = conv2d(image.shape, w.shape, None, padding=padding)
    assert is_winograd(d)
    constants = {name: rng.uniform(0.5, 1.5, f).astype(dtype) for name in ("b", "gamma", "beta", "mean", "var")}
    windows = pool2d((len(image), d.oh, d.ow, f), pool, None, 0, "conv2d_folded")
    shape = (len(image), windows.oh, windows.ow, f)

    def call(backend: Any, dtype: Any) -> Call:
        given = {name: array.astype(dtype) for name, array in constants.items()}
        folded = fold(backend, w.astype(dtype), given, d)
        rest = {"residual": None, "relu": relu, "pool": windows, "d": d}
        rest |= {"scratch": np.empty(0, dtype), "y": np.empty(shape, dtype)}
        return Call("conv2d_folded", {"x": image.astype(dtype), **folded, **rest})

    return call(NUMBA.backend, dtype), call(REFERENCE.backend, dtype), call(REFERENCE.backend, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_it_keeps_the_budget_of_a_convolution(case: str, dtype: Any) -> None:
    ours, reference, in_float64 = calls(**CASES[case], dtype=dtype)
    truth = execute(REFERENCE.backend, in_float64)
    own = execute(REFERENCE.backend, reference) if dtype == np.float32 else None
    for poison, shift in zip(POISONS, (0, 1), strict=True):
        assert_close(ours, execute(MODULES["numba"], ours, poison, shift), truth, own)


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_the_same_at_any_number_of_threads(case: str) -> None:
    call, before, results = calls(**CASES[case], dtype=np.float32)[0], kernels.get_threads(), []
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            results.append(execute(MODULES["numba"], call)["y"].tobytes())
    finally:
        kernels.set_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize("case", CASES)
def test_scratch_for_a_batch_is_enough_for_a_smaller_one(case: str) -> None:
    (n, *_), d = CASES[case]["x"], calls(**CASES[case], dtype=np.float32)[0].arguments["d"]
    sizes = [NUMBA.scratch_size("conv2d_folded", d, m) for m in range(1, 3 * n + 100)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", ["uneven padding", "blocks of one thread", "without a ReLU"])
def test_what_is_not_finite_reaches_the_outputs_that_see_it_and_no_other(case: str, value: float) -> None:
    ours, *_ = calls(**CASES[case] | {"relu": False}, dtype=np.float32)
    before = execute(MODULES["numba"], ours)["y"]
    d, x = ours.arguments["d"], ours.arguments["x"]
    rng = np.random.default_rng(1)
    for row, column in [(0, 0), (0, d.w - 1), (d.h - 1, d.w - 1), *rng.integers(0, (d.h, d.w), (8, 2)).tolist()]:
        spoilt = x.copy()
        spoilt[-1, row, column, rng.integers(d.c)] = value
        y = execute(MODULES["numba"], Call("conv2d_folded", ours.arguments | {"x": spoilt}))["y"]
        sees = np.zeros(y.shape, bool)
        top, left = max(row + d.pad_h - 2, 0), max(column + d.pad_w - 2, 0)
        sees[-1, top : row + d.pad_h + 1, left : column + d.pad_w + 1] = True
        assert not np.isfinite(y[sees]).any()
        assert y[~sees].tobytes() == before[~sees].tobytes()


def test_what_takes_another_path() -> None:
    """Windows, strides, gaps and groups that it does not cover, and layers too small to gain."""
    x, w = (1, 14, 14, 32), (3, 3, 32, 32)
    assert is_winograd(conv2d(x, w, None))
    for setting in ({"stride": 2}, {"stride": (1, 2)}, {"dilation": 2}, {"dilation": (2, 1)}):
        assert not is_winograd(conv2d(x, w, None, **setting))  # type: ignore[arg-type]
    assert not is_winograd(conv2d(x, (3, 3, 8, 32), None, groups=4))
    for taps in ((1, 3), (3, 1), (5, 5)):
        assert not is_winograd(conv2d(x, (*taps, 32, 32), None))
    assert not is_winograd(conv2d((1, 14, 14, 8), (3, 3, 8, 32), None))
    assert not is_winograd(conv2d(x, (3, 3, 32, 8), None))
    assert not is_winograd(conv2d((1, 5, 5, 32), w, None))
