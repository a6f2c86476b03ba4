"""Images from any file or folder, with labels where it has them, in the size that a model takes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.csv import read_csv, read_table
from data.errors import DataFormatError, DataNotFoundError
from data.files import GZIP, expanded, regular
from data.frame import taken
from data.idx import read_idx
from data.pictures import read_picture
from data.splits import Split

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
OTHER_PICTURES = (".heic", ".heif", ".avif", ".tif", ".tiff", ".svg", ".jp2", ".pgm", ".ppm", ".raw", ".dng")
"""Kinds that are not read: a folder that holds one is refused, since nobody would see that it was left out."""


def read_images(path: str | os.PathLike[str], height: int = 28, width: int = 28) -> tuple[list[str], NDArray[np.uint8]]:
    """The images in a file or folder: a name for each, and (N, height, width, 1) uint8, bright ink on a dark ground.

    - An IDX file (N, H, W) or (H, W) or a CSV file, plain or .gz, is taken as it is.
    - A picture of that size on an even ground is taken as it is, bright on dark. Of any other, the ink of its one digit
      is framed as MNIST's digits are; see `data.frame.taken`.
    - A folder's pictures (those that end in one of PICTURES), its subfolders' included, in the order of their names.

    Raises DataNotFoundError for a folder without pictures, DataFormatError for a file that is damaged or of another
    kind, for a picture without ink, of noise, with more than one digit or with marks all over, for a folder with a
    picture of a kind that is not read, and OSError for a file that cannot be read.
    """
    path = expanded(path)
    if path.is_dir():
        files = _pictures(path)
        return [str(file) for file in files], _stack(files, height, width)
    if _is_csv(path):
        images = _sized(path, read_table(path).images[..., 0], height, width)
    elif _is_idx(path):
        images = _sized(path, read_idx(path), height, width)
    else:
        images = _stack([path], height, width)
    return [str(path)] if len(images) == 1 else [f"{path}[{at}]" for at in range(len(images))], images


def read_labelled(path: str | os.PathLike[str], height: int = 28, width: int = 28) -> Split:
    """Labelled images (N, height, width, 1) uint8, each as `read_images` takes it.

    - A CSV file.
    - An IDX file beside that of its labels: those of ``t10k-images-idx3-ubyte`` are in ``t10k-labels-idx1-ubyte``.
    - A folder with a folder of pictures for each label, which is its name: ``0`` to ``255``.

    Raises what `read_images` raises, DataNotFoundError where there are no labels, and DataFormatError for pictures
    that lie in no label's folder.
    """
    path = expanded(path)
    if path.is_dir():
        folders = _label_folders(path)
        if not folders:
            raise DataNotFoundError(f"{path} holds no labels; expected a folder of pictures for each, named 0, 1, ...")
        parts = [_pictures(folder) for folder in folders]
        for file in _pictures(path):
            if path / file.relative_to(path).parts[0] not in folders:
                raise DataFormatError(f"{file} lies in no label's folder; expected folders named 0, 1, ... up to 255")
        names = np.array([int(folder.name) for folder in folders], np.uint8)
        labels = np.repeat(names, [len(files) for files in parts])
        return Split(_stack([file for files in parts for file in files], height, width), labels)
    if _is_csv(path):
        images, labels = read_csv(path)
        return Split(_sized(path, images[..., 0], height, width), labels)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        raise DataNotFoundError(
            f"{path} has no labels; expected a CSV file, an IDX file of images beside one of labels, or a folder"
        )
    images, labels = _sized(path, read_idx(path), height, width), read_idx(beside)
    if labels.shape != (len(images),) or labels.dtype != np.uint8:
        raise DataFormatError(f"{beside}: holds {labels.shape} {labels.dtype}, expected ({len(images)},) uint8")
    return Split(images, labels)


def holds_pictures(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds pictures, or folders that are named as labels."""
    folder = expanded(path)
    return folder.is_dir() and (bool(_label_folders(folder)) or any(map(_is_picture, folder.iterdir())))


def _label_folders(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if entry.name.isdecimal() and entry.name.isascii() and entry.is_dir())
    return sorted((entry for entry in found if int(entry.name) <= 255), key=lambda entry: int(entry.name))


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".csv")


def _is_idx(path: Path) -> bool:
    with regular(path) as file:
        start = file.read(4)
    # Two zero bytes alone begin other files as well, such as a telephone's HEIC pictures.
    return path.suffix == ".gz" or start.startswith(GZIP) or (start[:2] == b"\0\0" and start[2:3] not in (b"", b"\0"))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def pictures_in(folder: Path) -> list[Path]:
    """A folder's pictures, its subfolders' included, in the order of their names; also those of kinds that are not
    read, which `read_images` refuses one by one. Raises DataNotFoundError where there are none."""
    kinds = PICTURES + OTHER_PICTURES
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds and path.is_file())
    if not files:
        raise DataNotFoundError(f"{folder} holds no pictures; expected files that end in {', '.join(PICTURES)}")
    return files


def _pictures(folder: Path) -> list[Path]:
    files = pictures_in(folder)
    for path in files:
        if path.suffix.lower() in OTHER_PICTURES:
            raise DataFormatError(f"{path}: pictures of this kind are not read; expected {', '.join(PICTURES)}")
    return files


def _sized(path: Path, pixels: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[-2:] != (height, width) or not pixels.size:
        raise DataFormatError(
            f"{path}: holds {pixels.shape} {pixels.dtype}, expected (N, {height}, {width}) uint8, not empty"
        )
    return pixels.reshape(-1, height, width, 1)


def _stack(files: list[Path], height: int, width: int) -> NDArray[np.uint8]:
    return np.stack([_image(file, height, width) for file in files])[..., np.newaxis]


def _image(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    picture = read_picture(path)
    try:
        return taken(picture, height, width)
    except ValueError as error:
        raise DataFormatError(f"{path}: {error}") from None
