"""A model as one safetensors file: weights and running statistics as tensors, the architecture as JSON metadata."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

import kernels
from data.files import write_atomically
from kernels import shapes
from kernels.interface import roles

from . import init, layers
from .graph import DEFAULT_BACKEND, Graph, Node, ordered
from .sequential import Sequential

FORMAT = "twinkernels-model-1"
CODES = {"float32": "F32", "float64": "F64"}  # safetensors' names

# What a file may ask for. `save` keeps to all but the first, which `load` can be told to exceed.
MAX_BYTES = 100_000_000  # 25 million float32 weights
MAX_HEADER = 1 << 22
MAX_METADATA = 1 << 20
MAX_NODES = 1000
MAX_INPUTS = 4 * MAX_NODES
MAX_AXES = 8
MAX_INTEGER = 2**31 - 1
MAX_ELEMENTS = 1 << 25  # numbers of one sample between the layers: 128 MB of float32
MAX_MESSAGE = 300

Held = tuple[str, tuple[int, ...]]
"""A tensor's type and shape."""

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

    architecture = describe(model)
    text = json.dumps(architecture)
    if len(text) > MAX_METADATA:
        raise ModelFormatError(f"{len(text)} characters of architecture, expected at most {MAX_METADATA}")
    _check_counts(architecture)
    _check_extent(model)
    tensors = {name: np.ascontiguousarray(a) for name, a in (model.parameters() | model.statistics()).items()}
    write_atomically(Path(path), serialise(tensors, metadata={"twinkernels": text}))


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


def load(
    path: str | os.PathLike[str],
    backend: str | None = None,
    layers: Sequence[type[layers.Layer]] = (),
    max_bytes: int = MAX_BYTES,
) -> Graph:
    """The model in a file, on any backend.

    layers: layer classes of your own that the file may name. max_bytes: of the file; loading takes about four times as
    much memory. Nothing in the file is executed, and nothing is allocated on its word: the architecture's arrays are
    held against those that are there first. Raises FileNotFoundError, or ModelFormatError for anything that is not a
    whole and consistent model.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}")
    kernels.get(DEFAULT_BACKEND if backend is None else backend)  # a wrong name is no fault of the file
    known = KNOWN | {cls.__name__: cls for cls in layers}
    try:
        _check_bytes(path, max_bytes)
        # Starting weights are drawn, by whatever gain the file names, before its own take their place.
        with safe_open(path, framework="numpy") as file, np.errstate(all="ignore"):
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            held = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            model = _build(_architecture(file.metadata()), held, backend, known)
            tensors = {name: file.get_tensor(name) for name in held}
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ModelFormatError(f"{name} is not finite")
        model.set_parameters(tensors)
    except (SafetensorError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: not a readable model ({printable(error)})") from error
    return model


def printable(error: Exception) -> str:
    """The message without what could steer a terminal, and without a novel that the file brought."""
    return harmless(str(error)[:MAX_MESSAGE])


def harmless(text: str) -> str:
    """Text without what could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _check_bytes(path: Path, max_bytes: int) -> None:
    size = path.stat().st_size
    if size > max_bytes:
        raise ModelFormatError(f"{size} bytes, expected at most {max_bytes}; load(..., max_bytes={size}) takes it")
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER:
        raise ModelFormatError(f"a header of {header} bytes, expected at most {MAX_HEADER}")


