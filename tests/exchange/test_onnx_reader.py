"""Networks from ONNX files, written here by the package onnx, against its own reference evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models import Adam, Graph, SoftmaxCrossEntropy, Trainer
from models.exchange import UnsupportedOperatorError, read_onnx
from tests.support.onnx_suite import Case, answered

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(0)
Shape = Sequence[int | str]


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def written(
    path: Path,
    nodes: list[Any],
    shape: Shape,
    constants: dict[str, np.ndarray] | None = None,
    output: Shape | None = None,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Any:
    """A file whose input is "x" and whose output is "y"; its message."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return model


def check(path: Path, model: Any, x: np.ndarray, backend: str = "numpy", tolerance: float = 1e-5) -> Graph:
    """The network that the file gives, which answers as the reference does; x as the file takes it."""
    network = models.load(path, backend)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    last = x.transpose(0, 2, 3, 1) if x.ndim == 4 and x.shape[1:] != network.input_shape else x
    got = network.predict(np.ascontiguousarray(last.reshape(len(x), *network.input_shape), np.float32))
    if got.ndim == 4 and got.shape != want.shape:
        want = want.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return network


node = helper.make_node


def convolutional(batch: str | int, flatten: list[Any], constants: dict[str, np.ndarray]) -> Any:
    """Nodes and constants of a small network with something between its maps and its rows."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="/stem/Conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        *flatten,
        node("Gemm", ["f", "w2", "b2"], ["g"], transB=1),
        node("Softmax", ["g"], ["y"], axis=1),
    ]
    return nodes, {"w1": floats(3, 2, 3, 3), "b1": floats(3), "w2": floats(5, 3 * 3 * 4), "b2": floats(5), **constants}


FLATTENINGS = {
    "flatten": ([node("Flatten", ["p1"], ["f"])], {}),
    "reshape": ([node("Reshape", ["p1", "s"], ["f"])], {"s": np.array([-1, 36])}),
    "keeps the batch": ([node("Reshape", ["p1", "s"], ["f"])], {"s": np.array([0, -1])}),
    "a fixed batch": ([node("Reshape", ["p1", "s"], ["f"])], {"s": np.array([4, 36])}),
    "by its shape": (
        [
            node("Shape", ["p1"], ["sizes"]),
            node("Gather", ["sizes", "zero"], ["n"], axis=0),
            node("Unsqueeze", ["n", "axis"], ["n1"]),
            node("Concat", ["n1", "rest"], ["s"], axis=0),
            node("Reshape", ["p1", "s"], ["f"]),
        ],
        {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])},
    ),
    "by a product of sizes": (
        [
            node("Shape", ["p1"], ["sizes"]),
            node("Slice", ["sizes", "one", "four"], ["image"]),
            node("ReduceProd", ["image"], ["k"], keepdims=1),
            node("Slice", ["sizes", "zero", "one"], ["n"]),
            node("Concat", ["n", "k"], ["s"], axis=0),
            node("Reshape", ["p1", "s"], ["f"]),
        ],
        {"zero": np.array([0]), "one": np.array([1]), "four": np.array([4])},
    ),
    "channels last": (
        [node("Transpose", ["p1"], ["t"], perm=[0, 2, 3, 1]), node("Reshape", ["t", "s"], ["f"])],
        {"s": np.array([-1, 36])},
    ),
    "in two steps": (
        [node("Reshape", ["p1", "a"], ["t"]), node("Squeeze", ["t", "axes"], ["f"])],
        {"a": np.array([-1, 1, 36]), "axes": np.array([1])},
    ),
}


@pytest.mark.parametrize("way", FLATTENINGS)
@pytest.mark.parametrize("batch", ["N", 4])
def test_the_rows_behind_an_image_are_renumbered_however_it_is_flattened(
    tmp_path: Path, way: str, batch: str | int
) -> None:
    nodes, constants = convolutional(batch, *FLATTENINGS[way])
    model = written(path := tmp_path / "net.onnx", nodes, [batch, 2, 6, 8], constants)
    network = check(path, model, floats(4, 2, 6, 8))
    assert network.input_shape == (6, 8, 2)
    assert [type(each.layer).__name__ for each in network.nodes] == [
        "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "Softmax",
    ]  # fmt: skip
    assert len(network.predict(floats(7, 6, 8, 2))) == 7


def test_a_network_is_trained_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    nodes, constants = convolutional("N", *FLATTENINGS["flatten"])
    written(path := tmp_path / "net.onnx", [*nodes[:-1], node("Identity", ["g"], ["y"])], ["N", 2, 6, 8], constants)
    network = models.load(path, "numpy")
    x, labels = floats(8, 6, 8, 2), np.arange(8) % 5
    trainer = Trainer(network, Adam(0.01), loss=SoftmaxCrossEntropy(), batch_size=8)
    losses = [trainer.step(x, labels) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    network.save(tmp_path / "net.safetensors")
    assert np.array_equal(models.load(tmp_path / "net.safetensors", "numpy").predict(x), network.predict(x))


def test_constants_behind_a_layer_become_part_of_it(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Mul", ["a", "scale"], ["b"]),
        node("Add", ["b", "shift"], ["c"]),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Squeeze", ["d", "axes"], ["e"]),
        node("MatMul", ["e", "m"], ["f"]),
        node("Sub", ["f", "g"], ["h"]),
        node("Div", ["h", "two"], ["y"]),
    ]
    constants = {
        "w": floats(3, 2, 3, 3), "scale": floats(3, 1, 1), "shift": floats(1, 3, 1, 1), "axes": np.array([2, 3]),
        "m": floats(3, 4), "g": floats(4), "two": np.array(2, np.float32),
    }  # fmt: skip
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 2, 6, 5], constants)
    network = check(path, model, floats(3, 2, 6, 5))
    assert [str(each.layer) for each in network.nodes] == ["Conv2d(3, 3)", "GlobalAvgPool2d()", "Linear(4)"]


NUMBERS = {
    "root": np.array(2**0.5, np.float32),
    "one": np.ones(1, np.float32),
    "half": np.array([0.5], np.float32),
    "three": np.array(3, np.float32),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
}
ERF = [node("Div", ["x", "root"], ["a"]), node("Erf", ["a"], ["b"]), node("Add", ["b", "one"], ["c"])]


@pytest.mark.parametrize(
    ("nodes", "layer"),
    [
        ([*ERF, node("Mul", ["x", "c"], ["d"]), node("Mul", ["d", "half"], ["y"])], "GELU()"),
        ([*ERF, node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "c"], ["y"])], "GELU()"),
        (
            [
                node("Add", ["x", "three"], ["a"]),
                node("Clip", ["a", "zero", "six"], ["b"]),
                node("Div", ["b", "six"], ["c"]),
                node("Mul", ["x", "c"], ["y"]),
            ],
            "HardSwish()",
        ),
        ([node("Sigmoid", ["x"], ["a"]), node("Mul", ["a", "x"], ["y"])], "SiLU()"),
        (
            [node("Div", ["x", "six"], ["a"]), node("Sub", ["a", "half"], ["b"]), node("Mul", ["b", "three"], ["y"])],
            "Affine()",
        ),
    ],
    ids=["gelu", "gelu, halved first", "hard swish", "silu", "one affine of three"],
)
def test_a_function_that_is_written_out_is_one_layer(tmp_path: Path, nodes: list[Any], layer: str) -> None:
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 4], NUMBERS)
    network = check(path, model, 3 * floats(5, 4))
    assert [str(each.layer) for each in network.nodes] == [layer]


def test_what_is_read_twice_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [*ERF, node("Mul", ["x", "c"], ["d"]), node("Add", ["d", "b"], ["y"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 4], NUMBERS)
    assert len(check(path, model, 3 * floats(5, 4)).nodes) > 3


def test_a_linear_layer_over_places_is_a_convolution_of_size_1(tmp_path: Path) -> None:
    model = written(
        path := tmp_path / "net.onnx",
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])],
        ["N", 7, 5, 3],
        {"w": floats(3, 4), "b": floats(4)},
    )
    network = check(path, model, floats(2, 7, 5, 3))
    assert [str(each.layer) for each in network.nodes] == ["Conv2d(4, 1)"]


@pytest.mark.parametrize(
    ("perm", "last"), [((0, 3, 1, 2), True), ((0, 2, 3, 1), False)], ids=["channels last", "channels first"]
)
def test_what_reads_the_input_says_where_its_channels_are(tmp_path: Path, perm: tuple[int, ...], last: bool) -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=perm),
        node("Flatten", ["t"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"w": floats(60, 2)})
    network = models.load(path, "numpy")
    assert network.input_shape == ((3, 4, 5) if last else (4, 5, 3))
    x = floats(2, 3, 4, 5)
    here = x if last else x.transpose(0, 2, 3, 1)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(network.predict(np.ascontiguousarray(here)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.UINT8])
def test_pixels_of_other_types_are_taken(tmp_path: Path, kind: int) -> None:
    nodes = [
        node("Unsqueeze", ["x", "axes"], ["u"]),
        node("Cast", ["u"], ["c"], to=TensorProto.FLOAT),
        node("Conv", ["c", "w"], ["y"]),
    ]
    model = written(
        path := tmp_path / "net.onnx", nodes, [1, 6, 5], {"axes": np.array([1]), "w": floats(2, 1, 3, 3)}, kind=kind
    )
    network = models.load(path, "numpy")
    assert network.input_shape == (6, 5, 1)
    pixels = RNG.integers(0, 256, (3, 6, 5, 1), np.uint8)
    x = pixels if kind == TensorProto.UINT8 else pixels.astype(np.float64)
    want = [ReferenceEvaluator(model).run(None, {"x": each[np.newaxis, ..., 0]})[0][0] for each in x]
    got = network.predict(x)
    np.testing.assert_allclose(got, np.stack(want).transpose(0, 2, 3, 1), rtol=1e-4)


def test_weights_in_a_second_file_are_read(tmp_path: Path) -> None:
    nodes, constants = convolutional("N", *FLATTENINGS["flatten"])
    model = written(tmp_path / "whole.onnx", nodes, ["N", 2, 6, 8], constants)
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    onnx.save(apart, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert (tmp_path / "net.data").stat().st_size > 900
    check(tmp_path / "net.onnx", model, floats(3, 2, 6, 8))


def test_an_initializer_may_be_listed_as_input_and_another_read_by_nobody(tmp_path: Path) -> None:
    model = written(
        path := tmp_path / "net.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        ["N", 3],
        {"w": floats(3, 2), "idle": floats(4)},
    )
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    path.write_bytes(model.SerializeToString())
    assert [str(each.layer) for each in models.load(path, "numpy").nodes] == ["Linear(2, bias=False)"]


def test_a_function_of_the_file_is_inlined(tmp_path: Path) -> None:
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Relu", ["a"], ["c"]), node("Tanh", ["c"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = written(path := tmp_path / "net.onnx", [node("Twice", ["x"], ["y"], domain="own")], ["N", 3])
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("own", 1))
    path.write_bytes(model.SerializeToString())
    assert [str(each.layer) for each in models.load(path, "numpy").nodes] == ["ReLU()", "Tanh()"]


def test_only_the_first_output_is_read(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("ArgMax", ["y"], ["z"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.INT64, None))
    path.write_bytes(model.SerializeToString())
    assert len(models.load(path, "numpy").nodes) == 1


def test_open_sizes_are_set_by_who_knows_them(tmp_path: Path) -> None:
    model = written(
        path := tmp_path / "net.onnx", [node("Conv", ["x", "w"], ["y"])], ["N", 2, "h", "w"], {"w": floats(1, 2, 3, 3)}
    )
    with pytest.raises(UnsupportedOperatorError, match=r"'x' leaves sizes open: \(h, w, 2\); .*input_shape="):
        models.load(path, "numpy")
    assert read_onnx(path, "numpy", input_shape=(6, 5, 2)).output_shape == ("N", 4, 3, 1)
    with pytest.raises(models.ModelFormatError, match=r"input 'x' is \(h, w, 2\), input_shape is \(6, 5, 3\)"):
        read_onnx(path, "numpy", input_shape=(6, 5, 3))
    del model


def unsupported(path: Path, *nodes: Any, shape: Shape = ("N", 3), **constants: np.ndarray) -> str:
    """The words in which a network is refused."""
    written(path, list(nodes), shape, constants)
    with pytest.raises(UnsupportedOperatorError) as refused:
        models.load(path, "numpy")
    return str(refused.value)


def test_an_unsupported_operator_is_named_with_its_node_its_file_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    text = unsupported(path, node("Relu", ["x"], ["r"]), node("Det", ["r"], ["y"], name="/head/Det"))
    assert text == (
        f"{path}: node '/head/Det', operator Det, is not supported; `twinkernels inspect net.onnx` shows what of the "
        "network can run here"
    )


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Softmax", ["x"], ["y"], axis=0)], "Softmax, works along the batch"),
        ([node("Transpose", ["x"], ["y"], perm=[1, 0])], "output 'y' does not have the batch on the first axis"),
        ([node("MatMul", ["x", "x"], ["y"])], "multiplies two tensors that are both computed"),
        ([node("Add", ["x", "k"], ["y"])], "differs from sample to sample"),
        ([node("Reshape", ["x", "k"], ["y"])], "Reshape, "),
        ([node("Cast", ["x"], ["y"], to=TensorProto.INT64)], "casts to type 7, expected floats"),
        ([node("FusedMatMul", ["x"], ["y"], domain="com.microsoft")], "operator com.microsoft.FusedMatMul, is not"),
        ([node("Conv", ["x", "k"], ["y"])], "has 0 axes of space"),
        ([node("BatchNormalization", ["x", *"kkkk"], ["y"], training_mode=1)], "the batch's own statistics"),
    ],
)
def test_what_cannot_be_taken_over_is_said(tmp_path: Path, nodes: list[Any], words: str) -> None:
    assert words in unsupported(tmp_path / "net.onnx", *nodes, shape=["N", 3], k=floats(2, 3))


def test_a_network_of_two_inputs_is_refused_in_one_line(tmp_path: Path) -> None:
    model = written(path := tmp_path / "net.onnx", [node("Add", ["x", "labels"], ["y"])], ["N", 3])
    model.graph.input.append(helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["N", 3]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedOperatorError, match=r"'y' depends on 2 inputs \('x' and 'labels'\), expected one"):
        models.load(path, "numpy")


@pytest.mark.parametrize(("x", "w"), [((4,), (2, 4, 3)), ((2, 4), (1, 4, 3)), ((2, 1, 5, 4), (3, 4, 2))])
def test_matrices_meet_as_numpy_has_them(tmp_path: Path, x: Any, w: Any) -> None:
    """Also where the product has more axes than the input, and the batch is none any more."""
    given, weights = floats(*x), floats(*w)
    model = written(tmp_path / "net.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], x, {"w": weights})
    got, want = answered(Case("", model, [given], [given @ weights], 0, 0), "numpy", tmp_path / "net.onnx")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_sums_repeats_and_biases_that_are_computed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        helper.make_node("Tile", ["s", "times"], ["t"]),
        helper.make_node("Expand", ["s", "shape"], ["e"]),
        helper.make_node("Add", ["t", "e"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["g"]),
        helper.make_node("Gemm", ["f", "w", "g"], ["y"]),
    ]
    constants = {
        "axes": np.array([2]),
        "times": np.array([1, 1, 3]),
        "shape": np.array([1, 4, 3]),
        "w": floats(12, 5),
    }
    model = written(tmp_path / "net.onnx", nodes, ("N", 4, 6), constants)
    check(tmp_path / "net.onnx", model, floats(3, 4, 6))


def alone(path: Path, model: Any, x: np.ndarray, backend: str = "numpy", tolerance: float = 1e-5) -> None:
    """`check` of a network whose first axis is no batch."""
    network = models.load(path, backend)
    assert network.input_shape == x.shape
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(network.predict(x[np.newaxis])[0], want, rtol=tolerance, atol=tolerance)


def there_and_back(folder: Path, network: Graph) -> None:
    """A network answers as before when it has been written and read."""
    network.save(path := folder / "again.onnx")
    x = floats(2, *network.input_shape)
    want = network.predict(x)
    np.testing.assert_allclose(models.load(path, network.backend).predict(x), want, rtol=1e-5, atol=1e-5)


CHANNEL_BY_CHANNEL = {
    "statistics of the batch": [
        node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["y"], training_mode=1)
    ],
    "batch norm": [
        node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["b"]),
        node("ReduceMean", ["b"], ["y"], axes=[0]),
    ],
    "instance norm": [
        node("InstanceNormalization", ["x", "scale", "shift"], ["b"]),
        node("ReduceMean", ["b"], ["y"], axes=[0]),
    ],
    "slopes": [node("PRelu", ["x", "slopes"], ["b"]), node("ReduceMean", ["b"], ["y"], axes=[0])],
}


@pytest.mark.parametrize("way", CHANNEL_BY_CHANNEL)
def test_channels_are_the_files_second_axis_also_where_its_first_is_no_batch(tmp_path: Path, way: str) -> None:
    each = {name: floats(4) for name in ("scale", "shift", "mean")}
    constants = {**each, "var": floats(4) ** 2 + 0.5, "slopes": floats(4, 1)}
    model = written(path := tmp_path / "net.onnx", CHANNEL_BY_CHANNEL[way], [4, 4, 3], constants)
    if way == "instance norm":  # a norm of each sample on its own
        with pytest.raises(UnsupportedOperatorError, match="ReduceMean, works along the batch"):
            models.load(path, "numpy")
    else:
        alone(path, model, floats(4, 4, 3))


@pytest.mark.parametrize(
    ("operator", "settings"), [("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("LRN", {"size": 3})]
)
def test_maps_are_not_taken_for_others_where_the_first_axis_is_no_batch(
    tmp_path: Path, operator: str, settings: dict[str, Any]
) -> None:
    nodes = [node(operator, ["x"], ["m"], **settings), node("ReduceMean", ["m"], ["y"], axes=[0])]
    written(path := tmp_path / "net.onnx", nodes, [4, 4, 3])
    with pytest.raises(UnsupportedOperatorError, match="ReduceMean, works along the batch"):
        models.load(path, "numpy")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    "exponent",
    [
        np.array([2.0], np.float32),
        np.array([[[2]], [[-1]], [[3]]]),
        np.array([0.5, 2, -1, 0, 3], np.float32),
        np.abs(floats(3, 4, 5)),
    ],
    ids=["one", "by channel", "by column", "everywhere"],
)
def test_powers_by_an_array(tmp_path: Path, exponent: np.ndarray, backend: str) -> None:
    nodes = [node("Abs", ["x"], ["a"]), node("Pow", ["a", "e"], ["y"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"e": exponent})
    there_and_back(tmp_path, check(path, model, floats(2, 3, 4, 5), backend))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_powers_of_what_is_computed_and_of_constants(tmp_path: Path, backend: str) -> None:
    nodes = [
        node("Abs", ["x"], ["a"]),
        node("ReduceMean", ["x"], ["m"], axes=[2, 3]),
        node("Pow", ["a", "m"], ["p"]),
        node("Pow", ["base", "x"], ["q"]),
        node("Add", ["p", "q"], ["y"]),
    ]
    model = written(
        path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"base": np.float32([[[2.0]], [[0.5]], [[3]]])}
    )
    there_and_back(tmp_path, check(path, model, floats(2, 3, 4, 5), backend))


LARGEST = {
    "of two": [node("Max", ["x", "z"], ["y"])],
    "of three and a number": [node("Neg", ["z"], ["n"]), node("Max", ["x", "z", "one", "n"], ["y"])],
    "the least": [node("Min", ["x", "z", "one"], ["y"])],
    "of rows": [node("ReduceMean", ["x"], ["a"], axes=[2, 3]), node("ReduceMax", ["x"], ["b"], axes=[2, 3]),
                node("Flatten", ["b"], ["c"]), node("Flatten", ["a"], ["d"]), node("Min", ["c", "d"], ["y"])],
    "in two orders": [node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
                      node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2]),
                      node("Max", ["u", "z"], ["y"])],
    "over channels": [node("ReduceMax", ["x"], ["y"], axes=[1], keepdims=1)],
    "over columns": [node("ReduceMax", ["x"], ["y"], axes=[3], keepdims=0)],
    "over channels and rows": [node("ReduceMin", ["x"], ["y"], axes=[1, 2], keepdims=0)],
    "over all": [node("ReduceMax", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)],
    "sizes": [node("ReduceL1", ["x"], ["a"], axes=[1]), node("ReduceL2", ["x"], ["b"], axes=[1]),
              node("ReduceSumSquare", ["z"], ["c"], axes=[1]), node("Sum", ["a", "b", "c"], ["y"])],
    "logarithms of sums": [node("Exp", ["x"], ["e"]), node("ReduceLogSum", ["e"], ["y"], axes=[2])],
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("way", LARGEST)
def test_the_largest_of_tensors_and_along_axes(tmp_path: Path, way: str, backend: str) -> None:
    nodes = [node("Tanh", ["x"], ["z"]), *LARGEST[way]]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"one": np.float32(0.25)})
    check(path, model, floats(2, 3, 4, 5), backend)


def test_what_has_no_shape_in_common_is_not_compared(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[2]), node("Max", ["x", "m"], ["y"])]
    text = unsupported(tmp_path / "net.onnx", *nodes, shape=["N", 3, 4, 5])
    assert "operator Max, compares tensors of [N, 3, 4, 5] and [N, 3, 1, 5], expected one shape" in text


ANYWHERE = {
    "pad of channels": [node("Pad", ["x", "channels"], ["y"])],
    "pad of channels and rows": [node("Pad", ["x", "both", "number"], ["y"])],
    "response as PyTorch writes it": [
        node("Mul", ["x", "x"], ["s"]),
        node("Unsqueeze", ["s", "one"], ["u"]),
        node("Pad", ["u", "depth"], ["p"]),
        node("AveragePool", ["p"], ["a"], kernel_shape=[3, 1, 1], strides=[1, 1, 1], pads=[0] * 6),
        node("Squeeze", ["a", "one"], ["y"]),
    ],
    "a pool along two axes of three": [
        node("Unsqueeze", ["x", "one"], ["u"]),
        node("MaxPool", ["u"], ["m"], kernel_shape=[2, 1, 3], strides=[1, 1, 2], pads=[1, 0, 1, 0, 0, 1]),
        node("ReduceMean", ["m"], ["y"], axes=[1], keepdims=0),
    ],
    "a pool over all of three axes": [
        node("Unsqueeze", ["x", "one"], ["u"]),
        node("GlobalAveragePool", ["u"], ["g"]),
        node("Flatten", ["g"], ["y"]),
    ],
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("way", ANYWHERE)
def test_pads_and_pools_along_any_axis(tmp_path: Path, way: str, backend: str) -> None:
    constants = {
        "one": np.array([1]),
        "channels": np.array([0, 1, 0, 0, 0, 2, 0, 0]),
        "both": np.array([0, 1, 2, 0, 0, 0, 1, 0]),
        "depth": np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
        "number": np.float32(0.5),
    }
    model = written(path := tmp_path / "net.onnx", ANYWHERE[way], ["N", 3, 4, 5], constants)
    check(path, model, floats(2, 3, 4, 5), backend)


def test_a_sample_that_is_one_number_is_scaled_and_shifted(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
        node("Mul", ["m", "two"], ["s"]),
        node("Add", ["s", "two"], ["a"]),
        node("Sqrt", ["a"], ["r"]),
        node("Div", ["x", "r"], ["y"]),
    ]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 5], {"two": np.float32(2)})
    check(path, model, np.abs(floats(3, 5)))


def branch(name: str, *nodes: Any, **constants: np.ndarray) -> Any:
    """A way of an If, which gives what its last node makes."""
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    return helper.make_graph(nodes, name, [], [last], held)


def choosing(condition: str) -> Any:
    """An If whose one way reads its x twice and has a weight, and whose other is not supported."""
    one = branch(
        "one", node("Relu", ["c"], ["r"]), node("Mul", ["c", "w"], ["m"]), node("Add", ["m", "r"], ["o"]), w=SCALE
    )
    return node("If", [condition], ["chosen"], then_branch=one, else_branch=branch("other", node("Det", ["c"], ["d"])))


SCALE = np.float32([[[2.0]], [[3.0]]])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_of_an_if_whose_condition_is_known_one_way_is_taken(tmp_path: Path, backend: str) -> None:
    """As PyTorch's exporter writes a squeeze of sizes that it does not know."""
    nodes = [
        node("Conv", ["x", "k"], ["c"]),
        node("Shape", ["c"], ["sizes"]),
        node("Gather", ["sizes", "at"], ["channels"]),
        node("Equal", ["channels", "two"], ["yes"]),
        choosing("yes"),
        node("GlobalAveragePool", ["chosen"], ["g"]),
        node("Flatten", ["g"], ["y"]),
    ]
    constants = {"k": floats(2, 3, 1, 1), "at": np.array(1), "two": np.array(2)}
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], constants)
    network = check(path, model, floats(2, 3, 4, 5), backend)
    assert [type(each.layer).__name__ for each in network.nodes] == [
        "Conv2d",
        "ReLU",
        "Affine",
        "Add",
        "GlobalAvgPool2d",
    ]
    constants["two"] = np.array(3)
    text = unsupported(path, *nodes, shape=["N", 3, 4, 5], **constants)
    assert "the node that makes d, operator Det, is not supported" in text


