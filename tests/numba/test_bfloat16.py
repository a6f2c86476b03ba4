"""Contractions of bfloat16 numbers in pairs, on whatever multiplies them: the matrix unit, vdpbf16ps, or other vector
instructions in its place. Beside the twins of `support.fused`, in float64 and of rounded operands."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import kernels
from kernels import accuracy, shapes
from kernels.numba_backend.tiles.tile import BFLOAT16_UNIT, UNITS, TileShape, tile_fma, tile_zeros

from ..support import fused
from ..support.processes import forked, run

pairs = importlib.import_module("kernels.numba_backend.pairs")
NUMPY, NUMBA = kernels.get("numpy"), kernels.get("numba")
SMALLEST = float(np.finfo(np.float32).tiny)
SIZES = [(1, 1, 1), (3, 5, 7), (9, 33, 17), (8, 64, 40), (33, 300, 10), (64, 1058, 33), (130, 784, 100)]
# n, h, w, c, kh, kw, f, stride, padding, dilation
CONVOLUTIONS = [
    (2, 7, 6, 3, 3, 3, 5, 1, 1, 1),
    (20, 9, 8, 4, 3, 2, 19, 2, 1, 1),
    (33, 7, 7, 1, 3, 3, 8, 1, 0, 2),
    (40, 12, 12, 16, 5, 5, 32, 1, 0, 1),
    (17, 10, 10, 48, 3, 3, 40, 1, 1, 1),
    (35, 9, 9, 58, 1, 1, 33, 2, 0, 1),
    (16, 3, 40, 6, 3, 5, 16, 1, 2, 1),  # a filter as high as the image
    (65, 1, 1, 20, 1, 1, 20, 1, 0, 1),
]
KINDS = ["normal", "denormal"]


def drawn(shape: tuple[int, ...], seed: int, kind: str = "normal") -> np.ndarray:
    """Normal numbers; or such that their products and sums are about as large as the smallest normal float."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return x * np.float32(SMALLEST) if kind == "denormal" else x


def filled(size: Any) -> np.ndarray:
    """What a kernel has to write over, and may read nowhere else."""
    return np.full(size, np.nan, np.float32)


def share(y: np.ndarray, truth: np.ndarray, terms: int, largest: float) -> float:
    """The share that an error takes of a contraction's budget, and of what flushing may lose."""
    ulp = np.finfo(np.float32).eps * np.abs(truth).max()
    allowed = accuracy.budget(ulp, terms, np.float32) + accuracy.flushed(terms, largest)
    return float(np.abs(y - truth).max() / allowed)


def largest(*arrays: np.ndarray) -> float:
    return max(float(np.abs(a).max()) for a in arrays)


def wide(*arrays: Any) -> list[Any]:
    """Arrays rounded to bfloat16, as float64."""
    return [NUMPY.round_to_bfloat16(a).astype(np.float64) for a in arrays]


# Linear ------------------------------------------------------------------------------------------------------------


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    d, y = shapes.linear(x.shape, w.shape, None), filled((len(x), w.shape[1]))
    pairs.linear_bfloat16(x, w, b, d, filled(pairs.linear_bfloat16_scratch(d, len(x))), y)
    return y


def folded(x: np.ndarray, w: np.ndarray, b: np.ndarray, relu: bool = False) -> np.ndarray:
    d, y = shapes.linear(x.shape, w.shape, None), filled((len(x), w.shape[1]))
    packed, bias = filled(NUMBA.fold_size("linear", d)), filled(b.shape)
    pairs.linear_fold_bfloat16(w, b, d, packed, bias)
    scratch = filled(pairs.linear_folded_bfloat16_scratch(d, len(x)))
    pairs.linear_folded_bfloat16(x, packed, bias, relu, d, scratch, y)
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_linear_layers_are_those_of_rounded_numbers(size: tuple[int, int, int], kind: str) -> None:
    n, k, m = size
    x, w, b = drawn((n, k), 0, kind), drawn((k, m), 1), drawn((m,), 2, kind)
    y, (wide_x, wide_w) = folded(x, w, b), wide(x, w)
    assert share(y, wide_x @ wide_w + b, k + 1, largest(x, w)) <= 1
    np.testing.assert_array_equal(folded(x, w, b, relu=True), np.maximum(y, 0))
    assert share(linear(x, w, b), wide_x @ wide_w + b, k + 1, largest(x, w)) <= 1

    dy, d = drawn((n, m), 3), shapes.linear(x.shape, w.shape, None)
    dx, dw = filled(x.shape), filled(w.shape)
    pairs.linear_backward_bfloat16(dy, x, w, d, filled(pairs.linear_backward_bfloat16_scratch(d, n)), dx, dw)
    (wide_dy,) = wide(dy)
    assert share(dx, wide_dy @ wide_w.T, m, largest(dy, w)) <= 1
    assert share(dw, wide_x.T @ wide_dy, n, largest(dy, x)) <= 1


