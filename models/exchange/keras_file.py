"""What Keras' files hold: the configuration of a network, and the arrays of its layers; `.keras` and `.h5` alike."""

from __future__ import annotations

import functools
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..encoding import ModelFormatError
from . import hdf5
from .hdf5_classic import SIGNATURE
from .onnx_file import MAX_FILE_NODES

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MAX_CONFIG = 1 << 24
MAX_DEPTH = 20
MODELS = ("Sequential", "Functional", "Model")
# The two kinds of file ----------------------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """A layer that holds no other: its class, its configuration, where its arrays are, and whether it is trained."""

    kind: str
    config: Mapping[str, Any]
    place: str
    trainable: bool


@dataclass
class File:
    """What a file holds: the configuration of its model, who wrote it, and how the arrays of a layer are found."""

    model: Mapping[str, Any]
    version: str
    arrays: Callable[[Leaf], dict[str, np.ndarray]]


@contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[File]:
    with open(path, "rb") as start:
        signature = start.read(len(SIGNATURE))
    if signature == SIGNATURE:
        with hdf5.opened(path) as file:
            yield _whole_model(file, hdf5.Reader(max_bytes))
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if CONFIG not in names:
            raise ModelFormatError(f"no {CONFIG} in it: an archive of another kind")
        if WEIGHTS not in names:
            raise ModelFormatError(f"no {WEIGHTS} in it; weights in several files or as .npz are not read")
        config = json.loads(content_of(archive, CONFIG, MAX_CONFIG))
        metadata = json.loads(content_of(archive, METADATA, MAX_CONFIG)) if METADATA in names else {}
        weights = content_of(archive, WEIGHTS, max_bytes)
    with hdf5.opened(weights) as file:
        yield File(config, str(metadata.get("keras_version", "3")), _Places(file, hdf5.Reader(max_bytes)).arrays)


