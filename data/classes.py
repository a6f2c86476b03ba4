"""Pictures in a folder for each class, as people keep their own: FOLDER/{train,test}/LABEL/*.png, or FOLDER/LABEL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError, DataNotFoundError
from data.images import OTHER_PICTURES, PICTURES
from data.pictures import picture_size, read_pixels
from data.published import held_out
from data.splits import Dataset, Split

SIDE, LARGEST = 32, 64  # pixels of a side: of pictures that are not all of one size, and beyond which they are scaled
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "validation")
MOST_CLASSES = 256


def classes_in(folder: Path) -> list[str]:
    """The names of the folder's classes: of its folders that hold pictures, in order; none where there are none.

    Numbers are in the order of their size, and before words.
    """
    root = _half(folder, TRAIN) or folder
    names = [entry.name for entry in root.iterdir() if entry.is_dir() and any(_pictures(entry))]
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def read_classes(folder: Path, size: tuple[int, int] | None = None) -> Dataset:
    """The pictures, in colour if any is: (N, H, W, 3), else (N, H, W, 1).

    size: (H, W) to which they are scaled; unless told their own where all are alike and small, else SIDE x SIDE. What
    is no picture is left out, and named in the set's note. Raises DataNotFoundError for a class of test that train has
    not, DataFormatError for a picture that is damaged or of a kind that is not read.
    """
    names = classes_in(folder)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataNotFoundError(
            f"{folder} holds {len(names)} classes, expected 2 to {MOST_CLASSES} folders of pictures"
        )
    train, test = _half(folder, TRAIN), _half(folder, TEST)
    roots = [root for root in (train or folder, test if train else None) if root]
    files = [_files(root, names) for root in roots]
    notes = []
    if size is None:
        sizes = {picture_size(path) for half in files for path, _ in half}
        if len(sizes) > 1 or max(max(own) for own in sizes) > LARGEST:
            size = (SIDE, SIDE)
            which = f"of {len(sizes)} sizes" if len(sizes) > 1 else "of {} x {}".format(*sizes.pop())
            notes.append(f"pictures {which} are scaled to {SIDE} x {SIDE}")
    pixels = {path: read_pixels(path, size) for half in files for path, _ in half}
    colours = max(array.shape[2] for array in pixels.values())
    if left_out := [path for root in roots for path in _others(root, names)]:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        notes.append(f"left out, being no pictures: {', '.join(map(str, left_out[:3]))}{more}")
    splits = [_split(half, pixels, colours) for half in files]
    if len(splits) == 2:
        return Dataset(splits[0], splits[1], classes=tuple(names), note="; ".join(notes))
    halves = held_out(splits[0], tuple(names), str(folder))
    return Dataset(*halves, classes=halves.classes, note="; ".join([*notes, halves.note]))


def _half(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _files(root: Path, names: list[str]) -> list[tuple[Path, int]]:
    """The pictures with their labels."""
    found = []
    for entry in sorted(root.iterdir()):
        if not entry.is_dir() or not (own := list(_pictures(entry))):
            continue
        if entry.name not in names:
            raise DataNotFoundError(f"{entry} is a class that training has not; it has {', '.join(names)}")
        found += [(path, names.index(entry.name)) for path in own]
    return found


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in found:
        if path.suffix.lower() in OTHER_PICTURES:
            raise DataFormatError(f"{path}: pictures of this kind are not read; expected {', '.join(PICTURES)}")
    return [path for path in found if path.suffix.lower() in PICTURES]


def _others(root: Path, names: list[str]) -> list[Path]:
    """Files that are no pictures, hidden ones aside."""
    found = (path for name in names if (root / name).is_dir() for path in sorted((root / name).rglob("*")))
    return [p for p in found if p.is_file() and p.suffix.lower() not in PICTURES and not p.name.startswith(".")]


def _split(half: list[tuple[Path, int]], pixels: dict[Path, NDArray[np.uint8]], colours: int) -> Split:
    images = [np.repeat(own, colours, axis=2) if (own := pixels[path]).shape[2] < colours else own for path, _ in half]
    return Split(np.stack(images), np.array([label for _, label in half], np.uint8))
