"""PyTorch's state dicts against its formulas, channels first; files that need no torch. `test_frameworks` has torch."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import models
from models import (
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Graph,
    Linear,
    MeanNorm,
    ModelFormatError,
    ReLU,
    Reshape,
    Sequential,
    Softmax,
    Transpose,
)
from models.exchange.torch_state import matched, state_of

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def network(seed: int = 0) -> Sequential:
    layers = [Conv2d(4, 3, groups=2), ReLU(), AvgPool2d(2), Flatten(), BatchNorm(), Dropout(), Linear(5), Softmax()]
    return Sequential(layers, (6, 8, 2), "numpy", seed)


def state() -> dict[str, np.ndarray]:
    """Of the same network in PyTorch: Conv2d, AvgPool2d, Flatten, BatchNorm1d, Linear."""
    return {
        "features.0.weight": draw(4, 1, 3, 3),
        "features.0.bias": draw(4),
        "norm.weight": draw(24),
        "norm.bias": draw(24),
        "norm.running_mean": draw(24),
        "norm.running_var": np.abs(draw(24)) + 0.5,
        "norm.num_batches_tracked": np.array(7),
        "head.weight": draw(5, 24),
        "head.bias": draw(5),
    }


def answer(held: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """What PyTorch computes of images (N, C, H, W), by the formulas."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)).reshape(len(x), 2, 1, 4, 6, 3, 3)
    w = held["features.0.weight"].reshape(2, 2, 1, 3, 3)
    y = np.einsum("ngchwij,gfcij->ngfhw", windows, w).reshape(len(x), 4, 4, 6)
    y = np.maximum(y + held["features.0.bias"][:, None, None], 0)
    y = y.reshape(len(x), 4, 2, 2, 3, 2).mean(axis=(3, 5)).reshape(len(x), -1)
    y = (y - held["norm.running_mean"]) / np.sqrt(held["norm.running_var"] + 1e-5)
    y = (y * held["norm.weight"] + held["norm.bias"]) @ held["head.weight"].T + held["head.bias"]
    e = np.exp(y - y.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


IMAGES = RNG.normal(0, 1, (3, 2, 6, 8)).astype(np.float32)
OURS = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))


def test_a_state_dict_computes_what_pytorch_computes(tmp_path: Path) -> None:
    held, model = state(), network()
    save_file(held, tmp_path / "weights.safetensors")
    assert models.load(tmp_path / "weights.safetensors", into=model) is model
    np.testing.assert_allclose(model.predict(OURS), answer(held, IMAGES), rtol=1e-4, atol=1e-6)


def test_state_dicts_go_out_as_they_came_in() -> None:
    held, model = state(), network()
    model.set_parameters(matched(model, held))
    out = state_of(model, held)
    assert list(out) == list(held)
    for name, array in held.items():
        np.testing.assert_array_equal(out[name], 0 if name.endswith("tracked") else array)
    named = state_of(model)
    assert list(named)[:3] == ["0.weight", "0.bias", "4.weight"]
    other = network(1)
    other.set_parameters(matched(other, named))
    np.testing.assert_array_equal(other.predict(OURS), model.predict(OURS))


def test_modules_are_matched_by_name_where_the_names_are_the_nodes(tmp_path: Path) -> None:
    nodes = {"first": (Linear(3), "input"), "second": (Linear(3), "first")}
    model = Graph(nodes, "second", (3,), "numpy")
    held = {name: draw(3, 3) if name.endswith("weight") else draw(3) for name in state_of(model)}
    backwards = {name: held[name] for name in sorted(held, reverse=True)}
    model.set_parameters(matched(model, backwards))
    np.testing.assert_array_equal(model.parameters()["first.w"], held["first.weight"].T)


def row(*widths: int) -> Sequential:
    return Sequential([Linear(width) for width in widths[1:]], widths[:1], "numpy")


def linears(**modules: tuple[int, int]) -> dict[str, np.ndarray]:
    held = {}
    for name, (outputs, inputs) in modules.items():
        held |= {f"{name}.weight": draw(outputs, inputs), f"{name}.bias": draw(outputs)}
    return held


def test_order_is_not_trusted_where_a_file_has_none(tmp_path: Path) -> None:
    """safetensors sorts arrays by name: fc10 stands before fc2, and decoder before encoder."""
    held = linears(fc2=(3, 3), fc10=(3, 3))
    model = row(3, 3, 3)
    save_file(held, tmp_path / "w.safetensors")
    models.load(tmp_path / "w.safetensors", into=model)
    np.testing.assert_array_equal(model.parameters()["0.w"], held["fc2.weight"].T)
    save_file(linears(encoder=(3, 3), decoder=(3, 3)), tmp_path / "w.safetensors")
    with pytest.raises(ModelFormatError, match="decoder and encoder have the same shapes, and it cannot be told which"):
        models.load(tmp_path / "w.safetensors", into=model)


def test_modules_out_of_order_are_told_by_their_shapes() -> None:
    held, model = linears(last=(2, 4), first=(4, 3)), row(3, 4, 2)
    model.set_parameters(matched(model, held))
    np.testing.assert_array_equal(model.parameters()["0.w"], held["first.weight"].T)
    # Two that fit one another's places are not guessed at.
    with pytest.raises(ModelFormatError, match="a and b have the same shapes"):
        matched(row(3, 4, 4, 4, 2), linears(last=(2, 4), a=(4, 4), b=(4, 4), first=(4, 3)))