def content_of(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """What an archive holds under a name, of so many bytes at most."""
    with archive.open(name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ModelFormatError(f"{name} takes more than {limit} bytes; load(..., max_bytes=) takes more")
    return content


@dataclass
class _Places:
    """The arrays of a `.keras` file: under layers/<class>_<count>/vars, numbered."""

    file: Any
    reader: hdf5.Reader

    def arrays(self, leaf: Leaf) -> dict[str, np.ndarray]:
        expected = variables_of(leaf)
        place = leaf.place
        if expected and hdf5.member(self.file, place) is None:  # as the first files of the kind were written
            place = place.replace("layers/", "_layer_checkpoint_dependencies/")
        held = hdf5.member(self.file, f"{place}/vars")
        count = 0 if held is None else len(held)
        if count != len(expected):
            raise ModelFormatError(f"{place} has {count} arrays, expected {len(expected)} ({', '.join(expected)})")
        name = None if held is None else held.attrs.get("name")
        if name is not None and hdf5.text(name) != leaf.config.get("name"):
            raise ModelFormatError(
                f"{place} holds the arrays of {name!r}, expected those of {leaf.config.get('name')!r}"
            )
        return {key: self.reader.array(self.file, f"{place}/vars/{i}") for i, key in enumerate(expected)}


def _whole_model(file: Any, reader: hdf5.Reader) -> File:
    """A model as Keras 2 wrote it: the architecture in an attribute, the arrays by the layers' names."""
    if "model_config" not in file.attrs:
        raise ModelFormatError(
            "it holds weights without a network; build the network here, and load(..., into=model) sets its weights"
            if "layer_names" in file.attrs or "layers" in file
            else "an HDF5 file, but not one of Keras"
        )
    config = hdf5.text(file.attrs["model_config"])
    group = hdf5.member(file, "model_weights")
    written = file.attrs if group is None else group.attrs
    version = hdf5.text(file.attrs.get("keras_version", written.get("keras_version", "1")))
    if version.startswith("1"):
        raise ModelFormatError("it is of Keras 1, which is not read; load and save it with Keras 2 first")
    if hdf5.text(file.attrs.get("backend", written.get("backend", "tensorflow"))) == "theano":
        raise ModelFormatError(
            "it is of Keras on Theano, which flips kernels; load and save it on another backend first"
        )
    if len(config) > MAX_CONFIG or group is None:
        raise ModelFormatError("no model_weights in it" if group is None else "its configuration is too long")
    model = json.loads(config)
    groups = {name_of(each): list(leaves_of(each, place, True, 0)) for each, place in placed(layers_of(model), "")}
    names = {leaf.place: name for name, leaves in groups.items() for leaf in leaves}

    @functools.cache
    def paths(name: str) -> dict[str, dict[str, str]]:
        return _shared_out(groups[name], name, hdf5.member(group, name))

    def arrays(leaf: Leaf) -> dict[str, np.ndarray]:
        name = names[leaf.place]
        found = paths(name)[leaf.place]
        return {variable: reader.array(group, f"{name}/{path}") for variable, path in found.items()}

    return File(model, version, arrays)


def _shared_out(leaves: Sequence[Leaf], name: str, group: Any) -> dict[str, dict[str, str]]:
    """The paths of the arrays of one layer of the outermost model, by the places of the layers that are in it.

    Keras writes what is trained first, then the rest, each in the order of the layers.
    """
    variables = [(leaf, variable) for leaf in leaves for variable in variables_of(leaf)]
    order = sorted(variables, key=lambda pair: not (pair[0].trainable and pair[1] not in STATISTICS))
    paths = [] if group is None else hdf5.texts(group, "weight_names")
    if len(paths) != len(order):
        names = ", ".join(variable for _, variable in order)
        raise ModelFormatError(f"layer {name!r} has {len(paths)} arrays in the file, expected {len(order)} ({names})")
    held: dict[str, dict[str, str]] = {leaf.place: {} for leaf in leaves}
    for (leaf, variable), path in zip(order, paths, strict=True):
        base = re.sub(r"(_\d+)?(:0)?$", "", path.rpartition("/")[2])
        if base in ALL_VARIABLES and base != variable and not {base, variable} <= {"kernel", "depthwise_kernel"}:
            raise ModelFormatError(f"layer {name!r}: {path} stands where {variable} is expected")
        held[leaf.place][variable] = path
    return held


# What a configuration tells -----------------------------------------------------------------------------------------

STATISTICS = ("moving_mean", "moving_variance", "mean", "variance", "count")
VARIABLES = {
    "Dense": ("kernel", "bias"),
    "Conv2D": ("kernel", "bias"),
    "Convolution2D": ("kernel", "bias"),
    "Conv1D": ("kernel", "bias"),
    "DepthwiseConv1D": ("depthwise_kernel", "bias"),
    "SeparableConv1D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "Conv2DTranspose": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "GroupNormalization": ("gamma", "beta"),
    "PReLU": ("alpha",),
}
"""The arrays of each class that has some, in the order of their creation."""
ALL_VARIABLES = {name for names in VARIABLES.values() for name in names}
SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""The setting without which an array is left out."""


def variables_of(leaf: Leaf) -> list[str]:
    if leaf.kind == "Normalization" and leaf.config.get("mean") is None:
        return ["mean", "variance", "count"]
    return [name for name in VARIABLES.get(leaf.kind, ()) if leaf.config.get(SWITCHES.get(name, ""), True)]


def entry_of(given: Any) -> Mapping[str, Any]:
    """A layer's configuration: {"class_name": ..., "config": {...}}."""
    if not isinstance(given, dict) or not isinstance(given.get("class_name"), str):
        raise ModelFormatError("its configuration does not tell of layers")
    config = given.get("config")
    if isinstance(config, list):  # a Sequential of before Keras 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict):
        raise ModelFormatError(f"a {given['class_name']} has no configuration")
    return given | {"config": config}


def layers_of(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entry = entry_of(model)
    found = entry["config"].get("layers")
    if entry["class_name"] not in MODELS or not isinstance(found, list):
        raise ModelFormatError(
            f"it is a {entry['class_name']}, a class of its author's own, whose code is not in the file; "
            "export it to ONNX, or save a functional model that holds its layers"
        )
    if len(found) > MAX_FILE_NODES:
        raise ModelFormatError(f"{len(found)} layers, expected at most {MAX_FILE_NODES}")
    return [entry_of(layer) for layer in found]


def name_of(entry: Mapping[str, Any]) -> str:
    return str(entry["config"].get("name", entry.get("name", entry["class_name"])))


def _snake(kind: str) -> str:
    """A class name as Keras makes a group's name of it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def placed(entries: Sequence[Mapping[str, Any]], place: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each layer with the group that a `.keras` file has for it: by class, counted."""
    counts: dict[str, int] = {}
    for entry in entries:
        kind = _snake("Functional" if entry["class_name"] == "Model" else entry["class_name"])
        counts[kind] = counts.get(kind, -1) + 1
        suffix = f"_{counts[kind]}" if counts[kind] else ""
        yield entry, f"{place}/layers/{kind}{suffix}".lstrip("/")


def leaves_of(entry: Mapping[str, Any], place: str, trainable: bool, depth: int) -> Iterator[Leaf]:
    """The layers of a model that hold no others, in order; of a layer, itself."""
    kind, config = entry["class_name"], entry["config"]
    trainable = trainable and bool(config.get("trainable", True))
    if kind not in MODELS:
        yield Leaf(kind, config, place, trainable)
        return
    if depth == MAX_DEPTH:
        raise ModelFormatError(f"models in models, more than {MAX_DEPTH} deep")
    for inner, where in placed(layers_of(entry), place):
        yield from leaves_of(inner, where, trainable, depth + 1)


def named(entry: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The name and class of each layer that holds no others, those of inner models behind the model's name."""
    if depth == MAX_DEPTH:
        raise ModelFormatError(f"models in models, more than {MAX_DEPTH} deep")
    for inner in layers_of(entry):
        if inner["class_name"] in MODELS:
            yield from named(inner, f"{prefix}{name_of(inner)}/", depth + 1)
        else:
            yield prefix + name_of(inner), inner["class_name"]


def input_shape(model: Mapping[str, Any], depth: int = 0) -> tuple[int, ...]:
    """The shape of one sample of the model's only input."""
    if depth == MAX_DEPTH:
        raise ModelFormatError(f"models in models, more than {MAX_DEPTH} deep")
    entries, config = layers_of(model), entry_of(model)["config"]
    if not entries:
        raise ModelFormatError("there is no layer in it")
    first = entries[0]
    if "input_layers" in config:
        names = [name for name, *_ in references(config["input_layers"])]
        if len(names) != 1:
            raise ModelFormatError(f"it has {len(names)} inputs ({', '.join(names)}), and models here have one")
        first = next((entry for entry in entries if name_of(entry) == names[0]), first)
    told = first["config"].get("batch_shape", first["config"].get("batch_input_shape"))
    if told is None and first["class_name"] in MODELS:
        return input_shape(first, depth + 1)
    if told is None:
        told = config.get("build_input_shape", (model.get("build_config") or {}).get("input_shape"))
    if not isinstance(told, list | tuple):
        raise ModelFormatError("it does not say how large its input is; build it, and save it again")
    if any(type(size) is not int for size in told[1:]):
        sizes = ", ".join("any" if size is None else str(size) for size in told[1:])
        raise ModelFormatError(
            f"its input is ({sizes}), and models here have one size; save it with sizes that are fixed"
        )
    return tuple(told[1:])


def takes_pixels(model: Mapping[str, Any]) -> bool:
    """Whether a network takes pixels as they are: its input is of uint8, or the first thing it does is to rescale."""
    entries = layers_of(model)
    while entries and entries[0]["class_name"] in MODELS:
        entries = layers_of(entries[0])
    kinds = [entry["class_name"] for entry in entries if entry["class_name"] != "InputLayer"]
    return entries[0]["config"].get("dtype") == "uint8" or kinds[:1] in (["Rescaling"], ["Normalization"])


def references(told: Any) -> list[tuple[str, int, int]]:
    """References to outputs of layers, (name, call, output), in however deep a list or dict they stand."""
    if isinstance(told, list) and len(told) >= 3 and isinstance(told[0], str) and type(told[1]) is type(told[2]) is int:
        return [(told[0], told[1], told[2])]
    if isinstance(told, dict) and told.get("class_name") == "__keras_tensor__":
        return references(told["config"]["keras_history"])
    items: Any = told.values() if isinstance(told, dict) else told if isinstance(told, list) else ()
    return [found for item in items for found in references(item)]


class Call(NamedTuple):
    """One use of a layer: the outputs that it reads, the numbers that stand beside them, and on which side."""

    inputs: list[tuple[str, int, int]]
    numbers: list[float]
    number_first: bool


def call_of(told: Any) -> Call:
    """A call as Keras 3 writes it, {"args": ..., "kwargs": ...}, or Keras 2, [[name, call, output, {...}], ...]."""
    inputs = references(told)
    flat: list[Any] = []
    if isinstance(told, dict):
        given = told.get("args", [])
        for item in given if isinstance(given, list) else [given]:
            flat.append(item)
        flat += [item for key, item in (told.get("kwargs") or {}).items() if key not in ("mask", "training")]
    elif isinstance(told, list):
        for item in told:
            flat.append(item)
            if isinstance(item, list) and len(item) == 4 and isinstance(item[3], dict):
                inputs += references(list(item[3].values()))
                flat += [value for key, value in item[3].items() if key not in ("mask", "training", "name")]
    numbers = [float(item) for item in flat if isinstance(item, int | float) and not isinstance(item, bool)]
    return Call(inputs, numbers, bool(flat) and isinstance(flat[0], int | float))
