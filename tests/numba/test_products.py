"""Matrix products of sizes that no case of the table has: every way to share, cut and pack them is exact."""

from __future__ import annotations

import numpy as np
import pytest

import kernels

SIZES = [
    (260, 77, 70),  # x is read down its columns, many of them
    (64, 1024, 80),  # whose neighbours lie in the same places of a cache
    (20, 300, 140),  # a share packs several panels, one where the last one was
    (13, 40, 600),  # several at once
    (130, 2040, 70),  # more rows than meet a panel at once
    (40, 2100, 70),  # panels that are cut
    (300, 520, 530),  # weights that no near cache holds
    (2, 520, 1100),  # and are read in long runs
    (5, 300, 8000),  # or where they lie, a few rows at a time
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_are_exact(size: tuple[int, int, int], dtype: type, threads: int) -> None:
    n, k, m = size
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in ((n, k), (k, m), (m,), (n, m)))
    numba = kernels.get("numba")
    before = kernels.get_threads()
    kernels.set_threads(threads)
    try:
        np.testing.assert_array_equal(numba.linear(x, w, b), x @ w + b)
        dx, dw, db = numba.linear_backward(dy, x, w)
    finally:
        kernels.set_threads(before)
    np.testing.assert_array_equal(dx, dy @ w.T)
    np.testing.assert_array_equal(dw, x.T @ dy)
    np.testing.assert_array_equal(db, dy.sum(axis=0))
