"""Models: structure and its errors, weights, prediction and evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
import models
from kernels import Kernels
from models import (
    GELU,
    SGD,
    Add,
    Affine,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Graph,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mean,
    MeanSquaredError,
    Multiply,
    ReLU,
    Reshape,
    Sequential,
    Slice,
    Softmax,
    Tanh,
    Trainer,
    Transpose,
)

EPS = np.finfo(np.float64).eps

BRANCHING: dict[str, Any] = {
    "stem": (Conv2d(4, 3, padding=1), "input"),
    "narrow": (Conv2d(4, 1), "stem"),
    "wide": (Conv2d(4, 3, padding=1, groups=2), "stem"),
    "norm": (BatchNorm(), "wide"),
    "bent": (Tanh(), "stem"),
    "sum": (Add(), "stem", "narrow", "norm"),
    "smooth": (GELU(), "sum"),
    "both": (Concat(), "smooth", "bent", "stem"),
    "pool": (GlobalAvgPool2d(), "both"),
    "head": (Linear(3), "pool"),
}


def branching(backend: str, **options: Any) -> Graph:
    """A stem, three branches and the stem itself added, then joined with two more readers of the stem."""
    return Graph(BRANCHING, output="head", input_shape=(6, 6, 2), backend=backend, **options)


# Structure ------------------------------------------------------------------------------------------------------


def test_a_branching_residual_graph_passes_the_gradient_check(k: Kernels) -> None:
    check = models.gradcheck(branching(k.name), np.random.default_rng(1).standard_normal((2, 6, 6, 2)))
    assert check.error < 1e-7, check


def test_a_branching_residual_graph_trains(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.standard_normal((60, 6, 6, 2)).astype(np.float32) * 0.3
    x[np.arange(60), y, y] += 3.0
    model = branching(k.name)
    before = model.evaluate(x, y)
    Trainer(model, models.Adam(0.02), batch_size=20).fit(x, y, epochs=15)
    after = model.evaluate(x, y)
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.9


def test_fan_out_adds_gradients(k: Kernels) -> None:
    """y = x w + x w + x w, through three readers of one node, has three times the gradient of one."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    shared = Graph({"a": (Linear(2), "input"), "sum": (Add(), "a", "a", "a")}, "sum", (3,), k.name, dtype=np.float64)
    trainer = Trainer(shared, SGD(0.1), MeanSquaredError(), batch_size=4)
    w, b = (shared.parameters()[name].copy() for name in ("a.w", "a.b"))
    trainer.step(x, y)
    residual = 3 * (x @ w + b) - y
    np.testing.assert_allclose(trainer.gradients()["a.w"], 3 * x.T @ (2 * residual / residual.size), rtol=1e-12)
    np.testing.assert_allclose(trainer.gradients()["a.b"], 3 * (2 * residual / residual.size).sum(0), rtol=1e-12)


def test_the_input_may_be_read_more_than_once(k: Kernels) -> None:
    twice = Graph({"both": (Concat(), "input", "input"), "head": (Linear(2), "both")}, "head", (3,), k.name)
    assert models.gradcheck(twice).error < 1e-7
    x = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(twice.predict(x), np.hstack([x, x]) @ twice.parameters()["head.w"], rtol=1e-5, atol=1e-6)


def test_sequential_is_the_same_graph_in_a_line(k: Kernels) -> None:
    layers: list[Layer] = [Conv2d(4, 3), BatchNorm(), ReLU(), MaxPool2d(2), Flatten(), Dropout(0.3), Linear(3)]
    line = Sequential(layers, (8, 8, 1), k.name, seed=3)
    nodes = {str(i): (layer, str(i - 1) if i else "input") for i, layer in enumerate(layers)}
    shuffled = {name: nodes[name] for name in sorted(nodes, reverse=True)}
    graph = Graph(shuffled, "6", (8, 8, 1), k.name, seed=3)
    x = np.random.default_rng(0).standard_normal((6, 8, 8, 1)).astype(np.float32)
    y = np.arange(6) % 3
    np.testing.assert_array_equal(line.predict(x), graph.predict(x))
    trainers = [Trainer(model, models.Adam(0.01), batch_size=6) for model in (line, graph)]
    assert str(trainers[0].plan) == str(trainers[1].plan)
    for _ in range(3):
        assert trainers[0].step(x, y) == trainers[1].step(x, y)
    np.testing.assert_array_equal(line.predict(x), graph.predict(x))
    assert line.layers == tuple(layers)