# Convolutions ------------------------------------------------------------------------------------------------------


def convolution(case: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, dict[str, int], shapes.Conv2dDims]:
    n, h, w, c, kh, kw, f, stride, padding, dilation = case
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    x, filters = drawn((n, h, w, c), 0), drawn((kh, kw, c, f), 1)
    return x, filters, options, shapes.conv2d(x.shape, filters.shape, None, **options)


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, d: shapes.Conv2dDims) -> np.ndarray:
    y = filled((len(x), d.oh, d.ow, d.f))
    pairs.conv2d_bfloat16(x, w, b, d, filled(pairs.conv2d_bfloat16_scratch(d, len(x))), y)
    return y


def conv2d_backward(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, d: shapes.Conv2dDims
) -> tuple[np.ndarray, np.ndarray]:
    dx, dw = filled(x.shape), filled(w.shape)
    pairs.conv2d_backward_bfloat16(dy, x, w, d, filled(pairs.conv2d_backward_bfloat16_scratch(d, len(x))), dx, dw)
    return dx, dw


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_are_those_of_rounded_numbers(case: tuple[int, ...]) -> None:
    x, w, options, d = convolution(case)
    b, dy = drawn((d.f,), 2), drawn((len(x), d.oh, d.ow, d.f), 3)
    wide_x, wide_w, wide_dy = wide(x, w, dy)
    taps = d.kh * d.kw
    truth = NUMPY.conv2d(wide_x, wide_w, b.astype(np.float64), **options)
    assert share(conv2d(x, w, b, d), truth, taps * d.c + 1, largest(x, w)) <= 1
    true_dx, true_dw, _ = NUMPY.conv2d_backward(wide_dy, wide_x, wide_w, **options)
    dx, dw = conv2d_backward(dy, x, w, d)
    assert share(dx, true_dx, taps * d.f, largest(dy, w)) <= 1
    assert share(dw, true_dw, len(x) * d.oh * d.ow, largest(dy, x)) <= 1
    alone = filled(w.shape)
    scratch = filled(pairs.conv2d_backward_bfloat16_scratch(d, len(x)))
    pairs.conv2d_backward_bfloat16(dy, x, w, d, scratch, None, alone)
    np.testing.assert_array_equal(alone, dw)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_folded_convolutions_are_their_twins(case: tuple[int, ...]) -> None:
    x, w, _, d = convolution(case)
    b, gamma, beta, mean = (drawn((d.f,), seed) for seed in range(2, 6))
    var, terms = np.abs(drawn((d.f,), 6)) + np.float32(0.1), d.kh * d.kw * d.c + 4
    statistics = (gamma, beta, mean, var)
    for norm, window, relu, joined in (
        (statistics, 1, True, True),
        (statistics, 2, True, False),
        ((None,) * 4, 1, False, False),
    ):
        if window > min(d.oh, d.ow):
            continue
        pool = shapes.pool2d((len(x), d.oh, d.ow, d.f), window, None, 0, "pool")
        residual = drawn((len(x), d.oh, d.ow, d.f), 7) if joined else None
        results = []
        for fold, apply, size in (
            (pairs.conv2d_fold_bfloat16, pairs.conv2d_folded_bfloat16, NUMBA.fold_size("conv2d", d)),
            (fused.conv2d_fold_bfloat16, fused.conv2d_folded_bfloat16, w.size),
        ):
            packed, scale, bias, y = filled(size), filled(d.f), filled(d.f), filled((len(x), pool.oh, pool.ow, d.f))
            fold(w, b, *norm, 1e-5, d, packed, scale, bias)
            scratch = filled(pairs.conv2d_folded_bfloat16_scratch(d, len(x)))
            apply(x, packed, scale, bias, residual, relu, pool, d, scratch, y)
            results.append(y)
        assert share(*results, terms, largest(x, w)) <= 1


