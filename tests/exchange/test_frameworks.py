"""Networks that go to PyTorch and Keras and come from there, answered alike; where those are installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
import models
from data import strokes as drawn
from models import (
    Adam,
    BatchNorm,
    Conv2d,
    Dropout,
    Dropout2d,
    Flatten,
    Graph,
    Linear,
    MaxPool2d,
    ModelFormatError,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Trainer,
)
from models.exchange import UnsupportedOperatorError, from_torch, save_keras_weights, to_torch
from models.exchange.torch_state import state_of

WILD = Path(__file__).parents[3] / "shared" / "wild"

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def wild(name: str) -> Path:
    if not (WILD / name).is_file():
        pytest.skip(f"no {name} in {WILD}, where published networks lie")
    return WILD / name


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed: its networks are compared where it is")


@pytest.fixture(scope="module")
def keras(torch: Any) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="keras is not installed: its networks are compared where it is")


@pytest.fixture(scope="module")
def onnxruntime() -> Any:
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: it answers what it can read")


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((4, *shape), dtype=np.float32)


@pytest.fixture(scope="module")
def strokes() -> data.Dataset:
    return data.Dataset(*(data.Split(*split) for split in drawn.load(train=1_920, test=300)))


def close(got: np.ndarray, expected: Any, tolerance: float) -> None:
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * float(np.abs(expected).max()))


# Published files ----------------------------------------------------------------------------------------------------


def keras_answer(keras: Any, path: Path, x: np.ndarray) -> Any:
    """Keras' own. Keras 3 takes the batch axis of a file of Keras 2.3 for one of the image, so that is read by hand."""
    import json

    import h5py

    if path.suffix == ".keras":
        return keras.models.load_model(path, compile=False).predict(x, verbose=0)
    with h5py.File(path) as file:
        told = json.loads(file.attrs["model_config"])["config"]["layers"]
        shape = told[0]["config"].pop("batch_input_shape")
        layers = [getattr(keras.layers, each["class_name"]).from_config(each["config"]) for each in told]
        model = keras.Sequential([keras.Input(shape[1:]), *layers])
        held = file["model_weights"]
        for layer in layers:
            layer.set_weights([held[layer.name][name][()] for name in held[layer.name].attrs["weight_names"]])
    return model.predict(x, verbose=0)


@pytest.mark.parametrize("name", ["keras-2.h5", "keras-3.14.keras"])
def test_published_networks_of_keras(keras: Any, name: str) -> None:
    x = images(28, 28, 1)
    expected = keras_answer(keras, wild(name), x)
    for backend in kernels.names():
        close(models.load(wild(name), backend).predict(x), expected, 1e-4)


def test_a_published_state_dict(torch: Any, onnxruntime: Any) -> None:
    """Its twin, exported from the same module, ends in a Sigmoid."""
    x = images(28, 28, 1)
    session = onnxruntime.InferenceSession(wild("state-dict-twin.onnx"))
    expected = session.run(None, {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2)})[0]
    blocks = [layer for filters in (10, 20) for layer in (Conv2d(filters, 5), ReLU(), MaxPool2d(2))]
    for backend in kernels.names():
        model = Sequential([*blocks, Flatten(), Linear(50), Linear(10), Sigmoid()], (28, 28, 1), backend)
        close(models.load(wild("state-dict.pth"), into=model).predict(x), expected, 1e-4)


def test_a_published_torchscript_archive_is_told_apart() -> None:
    with pytest.raises(ModelFormatError, match="a TorchScript archive, which holds a program"):
        models.load(wild("torchscript.pt"))


# PyTorch's modules --------------------------------------------------------------------------------------------------


