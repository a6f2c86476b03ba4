"""Seeded shuffling: any epoch's order can be made again alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.splits import Split, as_count, as_split
from kernels.shapes import flag


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order (count,) int64 in which ``epoch`` visits ``count`` samples: a permutation of 0 to count - 1.

    Each epoch draws from a stream of its own, keyed by (seed, epoch), so a resumed run needs no history.
    """
    count = as_count("epoch_order: count", count)
    seed = as_count("epoch_order: seed", seed)
    epoch = as_count("epoch_order: epoch", epoch)
    stream = np.random.SeedSequence(seed, spawn_key=(*b"epoch", epoch))
    return np.random.default_rng(stream).permutation(np.arange(count, dtype=np.int64))


def batches(
    split: tuple[NDArray[Any], NDArray[Any]],
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Iterator[Split]:
    """One epoch over a split in batches of ``batch_size``.

    The last batch may be smaller; ``drop_last`` leaves it out. Shuffled batches, in `epoch_order`, are
    copies; unshuffled ones are views. Arguments are checked at the call, before the first batch is asked for.
    """
    images, labels = as_split("batches: split", split)
    size = as_count("batches: batch_size", batch_size, 1)
    count = len(labels)
    end = count - count % size if flag("batches", "drop_last", drop_last) else count
    order = epoch_order(count, seed, epoch) if flag("batches", "shuffle", shuffle) else None
    slices = (slice(start, start + size) for start in range(0, end, size))
    rows = slices if order is None else (order[part] for part in slices)
    return (Split(images[part], labels[part]) for part in rows)
