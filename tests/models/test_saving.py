"""Saving and loading: nothing lost, nothing executed, nothing half written, and every bad file refused by name."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kernels
import models
from kernels import Kernels
from models import (
    SGD,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Graph,
    HeUniform,
    Layer,
    Linear,
    MaxPool2d,
    ModelFormatError,
    PlanBuilder,
    ReLU,
    Sequential,
    Trainer,
    XavierNormal,
)
from models.saving import DTYPES, MAX_METADATA, write


def rich(backend: str = "numpy", dtype: Any = np.float32) -> Graph:
    """A graph whose nodes are not in order, with tuples, initialisers, dropout, statistics and normalisation."""
    nodes = {
        "head": (Linear(3, init=XavierNormal(gain=0.5)), "flat"),
        "flat": (Flatten(), "drop"),
        "drop": (Dropout(0.3), "sum"),
        "sum": (Add(), "a", "b"),
        "b": (Dropout(0.2), "pool"),
        "a": (ReLU(), "pool"),
        "pool": (MaxPool2d((2, 1), stride=(2, 1)), "norm"),
        "norm": (BatchNorm(momentum=0.3), "conv"),
        "conv": (Conv2d(np.int64(4), (3, 2), padding=(1, 0), init=HeUniform()), "input"),
    }
    return Graph(nodes, "head", (6, 5, 1), backend, seed=7, dtype=dtype, normalisation=(33.25, np.float32(78.5)))


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 6, 5, 1), dtype=np.uint8), rng.integers(0, 3, 6)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = rich()
    Trainer(model, SGD(0.1), batch_size=6).step(*batch())
    model.save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_model_is_the_saved_one(k: Kernels, tmp_path: Path, dtype: Any) -> None:
    model = rich(k.name, dtype)
    Trainer(model, SGD(0.1), batch_size=6).step(*batch())
    model.save(tmp_path / "m.safetensors")
    for backend in kernels.names():
        loaded = models.load(tmp_path / "m.safetensors", backend=backend)
        assert (loaded.backend, loaded.dtype, loaded.seed) == (backend, dtype, 7)
        assert loaded.normalisation == (33.25, 78.5)
        assert loaded.nodes == model.nodes
        assert (loaded.output, loaded.input_shape) == ("head", (6, 5, 1))
        for name, view in (model.parameters() | model.statistics()).items():
            np.testing.assert_array_equal((loaded.parameters() | loaded.statistics())[name], view)
    again = models.load(tmp_path / "m.safetensors", backend=k.name)
    np.testing.assert_array_equal(again.predict(batch()[0]), model.predict(batch()[0]))
    # training goes on alike, dropout masks included
    losses = [[Trainer(m, SGD(0.1), batch_size=6).step(*batch()) for _ in range(2)] for m in (model, again)]
    assert losses[0] == losses[1]


def test_sequential_stays_sequential(tmp_path: Path) -> None:
    model = Sequential([Flatten(), Linear(3, bias=False), ReLU()], (2, 2, 1))
    model.save(str(tmp_path / "m.safetensors"))
    loaded = models.load(str(tmp_path / "m.safetensors"))
    assert isinstance(loaded, Sequential)
    assert loaded.layers == model.layers
    assert loaded.normalisation is None
    assert loaded.backend == models.DEFAULT_BACKEND


@dataclass(frozen=True)
class Scale(Layer):
    """A layer of a user's own, with a field that is a layer's configuration too."""

    times: tuple[float, ...]
    init: models.Initialiser = models.Constant(2.0)

    def parameters(self, *x: Any) -> Any:
        return {"factor": models.Parameter((len(self.times),), self.init)}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Any) -> Any:
        y = plan.like(x[0])
        plan.call("multiply", x[0], p.factor, y)
        return y, None


def test_a_users_own_layer_is_loaded_by_its_class(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    Sequential([Scale((1.0, 2.0))], (2,)).save(path)
    loaded = models.load(path, layers=[Scale])
    assert loaded.nodes[0].layer == Scale((1.0, 2.0))
    with pytest.raises(ModelFormatError, match=r"m\.safetensors.*unknown layer 'Scale'; pass its class in load"):
        models.load(path)


def test_a_file_is_plain_safetensors(saved: Path) -> None:
    assert sorted(load_file(saved)) == sorted(
        ["conv.w", "conv.b", "norm.gamma", "norm.beta", "norm.running_mean", "norm.running_var", "head.w", "head.b"]
    )
    whole = saved.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert json.loads(header["__metadata__"]["twinkernels"])["format"] == "twinkernels-model-1"


# Writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(saved: Path, monkeypatch: Any, broken: str) -> None:
    before = saved.read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError("disk full")

    model = rich()
    model.set_parameters({"head.b": np.ones(3)})
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="disk full"):
            model.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    model.save(saved)
    assert (models.load(saved).parameters()["head.b"] == 1).all()


def test_the_file_is_on_the_disk_before_it_takes_its_name(saved: Path, monkeypatch: Any) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    rich().save(saved)
    assert done[:2] == ["fsync", "replace"]


def test_arrays_are_written_as_they_read(tmp_path: Path) -> None:
    """safetensors takes memory as it lies: strides and byte order would be lost."""
    square = np.arange(6.0).reshape(2, 3)
    arrays = {
        "transposed": square.T,
        "strided": np.arange(10)[::3],
        "big-endian": square.astype(">f4"),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.uint8),
        **{dtype.name: np.ones(2, dtype) for dtype in DTYPES.values()},
    }
    write(tmp_path / "a", arrays, {"x": "y"})
    read = load_file(tmp_path / "a")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].shape == array.shape, name
        assert read[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(read[name], array, err_msg=name)


@pytest.mark.parametrize("array", [np.ones(2, complex), np.array(["a"]), np.array([None]), np.zeros(2, "M8[s]")])
def test_an_array_that_no_file_can_hold_is_named(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=rf"odd has dtype {re.escape(str(array.dtype))}, which a file cannot hold"):
        write(tmp_path / "a", {"even": np.ones(2), "odd": array}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_first_version_loads() -> None:
    model = models.load(Path(__file__).parent / "files" / "model.safetensors", backend="numpy")
    assert [node.name for node in model.nodes] == ["conv", "norm", "a", "sum", "flat", "head"]
    assert (model.seed, model.normalisation) == (7, (33.25, 78.5))
    assert model.nodes[-1].layer == Linear(3, init=XavierNormal(gain=0.5))
    with pytest.warns(UserWarning, match="holds floats from 0 to 17"):
        logits = model.predict(np.arange(18, dtype=np.float32).reshape(2, 3, 3, 1))
    expected = [[-0.9208091, -6.2496324, -10.474749], [-4.6876864, -3.9829512, -24.903492]]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


# Reading --------------------------------------------------------------------------------------------------------


def rewritten(saved: Path, tensors: Any = None, **changes: Any) -> None:
    """Write the file anew with other tensors or another architecture; a change to ... leaves the key out."""
    _, architecture = content(saved)
    architecture = {key: value for key, value in (architecture | changes).items() if value is not ...}
    held = load_file(saved)
    save_file(tensors(held) if tensors else held, saved, metadata={"twinkernels": json.dumps(architecture)})


def content(saved: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(saved, framework="numpy") as file:
        return load_file(saved), json.loads(file.metadata()["twinkernels"])


def test_a_missing_file_or_a_folder_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            models.load(path)


def test_an_unknown_backend_is_no_fault_of_the_file(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"^unknown backend 'cuda'; expected one of numpy, numba") as error:
        models.load(saved, backend="cuda")
    assert not isinstance(error.value, ModelFormatError)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * kept) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ModelFormatError, match=r"m\.safetensors"):
        models.load(saved)


def test_random_bytes_are_refused(saved: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (10, 1000):
        saved.write_bytes(rng.bytes(size))
        with pytest.raises(ModelFormatError, match=r"m\.safetensors"):
            models.load(saved)


def test_damage_anywhere_in_the_header_is_refused_or_harmless(saved: Path) -> None:
    """A byte changed at a time: ModelFormatError, or a model all the same, but never another error."""
    whole = saved.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    refusals = []
    for position in rng.choice(np.arange(8, end), 300, replace=False):
        damaged = bytearray(whole)
        damaged[position] = rng.choice(list(b'0123456789"{}[]:,ax \\'))
        saved.write_bytes(bytes(damaged))
        try:
            models.load(saved)
        except ModelFormatError as error:
            refusals.append(str(error))
    assert len(refusals) > 150
    assert all(str(saved) in refusal for refusal in refusals)


def without(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("conv.w"), "tensors do not match the architecture: conv.w"),
        (without("norm.running_mean"), "tensors do not match the architecture: norm.running_mean"),
        (lambda t: t | {"extra": np.zeros(3, np.float32)}, "tensors do not match the architecture: extra"),
        (lambda t: t | {"head.b": np.zeros(4, np.float32)}, r"head.b has shape \(4,\), expected \(3,\)"),
        (lambda t: t | {"head.w": t["head.w"].T.copy()}, r"head.w has shape \(3, .*\), expected \(.*, 3\)"),
        (lambda t: t | {"head.b": np.full(3, np.nan, np.float32)}, "head.b is not finite"),
        (lambda t: t | {"norm.running_var": np.full(4, np.inf, np.float32)}, "norm.running_var is not finite"),
        (
            lambda t: t | {"norm.running_var": np.float32([1, 2, -0.5, 1])},
            "norm.running_var has an element of -0.5, expected at least 0",
        ),
        (lambda t: t | {"head.b": np.zeros(3, np.float64)}, "head.b has dtype F64, expected F32"),
        (lambda t: t | {"head.b": np.zeros(3, np.int32)}, "head.b has dtype I32, expected F32"),
    ],
)
def test_tensors_that_do_not_match_are_refused(saved: Path, tensors: Any, message: str) -> None:
    rewritten(saved, tensors)
    with pytest.raises(ModelFormatError, match=rf"m\.safetensors: .*{message}"):
        models.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "twinkernels-model-99"}, "format is not twinkernels-model-1"),
        ({"format": ...}, "format is not"),
        ({"nodes": ...}, "nodes"),
        ({"nodes": 5}, "not a readable model"),
        ({"nodes": []}, "output 'head' is not a node"),
        ({"nodes": [["head", {"type": "Nothing"}, ["input"]]]}, "unknown layer 'Nothing'"),
        ({"nodes": [["head", {"type": ["Linear"]}, ["input"]]]}, "not a readable model"),
        ({"nodes": [["head", {"type": "Linear", "outputs": 3, "colour": 1}, ["input"]]]}, "unknown fields"),
        ({"nodes": [["head", {"type": "Linear"}, ["input"]]]}, "not a readable model"),
        ({"nodes": [["head", {"type": "Linear", "outputs": 3, "init": 5}, ["input"]]]}, "not a readable model"),
        ({"nodes": [["head", {"type": "Linear", "outputs": "3"}, ["input"]]]}, "outputs is '3'"),
        ({"nodes": [["head", {"type": "Zeros"}, ["input"]]]}, "expected \\(layer"),
        ({"nodes": [["head", "Linear", ["input"]]]}, "expected \\(layer"),
        ({"output": "tail"}, "output 'tail' is not a node"),
        ({"input_shape": [6, 5]}, "node 'conv'"),
        ({"input_shape": 5}, "not a readable model"),
        ({"input_shape": [10**30, 10**30, 1]}, "m.safetensors"),
        ({"dtype": "float16"}, "dtype is float16"),
        ({"dtype": "object"}, "dtype is object"),
        ({"seed": -1}, "seed is -1"),
        ({"normalisation": [1.0]}, "not a readable model"),
        ({"normalisation": [1.0, 0.0]}, "std is 0.0"),
        ({"normalisation": ["a", "b"]}, "not a readable model"),
        ({"padding": "x" * MAX_METADATA}, "no architecture of this package"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else None,
)
def test_an_architecture_that_is_none_is_refused(saved: Path, changes: Any, message: str) -> None:
    rewritten(saved, **changes)
    with pytest.raises(ModelFormatError, match=message) as error:
        models.load(saved)
    assert str(saved) in str(error.value)


def test_metadata_without_an_architecture_is_refused(saved: Path) -> None:
    tensors = load_file(saved)
    deep = "[" * 100_000
    for metadata in (None, {"format": "pt"}, {"twinkernels": "{"}, {"twinkernels": "[1]"}, {"twinkernels": deep}):
        save_file(tensors, saved, metadata=metadata)
        with pytest.raises(ModelFormatError, match=r"m\.safetensors"):
            models.load(saved)
