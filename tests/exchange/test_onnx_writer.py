"""Models as ONNX files, run by the package's own reference evaluator, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalMaxPool2d,
    Graph,
    Layer,
    Linear,
    LogSoftmax,
    MaxPool2d,
    MeanNorm,
    ModelFormatError,
    ReLU,
    Sequential,
    SiLU,
    Softmax,
    Tanh,
)
from models.exchange.onnx_writer import WRITERS
from tests.models.test_layers import JOINS, LAYERS

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(0)


def filled(model: Graph) -> Graph:
    """The model with numbers in all its arrays that no start would give."""
    state = model.parameters() | model.statistics()
    model.set_parameters({name: RNG.uniform(0.1, 0.5, array.shape) for name, array in state.items()})
    return model


def elsewhere(content: Any, x: np.ndarray) -> np.ndarray | None:
    """What another program answers; None where none that is installed can be asked.

    The reference evaluator's LRN counts channels by samples, and its ConvTranspose takes no groups.
    """
    if not {"LRN", "ConvTranspose"} & {each.op_type for each in content.graph.node}:
        with np.errstate(over="ignore"):  # of its sigmoid
            return np.asarray(ReferenceEvaluator(content).run(None, {"input": x})[0])
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


def check(model: Graph, path: Path, layout: str = "NCHW", x: np.ndarray | None = None) -> Graph:
    """The file answers as the model, elsewhere and here; what it is read back as."""
    x = RNG.uniform(0.5, 1.5, (3, *model.input_shape)) if x is None else x
    x = x.astype(model.dtype)
    model.save(path, layout=layout)
    content = onnx.load(path)
    onnx.checker.check_model(content, full_check=True)
    there = x.transpose(0, 3, 1, 2) if x.ndim == 4 and layout == "NCHW" else x
    want = model.predict(x)
    got = elsewhere(content, there)
    if got is None:
        got = want.transpose(0, 3, 1, 2) if want.ndim == 4 and layout == "NCHW" else want
    assert got.dtype == want.dtype
    if want.ndim == 4 and layout == "NCHW":
        got = got.transpose(0, 2, 3, 1)
    scale = np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)
    back = models.load(path, "numpy")
    np.testing.assert_allclose(back.predict(x), want, rtol=1e-5, atol=1e-5 * scale)
    return back


@pytest.mark.parametrize(("layer", "shape"), [row[:2] for row in LAYERS], ids=[str(row[0]) for row in LAYERS])
def test_every_layer_goes_out_and_comes_back(tmp_path: Path, layer: Layer, shape: tuple[int, ...]) -> None:
    version = tuple(map(int, onnx.__version__.split(".")[:2]))
    if version < (1, 23) and getattr(layer, "padding", None) == "same_lower":
        pytest.skip("onnx's own reference loses a row of what is padded below, before 1.23")
    check(filled(Sequential([layer], shape, "numpy")), tmp_path / "net.onnx")


@pytest.mark.parametrize("layer", [row[0] for row in JOINS], ids=[str(row[0]) for row in JOINS])
def test_every_join_goes_out_and_comes_back(tmp_path: Path, layer: Layer) -> None:
    nodes = {"a": (Conv2d(2, 1), "input"), "b": (Tanh(), "a"), "join": (layer, "a", "b")}
    check(filled(Graph(nodes, "join", (4, 3, 2), "numpy")), tmp_path / "net.onnx")


def test_there_is_a_writer_for_every_layer() -> None:
    exported = [getattr(models, name) for name in models.__all__]
    layers = {each for each in exported if isinstance(each, type) and issubclass(each, Layer)} - {Layer}
    assert set(WRITERS) >= layers - {models.layers.Activation}


CONVOLUTIONS = [
    Conv2d(8, 3, padding=1), BatchNorm(), ReLU(), MaxPool2d(2), Conv2d(4, 3, stride=2, bias=False, groups=2), SiLU(),
    AvgPool2d(2, padding=1), Flatten(), Dropout(0.3), Linear(7), ReLU(), Linear(3),
]  # fmt: skip
BRANCHES = {
    "a": (Conv2d(2, 1), "input"), "b": (Tanh(), "a"), "sum": (Add(), "a", "b"), "pair": (Concat(), "sum", "b"),
    "top": (GlobalMaxPool2d(), "pair"), "row": (Flatten(), "pair"), "linear": (Linear(4), "row"),
    "both": (Add(), "top", "linear"), "head": (Linear(3), "both"),
}  # fmt: skip
FLATTENED = [Conv2d(4, 1), Flatten(), Flatten(), MeanNorm(), Linear(5), Softmax()]
NETWORKS = {
    "cnn": lambda: Sequential(CONVOLUTIONS, (13, 11, 2), "numpy", normalisation=(33.0, 78.5)),
    "flattened twice": lambda: Sequential(FLATTENED, (4, 5, 3), "numpy"),
    "maps": lambda: Sequential([Conv2d(4, 3), MeanNorm(), LogSoftmax()], (6, 5, 3), "numpy", dtype=np.float64),
    "graph": lambda: Graph(BRANCHES, "head", (4, 6, 3), "numpy"),
    "rows": lambda: Sequential([Linear(5), BatchNorm(), Linear(2)], (9,), "numpy"),
}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:x holds floats")
def test_a_network_goes_out_and_comes_back(tmp_path: Path, name: str, layout: str) -> None:
    model = filled(NETWORKS[name]())
    back = check(model, tmp_path / "net.onnx", layout)
    assert back.normalisation == model.normalisation
    assert back.dtype == model.dtype
    assert back.input_shape == model.input_shape


def test_a_network_comes_back_with_its_layers_and_their_arrays(tmp_path: Path) -> None:
    model = filled(NETWORKS["cnn"]())
    model.normalisation = None
    back = check(model, tmp_path / "net.onnx")
    assert {str(each.layer) for each in back.nodes} == {str(each.layer) for each in model.nodes}
    for name, array in (model.parameters() | model.statistics()).items():
        assert np.array_equal((back.parameters() | back.statistics())[name], array), name


def test_what_onnx_has_no_operator_for_is_refused(tmp_path: Path) -> None:
    class Own(ReLU):
        """A layer of the user's."""

    model = Sequential([Own()], (3,), "numpy")
    with pytest.raises(ModelFormatError, match="node '0': layer Own has no operator in ONNX"):
        model.save(tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
    with pytest.raises(ValueError, match="layout is 'CHWN', expected one of NCHW, NHWC"):
        Sequential([ReLU()], (3,), "numpy").save(tmp_path / "net.onnx", layout="CHWN")
    with pytest.raises(ValueError, match=r"layout is 'NCHW', expected none for net\.safetensors"):
        Sequential([ReLU()], (3,), "numpy").save(tmp_path / "net.safetensors", layout="NCHW")
