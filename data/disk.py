"""Arrays that stay on the disk: rows of uncompressed IDX and .npy files, read as they are asked for."""

from __future__ import annotations

import ast
import bisect
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import expanded, regular
from data.idx import MAX_BYTES, read_header

MAX_HEADER = 10_000
"""Bytes of a .npy file's header."""
FINGERPRINT = 256
"""Rows, evenly spaced, that an array is told from others by."""


class _Piece(NamedTuple):
    """Rows of a file, that begin at a byte of it."""

    path: Path
    offset: int
    rows: int


class DiskArray:
    """An array whose first axis runs through the rows of one file after the other; only what is asked for is read.

    `DiskArray.open(*paths)` makes one. It has a shape, dtype, ndim and length; indexed by a number, a slice or an array
    of indices it gives an array in memory. It is not converted to an array by itself: `whole[:]` reads all of it.

    Every reading raises OSError, or DataFormatError where a file has become shorter.
    """

    def __init__(self, pieces: Sequence[_Piece], row: tuple[int, ...], dtype: np.dtype) -> None:
        self._pieces = [piece for piece in pieces if piece.rows]
        self._ends = np.cumsum([piece.rows for piece in self._pieces]).tolist()
        self._files: dict[Path, int] = {}
        self.dtype = dtype
        self.shape = (sum(piece.rows for piece in pieces), *row)

    @classmethod
    def open(cls, *paths: str | os.PathLike[str]) -> DiskArray:
        """The rows of uncompressed IDX or .npy files below each other, which have one dtype and one shape of a row.

        Only headers are read. Raises DataFormatError for a file of another kind, for one whose size is not what its
        header says, for big-endian numbers of several bytes, and for files that do not fit together.
        """
        if not paths:
            raise ValueError("DiskArray.open: no paths, expected one or more")
        found = [_opened(expanded(path)) for path in paths]
        _, row, dtype = found[0]
        for piece, other, kind in found:
            if (other, kind) != (row, dtype):
                raise DataFormatError(
                    f"{piece.path}: rows are {other} {kind}, those of {found[0][0].path.name} {row} {dtype}"
                )
        return cls([piece for piece, _, _ in found], row, dtype)

    def __repr__(self) -> str:
        return f"<DiskArray of {self.shape} {self.dtype} in {len(self._pieces)} pieces>"

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskArray, (self._pieces, self.shape[1:], self.dtype)

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def with_row(self, *row: int) -> DiskArray:
        """The same rows in another shape of as many elements."""
        if math.prod(row) != math.prod(self.shape[1:]):
            raise ValueError(f"DiskArray: a row of {self.shape[1:]} does not become one of {row}")
        return DiskArray(self._pieces, row, self.dtype)

    def rows(self, ranges: Sequence[tuple[int, int]]) -> DiskArray:
        """The rows of these ranges [start, stop), one after the other."""
        pieces = [piece for start, stop in ranges for piece in self._between(start, stop)]
        return DiskArray(pieces, self.shape[1:], self.dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.read(start, max(start, stop))
            return self[np.arange(start, stop, step)]
        if isinstance(index, int | np.integer):
            return self[np.array([index])][0]  # type: ignore[no-any-return]
        indices = np.arange(len(self))[np.asarray(index)] if np.asarray(index).dtype == bool else np.asarray(index)
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for row, at in zip(found, indices, strict=True):
            if not -len(self) <= at < len(self):
                raise IndexError(f"index {at} is out of bounds for {len(self)} rows")
            at %= len(self)
            row[...] = self.read(at, at + 1)[0]
        return found

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows start to stop − 1, into `out` where that is given."""
        if out is None:
            out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        flat = out.reshape(-1).view(np.uint8)
        at = 0
        for piece in self._between(start, stop):
            size = piece.rows * self.row_bytes
            self._fill(piece, flat[at : at + size].data)
            at += size
        return out

    def _fill(self, piece: _Piece, memory: memoryview) -> None:
        if piece.path not in self._files:
            self._files[piece.path] = os.open(piece.path, os.O_RDONLY)
        at = 0
        while at < len(memory):
            count = os.preadv(self._files[piece.path], [memory[at:]], piece.offset + at)
            if not count:
                raise DataFormatError(f"{piece.path}: has become shorter while it was read")
            at += count

    def _between(self, start: int, stop: int) -> Iterator[_Piece]:
        at = bisect.bisect_right(self._ends, start)
        while start < stop:
            piece, begin = self._pieces[at], self._ends[at] - self._pieces[at].rows
            rows = min(stop, self._ends[at]) - start
            yield _Piece(piece.path, piece.offset + (start - begin) * self.row_bytes, rows)
            start, at = start + rows, at + 1

    def fingerprint(self) -> bytes:
        """What tells it from others: shape, dtype, and some of its rows; all of them would take long to read."""
        import hashlib  # here, as it loads OpenSSL

        digest = hashlib.blake2b(f"{self.shape} {self.dtype}".encode(), digest_size=16)
        for at in dict.fromkeys(
            np.linspace(0, len(self) - 1, FINGERPRINT, dtype=np.int64).tolist() if len(self) else ()
        ):
            digest.update(self.read(at, at + 1).tobytes())
        return digest.digest()


def _opened(path: Path) -> tuple[_Piece, tuple[int, ...], np.dtype]:
    """The rows of a file, their shape and dtype."""
    with regular(path) as file:
        if file.read(6) == b"\x93NUMPY":
            shape, dtype = _npy_header(file, path)
        else:
            file.seek(0)
            shape, dtype = read_header(file, path)
        offset = file.tell()
        size = file.seek(0, os.SEEK_END) - offset
    if not dtype.isnative:
        raise DataFormatError(f"{path}: numbers are {dtype.str}, expected uint8 or the byte order of this machine")
    if dtype.itemsize * math.prod(max(n, 1) for n in shape[1:]) > MAX_BYTES:  # zeros must not hide the others
        raise DataFormatError(f"{path}: rows are {shape[1:]} {dtype}, expected at most {MAX_BYTES} bytes each")
    if not shape or size != math.prod(shape) * dtype.itemsize:
        raise DataFormatError(
            f"{path}: header {shape} {dtype} implies {math.prod(shape) * dtype.itemsize} bytes of data, found {size}"
        )
    return _Piece(path, offset, shape[0]), shape[1:], dtype.newbyteorder("=")


def _npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a .npy file, from behind its magic; source: NumPy, NEP 1.

    NumPy's own reader also takes what Python 2 wrote, with a warning, and stumbles over what looks like it.
    """
    version = file.read(2)
    width = {b"\1\0": 2, b"\2\0": 4}.get(version)
    if width is None:
        raise DataFormatError(f"{path}: .npy of version [{version.hex(' ')}], expected 1.0 or 2.0")
    length = int.from_bytes(file.read(width), "little")
    text = file.read(min(length, MAX_HEADER + 1))
    try:
        if len(text) != length:
            raise ValueError(f"{length} bytes long")
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            header = ast.literal_eval(text.decode("latin1"))
        shape, fortran, kind = header["shape"], header["fortran_order"], header["descr"]
        if len(header) != 3 or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"shape {shape!r}")
    except (LookupError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataFormatError(f"{path}: not a readable .npy header ({' '.join(str(error).split())[:200]})") from None
    if fortran is not False or not isinstance(kind, str) or not re.fullmatch(r"[<>|=]?[uif][1248]", kind):
        order = "C" if fortran is False else "Fortran"
        raise DataFormatError(f"{path}: holds {kind!r:.100} in {order} order, expected numbers in C order")
    try:
        return shape, np.dtype(kind)
    except TypeError:
        raise DataFormatError(f"{path}: holds {kind!r}, which is no type of numbers") from None
