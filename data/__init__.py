"""Data sets of small images: loading, splitting, normalising, batching, augmenting.

train, test = data.load("strokes")                       # or "mnist", or a folder
train, validation = data.split(train, 5_000, seed=0)
train, validation, test = data.normalise(train, validation, test)
for images, labels in data.batches(train, 128, seed=0, epoch=0): ...
data.Augment(rotation=10, elastic_alpha=34)              # for Trainer.fit(..., augment=)
"""

import os

from data import mnist
from data.augment import Augment
from data.batches import batches, epoch_order
from data.convert import save
from data.csv import read_csv
from data.disk import DiskArray
from data.errors import DataFormatError, DataNotFoundError
from data.files import expanded
from data.folder import read_folder
from data.frame import frame
from data.idx import read_idx, write_idx
from data.images import holds_pictures, read_images, read_labelled
from data.pictures import read_picture, read_pixels
from data.published import digits
from data.splits import Dataset, Split, normalise, split, standardise, statistics
from data.windows import Reader, WindowOrder
from kernels.shapes import flag

__all__ = [
    "Augment",
    "DataFormatError",
    "DataNotFoundError",
    "Dataset",
    "DiskArray",
    "Reader",
    "Split",
    "WindowOrder",
    "batches",
    "epoch_order",
    "frame",
    "load",
    "load_test",
    "normalise",
    "read_csv",
    "read_idx",
    "read_images",
    "read_labelled",
    "read_picture",
    "read_pixels",
    "save",
    "split",
    "standardise",
    "statistics",
    "write_idx",
]


def load(source: str | os.PathLike[str], size: tuple[int, int] | None = None, on_disk: bool = False) -> Dataset:
    """Load a data set: train and test, each images (N, H, W, 1), in colour (N, H, W, 3), uint8 and labels (N,) uint8.

    `classes` of what is returned are the names of the classes, where they are known; `note` says what was made of it.

    ``source`` is

    - ``"strokes"``: 20,000 and 5,000 drawn digits (28 x 28), the same every time, without network;
    - ``"mnist"``: from $TWINKERNELS_DATA, else from the cache, else downloaded;
    - any other path (also ``"./mnist"``): a folder with the four IDX files ``train-images-idx3-ubyte``,
      ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` (or with a dot
      before ``idx``), or with ``mnist_train.csv`` and ``mnist_test.csv``; each plain or .gz; or with
      ``train-images.npy``, ``train-labels.npy``, ``test-images.npy`` and ``test-labels.npy``, each in one file or
      in shards ``train-images-00000.npy`` and so on, as many of images as of labels;
    - a folder or file of another set as it is published: QMNIST, EMNIST (one split as ``FOLDER/emnist-letters``),
      Fashion-MNIST, Kuzushiji, CIFAR-10 and CIFAR-100 (binary), USPS (libsvm), Kaggle's ``train.csv``, OpenML's CSV
      and ARFF, Keras' ``mnist.npz``, Hugging Face's parquet, pictures as ``{train,test}/LABEL/*.png``;
    - ``"sklearn-digits"``: those that scikit-learn comes with, 8 x 8.

    size: (H, W) to which pictures are scaled; unless told their own, or 32 x 32 where these
    differ or are larger than 64. Images of more than 1 GiB are refused; with ``on_disk`` those of IDX and .npy files
    stay there, as a DiskArray, which `Trainer.fit` takes.

    Raises DataNotFoundError where there is no data, DataFormatError where a file is damaged.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f'load: source is {source!r}, expected "strokes", "mnist" or a path')
    flag("load", "on_disk", on_disk)
    if source == "strokes":
        from data import strokes

        train, test = strokes.load()
        return Dataset(Split(*train), Split(*test))
    if source == "mnist":
        return mnist.load()
    if source == "sklearn-digits":
        return digits()
    try:
        return read_folder(source, size, on_disk)
    except DataNotFoundError as error:
        raise DataNotFoundError(f'load: source is neither "strokes" nor "mnist", and {error}') from None


def load_test(source: str | os.PathLike[str], height: int = 28, width: int = 28) -> Split:
    """The test images of what `load` takes, or the labelled images of a file or a folder of pictures.

    Those are read by `read_labelled`, in the size (height, width). Raises what either raises.
    """
    path = expanded(source, "load_test: source")
    if source not in ("strokes", "mnist") and (path.is_file() or holds_pictures(source)):
        return read_labelled(source, height, width)
    test = load(source, on_disk=True).test
    if isinstance(test.images, DiskArray):
        raise DataFormatError(f"{source}: test images {test.images.shape} are too large to be read at once")
    return test
