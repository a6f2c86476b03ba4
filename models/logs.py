"""Logs of a fit as files: a CSV table, and TensorBoard's events."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from data.files import expanded, write_atomically

from .callbacks import Callback
from .history import Epoch

if TYPE_CHECKING:
    from .trainer import Trainer


class CSVLog(Callback):
    """Keeps the epochs of a fit in a CSV file, a line each under the names of `Epoch`'s fields.

    The file is whole after every epoch; a fit that is resumed goes on in it. What was not measured is left empty. Of
    several ranks the first keeps it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = expanded(path)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        if trainer.communicator.rank:
            return
        names = [field.name for field in dataclasses.fields(Epoch)]
        lines = [",".join(names)]
        for record in trainer.progress.history.epochs:
            values = (getattr(record, name) for name in names)
            lines.append(",".join("" if value is None else repr(value) for value in values))
        write_atomically(self.path, ("\n".join(lines) + "\n").encode())


class TensorBoardLog(Callback):
    """Writes the epochs of a fit as events that TensorBoard shows; nothing of TensorBoard's is needed to write them.

    folder: of this fit, one of several below the folder that TensorBoard is shown. Every fit writes a file of its own;
    the step of each value is the optimizer's. Of several ranks the first writes.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        self._path: Path | None = None

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        if trainer.communicator.rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"events.out.tfevents.{int(time.time())}.{os.urandom(4).hex()}"
        self._write(_field(3, b"brain.Event:2"))

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        if trainer.communicator.rank:
            return
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")
        found = {name: getattr(epoch, name) for name in names}
        measured = {name: value for name, value in found.items() if value is not None and not math.isnan(value)}
        # A tag's first part is the panel that TensorBoard draws it in.
        tags = {name: f"{name.removeprefix('validation_')}/{name}" for name in measured}
        values = (_field(1, tags[name].encode()) + b"\x15" + struct.pack("<f", measured[name]) for name in measured)
        self._write(b"\x10" + _varint(epoch.step) + _field(5, b"".join(_field(1, value) for value in values)))

    def _write(self, rest: bytes) -> None:
        assert self._path is not None
        with open(self._path, "ab") as file:
            _record(file, b"\x09" + struct.pack("<d", time.time()) + rest)


def _varint(number: int) -> bytes:
    """A number as Protocol Buffers write it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, by its number."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _record(file: BinaryIO, content: bytes) -> None:
    """A record of a TFRecord file: its length and its content, each with a checksum."""
    length = struct.pack("<Q", len(content))
    file.write(length + _masked(length) + content + _masked(content))


def _masked(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _crc32c()[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _crc32c() -> tuple[int, ...]:
    """Castagnoli's polynomial, by byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)