def test_an_if_that_depends_on_the_images_is_refused(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["c"]), node("Cast", ["c"], ["b"], to=TensorProto.FLOAT), choosing("b")]
    text = unsupported(tmp_path / "net.onnx", *nodes, node("Relu", ["chosen"], ["y"]), shape=["N", 2, 1, 1])
    assert "operator If, chooses by what an image holds, expected a condition that is constant" in text
    body = branch("body", node("Relu", ["c"], ["d"]))
    text = unsupported(tmp_path / "net.onnx", nodes[0], node("Loop", ["", ""], ["y"], body=body))
    assert "operator Loop, is not supported" in text


@pytest.mark.parametrize("axis", [None, 0, -3])
def test_quantised_weights_are_read_and_quantised_images_refused(tmp_path: Path, axis: int | None) -> None:
    count = 1 if axis is None else {0: 2, -3: 3}[axis]
    settings = {} if axis is None else {"axis": axis}
    constants = {
        "q": RNG.integers(-128, 128, (2, 3, 2, 2)).astype(np.int8),
        "scale": np.float32(0.1) if axis is None else np.abs(floats(count)),
        "zero": np.int8(-7) if axis is None else RNG.integers(-9, 9, count).astype(np.int8),
    }
    nodes = [node("DequantizeLinear", ["q", "scale", "zero"], ["w"], **settings), node("Conv", ["x", "w"], ["y"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], constants, opset=21)
    check(path, model, floats(2, 3, 4, 5), tolerance=1e-4)
    nodes[:1] = [node("QuantizeLinear", ["x", "one"], ["b"]), node("DequantizeLinear", ["b", "one"], ["c"])]
    nodes[2] = node("Conv", ["c", "w"], ["y"])
    text = unsupported(path, *nodes, shape=["N", 3, 4, 5], one=np.float32(0.1), w=floats(2, 3, 2, 2))
    assert (
        "operator QuantizeLinear, computes with quantised numbers, which is not supported; export the network" in text
    )


def test_the_mean_of_tensors(tmp_path: Path) -> None:
    nodes = [node("Tanh", ["x"], ["t"]), node("Mean", ["x", "t", "k"], ["y"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"k": floats(3, 1, 1)})
    check(path, model, floats(2, 3, 4, 5))


def test_graphs_in_graphs_are_read_to_some_depth(tmp_path: Path) -> None:
    def way(name: str, inner: Any) -> Any:
        output = helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([inner], name, [], [output])

    def nested(depth: int) -> Any:
        inner = node("Relu", ["x"], ["inner"])
        for turn in range(depth):
            other = way("other", node("Det", ["x"], [f"d{turn}"]))
            inner = node("If", ["yes"], [f"i{turn}"], then_branch=way("taken", inner), else_branch=other)
        return inner, node("Tanh", [inner.output[0]], ["y"])

    yes = {"yes": np.array(True)}
    model = written(path := tmp_path / "net.onnx", list(nested(8)), ["N", 3], yes)
    assert [str(each.layer) for each in check(path, model, floats(2, 3)).nodes] == ["ReLU()", "Tanh()"]
    text = unsupported(path, *nested(9), **yes)
    assert "operator If, has no graph to choose" in text


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_one_image_without_a_batch(tmp_path: Path, backend: str) -> None:
    """As PyTorch's exporter writes a network that was shown one."""
    nodes = [
        node("Unsqueeze", ["x", "first"], ["u"]),
        node("Conv", ["u", "k"], ["c"]),
        node("BatchNormalization", ["c", "scale", "shift", "shift", "var"], ["b"]),
        node("MaxPool", ["b"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Squeeze", ["m", "first"], ["s"]),
        node("Reshape", ["s", "row"], ["f"]),
        node("Gemm", ["f", "w"], ["y"]),
    ]
    each = {"scale": floats(3), "shift": floats(3), "var": floats(3) ** 2 + 0.5}
    shapes = {"first": np.array([0]), "row": np.array([1, -1])}
    constants = {"k": floats(3, 2, 3, 3), "w": floats(12, 5), **each, **shapes}
    model = written(path := tmp_path / "net.onnx", nodes, [2, 6, 7], constants)
    alone(path, model, floats(2, 6, 7), backend)


def test_a_sparse_constant_is_refused(tmp_path: Path) -> None:
    numbers, places = (numpy_helper.from_array(np.array([0, 2]).astype(dtype)) for dtype in (np.float32, np.int64))
    sparse = helper.make_sparse_tensor(numbers, places, [3])
    nodes = [node("Constant", [], ["c"], sparse_value=sparse), node("Add", ["x", "c"], ["y"])]
    text = unsupported(tmp_path / "net.onnx", *nodes)
    assert "the node that makes c, operator Constant, holds no numbers, but sparse_value" in text


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Sigmoid", "Tanh", "Sin"])
def test_weights_are_computed_beforehand(tmp_path: Path, kind: str) -> None:
    """As those of weight normalisation and weight standardisation are."""
    settings = {"axes": [1, 2, 3]} if kind.startswith("Reduce") else {}
    nodes = [node(kind, ["w"], ["m"], **settings), node("Sub", ["w", "m"], ["v"]), node("Conv", ["x", "v"], ["y"])]
    model = written(path := tmp_path / "net.onnx", nodes, ["N", 3, 4, 5], {"w": floats(2, 3, 2, 2)}, opset=11)
    network = check(path, model, floats(2, 3, 4, 5))
    assert network.architecture.altered == (network.output,)


@pytest.mark.parametrize("kind", ["Size", "DequantizeLinear", "ReduceL2", "Concat", "Transpose"])
def test_a_constant_that_is_missing_is_no_traceback(tmp_path: Path, kind: str) -> None:
    nodes = [node(kind, ["", "one"], ["c"]), node("Add", ["x", "c"], ["y"])]
    assert f"operator {kind}, its constant inputs do not fit" in unsupported(
        tmp_path / "net.onnx", *nodes, one=np.float32(1)
    )
