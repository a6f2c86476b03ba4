"""Keras' files, in the published form of both generations, written here by h5py and held against the formula."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from kernels import Kernels
from models import BatchNorm, Conv2d, Flatten, Graph, Linear, MaxPool2d, MeanNorm, ModelFormatError, ReLU, Sequential
from models.exchange import UnsupportedOperatorError, inspect, save_keras_weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed: it reads and writes Keras' files")

Layer = tuple[str, dict[str, Any], dict[str, np.ndarray]]
"""A layer as Keras has it: class, configuration, arrays by name in order."""

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


# Files as Keras writes them -----------------------------------------------------------------------------------------


def entry(layer: Layer, generation: int, inbound: Any = None) -> dict[str, Any]:
    kind, config, _ = layer
    told: dict[str, Any] = {"class_name": kind, "config": config}
    if generation == 3:
        told |= {"module": "keras.layers", "registered_name": None}
    if inbound is not None:
        told |= {"name": config["name"], "inbound_nodes": inbound}
    return told


def sequential(layers: Sequence[Layer], shape: Sequence[int], generation: int) -> dict[str, Any]:
    told = [entry(layer, generation) for layer in layers]
    if generation == 3:
        told.insert(0, {"class_name": "InputLayer", "config": {"batch_shape": [None, *shape], "name": "input_layer"}})
    else:
        told[0]["config"] = told[0]["config"] | {"batch_input_shape": [None, *shape]}
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": told}}


def snake(kind: str) -> str:
    names = {"BatchNormalization": "batch_normalization", "InputLayer": "input_layer", "Functional": "functional"}
    names |= {"DepthwiseConv2D": "depthwise_conv2d", "SeparableConv2D": "separable_conv2d", "PReLU": "p_re_lu"}
    return names.get(kind, kind.lower())


def put(file: Any, layers: Sequence[Layer], where: str = "") -> None:
    """The arrays as Keras 3 has them."""
    counts: dict[str, int] = {}
    for kind, config, arrays in layers:
        name = snake(kind)
        counts[name] = counts.get(name, -1) + 1
        place = f"{where}layers/{name}" + (f"_{counts[name]}" if counts[name] else "")
        inner = config.get("inner")
        if inner is not None:
            put(file, inner, f"{place}/")
            continue
        group = file.create_group(f"{place}/vars")
        group.attrs["name"] = config["name"]
        for index, array in enumerate(arrays.values()):
            group[str(index)] = array


def without_inner(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: without_inner(value) for key, value in told.items() if key != "inner"}
    return [without_inner(value) for value in told] if isinstance(told, list) else told


def write_archive(path: Path, model: Mapping[str, Any], layers: Sequence[Layer], **changed: bytes) -> Path:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        put(file, layers)
    parts = {
        "metadata.json": json.dumps({"keras_version": "3.14.0"}).encode(),
        "config.json": json.dumps(without_inner(model)).encode(),
        "model.weights.h5": buffer.getvalue(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | changed).items():
            archive.writestr(name, content)
    return path


def trained_first(layers: Sequence[Layer]) -> list[tuple[str, np.ndarray]]:
    flat = [
        (f"{config['name']}/{key}:0", key, array) for kind, config, arrays in layers for key, array in arrays.items()
    ]
    return [(name, array) for name, key, array in sorted(flat, key=lambda item: item[1].startswith("moving"))]


def write_h5(path: Path, model: Mapping[str, Any], layers: Sequence[Layer], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        said = {"keras_version": "2.3.1", "backend": "tensorflow", "model_config": json.dumps(without_inner(model))}
        for key, value in (said | attributes).items():
            file.attrs[key] = value
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [config["name"].encode() for _, config, _ in layers]
        for kind, config, arrays in layers:
            held = group.create_group(config["name"])
            named = trained_first(config.get("inner") or [(kind, config, arrays)])
            held.attrs["weight_names"] = [name.encode() for name, _ in named]
            for name, array in named:
                held[name] = array
    return path


def write(path: Path, layers: Sequence[Layer], shape: Sequence[int], generation: int) -> Path:
    model = sequential(layers, shape, generation)
    if generation == 3:
        return write_archive(path / "m.keras", model, layers)
    return write_h5(path / "m.h5", model, layers)


# Layers of them -----------------------------------------------------------------------------------------------------


def dense(name: str, inputs: int, units: int, activation: Any = "linear", bias: bool = True) -> Layer:
    arrays = {"kernel": draw(inputs, units)} | ({"bias": draw(units)} if bias else {})
    return "Dense", {"name": name, "units": units, "activation": activation, "use_bias": bias}, arrays


def conv(name: str, channels: int, filters: int, **settings: Any) -> Layer:
    config = {"name": name, "filters": filters, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same"}
    config |= {"data_format": "channels_last", "dilation_rate": [1, 1], "activation": "relu", "use_bias": True}
    return "Conv2D", config | settings, {"kernel": draw(3, 3, channels, filters), "bias": draw(filters)}


def batchnorm(name: str, channels: int, **settings: Any) -> Layer:
    arrays = {"gamma": draw(channels), "beta": draw(channels), "moving_mean": draw(channels)}
    arrays["moving_variance"] = np.abs(draw(channels)) + 0.5
    config = {"name": name, "axis": [3], "momentum": 0.95, "epsilon": 1e-3, "center": True, "scale": True} | settings
    for key, switch in (("gamma", "scale"), ("beta", "center")):
        if not config[switch]:
            del arrays[key]
    return "BatchNormalization", config, arrays


def plain(kind: str, name: str, **settings: Any) -> Layer:
    return kind, {"name": name} | settings, {}


POOL = plain("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], padding="valid")


# What they compute --------------------------------------------------------------------------------------------------


def convolved(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A 3x3 convolution that keeps the size, by its formula."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
    return np.einsum("nhwcij,ijcf->nhwf", windows, w, optimize=True)


def normalised(x: np.ndarray, layer: Layer) -> np.ndarray:
    _, config, held = layer
    y = (x - held["moving_mean"]) / np.sqrt(held["moving_variance"] + config["epsilon"])
    return np.asarray(y * held.get("gamma", 1) + held.get("beta", 0))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def network() -> list[Layer]:
    return [
        conv("conv", 2, 4),
        batchnorm("norm", 4),
        POOL,
        plain("Flatten", "flat"),
        plain("Dropout", "drop", rate=0.25),
        dense("dense", 3 * 2 * 4, 5, "softmax"),
    ]


def answer(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    first, norm, last = layers[0], layers[1], layers[-1]
    y = normalised(np.maximum(convolved(x, first[2]["kernel"]) + first[2]["bias"], 0), norm)
    y = y.reshape(-1, 3, 2, 2, 2, 4).max(axis=(2, 4)).reshape(len(x), -1)
    return softmax(y @ last[2]["kernel"] + last[2]["bias"])


IMAGES = RNG.normal(0, 1, (3, 6, 4, 2)).astype(np.float32)


@pytest.mark.parametrize("generation", [2, 3])
def test_a_network_of_either_generation_computes_its_formula(k: Kernels, tmp_path: Path, generation: int) -> None:
    layers = network()
    model = models.load(write(tmp_path, layers, (6, 4, 2), generation), backend=k.name)
    assert [str(node.layer) for node in model.nodes] == [
        "Conv2d(4, 3, padding=1)",
        "ReLU()",
        "BatchNorm(eps=0.001, momentum=0.05)",  # Keras' 0.95 is the weight of the old statistic
        "MaxPool2d(stride=2)",
        "Flatten()",
        "Dropout(rate=0.25)",
        "Linear(5)",
        "Softmax()",
    ]
    assert [node.name for node in model.nodes][:3] == ["conv", "conv/relu", "norm"]
    assert model.normalisation is None
    np.testing.assert_allclose(model.predict(IMAGES), answer(layers, IMAGES), rtol=1e-4, atol=1e-6)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    layers = network()
    for generation in (2, 3):
        path = write(tmp_path, layers, (6, 4, 2), generation).rename(tmp_path / f"model-{generation}")
        np.testing.assert_allclose(models.load(path, "numpy").predict(IMAGES), answer(layers, IMAGES), rtol=1e-4)


def test_both_forms_of_hdf5_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    """The classic one without h5py; the newer one needs it."""
    layers = network()
    classic = write(tmp_path, layers, (6, 4, 2), 2)
    newer = tmp_path / "newer.h5"
    with h5py.File(classic) as old, h5py.File(newer, "w", libver="latest") as new:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
    np.testing.assert_allclose(models.load(newer, "numpy").predict(IMAGES), answer(layers, IMAGES), rtol=1e-4)
    monkeypatch.setitem(sys.modules, "h5py", None)
    np.testing.assert_allclose(models.load(classic, "numpy").predict(IMAGES), answer(layers, IMAGES), rtol=1e-4)
    with pytest.raises(ModelFormatError, match=r"newer.h5: .*needs the package h5py: pip install"):
        models.load(newer, "numpy")


def test_a_group_of_many_layers(tmp_path: Path) -> None:
    """So many that its names take a tree of several nodes, and more than one attribute."""
    layers = [plain("Activation", f"a_long_name_for_an_activation_{i:04}", activation="linear") for i in range(300)]
    layers[150] = dense("dense", 3, 2)
    x = draw(4, 3)
    path = write(tmp_path, layers, (3,), 2)
    with h5py.File(path, "r+") as file:  # as Keras splits what is too long for one
        names = file["model_weights"].attrs.pop("layer_names")
        for index, part in enumerate(np.array_split(names, 2)):
            file["model_weights"].attrs[f"layer_names{index}"] = part
    expected = x @ layers[150][2]["kernel"] + layers[150][2]["bias"]
    np.testing.assert_allclose(models.load(path, "numpy").predict(x), expected, rtol=1e-5, atol=1e-6)
    built = Sequential([Linear(2)], (3,), "numpy")
    np.testing.assert_allclose(models.load(path, into=built).predict(x), expected, rtol=1e-5, atol=1e-6)


def test_it_goes_on_training_and_is_saved(tmp_path: Path) -> None:
    model = models.load(write(tmp_path, [*network()[:-1], dense("dense", 24, 5)], (6, 4, 2), 3), "numpy")
    before = model.statistics()["norm.running_mean"].copy()
    models.Trainer(model, models.SGD(0.1), batch_size=3).step(IMAGES, np.arange(3))
    assert (model.statistics()["norm.running_mean"] != before).any()
    model.save(tmp_path / "m.safetensors")
    again = models.load(tmp_path / "m.safetensors", "numpy")
    np.testing.assert_array_equal(again.predict(IMAGES), model.predict(IMAGES))


# Graphs -------------------------------------------------------------------------------------------------------------


def tensor(name: str, generation: int, index: int = 0) -> Any:
    if generation == 2:
        return [name, index, 0, {}]
    return {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [name, index, 0]}}


def called(generation: int, *names: str, many: bool = False) -> list[Any]:
    """The inbound nodes of a layer that is called once."""
    tensors = [tensor(name, generation) for name in names]
    if generation == 2:
        return [tensors]
    return [{"args": [tensors] if many else tensors, "kwargs": {"mask": None}}]


def functional(
    layers: Sequence[Layer], reads: Mapping[str, list[Any]], outputs: Any, shape: Sequence[int], generation: int
) -> dict[str, Any]:
    key = "batch_shape" if generation == 3 else "batch_input_shape"
    told = [{"class_name": "InputLayer", "config": {key: [None, *shape], "name": "image"}, "inbound_nodes": []}]
    told += [entry(layer, generation, reads[layer[1]["name"]]) for layer in layers]
    inputs: Any = [["image", 0, 0]] if generation == 2 else ["image", 0, 0]
    config = {"name": "model", "layers": told, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model" if generation == 2 else "Functional", "config": config}


@pytest.mark.parametrize("generation", [2, 3])
def test_a_graph_with_a_model_in_it(tmp_path: Path, generation: int) -> None:
    inner = [conv("deep", 2, 2, activation="linear"), batchnorm("norm", 2)]
    stem, head = conv("stem", 2, 2), dense("head", 48, 3)
    nested: Layer = (
        "Sequential",
        sequential(inner, (6, 4, 2), generation)["config"] | {"name": "block", "inner": inner},
        {},
    )
    layers = [stem, nested, plain("Add", "sum"), plain("Flatten", "flat"), head]
    reads = {
        "stem": called(generation, "image"),
        "block": called(generation, "stem"),
        "sum": called(generation, "stem", "block", many=True),
        "flat": called(generation, "sum"),
        "head": called(generation, "flat"),
    }
    outputs = [["head", 0, 0], ["sum", 0, 0]]
    told = functional(layers, reads, outputs, (6, 4, 2), generation)
    # Keras 2 numbers the call of a model in a model from 1: its own making was call 0.
    if generation == 2:
        told = json.loads(json.dumps(without_inner(told)).replace('"block", 0, 0', '"block", 1, 0'))
    path = tmp_path / "m"
    write_archive(path, told, layers) if generation == 3 else write_h5(path, told, layers)
    model = models.load(path, "numpy")
    assert [node.name for node in model.nodes] == [
        *("stem", "stem/relu", "block/deep", "block/norm", "sum", "flat", "head")
    ]
    s = np.maximum(convolved(IMAGES, stem[2]["kernel"]) + stem[2]["bias"], 0)
    y = s + normalised(convolved(s, inner[0][2]["kernel"]) + inner[0][2]["bias"], inner[1])
    expected = y.reshape(3, -1) @ head[2]["kernel"] + head[2]["bias"]
    np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_in_a_model_of_keras_2(tmp_path: Path) -> None:
    """Its arrays stand behind all that is trained."""
    frozen, free = dense("frozen", 4, 4), dense("free", 4, 4)
    frozen[1]["trainable"] = False
    inner = [frozen, free]
    nested: Layer = (
        "Sequential",
        sequential(inner, (4,), 2)["config"] | {"name": "block", "inner": [free, frozen]},
        {},
    )
    told = {"class_name": "Sequential", "config": [entry(nested, 2)]}
    model = models.load(write_h5(tmp_path / "m.h5", told, [nested]), "numpy")
    x = draw(5, 4)
    expected = (x @ frozen[2]["kernel"] + frozen[2]["bias"]) @ free[2]["kernel"] + free[2]["bias"]
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


# Layer by layer -----------------------------------------------------------------------------------------------------


def one(tmp_path: Path, layer: Layer, x: np.ndarray, generation: int = 3) -> np.ndarray:
    """What a network of one layer predicts."""
    return models.load(write(tmp_path, [layer], x.shape[1:], generation), "numpy").predict(x)


def test_depthwise_and_separable_convolutions(tmp_path: Path) -> None:
    settings = {"depth_multiplier": 2, "activation": "linear"}
    _, config, _ = conv("c", 2, 5, **settings)
    deep, point, bias = draw(3, 3, 2, 2), draw(1, 1, 4, 5), draw(5)
    depthwise = {name: config[name] for name in config if name != "filters"}
    whole = np.zeros((3, 3, 2, 4), np.float32)
    whole[:, :, 0, :2], whole[:, :, 1, 2:] = deep[:, :, 0], deep[:, :, 1]
    y = one(tmp_path, ("DepthwiseConv2D", depthwise, {"depthwise_kernel": deep, "bias": bias[:4]}), IMAGES)
    np.testing.assert_allclose(y, convolved(IMAGES, whole) + bias[:4], rtol=1e-4, atol=1e-5)
    arrays = {"depthwise_kernel": deep, "pointwise_kernel": point, "bias": bias}
    y = one(tmp_path, ("SeparableConv2D", config, arrays), IMAGES)
    np.testing.assert_allclose(y, convolved(IMAGES, whole) @ point[0, 0] + bias, rtol=1e-4, atol=1e-5)


def test_what_batch_normalisation_leaves_out_changes_nothing(tmp_path: Path) -> None:
    for generation in (2, 3):
        for settings in ({"scale": False}, {"center": False}, {"scale": False, "center": False}):
            layer = batchnorm("norm", 2, **settings)
            np.testing.assert_allclose(one(tmp_path, layer, IMAGES, generation), normalised(IMAGES, layer), rtol=1e-4)


def test_a_dense_layer_at_every_place_of_a_map(tmp_path: Path) -> None:
    layer = dense("dense", 2, 3)
    np.testing.assert_allclose(
        one(tmp_path, layer, IMAGES), IMAGES @ layer[2]["kernel"] + layer[2]["bias"], rtol=1e-4, atol=1e-6
    )


def test_an_average_over_padding_counts_no_padding(tmp_path: Path) -> None:
    x = draw(2, 4, 4, 1)
    layer = plain("AveragePooling2D", "pool", pool_size=[3, 3], strides=[1, 1], padding="same")
    padded = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan), (3, 3), (1, 2)
    )
    np.testing.assert_allclose(one(tmp_path, layer, x), np.nanmean(padded, axis=(-2, -1)), rtol=1e-5, atol=1e-6)


def test_global_pools(tmp_path: Path) -> None:
    for kind, expected in (("GlobalAveragePooling2D", IMAGES.mean((1, 2))), ("GlobalMaxPooling2D", IMAGES.max((1, 2)))):
        np.testing.assert_allclose(one(tmp_path, plain(kind, "pool", keepdims=False), IMAGES), expected, rtol=1e-4)


X = np.array([[-7, -3, -2.5, -1, -0.1, 0, 0.1, 1, 2.5, 3, 6, 7]], np.float32)
X64 = X.astype(np.float64)
SIGMOID = 1 / (1 + np.exp(-X64))
ACTIVATIONS: dict[str, np.ndarray] = {
    "linear": X64,
    "relu": np.maximum(X64, 0),
    "leaky_relu": np.where(X64 > 0, X64, 0.2 * X64),
    "elu": np.where(X64 > 0, X64, np.expm1(X64)),
    "silu": X64 * SIGMOID,
    "swish": X64 * SIGMOID,
    "relu6": np.clip(X64, 0, 6),
    "selu": 1.05070098 * np.where(X64 > 0, X64, 1.67326324 * np.expm1(X64)),
    "celu": np.where(X64 > 0, X64, np.expm1(X64)),
    "gelu": X64 * (1 + np.vectorize(math.erf)(X64 / np.sqrt(2))) / 2,
    "hard_silu": X64 * np.clip(X64 / 6 + 0.5, 0, 1),
    "hard_swish": X64 * np.clip(X64 / 6 + 0.5, 0, 1),
    "hard_sigmoid": np.clip(X64 / 6 + 0.5, 0, 1),
    "hard_tanh": np.clip(X64, -1, 1),
    "softsign": X64 / (1 + np.abs(X64)),
    "exponential": np.exp(X64),
    "mish": X64 * np.tanh(np.log1p(np.exp(X64))),
    "sigmoid": SIGMOID,
    "tanh": np.tanh(X64),
    "softplus": np.log1p(np.exp(X64)),
    "softmax": softmax(X64),
    "log_softmax": np.log(softmax(X64)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name(tmp_path: Path, name: str) -> None:
    layers = [plain("Flatten", "flat"), plain("Activation", "act", activation=name)]
    model = models.load(write(tmp_path, layers, X.shape[1:], 3), "numpy")
    np.testing.assert_allclose(model.predict(X), ACTIVATIONS[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "told",
    [
        {"class_name": "function", "config": "relu", "module": "builtins", "registered_name": "function"},
        {"class_name": "ReLU", "config": {"name": "r", "max_value": None}, "module": "keras.layers"},
    ],
)
def test_an_activation_may_be_told_as_an_object(tmp_path: Path, told: Any) -> None:
    layer = dense("dense", 12, 3, told)
    expected = np.maximum(X @ layer[2]["kernel"] + layer[2]["bias"], 0)
    np.testing.assert_allclose(one(tmp_path, layer, X), expected, rtol=1e-4, atol=1e-5)


def test_hard_sigmoid_changed_with_the_version(tmp_path: Path) -> None:
    layer = plain("Activation", "act", activation="hard_sigmoid")
    np.testing.assert_allclose(one(tmp_path, layer, X, 2), np.clip(0.2 * X64 + 0.5, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(one(tmp_path, layer, X, 3), np.clip(X64 / 6 + 0.5, 0, 1), rtol=1e-5)


SLOPES = np.linspace(-0.5, 0.5, 12).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (plain("ReLU", "r", max_value=2.5, negative_slope=0.0, threshold=0.0), np.clip(X64, 0, 2.5)),
        (plain("ReLU", "r", max_value=None, negative_slope=0.1, threshold=0), np.where(X64 > 0, X64, 0.1 * X64)),
        (plain("ELU", "e", alpha=0.5), np.where(X64 > 0, X64, 0.5 * np.expm1(X64))),
        (plain("ThresholdedReLU", "t", theta=2.5), np.where(X64 > 2.5, X64, 0)),
        (("PReLU", {"name": "p", "shared_axes": None}, {"alpha": SLOPES}), np.where(X64 > 0, X64, SLOPES * X64)),
    ],
)
def test_activations_that_are_layers(tmp_path: Path, layer: Layer, expected: np.ndarray) -> None:
    for generation in (2, 3):
        np.testing.assert_allclose(one(tmp_path, layer, X, generation), expected, rtol=1e-5, atol=1e-6)


def test_leaky_slopes_of_both_generations(tmp_path: Path) -> None:
    for settings, slope in (({"alpha": 0.1}, 0.1), ({"negative_slope": 0.2}, 0.2), ({}, 0.3)):
        layer = plain("LeakyReLU", "leaky", **settings)
        np.testing.assert_allclose(one(tmp_path, layer, X), np.where(X > 0, X, slope * X), rtol=1e-6)


def test_what_acts_in_training_alone_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, [plain("GaussianNoise", "noise", stddev=0.1), plain("Flatten", "flat")], (6, 4, 2), 3)
    with pytest.warns(UserWarning, match="'noise' acts in training alone"):
        model = models.load(path, "numpy")
    np.testing.assert_array_equal(model.predict(IMAGES), IMAGES.reshape(3, -1))


# What is refused ----------------------------------------------------------------------------------------------------


def broken(**settings: Any) -> list[Layer]:
    return [conv("conv", 2, 4, **settings)]


UNSUPPORTED: dict[str, tuple[list[Layer], str]] = {
    "code": ([plain("Lambda", "mine", function="x")], r"layer 'mine' \(Lambda\) holds code, which is not executed"),
    "a class of one's own": ([plain("Custom>Mish2", "mine")], r"layer 'mine' \(Custom>Mish2\) is not supported"),
    "recurrence": ([plain("LSTM", "lstm")], r"layer 'lstm' \(LSTM\) is not supported; a layer of your own"),
    "channels first": (broken(data_format="channels_first"), r"layer 'conv' \(Conv2D\) is channels_first"),
    "an activation": (broken(activation="wiggle"), r"layer 'conv' \(Conv2D\) has activation 'wiggle'"),
    "an axis": ([batchnorm("norm", 6, axis=1)], r"layer 'norm' \(BatchNormalization\) works along axis \[1\]"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_run_here_is_named(tmp_path: Path, name: str) -> None:
    layers, message = UNSUPPORTED[name]
    for generation in (2, 3):
        path = write(tmp_path, layers, (6, 4, 2), generation)
        with pytest.raises(UnsupportedOperatorError, match=rf"m\.\w+: {message}"):
            models.load(path, "numpy")


def test_inspection_tells_of_every_layer(tmp_path: Path) -> None:
    found = inspect(write(tmp_path, network(), (6, 4, 2), 3))
    assert found.runs
    assert found.head == ("m.keras: Keras 3.14.0, 7 layers", "input (N, 6, 4, 2)")
    assert found.rows[1] == ("conv", "Conv2D", "Conv2d(4, 3, padding=1), ReLU()", "(N, 6, 4, 4)", "")
    layers = [plain("LSTM", "one"), plain("Flatten", "flat"), plain("Lambda", "two")]
    found = inspect(write(tmp_path, layers, (6, 4), 2))
    assert not found.runs
    assert [row[-1] for row in found.rows] == ["is not supported", "", "holds code, which is not executed"]
    assert "layer 'one' (LSTM) is not supported" in found.reasons[0]


def test_shared_weights_and_many_inputs_are_refused(tmp_path: Path) -> None:
    layers = [dense("twice", 4, 4)]
    reads = {"twice": [*called(3, "image"), *called(3, "twice")]}
    told = functional(layers, reads, [["twice", 1, 0]], (4,), 3)
    with pytest.raises(ModelFormatError, match="layer 'twice' is used more than once"):
        models.load(write_archive(tmp_path / "m.keras", told, layers), "numpy")
    told["config"]["input_layers"] = [["image", 0, 0], ["other", 0, 0]]
    with pytest.raises(ModelFormatError, match=r"it has 2 inputs \(image, other\)"):
        models.load(write_archive(tmp_path / "m.keras", told, layers), "numpy")


def test_sizes_that_are_open_are_refused(tmp_path: Path) -> None:
    layers = [conv("conv", 2, 4)]
    for generation in (2, 3):
        told = json.loads(
            json.dumps(sequential(layers, (6, 4, 2), generation)).replace("[null, 6, 4", "[null, null, 4")
        )
        path = tmp_path / "m"
        write_archive(path, told, layers) if generation == 3 else write_h5(path, told, layers)
        with pytest.raises(ModelFormatError, match=r"its input is \(any, 4, 2\)"):
            models.load(path, "numpy")


def test_arrays_that_do_not_fit_are_named(tmp_path: Path) -> None:
    layers = network()
    layers[-1][2]["bias"] = draw(6)
    for generation in (2, 3):
        with pytest.raises(ModelFormatError, match=r"layer 'dense' \(Dense\).*\(6,\), expected \(5,\)"):
            models.load(write(tmp_path, layers, (6, 4, 2), generation), "numpy")
    del layers[-1][2]["bias"]
    for generation in (2, 3):
        with pytest.raises(ModelFormatError, match=r"has 1 arrays.*expected 2 \(kernel, bias\)"):
            models.load(write(tmp_path, layers, (6, 4, 2), generation), "numpy")


def test_arrays_in_another_order_are_refused(tmp_path: Path) -> None:
    layers = [batchnorm("norm", 2)]
    path = write_h5(tmp_path / "m.h5", sequential(layers, (6, 4, 2), 2), layers)
    with h5py.File(path, "r+") as file:
        held = file["model_weights/norm"]
        held.attrs["weight_names"] = held.attrs["weight_names"][[1, 0, 2, 3]]
    with pytest.raises(ModelFormatError, match="layer 'norm': norm/beta:0 stands where gamma is expected"):
        models.load(path, "numpy")


def test_arrays_of_another_layer_are_refused(tmp_path: Path) -> None:
    layers = [dense("a", 4, 4), dense("b", 4, 4)]
    told = sequential(layers, (4,), 3)
    path = write_archive(tmp_path / "m.keras", told, layers[::-1])
    with pytest.raises(ModelFormatError, match="layers/dense holds the arrays of 'b', expected those of 'a'"):
        models.load(path, "numpy")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"keras_version": "1.2.2"}, "it is of Keras 1, which is not read"),
        ({"backend": "theano"}, "it is of Keras on Theano, which flips kernels"),
        ({"model_config": "{"}, "not a Keras model that can be read"),
        ({"model_config": '{"class_name": "Mine", "config": {}}'}, "it is a Mine, a class of its author's own"),
    ],
)
def test_files_of_keras_2_that_are_refused(tmp_path: Path, attributes: Any, message: str) -> None:
    layers = network()
    path = write_h5(tmp_path / "m.h5", sequential(layers, (6, 4, 2), 2), layers, **attributes)
    with pytest.raises(ModelFormatError, match=message):
        models.load(path, "numpy")


# Hostile files ------------------------------------------------------------------------------------------------------


def linked(group: Any) -> None:
    del group["0"]
    group["0"] = h5py.ExternalLink("elsewhere.h5", "/secret")


def lying(group: Any) -> None:
    del group["0"]
    group.create_dataset("0", (1 << 20, 1 << 20), np.float32, chunks=(1024, 1024))  # four terabytes, none written


def in_pieces(group: Any) -> None:
    array = group["0"][()]
    del group["0"]
    group.create_dataset("0", data=array, chunks=(1, 1, 2, 4), compression="gzip")


def elsewhere(group: Any) -> None:
    del group["0"]
    group.create_dataset("0", (3, 3, 2, 4), np.float32, external=[("raw.bin", 0, 288)])


def words(group: Any) -> None:
    del group["0"]
    group["0"] = np.array([b"no", b"numbers"])


def not_finite(group: Any) -> None:
    group["0"][0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (linked, "is a link to elsewhere, which is not followed"),
        (lying, "its arrays take more than"),
        (in_pieces, "it is stored in pieces, as Keras stores none"),
        (elsewhere, "layers/conv2d/vars/0: it lies in another file, which is not read"),
        (words, "expected floats"),
        (not_finite, "conv.w is not finite"),
    ],
)
def test_hostile_arrays_are_refused(tmp_path: Path, spoil: Callable[[Any], None], message: str) -> None:
    layers = network()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        put(file, layers)
        spoil(file["layers/conv2d/vars"])
    weights = {"model.weights.h5": buffer.getvalue()}
    path = write_archive(tmp_path / "m.keras", sequential(layers, (6, 4, 2), 3), layers, **weights)
    with pytest.raises(ModelFormatError, match=message):
        models.load(path, "numpy")


def test_models_in_models_without_end_and_cycles_are_refused(tmp_path: Path) -> None:
    told = sequential([dense("dense", 4, 4)], (4,), 3)
    for _ in range(50):
        told = {"class_name": "Sequential", "config": {"name": "more", "layers": [told]}}
    with pytest.raises(ModelFormatError, match="models in models, more than 20 deep"):
        models.load(write_archive(tmp_path / "m.keras", told, []), "numpy")
    layers = [plain("Add", "a"), plain("Add", "b")]
    reads = {"a": called(3, "image", "b", many=True), "b": called(3, "image", "a", many=True)}
    with pytest.raises(ModelFormatError, match="read each other in a cycle"):
        models.load(write_archive(tmp_path / "m.keras", functional(layers, reads, ["b", 0, 0], (4,), 3), []), "numpy")


def test_archives_that_are_refused(tmp_path: Path) -> None:
    layers = network()
    told = sequential(layers, (6, 4, 2), 3)
    path = write_archive(tmp_path / "m.keras", told, layers)
    with pytest.raises(ModelFormatError, match=r"expected at most 1000; load\(..., max_bytes="):
        models.load(path, "numpy", max_bytes=1000)
    bomb = {"config.json": b" " * (1 << 24) + json.dumps(told).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (bomb | {"model.weights.h5": b""}).items():
            archive.writestr(name, content)
    with pytest.raises(ModelFormatError, match=r"config.json takes more than 16777216 bytes"):
        models.load(path, "numpy")


def test_any_change_to_a_file_is_taken_or_refused(tmp_path: Path) -> None:
    """The HDF5 library loops without end over some of these."""
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    layers = network()
    with h5py.File(buffer, "w") as file:
        put(file, layers)
    whole = write(tmp_path, layers, (6, 4, 2), 2).read_bytes()
    told = sequential(layers, (6, 4, 2), 3)
    for generation, content in ((2, whole), (3, buffer.getvalue())):
        for _ in range(60):
            changed = bytearray(content)
            for at in rng.integers(0, min(len(content), 6000), rng.integers(1, 4)):
                changed[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
            path = tmp_path / "changed"
            if generation == 2:
                path.write_bytes(changed)
            else:
                write_archive(path, told, layers, **{"model.weights.h5": bytes(changed)})
            with contextlib.suppress(ModelFormatError):
                models.load(path, "numpy")


@pytest.mark.parametrize("generation", [2, 3])
def test_truncated_files_are_refused(tmp_path: Path, generation: int) -> None:
    path = write(tmp_path, network(), (6, 4, 2), generation)
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.98):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ModelFormatError, match=rf"{path.name}: "):
            models.load(path, "numpy")


# Weights alone ------------------------------------------------------------------------------------------------------


def line(seed: int = 0) -> Sequential:
    layers = [Conv2d(4, 3, padding=1), ReLU(), BatchNorm(), MaxPool2d(2), Conv2d(8, 1, groups=4), Flatten(), Linear(5)]
    return Sequential(layers, (6, 4, 2), "numpy", seed)


def test_weights_go_out_and_come_back(tmp_path: Path) -> None:
    model = line()
    save_keras_weights(model, tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as file:
        assert file["layers/conv2d/vars/0"].shape == (3, 3, 2, 4)
        assert file["layers/depthwise_conv2d/vars/0"].shape == (1, 1, 4, 2)
        assert len(file["layers/batch_normalization/vars"]) == 4
        np.testing.assert_array_equal(file["layers/dense/vars/1"][()], model.parameters()["6.b"])
    other = line(1)
    assert models.load(tmp_path / "m.weights.h5", into=other) is other
    np.testing.assert_array_equal(other.predict(IMAGES), model.predict(IMAGES))


@pytest.mark.parametrize("generation", [2, 3])
def test_a_whole_file_gives_its_weights_to_a_model_built_here(tmp_path: Path, generation: int) -> None:
    layers = network()
    layers[-1][1]["activation"] = "linear"
    built = Sequential(
        [Conv2d(4, 3, padding=1), ReLU(), BatchNorm(eps=1e-3), MaxPool2d(2), Flatten(), Linear(5), models.Softmax()],
        (6, 4, 2),
        "numpy",
    )
    models.load(write(tmp_path, layers, (6, 4, 2), generation), into=built)
    np.testing.assert_allclose(built.predict(IMAGES), answer(layers, IMAGES), rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    save_keras_weights(line(), tmp_path / "m.weights.h5")
    small = Sequential([*line().layers[:-1], Linear(4)], (6, 4, 2), "numpy")
    before = small.parameters()["0.w"].copy()
    with pytest.raises(
        ModelFormatError, match=r"m.weights.h5: layers/dense/vars/0 has shape \(48, 5\), expected \(48, 4\)"
    ):
        models.load(tmp_path / "m.weights.h5", into=small)
    np.testing.assert_array_equal(small.parameters()["0.w"], before)
    with pytest.raises(ModelFormatError, match=r"holds weights without a network.*load\(..., into=model\)"):
        models.load(tmp_path / "m.weights.h5")


def test_a_layer_that_keras_has_not_is_named(tmp_path: Path) -> None:
    model = Graph({"mean": (MeanNorm(), "input")}, "mean", (4,), "numpy")
    with pytest.raises(ModelFormatError, match=r"node 'mean' \(MeanNorm\(\)\) has no counterpart in Keras"):
        save_keras_weights(model, tmp_path / "m.weights.h5")
