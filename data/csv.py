"""MNIST as CSV: a label, then 784 pixels from 0 to 255, one image a line; a header line may come first."""

import codecs
import os
import re
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import reading
from data.splits import Split

HEIGHT = WIDTH = 28
COLUMNS = 1 + HEIGHT * WIDTH
BLOCK_LINES = 4096
MAX_LINE = 1 << 14  # bytes; a full line has 4 * 785
MAX_BYTES = 1 << 31  # of text, twenty times MNIST

_INTEGER = re.compile(r"\s*\+?0*([0-9]{1,3})\s*")


def read_csv(path: str | os.PathLike[str]) -> Split:
    """Read a CSV file, gzip-compressed if its name ends in .gz.

    Returns images (N, 28, 28, 1) uint8 and labels (N,) uint8. The first line is a header where neither its
    label nor all of its pixels are numbers from 0 to 255.

    Raises DataFormatError, which names the file and the line, for a line with more or fewer than 785
    columns, a value that is no integer from 0 to 255, a blank line, a line or a file beyond the limits, no
    rows at all, a damaged gzip container or one that inflates beyond reason, and what is no regular file.
    """
    path = Path(path)
    with reading(path) as stream:
        return parse(stream, path)


def parse(stream: BinaryIO, path: Path) -> Split:
    """What `read_csv` returns, from an open stream; ``path`` is for the messages."""
    lines = _lines(path, stream)
    first = next(lines, "")
    start = 1
    if _is_header(first):
        start = 2
    elif first:
        lines = chain([first], lines)
    images, labels = bytearray(), bytearray()  # they grow in place: joining blocks would double the memory
    while block := list(islice(lines, BLOCK_LINES)):
        rows = _rows(path, start, block)
        labels += rows[:, 0].tobytes()
        images += rows[:, 1:].tobytes()
        start += len(block)
    if not labels:
        raise DataFormatError(f"{path}: line {start}: no rows")
    return Split(np.frombuffer(images, np.uint8).reshape(-1, HEIGHT, WIDTH, 1), np.frombuffer(labels, np.uint8))


def _lines(path: Path, stream: BinaryIO) -> Iterator[str]:
    number = total = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE:
            raise DataFormatError(f"{path}: line {number}: longer than {MAX_LINE} bytes")
        if total > MAX_BYTES:
            raise DataFormatError(f"{path}: line {number}: the file exceeds the limit of {MAX_BYTES} bytes")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield line.decode("latin-1")  # any byte decodes, so that bad ones reach the message


def _value(cell: str) -> int | None:
    match = _INTEGER.fullmatch(cell)
    return int(match[1]) if match and int(match[1]) <= 255 else None


def _is_header(line: str) -> bool:
    label, *pixels = line.split(",")
    return _value(label) is None and any(_value(pixel) is None for pixel in pixels)


def _rows(path: Path, start: int, lines: list[str]) -> NDArray[np.uint8]:
    """The values of whole lines, the first of which is line ``start`` of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where loadtxt would guess, it warns
            rows = np.loadtxt(lines, np.uint8, comments=None, delimiter=",", ndmin=2)
        if rows.shape == (len(lines), COLUMNS):  # loadtxt skips blank lines
            return rows
    except (ValueError, Warning):
        pass  # loadtxt is quick, but counts rows from its own start: find the line below
    return np.array([_row(f"{path}: line {start + at}", line) for at, line in enumerate(lines)], np.uint8)


def _row(place: str, line: str) -> list[int]:
    if not line.strip():
        raise DataFormatError(f"{place}: blank")
    cells = line.split(",")
    if len(cells) != COLUMNS:
        raise DataFormatError(
            f"{place}: {len(cells)} columns, expected {COLUMNS} (a label and {HEIGHT} x {WIDTH} pixels)"
        )
    values = []
    for column, cell in enumerate(cells, 1):
        value = _value(cell)
        if value is None:
            raise DataFormatError(f"{place}: column {column}: {cell.strip()[:20]!r} is no integer from 0 to 255")
        values.append(value)
    return values
