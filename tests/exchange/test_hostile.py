"""ONNX files that are damaged or lie: one typed error each, soon, and no memory on a file's word."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models import ModelFormatError

from .test_onnx_reader import TensorProto, floats, helper, node, numpy_helper, onnx, written


def refused(path: Path) -> str:
    """The one line in which a file is refused; it takes little memory to find out."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError) as error:
            models.load(path, "numpy")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert text.startswith(str(path))
    assert text.isprintable()
    return text


def linear(path: Path) -> Any:
    return written(path, [node("MatMul", ["x", "w"], ["y"])], ["N", 300], {"w": floats(300, 2)})


def test_a_truncated_file(tmp_path: Path) -> None:
    content = linear(tmp_path / "whole.onnx").SerializeToString()
    for end in (0, 1, 5, 20, len(content) // 2, len(content) - 1):
        (path := tmp_path / "net.onnx").write_bytes(content[:end])
        refused(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda graph: graph.initializer[0].dims.__setitem__(0, 10**15), "constant 'w' of shape"),
        (lambda graph: graph.initializer[0].dims.__setitem__(0, -1), "constant 'w' has the shape"),
        (lambda graph: graph.initializer[0].dims.extend([1] * 100), "constant 'w' has the shape"),
        (lambda graph: setattr(graph.initializer[0], "data_type", 77), "constant 'w' is of type 77"),
        (lambda graph: graph.node[0].input.__setitem__(0, "elsewhere"), "reads 'elsewhere', which nothing makes"),
        (lambda graph: graph.node[0].input.__setitem__(0, "y"), "the graph has a cycle"),
        (lambda graph: graph.node[0].output.__setitem__(0, "w"), "two nodes make 'w'"),
        (lambda graph: graph.output[0].__setattr__("name", "gone"), "gone"),
        (lambda graph: graph.node.pop(), "no network in it"),
        (lambda graph: setattr(graph.node[0], "name", "\x1b[2J" * 5), "node"),
        (
            lambda graph: setattr(graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 1 << 40),
            "numbers, expected",
        ),
    ],
)
def test_a_file_that_lies(tmp_path: Path, change: Any, words: str) -> None:
    model = linear(path := tmp_path / "net.onnx")
    change(model.graph)
    if "x1b" in repr(model.graph.node and model.graph.node[0].name):
        model.graph.node[0].op_type = "Bad\x07"
    path.write_bytes(model.SerializeToString())
    assert words in refused(path)


def external(path: Path, **told: str) -> str:
    """What is said of weights that lie where the file says."""
    model = linear(path)
    w = model.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in told.items():
        w.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return refused(path)


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(2400))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", "", ".", "a\0b", "../folder/../secret"):
        assert "expected a file of the same folder" in external(folder / "net.onnx", location=location)


def test_weights_in_a_second_file_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert "expected beside this file" in external(path, location="gone")
    (tmp_path / "data").write_bytes(bytes(2399))
    assert "takes 2400 bytes of 'data' from 0 on" in external(path, location="data")
    (tmp_path / "data").write_bytes(bytes(2400))
    assert "from 8 on" in external(path, location="data", offset="8")
    assert "from -8 on" in external(path, location="data", offset="-8")
    assert "which says 24 " in external(path, location="data", length="24")
    assert "is no number" in external(path, location="data", offset="1e9")


BIG = np.array([10**6, 10**6])


@pytest.mark.parametrize(
    "made",
    [
        [node("ConstantOfShape", ["big"], ["w"])],
        [node("Expand", ["one", "big"], ["w"])],
        [node("Tile", ["one", "big"], ["w"])],
        [node("Range", ["zero", "lots", "step"], ["r"]), node("Cast", ["r"], ["w"], to=1)],
        [node("ConstantOfShape", ["big"], ["a"]), node("Add", ["a", "a"], ["w"])],
        [node("ConstantOfShape", ["big"], ["a"]), node("Cast", ["a"], ["w"], to=11)],
        [
            node("ConstantOfShape", ["big"], ["a"]),
            node("Flatten", ["a"], ["b"]),
            node("Concat", ["b", "b"], ["w"], axis=0),
        ],
        [node("ConstantOfShape", ["big"], ["a"]), node("Gather", ["a", "many"], ["w"])],
        [node("ConstantOfShape", ["big"], ["a"]), node("ReduceMax", ["a"], ["w"], axes=[0])],
        [node("ConstantOfShape", ["big"], ["a"]), node("ReduceMean", ["a"], ["w"], axes=[0])],
    ],
)
def test_a_huge_constant_is_never_made(tmp_path: Path, made: list[Any]) -> None:
    constants = {
        "big": BIG, "one": np.ones((1, 1), np.float32), "zero": np.array(0), "lots": np.array(10**12),
        "step": np.array(1), "many": np.zeros(1000, np.int64),
    }  # fmt: skip
    written(path := tmp_path / "net.onnx", [*made, node("Gemm", ["x", "w"], ["y"])], ["N", 10**6], constants)
    refused(path)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w"], ["y"], pads=[10**9] * 4)],
        [node("Conv", ["x", "w"], ["y"], dilations=[2**62, 2**62], pads=[2**62] * 4)],
        [node("Conv", ["x", "w"], ["y"], strides=[0, 0])],
        [node("Conv", ["x", "w"], ["y"], group=0)],
        [node("Conv", ["x", "w"], ["y"], pads=[-1] * 4)],
        [node("MaxPool", ["x"], ["y"], kernel_shape=[10**12, 1])],
        [node("Reshape", ["x", "s"], ["y"])],
        [node("Unsqueeze", ["x", "s"], ["y"])],
        [node("Softmax", ["x"], ["y"], axis=9)],
        [node("Split", ["x"], ["y"], axis=1, num_outputs=10**9)],
        [node("Elu", ["x"], ["y"], alpha=float("nan"))],
        [node("Relu", [], ["y"])],
        [node("Conv", ["x"], ["y"])],
        [node("BatchNormalization", ["x", "w"], ["y"])],
    ],
)
def test_sizes_that_no_network_has(tmp_path: Path, nodes: list[Any]) -> None:
    constants = {"w": floats(2, 3, 3, 3), "s": np.array([2**62, 4, -1, 0])}
    written(path := tmp_path / "net.onnx", nodes, ["N", 3, 6, 6], constants)
    refused(path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    w = floats(3, 2)
    w[1, 1] = np.nan
    written(path := tmp_path / "net.onnx", [node("MatMul", ["x", "w"], ["y"])], ["N", 3], {"w": w})
    assert "is not finite" in refused(path)


def test_weights_that_are_finite_no_more_when_they_are_joined(tmp_path: Path) -> None:
    w = floats(3, 2)
    w[1, 1] = np.inf
    nodes = [node("MatMul", ["x", "w"], ["t"]), node("Mul", ["t", "s"], ["y"])]
    written(path := tmp_path / "net.onnx", nodes, ["N", 3], {"w": w, "s": np.zeros(2, np.float32)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "is not finite" in refused(path)


def test_a_long_chain_of_nodes(tmp_path: Path) -> None:
    names = ["x", *(f"t{at}" for at in range(1499)), "y"]
    chain = [node("Identity", [a], [b]) for a, b in itertools.pairwise(names)]
    written(path := tmp_path / "net.onnx", [*chain[:-1], node("Relu", chain[-1].input, ["y"])], ["N", 3])
    assert len(models.load(path, "numpy").nodes) == 1


del numpy_helper, onnx, helper
