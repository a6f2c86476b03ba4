"""Logs of a fit, the search for a learning rate, and what notebooks show."""

from __future__ import annotations

import csv
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models import SGD, Adam, Conv2d, Flatten, Linear, ReLU, Sequential, Trainer
from twinkernels import plots

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def trainer(rate: float = 0.1, **options: Any) -> Trainer:
    model = Sequential([Linear(8), ReLU(), Linear(3)], (6,), "numpy", seed=1)
    return Trainer(model, SGD(rate), batch_size=10, **options)


def test_a_table_of_the_epochs(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    history = trainer().fit(X, Y, epochs=3, callbacks=[models.CSVLog(path)])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["loss"]) for row in rows] == history.loss
    assert {row["validation_loss"] for row in rows} == {""}
    assert [row["validation_loss"] != "" for row in _logged(path, validation=(X, Y))] == [True, True]


def _logged(path: Path, **options: Any) -> list[dict[str, str]]:
    trainer().fit(X, Y, epochs=2, callbacks=[models.CSVLog(path)], **options)
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def crc32c(content: bytes) -> int:
    """Bit by bit, and masked as in TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields(content: bytes) -> list[tuple[int, Any]]:
    """A message of Protocol Buffers as (number, value)."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(content):
        key = varint()
        if key & 7 == 2:
            size = varint()
            value: Any = content[at : at + size]
            at += size
        elif key & 7 == 0:
            value = varint()
        else:
            form = {1: "<d", 5: "<f"}[key & 7]
            (value,) = struct.unpack_from(form, content, at)
            at += struct.calcsize(form)
        found.append((key >> 3, value))
    return found


def test_events_are_what_tensorboard_reads(tmp_path: Path) -> None:
    history = trainer().fit(X, Y, epochs=3, callbacks=[models.TensorBoardLog(tmp_path / "run")], validation=(X, Y))
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    content, records, at = path.read_bytes(), [], 0
    while at < len(content):
        head = content[at : at + 8]
        (size,) = struct.unpack("<Q", head)
        assert struct.unpack_from("<I", content, at + 8) == (crc32c(head),)
        record = content[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", content, at + 12 + size) == (crc32c(record),)
        records.append(dict(fields(record)))
        at += size + 16
    assert records[0][3] == b"brain.Event:2"
    seen: dict[str, list[tuple[int, float]]] = {}
    for record in records[1:]:
        for _, value in fields(record[5]):
            (_, tag), (_, number) = fields(value)
            seen.setdefault(tag.decode(), []).append((record[2], number))
    assert sorted(seen) == [
        "accuracy/accuracy",
        "accuracy/validation_accuracy",
        "learning_rate/learning_rate",
        "loss/loss",
        "loss/validation_loss",
    ]
    steps, losses = zip(*seen["loss/loss"], strict=True)
    assert list(steps) == history.step
    np.testing.assert_allclose(losses, history.loss, rtol=1e-6)


def test_the_search_for_a_rate_leaves_the_trainer_alone_and_finds_one_that_learns() -> None:
    own = trainer()
    before = {name: array.copy() for name, array in own.model.parameters().items()}
    found = models.find_learning_rate(own, X, Y, low=1e-4, high=100.0, steps=60)
    assert own.steps == 0
    for name, array in own.model.parameters().items():
        np.testing.assert_array_equal(array, before[name])
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= 60
    assert found.rates[0] == pytest.approx(1e-4)
    assert 1e-3 < found.suggestion < 10
    assert f"suggested {found.suggestion:.2g}" in str(found)
    assert trainer(found.suggestion).fit(X, Y, epochs=60).loss[-1] < 0.5
    assert plots.rate_finder(found).axes[0].get_xscale() == "log"
    again = models.find_learning_rate(own, X, Y, low=1e-4, high=100.0, steps=60)
    np.testing.assert_array_equal(found.losses, again.losses)


def test_a_search_over_pixels_and_one_that_begins_too_high() -> None:
    images = RNG.integers(0, 256, (40, 6)).astype(np.uint8)
    assert len(models.find_learning_rate(trainer(), images, Y, steps=5).rates)
    with pytest.raises(ValueError, match=r"find_learning_rate: high is 0\.1, expected a finite number > 0\.5"):
        models.find_learning_rate(trainer(), X, Y, low=0.5, high=0.1)


def test_the_summary_counts_operations() -> None:
    model = Sequential([Conv2d(4, 3), ReLU(), Flatten(), Linear(5)], (8, 8, 1), "numpy")
    lines = str(model.summary()).splitlines()
    assert lines[0].split()[-2:] == ["parameters", "MFLOP"]
    assert lines[1].split()[-2:] == ["40", f"{2 * 36 * 9 * 4 / 1e6:.3f}"]
    assert lines[4].split()[-2:] == ["725", f"{2 * 144 * 5 / 1e6:.3f}"]
    assert lines[-1].split() == ["total", "765", f"{(2 * 36 * 9 * 4 + 2 * 144 * 5) / 1e6:.3f}"]


def test_notebooks_show_tables() -> None:
    own = Trainer(Sequential([Linear(3)], (6,), "numpy"), Adam(0.1), batch_size=10)
    history = own.fit(X, Y, epochs=2)
    for shown in (own, own.model):
        assert shown._repr_html_().startswith("<p>&lt;")
        assert "parameters" in shown._repr_html_()
    table = history._repr_html_()
    assert table.count("<tr>") == 3
    assert "validation" not in table
    assert f"{history.loss[1]:.4g}" in table
