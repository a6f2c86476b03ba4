"""The machine's limit: multiply-adds out of registers, and copies through memory. Run: python -m benchmarks.limit

Every share of a limit that the benchmarks print is measured against these figures, taken in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels.memory import empty
from kernels.numba_backend.jit import get_threads, kernel, prange, set_threads
from kernels.numba_backend.tile import (
    REGISTERS,
    Shape,
    lanes,
    tile_fma,
    tile_rows,
    tile_store,
    tile_vectors,
    tile_zeros,
)

# As many independent sums as registers allow, so that neither latency nor loads can matter.
_SHAPE = Shape(REGISTERS // 2 - 2, 1, REGISTERS // 2 - 2)
_STEPS = 100_000


@kernel
def _multiply_add(a, b, y):
    """Each thread runs over the same few elements, which stay in the first-level cache."""
    for i in prange(y.shape[0]):
        tile = tile_zeros(_SHAPE, y)
        for step in range(_STEPS):
            tile = tile_fma(tile, a, step & 7, 0, 0, b, 0)
        tile_store(tile, y[i], 0, lanes(y))


@kernel
def _copy(x, y):
    chunks = 64
    for i in prange(chunks):
        first, end = np.int64(i) * x.size // chunks, (np.int64(i) + 1) * x.size // chunks
        source, target = x[first:end], y[first:end]  # from 0 on: an offset would have to be checked for its sign
        for j in range(source.size):
            target[j] = source[j]


def _best(call: Callable[[], Any], repetitions: int) -> float:
    """Shortest of several runs in seconds: what else the machine does can only lengthen one."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peak(dtype: DTypeLike = np.float32, threads: int = 1, repetitions: int = 20) -> float:
    """Largest rate of multiply-adds in FLOP/s, two a multiply-add, on `threads` threads."""
    lanes_, rows = lanes(np.empty(0, dtype)), tile_rows(_SHAPE) * tile_vectors(_SHAPE)
    a, b, y = np.ones(8, dtype), empty(lanes_, dtype), empty((threads, rows * lanes_), dtype)
    b.fill(1)
    seconds = _with_threads(threads, lambda: _best(lambda: _multiply_add(a, b, y), repetitions))
    return 2 * threads * _STEPS * rows * lanes_ / seconds


def bandwidth(size: int, threads: int = 1, repetitions: int = 20) -> float:
    """Bytes read plus bytes written a second by a copy of `size` bytes on `threads` threads."""
    x, y = empty(size // 4, np.float32), empty(size // 4, np.float32)
    x.fill(1)
    times = max(1, (1 << 20) // size)
    seconds = _with_threads(threads, lambda: _best(lambda: [_copy(x, y) for _ in range(times)], repetitions))
    return 2 * 4 * x.size * times / seconds


def _with_threads(threads: int, measure: Callable[[], float]) -> float:
    before = get_threads()
    set_threads(threads)
    try:
        return measure()
    finally:
        set_threads(before)


def main() -> None:
    """Print the limits for one thread up to all."""
    for threads in range(1, get_threads() + 1):
        for dtype in ("float32", "float64"):
            print(f"{threads} threads  {dtype}  {peak(dtype, threads) / 1e9:7.1f} GFLOP/s")
        for size in (1 << 14, 1 << 18, 1 << 22, 1 << 26):
            print(f"{threads} threads  copy of {size >> 10:6d} KiB  {bandwidth(size, threads) / 1e9:7.1f} GB/s")


if __name__ == "__main__":
    main()
