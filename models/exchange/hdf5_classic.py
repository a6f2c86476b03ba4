"""The classic form of HDF5, which h5py writes unless told otherwise, in plain Python: no size or address is believed.

The HDF5 library itself can loop without end on a damaged file of this form, which has no checksums. Here every read is
of the file's own bytes, every walk is bounded by them, and what Keras does not write is refused: chunks, filters,
links to elsewhere, arrays in other files. The format: https://docs.hdfgroup.org/hdf5/develop/_f_m_t3.html
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..encoding import ModelFormatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_ATTRIBUTE = 1 << 26
NOWHERE = (1 << 64) - 1

DATASPACE, LINK_INFO, DATATYPE, EXTERNAL_FILES, LINK, LAYOUT = 0x01, 0x02, 0x03, 0x07, 0x06, 0x08
ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0x0C, 0x10, 0x11
"""Types of messages in the header of an object."""

FLOATS = {(2, 5, 10): "f2", (4, 8, 23): "f4", (8, 11, 52): "f8"}
"""By size in bytes, bits of exponent and of mantissa."""


class Damaged(ModelFormatError):
    """What the file says of itself cannot be."""


def is_classic(start: bytes) -> bool:
    """Whether a file that starts so is of this form: its superblock is of version 0 or 1, in words of eight bytes."""
    return start[:8] == SIGNATURE and start[8:9] in (b"\x00", b"\x01") and start[13:15] == b"\x08\x08"


class Message(NamedTuple):
    """A part of an object's header."""

    kind: int
    body: bytes


