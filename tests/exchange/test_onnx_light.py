"""The nine networks that come with the package onnx: all become layers; the small ones answer as in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models.exchange.onnx_file import read_file
from models.exchange.onnx_reader import Walk

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")
from onnx import numpy_helper  # noqa: E402

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LAYERS = {
    "bvlc_alexnet": "Conv2d Dropout Flatten Linear LocalResponseNorm MaxPool2d ReLU Softmax",
    "densenet121": "AvgPool2d BatchNorm Concat Conv2d GlobalAvgPool2d MaxPool2d ReLU Reshape",
    "inception_v1": "AvgPool2d Concat Conv2d Dropout Flatten Linear LocalResponseNorm MaxPool2d ReLU Softmax",
    "inception_v2": "AvgPool2d BatchNorm Concat Conv2d Flatten Linear MaxPool2d ReLU Softmax",
    "resnet50": "Add AvgPool2d BatchNorm Conv2d Flatten Linear MaxPool2d ReLU Softmax",
    "shufflenet": "Add AvgPool2d BatchNorm Concat Conv2d Flatten Linear MaxPool2d ReLU Reshape Softmax Transpose",
    "squeezenet": "Concat Conv2d Dropout GlobalAvgPool2d MaxPool2d ReLU Reshape Softmax",
    "vgg19": "Conv2d Dropout Flatten Linear MaxPool2d ReLU Softmax",
    "zfnet512": "Conv2d Flatten Linear LocalResponseNorm MaxPool2d ReLU Softmax",
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_network_becomes_layers(name: str) -> None:
    walk = Walk(read_file(FOLDER / f"light_{name}.onnx"))
    walk._output()
    assert walk.input_shape == (224, 224, 3)
    assert " ".join(sorted({type(made.layer).__name__ for made in walk.net.made.values()})) == LAYERS[name]


def with_weights(path: Path) -> Any:
    """The network with random weights in place of its constant ones, and without its softmax, which hides errors."""
    model = onnx.load(path)
    graph = model.graph
    rng = np.random.default_rng(0)
    shapes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        if len(shape) > 1:
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            array = rng.uniform(0.5, 1, shape)  # of batch-norms, variances among them, and biases
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    if kept[-1].op_type == "Softmax":
        graph.output[0].name = kept.pop().input[0]
    del graph.node[:]
    graph.node.extend(kept)
    return model


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_small_one_answers_as_in_its_runtime(tmp_path: Path, name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    content = with_weights(FOLDER / f"light_{name}.onnx").SerializeToString()
    (path := tmp_path / "net.onnx").write_bytes(content)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    want = session.run(None, {session.get_inputs()[0].name: x})[0].reshape(1, -1)
    got = models.load(path, "numpy").predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).reshape(1, -1)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
