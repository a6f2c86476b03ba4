"""An ONNX file without its large weights: what protobuf would hold twice over, beside the arrays made of it.

A message is a run of fields: a tag, which is the field's number and kind, and its content. Of the encoding nothing more
is known here than where contents end (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

LEAST = 1 << 16
"""Bytes of weights that are left out."""

_MAX_FIELDS = 1 << 18
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_PLACE = 2, 4, 9, 13, 14
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_FLOAT = 1


class Weights(NamedTuple):
    """Where in the file the float32 of a tensor lie: the first byte, and how many."""

    start: int
    size: int


class Field(NamedTuple):
    """A field of a message: its number, its kind, and where it starts, where its content does, and where that ends."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def without_weights(path: Path) -> tuple[bytes, dict[int, Weights]]:
    """A file's content, less the float32 of large initializers of its graph; where these lie, by the initializer's
    number. The whole content, and none, where the encoding is not what it is in every sound file."""
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size >= LEAST:
            try:
                return _Cut(file).model(size)
            except ValueError:
                pass
        file.seek(0)
        return file.read(), {}


class _Cut:
    """Goes through a file once. Raises ValueError for what protobuf may make of it as it likes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fields = 0
        self._initializers = 0
        self._weights: dict[int, Weights] = {}

    def model(self, size: int) -> tuple[bytes, dict[int, Weights]]:
        parts = [
            _field(each.number, self._graph(each)) if _is(each, _MODEL_GRAPH) else self._copy(each)
            for each in self._all(0, size)
        ]
        return b"".join(parts), self._weights

    def _graph(self, graph: Field) -> bytes:
        parts = []
        for each in self._all(graph.content, graph.end):
            is_tensor = _is(each, _GRAPH_INITIALIZER)
            large = is_tensor and each.end - each.content >= LEAST
            parts.append(_field(each.number, self._tensor(each)) if large else self._copy(each))
            self._initializers += is_tensor
        return b"".join(parts)

    def _tensor(self, tensor: Field) -> bytes:
        fields = list(self._all(tensor.content, tensor.end))
        numbers = [each.number for each in fields]
        raw = [each for each in fields if _is(each, _TENSOR_RAW)]
        types = [self._copy(each) for each in fields if each.number == _TENSOR_TYPE]
        plain = not {_TENSOR_FLOATS, _TENSOR_EXTERNAL, _TENSOR_PLACE}.intersection(numbers)
        if plain and len(raw) == 1 and types == [bytes([_TENSOR_TYPE << 3 | _VARINT, _FLOAT])]:
            (one,) = raw
            if (one.end - one.content) % 4 == 0:
                self._weights[self._initializers] = Weights(one.content, one.end - one.content)
                fields.remove(one)
        return b"".join(map(self._copy, fields))

    def _copy(self, field: Field) -> bytes:
        self._file.seek(field.start)
        return self._file.read(field.end - field.start)

    def _all(self, at: int, end: int) -> Iterator[Field]:
        """The fields between two places."""
        while at < end:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise ValueError("too many fields")
            self._file.seek(at)
            head = self._file.read(20)  # two numbers, of ten bytes at most
            tag, length = _number(head, 0)
            number, kind, size = tag >> 3, tag & 7, 0
            if kind == _VARINT:
                _, length = _number(head, length)
            elif kind == _BYTES:
                size, length = _number(head, length)
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if kind == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"a field of kind {kind}")
            field = Field(number, kind, at, at + length, at + length + size)
            if field.end > end:
                raise ValueError("a field that goes on behind its message")
            yield field
            at = field.end


def _is(field: Field, number: int) -> bool:
    return field.number == number and field.kind == _BYTES


def _number(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, seven bits a byte, and the place behind it."""
    number = 0
    for i, byte in enumerate(content[at : at + 10]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise ValueError("a number without an end")


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    head = bytearray([number << 3 | _BYTES])
    size = len(content)
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes(head) + bytes([size]) + content