def convolutional(torch: Any) -> Any:
    """What the usual tutorials write, with functions, methods, work in place and a view by the batch's size."""
    nn, functional = torch.nn, torch.nn.functional

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=0.2)
            self.conv2 = nn.Conv2d(8, 8, 3, padding="same", groups=2, bias=False)
            self.drop, self.fc = nn.Dropout(0.3), nn.Linear(8 * 3 * 2, 5)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.bn(self.conv1(x)))
            y = self.conv2(x)
            x += y
            x = torch.relu_(x)
            x = functional.max_pool2d(functional.leaky_relu(x + y, 0.1), 2)
            x = x.view(x.size(0), -1)
            x = functional.dropout(torch.tanh(x), 0.2, training=self.training)
            return functional.log_softmax(self.fc(self.drop(x)), dim=1)

    return Net()


def residual(torch: Any) -> Any:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int, filters: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
            self.relu = nn.ReLU(inplace=True)
            self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)
            shortcut = [nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)]
            self.downsample = nn.Sequential(*shortcut) if stride > 1 else None

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            y += x if self.downsample is None else self.downsample(x)
            return self.relu(y)

    return nn.Sequential(Block(2, 2, 1), Block(2, 4, 2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(4, 3))


def perceptron(torch: Any) -> Any:
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(48, 7), nn.BatchNorm1d(7), nn.SiLU(), nn.Linear(7, 3), nn.Softmax(dim=-1)
            )

        def forward(self, x: Any) -> Any:
            return self.body(x.reshape(-1, 48))

    return Net()


def shuffled(torch: Any) -> Any:
    """ShuffleNet's: half of the maps convolved, joined with the rest, mixed; then squeeze and excitation."""
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Hardswish()
            self.stem, self.gate = nn.Conv2d(2, 8, 1), nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            left, right = self.stem(x).chunk(2, dim=1)
            x = torch.cat([left, self.act(self.conv(right))], dim=1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return (x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]).flatten(1)

    return Net()


def tokens(torch: Any) -> Any:
    """What works on rows of channels, as transformers do."""
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc, self.up = nn.LayerNorm(4), nn.Linear(4, 6), nn.ConvTranspose2d(2, 4, 3, 2, 1, 1)

        def forward(self, x: Any) -> Any:
            x = nn.functional.pad(self.up(x), (1, 0, 0, 2))
            return self.fc(self.norm(x.flatten(2).transpose(1, 2))).mean(dim=1)

    return Net()


def normalised_row(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4))


MODULES: list[Callable[[Any], Any]] = [convolutional, residual, perceptron, shuffled, tokens, normalised_row]


def disturbed(torch: Any, build: Callable[[Any], Any]) -> Any:
    """A module whose running statistics are not those of a new one."""
    torch.manual_seed(0)
    module = build(torch)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return module


@pytest.mark.parametrize("build", MODULES)
def test_a_module_answers_here_as_there(torch: Any, build: Callable[[Any], Any]) -> None:
    module = disturbed(torch, build).train()
    x = images(6, 4, 2)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    model = from_torch(module, theirs[:1], "numpy")
    assert all(part.training for part in module.modules())
    close(model.predict(x), module.eval()(theirs).detach().numpy(), 1e-5)
    # Back again, and by a file, with the names of its own.
    torch.nn.init.zeros_(next(module.parameters()))
    module.load_state_dict(to_torch(model, module))
    close(model.predict(x), module(theirs).detach().numpy(), 1e-5)


def test_a_module_stays_what_it_is_for_training(torch: Any) -> None:
    model = from_torch(convolutional(torch).eval(), images(2, 6, 4).astype(np.float64), "numpy")
    layers = {node.name: node.layer for node in model.nodes}
    assert layers["bn"] == BatchNorm(momentum=0.2)
    assert layers["drop"] == Dropout(0.3)
    assert Dropout(0.2) in layers.values()
    assert isinstance(model, Graph)


def test_dropout_of_maps_drops_whole_maps_here_too(torch: Any) -> None:
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(96, 2))
    model = from_torch(module, images(2, 6, 4), "numpy")
    assert [node.layer for node in model.nodes if "Dropout" in str(node.layer)] == [Dropout2d(0.3)]
    x = images(6, 4, 2)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    close(model.predict(x), module.eval()(theirs).detach().numpy(), 1e-5)