# What is no number, and what is too small for one ------------------------------------------------------------------


def test_nan_and_infinities_go_through_and_numbers_beside_them_stay() -> None:
    x, w, b = drawn((5, 7), 0), drawn((7, 3), 1), drawn((3,), 2)
    for product in (linear, folded):
        plain = product(x, w, b)
        for value in (np.nan, np.array(0x7F800001, np.uint32).view(np.float32), np.inf, 3.4e38):
            changed = x.copy()
            changed[2, 6] = value
            with np.errstate(invalid="ignore"):
                expected = NUMPY.linear(NUMPY.round_to_bfloat16(changed), NUMPY.round_to_bfloat16(w), b)
            y = product(changed, w, b)
            np.testing.assert_array_equal(y[[0, 1, 3, 4]], plain[[0, 1, 3, 4]])
            np.testing.assert_array_equal(y[2], expected[2])


@pytest.mark.parametrize("where", ["x", "w", "dy"])
def test_what_is_not_finite_reaches_the_terms_that_it_belongs_to_alone(where: str) -> None:
    """Padding, the zeros that fill pairs and blocks, and what tiles read too much of are terms of no sum."""
    for case in CONVOLUTIONS:
        x, w, options, d = convolution(case)
        dy = drawn((len(x), d.oh, d.ow, d.f), 3)
        arrays = {"x": x, "w": w, "dy": dy}
        arrays[where][(0,) * 4], arrays[where][(-1,) * 4] = np.nan, np.inf
        with np.errstate(invalid="ignore"):
            of = {name: NUMPY.round_to_bfloat16(a) for name, a in arrays.items()}
            expected = (
                NUMPY.conv2d(of["x"], of["w"], None, **options),
                *NUMPY.conv2d_backward(of["dy"], of["x"], of["w"], **options)[:2],
            )
        for found, wanted in zip((conv2d(x, w, None, d), *conv2d_backward(dy, x, w, d)), expected, strict=True):
            np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted), err_msg=f"{case}")


