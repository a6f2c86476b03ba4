"""The commands on networks of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import data
from models import Conv2d, Flatten, GlobalMaxPool2d, Graph, Linear, ReLU, Sequential, Softmax
from twinkernels import cli, foreign

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'twinkernels[onnx]'")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    shown = capsys.readouterr()
    return end.value.code, shown.out, shown.err


@pytest.fixture
def net(tmp_path: Path) -> Path:
    layers = [Conv2d(4, 3), ReLU(), GlobalMaxPool2d(), Linear(10), Softmax()]
    Sequential(layers, (28, 28, 1), "numpy").save(tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, count in (("train", 20), ("t10k", 20)):
        data.write_idx(folder / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), np.uint8))
        data.write_idx(folder / f"{name}-labels-idx1-ubyte", rng.integers(0, 10, count).astype(np.uint8))
    return folder


def test_inspect_shows_what_each_node_becomes(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "inspect", net)
    assert (status, err) == (0, "")
    assert "net.onnx: twinkernels" in out
    assert "input 'input': float32 (N, 1, 28, 28)" in out
    for words in ("Conv2d(4, 3)", "GlobalMaxPool2d()", "Linear(10)", "(N, 4, 26, 26)"):
        assert words in out


def test_inspect_says_what_cannot_run_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="/first"),
        helper.make_node("Det", ["a"], ["b"], name="/second"),
        helper.make_node("Tanh", ["b"], ["y"], name="/third"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    (path := tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    status, out, err = run(capsys, "inspect", path)
    assert status == 1
    assert "ReLU()" in out
    assert "is not supported" in out
    assert err == "twinkernels: cannot run here: 1 Det node: is not supported\n"
    status, _, err = run(capsys, "evaluate", path)
    assert status == 2
    assert "node '/second', operator Det, is not supported" in err


def test_inspect_shows_this_packages_own_files_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Sequential([Linear(3)], (4,), "numpy").save(tmp_path / "own.safetensors")
    status, out, _ = run(capsys, "inspect", tmp_path / "own.safetensors")
    assert status == 0
    assert "Linear(3)" in out
    assert run(capsys, "inspect", tmp_path / "gone.onnx")[0] == 2
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07rubbish")
    status, _, err = run(capsys, "inspect", tmp_path / "bad.onnx")
    assert status == 2
    assert err.count("\n") == 1


def test_evaluate_says_what_it_took_for_pixels(net: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "evaluate", net, "--data", digits, "--backend", "numpy")
    assert status == 0
    assert "of 20 training images: --pixels says otherwise" in err
    assert out.splitlines()[-1].startswith("test accuracy ")
    status, out, err = run(capsys, "evaluate", net, "--data", digits, "--backend", "numpy", "--pixels", "33.3,78.5")
    assert (status, err) == (0, "")
    status, _, err = run(capsys, "evaluate", net, "--data", digits, "--pixels", "bright")
    assert status == 2
    assert "--pixels is 'bright', expected 0..1, 0..255, -1..1 or MEAN,STD" in err


def test_predict_takes_a_network_of_rows(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Sequential([Linear(10)], (784,), "numpy").save(tmp_path / "rows.onnx")
    images = digits / "t10k-images-idx3-ubyte"
    status, out, err = run(capsys, "predict", tmp_path / "rows.onnx", images, "--backend", "numpy")
    assert status == 0
    assert len(out.splitlines()) == 20
    assert "pixels taken as 0..1" in err


def test_the_range_that_reads_most_is_taken() -> None:
    class Bright(Graph):
        """Reads an image right if its pixels come from -1 to 1."""

        def predict(self, x: np.ndarray) -> np.ndarray:
            mean, std = self.normalisation or (0.0, 1.0)
            right = ((255 - mean) / std == 1) and ((0 - mean) / std == -1)
            return np.eye(2)[np.full(len(x), int(right))]

    network = Bright({"flat": (Flatten(), "input"), "out": (Linear(2), "flat")}, "out", (2, 2, 1), "numpy")
    training = data.Split(np.zeros((3, 2, 2, 1), np.uint8), np.ones(3, np.uint8))
    assert foreign.set_pixels(network, False, None, lambda: training) == "-1..1, which reads 1.000 of 3 training images"
    assert network.normalisation == (127.5, 127.5)
    assert foreign.set_pixels(network, False, None, lambda: training) == ""


def test_nothing_is_chosen_by_the_images_that_are_judged(
    net: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = data.load(digits).train.labels
    seen = []
    monkeypatch.setattr(foreign, "accuracy", lambda shares, truth: seen.append(truth.tolist()) or 0.0)
    run(capsys, "evaluate", net, "--data", digits, "--backend", "numpy")
    assert seen == [labels.tolist()] * len(foreign.RANGES)
    images = digits / "t10k-images-idx3-ubyte"  # with its labels beside it, and no training split
    status, out, err = run(capsys, "evaluate", net, "--data", images, "--backend", "numpy")
    assert (status, out) == (2, "")
    assert "there are no training images to tell by; --pixels says it" in err
    assert run(capsys, "evaluate", net, "--data", images, "--backend", "numpy", "--pixels", "0..1")[0] == 0


def test_the_loss_of_a_network_that_ends_in_softmax_is_that_of_its_logits() -> None:
    layers = [Flatten(), Linear(3), Softmax()]
    ended = Sequential(layers, (2, 2, 1), "numpy", normalisation=(0.0, 255.0))
    plain = Sequential(layers[:-1], (2, 2, 1), "numpy", normalisation=(0.0, 255.0))
    x, labels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1), np.arange(6) % 3
    assert foreign.logits(ended).evaluate(x, labels) == plain.evaluate(x, labels)
