"""Large weights of an ONNX file, which are read past protobuf: the same network, and each of them once in memory."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models.exchange import onnx_wire
from models.exchange.onnx_wire import without_weights
from tests.support.processes import Process

from .test_onnx_reader import check, floats, node, onnx, written


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_wire, "LEAST", 64)


def two_layers(path: Path) -> Any:
    constants = {"v": floats(8, 6), "one": floats(6), "w": floats(6, 4), "last": floats(4)}
    nodes = [
        node("MatMul", ["x", "v"], ["h"]),
        node("Add", ["h", "one"], ["i"]),
        node("MatMul", ["i", "w"], ["j"]),
        node("Add", ["j", "last"], ["y"]),
    ]
    return written(path, nodes, ["N", 8], constants)


def test_all_but_large_weights_is_left_as_it_is(tmp_path: Path) -> None:
    model = two_layers(path := tmp_path / "net.onnx")
    content, weights = without_weights(path)
    assert sorted(weights) == [0, 2]
    whole = path.read_bytes()
    for number, (start, size) in weights.items():
        assert whole[start : start + size] == model.graph.initializer[number].raw_data
        model.graph.initializer[number].ClearField("raw_data")
    assert content == model.SerializeToString()
    check(path, model=onnx.load(path), x=floats(3, 8))


def message(number: int, *fields: bytes) -> bytes:
    content = b"".join(fields)
    assert len(content) < 1 << 14
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


VALUES = floats(8, 6)
DIMS, NAME = bytes([1 << 3, 8, 1 << 3, 6]), message(8, b"v")
OF_FLOATS, OF_DOUBLES, RAW = bytes([2 << 3, 1]), bytes([2 << 3, 11]), message(9, VALUES.tobytes())


@pytest.mark.parametrize(
    ("fields", "past"),
    [
        ((DIMS, OF_FLOATS, NAME, RAW), True),
        ((RAW, NAME, OF_FLOATS, DIMS), True),
        ((DIMS, OF_FLOATS, NAME, message(9, bytes(192)), RAW), False),
        ((DIMS, OF_DOUBLES, OF_FLOATS, NAME, RAW), False),
        ((DIMS, OF_DOUBLES, NAME, message(9, VALUES.astype(np.float64).tobytes())), False),
        ((DIMS, OF_FLOATS, NAME, message(4, VALUES.tobytes())), False),
        ((DIMS, OF_FLOATS, NAME, RAW, bytes([14 << 3, 0])), False),
    ],
)
def test_weights_however_they_are_written(tmp_path: Path, fields: tuple[bytes, ...], past: bool) -> None:
    model = written(path := tmp_path / "net.onnx", [node("MatMul", ["x", "v"], ["y"])], ["N", 8])
    nodes = model.SerializeToString()
    path.write_bytes(nodes + message(7, message(5, *fields)))  # a graph in two parts is one
    assert bool(without_weights(path)[1]) is past
    (w,) = models.load(path, "numpy").parameters().values()
    np.testing.assert_array_equal(w, VALUES)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 100,
        bytes([7 << 3 | 2, 120]) + bytes(99),
        bytes([7 << 3 | 3]) + bytes(99),
        bytes([8, 1] * 60) + b"\x08",
    ],
)
def test_what_is_no_message_is_left_whole(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "net.onnx").write_bytes(content)
    assert without_weights(path) == (content, {})
    with pytest.raises(models.ModelFormatError):
        models.load(path, "numpy")


def test_many_fields_are_left_to_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_layers(path := tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_wire, "_MAX_FIELDS", 9)
    assert without_weights(path) == (path.read_bytes(), {})


def test_every_cut_and_every_wrong_size_is_refused_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_hostile, where no file is large."""
    model = two_layers(path := tmp_path / "net.onnx")
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(models.ModelFormatError):
            models.load(path, "numpy")
    for rows, columns in itertools.product((-8, 0, 7, 9, 10**12), (6, 5)):
        model.graph.initializer[0].dims[:] = [rows, columns]
        path.write_bytes(model.SerializeToString())
        said = []
        for least in (64, 1 << 30):
            monkeypatch.setattr(onnx_wire, "LEAST", least)
            with pytest.raises(models.ModelFormatError) as error:
                models.load(path, "numpy")
            said.append(str(error.value))
        assert said[0] == said[1]


def test_functions_are_inlined_with_their_weights(tmp_path: Path) -> None:
    two_layers(path := tmp_path / "net.onnx")
    expected = models.load(path, "numpy").parameters()
    model = onnx.load(path)
    function = onnx.helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [onnx.helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    model.graph.node[-1].output[0] = "half"
    model.graph.node.append(onnx.helper.make_node("Twice", ["half"], ["y"], domain="own"))
    path.write_bytes(model.SerializeToString())
    found = models.load(path, "numpy").parameters()
    assert {array.shape for array in found.values()} == {array.shape for array in expected.values()}
    for array in expected.values():
        assert any(np.array_equal(array, other) for other in found.values())


PEAK = """
from pathlib import Path
import models

def held(what):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if what in line)
    return int(line.split()[1]) << 10

models.load(SMALL, "numpy")
before = held("VmRSS")
model = models.load(LARGE, "numpy")
print((held("VmHWM") - before) / sum(array.nbytes for array in model.parameters().values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells what a process has held at most")
def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    """But for those of a layer, which are there while they are laid out."""
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    two_layers(small)
    weights = {f"w{i}": np.ones((1000, 1000), np.float32) for i in range(10)}
    nodes = [node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}" if i < 9 else "y"]) for i in range(10)]
    written(large, nodes, ["N", 1000], weights)
    program = PEAK.replace("SMALL", repr(str(small))).replace("LARGE", repr(str(large)))
    assert float(Process(program).result()[0][0]) < 1.5
