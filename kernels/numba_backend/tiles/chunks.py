"""How work is cut: into chunks and shares that depend on sizes alone, never on the thread count."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.jit import CompiledKernel, disjoint, inline
from .tile import lanes, tile_load, tile_load_partial, tile_store, tile_store_partial, tile_vectors

CHUNK = 4096
"""Elements of a chunk: 16 KiB of float32, long enough to pay for its start, short enough to share out evenly."""

SMALL = 1 << 14
"""Elements up to which one thread is faster: entering a parallel region costs 1.5 µs, relu of so many half of that."""


@inline
def chunks(x):
    """The number of chunks of a flat array."""
    return (x.size + CHUNK - 1) // CHUNK


@inline
def chunk(x, c):
    """Chunk c of a flat array. A view from 0, since a loop from an offset has to check for negative indices."""
    return x[c * CHUNK : (c + 1) * CHUNK]


@inline
def block_rows(x):
    """Rows of a block of a matrix: about a chunk's worth of elements."""
    return max(1, CHUNK // x.shape[1])


@inline
def share(rows, item, items):
    """Rows of an item, shared out evenly: (first, end)."""
    return item * rows // items, (item + 1) * rows // items


@disjoint
def clear(x):
    """x = 0."""
    for i in range(x.size):
        x[i] = 0


@inline
def load(shape, array, offset, stride, columns):
    """A tile of rows `stride` apart, of which the first `columns` columns are wanted."""
    if columns >= tile_vectors(shape) * lanes(array):
        tile = tile_load(shape, array, offset, stride)
    else:
        tile = tile_load_partial(shape, array, offset, stride, columns)
    return tile


@inline
def store(shape, tile, array, offset, stride, columns):
    """The tile's rows to places `stride` apart, the first `columns` columns."""
    if columns >= tile_vectors(shape) * lanes(array):
        tile_store(tile, array, offset, stride)
    else:
        tile_store_partial(tile, array, offset, stride, columns)


def run(kernel: CompiledKernel, size: int, *args: Any) -> None:
    """Call a kernel that works on `size` elements, without threads if they are few."""
    if size <= SMALL:
        kernel.alone(*args)
    else:
        kernel(*args)


def pixels(y: np.ndarray) -> tuple[np.ndarray, int]:
    """The memory of images, flat, and how far pixels are apart: their channels may be some of a larger array's."""
    if y.flags.c_contiguous:
        return y.reshape(-1), y.shape[-1]
    size = 1 + sum((n - 1) * stride for n, stride in zip(y.shape, y.strides, strict=True)) // y.itemsize
    return np.lib.stride_tricks.as_strided(y, (size,), (y.itemsize,)), y.strides[-2] // y.itemsize


def rows(x: np.ndarray) -> np.ndarray:
    """An array as the matrix of its rows along the last axis."""
    return x.reshape(-1, x.shape[-1])


def elementwise(kernel: CompiledKernel) -> Callable[..., None]:
    """A kernel over flat arrays as one over arrays of any shape; the first gives the size."""

    @functools.wraps(kernel)
    def call(*args: Any) -> None:
        run(kernel, args[0].size, *[a.reshape(-1) if isinstance(a, np.ndarray) else a for a in args])

    return call
