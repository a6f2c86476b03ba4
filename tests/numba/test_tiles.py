"""Operations on tiles that one kernel alone asks for: compiled, they are what their plain Python says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.numba_backend.compiler.jit import kernel
from kernels.numba_backend.tiles.tile import LANES, TileShape, flat, lanes, prefetch, tile_deal, tile_load, tile_store

TWO, FOUR, EIGHT = TileShape(2, 1, 2), TileShape(4, 1, 4), TileShape(8, 1, 8)


@kernel
def deal_two(x: Any, y: Any) -> None:
    tile_store(tile_deal(tile_load(TWO, flat(x), 0, lanes(x))), flat(y), 0, lanes(x))


@kernel
def deal_four(x: Any, y: Any) -> None:
    tile_store(tile_deal(tile_load(FOUR, flat(x), 0, lanes(x))), flat(y), 0, lanes(x))


@kernel
def deal_eight(x: Any, y: Any) -> None:
    tile_store(tile_deal(tile_load(EIGHT, flat(x), 0, lanes(x))), flat(y), 0, lanes(x))


@pytest.mark.parametrize(("rows", "deal"), [(2, deal_two), (4, deal_four), (8, deal_eight)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_dealt_out_in_turn(rows: int, deal: Callable[..., None], dtype: Any) -> None:
    vector = LANES[0] if dtype == np.float32 else LANES[-1]
    x = np.arange(rows * vector, dtype=dtype)
    y = np.empty_like(x)
    deal(x, y)
    assert y.tolist() == [row * vector + column for column in range(vector) for row in range(rows)]


@kernel
def ask_for(x: Any, far: Any) -> None:
    prefetch(flat(x), 0)
    prefetch(flat(x), far)


def test_memory_that_is_not_there_may_be_asked_for() -> None:
    x = np.arange(4, dtype=np.float32)
    for far in (1 << 40, -(1 << 40)):
        ask_for(x, far)
    assert x.tolist() == [0, 1, 2, 3]