def test_the_summary_counts_parameters() -> None:
    summary = branching("numpy").summary()
    assert "sum     Add()" in summary
    assert "stem, narrow, norm" in summary
    assert "(N, 6, 6, 12)" in summary
    expected = (3 * 3 * 2 * 4 + 4) + (4 * 4 + 4) + (3 * 3 * 2 * 4 + 4) + 8 + (12 * 3 + 3)
    assert summary.splitlines()[-1].split()[:2] == ["total", str(expected)]
    assert repr(branching("numpy")) == "<Graph of 10 layers on numpy, float32>"


GRAPH_ERRORS: dict[str, tuple[dict[str, Any], str, type[Exception], str]] = {
    "cycle": (
        {"a": (Add(), "input", "c"), "b": (ReLU(), "a"), "c": (ReLU(), "b")},
        "c",
        ValueError,
        r"the graph has a cycle: .*a.*b.*c",
    ),
    "missing node": ({"a": (ReLU(), "input"), "b": (ReLU(), "nowhere")}, "b", ValueError, "node 'b' reads 'nowhere'"),
    "unused node": (
        {"a": (Linear(2), "input"), "spare": (ReLU(), "a")},
        "a",
        ValueError,
        "node 'spare' does not lead to the output 'a'",
    ),
    "output missing": ({"a": (ReLU(), "input")}, "head", ValueError, "output 'head' is not a node; expected one of a"),
    "no nodes": ({}, "head", ValueError, "output 'head' is not a node"),
    "two inputs for one": ({"a": (ReLU(), "input", "input")}, "a", ValueError, "node 'a' has 2 inputs, ReLU expects 1"),
    "one input for two": ({"a": (Add(), "input")}, "a", ValueError, "node 'a' has 1 inputs, Add expects two or more"),
    "no input": ({"a": (ReLU(),)}, "a", TypeError, "node 'a' is .* expected"),
    "no layer": ({"a": ("ReLU", "input")}, "a", TypeError, "node 'a' is .* expected"),
    "a class for a layer": ({"a": (ReLU, "input")}, "a", TypeError, "node 'a' is .* expected"),
    "name taken": ({"input": (ReLU(), "input")}, "input", ValueError, "node name 'input' is not allowed"),
    "empty name": ({"": (ReLU(), "input")}, "", ValueError, "node name '' is not allowed"),
    "gradients' names": (
        {"own": (Linear(2), "input"), "down": (Linear(2), "own")},
        "down",
        ValueError,
        "node names 'own' and 'down' clash",
    ),
    "add of unequal shapes": (
        {"a": (Linear(2), "input"), "b": (Linear(3), "input"), "sum": (Add(), "a", "b")},
        "sum",
        ValueError,
        r"node 'sum' .*\(N, 3\), expected \(N, 2\)",
    ),
    "concat along an axis that is not there": (
        {"both": (Concat(2), "input", "input")},
        "both",
        ValueError,
        r"node 'both' .*axis is 2, expected an axis from 1 to 1",
    ),
    "product of a row and a map": (
        {"row": (Reshape((2, 2)), "input"), "both": (Multiply(), "row", "input")},
        "both",
        ValueError,
        r"node 'both' .*input has shape \(N, 4\), expected \(N, 2, 2\)",
    ),
    "concat of unequal shapes": (
        {"v": (Conv2d(1, 1), "input"), "b": (Linear(3), "input"), "both": (Concat(), "v", "b")},
        "both",
        ValueError,
        "node 'v' .*expected 4 axes",
    ),
}