def test_weights_that_would_answer_otherwise_do_not_go_out(torch: Any) -> None:
    """A network that flattens channels last, which nothing in its state dict tells of."""
    nn = torch.nn

    class Last(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4 * 4 * 2, 3)

        def forward(self, x: Any) -> Any:
            return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))

    model = Sequential([Conv2d(4, 3), Flatten(), Linear(3), Softmax()], (6, 4, 2), "numpy")
    module = Last().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ModelFormatError, match=r"Last with these weights answers otherwise than the model: its layers"):
        to_torch(model, module)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(32, 3))  # its loss has the softmax
    plain.load_state_dict(to_torch(model, plain))
    with pytest.raises(ModelFormatError, match=r"Linear cannot be run on \(2, 2, 6, 4\) to see whether it answers"):
        to_torch(Sequential([Flatten(), Linear(3)], (6, 4, 2), "numpy"), nn.Linear(48, 3))


@pytest.mark.parametrize("last", [False, True])
def test_a_network_that_came_by_onnx_goes_back_right_or_not_at_all(torch: Any, tmp_path: Path, last: bool) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")
    nn = torch.nn
    turned = [nn.Unflatten(1, (1, 4)), nn.Flatten(1, 2)] if not last else []

    class Turn(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1)

    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), *([Turn()] if last else turned), nn.Flatten(), nn.Linear(32, 3)
    )
    settings = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}, "verbose": False}
    torch.onnx.export(module.eval(), (torch.zeros(2, 2, 6, 4),), tmp_path / "net.onnx", **settings)
    model = models.load(tmp_path / "net.onnx", "numpy")
    x = images(6, 4, 2)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    close(model.predict(x), module(theirs).detach().numpy(), 1e-5)
    if last:
        with pytest.raises(ModelFormatError, match="answers otherwise than the model"):
            to_torch(model, module)
    else:
        module.load_state_dict(to_torch(model, module))
        close(model.predict(x), module(theirs).detach().numpy(), 1e-5)


def test_a_state_dict_of_a_module_is_matched_by_name(torch: Any, tmp_path: Path) -> None:
    """A shortcut's arrays stand last in their block, and are computed first."""
    module, other = disturbed(torch, residual), residual(torch)
    model = from_torch(other, images(2, 6, 4), "numpy")
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    models.load(tmp_path / "checkpoint.pth", into=model)
    held = module.state_dict()
    for name, array in state_of(model, held).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, held[name].numpy())


def test_what_pickle_would_run_is_refused(torch: Any, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 2), tmp_path / "whole.pth")
    model = Sequential([Linear(2)], (3,), "numpy")
    with pytest.raises(ModelFormatError, match=r"whole.pth: it holds more than arrays, whose code is not run"):
        models.load(tmp_path / "whole.pth", into=model)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelFormatError, match=r"list.pth: it holds a list, expected a dict of tensors"):
        models.load(tmp_path / "list.pth", into=model)


def test_what_of_a_module_cannot_run_here_is_named(torch: Any) -> None:
    nn = torch.nn
    x = images(3)
    with pytest.raises(UnsupportedOperatorError, match=r"Sequential: node '1', operator \w+.*, is not supported"):
        from_torch(nn.Sequential(nn.Linear(3, 2), nn.Hardshrink()), x)
    layer = nn.Linear(3, 3)
    with pytest.raises(UnsupportedOperatorError, match=r"node '1', .*, shares '\d.weight' with another operator"):
        from_torch(nn.Sequential(layer, layer), x)

    with pytest.raises(TypeError, match=r"module is a function, expected a torch\.nn\.Module"):
        from_torch(lambda x: x, x)

    class Fickle(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelFormatError, match=r"Fickle: torch.export cannot record it"):
        from_torch(Fickle(), x)


