"""Arrays that tell what a kernel did to them: guards around them, poison in them, garbage in new memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from kernels import memory
from kernels.accuracy import SENTINEL

GUARD = 32
"""Elements before and after every array that a kernel must leave alone, where that is more than a row."""

POISONS = (np.nan, 1e30)
"""What outputs and scratch hold on entry: a NaN shows in every sum, a number where NaN is the right answer."""

GARBAGE = (0xFE, 0x7E)
"""Bytes that new memory holds: as float32 and float64 huge numbers of either sign, as integers large ones."""

_PERTURB = -6  # M_PERTURB of glibc's mallopt


class Guarded:
    """An array between guards.

    shift: elements by which it is moved off every alignment but that of its elements. gap: elements between two
    neighbours of its last axis, which are guards as well. fortran: the first axis varies fastest.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, shift: int = 0, gap: int = 0, fortran: bool = False
    ) -> None:
        size = math.prod(shape) * (1 + gap)
        row = size // max(shape[0] if shape else 1, 1)
        guard = -(-max(GUARD, row) // memory.ALIGNMENT) * memory.ALIGNMENT  # so that the array begins on a cache line
        whole = memory.empty(size + 2 * guard + shift, dtype)
        whole.fill(SENTINEL)
        start = guard + shift
        inside = whole[start : start + size]
        self.array = _strided(inside, shape, gap, fortran)
        self._guards = [whole[:start], inside.reshape(-1, 1 + gap)[:, 1:], whole[start + size :]]

    def intact(self) -> bool:
        """Whether nothing was written beside the array."""
        return all(bool(np.all(guard == guard.dtype.type(SENTINEL))) for guard in self._guards)


def _strided(flat: np.ndarray, shape: tuple[int, ...], gap: int, fortran: bool) -> np.ndarray:
    if not gap or not shape:
        return flat[: math.prod(shape)].reshape(shape, order="F" if fortran else "C")
    return flat.reshape(*shape[:-1], shape[-1] * (1 + gap))[..., :: 1 + gap]


@functools.cache
def mallopt() -> Callable[[int, int], int] | None:
    """The C library's, or None where it has none."""
    with contextlib.suppress(OSError, AttributeError):
        found = ctypes.CDLL(None).mallopt
        found.argtypes, found.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
        return found
    return None


@contextlib.contextmanager
def garbage(byte: int) -> Iterator[None]:
    """Have new memory hold this byte everywhere, where the C library can: who reads what nobody wrote is seen.

    An array that a kernel makes itself cannot be poisoned by its caller. glibc alone can.
    """
    set_option = mallopt()
    if set_option is None:
        yield
        return
    set_option(_PERTURB, byte ^ 0xFF)
    try:
        yield
    finally:
        set_option(_PERTURB, 0)
