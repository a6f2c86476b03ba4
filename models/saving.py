"""A model as one safetensors file: weights and running statistics as tensors, the architecture as JSON metadata."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.files import expanded, write_atomically
from kernels.interface import roles

from .encoding import ModelFormatError, encode
from .nonfinite import refuse

if TYPE_CHECKING:
    from .graph import Graph

FORMAT = "twinkernels-model-1"

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
"""What a file's arrays can be, by safetensors' names."""

# What a file may ask for: `save` keeps to it, and `load` refuses what does not.
MAX_METADATA = 1 << 20
MAX_NODES = 1000
MAX_INPUTS = 4 * MAX_NODES
MAX_AXES = 8
MAX_ELEMENTS = 1 << 25  # numbers of one sample between the layers: 128 MB of float32


def save(model: Graph, path: str | os.PathLike[str], layout: str | None = None) -> None:
    """Write the model; see `Graph.save`."""
    path = expanded(path, "save: path")
    if path.suffix.lower() == ".onnx":
        from .exchange.onnx_writer import write_onnx

        write_onnx(model, path, "NCHW" if layout is None else layout)
    elif layout is not None:
        raise ValueError(f"save: layout is {layout!r}, expected none for {path.name}: it is one of .onnx files")
    elif path.name.lower().endswith(".weights.h5"):
        from .exchange.keras_weights import save_keras_weights

        save_keras_weights(model, path)
    elif path.suffix.lower() in (".pth", ".pt"):
        from .exchange.torch_state import save_state

        save_state(model, path)
    elif path.suffix.lower() in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"save: {path.name} would hold a network of Keras'; NAME.weights.h5 holds the weights for one")
    else:
        write_atomically(path, content(model))


def content(model: Graph) -> bytes:
    """What `save` writes. Raises for a model that `load` would refuse: NonFiniteError, or ModelFormatError."""
    arrays = model.parameters() | model.statistics()
    refuse("model", arrays)
    architecture = describe(model)
    text = json.dumps(architecture)
    if len(text) > MAX_METADATA:
        raise ModelFormatError(f"{len(text)} characters of architecture, expected at most {MAX_METADATA}")
    check_counts(architecture)
    check_extent(model)
    return serialised(arrays, {"twinkernels": text})


def describe(model: Graph) -> dict[str, Any]:
    """A model without its arrays, as JSON."""
    made = model.architecture
    lists = {"classes": made.classes, "altered": made.altered}
    return {name: list(each) for name, each in lists.items() if each is not None} | {
        "format": FORMAT,
        "kind": type(model).__name__,
        "nodes": [[n.name, encode(n.layer), list(n.inputs)] for n in made.nodes],
        "output": made.output,
        "input_shape": list(made.input_shape),
        "dtype": made.dtype.name,
        "seed": made.seed,
        "normalisation": encode(made.normalisation),
    }


def storable(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as a file holds them: contiguous, in the machine's byte order, of a type in DTYPES.

    safetensors takes an array's memory as it lies. Raises TypeError that names the array for any other type.
    """
    native = {name: np.asarray(array).dtype.newbyteorder("=") for name, array in arrays.items()}
    for name, dtype in native.items():
        if dtype not in DTYPES.values():
            known = ", ".join(str(known) for known in DTYPES.values())
            raise TypeError(f"{name} has dtype {dtype}, which a file cannot hold; expected one of {known}")
    return {name: np.asarray(array, native[name], order="C") for name, array in arrays.items()}


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and texts as one safetensors file, whole or not at all. Raises what `storable` does."""
    write_atomically(path, serialised(arrays, metadata))


def serialised(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Arrays and texts as a safetensors file holds them. Raises what `storable` does."""
    from safetensors.numpy import save as serialise

    return bytes(serialise(storable(arrays), metadata=dict(metadata)))


def check_counts(architecture: dict[str, Any]) -> None:
    """Raise ModelFormatError if an architecture, as JSON, has more nodes, inputs or axes than a file may."""
    nodes = architecture["nodes"]
    counts = {
        "nodes": (len(nodes), MAX_NODES),
        "inputs of nodes": (sum(len(inputs) for *_, inputs in nodes), MAX_INPUTS),
        "axes of the input": (len(architecture["input_shape"]), MAX_AXES),
    }
    for name, (count, limit) in counts.items():
        if count > limit:
            raise ModelFormatError(f"{count} {name}, expected at most {limit}")


def check_extent(model: Graph, most: int = MAX_ELEMENTS) -> None:
    """Raise ModelFormatError if one sample's way through the model takes more numbers than that."""
    persistent = model.arrays()
    values = (value for value in model.plan.values() if value.base is None and value.name not in persistent)
    steps = (step for step in model.plan.steps if "scratch" in roles(step.kernel).values())
    scratch = (model.kernels.scratch_size(step.kernel, step.dims["d"], 1) for step in steps)
    count = sum(math.prod(value.sized(1)) for value in values) + max(scratch, default=0)
    if count > most:
        raise ModelFormatError(f"one sample takes {count} numbers on its way, expected at most {most}")