@pytest.mark.parametrize(
    ("name", "objection"),
    [
        ("", "expected a character at least"),
        ("input", "expected another than 'input', which is the model's input"),
        (3, "it is a int, expected a string"),
        ("a" * 201, "it has 201 characters, expected at most 200"),
        ("it's", 'it has the character "\'", expected printable ones other than a single quote'),
        ("a\tb", r"it has the character '\t', expected printable ones"),
        ("a/../b", "it has a part '..', which leads elsewhere"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: Any, objection: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"node name {name!r} is not allowed: {objection}")):
        Graph({name: (ReLU(), "input")}, str(name), (4,), "numpy")


def test_names_as_pytorchs_exporter_gives_them(tmp_path: Path) -> None:
    """With a slash in front, dots and spaces: built, trained, listed, saved and loaded."""
    first, second, last = "/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/relu/Relu", "/fc/Gemm output: 0 ä"
    nodes = {first: (Conv2d(2, 1), "input"), second: (ReLU(), first), "/Flatten": (Flatten(), second)}
    model = Graph({**nodes, last: (Linear(3), "/Flatten")}, last, (2, 2, 1), "numpy")
    x = np.random.default_rng(0).standard_normal((4, 2, 2, 1)).astype(np.float32)
    trainer = Trainer(model, SGD(0.1), batch_size=4)
    trainer.step(x, np.array([0, 1, 2, 0]))
    assert f"d{first}.w" in str(trainer.plan)
    assert last in model.summary()
    model.save(tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors", "numpy")
    assert [node.name for node in again.nodes] == [first, second, "/Flatten", last]
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("case", GRAPH_ERRORS)
def test_a_wrong_graph_is_refused_by_the_nodes_name(case: str) -> None:
    nodes, output, error, message = GRAPH_ERRORS[case]
    with pytest.raises(error, match=message):
        Graph(nodes, output, (4,))


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([Linear(3)], (4, 4, 1), r"node '0' \(Linear\(3\)\): Linear: x has shape \(N, 4, 4, 1\).*Flatten"),
        ([Flatten(), Conv2d(3, 3)], (4, 4, 1), r"node '1' \(Conv2d\(3, 3\)\): Conv2d: x has shape \(N, 16\)"),
        ([Conv2d(3, 5)], (4, 4, 1), r"node '0' .*does not fit"),
        ([Conv2d(3, 3, groups=2)], (4, 4, 3), r"node '0' .*groups is 2"),
        (
            [Affine((4,))],
            (4, 4, 3),
            r"node '0' .*shape is \(4,\), expected sizes of last axes of x",
        ),
        ([Affine((4, 1))], (4,), r"node '0' .*shape is \(4, 1\)"),
        ([Reshape((5, -1))], (4, 4, 3), r"node '0' .*expected 48 elements"),
        ([Transpose((2, 1))], (4, 4, 3), r"node '0' .*x has axes 1 to 3"),
        ([Mean((1, -3))], (4, 4, 3), r"node '0' .*axes is \(1, -3\), expected an axis, or some that differ"),
        ([LayerNorm((1, 2))], (4, 4, 3), r"node '0' .*expected the last axes of x"),
        ([GroupNorm(2)], (4, 4, 3), r"node '0' .*groups is 2, expected a divisor of 3 channels"),
        ([Slice(3, 4)], (4, 4, 3), r"node '0' .*4:None:1 of axis 3 has no element"),
        ([Softmax(3)], (4, 3), r"node '0' .*axis is 3, expected an axis from 1 to 2"),
        ([MaxPool2d(3, padding=3)], (8, 8, 1), r"node '0' .*padding is \(3, 3\)"),
        ([Linear(2), GlobalAvgPool2d()], (4,), r"node '1' .*GlobalAvgPool2d: x has shape \(N, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_the_nodes_name(
    layers: list[Layer], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Sequential(layers, shape)


def test_other_arguments_of_a_model_are_checked() -> None:
    with pytest.raises(ValueError, match="layers is empty"):
        Sequential([], (4,))
    with pytest.raises(ValueError, match="unknown backend 'cuda'; expected one of numpy, numba"):
        Sequential([ReLU()], (4,), backend="cuda")
    with pytest.raises(TypeError, match="dtype is int32, expected float32 or float64"):
        Sequential([ReLU()], (4,), dtype=np.int32)
    with pytest.raises(ValueError, match="seed is -1"):
        Sequential([ReLU()], (4,), seed=-1)
    with pytest.raises(ValueError, match="input_shape is 0"):
        Sequential([ReLU()], (4, 0))
    with pytest.raises(ValueError, match="std is 0"):
        Sequential([ReLU()], (4,), normalisation=(1.0, 0.0))


# Weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential([Linear(3)], input_shape=8), "model: input_shape is 8, expected the sizes of one sample"),
        (lambda: Sequential([Linear(3)], (8,), normalisation=5), r"model: normalisation is 5, expected \(mean, std\)"),
        (lambda: Sequential(Linear(3), (8,)), r"Sequential: layers is Linear\(.*\), expected layers in a row"),
        (lambda: Graph([(Linear(3), "input")], "a", (8,)), r"Graph: nodes is .*, expected \{name: \(layer, input"),
        (lambda: Graph({"a": (Linear(3), "input")}, ["a"], (8,)), r"output is \['a'\], expected the name of one node"),
        (lambda: Graph({"a": (Linear(3), ["input"])}, "a", (8,)), r"node 'a' reads \['input'\], which is no name"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        make()


def test_parameters_are_read_only_views() -> None:
    model = Sequential([Linear(2), BatchNorm()], (3,), "numpy")
    view = model.parameters()["0.w"]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        model.statistics()["1.running_mean"][...] = 1.0
    model.set_parameters({"0.w": np.full((3, 2), 7.0), "1.running_var": [4.0, 9.0]})
    assert (view == 7.0).all()
    np.testing.assert_array_equal(model.statistics()["1.running_var"], [4.0, 9.0])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"0.v": np.zeros(2)}, ValueError, r"unknown name '0.v'; expected some of 0.w, 0.b"),
        ({"0.b": np.zeros(3)}, ValueError, r"set_parameters: 0.b has shape \(3,\), expected \(2,\)"),
        ({"0.b": 0.0}, ValueError, r"0.b has shape \(\), expected \(2,\)"),
        ({"0.b": np.array(["a", "b"])}, ValueError, "could not convert"),
    ],
)
def test_set_parameters_writes_all_or_nothing(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Sequential([Linear(2)], (3,), "numpy")
    before = model.parameters()["0.w"].copy()
    with pytest.raises(error, match=message):
        model.set_parameters({"0.w": np.zeros((3, 2)), **wrong})
    np.testing.assert_array_equal(model.parameters()["0.w"], before)


def test_the_same_seed_gives_the_same_weights_everywhere() -> None:
    reference = models.build("cnn-bn", "numpy", seed=5).parameters()
    for backend in kernels.names():
        for dtype in (np.float32, np.float64):
            for name, view in models.build("cnn-bn", backend, seed=5, dtype=dtype).parameters().items():
                np.testing.assert_array_equal(view.astype(np.float32), reference[name])
    other = models.build("cnn-bn", "numpy", seed=6).parameters()
    assert not np.array_equal(other["0.w"], reference["0.w"])
    first, second = (Sequential([Linear(4), Linear(4)], (4,), "numpy").parameters()[name] for name in ("0.w", "1.w"))
    assert not np.array_equal(first, second)


def test_a_model_moves_to_the_other_backend_with_everything() -> None:
    model = branching("numpy", seed=4, normalisation=(30.0, 60.0))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 6, 6, 2), dtype=np.uint8)
    Trainer(model, SGD(0.1), batch_size=5).step(x, np.array([0, 1, 2, 0, 1]))
    for backend in kernels.names():
        twin = model.to(backend, np.float64)
        assert (twin.backend, twin.dtype, twin.seed) == (backend, np.float64, 4)
        assert twin.normalisation == (30.0, 60.0)
        for name, view in (model.parameters() | model.statistics()).items():
            np.testing.assert_array_equal((twin.parameters() | twin.statistics())[name], view)
        # float64 sums of a few hundred terms of size 1: a thousand roundings at the most
        expected = model.to("numpy", np.float64).predict(x)
        np.testing.assert_allclose(twin.predict(x), expected, rtol=0, atol=1000 * EPS * np.abs(expected).max())
        assert not any(np.shares_memory(twin.parameters()[n], v) for n, v in model.parameters().items())
    assert isinstance(Sequential([ReLU()], (3,)).to("numpy"), Sequential)


