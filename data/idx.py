"""IDX, the format of the MNIST files.

A file is two zero bytes, a type code, the rank, one big-endian uint32 for each dimension, and the elements
in row-major order, big-endian. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
digits".
"""

import gzip
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import DataFormatError
from data.files import expanded, reading, take, write_atomically

DTYPES = {
    code: np.dtype(name)
    for code, name in {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}.items()
}
MAX_RANK = 4
MAX_BYTES = 1 << 30  # twenty times MNIST; twice the largest EMNIST


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, plain or gzip-compressed.

    Returns an array of the shape and type that the header gives, native byte order, writable. Nothing is
    allocated on the header's word, and no more than one byte past the size it implies is read or inflated.

    Raises DataFormatError for a bad magic number, type code or rank, more than MAX_BYTES, missing or trailing
    bytes, a damaged gzip container or one that inflates beyond reason, and what is no regular file.
    """
    path = expanded(path)
    with reading(path) as stream:
        return parse(stream, path)


def parse(stream: BinaryIO, path: Path) -> NDArray[Any]:
    """What `read_idx` returns, from an open stream; ``path`` is for the messages."""
    shape, dtype = read_header(stream, path)
    header = f"{path}: IDX header {shape} {dtype.name}"
    # A zero dimension must not hide others that no array could have.
    if dtype.itemsize * math.prod(max(n, 1) for n in shape) > MAX_BYTES:
        raise DataFormatError(f"{header} exceeds the limit of {MAX_BYTES} bytes")
    size = dtype.itemsize * math.prod(shape)
    payload = take(stream, size + 1)
    if len(payload) != size:
        found = len(payload) if len(payload) < size else "more"
        raise DataFormatError(f"{header} implies {size} bytes of data, found {found}")
    array: NDArray[Any] = np.ndarray(shape, dtype, payload)
    if not dtype.isnative:  # swapped where it lies: a copy would double the memory
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array


def read_header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a stream's header gives, which then stands at the elements; DataFormatError for none."""
    magic = take(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataFormatError(
            f"{path}: not an IDX file: starts with [{magic.hex(' ')}], expected two zero bytes, a type code and a rank"
        )
    code, rank = magic[2:]
    if code not in DTYPES:
        raise DataFormatError(
            f"{path}: IDX type code 0x{code:02x}, expected one of "
            + ", ".join(f"0x{known:02x} ({DTYPES[known].name})" for known in DTYPES)
        )
    if not 1 <= rank <= MAX_RANK:
        raise DataFormatError(f"{path}: IDX rank {rank}, expected 1 to {MAX_RANK}")
    dimensions = take(stream, 4 * rank)
    if len(dimensions) < 4 * rank:
        raise DataFormatError(f"{path}: IDX header ends after {4 + len(dimensions)} of {4 + 4 * rank} bytes")
    return tuple(int.from_bytes(dimensions[at : at + 4], "big") for at in range(0, 4 * rank, 4)), DTYPES[code]


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an array as IDX, gzip-compressed if the name ends in .gz.

    ``array`` has rank 1 to 4 and type uint8, int8, int16, int32, float32 or float64, any byte order and
    strides. Equal arrays give equal bytes; a file that exists is replaced whole or not at all. Raises
    ValueError for any other array.
    """
    path = expanded(path)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"write_idx: array is a {type(array).__name__}, expected a numpy array")
    dtype = array.dtype.newbyteorder(">")
    code = next((code for code, known in DTYPES.items() if known == dtype), None)
    if code is None:
        raise ValueError(
            f"write_idx: array is {array.dtype}, expected one of " + ", ".join(known.name for known in DTYPES.values())
        )
    if not 1 <= array.ndim <= MAX_RANK:
        raise ValueError(f"write_idx: array has rank {array.ndim} (shape {array.shape}), expected 1 to {MAX_RANK}")
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(dtype, copy=False).tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_atomically(path, content)
