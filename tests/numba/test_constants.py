"""Numbers in a call of a helper: compiled in where that is declared, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.numba_backend.compiler.jit import DISABLED, Constant, inline, kernel

pytestmark = pytest.mark.skipif(DISABLED, reason="Numba compiles nothing here")


@inline
def any_place(x: np.ndarray, i: int) -> np.float32:
    return x[i]


@inline
def known_place(x: np.ndarray, i: Constant) -> np.float32:
    return x[i]


@kernel
def add_places(x: np.ndarray, y: np.ndarray) -> None:
    i = 0
    while i < x.size:
        y[0] += any_place(x, i)
        i += 1
    y[1] = any_place(x, 1) + known_place(x, 0) + known_place(x, 2)


def test_a_number_in_a_call_is_compiled_in_only_where_that_is_declared() -> None:
    y = np.zeros(2, np.float32)
    add_places(np.array([1, 2, 4], np.float32), y)
    assert y.tolist() == [7, 7]
    assert len(any_place.dispatcher.signatures) == 1
    assert len(known_place.dispatcher.signatures) == 2
