"""Images with their labels: the pair, its division and its normalisation."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data.disk import DiskArray
from kernels.shapes import number

_CHUNK = 1 << 20

Pair = tuple[Any, NDArray[Any]]
"""Images, an array or a DiskArray, and their labels, as a Split or as any two."""


class _Images(NamedTuple):
    images: Any
    labels: NDArray[Any]


class Split(_Images):
    """Images (N, H, W, 1), uint8 as loaded and float32 once normalised, and their labels (N,).

    The images may be a DiskArray.

    A pair, ``images, labels = split``. It refuses what would be one thing of a pair and another of its samples: to be
    sliced, and to have a length.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            ends = ["" if end is None else str(end) for end in (index.start, index.stop, index.step)]
            cut = ":".join(ends if index.step is not None else ends[:2])
            raise TypeError(
                f"a Split is a pair and cannot be sliced; expected Split(split.images[{cut}], split.labels[{cut}])"
            )
        return super().__getitem__(index)

    def __len__(self) -> int:
        raise TypeError("a Split is a pair and has no length; len(split.labels) counts its samples")

    def __bool__(self) -> Literal[True]:
        return True

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]  # the namedtuple's own asks for the length
        return cls(*iterable)


class _Halves(NamedTuple):
    train: Split
    test: Split


class Dataset(_Halves):
    """The two halves of a data set, made of any pairs (images, labels).

    classes: the names of the classes by label, or None where labels are all that is known. note: what else is to be
    said of how it was read, or nothing. Raises TypeError or ValueError for what is no pair of arrays of one length.
    """

    classes: tuple[str, ...] | None
    note: str

    def __new__(cls, train: Pair, test: Pair, *, classes: tuple[str, ...] | None = None, note: str = "") -> Self:
        made = super().__new__(cls, as_split("Dataset: train", train), as_split("Dataset: test", test))
        made.classes, made.note = classes, note
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[Split, Split], dict[str, Any]]:
        return (self.train, self.test), {"classes": self.classes, "note": self.note}


def as_split(name: str, value: Pair) -> Split:
    """``value`` as a Split; ``name`` opens the message of the TypeError or ValueError for any other value."""
    parts = list(value) if isinstance(value, tuple | list) else []
    if len(parts) != 2 or not (isinstance(parts[0], np.ndarray | DiskArray) and isinstance(parts[1], np.ndarray)):
        what = type(value).__name__
        if type(value) in (tuple, list) and parts:
            what += f" of {' and '.join(type(part).__name__ for part in parts):.80}"
        raise TypeError(f"{name} is a {what}, expected a pair of arrays (images, labels)")
    images: Any = parts[0]
    labels: Any = parts[1]
    if images.ndim < 1 or labels.ndim != 1 or len(images) != len(labels):
        hint = "; of one-hot rows that is labels.argmax(axis=1)" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        raise ValueError(
            f"{name} has images {images.shape} and labels {labels.shape}, expected (N, ...) and (N,){hint}"
        )
    return Split(images, labels)


def as_dataset(name: str, value: tuple[Pair, Pair]) -> Dataset:
    """``value`` as a Dataset; ``name`` opens the message of the TypeError or ValueError for any other value."""
    parts = list(value) if isinstance(value, tuple | list) else []
    if len(parts) != 2:
        raise TypeError(f"{name} is a {type(value).__name__}, expected ((images, labels), (images, labels))")
    return Dataset(as_split(f"{name}: train", parts[0]), as_split(f"{name}: test", parts[1]))