# Networks of ours ---------------------------------------------------------------------------------------------------


def test_a_network_trained_here_has_the_same_logits_there(
    torch: Any, keras: Any, strokes: data.Dataset, tmp_path: Path
) -> None:
    train, test = strokes
    blocks = [layer for filters in (4, 8) for layer in (Conv2d(filters, 3), BatchNorm(), ReLU(), MaxPool2d(2))]
    model = Sequential([*blocks, Flatten(), Dropout(0.1), Linear(10)], (28, 28, 1), "numpy")
    model.normalisation = data.statistics(train)
    Trainer(model, Adam(1e-2)).fit(train.images[:640], train.labels[:640], epochs=1)
    x = model.prepare(test.images[:32])
    logits = model.predict(x)

    nn = torch.nn
    theirs = [
        part
        for c, f in ((1, 4), (4, 8))
        for part in (nn.Conv2d(c, f, 3), nn.BatchNorm2d(f), nn.ReLU(), nn.MaxPool2d(2))
    ]
    module = nn.Sequential(*theirs, nn.Flatten(), nn.Dropout(0.1), nn.Linear(200, 10)).eval()
    module.load_state_dict(to_torch(model, module))
    close(module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).detach().numpy(), logits, 1e-5)

    save_keras_weights(model, tmp_path / "m.weights.h5")
    parts = keras.layers
    stack = [
        p
        for f in (4, 8)
        for p in (parts.Conv2D(f, 3), parts.BatchNormalization(epsilon=1e-5), parts.ReLU(), parts.MaxPooling2D())
    ]
    network = keras.Sequential([keras.Input((28, 28, 1)), *stack, parts.Flatten(), parts.Dropout(0.1), parts.Dense(10)])
    network.load_weights(tmp_path / "m.weights.h5")
    close(network.predict(x, verbose=0), logits, 1e-5)
    network.save(tmp_path / "back.keras")
    close(models.load(tmp_path / "back.keras", "numpy").predict(x), logits, 1e-5)


def test_a_network_of_pytorchs_gets_better_here(torch: Any, strokes: data.Dataset) -> None:
    train, test = strokes
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(288, 10)
    )
    model = from_torch(module, torch.zeros(1, 1, 28, 28), "numpy")
    model.normalisation = data.statistics(train)
    before = model.evaluate(test.images, test.labels).accuracy
    Trainer(model, Adam(1e-2), batch_size=64).fit(train.images, train.labels, epochs=1)
    after = model.evaluate(test.images, test.labels).accuracy
    assert before < 0.3 < 0.7 < after
    # And goes back with what it has learned.
    x = model.prepare(test.images[:32])
    module.load_state_dict(to_torch(model, module))
    close(module.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).detach().numpy(), model.predict(x), 1e-5)


def test_networks_of_keras_answer_here_as_there(keras: Any, tmp_path: Path) -> None:
    """Layers as Keras itself writes them, in both formats, by both ways to write a model."""
    parts = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 7, 2), name="image")
    x = parts.Conv2D(4, 3, strides=2, padding="valid", activation="elu")(image)
    block = keras.Sequential([parts.SeparableConv2D(4, 3, padding="same"), parts.BatchNormalization(momentum=0.9)])
    y = parts.Add()([block(x), x])
    y = parts.Concatenate()([y, parts.DepthwiseConv2D(3, padding="same", activation="silu")(x)])
    y = parts.GlobalAveragePooling2D()(parts.Activation("gelu")(y))
    model = keras.Model(image, [parts.Dense(3, activation="softmax")(parts.Dropout(0.2)(y)), y])
    for weight in model.weights:
        weight.assign(weight + keras.random.uniform(weight.shape, 0.1, 0.5))
    data = images(9, 7, 2)
    expected = model.predict(data, verbose=0)[0]
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        close(models.load(tmp_path / name, "numpy").predict(data), expected, 1e-5)