# Prediction and evaluation --------------------------------------------------------------------------------------


def test_how_samples_are_split_into_batches_does_not_change_predictions(k: Kernels) -> None:
    model = Sequential([Linear(8), Tanh(), BatchNorm(), Dropout(0.5), Linear(3)], (5,), k.name, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((1100, 5))
    whole = model.predict(x)
    np.testing.assert_array_equal(model.predict(x), whole)
    in_same_chunks = [model.predict(x[start : start + 512]) for start in range(0, 1100, 512)]
    np.testing.assert_array_equal(np.concatenate(in_same_chunks), whole)
    one_by_one = np.concatenate([model.predict(x[i : i + 1]) for i in range(20)])
    # sums of 8 terms of size 1, twice
    np.testing.assert_allclose(one_by_one, whole[:20], rtol=0, atol=100 * EPS)


def test_predictions_grow_with_the_batch_and_are_the_callers_own(k: Kernels) -> None:
    model = Sequential([Linear(2)], (3,), k.name)
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    first = model.predict(x[:1])
    kept = first.copy()
    assert model.predict(x).shape == (9, 2)
    assert model.predict(x[:4]).shape == (4, 2)
    np.testing.assert_array_equal(first, kept)
    first[...] = np.nan
    assert np.isfinite(model.predict(x[:1])).all()


def test_eight_threads_predict_what_one_does(k: Kernels) -> None:
    model = models.build("cnn-bn", k.name)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((int(n), 28, 28, 1)).astype(np.float32) for n in rng.integers(1, 9, 32)]
    serial = [model.predict(x) for x in batches]
    fresh = model.to(k.name)  # so that buffers are made while others wait
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(fresh.predict, batches))
    for a, b in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(a, b)


