"""Keras' weights without a network: written for `load_weights` of a Keras model with the same layers, and read back.

`.weights.h5` names arrays by the class of their layer and its count, layers/conv2d_1/vars/0: the second convolution's
kernel. Activations are arguments in Keras and layers here; they have no arrays, so neither counts.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.files import write_atomically

from ..encoding import ModelFormatError
from . import hdf5
from .keras_file import WEIGHTS, content_of
from .torch_state import arrays_of

if TYPE_CHECKING:
    from ..graph import Graph
    from ..nodes import Node

Turn = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where a layer's arrays are: its group, and for each array our name, Keras' shape of it, and our own."""

    group: str
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


KINDS = {
    "Linear": ("dense", ("w", "b")),
    "Conv2d": ("conv2d", ("w", "b")),
    "ConvTranspose2d": ("conv2d_transpose", ("w", "b")),
    "BatchNorm": ("batch_normalization", ("gamma", "beta", "running_mean", "running_var")),
    "LayerNorm": ("layer_normalization", ("gamma", "beta")),
    "GroupNorm": ("group_normalization", ("gamma", "beta")),
    "PReLU": ("p_re_lu", ()),
}
"""Our layers that have arrays: the group of Keras', and the order of its arrays."""


def places(model: Graph) -> dict[str, Place]:
    """The place of each layer with arrays, by node. ModelFormatError for a layer that Keras has not."""
    shapes = model.parameter_layout.shapes | model.statistic_layout.shapes
    counts: dict[str, int] = {}
    found: dict[str, Place] = {}
    for node in model.nodes:
        names = arrays_of(model, node)
        if not names:
            continue
        if type(node.layer).__name__ not in KINDS:
            raise ModelFormatError(f"node {node.name!r} ({node.layer}) has no counterpart in Keras")
        kind, order = KINDS[type(node.layer).__name__]
        ours = {name: shapes[f"{node.name}.{name}"] for name in (order or names) if name in names}
        theirs = {name: _shape(model, node, name, shape) for name, shape in ours.items()}
        if kind == "conv2d" and theirs["w"] != ours["w"]:
            kind = "depthwise_conv2d"
        counts[kind] = counts.get(kind, -1) + 1
        suffix = f"_{counts[kind]}" if counts[kind] else ""
        found[node.name] = Place(f"layers/{kind}{suffix}", {name: (theirs[name], ours[name]) for name in ours})
    return found


def _shape(model: Graph, node: Node, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Keras' shape of an array, in which the numbers lie as in ours."""
    read = model.node_shapes[node.inputs[0]]
    kind = type(node.layer).__name__
    if kind == "Conv2d" and name == "w" and shape[2] == 1 and getattr(node.layer, "groups", 1) == read[-1] != 1:
        return (*shape[:2], int(read[-1]), shape[3] // int(read[-1]))
    return (*(1,) * (len(read) - 2), *shape) if kind == "PReLU" and len(shape) == 1 else shape


def save_keras_weights(model: Graph, path: Path) -> None:
    """Write a `.weights.h5`, whole or not at all, for `load_weights` of a Keras model with these layers in this order.

    BatchNormalization's `epsilon` is the Keras model's own: 0.001, where BatchNorm's `eps` is 0.00001, unless said.
    Raises ModelFormatError for a layer that Keras has not.
    """
    held = model.parameters() | model.statistics()
    h5py, buffer = hdf5.imported(), io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, place in places(model).items():
            group = file.create_group(f"{place.group}/vars")
            for index, (key, (shape, _)) in enumerate(place.shapes.items()):
                group[str(index)] = held[f"{name}.{key}"].reshape(shape)
    write_atomically(path, buffer.getvalue())


def set_keras_weights(model: Graph, path: Path, max_bytes: int) -> None:
    """Set a model's weights from those of a Keras model with the same layers in the same order: `.weights.h5`, or the
    older `.h5`.

    Raises ModelFormatError that names file and array for what does not fit.
    """
    with hdf5.failing_as(path, "no weights of Keras that can be read"), _opened(path, max_bytes) as file:
        reader = hdf5.Reader(max_bytes)
        found = _listed(file) if "layer_names" in file.attrs or "model_weights" in file else None
        layers = places(model)
        if found is not None and len(found) != len(layers):
            raise ModelFormatError(
                f"it has {len(found)} layers with arrays ({', '.join(found)}), expected {len(layers)}"
            )
        arrays: dict[str, np.ndarray] = {}
        for index, (name, place) in enumerate(layers.items()):
            paths = _numbered(file, place.group) if found is None else list(found.values())[index]
            if len(paths) != len(place.shapes):
                where = place.group if found is None else list(found)[index]
                raise ModelFormatError(f"{where} has {len(paths)} arrays, expected {list(place.shapes)} of {name!r}")
            for path_in_file, (key, (theirs, ours)) in zip(paths, place.shapes.items(), strict=True):
                array = reader.array(file, path_in_file)
                if array.shape != theirs:
                    raise ModelFormatError(f"{path_in_file} has shape {array.shape}, expected {theirs} of {name}.{key}")
                arrays[f"{name}.{key}"] = array.reshape(ours)
        model.set_parameters(arrays)


def _opened(path: Path, max_bytes: int) -> Any:
    """The weights of a file, or of the archive that a `.keras` file is."""
    if not zipfile.is_zipfile(path):
        return hdf5.opened(path)
    with zipfile.ZipFile(path) as archive:
        return hdf5.opened(content_of(archive, WEIGHTS, max_bytes))


def _numbered(file: Any, place: str) -> list[str]:
    held = hdf5.member(file, f"{place}/vars")
    return [f"{place}/vars/{i}" for i in range(0 if held is None else len(held))]


def _listed(file: Any) -> dict[str, list[str]]:
    """The paths of the arrays by layer, for layers that have some, of a file as Keras 2 wrote it."""
    root = "model_weights/" if "model_weights" in file else ""
    group = hdf5.member(file, root)
    found = {}
    for name in hdf5.texts(group, "layer_names"):
        layer = hdf5.member(group, name)
        paths = [] if layer is None else [f"{root}{name}/{path}" for path in hdf5.texts(layer, "weight_names")]
        if paths:
            found[name] = paths
    return found
