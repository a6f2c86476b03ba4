"""Buffers that start on a cache line, so that no vector load straddles two."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64


def empty(shape: tuple[int, ...] | int, dtype: DTypeLike) -> np.ndarray:
    """An uninitialised C-contiguous array whose first element lies on a 64-byte boundary.

    Raises MemoryError where there is no room for it, be it in memory or, which NumPy calls a ValueError, in addresses.
    """
    return _aligned(np.empty, shape, dtype)


def zeros(shape: tuple[int, ...] | int, dtype: DTypeLike) -> np.ndarray:
    """`empty`, filled with zeros; of a large array what nobody has written to takes no memory."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(make: Callable[[int, type], np.ndarray], shape: tuple[int, ...] | int, dtype: DTypeLike) -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else shape
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    try:
        raw = make(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError):
        message = f"Unable to allocate {size / 2**30:.3g} GiB for an array with shape {shape} and data type {dtype}"
        raise MemoryError(message) from None
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