def squeezed(parts: Any, x: Any) -> Any:
    """Squeeze and excitation: maps weighted by what a small network makes of their means."""
    gate = parts.Dense(4, activation="sigmoid")(parts.GlobalAveragePooling2D()(x))
    return parts.Multiply()([x, parts.Reshape((1, 1, 4))(gate)])


def twice(parts: Any, x: Any) -> Any:
    """A layer without weights may be used more than once."""
    relu = parts.ReLU()
    return parts.Subtract()([relu(x), relu(parts.Dense(4)(x))])


LAYERS: dict[str, Callable[[Any, Any], Any]] = {
    "same": lambda parts, x: parts.Conv2D(5, (3, 2), strides=2, padding="same")(x),
    "dilated": lambda parts, x: parts.Conv2D(6, 3, groups=2, dilation_rate=2, padding="same")(x),
    "separable": lambda parts, x: parts.SeparableConv2D(6, 2, padding="same", depth_multiplier=2)(x),
    "transposed": lambda parts, x: parts.Conv2DTranspose(5, (3, 2), strides=2, padding="valid")(x),
    "transposed, no gaps": lambda parts, x: parts.Conv2DTranspose(5, 2, strides=3, padding="valid")(x),
    "pool": lambda parts, x: parts.MaxPooling2D((3, 2), strides=2, padding="same")(x),
    "pad": lambda parts, x: parts.ZeroPadding2D(((1, 2), (0, 3)))(x),
    "crop": lambda parts, x: parts.Cropping2D(((1, 2), (0, 3)))(x),
    "dropout of maps": lambda parts, x: parts.SpatialDropout2D(0.3)(x),
    "upsample": lambda parts, x: parts.UpSampling2D((2, 3))(x),
    "layer norm": lambda parts, x: parts.LayerNormalization()(x),
    "layer norm of maps": lambda parts, x: parts.LayerNormalization(axis=[1, 2, 3])(x),
    "group norm": lambda parts, x: parts.GroupNormalization(2)(x),
    "rescaling": lambda parts, x: parts.Rescaling(1 / 255, offset=-0.5)(x),
    "normalization": lambda parts, x: parts.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4])(x),
    "reshape": lambda parts, x: parts.Reshape((7, -1))(parts.Flatten()(x)),
    "permute": lambda parts, x: parts.Permute((3, 1, 2))(x),
    "dense over rows": lambda parts, x: parts.Dense(5)(parts.Reshape((63, 4))(x)),
    "rows": lambda parts, x: parts.MaxPooling1D(2)(parts.Conv1D(5, 3, strides=2)(parts.Reshape((63, 4))(x))),
    "squeeze and excitation": squeezed,
    "prelu": lambda parts, x: parts.PReLU(shared_axes=[1, 2])(x),
    "softmax of rows": lambda parts, x: parts.Softmax(axis=1)(x),
    "arithmetic": lambda parts, x: (x * 2.0 + 1.0) / 4.0 - parts.ReLU()(1.0 - x),
    "joined rows": lambda parts, x: parts.Concatenate(axis=1)([x, parts.Average()([x, parts.ReLU()(x)])]),
    "one layer twice": lambda parts, x: (lambda relu: parts.Subtract()([relu(x), relu(parts.Dense(4)(x))]))(
        parts.ReLU()
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_keras_answer_here_as_there(keras: Any, tmp_path: Path, name: str) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 7, 4))
    model = keras.Model(image, LAYERS[name](keras.layers, image))
    for weight in model.weights:
        weight.assign(weight + keras.random.uniform(weight.shape, 0.1, 0.4))
    x = images(9, 7, 4)
    expected = model.predict(x, verbose=0)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"m.{suffix}")
        close(models.load(tmp_path / f"m.{suffix}", "numpy").predict(x), expected, 1e-5)


def test_importing_exchange_loads_no_framework() -> None:
    assert importlib.import_module("models.exchange").from_torch is from_torch
