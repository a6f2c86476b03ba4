"""HDF5 files read with bounds: no link is followed to another file, and nothing is allocated on a file's word.

The classic form, in which h5py and so Keras write, is read by `hdf5_classic`; the newer one, whose headers have
checksums, by h5py.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..encoding import ModelFormatError, harmless, printable
from .hdf5_classic import SIGNATURE, Array, Group, is_classic, root

FAILURES = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError),
    *(RecursionError, RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What a file that is damaged, or lies, makes the libraries raise."""


@contextmanager
def failing_as(path: Path, what: str) -> Iterator[None]:
    """Whatever a file makes the libraries raise becomes a ModelFormatError that names the file, as does one of ours."""
    try:
        yield
    except ModelFormatError as error:
        raise type(error)(f"{path}: {harmless(str(error))}") from error
    except FAILURES as error:
        raise ModelFormatError(f"{path}: {what} ({printable(error)})") from error


def imported() -> Any:
    """h5py. ModelFormatError that says how to get it where it is not there."""
    try:
        import h5py
    except ImportError:
        raise ModelFormatError("this needs the package h5py: pip install 'twinkernels[keras]'") from None
    return h5py


@contextmanager
def opened(source: Path | bytes) -> Iterator[Any]:
    """The outermost group of an HDF5 file, or of the bytes of one, to read from. Raises what `imported` raises."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        start = file.read(16)
        if start[:8] != SIGNATURE:
            raise ModelFormatError("no HDF5 file")
        if is_classic(start):
            yield root(file)
            return
        file.seek(0)
        with imported().File(file, "r") as group:
            yield group


def member(group: Any, path: str) -> Any:
    """What stands in a group under a path; None if nothing does. ModelFormatError where a link leads elsewhere."""
    found = group
    for part in filter(None, path.split("/")):
        if not isinstance(found, (Group, _kind("Group"))) or part not in found:
            return None
        if isinstance(found, Group):
            found = found.child(part)
        elif not isinstance(found.get(part, getlink=True), _kind("HardLink")):
            raise ModelFormatError(f"{part} is a link to elsewhere, which is not followed")
        else:
            found = found[part]
    return found


def _kind(name: str) -> Any:
    """A class of h5py, of which nothing is an instance where it is not loaded."""
    return getattr(sys.modules.get("h5py"), name, ())


def texts(group: Any, name: str) -> list[str]:
    """A list of names that an attribute holds, or several numbered ones, as Keras splits long lists."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts, index = [], 0
        while f"{name}{index}" in group.attrs:
            parts.append(group.attrs[f"{name}{index}"])
            index += 1
    return [text(item) for part in parts for item in np.atleast_1d(part)]


def text(value: Any) -> str:
    """An attribute as text; ModelFormatError for one that is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return value
    raise ModelFormatError(f"an attribute is a {type(value).__name__}, expected text")


class Reader:
    """Reads arrays, as many bytes as it may in all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def array(self, group: Any, path: str) -> np.ndarray:
        """The array of numbers under a path; ModelFormatError for none, one in another file, or one too large."""
        found = member(group, path)
        if not isinstance(found, (Array, _kind("Dataset"))) or found.shape is None:
            raise ModelFormatError(f"there is no array {path}")
        if isinstance(found, _kind("Dataset")) and (found.is_virtual or found.external):
            raise ModelFormatError(f"{path} lies in another file, which is not read")
        if found.dtype is None or found.dtype.kind not in "fiu":
            raise ModelFormatError(f"{path} has dtype {found.dtype}, expected floats")
        self._left -= math.prod(found.shape) * max(found.dtype.itemsize, 4)
        if self._left < 0:
            raise ModelFormatError(
                f"its arrays take more than {self._max_bytes} bytes; load(..., max_bytes=) takes more"
            )
        if not isinstance(found, Array):
            return np.asarray(found[()])
        try:
            return found.read()
        except ModelFormatError as error:
            raise ModelFormatError(f"{path}: {error}") from None
