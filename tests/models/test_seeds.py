"""Mistakes that small programs of this kind make around the kernels, one by one; test_kernels_seeds.py has the others.

Elsewhere stand: the CSV files' column order (test_data_csv.py), the download (test_data_mnist.py), decay by optimizer
(test_models_optimizers.py), smoothing and momentum through a model (test_models_losses.py, test_models_layers.py).
"""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

import data
import kernels
import models
from kernels import Kernels
from models import SGD, Trainer
from twinkernels import runs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("backend", kernels.names())
@pytest.mark.parametrize("axis", [1, 2])
def test_translation_does_not_wrap_around(backend: str, axis: int) -> None:
    images = np.zeros((64, 28, 28, 1), np.uint8)
    np.moveaxis(images, axis, 0)[-1] = 255
    moved = data.Augment(translation=9)(images, np.arange(64), backend=backend)
    lines = np.moveaxis(moved, axis, 0)
    assert not lines[:18].any(), "ink that left on one side is back on the other"
    assert (lines[-1].reshape(64, -1).max(1) == 0).any(), "no image has lost its ink, so nothing was tried"


def test_validation_is_normalised_by_the_training_images_alone(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 100, (64, 28, 28, 1)).astype(np.uint8), rng.integers(0, 10, 64)
    bright = (x[:32] * 2 + 50).astype(np.uint8)
    model = models.build("mlp-512", k.name)
    history = Trainer(model, SGD(0.01), batch_size=32).fit(x, y, epochs=1, validation=(bright, y[:32]))
    mean, std = x.mean(), x.std()
    expected = model.evaluate(((bright - mean) / std).astype(np.float32), y[:32]).loss
    assert history.validation_loss[0] == pytest.approx(expected, rel=1e-4)
    wrong = model.evaluate(((bright - bright.mean()) / bright.std()).astype(np.float32), y[:32]).loss
    assert history.validation_loss[0] != pytest.approx(wrong, rel=1e-2)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    file, sprung = tmp_path / "model.safetensors", tmp_path / "sprung"
    file.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(models.ModelFormatError):
        models.load(file)
    assert not sprung.exists()
    pickle.loads(file.read_bytes())
    assert sprung.exists(), "the trap is none"


def test_nothing_imports_pickle() -> None:
    for package in ("kernels", "models", "data"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imported = {
                name.split(".")[0]
                for node in ast.walk(tree)
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
            }
            assert not imported & {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}, path
            allowed = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"]
            assert all(isinstance(node.value, ast.Constant) and node.value.value is False for node in allowed), path


def test_test_images_are_looked_at_once_after_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    splits = [
        data.Split(rng.integers(0, 256, (n, 28, 28, 1)).astype(np.uint8), rng.integers(0, 10, n)) for n in (96, 40)
    ]
    seen: list[int] = []
    evaluate = models.Graph.evaluate
    monkeypatch.setattr(
        models.Graph, "evaluate", lambda self, x, *rest: (seen.append(len(x)), evaluate(self, x, *rest))[1]
    )
    runs.run("mlp-meannorm", data.Dataset(*splits), backend="numpy", epochs=3)
    assert seen == [16, 16, 16, 40]