def _architecture(metadata: dict[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get("twinkernels", "")
    if not text or len(text) > MAX_METADATA:
        raise ModelFormatError("no architecture of this package in its metadata")
    architecture = json.loads(text)
    if not isinstance(architecture, dict) or architecture.get("format") != FORMAT:
        raise ModelFormatError(f"format is not {FORMAT}")
    return architecture


def _check_counts(architecture: dict[str, Any]) -> None:
    nodes = architecture["nodes"]
    counts = {
        "nodes": (len(nodes), MAX_NODES),
        "inputs of nodes": (sum(len(inputs) for *_, inputs in nodes), MAX_INPUTS),
        "axes of the input": (len(architecture["input_shape"]), MAX_AXES),
    }
    for name, (count, limit) in counts.items():
        if count > limit:
            raise ModelFormatError(f"{count} {name}, expected at most {limit}")


def _build(
    architecture: dict[str, Any], held: Mapping[str, Held], backend: str | None, known: dict[str, type]
) -> Graph:
    """The model, if its arrays are those that the file holds."""
    _check_counts(architecture)
    entries, output, dtype = architecture["nodes"], architecture["output"], architecture["dtype"]
    nodes = {name: (decode(layer, known), *inputs) for name, layer, inputs in entries}
    if len(nodes) < len(entries):
        raise ModelFormatError("two nodes have one name")
    if dtype not in CODES:
        raise ModelFormatError(f"dtype is {dtype}, expected float32 or float64")
    input_shape = [shapes.integer("model", "input_shape", size, 1) for size in architecture["input_shape"]]
    _check_tensors(held, ordered(nodes, output), input_shape, CODES[dtype])
    normalisation = architecture["normalisation"]
    common = {
        "input_shape": input_shape,
        "backend": backend,
        "seed": architecture["seed"],
        "dtype": dtype,
        "normalisation": None if normalisation is None else tuple(normalisation),
    }
    line = architecture["kind"] == "Sequential"
    model = Sequential([layer for layer, *_ in nodes.values()], **common) if line else Graph(nodes, output, **common)
    if {node.name: (node.layer, *node.inputs) for node in model.nodes} != nodes:
        raise ModelFormatError("the nodes of a Sequential are not in a line")
    _check_extent(model)
    return model


def _check_tensors(held: Mapping[str, Held], nodes: Sequence[Node], input_shape: Sequence[int], code: str) -> None:
    _, parameters, statistics = Graph.infer_shapes(nodes, input_shape)
    expected = {name: array.shape for name, array in (parameters | statistics).items()}
    if held.keys() != expected.keys():
        odd = sorted(held.keys() ^ expected.keys())
        raise ModelFormatError(f"tensors do not match the architecture: {', '.join(odd[:5])}")
    for name, shape in expected.items():
        held_code, held_shape = held[name]
        shapes.equal("model", name, held_shape, shape)
        if held_code != code:
            raise ModelFormatError(f"{name} has dtype {held_code}, expected {code}")


def _check_extent(model: Graph) -> None:
    """Raise ModelFormatError if one sample's way through the model takes more than MAX_ELEMENTS numbers."""
    persistent = model.arrays()
    values = (value for value in model.plan.values() if value.base is None and value.name not in persistent)
    steps = (step for step in model.plan.steps if "scratch" in roles(step.kernel).values())
    scratch = (model.kernels.scratch_size(step.kernel, step.dims["d"], 1) for step in steps)
    count = sum(math.prod(value.sized(1)) for value in values) + max(scratch, default=0)
    if count > MAX_ELEMENTS:
        raise ModelFormatError(f"one sample takes {count} numbers on its way, expected at most {MAX_ELEMENTS}")


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
    return construct(known[name], fields, known)


def construct(cls: type, fields: Mapping[str, Any], known: dict[str, type]) -> Any:
    """A dataclass from its encoded fields, each of the type it is annotated with."""
    name = cls.__name__
    if set(fields) - {f.name for f in dataclasses.fields(cls)}:
        raise ModelFormatError(f"layer {name} has unknown fields {sorted(fields)}")
    decoded = {key: decode(item, known) for key, item in fields.items()}
    for key, item in decoded.items():
        if not _fits(item, _annotations(cls).get(key)):
            raise ModelFormatError(f"{name}: {key} is {item!r}, expected {_annotations(cls)[key]}")
    return cls(**decoded)


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError:  # a class of the user's, annotated with what only its type checker sees
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a decoded value is of a type; types that no layer of ours is annotated with fit anything."""
    if get_origin(annotation) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        types = get_args(annotation)
        if types[1:] == (...,):
            types = types[:1] * len(value) if isinstance(value, tuple) else types
        return isinstance(value, tuple) and len(value) == len(types) and all(map(_fits, value, types))
    if annotation is int:
        return type(value) is int and abs(value) <= MAX_INTEGER
    if annotation is float:
        return type(value) is float or _fits(value, int)
    if annotation is bool:
        return isinstance(value, int)
    if annotation in (str, NoneType) or dataclasses.is_dataclass(annotation):
        return isinstance(value, annotation)
    return True
