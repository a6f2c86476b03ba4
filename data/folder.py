"""A folder, or a file, that is a data set: MNIST's four IDX files or two CSV files, or another that is published."""

import os
from itertools import product
from pathlib import Path

import numpy as np

from data import published
from data.classes import classes_in, read_classes
from data.csv import read_csv
from data.errors import DataFormatError, DataNotFoundError
from data.files import expanded
from data.idx import read_idx
from data.splits import Dataset, Split

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CSV_NAMES = ("mnist_train.csv", "mnist_test.csv")


def find(folder: Path, name: str) -> Path | None:
    """The file of that name, in the spelling in which it lies in the folder; plain before .gz."""
    for suffix, spelling in product(("", ".gz"), (name, name.replace("-idx", ".idx"))):
        if (path := folder / (spelling + suffix)).is_file():
            return path
    return None


def read_folder(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Dataset:
    """Read a folder's IDX files, or its CSV files where no full set of IDX files is there, or what else is published.

    size: (H, W) of pictures. Raises DataNotFoundError where no set is complete, and DataFormatError for a file that is
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
        train, test = _read_pair(train_images, train_labels), _read_pair(test_images, test_labels)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataFormatError(
                f"{test_images}: images are {_size(test)}, those of {train_images.name} {_size(train)}"
            )
        return Dataset(train, test, classes=published.named(train_images))
    if found.keys() >= set(CSV_NAMES):
        halves = (read_csv(found[name]) for name in CSV_NAMES)
        return Dataset(*halves, classes=published.named(found[CSV_NAMES[0]]))
    if not found:
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


def _read_pair(images_path: Path, labels_path: Path) -> Split:
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, rank, meaning in (images_path, images, 3, "(N, H, W)"), (labels_path, labels, 1, "(N,)"):
        if array.ndim != rank or array.dtype != np.uint8 or array.size == 0:
            raise DataFormatError(f"{path}: holds {array.shape} {array.dtype}, expected {meaning} uint8, not empty")
    if len(images) != len(labels):
        raise DataFormatError(f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}")
    return Split(images[..., np.newaxis], labels)


def _size(split: Split) -> str:
    return f"{split.images.shape[1]} x {split.images.shape[2]}"


def _expected() -> str:
    return f"{', '.join(IDX_NAMES)} (or with .idx) or {', '.join(CSV_NAMES)}, each plain or .gz"


def _content(folder: Path, most: int = 8) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
