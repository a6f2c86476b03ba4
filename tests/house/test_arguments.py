"""Arguments of every wrong kind, to all that is public: taken, or refused by a line of ours that was written for it."""

from __future__ import annotations

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import kernels
import models
from models import SGD, Checkpoints, EarlyStopping, Graph, Linear, Sequential, SoftmaxCrossEntropy, Trainer
from models.settings import Settings

ROOT = Path(__file__).parents[2]
WRONG = [
    None, object(), "x", "", b"x", ["numpy"], (1, 2), {}, {"a": 1}, 3.5, -1, 0, 5, True, float("nan"), 10**30, int,
    lambda *_: None, np.zeros(3), np.array("a"), np.zeros(2, complex),
]  # fmt: skip
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 4)).astype(np.float32), np.arange(12) % 3
SPLIT = data.Split(np.arange(192, dtype=np.uint8).reshape(12, 4, 4, 1), Y.astype(np.uint8))
REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("outputs", "filters", "size", "every", "steps", "groups", "padding", "axis"), 3),
    **dict.fromkeys(("rate", "learning_rate", "exponent", "value", "std"), 0.5),
    **dict.fromkeys(("milestones", "axes", "shape"), (1, 2)),
    "factor": 2,
    "folder": "nowhere",
}


def model() -> Sequential:
    return Sequential([Linear(3)], (4,), "numpy")


def of(method: Callable[..., Any], make: Callable[[], Any]) -> Callable[..., Any]:
    """A method of a new object, with the method's signature."""
    call: Any = lambda **given: method(make(), **given)  # noqa: E731
    call.__signature__ = inspect.signature(method)
    return call


def begun(function: Callable[..., Any]) -> Callable[..., Any]:
    """The first that an iterator gives."""
    call: Any = lambda **given: next(function(**given))  # noqa: E731
    call.__signature__ = inspect.signature(function)
    return call


def functions(folder: Path) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Name, function, and arguments that it takes."""
    kept, k = folder / "m.safetensors", kernels.get("numpy")
    model().save(kept)
    yield "Sequential", Sequential, {"layers": [Linear(3)], "input_shape": (4,), "backend": "numpy"}
    yield "Graph", Graph, {"nodes": {"a": (Linear(3), "input")}, "output": "a", "input_shape": (4,), "backend": "numpy"}
    yield "Trainer", Trainer, {"model": model(), "optimizer": SGD(0.1), "batch_size": 4}
    yield "fit", of(Trainer.fit, lambda: Trainer(model(), SGD(0.1))), {"x": X, "y": Y, "epochs": 1}
    yield "step", of(Trainer.step, lambda: Trainer(model(), SGD(0.1))), {"x": X, "y": Y}
    yield "evaluate", of(Graph.evaluate, model), {"x": X, "y": Y, "loss": SoftmaxCrossEntropy()}
    yield "predict", of(Graph.predict, model), {"x": X}
    yield "until", of(Graph.until, model), {"node": "0"}
    yield "to", of(Graph.to, model), {"backend": "numpy"}
    yield "set_parameters", of(Graph.set_parameters, model), {"new": model().parameters()}
    yield "save", of(Graph.save, model), {"path": folder / "again.safetensors"}
    yield "load", models.load, {"path": kept, "backend": "numpy"}
    yield "build", models.build, {"name": "mlp-512", "backend": "numpy"}
    yield "gradcheck", models.gradcheck, {"model": Linear(3), "input_shape": (4,), "backend": "numpy"}
    yield "accuracy", models.accuracy, {"output": X, "labels": Y}
    yield "kernels.get", kernels.get, {"name": "numpy"}
    yield "kernels.Kernel", kernels.Kernel, {"numpy": lambda x: None}
    yield "has", k.has, {"name": "relu"}
    yield "function", k.function, {"kernel": "relu"}
    yield "set_threads", kernels.set_threads, {"n": kernels.get_threads()}
    yield "batches", begun(data.batches), {"split": SPLIT, "batch_size": 4}
    yield "epoch_order", data.epoch_order, {"count": 12, "seed": 0, "epoch": 0}
    yield "split", data.split, {"train": SPLIT, "count": 3}
    yield "statistics", data.statistics, {"train": SPLIT}
    yield "standardise", data.standardise, {"images": SPLIT.images, "mean": 0.0, "std": 1.0}
    yield "Dataset", data.Dataset, {"train": SPLIT, "test": SPLIT}
    yield "load", data.load, {"source": str(folder)}
    yield "load_test", data.load_test, {"source": str(folder)}
    yield "write_idx", data.write_idx, {"path": folder / "x.idx", "array": SPLIT.images}
    yield "frame", data.frame, {"ink": SPLIT.images[0, :, :, 0]}
    yield "read_csv", data.read_csv, {"path": folder / "none"}
    yield "read_idx", data.read_idx, {"path": folder / "none"}
    yield "read_picture", data.read_picture, {"path": folder / "none"}
    yield "read_images", data.read_images, {"path": folder / "none"}
    yield "read_labelled", data.read_labelled, {"path": folder / "none"}
    for cls in (*(getattr(models, name) for name in models.__all__), data.Augment):
        settings = isinstance(cls, type) and issubclass(cls, (Settings, Checkpoints, EarlyStopping, data.Augment))
        if settings and dataclasses.is_dataclass(cls):
            needed = [f.name for f in dataclasses.fields(cls) if f.init and f.default is dataclasses.MISSING]
            yield cls.__name__, cls, {name: REQUIRED[name] for name in needed}


UNENDING = {("fit", "epochs"), ("fit", "iterations"), ("epoch_order", "count"), ("build", "classes")}
"""What takes a number of any size, and then its time or memory."""


def bare(error: BaseException) -> bool:
    """Whether nobody wrote a line for it: it comes from an expression, not from a raise of ours; or from the system."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(last.filename).is_relative_to(ROOT) and (last.line or "").startswith("raise")
    return not (ours or isinstance(error, OSError)) or "\n" in str(error)


def test_what_is_wrong_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for name, function, right in functions(tmp_path):
        for parameter in inspect.signature(function).parameters:
            if parameter == "self":
                continue
            for value in WRONG:
                if isinstance(value, int) and value > 1e9 and (name, parameter) in UNENDING:
                    continue
                try:
                    function(**{**right, parameter: value})
                except Exception as error:
                    if bare(error):
                        found.append(f"{name}({parameter}={value!r:.30}): {type(error).__name__}: {error}")
    assert found == []
