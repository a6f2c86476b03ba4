"""Data sets as they are published: each known by the names of its files, and what is special about it done.

Sources: G. Cohen and others, "EMNIST: an extension of MNIST to handwritten letters" (2017); C. Yadav, L. Bottou, "Cold
case: the lost MNIST digits" (2019); T. Clanuwat and others, "Deep learning for classical Japanese literature" (2018);
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017); A. Krizhevsky, "Learning multiple layers of features from tiny
images" (2009); J. Hull, "A database for handwritten text recognition research" (1994).
"""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.csv import MAX_LINE, read_csv, read_table
from data.errors import DataFormatError, DataNotFoundError
from data.files import INFLATED, RATIO, reading, regular, take
from data.idx import read_idx
from data.splits import Dataset, Split, split

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple(string.digits)
_BOTH = DIGITS + tuple(string.ascii_uppercase)
EMNIST = {
    "byclass": _BOTH + tuple(string.ascii_lowercase),
    "bymerge": (*_BOTH, *"abdefghnqrt"),
    "balanced": (*_BOTH, *"abdefghnqrt"),
    "letters": tuple(string.ascii_uppercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}
"""Classes by split. In bymerge and balanced, letters that look alike in both cases are one class."""

HELD_OUT = 7  # one sample in so many is tested on where a set has no labelled test part, as MNIST has them
OPENML = (60_000, 70_000)  # rows of the sets that OpenML joins: those for training, and all
CIFAR_BYTES = 3 * 32 * 32
MAX_CELLS = 1 << 29  # numbers of an array in an archive: ten times MNIST's
USPS_SIDE = 16
USPS_LINES = 1 << 16  # seven times as many as both its files have
PICKLES = (".pkl", ".pickle", ".p")


def named(path: Path) -> tuple[str, ...] | None:
    """The classes of IDX and CSV files whose own names are MNIST's, by their folder's name; None for unknown ones."""
    text = f"{path.absolute().parent.name}/{path.name}".lower()
    if "fashion" in text:
        return FASHION
    return KUZUSHIJI if "kmnist" in text or "kuzushiji" in text else None


def one_line(error: Exception) -> str:
    """What another library says, in one line and without what could steer a terminal."""
    text = " ".join(str(error).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in text)


def held_out(whole: Split, classes: tuple[str, ...] | None, what: str) -> Dataset:
    """A set without a labelled test part: one sample in HELD_OUT is set aside, drawn with seed 0."""
    count = len(whole.labels) // HELD_OUT
    if not count:
        raise DataFormatError(f"{what}: {len(whole.labels)} samples, expected {HELD_OUT} or more to set some aside")
    return Dataset(
        *split(whole, count), classes=classes, note=f"{what} has no labelled test part: a seventh is tested on"
    )


def halves(whole: Split, classes: tuple[str, ...] | None, what: str) -> Dataset:
    """A set in one table: OpenML's as they were published, others by `held_out`."""
    first, count = OPENML
    if len(whole.labels) != count:
        return held_out(whole, classes, what)
    parts = slice(first), slice(first, None)
    train, test = (Split(whole.images[part], whole.labels[part]) for part in parts)
    return Dataset(train, test, classes=classes)


# IDX -------------------------------------------------------------------------------------------------------------


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or .gz, with a dash or a dot before idx."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path := folder / (spelling + suffix)).is_file():
                return path
    return None


def _set_of(folder: Path, names: Iterable[str]) -> list[Path] | None:
    """The files of these names; None where none is there, DataNotFoundError where some are missing."""
    names = list(names)
    found = [_find(folder, name) for name in names]
    if not any(found):
        return None
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise DataNotFoundError(f"{folder} lacks {', '.join(missing)}, plain or .gz")
    return [path for path in found if path]


def _idx_pair(images: Path, labels: Path, rank: int = 1) -> Split:
    """Images (N, H, W) uint8 with labels (N,), or with those in the first column of a table."""
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise DataFormatError(f"{images}: holds {pixels.shape} {pixels.dtype}, expected (N, H, W) uint8, not empty")
    if numbers.ndim != rank or numbers.dtype.kind not in "iu" or (rank == 2 and numbers.shape[1] < 1):
        meaning = "(N, 8) int32" if rank == 2 else "(N,) uint8"
        raise DataFormatError(f"{labels}: holds {numbers.shape} {numbers.dtype}, expected {meaning}")
    if len(numbers) != len(pixels):
        raise DataFormatError(f"{labels}: {len(numbers)} labels for the {len(pixels)} images of {images.name}")
    column = numbers if rank == 1 else numbers[:, 0]
    return Split(pixels[..., np.newaxis], _labels(labels, column))


def _labels(path: Path, numbers: NDArray[Any], most: int = 255) -> NDArray[np.uint8]:
    """Labels as uint8; DataFormatError for others than 0 to `most`."""
    outside = np.flatnonzero((numbers < 0) | (numbers > most))
    if outside.size:
        raise DataFormatError(f"{path}: label {numbers[outside[0]]} of sample {outside[0]}, expected 0 to {most}")
    return np.ascontiguousarray(numbers, np.uint8)


def qmnist(folder: Path) -> Dataset | None:
    """QMNIST: labels are rows of eight numbers, int32, the digit first; both halves have 60,000."""
    names = [f"qmnist-{part}-{kind}" for part in ("train", "test") for kind in ("images-idx3-ubyte", "labels-idx2-int")]
    found = _set_of(folder, names)
    if found is None:
        return None
    train, test = (_idx_pair(images, labels, 2) for images, labels in (found[:2], found[2:]))
    return Dataset(train, test, classes=DIGITS)


def emnist(folder: Path, kind: str) -> Dataset | None:
    """A split of EMNIST: its images lie transposed in the files, and the labels of `letters` begin with 1."""
    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    found = _set_of(folder, (f"emnist-{kind}-{part}-ubyte" for part in parts))
    if found is None:
        return None
    splits = []
    for images, labels in (found[:2], found[2:]):
        pixels, numbers = _idx_pair(images, labels)
        first = int(kind == "letters")
        classes = len(EMNIST[kind])
        if numbers.min() < first or numbers.max() >= classes + first:
            raise DataFormatError(
                f"{labels}: labels from {numbers.min()} to {numbers.max()}, expected {first} to {classes + first - 1}"
            )
        splits.append(Split(np.ascontiguousarray(pixels.transpose(0, 2, 1, 3)), numbers - np.uint8(first)))
    return Dataset(*splits, classes=EMNIST[kind])


def any_emnist(folder: Path) -> Dataset | None:
    """The one split of EMNIST that a folder holds; DataNotFoundError, which says how to name one, for several."""
    kinds = [kind for kind in EMNIST if _find(folder, f"emnist-{kind}-train-images-idx3-ubyte")]
    if len(kinds) > 1:
        raise DataNotFoundError(
            f"{folder} holds several splits of EMNIST, expected the name of one: "
            + ", ".join(str(folder / f"emnist-{kind}") for kind in kinds)
        )
    return emnist(folder, kinds[0]) if kinds else None


# Archives of NumPy's ---------------------------------------------------------------------------------------------


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, none of them pickled; DataFormatError for what is none."""
    import zipfile

    found = {}
    try:
        with regular(path) as file, zipfile.ZipFile(file) as archive:
            left = max(INFLATED, RATIO * path.stat().st_size)
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    version = np.lib.format.read_magic(stream)
                    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _header_2
                    shape, fortran, dtype = header(stream)
                    count = int(np.prod(shape, dtype=np.float64))
                    if dtype.hasobject:
                        raise DataFormatError(f"{path}: {entry.filename} holds pickled objects, expected numbers alone")
                    if count > MAX_CELLS or count * dtype.itemsize > 8 * MAX_CELLS:
                        raise DataFormatError(f"{path}: {entry.filename} holds {shape}, more than {MAX_CELLS} numbers")
                    if (left := left - count * dtype.itemsize) < 0:
                        raise DataFormatError(f"{path}: inflates to more than {RATIO} times its size")
                    content = take(stream, count * dtype.itemsize + 1)  # type: ignore[arg-type]
                    if len(content) != count * dtype.itemsize:
                        raise DataFormatError(f"{path}: {entry.filename} has {len(content)} bytes for {shape} {dtype}")
                    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
                    found[entry.filename.removesuffix(".npy")] = array
    except DataFormatError:
        raise
    except FileNotFoundError:
        raise
    # What a damaged archive makes its readers meet: zlib.error, TokenError, struct.error, NotImplementedError.
    except Exception as error:
        raise DataFormatError(f"{path}: not a readable .npz file ({one_line(error)})") from None
    return found


def _header_2(stream: Any) -> tuple[Any, bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_2_0(stream)


def _array_pair(path: Path, images: NDArray[Any], labels: NDArray[Any], labels_path: Path | None = None) -> Split:
    """Images (N, H, W) or (N, H, W, C) uint8 and labels (N,) or (N, 1), as Keras has them."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise DataFormatError(f"{path}: images are {images.shape} {images.dtype}, expected (N, H, W) uint8, not empty")
    own = labels_path or path
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise DataFormatError(f"{own}: labels are {labels.shape} {labels.dtype}, expected ({len(images)},) of integers")
    pixels = images[..., np.newaxis] if images.ndim == 3 else images
    return Split(np.ascontiguousarray(pixels), _labels(own, labels.reshape(-1)))


def keras_archive(path: Path) -> Dataset:
    """The .npz file of Keras' data sets: x_train, y_train, x_test and y_test. `classes`, if there, are the names."""
    found = arrays(path)
    names = ("x_train", "y_train", "x_test", "y_test")
    if missing := [name for name in names if name not in found]:
        raise DataFormatError(f"{path}: lacks {', '.join(missing)}; holds {', '.join(found) or 'nothing'}")
    train, test = (_array_pair(path, found[f"x_{part}"], found[f"y_{part}"]) for part in ("train", "test"))
    if "classes" not in found:
        return Dataset(train, test, classes=named(path))
    held = found["classes"]
    if held.ndim != 1:
        raise DataFormatError(f"{path}: classes are {held.shape} {held.dtype}, expected the names one by one")
    try:
        classes = tuple(map(str, held.tolist()))
    except (SystemError, ValueError):  # numbers that are no characters
        raise DataFormatError(f"{path}: classes are no text") from None
    return Dataset(train, test, classes=_enough(path, classes, train.labels, test.labels))


def _enough(path: Path, classes: tuple[str, ...], *labels: NDArray[np.uint8]) -> tuple[str, ...]:
    """The classes; DataFormatError where a label is none of them, or a name could steer a terminal."""
    most = max(int(own.max()) for own in labels)
    if most >= len(classes):
        raise DataFormatError(f"{path}: label {most}, and names of {len(classes)} classes")
    if odd := [name for name in classes if not name.isprintable()]:
        raise DataFormatError(f"{path}: class {odd[0]!a:.40} has characters that cannot be shown")
    return classes


def kuzushiji(folder: Path) -> Dataset | None:
    """Kuzushiji-MNIST and Kuzushiji-49 as .npz files, an array in each."""
    for name in ("kmnist", "k49"):
        parts = [f"{name}-{part}-{kind}.npz" for part in ("train", "test") for kind in ("imgs", "labels")]
        if not any((folder / part).is_file() for part in parts):
            continue
        if missing := [part for part in parts if not (folder / part).is_file()]:
            raise DataNotFoundError(f"{folder} lacks {', '.join(missing)}")
        loaded = []
        for part in parts:
            own = arrays(folder / part)
            if len(own) != 1:
                raise DataFormatError(f"{folder / part}: holds {', '.join(own) or 'nothing'}, expected one array")
            loaded.append(next(iter(own.values())))
        splits = [_array_pair(folder / parts[at], loaded[at], loaded[at + 1], folder / parts[at + 1]) for at in (0, 2)]
        return Dataset(*splits, classes=KUZUSHIJI if name == "kmnist" else _class_map(folder / "k49_classmap.csv"))
    return None


def _class_map(path: Path) -> tuple[str, ...] | None:
    """Characters by their numbers: the columns index, codepoint and char of Kuzushiji-49's table, if it is there."""
    if not path.is_file():
        return None
    with reading(path) as stream:
        rows = [line.split(",") for line in take(stream, 1 << 16).decode("utf-8", "replace").splitlines()[1:]]
    return tuple(row[2].strip() for row in rows if len(row) > 2) or None


# Tables ----------------------------------------------------------------------------------------------------------


def tables(folder: Path) -> Dataset | None:
    """CSV files: `..._train...csv` beside `..._test...csv`; Kaggle's train.csv; one file that is all there is."""
    files = [path for path in folder.iterdir() if path.name.lower().removesuffix(".gz").endswith(".csv")]
    trains = [path for path in files if "train" in path.name.lower()]
    tests = [path for path in files if "test" in path.name.lower()]
    if len(trains) == 1 and len(tests) == 1:
        train, test = read_csv(trains[0]), read_table(tests[0])
        if test.labels is None:
            return held_out(train, named(trains[0]) or DIGITS, str(trains[0]))
        return Dataset(train, Split(test.images, test.labels), classes=named(trains[0]))
    if len(trains) > 1 or len(tests) > 1:
        several = trains if len(trains) > 1 else tests
        raise DataNotFoundError(
            f"{folder} holds {', '.join(sorted(path.name for path in several))}, expected one of them, or its path"
        )
    whole = [path for path in files if path.name == "train.csv" or path not in (*trains, *tests)]
    whole = [path for path in whole if path.name != "sample_submission.csv"]
    whole += [path for path in folder.iterdir() if path.name.lower().removesuffix(".gz").endswith(".arff")]
    return table(whole[0]) if len(whole) == 1 else None


def table(path: Path) -> Dataset:
    """A CSV or ARFF file that is all of a set."""
    whole = read_csv(path)
    letters = tuple(string.ascii_uppercase)
    classes = letters if re.match(r"a[_-]z", path.name.lower()) else named(path)
    if classes == letters and int(whole.labels.max()) >= len(letters):
        raise DataFormatError(f"{path}: label {whole.labels.max()}, expected 0 to 25, one a letter")
    return halves(whole, classes, str(path))


# Colour ----------------------------------------------------------------------------------------------------------


def _records(path: Path, before: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """CIFAR's records: `before` labels, then 32 x 32 pixels of red, of green and of blue."""
    size = before + CIFAR_BYTES
    with reading(path) as stream:
        content = take(stream, 1 << 28)
    if not content or len(content) % size:
        raise DataFormatError(f"{path}: {len(content)} bytes, expected records of {size}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    planes = rows[:, before:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, before - 1].copy()


def _names(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    with regular(path) as stream:
        lines = stream.read(1 << 16).decode("utf-8", "replace").split("\n")
    return tuple(line.strip() for line in lines if line.strip()) or None


def cifar10(folder: Path) -> Dataset | None:
    """CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin."""
    batches = [f"data_batch_{at}.bin" for at in range(1, 6)]
    if not any((folder / name).is_file() for name in (*batches, "test_batch.bin")):
        return None
    if missing := [name for name in (*batches, "test_batch.bin") if not (folder / name).is_file()]:
        raise DataNotFoundError(f"{folder} lacks {', '.join(missing)}")
    parts = [_records(folder / name, 1) for name in batches]
    images, labels = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    test = _records(folder / "test_batch.bin", 1)
    for path, own in ((folder / batches[0], labels), (folder / "test_batch.bin", test[1])):
        _labels(path, own, len(CIFAR) - 1)
    names = _names(folder / "batches.meta.txt") or CIFAR
    _enough(folder / "batches.meta.txt", names, labels, test[1])
    return Dataset(Split(images, labels), Split(*test), classes=names)


def cifar100(folder: Path) -> Dataset | None:
    """CIFAR-100's binary version: train.bin and test.bin; of a record's coarse and fine label, the fine one counts."""
    if not any((folder / name).is_file() for name in ("train.bin", "test.bin")):
        return None
    if missing := [name for name in ("train.bin", "test.bin") if not (folder / name).is_file()]:
        raise DataNotFoundError(f"{folder} lacks {missing[0]}")
    splits = [Split(*_records(folder / name, 2)) for name in ("train.bin", "test.bin")]
    for name, own in zip(("train.bin", "test.bin"), splits, strict=True):
        _labels(folder / name, own.labels, 99)
    names = _names(folder / "fine_label_names.txt")
    if names is not None:
        _enough(folder / "fine_label_names.txt", names, *(own.labels for own in splits))
    return Dataset(*splits, classes=names)


# libsvm ----------------------------------------------------------------------------------------------------------


def usps(folder: Path) -> Dataset | None:
    """USPS in libsvm's form: usps and usps.t, perhaps as .bz2; labels 1 to 10 are the digits 0 to 9."""
    found = [next((p for s in ("", ".bz2") if (p := folder / (n + s)).is_file()), None) for n in ("usps", "usps.t")]
    if not any(found):
        return None
    train, test = found
    if train is None or test is None:
        raise DataNotFoundError(f"{folder} lacks {'usps' if train is None else 'usps.t'}, plain or .bz2")
    return Dataset(_sparse(train), _sparse(test), classes=DIGITS)


def _sparse(path: Path) -> Split:
    """Lines `label index:value ...`, values from −1 to 1 of 16 x 16 pixels; what is left out is 0."""
    import bz2

    rows: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    with regular(path) as file, contextlib.ExitStack() as opened:
        packed = file.read(3) == b"BZh"
        file.seek(0)
        try:
            lines: Any = opened.enter_context(bz2.open(file)) if packed else file
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 1), b""), 1):
                if len(line) > MAX_LINE or number > USPS_LINES:
                    most = f"{MAX_LINE} bytes a line" if len(line) > MAX_LINE else f"{USPS_LINES} lines"
                    raise DataFormatError(f"{path}: line {number}: more than {most}")
                if not line.strip():
                    continue
                row = np.zeros(USPS_SIDE * USPS_SIDE)
                try:
                    label, *cells = line.decode("ascii").split()
                    for cell in cells:
                        index, _, value = cell.partition(":")
                        row[_index(index)] = float(value)
                    labels.append(_index(label, 10))
                except (ValueError, IndexError, OverflowError):
                    raise DataFormatError(
                        f"{path}: line {number}: expected a label from 1 to 10, then index:value with indices from 1 "
                        f"to {USPS_SIDE * USPS_SIDE}"
                    ) from None
                if not (np.abs(row) <= 1).all():
                    raise DataFormatError(f"{path}: line {number}: a value outside of -1 to 1")
                rows.append(np.rint((row + 1) * 127.5).astype(np.uint8))
        except (OSError, EOFError) as error:
            raise DataFormatError(f"{path}: damaged bz2 file: {error}") from None
    if not rows:
        raise DataFormatError(f"{path}: no rows")
    return Split(np.stack(rows).reshape(-1, USPS_SIDE, USPS_SIDE, 1), np.array(labels, np.uint8))


def _index(text: str, most: int = USPS_SIDE * USPS_SIDE) -> int:
    """A number from 1 to `most`, counted from 0."""
    number = int(float(text))
    if not 1 <= number <= most:
        raise IndexError
    return number - 1


# Parquet ---------------------------------------------------------------------------------------------------------


def parquet(folder: Path) -> Dataset | None:
    """Tables of Hugging Face: train-00000-of-00001.parquet and test-...; pictures by their bytes, and labels."""
    files = sorted(folder.rglob("*.parquet"))
    parts = {part: [path for path in files if path.name.startswith(part)] for part in ("train", "test")}
    if not files:
        return None
    if not parts["train"]:
        raise DataNotFoundError(f"{folder} lacks train-*.parquet; found {', '.join(path.name for path in files[:8])}")
    read = {part: [_parquet_file(path) for path in paths] for part, paths in parts.items() if paths}
    classes = read["train"][0][1]
    joined = {}
    for part, tables in read.items():
        sizes = {own.images.shape[1:] for own, _ in tables}
        if len(sizes) > 1:
            raise DataFormatError(f"{folder}: pictures of {part} have the sizes {sorted(sizes)}, expected one size")
        images, labels = ([getattr(own, name) for own, _ in tables] for name in ("images", "labels"))
        joined[part] = Split(np.concatenate(images), np.concatenate(labels))
    if "test" not in joined:
        return held_out(joined["train"], classes, str(folder))
    return Dataset(joined["train"], joined["test"], classes=classes)


def _check_promise(metadata: Any, size: int) -> None:
    """Raise DataFormatError for a table that claims more than a file of so many bytes holds: room is made for it."""
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    if min(rows, default=0) < 0 or sum(rows) > size:
        raise DataFormatError(f"holds {sum(rows)} rows in {size} bytes, it says")
    plain = sum(
        group.total_byte_size for group in groups
    )  # not by column: pyarrow 26 aborts over some that are damaged
    if plain > max(INFLATED, RATIO * size):
        raise DataFormatError(f"inflates to {plain} bytes, more than {RATIO} times its size")


def _parquet_file(path: Path) -> tuple[Split, tuple[str, ...] | None]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: parquet files need pyarrow: pip install 'twinkernels[parquet]'") from None
    import io
    import json

    from data.pictures import parse_pixels

    with regular(path) as file:
        try:
            # No threads: one at work on a damaged file may outlive the error, and hold up the process's exit.
            held = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
            _check_promise(held.metadata, path.stat().st_size)
            found = held.read(use_threads=False)
            columns = found.column_names
            pictures = next((name for name in ("image", "img") if name in columns), None)
            labelled = next((name for name in ("label", "fine_label", "labels") if name in columns), None)
            if pictures is None or labelled is None:
                raise DataFormatError(f"columns are {', '.join(columns)}, expected image and label")
            if not pyarrow.types.is_integer(found[labelled].type):
                raise DataFormatError(f"{labelled} holds {found[labelled].type}, expected integers")
            cells, numbers = found[pictures].to_pylist(), found[labelled].to_pylist()
            described = (found.schema.metadata or {}).get(b"huggingface", b"")
        except DataFormatError as error:
            raise DataFormatError(f"{path}: {one_line(error)}") from None
        # What damaged columns make their readers meet: names and texts that are no UTF-8, dates beyond all years.
        except Exception as error:
            raise DataFormatError(f"{path}: not a readable parquet file ({one_line(error)})") from None
    images = []
    for at, cell in enumerate(cells):
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise DataFormatError(f"{path}: row {at}: {pictures} holds no bytes of a picture")
        images.append(parse_pixels(io.BytesIO(content), Path(f"{path}[{at}]")))
    if not images:
        raise DataFormatError(f"{path}: no rows")
    if len({image.shape for image in images}) > 1:
        raise DataFormatError(f"{path}: pictures of several sizes, expected one")
    labels = _labels(path, np.array([-1 if label is None else label for label in numbers]))
    try:
        features = json.loads(described)["info"]["features"]
        names = features[labelled]["names"]
    except (TypeError, KeyError, ValueError, RecursionError):
        names = None  # tables of others say no names
    classes = _enough(path, tuple(map(str, names)), labels) if isinstance(names, list) else None
    return Split(np.stack(images), labels), classes


def digits() -> Dataset:
    """The 1,797 digits of 8 x 8 that scikit-learn comes with, levels 0 to 16 stretched to 0 to 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("load: sklearn-digits need scikit-learn: pip install 'twinkernels[sklearn]'") from None
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return held_out(Split(images, labels.astype(np.uint8)), DIGITS, "sklearn-digits")


def refuse_pickles(folder: Path) -> None:
    """Raise DataFormatError for a folder of pickles, which can run any program."""
    for path in sorted(folder.iterdir()):
        batch = path.name in ("data_batch_1", "batches.meta") or {path.name, "meta"} <= {"train", "test", "meta"}
        if path.is_file() and (batch or path.name.lower().removesuffix(".gz").endswith(PICKLES)):
            refuse_pickle(path)


def refuse_pickle(path: Path) -> None:
    """Raise the DataFormatError of a file that is a pickle."""
    hint = (
        "CIFAR's binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz)"
        if "batch" in path.name or path.parent.name.startswith("cifar") or path.name in ("train", "test")
        else "the IDX files, or .npz"
    )
    raise DataFormatError(f"{path}: is a pickle, which can run any program and is not read; use {hint} instead")


FOLDERS: tuple[Callable[[Path], Dataset | None], ...] = (
    qmnist,
    any_emnist,
    kuzushiji,
    cifar10,
    cifar100,
    usps,
    parquet,
    tables,
)
"""What reads a folder, by the names in it: each gives None where it finds none of its own."""
