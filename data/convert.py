"""A data set written in another form, which `load` reads again."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from data.errors import DataFormatError
from data.files import expanded, replacing, write_atomically
from data.folder import CSV_NAMES, IDX_NAMES
from data.idx import write_idx
from data.splits import Dataset, Split

FORMS = ("idx", "csv", "npz", "png")


def save(dataset: Dataset, path: str | os.PathLike[str], form: str | None = None) -> Path:
    """Write a data set, and return where it is. Equal sets give equal bytes.

    form: "idx", a folder of MNIST's four files; "csv", a folder of mnist_train.csv and mnist_test.csv, 28 x 28 alone;
    "npz", one file as Keras has it, which holds the names of classes as well; "png", a folder of pictures as
    {train,test}/CLASS/00000.png. Unless told, that of the path's end, and "idx" for a folder.

    Raises ValueError for what the form cannot hold, FileExistsError where something is there already.
    """
    path = expanded(path)
    chosen = (path.suffix[1:] if path.suffix[1:] in FORMS else "idx") if form is None else form
    if chosen not in FORMS:
        raise ValueError(f"save: form is {form!r}, expected one of {', '.join(FORMS)}")
    for half, own in dataset._asdict().items():
        if not isinstance(own.images, np.ndarray):
            raise ValueError(f"save: images of {half} are a {type(own.images).__name__}, expected arrays")
    shape = dataset.train.images.shape[1:]
    if chosen in ("idx", "csv") and (len(shape) != 3 or shape[2] != 1):
        raise ValueError(f"save: {chosen} holds grey images, these are {shape}; npz and png hold colours")
    if chosen == "csv" and shape[:2] != (28, 28):
        raise ValueError(f"save: csv holds images of 28 x 28, these are {shape[0]} x {shape[1]}")
    if chosen == "npz" and path.suffix != ".npz":
        path = path.with_name(f"{path.name}.npz")
    if path.exists() and (path.is_file() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already, expected a new file or folder")
    if chosen == "npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _archive(dataset))
        return path
    path.mkdir(parents=True, exist_ok=True)
    if chosen == "idx":
        for name, array in zip(IDX_NAMES, (*dataset.train, *dataset.test), strict=True):
            write_idx(path / name, array[..., 0] if array.ndim == 4 else array)
    elif chosen == "csv":
        for name, own in zip(CSV_NAMES, dataset, strict=True):
            _write_csv(path / name, own)
    else:
        _write_pictures(path, dataset)
    return path


def _archive(dataset: Dataset) -> bytes:
    import zipfile

    (x_train, y_train), (x_test, y_test) = dataset
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    if dataset.classes:
        arrays["classes"] = np.array(dataset.classes)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            grey = array.ndim == 4 and array.shape[3] == 1
            held = io.BytesIO()
            np.lib.format.write_array(held, np.ascontiguousarray(array[..., 0] if grey else array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), held.getvalue(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _write_csv(path: Path, own: Split) -> None:
    rows = np.column_stack([own.labels, own.images.reshape(len(own.images), -1)])
    header = ",".join(["label", *(f"pixel{at}" for at in range(rows.shape[1] - 1))])
    with replacing(path) as beside:
        np.savetxt(beside, rows, fmt="%d", delimiter=",", header=header, comments="")


def _write_pictures(path: Path, dataset: Dataset) -> None:
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("save: pictures need Pillow: pip install 'twinkernels[images]'") from None
    names = dataset.classes or tuple(map(str, range(256)))
    for odd in (name for name in names if os.path.basename(name) != name or name in ("", ".", "..")):
        names = tuple(name.replace("/", "-") for name in names)
        if odd.replace("/", "-") in ("", ".", ".."):
            raise DataFormatError(f"save: a class is called {odd!r}, which no folder can be")
    for half, own in dataset._asdict().items():
        for at, (image, label) in enumerate(zip(*own, strict=True)):
            folder = path / half / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
            (folder / f"{at:05}.png").write_bytes(file.getvalue())