def as_count(name: str, value: int, least: int = 0) -> int:
    """``value`` as an int, ``least`` or more; ``name`` opens the message of the TypeError or ValueError."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an integer") from None
    if count < least:
        raise ValueError(f"{name} is {count}, expected {least} or more")
    return count


def split(train: Pair, count: int, seed: int = 0) -> tuple[Split, Split]:
    """Set ``count`` samples, drawn without replacement, aside for validation: (train, validation).

    Both keep the order of the original. The draw depends on the number of samples, ``count`` and ``seed``. Of a
    DiskArray neighbours are drawn together, 64 or fewer.
    Raises ValueError unless 1 <= count < N.
    """
    whole = as_split("split: train", train)
    count = as_count("split: count", count, 1)
    seed = as_count("split: seed", seed)
    total = len(whole.labels)
    if count >= total:
        raise ValueError(f"split: count is {count}, expected less than the {total} samples of train")
    # The key keeps this draw apart from whatever else is drawn from the same seed.
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(b"split")))
    if isinstance(whole.images, DiskArray):
        return _split_blocks(whole, count, generator)
    held_out = np.zeros(total, bool)
    held_out[generator.permutation(total)[:count]] = True
    return (
        Split(whole.images[~held_out], whole.labels[~held_out]),
        Split(whole.images[held_out], whole.labels[held_out]),
    )


def _split_blocks(whole: Split, count: int, generator: np.random.Generator) -> tuple[Split, Split]:
    """`split` by blocks of neighbours, so that both halves are read in long rows."""
    total = len(whole.labels)
    size = max(1, min(64, count // 64))
    left, ranges = count, []
    for block in generator.permutation(-(-total // size)).tolist():
        start = block * size
        stop = min(total, start + size, start + left)
        ranges.append((start, stop))
        left -= stop - start
        if not left:
            break
    ranges.sort()
    ends = [0, *(end for pair in ranges for end in pair), total]
    others = [(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True) if start < stop]
    train, validation = (
        Split(whole.images.rows(chosen), np.concatenate([whole.labels[start:stop] for start, stop in chosen]))
        for chosen in (others, ranges)
    )
    return train, validation


def statistics(train: Pair) -> tuple[float, float]:
    """Mean and standard deviation over every pixel of every image, in pixel units (0 to 255).

        mean = sum(p) / n          std = sqrt(sum((p - mean)^2) / n)

    Both sums are taken in float64, chunk by chunk; of a DiskArray in one pass. Raises ValueError for no images, and
    where std is zero or not finite, since nothing can be divided by it.
    """
    images = as_split("statistics: train", train).images
    if 0 in images.shape:
        raise ValueError("statistics: train holds no pixels")
    if isinstance(images, DiskArray):
        mean, variance = _in_one_pass(images)
    else:
        pixels = images.reshape(-1)
        chunks = range(0, pixels.size, _CHUNK)
        mean = math.fsum(pixels[at : at + _CHUNK].sum(dtype=np.float64) for at in chunks) / pixels.size
        squares = (np.square(pixels[at : at + _CHUNK].astype(np.float64) - mean).sum() for at in chunks)
        variance = math.fsum(squares) / pixels.size
    std = math.sqrt(variance)
    if not 0 < std < math.inf:
        raise ValueError(
            f"statistics: the pixels of train have standard deviation {std} (mean {mean}), expected a positive number"
        )
    return mean, std


def _in_one_pass(images: DiskArray) -> tuple[float, float]:
    """Mean and variance; of uint8 from sums that are exact.

    Of floats a part's own are joined to those of the parts before: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    rows = max(1, _CHUNK // images.row_bytes)
    parts = (images[at : at + rows].reshape(-1) for at in range(0, len(images), rows))
    if images.dtype == np.uint8:
        n = first = second = 0
        for part in parts:
            n += part.size
            whole = part.size // 256 * 256
            # 256 numbers at a time, whose sums fit what NumPy adds in half the time that wider integers take.
            for pixels in (part[:whole].reshape(256, -1), part[whole:].reshape(-1, 1)):
                squares = np.square(pixels, dtype=np.uint16)
                first += int(pixels.sum(axis=0, dtype=np.uint16).sum(dtype=np.uint64))
                second += int(squares.sum(axis=0, dtype=np.uint32).sum(dtype=np.uint64))
        return first / n, (n * second - first * first) / (n * n)
    n, mean, squares = 0, 0.0, 0.0
    for part in parts:
        own = float(part.mean(dtype=np.float64))
        apart = own - mean
        squares += float(np.square(part - own, dtype=np.float64).sum()) + apart * apart * n * part.size / (
            n + part.size
        )
        n += part.size
        mean += apart * part.size / n
    return mean, squares / n


def standardise(images: NDArray[Any], mean: float, std: float) -> NDArray[np.float32]:
    """(images - mean) / std in float32, C-contiguous, of the shape of ``images``.

    Raises TypeError where ``images`` is no array of numbers, ValueError where ``mean`` and ``std`` are none.
    """
    if not isinstance(images, np.ndarray) or images.dtype.kind not in "uif":
        kind = f"of {images.dtype}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise TypeError(f"standardise: images is {kind}, expected a numpy array of numbers")
    given = type(mean) is float and type(std) is float  # as a model has them, which is asked image by image
    if not (given and math.isfinite(mean) and 0 < std < math.inf):
        number("standardise", "mean", mean)
        number("standardise", "std", std, 0.0, above=True)
    standardised: NDArray[np.float32] = np.subtract(images, np.float32(mean), dtype=np.float32, order="C")
    standardised /= np.float32(std)
    return standardised


def normalise(
    train: tuple[NDArray[Any], NDArray[Any]], *others: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[Split, ...]:
    """Standardise splits by the statistics of the first alone.

    Returns one Split for each argument, ``.images`` contiguous float32 and ``.labels`` unchanged; always a
    tuple, so ``train, test = normalise(train, test)``. Raises what `statistics` raises.
    """
    splits = [as_split(f"normalise: argument {at}", value) for at, value in enumerate((train, *others), 1)]
    mean, std = statistics(splits[0])
    return tuple(Split(standardise(images, mean, std), labels) for images, labels in splits)
