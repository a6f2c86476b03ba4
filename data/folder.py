"""A folder, or a file, that is a data set: MNIST's files, as IDX, CSV or .npy, or another that is published."""

import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import published
from data.classes import classes_in, read_classes
from data.csv import read_csv
from data.disk import DiskArray
from data.errors import DataFormatError, DataNotFoundError
from data.files import expanded
from data.idx import MAX_BYTES, read_idx
from data.splits import Dataset, Split

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CSV_NAMES = ("mnist_train.csv", "mnist_test.csv")
NPY_NAMES = ("train-images", "train-labels", "test-images", "test-labels")
"""Of .npy files, NAME.npy, and of shards, NAME-00000.npy and so on."""


def find(folder: Path, name: str) -> Path | None:
    """The file of that name, in the spelling in which it lies in the folder; plain before .gz."""
    for suffix, spelling in product(("", ".gz"), (name, name.replace("-idx", ".idx"))):
        if (path := folder / (spelling + suffix)).is_file():
            return path
    return None


def read_folder(path: str | os.PathLike[str], size: tuple[int, int] | None = None, on_disk: bool = False) -> Dataset:
    """Read a folder's IDX files, or its CSV or .npy files where no full set of IDX files is there, or what else is
    published.

    size: (H, W) of pictures. on_disk: images of more than `idx.MAX_BYTES` in IDX and .npy files become a DiskArray
    instead of being refused. Raises DataNotFoundError where no set is complete, and DataFormatError for a file that is
    not what its name says.
    """
    folder = expanded(path)
    if folder.is_file() and (dataset := _read_file(folder)) is not None:
        return dataset
    kind = folder.name.removeprefix("emnist-")
    one_of_several = kind in published.EMNIST and not folder.exists() and folder.parent.is_dir()
    if one_of_several and (dataset := published.emnist(folder.parent, kind)) is not None:
        return dataset
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataNotFoundError(f"{folder} {state}; expected a folder with {_expected()}")
    found = {name: file for name in IDX_NAMES + CSV_NAMES if (file := find(folder, name))}
    if found.keys() >= set(IDX_NAMES):
        train_images, train_labels, test_images, test_labels = (found[name] for name in IDX_NAMES)
        train, test = (
            _read_pair(images, labels, on_disk)
            for images, labels in ((train_images, train_labels), (test_images, test_labels))
        )
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataFormatError(
                f"{test_images}: images are {_size(test)}, those of {train_images.name} {_size(train)}"
            )
        return Dataset(train, test, classes=published.named(train_images))
    if found.keys() >= set(CSV_NAMES):
        halves = (read_csv(found[name]) for name in CSV_NAMES)
        return Dataset(*halves, classes=published.named(found[CSV_NAMES[0]]))
    arrays = {name: files for name in NPY_NAMES if (files := _shards(folder, name))}
    if len(arrays) == len(NPY_NAMES):
        pairs = NPY_NAMES[:2], NPY_NAMES[2:]
        return Dataset(*(_read_shards(arrays[images], arrays[labels], on_disk) for images, labels in pairs))
    if not found and not arrays:
        published.refuse_pickles(folder)
        for read in published.FOLDERS:
            if (dataset := read(folder)) is not None:
                return dataset
        for archive in folder.glob("*.npz"):
            if set(published.arrays(archive)) >= {"x_train", "y_train"}:
                return published.keras_archive(archive)
        if classes_in(folder):
            return read_classes(folder, size)
    for names in IDX_NAMES, CSV_NAMES:
        if any(name in found for name in names):
            missing = ", ".join(name for name in names if name not in found)
            raise DataNotFoundError(f"{folder} lacks {missing}; found {_content(folder)}")
    if arrays:
        missing = ", ".join(f"{name}.npy" for name in NPY_NAMES if name not in arrays)
        raise DataNotFoundError(f"{folder} lacks {missing}; found {_content(folder)}")
    raise DataNotFoundError(f"{folder} holds no data; expected {_expected()}; found {_content(folder)}")


def _read_file(path: Path) -> Dataset | None:
    """A data set that is one file, by the end of its name: CSV, ARFF, Keras' .npz; None for any other."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".arff")):
        return published.table(path)
    if name.endswith(".npz"):
        return published.keras_archive(path)
    if name.endswith(published.PICKLES):
        published.refuse_pickle(path)
    return None


def _read_pair(images_path: Path, labels_path: Path, on_disk: bool) -> Split:
    large = on_disk and images_path.stat().st_size > MAX_BYTES and images_path.suffix != ".gz"
    images = DiskArray.open(images_path) if large else read_idx(images_path)
    return _checked(images, read_idx(labels_path), images_path, labels_path)


def _checked(images: NDArray[Any] | DiskArray, labels: NDArray[Any], images_path: Path, labels_path: Path) -> Split:
    for path, array, rank, meaning in (images_path, images, 3, "(N, H, W)"), (labels_path, labels, 1, "(N,)"):
        if array.ndim != rank or array.dtype != np.uint8 or 0 in array.shape:
            raise DataFormatError(f"{path}: holds {array.shape} {array.dtype}, expected {meaning} uint8, not empty")
    if len(images) != len(labels):
        raise DataFormatError(f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}")
    if isinstance(images, DiskArray):
        return Split(images.with_row(*images.shape[1:], 1), labels)
    return Split(images[..., np.newaxis], labels)


def _shards(folder: Path, name: str) -> list[Path]:
    """The .npy file of a name, or its shards in the order of their names."""
    whole = folder / f"{name}.npy"
    return [whole] if whole.is_file() else sorted(folder.glob(f"{name}-*.npy"))


def _read_shards(images_paths: list[Path], labels_paths: list[Path], on_disk: bool) -> Split:
    """Shards whose images and labels belong together, one by one."""
    if len(images_paths) != len(labels_paths):
        raise DataFormatError(f"{images_paths[0]}: {len(images_paths)} files of images, {len(labels_paths)} of labels")
    for images, labels in zip(images_paths, labels_paths, strict=True):
        if (count := len(DiskArray.open(images))) != (other := len(DiskArray.open(labels))):
            raise DataFormatError(f"{labels}: {other} labels for the {count} images of {images.name}")
    together = DiskArray.open(*images_paths)
    if len(together) * together.row_bytes > MAX_BYTES and not on_disk:
        raise DataFormatError(f"{images_paths[0]}: {together.shape} exceeds the limit of {MAX_BYTES} bytes")
    large = len(together) * together.row_bytes > MAX_BYTES
    read = together if large else together[:]
    return _checked(read, DiskArray.open(*labels_paths)[:], images_paths[0], labels_paths[0])


def _size(split: Split) -> str:
    return f"{split.images.shape[1]} x {split.images.shape[2]}"


def _expected() -> str:
    return (
        f"{', '.join(IDX_NAMES)} (or with .idx) or {', '.join(CSV_NAMES)}, each plain or .gz, "
        f"or {', '.join(f'{name}.npy' for name in NPY_NAMES)}"
    )


def _content(folder: Path, most: int = 8) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
