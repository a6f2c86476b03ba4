"""Networks that others published, as their exporters wrote them, against ONNX Runtime's answers.

They lie in ../shared/wild beside the repository, where it has one: data that is not the project's to give away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
import models
from models.exchange import UnsupportedOperatorError

WILD = Path(__file__).parents[3] / "shared" / "wild"
NAMES = (
    "cntk-2.5",
    "keras2onnx-1.6-transposes",
    "keras2onnx-1.7-mlp",
    "mnist",
    "pytorch-1.3-batchnorm1d",
    "pytorch-1.5-pad-avgpool",
    "pytorch-2.0-dynamic-batch",
    "pytorch-2.0-elu-twelve-convolutions",
    "pytorch-2.7-fixed-batch",
    "state-dict-twin",
    "tf2onnx-1.13-unsqueeze-cast",
)
RANGES = {"0..1": 255.0, "0..255": 1.0}

if not WILD.is_dir():
    pytest.skip(f"no published networks at {WILD}", allow_module_level=True)
pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")


def runtime(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("backend", kernels.names())
@pytest.mark.parametrize("name", NAMES)
def test_a_published_network_answers_as_in_its_own_runtime(name: str, backend: str) -> None:
    network = models.load(WILD / f"{name}.onnx", backend)
    assert network.input_shape == (28, 28, 1)
    session = runtime(WILD / f"{name}.onnx")
    (given,) = session.get_inputs()
    count = given.shape[0] if isinstance(given.shape[0], int) else 3
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1))
    for divisor in RANGES.values():
        x = (pixels / divisor).astype(np.float32)
        there = x.reshape(count, *given.shape[1:]).astype(np.float64 if "double" in given.type else np.float32)
        (want, *_) = session.run(None, {given.name: there})
        got = network.predict(x)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_a_training_graph_is_refused_in_one_line() -> None:
    path = WILD / "tf2onnx-1.6-training-graph.onnx"
    with pytest.raises(UnsupportedOperatorError, match=r"depends on 2 inputs .* expected one: the images") as refused:
        models.load(path)
    assert "\n" not in str(refused.value)
