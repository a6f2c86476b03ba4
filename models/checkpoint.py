"""A model as one safetensors file: weights and running statistics as tensors, the architecture as JSON metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kernels

from . import init, layers
from .graph import DEFAULT_BACKEND, Graph
from .sequential import Sequential

FORMAT = "twinkernels-model-1"
PART = ".part"
MAX_METADATA = 1 << 20
KNOWN = {
    cls.__name__: cls
    for module in (layers, init)
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, (layers.Layer, init.Initialiser))
}


class ModelFormatError(ValueError):
    """A file that is not a model of this package, or a damaged one."""


def save(model: Graph, path: str | os.PathLike[str]) -> None:
    """Write the model; see `Graph.save`."""
    from safetensors.numpy import save as serialise

    tensors = {name: np.ascontiguousarray(a) for name, a in (model.parameters() | model.statistics()).items()}
    write_atomically(Path(path), serialise(tensors, metadata={"twinkernels": json.dumps(describe(model))}))


def describe(model: Graph) -> dict[str, Any]:
    """A model without its arrays, as JSON."""
    return {
        "format": FORMAT,
        "kind": type(model).__name__,
        "nodes": [[n.name, encode(n.layer), list(n.inputs)] for n in model.nodes],
        "output": model.output,
        "input_shape": list(model.input_shape),
        "dtype": model.dtype.name,
        "seed": model.seed,
        "normalisation": encode(model.normalisation),
    }


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, and rename: a reader sees the old file or the new one, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno and error.filename is None:  # a full disk says no name
            error.filename = os.fspath(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk, so that a new name outlives a power cut."""
    if os.name != "nt":  # where folders cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(path: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for part in path.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], backend: str | None = None, layers: Sequence[type[layers.Layer]] = ()) -> Graph:
    """The model in a file, on any backend.

    layers: layer classes of your own that the file may name. Nothing in the file is executed. Raises
    FileNotFoundError, or ModelFormatError for anything that is not a whole and consistent model.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}")
    kernels.get(DEFAULT_BACKEND if backend is None else backend)  # a wrong name is no fault of the file
    known = KNOWN | {cls.__name__: cls for cls in layers}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get("twinkernels", "")
            if not metadata or len(metadata) > MAX_METADATA:
                raise ModelFormatError("no architecture of this package in its metadata")
            model = _build(json.loads(metadata), backend, known)
            expected = {name: view for name, view in model.arrays().items() if name != "parameters"}
            if set(file.keys()) != set(expected):
                odd = sorted(set(file.keys()) ^ set(expected))
                raise ModelFormatError(f"tensors do not match the architecture: {', '.join(odd[:5])}")
            for name, view in expected.items():
                part = file.get_slice(name)
                if tuple(part.get_shape()) != view.shape:
                    raise ModelFormatError(f"{name} has shape {tuple(part.get_shape())}, expected {view.shape}")
            tensors = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: not a readable model ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype != model.dtype or not np.isfinite(tensor).all():
            raise ModelFormatError(f"{path}: {name} is not finite {model.dtype}")
    model.set_parameters(tensors)
    return model


def _build(architecture: Any, backend: str | None, known: dict[str, type]) -> Graph:
    if not isinstance(architecture, dict) or architecture.get("format") != FORMAT:
        raise ModelFormatError(f"format is not {FORMAT}")
    nodes = {name: (decode(layer, known), *inputs) for name, layer, inputs in architecture["nodes"]}
    normalisation = architecture["normalisation"]
    common = {
        "input_shape": architecture["input_shape"],
        "backend": backend,
        "seed": architecture["seed"],
        "dtype": architecture["dtype"],
        "normalisation": None if normalisation is None else (float(normalisation[0]), float(normalisation[1])),
    }
    if architecture["kind"] == "Sequential":
        return Sequential([layer for layer, *_ in nodes.values()], **common)
    return Graph(nodes, architecture["output"], **common)


def encode(value: Any) -> Any:
    """A layer's configuration as JSON: dataclasses become {"type": name, field: value, ...}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def decode(value: Any, known: dict[str, type]) -> Any:
    """The inverse of `encode`, for known classes alone."""
    if isinstance(value, list):
        return tuple(decode(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    name = fields.pop("type", None)
    if name not in known:
        raise ModelFormatError(f"unknown layer {name!r}; pass its class in load(..., layers=[...])")
    cls = known[name]
    if set(fields) - {f.name for f in dataclasses.fields(cls)}:
        raise ModelFormatError(f"layer {name} has unknown fields {sorted(fields)}")
    return cls(**{key: decode(item, known) for key, item in fields.items()})