def test_uint8_images_are_normalised_and_floats_taken_as_they_are(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    train = data.Split(rng.integers(0, 256, (40, 5, 5, 1), dtype=np.uint8), rng.integers(0, 3, 40))
    (floats,) = data.normalise(train)
    model = Sequential([Flatten(), Linear(3)], (5, 5, 1), k.name)
    with pytest.raises(ValueError, match="x holds uint8 images and the model has no normalisation"):
        model.predict(train.images)
    model.normalisation = data.statistics(train)
    np.testing.assert_array_equal(model.predict(train.images), model.predict(floats.images))
    assert model.evaluate(*train) == model.evaluate(*floats)
    assert not np.allclose(model.predict(train.images.astype(np.float32)), model.predict(floats.images))


def test_evaluation_is_the_mean_over_the_whole_set(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    model = Sequential([Linear(4)], (3,), k.name, dtype=np.float64)
    x, y = rng.standard_normal((700, 3)), rng.integers(0, 4, 700).astype(np.uint8)
    logits = x @ model.parameters()["0.w"] + model.parameters()["0.b"]
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss, accuracy = model.evaluate(x, y)
    assert loss == pytest.approx(-log_probability[np.arange(700), y].mean(), rel=1e-12)
    assert accuracy == np.mean(logits.argmax(1) == y)
    squared = model.evaluate(x, np.zeros((700, 4)), MeanSquaredError())
    assert squared.loss == pytest.approx(np.mean(logits**2), rel=1e-12)
    assert np.isnan(squared.accuracy)
    smooth = model.evaluate(x, y, models.SoftmaxCrossEntropy(smoothing=0.1)).loss
    assert smooth == pytest.approx(0.9 * loss - 0.1 * log_probability.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0, 2.0, 3.0]], TypeError, "x is a list, expected a numpy array"),
        (np.zeros((2, 3), np.int64), TypeError, "x has dtype int64, expected uint8 images or floats"),
        (np.zeros((2, 3), complex), TypeError, "x has dtype complex128"),
        (np.zeros((2, 4), np.float32), ValueError, r"x has shape \(2, 4\), expected \(N, 3\)$"),
        (np.zeros(3, np.float32), ValueError, r"x has shape \(3,\), expected \(N, 3\); one sample is"),
        (np.zeros((0, 3), np.float32), ValueError, r"x has an empty batch \(shape \(0, 3\)\)"),
    ],
)
def test_wrong_images_are_refused(x: Any, error: type[Exception], message: str) -> None:
    model = Sequential([Linear(2)], (3,), "numpy")
    with pytest.raises(error, match=message):
        model.predict(x)
    with pytest.raises(error, match=message):
        model.evaluate(x, np.zeros(len(x), np.int64))


