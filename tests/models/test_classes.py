"""Names of classes: a model keeps them, wherever it goes."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import models
from models import Linear, ModelFormatError, ReLU, Sequential

NAMES = ("cat", "dog", "übrige")


def named() -> Sequential:
    model = Sequential([Linear(4), ReLU(), Linear(3)], (5,), "numpy")
    model.classes = NAMES
    return model


def test_names_go_with_the_model(tmp_path: Path) -> None:
    model = named()
    model.save(tmp_path / "model.safetensors")
    loaded = models.load(tmp_path / "model.safetensors", "numpy")
    for twin in (loaded, model.to("numpy"), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.until("2")):
        assert twin.classes == NAMES
    assert model.until("0").classes is None
    model.classes = None
    assert model.to("numpy").classes is None


def test_a_file_of_a_model_without_names_is_what_it_was(tmp_path: Path) -> None:
    model = Sequential([Linear(3)], (5,), "numpy")
    model.save(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert "classes" not in json.loads(file.metadata()["twinkernels"])
    assert models.load(tmp_path / "model.safetensors", "numpy").classes is None


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), ()])
def test_there_is_a_name_an_output(names: Any) -> None:
    with pytest.raises(ValueError, match=r"model: classes .* expected"):
        named().classes = names


@pytest.mark.parametrize("told", ["abc", [1, 2, 3], ["a"] * 20_000, ["x" * 300, "b", "c"], {"a": 1}, 7])
def test_names_in_a_file_are_not_believed(tmp_path: Path, told: Any) -> None:
    named().save(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        metadata = json.loads(file.metadata()["twinkernels"]) | {"classes": told}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(arrays, tmp_path / "other.safetensors", {"twinkernels": json.dumps(metadata)})
    with pytest.raises(ModelFormatError, match="classes is"):
        models.load(tmp_path / "other.safetensors", "numpy")


def test_a_network_of_the_zoo_for_other_images_and_classes() -> None:
    model = models.build("cnn-bn", "numpy", input_shape=(32, 32, 3), classes=4)
    assert model.predict(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 4)
    with pytest.raises(ValueError, match="does not fit"):
        models.build("cnn-bn", "numpy", input_shape=(8, 8, 1))
