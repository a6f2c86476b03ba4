"""Files read with a bound and replaced in one go."""

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from data.errors import DataFormatError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
GZIP = b"\x1f\x8b"
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)  # names of files that are not yet whole
INFLATED = 1 << 26  # bytes that any gzip file may hold, MNIST's largest is 47 MB; a larger file may hold
RATIO = 16  # times its own size: images shrink to a quarter or a tenth, deflate's limit is 1032


def expanded(path: str | os.PathLike[str], name: str = "path") -> Path:
    """The path, a leading ``~`` being the user's home, as in a shell.

    TypeError that begins with ``name`` for what is none, ValueError for "".
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} is {path!r}, expected a path")
    if not os.fspath(path):
        raise ValueError(f"{name} is '', expected a path")
    return Path(os.path.expanduser(path))


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file, plain or gzip-compressed, as a stream of its plain bytes.

    Raises what `regular` and `plain` raise.
    """
    with regular(path) as file, plain(file, path) as stream:
        yield stream


@contextmanager
def regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read from. A link is followed, but what it leads to is a regular file.

    Raises DataFormatError for any other: a pipe waits for a writer, and a device has no end.
    """
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataFormatError(f"{path}: not a regular file")
        yield file


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


@contextmanager
def plain(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """The plain bytes of an open file: inflated on the way if it begins as gzip files do, whatever its name.

    Raises DataFormatError where the gzip container is damaged, and where it holds more than INFLATED bytes and RATIO
    times its size. Its CRC is checked at the end of the stream only, so a caller that cares reads until nothing is
    left.
    """
    compressed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    if not compressed:
        yield file
        return
    limit = max(INFLATED, RATIO * file.seek(0, os.SEEK_END))
    file.seek(0)
    try:
        with gzip.open(file) as stream:
            yield io.BufferedReader(_Bounded(stream, path, limit))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFormatError(f"{path}: damaged gzip file: {error}") from None


class _Bounded(io.RawIOBase):
    """A stream that may give ``limit`` bytes and no more."""

    def __init__(self, stream: gzip.GzipFile, path: Path, limit: int) -> None:
        self._stream, self._path, self._limit = stream, path, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._stream.readinto(buffer)
        if self._stream.tell() > self._limit:
            raise DataFormatError(f"{self._path}: inflates to more than the limit of {self._limit} bytes")
        return count


def take(stream: BinaryIO, size: int) -> bytearray:
    """Read ``size`` bytes, or fewer where the stream ends first.

    Block by block: memory follows what the stream really holds, whatever size a header has claimed.
    """
    content = bytearray()
    while len(content) < size and (block := stream.read(min(BLOCK, size - len(content)))):
        content += block
    return content


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; if the body succeeds, flush the file to the disk and move it there.

    A reader sees the old file or the new one, whole, and after a power cut too. What fails leaves the old one, and what
    is killed leaves a file beside it, `is_part` by its name.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        said = error.filename
        if error.errno and (said is None or os.fspath(said) == os.fspath(beside)):  # a full disk says no name
            error.filename, error.filename2 = os.fspath(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """`replacing` for content that is at hand."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk, so that a new name outlives a power cut."""
    if os.name != "nt":  # where folders cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_part(path: Path) -> bool:
    """Whether a file is what a killed `replacing` left, by its name: no other writer makes such."""
    return _PART.fullmatch(path.name) is not None


def remove_parts(path: Path) -> None:
    """Remove what writers that were killed left in a folder, if there is one."""
    for part in path.glob(".*.part"):
        if is_part(part):
            part.unlink(missing_ok=True)
