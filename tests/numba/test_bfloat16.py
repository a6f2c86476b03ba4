"""Products of pairs of bfloat16 numbers: the instruction that does them, put together of others where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import accuracy, shapes
from kernels.numba_backend import pairs
from kernels.numba_backend.tiles.tile import MULTIPLIES_BFLOAT16, TileShape, tile_fma, tile_zeros

from ..support.processes import run

NUMPY, NUMBA = kernels.get("numpy"), kernels.get("numba")
SMALLEST = float(np.finfo(np.float32).tiny)
SIZES = [(1, 1, 1), (3, 5, 7), (9, 33, 17), (8, 64, 40), (33, 300, 10), (130, 784, 100)]
KINDS = ["normal", "denormal"]


def factors(kind: str, n: int, k: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, w and b; or such an x and b that factors and sums are about as large as the smallest normal number."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, k), (k, m), (m,)))
    if kind == "denormal":
        x *= SMALLEST
        b *= SMALLEST
    return x, NUMPY.round_to_bfloat16(w), b


def by_kernel(x: np.ndarray, w: np.ndarray, b: np.ndarray, relu: bool = False) -> np.ndarray:
    d = shapes.linear(x.shape, w.shape, None)
    packed = np.full(NUMBA.fold_size("linear", d), np.nan, np.float32)
    bias, y = np.full_like(b, np.nan), np.full((len(x), len(b)), np.nan, np.float32)
    pairs.linear_fold_bfloat16(w, b, d, packed, bias)
    scratch = np.full(pairs.linear_folded_bfloat16_scratch(d, len(x)), np.nan, np.float32)
    pairs.linear_folded_bfloat16(x, packed, bias, relu, d, scratch, y)
    return y


def by_instruction(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What vdpbf16ps is said to do (Intel 64 and IA-32 Architectures Software Developer's Manual), pair by pair: two
    multiply-adds of one rounding each, the second numbers' first; denormal factors and results are zeros."""

    def flush(a: np.ndarray) -> np.ndarray:
        return np.where(np.abs(a) < SMALLEST, np.copysign(np.float32(0), a), a).astype(np.float32)

    left, right = flush(NUMPY.round_to_bfloat16(x)), flush(w)
    if x.shape[1] % 2:
        left, right = np.pad(left, ((0, 0), (0, 1))), np.pad(right, ((0, 1), (0, 0)))
    y = np.broadcast_to(flush(b), (len(x), len(b)))
    for pair in range(0, left.shape[1], 2):
        for k in (pair + 1, pair):
            y = flush(y + left[:, k, None].astype(np.float64) * right[k])
    return y


def share(y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray, flushing: bool = True) -> float:
    """The share that an error takes of a linear layer's budget, and of what flushing may lose."""
    rounded = NUMPY.round_to_bfloat16(x)
    truth = rounded.astype(np.float64) @ w.astype(np.float64) + b
    own = np.abs(NUMPY.linear(rounded, w, b) - truth).max()
    terms = x.shape[1] + 1
    allowed = accuracy.budget(np.finfo(np.float32).eps * np.abs(truth).max(), terms, np.float32, own)
    if flushing:
        allowed += accuracy.flushed(terms, max(np.abs(rounded).max(), np.abs(w).max()))
    return float(np.abs(y - truth).max() / allowed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_of_pairs_are_those_of_rounded_numbers(size: tuple[int, int, int], kind: str) -> None:
    given = factors(kind, *size)
    y = by_kernel(*given)
    assert share(y, *given, flushing=MULTIPLIES_BFLOAT16) <= 1
    np.testing.assert_array_equal(by_kernel(*given, relu=True), np.maximum(y, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES[1:4], ids=str)
def test_the_instruction_as_it_is_described_keeps_to_the_budget(size: tuple[int, int, int], kind: str) -> None:
    given = factors(kind, *size)
    y = by_instruction(*given)
    assert share(y, *given) <= 1
    if kind == "normal":
        np.testing.assert_allclose(by_kernel(*given), y, rtol=1e-5, atol=1e-5)
    else:
        assert share(y, *given, flushing=False) > 2, "what flushing loses is nothing"


def test_nan_and_infinities_go_through_and_numbers_beside_them_stay() -> None:
    x, w, b = factors("normal", 5, 7, 3)
    plain = by_kernel(x, w, b)
    for value in (np.nan, np.array(0x7F800001, np.uint32).view(np.float32), np.inf, 3.4e38):
        changed = x.copy()
        changed[2, 6] = value
        with np.errstate(invalid="ignore"):
            expected = NUMPY.linear(NUMPY.round_to_bfloat16(changed), w, b)
        y = by_kernel(changed, w, b)
        np.testing.assert_array_equal(y[[0, 1, 3, 4]], plain[[0, 1, 3, 4]])
        np.testing.assert_array_equal(y[2], expected[2])


def test_a_tile_of_pairs_multiplies_both_numbers() -> None:
    pairs = np.array([0x3F80_4000, 0x4040_BF80], np.uint32).view(np.float32)  # (2, 1) and (-1, 3), the first below
    shape = TileShape(2, 1, 2, pairs=True)
    b = np.full(64, pairs[1], np.float32)
    tile = tile_fma(tile_zeros(shape, b), pairs, 0, 1, 0, b, 0)
    assert tile.values[:, 0].tolist() == [2 * -1 + 1 * 3, 1 + 9]


@pytest.mark.skipif(
    not MULTIPLIES_BFLOAT16,
    reason="TWINKERNELS_VDPBF16PS is not 1, or no AVX512_BF16",
)
def test_a_model_takes_the_instruction_where_the_processor_has_it() -> None:
    import models

    model = models.build("mlp-512", "numba", precision="bfloat16")
    assert NUMBA.has("linear_folded_bfloat16")
    x = np.random.default_rng(0).standard_normal((33, 28, 28, 1)).astype(np.float32)
    definition = model.to("numpy").predict(x)
    assert np.abs(model.predict(x) - definition).max() < 2.0**-8 * np.abs(definition).max()


CODE = """
from numba import types
from kernels.numba_backend import pairs
from kernels.numba_backend.compiler.jit import functions
from kernels.numba_backend.tiles.tile import MULTIPLIES_BFLOAT16
product = functions["kernels.numba_backend.pairs", "multiply_pairs"]
declared = product.declared(types.float32)
product.dispatcher.compile(declared)
assembly = product.dispatcher.overloads[declared].library.get_asm_str()
print(MULTIPLIES_BFLOAT16, "linear_folded_bfloat16" in pairs.__all__, assembly.count("vdpbf16ps") > 8)
"""


@pytest.mark.parametrize(("target", "expected"), [("znver4", True), ("x86-64-v3", False)])
def test_code_for_another_processor_has_the_instruction_or_does_without(target: str, expected: Any) -> None:
    assert run(CODE, NUMBA_CPU_NAME=target, NUMBA_CPU_FEATURES="", TWINKERNELS_VDPBF16PS="1") == [
        " ".join([str(expected)] * 3)
    ]