def by_instruction(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What vdpbf16ps is said to do (Intel 64 and IA-32 Architectures Software Developer's Manual), pair by pair: two
    multiply-adds of one rounding each, the second numbers' first; denormal factors and results are zeros."""

    def flush(a: np.ndarray) -> np.ndarray:
        return np.where(np.abs(a) < SMALLEST, np.copysign(np.float32(0), a), a).astype(np.float32)

    left, right = flush(NUMPY.round_to_bfloat16(x)), flush(NUMPY.round_to_bfloat16(w))
    if x.shape[1] % 2:
        left, right = np.pad(left, ((0, 0), (0, 1))), np.pad(right, ((0, 1), (0, 0)))
    y = np.broadcast_to(flush(b), (len(x), len(b)))
    for pair in range(0, left.shape[1], 2):
        for k in (pair + 1, pair):
            y = flush(y + left[:, k, None].astype(np.float64) * right[k])
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES[1:4], ids=str)
def test_the_instruction_as_it_is_described_keeps_to_the_budget(size: tuple[int, int, int], kind: str) -> None:
    n, k, m = size
    x, w, b = drawn((n, k), 0, kind), drawn((k, m), 1), drawn((m,), 2, kind)
    y, (wide_x, wide_w) = by_instruction(x, w, b), wide(x, w)
    truth = wide_x @ wide_w + b
    assert share(y, truth, k + 1, largest(x, w)) <= 1
    if kind == "normal":
        np.testing.assert_allclose(folded(x, w, b), y, rtol=1e-5, atol=1e-5)
    else:
        assert np.abs(y - truth).max() > 2 * SMALLEST * 2.0**-23, "what flushing loses is nothing"


def test_a_tile_of_pairs_multiplies_both_numbers() -> None:
    two = np.array([0x3F80_4000, 0x4040_BF80], np.uint32).view(np.float32)  # (2, 1) and (-1, 3), the first below
    shape = TileShape(2, 1, 2, pairs=True)
    b = np.full(64, two[1], np.float32)
    tile = tile_fma(tile_zeros(shape, b), two, 0, 1, 0, b, 0)
    assert tile.values[:, 0].tolist() == [2 * -1 + 1 * 3, 1 + 9]


# Units -------------------------------------------------------------------------------------------------------------


def test_threads_change_nothing() -> None:
    x, w, _, d = convolution(CONVOLUTIONS[3])
    dy, before = drawn((len(x), d.oh, d.ow, d.f), 3), kernels.get_threads()
    results: list[list[np.ndarray]] = []
    try:
        for threads in {1, before}:
            kernels.set_threads(threads)
            results.append([conv2d(x, w, None, d), *conv2d_backward(dy, x, w, d)])
    finally:
        kernels.set_threads(before)
    for found in results[1:]:
        for one, other in zip(results[0], found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not BFLOAT16_UNIT, reason="nothing here multiplies bfloat16 numbers faster than float32")
def test_a_model_takes_the_unit_where_the_processor_has_it() -> None:
    import models

    assert NUMBA.has("linear_folded_bfloat16")
    x = np.random.default_rng(0).standard_normal((33, 28, 28, 1)).astype(np.float32)
    for name in ("mlp-512", "cnn-bn"):
        model = models.build(name, "numba", precision="bfloat16")
        definition = model.to("numpy").predict(x)
        assert np.abs(model.predict(x) - definition).max() < 2.0**-8 * np.abs(definition).max()


SELF = """
import pytest, sys
sys.exit(pytest.main(["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", "rounded or twins or terms", FILE]))
"""


@pytest.mark.skipif(BFLOAT16_UNIT != "amx", reason="there is no matrix unit to do without")
def test_vdpbf16ps_gives_the_same_within_the_budget() -> None:
    run(f"FILE = {__file__!r}\n{SELF}", TWINKERNELS_BFLOAT16="avx512")


CODE = """
from numba import types
from kernels.numba_backend import pairs
from kernels.numba_backend.compiler.jit import functions
from kernels.numba_backend.tiles.tile import BFLOAT16_UNIT
product = functions["kernels.numba_backend.pairs", "multiply_block"]
declared = product.declared(types.float32)
product.dispatcher.compile(declared)
assembly = product.dispatcher.overloads[declared].library.get_asm_str()
print(BFLOAT16_UNIT == "avx512", "linear_folded_bfloat16" in pairs.__all__, assembly.count("vdpbf16ps") > 8)
"""


@pytest.mark.skipif(llvm.llvm_version_info[0] < 20, reason="this LLVM knows no processor that has the instruction")
@pytest.mark.parametrize(("target", "expected"), [("znver4", True), ("x86-64-v3", False)])
def test_code_for_another_processor_has_the_instruction_or_does_without(
    target: str, expected: Any, tmp_path: Path
) -> None:
    environment = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "TWINKERNELS_BFLOAT16": "avx512"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)  # code that is read from a cache cannot be listed
    assert run(CODE, **environment) == [" ".join([str(expected)] * 3)]


def test_a_unit_is_taken_that_is_asked_for_and_there() -> None:
    code = "from kernels.numba_backend.tiles.tile import BFLOAT16_UNIT; print(BFLOAT16_UNIT or 'none')"
    assert forked(code, TWINKERNELS_BFLOAT16="none")[0] == ["none"]
    assert forked(code, TWINKERNELS_BFLOAT16="half")[0] == ["none"]
    for unit in UNITS:
        assert forked(code, TWINKERNELS_BFLOAT16=unit)[0] in (["none"], [unit])
