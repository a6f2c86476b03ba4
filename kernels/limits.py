"""The machine's limit: multiply-adds out of registers, and copies through memory.

Importing this module loads Numba.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import get_threads, set_threads
from .memory import empty
from .numba_backend.compiler.jit import kernel, prange
from .numba_backend.tiles.tile import (
    REGISTERS,
    TileShape,
    lanes,
    tile_fma,
    tile_rows,
    tile_store,
    tile_vectors,
    tile_zeros,
)

# As many independent sums as registers allow: two pipes of four or five cycles want ten, and loads may not matter.
_SHAPE = TileShape(REGISTERS * 3 // 4, 1, REGISTERS * 3 // 4)
_STEPS = 100_000
_PARTS = 16
SIZES = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)
"""Bytes of the copies that are measured, for every cache and for memory."""


@kernel
def _multiply_add(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    """Each thread runs over the same few elements, which stay in the first-level cache."""
    for i in prange(y.shape[0]):
        tile = tile_zeros(_SHAPE, y)
        for step in range(_STEPS):
            tile = tile_fma(tile, a, step & 7, 0, 0, b, 0)
        tile_store(tile, y[i], 0, lanes(y))


@kernel
def _copy(y: np.ndarray, x: np.ndarray) -> None:
    part = -(-x.size // _PARTS)
    for c in prange(_PARTS):
        # Views from 0: a loop from an offset has to check for negative indices, and is not vectorised.
        source, target = x[c * part : (c + 1) * part], y[c * part : (c + 1) * part]
        for i in range(target.size):
            target[i] = source[i]


@kernel
def _copy_to_and_fro(y: np.ndarray, x: np.ndarray, times: int) -> None:
    """In one call, since a call from Python takes longer than a copy of 16 KiB: as long as three of them and more.

    The sign is turned, or the compiler might see that the way back changes nothing: plain copies came to 700 GB/s.
    """
    for _ in range(times):
        for i in range(y.size):
            y[i] = -x[i]
        for i in range(y.size):
            x[i] = -y[i]


def peak(dtype: DTypeLike = np.float32, threads: int = 1, repetitions: int = 20) -> float:
    """Largest rate of multiply-adds in FLOP/s, two a multiply-add, on `threads` threads or on one, if that is more."""
    lanes_, rows = lanes(np.empty(0, dtype)), tile_rows(_SHAPE) * tile_vectors(_SHAPE)
    a, b = np.ones(8, dtype), empty(lanes_, dtype)
    b.fill(1)
    rates = []
    for n in {1, threads}:
        y = empty((n, rows * lanes_), dtype)
        seconds = _with_threads(n, lambda y=y: _best(lambda: _multiply_add(a, b, y), repetitions))  # type: ignore[misc]
        rates.append(2 * n * _STEPS * rows * lanes_ / seconds)
    return max(rates)


def bandwidth(size: int, threads: int = 1, repetitions: int = 20) -> float:
    """Bytes read plus bytes written a second by copies of `size` bytes one after the other: the faster of one thread,
    which may lose no time between them, and of `threads` threads, which are started for each."""
    x, y = empty(size // 4, np.float32), empty(size // 4, np.float32)
    x.fill(1)
    y.fill(1)
    times = max(1, (1 << 20) // size)

    def together() -> None:
        for _ in range(times):
            _copy(y, x)

    alone = _with_threads(1, lambda: _best(lambda: _copy_to_and_fro(y, x, times), repetitions)) / 2
    return 2 * 4 * x.size * times / min(alone, _with_threads(threads, lambda: _best(together, repetitions)))


def _best(call: Callable[[], Any], repetitions: int) -> float:
    """Shortest of several runs in seconds: what else the machine does can only lengthen one."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _with_threads(threads: int, measure: Callable[[], float]) -> float:
    before = get_threads()
    set_threads(threads)
    try:
        return measure()
    finally:
        set_threads(before)


@dataclass(frozen=True)
class Limits:
    """What the machine does at its best, against which programs are measured.

    peak: FLOP/s. bandwidths: bytes a second, read plus written, of a copy by the bytes copied.
    Faster than a copy of as many bytes is what finds them in a nearer cache, because they have just been used there.
    """

    peak: float
    bandwidths: dict[int, float]

    def bandwidth(self, size: int) -> float:
        """The rate at which `size` bytes, read and written together, go through memory: the nearest size measured."""
        return self.bandwidths[min(self.bandwidths, key=lambda measured: abs(np.log(2 * measured / max(size, 1))))]

    def seconds(self, flops: int, size: int) -> float:
        """How long so many floating-point operations take at the peak, or so many bytes in a copy: the longer time."""
        return max(flops / self.peak, size / self.bandwidth(size))


def measure(dtype: DTypeLike = np.float32, threads: int | None = None, repetitions: int = 20) -> Limits:
    """This machine's limits on `threads` threads, unless told those that kernels use."""
    threads = threads or get_threads()
    rates = {size: bandwidth(size, threads, repetitions) for size in SIZES}
    return Limits(peak(dtype, threads, repetitions), rates)
