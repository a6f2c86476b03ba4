"""A model from a file that `saving` wrote or only says so, or from another program's: nothing in it is believed."""

from __future__ import annotations

import copyreg
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from data.files import expanded
from kernels import shapes

from .architecture import Architecture
from .encoding import KNOWN, ModelFormatError, decode, printable
from .exchange import formats
from .graph import DEFAULT_BACKEND, Graph
from .layers import Layer
from .lowering import lower_inference
from .nodes import ordered
from .precision import PRECISIONS
from .saving import DTYPES, FORMAT, MAX_METADATA, check_counts, check_extent
from .saving import content as serialised_model
from .sequential import Sequential

MAX_BYTES = 100_000_000  # 25 million float32 weights
MAX_HEADER = 1 << 22
FOREIGN_BYTES = 1 << 31
"""Of other programs' files, which hold larger networks."""

Held = tuple[str, tuple[int, ...]]
"""A tensor's type and shape."""


def load(
    path: str | os.PathLike[str],
    backend: str | None = None,
    layers: Sequence[type[Layer]] = (),
    max_bytes: int | None = None,
    into: Graph | None = None,
    precision: str | None = None,
) -> Graph:
    """The model in a file, on any backend: this package's own, ONNX's or Keras', by what the file holds.

    layers: layer classes of your own that the file may name. max_bytes: of the file, 100 MB of this package's own and
    2 GiB of any other unless told; loading takes about four times as much memory. into: a model that takes the weights
    of the file, which then need not hold a network: a state dict of PyTorch (torch.save's or safetensors), or Keras'
    `.weights.h5`; it is matched layer by layer, changed in place and returned. precision: in which the model runs, as
    of a `Graph`.

    Nothing in the file is executed, and nothing is allocated on its word: the architecture's arrays are held against
    those that are there first. Raises FileNotFoundError, or ModelFormatError for anything that is not a whole and
    consistent model; what a file of another program holds that cannot run here is named
    (`exchange.UnsupportedOperatorError`), as is each array that does not fit `into`.
    """
    path = expanded(path, "load: path")
    _check_options(layers, max_bytes)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}")
    kind = formats.kind_of(path)
    most = FOREIGN_BYTES if max_bytes is None else max_bytes
    if precision is not None:
        shapes.word("load", "precision", precision, PRECISIONS)
    if into is not None:
        return _into(into, backend, precision, path, kind, most)
    kernels.get(DEFAULT_BACKEND if backend is None else backend)  # a wrong name is no fault of the file
    if kind in (formats.ONNX, formats.KERAS, formats.HDF5, formats.TORCH):
        model = _foreign(path, backend, kind, most)
    else:
        model = _own(path, backend, layers, MAX_BYTES if max_bytes is None else max_bytes)
    return model if precision is None else model.to(model.backend, precision=precision)


def _foreign(path: Path, backend: str | None, kind: str, most: int) -> Graph:
    """The model in a file of another program."""
    if kind == formats.ONNX:
        from .exchange.onnx_reader import read_onnx

        return read_onnx(path, backend, most)
    if kind in (formats.KERAS, formats.HDF5):
        from .exchange.keras_reader import read_keras

        return read_keras(path, backend, most)
    from .exchange.torch_state import check_no_program

    check_no_program(path)
    raise ModelFormatError(
        f"{path}: PyTorch's weights without a network; build the network here, and load(path, into=model)"
    )


def _check_options(layers: Any, max_bytes: Any) -> None:
    """Raise TypeError or ValueError for arguments of another kind, which are no fault of the file."""
    if not isinstance(layers, list | tuple) or not all(isinstance(c, type) and issubclass(c, Layer) for c in layers):
        raise TypeError(f"load: layers is {layers!r}, expected classes of models.Layer in a list")
    if max_bytes is not None:
        shapes.integer("load", "max_bytes", max_bytes, 0)


def _into(model: Graph, backend: str | None, precision: str | None, path: Path, kind: str, max_bytes: int) -> Graph:
    """A model with the weights of a file."""
    if not isinstance(model, Graph):
        raise TypeError(f"load: into is {model!r}, expected a model")
    if backend not in (None, model.backend):
        raise ValueError(
            f"load: backend is {backend!r}, and into runs on {model.backend!r}; into.to({backend!r}) gives another"
        )
    if precision not in (None, model.precision):
        raise ValueError(
            f"load: precision is {precision!r}, and into runs in {model.precision}; "
            f"into.to({model.backend!r}, precision={precision!r}) gives another"
        )
    if kind == formats.ONNX:
        raise ModelFormatError(f"{path}: it holds a network with its weights; load(path) reads both")
    if kind in (formats.KERAS, formats.HDF5):
        from .exchange.keras_weights import set_keras_weights

        set_keras_weights(model, path, max_bytes)
    else:
        from .exchange.torch_state import load_state

        load_state(model, path, max_bytes)
    return model


