"""What a network is shown: images from files and folders, in the shape that it takes."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

import data
from data.classes import classes_in, read_classes
from data.files import expanded
from data.images import PICTURES
from data.splits import Split
from models.graph import Graph


def size(network: Graph) -> tuple[int, int, int]:
    """Height, width and channels of the images that a network takes; ValueError for one that takes something else."""
    side = math.isqrt(network.input_shape[0])
    if network.input_shape == (side * side,):  # a row for each image
        return side, side, 1
    if len(network.input_shape) != 3 or network.input_shape[2] not in (1, 3):
        raise ValueError(f"the model takes inputs {network.input_shape}, expected images (H, W, 1) or (H, W, 3)")
    height, width, channels = network.input_shape
    return height, width, channels


def reads_marks(network: Graph) -> bool:
    """Whether pictures show one mark that is framed as MNIST's digits are: of a network for grey images whose classes
    are single characters, if it names any. Other pictures are scaled as they are."""
    return size(network)[2] == 1 and all(len(name) == 1 for name in network.classes or ())


def images(network: Graph, path: Path) -> tuple[list[str], np.ndarray]:
    """The images in a file: a name for each, and the array that the network takes. Raises what `data.read_images`
    does, ValueError for a picture in colour and a network that takes none."""
    height, width, channels = size(network)
    if reads_marks(network) or path.suffix.lower() not in PICTURES:
        if channels != 1:
            raise data.DataFormatError(f"{path}: expected a picture in one of {', '.join(PICTURES)}")
        names, pixels = data.read_images(path, height, width)
    else:
        picture = data.read_pixels(path, (height, width))
        if picture.shape[2] > channels:
            picture = data.read_picture(path)[..., np.newaxis]
            if picture.shape[:2] != (height, width):
                raise data.DataFormatError(f"{path}: a picture in colour, and the model takes grey ones")
        names, pixels = [str(path)], np.repeat(picture, channels // picture.shape[2], axis=2)[np.newaxis]
    return names, pixels.reshape(len(pixels), *network.input_shape)


def labelled(network: Graph, source: str | os.PathLike[str]) -> Split:
    """Labelled images for a network, of the test part of a set or of all pictures in folders of classes.

    Of a set with names of classes, labels are the network's own of the same names. Raises what `data.load_test` does,
    and ValueError for a class that the network has not.
    """
    height, width, _ = size(network)
    if reads_marks(network) and all(map(str.isdecimal, network.classes or ())):
        found = data.load_test(source, height, width)
        return Split(found.images.reshape(len(found.images), *network.input_shape), found.labels)
    if _is_one_part(source):
        dataset = read_classes(expanded(source), (height, width))
        pixels, labels = (np.concatenate([getattr(half, name) for half in dataset]) for name in ("images", "labels"))
    else:
        dataset = data.load(source, (height, width))
        pixels, labels = dataset.test
    return _for_network(network, source, dataset.classes, pixels, labels)


def training(network: Graph, source: str | os.PathLike[str]) -> Split:
    """Labelled images of the training part of a set. Raises what `labelled` does, and DataNotFoundError where all
    pictures are what `labelled` gives."""
    if _is_one_part(source):
        raise data.DataNotFoundError(f"{source} has no training part")
    dataset = data.load(source, size(network)[:2])
    return _for_network(network, source, dataset.classes, *dataset.train)


def _is_one_part(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a folder of classes that is not divided into train and test."""
    folder = expanded(source)
    return folder.is_dir() and not (folder / "train").is_dir() and bool(classes_in(folder))


def _for_network(
    network: Graph,
    source: str | os.PathLike[str],
    classes: tuple[str, ...] | None,
    pixels: np.ndarray,
    labels: np.ndarray,
) -> Split:
    """Images in the network's shape, with its numbers for classes of the same names."""
    if classes and network.classes and classes != network.classes:
        if unknown := [name for name in classes if name not in network.classes]:
            own = ", ".join(network.classes)
            raise ValueError(f"{source}: class {unknown[0]!r} is none of the model's, which are {own}")
        numbers = np.array([network.classes.index(name) for name in classes], np.uint8)
        labels = numbers[labels]
    if pixels.ndim == 4 and pixels.shape[3] == 1 and size(network)[2] == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    return Split(pixels.reshape(len(pixels), *network.input_shape), labels)


def submission(answers: np.ndarray) -> bytes:
    """Kaggle's form of answers to its images in their order: ImageId from 1, and Label."""
    rows = (f"{at},{label}" for at, label in enumerate(answers.tolist(), 1))
    return ("\n".join(["ImageId,Label", *rows]) + "\n").encode()
