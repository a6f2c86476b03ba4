"""What a checkpoint holds: arrays of callbacks of any layout, and files of the first version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from models import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Checkpoints,
    Dropout,
    EarlyStopping,
    Linear,
    OneCycle,
    ReLU,
    Sequential,
    Trainer,
)

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.integers(0, 3, 20)


class Remembers(Callback):
    """Keeps an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def state(self) -> dict[str, Any]:
        return {"array": self.array}

    def restore(self, state: dict[str, Any]) -> None:
        self.array = state["array"]


def fit(folder: Path, callback: Callback, resume: bool = False) -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), batch_size=8)
    trainer.fit(X, Y, epochs=1, callbacks=[callback], checkpoints=Checkpoints(folder), resume=resume)


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3).T, np.arange(10)[::3], np.arange(3, dtype=">i4"), np.array(2.5), np.ones(3, "f2")],
    ids=["transposed", "strided", "big-endian", "scalar", "half"],
)
def test_arrays_of_callbacks_come_back(tmp_path: Path, array: np.ndarray) -> None:
    fit(tmp_path, Remembers(array))
    again = Remembers(np.zeros_like(array))
    fit(tmp_path, again, resume=True)
    assert again.array.shape == array.shape
    np.testing.assert_array_equal(again.array, array)


def test_an_array_that_no_file_can_hold_is_named_at_the_first_write(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match="callback 0/array has dtype complex128, which a file cannot hold; expected one"
    ):
        fit(tmp_path, Remembers(np.ones(2, complex)))
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_checkpoint_of_the_first_version_is_resumed(tmp_path: Path, caplog: Any) -> None:
    written = Path(__file__).parent / "files" / "step-00000003.safetensors"
    shutil.copy(written, tmp_path)
    layers = [Linear(3), BatchNorm(), ReLU(), Dropout(0.2), Linear(3)]
    model = Sequential(layers, (4,), "numpy", 1, np.float64)
    trainer = Trainer(model, Adam(0.03), batch_size=8, schedule=OneCycle(), on_nonfinite="skip")
    found: dict[str, np.ndarray] = {}

    class First(Callback):
        """Looks at what the fit has come back to, before its first step."""

        def restore(self, state: dict[str, Any]) -> None:
            arrays = trainer.model.parameters() | trainer.model.statistics()
            found.update({f"model/{name}": array.copy() for name, array in arrays.items()})

    kept = Checkpoints(tmp_path)
    options: dict[str, Any] = {"validation": (X, Y), "callbacks": [EarlyStopping(), First()]}
    history = trainer.fit(X, Y, epochs=2, checkpoints=kept, resume=True, **options)
    assert [epoch.step for epoch in history.epochs] == [3, 6]
    held = load_file(written)
    for name, array in found.items():
        np.testing.assert_array_equal(array, held[name])
    assert found.keys() == {name for name in held if name.startswith("model/")}
    assert [path.name for path in kept.files()] == ["step-00000006.safetensors", "step-00000003.safetensors"]
