"""Files read with a bound and replaced in one go."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

from data.errors import DataFormatError

BLOCK = 1 << 20


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file, or a gzip file whose name ends in .gz, as a stream of its plain bytes.

    Raises DataFormatError where the gzip container is damaged. Its CRC is checked at the end of the stream
    only, so a caller that cares reads until nothing is left.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFormatError(f"{path}: damaged gzip file: {error}") from None


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
    """Give a path beside ``path`` to write to, and move it onto ``path`` if the body succeeds.

    Nobody ever sees half a file. The temporary name keeps the suffix, by which `reading` goes.
    """
    beside = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