def _own(path: Path, backend: str | None, layers: Sequence[type[Layer]], max_bytes: int) -> Graph:
    """The model in a file that `save` wrote."""
    from safetensors import SafetensorError, safe_open

    known = KNOWN | {cls.__name__: cls for cls in layers}
    try:
        _check_bytes(path, max_bytes)
        # Starting weights are drawn, by whatever gain the file names, before its own take their place.
        with safe_open(path, framework="numpy") as file, np.errstate(all="ignore"):
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            held = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            kind, architecture = _architecture(file.metadata(), known)
            least = _check_tensors(held, architecture)
            model = kind.of(architecture, backend)
            check_extent(model)
            tensors = {name: file.get_tensor(name) for name in held}
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ModelFormatError(f"{name} is not finite")
            if tensor.min() < least[name]:
                raise ModelFormatError(f"{name} has an element of {tensor.min():g}, expected at least {least[name]:g}")
        model.set_parameters(tensors)
    except (SafetensorError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: not a readable model ({printable(error)})") from error
    return model


def from_bytes(
    content: bytes,
    backend: str,
    layers: Sequence[type[Layer]] = (),
    rewrites: tuple[str, ...] | None = None,
    precision: str | None = None,
) -> Graph:
    """The model that a file with this content would hold; what a pickled model is made from."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        model = load(path, backend, layers, len(content), precision=precision)
    model.rewrites = rewrites
    return model


def _reduced(model: Graph) -> tuple[Any, ...]:
    """A model for pickle: the file that `save` writes, and the classes of the layers that are not of this package."""
    own = {type(node.layer) for node in model.nodes} - set(KNOWN.values())
    return from_bytes, (serialised_model(model), model.backend, tuple(own), model.rewrites, model.precision)


copyreg.pickle(Graph, _reduced)
copyreg.pickle(Sequential, _reduced)


def _check_bytes(path: Path, max_bytes: int) -> None:
    size = path.stat().st_size
    if size > max_bytes:
        raise ModelFormatError(f"{size} bytes, expected at most {max_bytes}; load(..., max_bytes={size}) takes it")
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MAX_HEADER:
        raise ModelFormatError(f"a header of {header} bytes, expected at most {MAX_HEADER}")


def _architecture(metadata: dict[str, str] | None, known: dict[str, type]) -> tuple[type[Graph], Architecture]:
    """The architecture that a file tells of, and which of the two ways it was written in."""
    text = (metadata or {}).get("twinkernels", "")
    if not text or len(text) > MAX_METADATA:
        raise ModelFormatError("no architecture of this package in its metadata")
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ModelFormatError(f"format is not {FORMAT}")
    check_counts(told)
    nodes = {name: (decode(layer, known), *inputs) for name, layer, inputs in told["nodes"]}
    if len(nodes) < len(told["nodes"]):
        raise ModelFormatError("two nodes have one name")
    if told["dtype"] not in ("float32", "float64"):
        raise ModelFormatError(f"dtype is {told['dtype']}, expected float32 or float64")
    architecture = Architecture(
        nodes=ordered(nodes, told["output"]),
        output=told["output"],
        input_shape=tuple(told["input_shape"]),
        dtype=np.dtype(told["dtype"]),
        seed=told["seed"],
        normalisation=None if told["normalisation"] is None else tuple(told["normalisation"]),
        classes=told.get("classes"),
        altered=told.get("altered"),
    )
    return Sequential if told["kind"] == "Sequential" else Graph, architecture


def _check_tensors(held: Mapping[str, Held], architecture: Architecture) -> dict[str, float]:
    """Raise ModelFormatError unless the arrays of the architecture are those that the file holds; the least of each."""
    _, network = lower_inference(architecture)
    arrays = network.parameters | network.statistics
    expected = {name: array.shape for name, array in arrays.items()}
    if held.keys() != expected.keys():
        odd = sorted(held.keys() ^ expected.keys())
        raise ModelFormatError(f"tensors do not match the architecture: {', '.join(odd[:5])}")
    code = next(code for code, dtype in DTYPES.items() if dtype == architecture.dtype)
    for name, shape in expected.items():
        held_code, held_shape = held[name]
        shapes.equal("model", name, held_shape, shape)
        if held_code != code:
            raise ModelFormatError(f"{name} has dtype {held_code}, expected {code}")
    return {name: array.least for name, array in arrays.items()}