def test_our_own_file_gives_its_weights_too(tmp_path: Path) -> None:
    model, other = network(), network(1)
    model.save(tmp_path / "m.safetensors")
    models.load(tmp_path / "m.safetensors", into=other)
    np.testing.assert_array_equal(other.predict(OURS), model.predict(OURS))


def test_what_batch_norm_leaves_out_is_the_identity() -> None:
    model = Sequential([BatchNorm()], (4,), "numpy")
    model.set_parameters(matched(model, {"running_mean": draw(4), "running_var": np.ones(4, np.float32)}))
    np.testing.assert_array_equal(model.parameters()["0.gamma"], 1)
    np.testing.assert_array_equal(model.parameters()["0.beta"], 0)


def changed(**arrays: Any) -> dict[str, np.ndarray]:
    held = state() | {name.replace("__", "."): array for name, array in arrays.items()}
    return {name: array for name, array in held.items() if array is not None}


@pytest.mark.parametrize(
    ("held", "messages"),
    [
        (changed(head__weight=draw(6, 24), head__bias=draw(6)), ["head.weight has shape (6, 24), expected (5, 24)"]),
        (
            changed(head__weight=draw(6, 24), head__bias=draw(6)),
            ["head.bias has shape (6,), expected (5,) for node '6'"],
        ),
        (changed(head__bias=None), ["head.bias is not in the file, and node '6' (Linear(5)) has it"]),
        (changed(head__extra=draw(3)), ["head.extra has no counterpart in node '6' (Linear(5))"]),
        (
            changed(more__weight=draw(3)),
            ["the file has 4 modules with arrays (features.0, head, more, norm), the model 3 layers (0, 4, 6)"],
        ),
    ],
)
def test_each_array_that_does_not_fit_is_named(tmp_path: Path, held: Any, messages: list[str]) -> None:
    model = network()
    before = model.predict(OURS)
    save_file(held, tmp_path / "weights.safetensors")
    with pytest.raises(ModelFormatError) as caught:
        models.load(tmp_path / "weights.safetensors", into=model)
    assert str(caught.value).startswith(str(tmp_path / "weights.safetensors"))
    for message in messages:
        assert message in str(caught.value)
    np.testing.assert_array_equal(model.predict(OURS), before)


def test_an_order_that_is_lost_is_refused() -> None:
    """Joined with something else, a flattened image is numbered in an order that is not known here."""
    nodes = {"a": (Flatten(), "input"), "b": (Concat(), "a", "a"), "c": (Linear(2), "b")}
    model = Graph(nodes, "c", (2, 2, 3), "numpy")
    with pytest.raises(ModelFormatError, match=r"node 'b' \(Concat\) changes the order of a flattened"):
        state_of(model)


def test_a_reshape_to_a_row_numbers_as_a_flatten_does() -> None:
    layers = [Conv2d(4, 3), Flatten(), Linear(5)]
    model = Sequential(layers, (6, 5, 2), "numpy")
    reshaped = Sequential([layers[0], Reshape((48,)), layers[2]], (6, 5, 2), "numpy")
    reshaped.set_parameters(model.parameters())
    np.testing.assert_array_equal(state_of(reshaped)["2.weight"], state_of(model)["2.weight"])


@pytest.mark.parametrize(("axes", "fits"), [((3, 1, 2), True), ((2, 1, 3), False)])
def test_a_map_that_is_turned_before_it_is_flattened(axes: Any, fits: bool) -> None:
    """Channels first it lies as PyTorch's do; any other order is one that PyTorch's network has not."""
    nodes = {
        "turn": (Transpose(axes), "input"),
        "act": (ReLU(), "turn"),
        "a": (Flatten(), "act"),
        "c": (Linear(2), "a"),
    }
    model = Graph(nodes, "c", (2, 2, 3), "numpy")
    if fits:
        np.testing.assert_array_equal(state_of(model)["c.weight"], model.parameters()["c.w"].T)
    else:
        with pytest.raises(ModelFormatError, match=r"node 'turn' \(Transpose\(.*\)\) turns a map that is flattened"):
            state_of(model)


def test_a_layer_that_pytorch_has_not_is_named() -> None:
    with pytest.raises(ModelFormatError, match=r"node '0' \(MeanNorm\(\)\) has no counterpart in PyTorch"):
        state_of(Sequential([MeanNorm()], (4,), "numpy"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file(changed(head__bias=np.full(5, np.nan, np.float32)), tmp_path / "w.safetensors")
    with pytest.raises(ModelFormatError, match=r"w.safetensors: head.bias is not finite"):
        models.load(tmp_path / "w.safetensors", into=network())


def test_a_torchscript_archive_is_told_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/code/__torch__.py", b"")
    for into in (None, network()):
        with pytest.raises(ModelFormatError, match=r"m.pt: a TorchScript archive, which holds a program"):
            models.load(tmp_path / "m.pt", into=into)


def test_without_torch_its_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("m/data.pkl", b"")
    with pytest.raises(ModelFormatError, match=r"m.pth: PyTorch's weights without a network; build the network here"):
        models.load(tmp_path / "m.pth")
    with pytest.raises(ModelFormatError, match=r"m.pth: PyTorch's files need the package torch: pip install"):
        models.load(tmp_path / "m.pth", into=network())


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{"):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(ModelFormatError, match=r"w.safetensors: neither a file of torch.save nor"):
            models.load(tmp_path / "w.safetensors", into=network())


def test_into_is_a_model_on_its_own_backend(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(TypeError, match="into is 3, expected a model"):
        models.load(tmp_path / "w.safetensors", into=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend is 'numba', and into runs on 'numpy'"):
        models.load(tmp_path / "w.safetensors", "numba", into=network())
