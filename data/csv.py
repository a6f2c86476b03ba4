"""MNIST as CSV: a label, then 784 pixels from 0 to 255, one image a line; a header line may come first.

The label stands in the first column, or in the last where the header names it there, as in OpenML's files; in ARFF, the
other form of these, the header is a line an attribute. Kaggle's images to be read have no label.
"""

import codecs
import os
import re
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import expanded, reading
from data.splits import Split

HEIGHT = WIDTH = 28
COLUMNS = 1 + HEIGHT * WIDTH
BLOCK_LINES = 4096
MAX_LINE = 1 << 14  # bytes; a full line has 4 * 785
MAX_BYTES = 1 << 31  # of text, twenty times MNIST

CLASS_NAMES = ("label", "labels", "class", "target", "digit", "y")
MOST_CLASSES = 62  # EMNIST's; a column of pixels reaches further, or hardly differs from row to row
_INTEGER = re.compile(r"\s*\+?0*([0-9]{1,3})\s*")


def read_csv(path: str | os.PathLike[str]) -> Split:
    """Read a CSV file, plain or gzip-compressed.

    Returns images (N, 28, 28, 1) uint8 and labels (N,) uint8. The first line is a header where it cannot be a row: its
    first cell and others are no numbers from 0 to 255, or no two cells are equal. A header that calls its last column
    one of CLASS_NAMES says that the labels are there; without that they are in the first.

    Raises DataFormatError where a header names the class in another column, or in both; and where nothing names it, but
    the first column cannot hold labels and the last can.

    Raises DataFormatError, which names the file and the line, for a line with more or fewer than 785
    columns, a value that is no integer from 0 to 255, a blank line, a line or a file beyond the limits, no
    rows at all, a damaged gzip container or one that inflates beyond reason, and what is no regular file.
    """
    path = expanded(path)
    with reading(path) as stream:
        return parse(stream, path)


class Table(NamedTuple):
    """Images (N, 28, 28, 1) uint8 and labels (N,) uint8, or None where the file has no column of them."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None


def read_table(path: str | os.PathLike[str]) -> Table:
    """As `read_csv`, but also of files of pixels alone, such as Kaggle's test.csv. Raises what that raises."""
    path = expanded(path)
    with reading(path) as stream:
        lines = _lines(path, stream)
        first = next(lines, "")
        if len(first.split(",")) != COLUMNS - 1:
            stream.seek(0)
            return Table(*parse(stream, path))
        headed = any(_value(cell) is None for cell in first.split(","))
        lines, start = (lines, 2) if headed else (chain([first], lines), 1)
        pixels = bytearray()
        while block := list(islice(lines, BLOCK_LINES)):
            pixels += _rows(path, start, block, COLUMNS - 1).tobytes()
            start += len(block)
        if not pixels:
            raise DataFormatError(f"{path}: line {start}: no rows")
        return Table(np.frombuffer(pixels, np.uint8).reshape(-1, HEIGHT, WIDTH, 1), None)


def parse(stream: BinaryIO, path: Path) -> Split:
    """What `read_csv` returns, from an open stream; ``path`` is for the messages."""
    lines = _lines(path, stream)
    first = next(lines, "")
    start, named = 1, None
    if first.startswith(("%", "@")):
        first, start = _arff_header(path, first, lines)
        named = _named(path, first)
    elif _is_header(first):
        start, named = 2, _named(path, first)
    elif first:
        lines = chain([first], lines)
    last = named == COLUMNS - 1
    images, labels, others = bytearray(), bytearray(), bytearray()  # grow in place: joining would double the memory
    while block := list(islice(lines, BLOCK_LINES)):
        rows = _rows(path, start, block)
        labels += rows[:, -1 if last else 0].tobytes()
        others += rows[:, -1].tobytes()
        images += (rows[:, :-1] if last else rows[:, 1:]).tobytes()
        start += len(block)
    if not labels:
        raise DataFormatError(f"{path}: line {start}: no rows")
    split = Split(np.frombuffer(images, np.uint8).reshape(-1, HEIGHT, WIDTH, 1), np.frombuffer(labels, np.uint8))
    if named is None and not _may_be_labels(split.labels) and _may_be_labels(np.frombuffer(others, np.uint8)):
        raise DataFormatError(
            f"{path}: the first column cannot hold the labels, and the last can; write a header that calls the column "
            "with the labels 'class'"
        )
    return split