def test_any_memory_order_and_float_width_is_taken(k: Kernels) -> None:
    model = Sequential([Linear(2)], (3,), k.name)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    expected = model.predict(x)
    np.testing.assert_array_equal(model.predict(np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(model.predict(x.astype(np.float64)), expected)
    np.testing.assert_array_equal(model.predict(np.repeat(x, 2, axis=0)[::2]), expected)


# A part of a model ----------------------------------------------------------------------------------------------


def test_the_part_until_a_node_gives_its_output(k: Kernels) -> None:
    x = data.standardise(np.random.default_rng(0).integers(0, 256, (5, 6, 6, 2)), 30.0, 60.0)
    model = branching(k.name, seed=3, normalisation=(30.0, 60.0))
    trainer = Trainer(model, SGD(0.01), batch_size=5)
    trainer.step(x, np.arange(5) % 3)  # so that running statistics are no longer those of the start
    model.rewrites = ()
    part = model.until("sum")
    assert {node.name for node in part.nodes} == {"stem", "narrow", "wide", "norm", "sum"}
    assert (part.output, part.seed, part.normalisation, part.rewrites) == ("sum", 3, (30.0, 60.0), ())
    for name, array in (part.parameters() | part.statistics()).items():
        np.testing.assert_array_equal(array, (model.parameters() | model.statistics())[name])
    stem, narrow, norm = (model.until(name).predict(x) for name in ("stem", "narrow", "norm"))
    np.testing.assert_allclose(part.predict(x), stem + narrow + norm, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.until("head").predict(x), model.predict(x))


def test_a_part_is_a_model_of_its_own() -> None:
    x = np.ones((2, 6, 6, 2), np.float32)
    model = branching("numpy")
    part, before = model.until("stem"), model.predict(x)
    part.set_parameters({"stem.w": np.zeros((3, 3, 2, 4))})
    np.testing.assert_array_equal(model.predict(x), before)
    assert np.ptp(part.predict(x)) == 0


@pytest.mark.parametrize("name", ["input", "neck"])
def test_a_part_until_no_node_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"until: '{name}' is no node; expected one of stem, "):
        branching("numpy").until(name)


# Architecture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Graph, Sequential])
def test_an_architecture_makes_the_model_again(kind: type[Graph]) -> None:
    line = Sequential([Flatten(), Linear(3)], (2, 2, 1), "numpy", seed=5, dtype=np.float64, normalisation=(1.0, 2.0))
    again = kind.of(line.architecture, "numpy")
    assert type(again) is kind
    assert again.architecture == line.architecture
    for name, array in line.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name], array)
    assert type(line.to("numpy")) is Sequential


def test_a_sequential_is_in_a_line() -> None:
    with pytest.raises(ValueError, match="Sequential: the nodes are not in a line"):
        Sequential.of(branching("numpy").architecture, "numpy")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((28, 28, 1), r"one sample is x\[np.newaxis\]"),
        ((5, 28, 28), r"grey images are x\[..., np.newaxis\]"),
        ((5, 1, 28, 28), r"channels come last: x.transpose\(0, 2, 3, 1\)"),
        ((5, 784), r"x.reshape\(-1, 28, 28, 1\)"),
        ((5, 27, 28, 1), r"expected \(N, 28, 28, 1\)$"),
    ],
)
def test_a_wrong_shape_keeps_its_batch_axis_and_says_what_to_do(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as caught:
        models.build("mlp-512", "numpy").predict(np.zeros(shape, np.float32))
    assert f"x has shape {shape}" in str(caught.value)


@pytest.mark.parametrize("scale", [255, 1])
@pytest.mark.parametrize("use", ["predict", "evaluate", "validation"])
def test_floats_that_no_normalisation_has_made_are_warned_of(scale: int, use: str) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (50, 28, 28, 1), np.uint8), np.arange(50) % 10
    images[:, :10] = 0
    normalisation = data.statistics((images, labels))
    model = models.build("mlp-512", "numpy", normalisation=normalisation)
    trainer = models.Trainer(model, SGD(0.01), batch_size=50)
    wrong = images / np.float32(scale)
    uses: dict[str, Callable[[], object]] = {
        "predict": lambda: model.predict(wrong),
        "evaluate": lambda: model.evaluate(wrong, labels),
        "validation": lambda: trainer.fit(images, labels, epochs=1, validation=(wrong, labels)),
    }
    with pytest.warns(UserWarning, match="holds floats from 0 to"):
        uses[use]()
    model.predict(wrong)  # said once
    right = data.standardise(images, *normalisation)
    model.evaluate(right, labels)
    models.build("mlp-512", "numpy", normalisation=normalisation).predict(right[:1])
