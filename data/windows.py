"""Windows: an order of samples that does not need the whole of them, and a thread that reads ahead of it.

Samples lie in blocks of neighbours. An epoch takes the blocks in a random order, as many at a time as make a window,
and the samples of a window in a random order. Both follow from seed, epoch and window: a fit that resumes goes to its
place at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.disk import DiskArray

if TYPE_CHECKING:
    from concurrent.futures import Future

BLOCK = 1 << 20
"""Bytes of a block: a disk reads that much in a row at nearly its full speed."""
BLOCKS = 32
"""Blocks of a window."""
MOST = 4096
"""Samples of a block."""


class WindowOrder:
    """The order of an epoch over `count` samples of so many bytes each.

    Every sample comes once. A sample's window is uniform over the epoch, and so is its place in the window; neighbours
    in the file are in one window, of 32 blocks of a mebibyte.
    """

    def __init__(self, count: int, row_bytes: int, seed: int, epoch: int) -> None:
        self.count = count
        self.block = max(1, min(MOST, BLOCK // max(1, row_bytes)))
        self.window = self.block * BLOCKS
        self._key = seed, epoch
        self._blocks = self._stream(b"blocks").permutation(-(-count // self.block))
        self.windows = -(-self._blocks.size // BLOCKS)
        # The last block of the file may be short, and so is the window that it falls into.
        self._gap = -count % self.block
        self._short = int(np.flatnonzero(self._blocks == self._blocks.size - 1)[0]) // BLOCKS

    def _stream(self, name: bytes, *more: int) -> np.random.Generator:
        seed, epoch = self._key
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*name, epoch, *more)))

    def start(self, window: int) -> int:
        """The place in the epoch at which a window begins."""
        return min(self.count, window * self.window - (self._gap if window > self._short else 0))

    def at(self, place: int) -> int:
        """The window of a place in the epoch."""
        window = place // self.window
        return window if place < self.start(window + 1) else window + 1

    def samples(self, window: int) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
        """Ranges of samples that make a window, as they lie in the file, and the order to take them in."""
        chosen = np.sort(self._blocks[window * BLOCKS : (window + 1) * BLOCKS]).tolist()
        ranges = [(b * self.block, min(self.count, (b + 1) * self.block)) for b in chosen]
        size = sum(stop - start for start, stop in ranges)
        return ranges, self._stream(b"window", window).permutation(size)


class Reader:
    """Images of a `DiskArray` with their labels, window by window in memory; the next one is read meanwhile.

    `images` and `targets` are the memory, a ring of windows. prepare: what becomes of a window's labels.
    """

    def __init__(
        self,
        images: DiskArray,
        labels: NDArray[Any],
        batch_size: int,
        prepare: Callable[[NDArray[Any]], NDArray[Any]],
        dtype: np.dtype | None = None,
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor  # here, as it loads logging

        self._source, self._labels, self._prepare = images, labels, prepare
        order = WindowOrder(len(images), images.row_bytes, 0, 0)
        self._size = min(order.window, -(-len(images) // order.block) * order.block)
        self._slots = 2 + -(-batch_size // self._size)
        first = prepare(labels[:1])
        self.images: NDArray[Any] = np.zeros((self._slots * self._size, *images.shape[1:]), dtype or images.dtype)
        self.targets: NDArray[Any] = np.zeros((self._slots * self._size, *first.shape[1:]), first.dtype)
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._order = order
        self._key: tuple[int, int] | None = None
        self._loading: dict[int, Future[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, seed: int, epoch: int) -> None:
        """Go to an epoch."""
        if self._key != (seed, epoch):
            for pending in self._loading.values():
                if not pending.cancel():
                    pending.exception()
            self._loading.clear()
            self._key = seed, epoch
            self._order = WindowOrder(len(self._source), self._source.row_bytes, seed, epoch)

    def together(self, place: int) -> int:
        """How many samples from a place on lie in its window."""
        return self._order.start(self._order.at(place) + 1) - place

    def take(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the places start to stop − 1 of the epoch: where the samples are in memory, and which samples they are."""
        first, last = self._order.at(start), self._order.at(stop - 1)
        for window in [w for w in self._loading if w < first]:
            del self._loading[window]
        for window in range(first, min(last + 2, self._order.windows, first + self._slots)):
            if window not in self._loading:
                self._loading[window] = self._pool.submit(self._load, window, self._order)
        found = [self._loading[window].result() for window in range(first, last + 1)]
        begin = self._order.start(first)
        here, which = (np.concatenate([parts[i] for parts in found]) for i in (0, 1))
        return here[start - begin : stop - begin], which[start - begin : stop - begin]

    def _load(self, window: int, order: WindowOrder) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ranges, places = order.samples(window)
        at = base = window % self._slots * self._size
        same = self.images.dtype == self._source.dtype
        for start, stop in ranges:
            rows = self.images[at : at + stop - start]
            if same:
                self._source.read(start, stop, rows)
            else:
                rows[...] = self._source.read(start, stop)
            self.targets[at : at + stop - start] = self._prepare(self._labels[start:stop])
            at += stop - start
        which = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        return base + places, which[places]