class Store:
    """A file's bytes. ModelFormatError for what lies beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, address: int, size: int) -> bytes:
        """So many bytes from an address on."""
        if size < 0 or address + size > self.size:
            raise Damaged("damaged, or cut off: it refers to what lies beyond its end")
        self._file.seek(address)
        return self._file.read(size)

    def text(self, address: int, limit: int) -> str:
        """The text that a zero byte ends, at an address before the limit."""
        content = self.read(address, min(1024, limit - address))
        if b"\x00" not in content:
            raise Damaged("damaged: a name without an end")
        return content[: content.index(b"\x00")].decode("utf-8")

    def numbers(self, form: str, address: int) -> tuple[Any, ...]:
        """Numbers, little end first, at an address."""
        return struct.unpack(f"<{form}", self.read(address, struct.calcsize(f"<{form}")))


def root(file: BinaryIO) -> Group:
    """The outermost group of a file of this form."""
    store = Store(file)
    (version,) = store.numbers("B", 8)
    at = 24 if version == 0 else 28
    (base,) = store.numbers("Q", at)
    if base:
        raise ModelFormatError("its HDF5 begins behind a block of its own, which is not read")
    (header,) = store.numbers("Q", at + 32 + 8)
    return Group(store, header)


class Object:
    """A group or an array: its messages and attributes."""

    def __init__(self, store: Store, address: int) -> None:
        self.store = store
        self.messages = list(_messages(store, address))

    def message(self, kind: int) -> bytes | None:
        """The first message of a kind."""
        return next((message.body for message in self.messages if message.kind == kind), None)

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """The attributes by name: text, or arrays of what they are."""
        return dict(_attribute(self.store, message.body) for message in self.messages if message.kind == ATTRIBUTE)


class Group(Object):
    """A group: other objects by name."""

    @cached_property
    def links(self) -> dict[str, int | None]:
        """The addresses of what is in it; None for a link to elsewhere."""
        table = self.message(SYMBOL_TABLE)
        if table is not None:
            tree, heap = struct.unpack("<QQ", table[:16])
            return dict(_symbols(self.store, tree, heap))
        info = self.message(LINK_INFO)
        if info is not None and _dense(info):
            raise ModelFormatError("a group is stored in a newer form than Keras writes, which is not read")
        return dict(_link(message.body) for message in self.messages if message.kind == LINK)

    def __contains__(self, name: str) -> bool:
        return name in self.links

    def __len__(self) -> int:
        return len(self.links)

    def child(self, name: str) -> Group | Array:
        """What stands under a name. ModelFormatError for a link to elsewhere."""
        address = self.links[name]
        if address is None:
            raise ModelFormatError(f"{name} is a link to elsewhere, which is not followed")
        found = Array(self.store, address)
        return found if found.message(DATATYPE) is not None else Group(self.store, address)


class Array(Object):
    """A data set."""

    @cached_property
    def shape(self) -> tuple[int, ...] | None:
        """Its sizes; None where it is nothing at all."""
        space = self.message(DATASPACE)
        if space is None:
            raise Damaged("damaged: an array without a shape")
        return _shape(space)

    @cached_property
    def dtype(self) -> np.dtype | None:
        """Its type; None for one that is no number or text of a fixed length."""
        return _dtype(self.message(DATATYPE) or b"")

    def read(self) -> np.ndarray:
        """Its numbers. ModelFormatError where they are not in the file, or not in one piece."""
        shape, dtype, layout = self.shape, self.dtype, self.message(LAYOUT)
        if shape is None or dtype is None or layout is None:
            raise Damaged("damaged: an array that says not what is in it")
        if self.message(EXTERNAL_FILES) is not None:
            raise ModelFormatError("it lies in another file, which is not read")
        size = math.prod(shape) * dtype.itemsize
        if layout[:2] == b"\x03\x01":
            address, held = struct.unpack("<QQ", layout[2:18])
            if size > held or (address == NOWHERE and size):
                raise ModelFormatError(f"it takes {size} bytes, and the file holds {0 if address == NOWHERE else held}")
            content = self.store.read(address, size) if size else b""
        elif layout[:2] == b"\x03\x00":
            content = layout[4 : 4 + size]
        else:
            raise ModelFormatError("it is stored in pieces, as Keras stores none; h5repack -l CONTI puts them together")
        if len(content) != size:
            raise Damaged("damaged: an array that is cut off")
        return np.frombuffer(content, dtype).reshape(shape)


# Headers ------------------------------------------------------------------------------------------------------------


def _messages(store: Store, address: int) -> Iterator[Message]:
    """The messages in the header of an object."""
    version, _, count, _, size = store.numbers("BBHII", address)
    if version != 1:
        raise ModelFormatError("an object is stored in a newer form than Keras writes, which is not read")
    blocks = [(address + 16, size)]
    left = store.size
    while blocks and count:
        at, size = blocks.pop(0)
        left -= size
        if left < 0:
            raise Damaged("damaged: a header without an end")
        block = store.read(at, size)
        place = 0
        while place + 8 <= len(block) and count:
            kind, length, flags = struct.unpack_from("<HHB", block, place)
            body = block[place + 8 : place + 8 + length]
            place += 8 + length
            count -= 1
            if len(body) < length:
                raise Damaged("damaged: a header that is cut off")
            if kind == CONTINUATION:
                blocks.append(struct.unpack("<QQ", body[:16]))
            elif kind and flags & 2:
                raise ModelFormatError("an object shares its type with another, which is not read")
            elif kind:
                yield Message(kind, body)


def _symbols(store: Store, tree: int, heap: int) -> Iterator[tuple[str, int | None]]:
    """Names and addresses in a group of the old kind: a tree of nodes, and a heap of names."""
    signature, _, names_size, _, names = store.numbers("4sIQQQ", heap)
    if signature != b"HEAP":
        raise Damaged("damaged: a group without names")
    waiting, seen = [tree], set()
    while waiting:
        at = waiting.pop()
        if at in seen:
            raise Damaged("damaged: a group that holds itself")
        seen.add(at)
        if store.read(at, 4) == b"TREE":
            kind, _, used = store.numbers("BBH", at + 4)
            if kind != 0:
                raise Damaged("damaged: a group that is none")
            waiting += store.numbers(f"{2 * used + 1}Q", at + 24)[1::2][::-1]
            continue
        signature, _, used = store.numbers("4sHH", at)
        if signature != b"SNOD":
            raise Damaged("damaged: a group that is none")
        for index in range(used):
            offset, header, cached = store.numbers("QQI", at + 8 + 40 * index)
            if offset >= names_size:
                raise Damaged("damaged: a name beyond all names")
            yield store.text(names + offset, names + names_size), None if cached == 2 else header


def _dense(info: bytes) -> bool:
    """Whether the links of a group are kept elsewhere than in its header."""
    at = 2 + (8 if info[1] & 1 else 0)
    return bool(struct.unpack_from("<Q", info, at)[0] != NOWHERE)


def _link(body: bytes) -> tuple[str, int | None]:
    """A link of the newer kind: a name, and an address if it leads to something in the file."""
    flags, at, kind = body[1], 2, 0
    if flags & 8:
        kind, at = body[at], at + 1
    at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
    width = 1 << (flags & 3)
    length = int.from_bytes(body[at : at + width], "little")
    name = body[at + width : at + width + length].decode("utf-8")
    rest = body[at + width + length :]
    return name, struct.unpack("<Q", rest[:8])[0] if kind == 0 else None


# Types and values ---------------------------------------------------------------------------------------------------


def _shape(space: bytes) -> tuple[int, ...] | None:
    version, rank = space[0], space[1]
    if version == 2 and space[3] == 2:
        return None
    if version not in (1, 2) or rank > 32:
        raise Damaged("damaged: an array of no shape that is known")
    return struct.unpack_from(f"<{rank}Q", space, 8 if version == 1 else 4)


def _dtype(told: bytes) -> np.dtype | None:
    kind, bits = told[0] & 15, told[1]
    (size,) = struct.unpack_from("<I", told, 4)
    order = ">" if bits & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 1:
        name = FLOATS.get((size, told[13], told[15]))
        return None if name is None else np.dtype(order + name)
    return np.dtype(f"S{size}") if kind == 3 and 0 < size <= MAX_ATTRIBUTE else None


def _attribute(store: Store, body: bytes) -> tuple[str, Any]:
    """An attribute's name and value; None for a value that is neither number nor text."""
    version = body[0]
    name_size, type_size, space_size = struct.unpack_from("<HHH", body, 2)
    at, step = (8, 8) if version == 1 else (8 if version == 2 else 9, 1)
    parts = []
    for size in (name_size, type_size, space_size):
        parts.append(body[at : at + size])
        at += -(-size // step) * step
    name = parts[0].split(b"\x00")[0].decode("utf-8")
    shape = _shape(parts[2])
    if shape is None:
        return name, None
    count, value = math.prod(shape), body[at:]
    if parts[1][0] & 15 == 9 and parts[1][1] & 15 == 1:  # texts of any length, which lie in a heap
        if 16 * count > len(value):
            raise Damaged("damaged: an attribute that is cut off")
        texts = [_heaped(store, *struct.unpack_from("<IQI", value, 16 * index)) for index in range(count)]
        return name, texts if shape else texts[0]
    dtype = _dtype(parts[1])
    if dtype is None or count * dtype.itemsize > len(value):
        return name, None
    array = np.frombuffer(value, dtype, count).reshape(shape)
    return name, array if shape else array[()]


def _heaped(store: Store, length: int, address: int, wanted: int) -> str:
    """A text in a heap of texts."""
    signature, _, size = store.numbers("4sIQ", address)
    if signature != b"GCOL" or size > MAX_ATTRIBUTE:
        raise Damaged("damaged: a text that is not there")
    heap, place = store.read(address, size), 16
    while place + 16 <= len(heap):
        index, _, _, held = struct.unpack_from("<HHIQ", heap, place)
        if index == wanted:
            return heap[place + 16 : place + 16 + min(length, held)].decode("utf-8")
        if index == 0:
            break
        place += 16 + -(-held // 8) * 8
    raise Damaged("damaged: a text that is not there")