def _lines(path: Path, stream: BinaryIO) -> Iterator[str]:
    number = total = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE:
            hint = "; numpy.savetxt writes integers if told fmt='%d', delimiter=','" if b"e+0" in line[:64] else ""
            raise DataFormatError(f"{path}: line {number}: longer than {MAX_LINE} bytes{hint}")
        if total > MAX_BYTES:
            raise DataFormatError(f"{path}: line {number}: the file exceeds the limit of {MAX_BYTES} bytes")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield line.decode("latin-1")  # any byte decodes, so that bad ones reach the message


def _arff_header(path: Path, first: str, lines: Iterator[str]) -> tuple[str, int]:
    """The names of an ARFF file's attributes as the header of a CSV file, and the number of its first row's line."""
    names: list[str] = []
    for number, line in enumerate(chain([first], lines), 1):
        word, _, rest = line.strip().partition(" ")
        if word.lower() == "@data":
            return ",".join(names), number + 1
        if word.lower() == "@attribute":
            names.append(re.sub(r"^(?:'([^']*)'|\"([^\"]*)\"|(\S+)).*$", r"\1\2\3", rest.strip()).replace(",", " "))
        elif word and not word.startswith("%") and word.lower() != "@relation":
            raise DataFormatError(f"{path}: line {number}: {word[:20]!r}, expected @relation, @attribute or @data")
    raise DataFormatError(f"{path}: an ARFF file without @data")


def _value(cell: str) -> int | None:
    match = _INTEGER.fullmatch(cell)
    return int(match[1]) if match and int(match[1]) <= 255 else None


def _is_header(line: str) -> bool:
    label, *pixels = cells = line.split(",")
    named = _value(label) is None and any(_value(pixel) is None for pixel in pixels)
    # pandas writes 0,0.1,0.2,... or 0,1,2,...: a row of 785 values up to 255 repeats itself.
    return named or (len(cells) == COLUMNS == len(set(cells)))


def _named(path: Path, header: str) -> int | None:
    """The column that a header calls the class: the first, the last, or None for none."""
    names = [cell.strip().strip("\"'").lower() for cell in header.split(",")]
    found = [column for column, name in enumerate(names) if name in CLASS_NAMES]
    if not found:
        return None
    if len(found) > 1 or found[0] not in (0, COLUMNS - 1):
        places = ", ".join(f"{column + 1} ({names[column]})" for column in found)
        raise DataFormatError(f"{path}: line 1: the header names the class in column {places}, expected 1 or {COLUMNS}")
    return found[0]


def _may_be_labels(column: NDArray[np.uint8]) -> bool:
    """Whether a column differs from row to row as labels do, and stays as low."""
    counts = np.bincount(column)
    return len(counts) <= MOST_CLASSES and int(counts.max()) < 0.8 * len(column)


def _rows(path: Path, start: int, lines: list[str], columns: int = COLUMNS) -> NDArray[np.uint8]:
    """The values of whole lines, the first of which is line ``start`` of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where loadtxt would guess, it warns
            rows = np.loadtxt(lines, np.uint8, comments=None, delimiter=",", ndmin=2)
        if rows.shape == (len(lines), columns):  # loadtxt skips blank lines
            return rows
    except (ValueError, Warning):
        pass  # loadtxt is quick, but counts rows from its own start: find the line below
    return np.array([_row(f"{path}: line {start + at}", line, columns) for at, line in enumerate(lines)], np.uint8)


def _row(place: str, line: str, columns: int = COLUMNS) -> list[int]:
    if not line.strip():
        raise DataFormatError(f"{place}: blank")
    cells = line.split(",")
    if len(cells) != columns:
        label = "a label and " if columns == COLUMNS else ""
        raise DataFormatError(f"{place}: {len(cells)} columns, expected {columns} ({label}{HEIGHT} x {WIDTH} pixels)")
    values = []
    for column, cell in enumerate(cells, 1):
        value = _value(cell)
        if value is None:
            raise DataFormatError(f"{place}: column {column}: {cell.strip()[:20]!r} is no integer from 0 to 255")
        values.append(value)
    return values
