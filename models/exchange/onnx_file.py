"""An `.onnx` file as plain Python: nodes in order, constants as arrays, inputs and outputs. Nothing in it is believed.

Needs the package onnx, for the format alone.
"""

from __future__ import annotations

import graphlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..encoding import MAX_MESSAGE, ModelFormatError, harmless, printable
from .folding import DTYPES
from .onnx_wire import Weights, without_weights

MAX_BYTES = 1 << 31
"""Of a file, with the second file that holds its weights: protobuf's own limit."""

MAX_FILE_NODES = 20_000
MAX_DEPTH = 8
"""Of graphs in attributes of graphs."""
OPSETS = range(5, 100)


class UnsupportedOperatorError(ModelFormatError):
    """A network that is sound and has a part that cannot run here; the message names operator, node and file."""


@dataclass(frozen=True)
class FileNode:
    """One operator of the file."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def reads(self) -> tuple[str, ...]:
        """Its inputs, and the names that graphs among its attributes read of those around them."""
        graphs = [each for each in self.attributes.values() if isinstance(each, FileGraph)]
        return (*self.inputs, *(name for graph in graphs for name in graph.outer))

    def __str__(self) -> str:
        made = self.name or (f"that makes {self.outputs[0]}" if self.outputs else "without a name")
        return f"node {harmless(made)!r}" if self.name else f"the node {harmless(made)}"


@dataclass(frozen=True)
class FileGraph:
    """The graph of an attribute: what an If does one way. It may read names of the graphs around it."""

    nodes: tuple[FileNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]

    @property
    def own(self) -> set[str]:
        """The names of its tensors."""
        return {*self.inputs, *self.constants, *(name for node in self.nodes for name in node.outputs if name)}

    @property
    def outer(self) -> tuple[str, ...]:
        """The names that it reads of the graphs around it, as often as it reads them."""
        own = self.own
        read = (*(name for node in self.nodes for name in node.reads if name), *self.outputs)
        return tuple(name for name in read if name not in own)


@dataclass(frozen=True)
class FileInput:
    """An input or output of the file: sizes are numbers, names for those that are not known, or None altogether."""

    name: str
    dtype: np.dtype | None
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """What a file holds."""

    path: Path
    producer: str
    opset: int
    nodes: tuple[FileNode, ...]
    inputs: tuple[FileInput, ...]
    outputs: tuple[FileInput, ...]
    constants: dict[str, np.ndarray]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> OnnxFile:
    """The file at a path. Raises ModelFormatError for one that is damaged, too large, or lies about its sizes."""
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise ModelFormatError(f"{path}: reading it needs the package onnx: pip install 'twinkernels[onnx]'") from None
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ModelFormatError(f"{size} bytes, expected at most {max_bytes}")
        content, weights = without_weights(path)
        proto = _proto(content)
        if proto.functions:
            proto, weights = onnx.inliner.inline_local_functions(_proto(path.read_bytes())), {}
        return _parsed(proto, weights, path, max_bytes - size)
    except ModelFormatError as error:
        raise type(error)(f"{path}: {harmless(str(error)[: 3 * MAX_MESSAGE])}") from None
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError, RecursionError) as error:
        raise ModelFormatError(f"{path}: not a readable ONNX file ({printable(error)})") from error


def _proto(content: bytes) -> Any:
    import onnx

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, which has no type of its own in every version
        raise ModelFormatError(f"no ONNX file ({printable(error)})") from None
    return proto


def _parsed(proto: Any, weights: Mapping[int, Weights], path: Path, rest: int) -> OnnxFile:
    graph = proto.graph
    opsets = {_text(each.domain): each.version for each in proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0 if opsets else 1))
    if not graph.node or not graph.output:
        raise ModelFormatError("no network in it")
    if opset not in OPSETS:
        raise ModelFormatError(f"operator set {opset}, expected {OPSETS[0]} or newer; onnx.version_converter turns it")
    if graph.sparse_initializer:
        name = _text(graph.sparse_initializer[0].values.name)
        raise UnsupportedOperatorError(f"constant {name!r} is sparse, expected dense ones")
    store = _Store(path, rest)
    constants = {_text(each.name): store.array(each, weights.get(i)) for i, each in enumerate(graph.initializer)}
    nodes = [_node(each, store) for each in graph.node]
    inputs = [value for value in map(_value, graph.input) if value.name not in constants]
    return OnnxFile(
        path=path,
        producer=harmless(f"{_text(proto.producer_name)} {_text(proto.producer_version)}".strip()[:MAX_MESSAGE]),
        opset=opset,
        nodes=_ordered(nodes, {*constants, *(each.name for each in inputs)}),
        inputs=tuple(inputs),
        outputs=tuple(_value(each) for each in graph.output),
        constants=constants,
        metadata={_text(each.key): _text(each.value) for each in proto.metadata_props},
    )


def _text(value: str | bytes) -> str:
    """A text of the file, which may hold bytes that are none."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _value(info: Any) -> FileInput:
    kind = info.type.tensor_type
    shape: tuple[int | str, ...] | None = None
    if kind.HasField("shape"):
        shape = tuple(
            int(axis.dim_value) if axis.dim_value > 0 else harmless(_text(axis.dim_param)[:MAX_MESSAGE]) or "?"
            for axis in kind.shape.dim
        )
    return FileInput(_text(info.name), np.dtype(DTYPES[kind.elem_type]) if kind.elem_type in DTYPES else None, shape)


_UNREAD = {5: "a graph", 10: "graphs", 11: "a sparse tensor", 12: "sparse tensors", 13: "a type", 14: "types"}
"""Attributes of which nothing but the kind is kept, by onnx.AttributeProto's number of it."""


def _node(proto: Any, store: _Store, depth: int = 0) -> FileNode:
    import onnx

    store.count_node()
    attributes: dict[str, Any] = {}
    for each in proto.attribute:
        if each.type == onnx.AttributeProto.TENSOR:
            attributes[_text(each.name)] = store.array(each.t)
        elif each.type == onnx.AttributeProto.GRAPH and depth < MAX_DEPTH:
            attributes[_text(each.name)] = _subgraph(each.g, store, depth + 1)
        elif each.type in _UNREAD:
            attributes[_text(each.name)] = _UNREAD[each.type]
        else:
            value = onnx.helper.get_attribute_value(each)
            value = _text(value) if isinstance(value, bytes) else value
            attributes[_text(each.name)] = value if isinstance(value, (int, float, str)) else tuple(value)
    domain = "" if _text(proto.domain) in ("", "ai.onnx") else f"{_text(proto.domain)}."
    return FileNode(
        name=_text(proto.name),
        operator=harmless((domain + _text(proto.op_type))[:MAX_MESSAGE]),
        inputs=tuple(map(_text, proto.input)),
        outputs=tuple(map(_text, proto.output)),
        attributes=attributes,
    )


def _subgraph(graph: Any, store: _Store, depth: int) -> FileGraph:
    """A graph that is an attribute."""
    return FileGraph(
        nodes=tuple(_node(each, store, depth) for each in graph.node),
        inputs=tuple(_text(each.name) for each in graph.input),
        outputs=tuple(_text(each.name) for each in graph.output),
        constants={_text(each.name): store.array(each) for each in graph.initializer},
    )


def _ordered(nodes: list[FileNode], known: set[str]) -> tuple[FileNode, ...]:
    """Every node behind those that it reads. Raises ModelFormatError for a cycle, and for what nothing makes."""
    maker: dict[str, int] = {}
    for at, node in enumerate(nodes):
        for output in node.outputs:
            if not output:
                continue
            if output in maker or output in known:
                raise ModelFormatError(f"two nodes make {output!r}")
            maker[output] = at
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    in_order = True
    for at, node in enumerate(nodes):
        missing = [name for name in node.reads if name and name not in maker and name not in known]
        if missing:
            raise ModelFormatError(f"{node} ({node.operator}) reads {missing[0]!r}, which nothing makes")
        before = [maker[name] for name in node.reads if name in maker]
        in_order &= all(other < at for other in before)
        sorter.add(at, *before)
    if in_order:
        return tuple(nodes)
    try:
        return tuple(nodes[at] for at in sorter.static_order())
    except graphlib.CycleError as error:
        raise ModelFormatError(f"the graph has a cycle through {nodes[error.args[1][0]]}") from None


class _Store:
    """Constants of the file, and of the files beside it, as long as bytes are left; and a count of its nodes."""

    def __init__(self, path: Path, rest: int) -> None:
        self._path = path
        self._rest = rest
        self._nodes = 0

    def count_node(self) -> None:
        """Raises ModelFormatError for one node too many."""
        self._nodes += 1
        if self._nodes > MAX_FILE_NODES:
            raise ModelFormatError(f"more than {MAX_FILE_NODES} nodes, expected at most as many")

    def array(self, tensor: Any, weights: Weights | None = None) -> np.ndarray:
        """A tensor; `weights` lie in the file. Raises ModelFormatError unless it holds as many numbers as it says."""
        from onnx import TensorProto, numpy_helper

        shape = tuple(tensor.dims)
        name = _text(tensor.name)
        if any(size < 0 for size in shape) or len(shape) > 32:
            raise ModelFormatError(f"constant {name!r} has the shape {shape[:8]}")
        if tensor.data_type == TensorProto.STRING:
            return np.empty(0, np.str_)
        if tensor.data_type != TensorProto.BFLOAT16 and tensor.data_type not in DTYPES:
            kinds = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
            kind = kinds.get(tensor.data_type, tensor.data_type)
            raise UnsupportedOperatorError(f"constant {name!r} is of type {kind}, expected floats or integers")
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, name, shape)
        try:
            array = numpy_helper.to_array(tensor) if weights is None else self._read(weights, shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelFormatError(f"constant {name!r} of shape {shape} is damaged ({printable(error)})") from None
        if array.shape != shape:
            raise ModelFormatError(f"constant {name!r} has shape {array.shape}, expected {shape}")
        return array.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else array

    def _read(self, weights: Weights, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 of the file itself."""
        return _native(np.fromfile(self._path, "<f4", weights.size // 4, offset=weights.start).reshape(shape))

    def _external(self, tensor: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers of a file beside this one, and of no other."""
        told = {_text(each.key): _text(each.value) for each in tensor.external_data}
        location = told.get("location", "")
        try:
            offset, length = int(told.get("offset", 0)), int(told.get("length", -1))
        except ValueError:
            raise ModelFormatError(f"constant {name!r} begins at {told.get('offset')!r}, which is no number") from None
        folder = self._path.parent.resolve()
        path = (folder / location).resolve() if location and "\0" not in location else folder
        if folder not in path.parents:
            raise ModelFormatError(f"constant {name!r} lies in {location!r}, expected a file of the same folder")
        if not path.is_file():
            raise ModelFormatError(f"constant {name!r} lies in {location!r}, expected beside this file")
        if tensor.data_type not in DTYPES:
            raise UnsupportedOperatorError(f"constant {name!r} is of a type that only fits into the file itself")
        dtype = np.dtype(DTYPES[tensor.data_type]).newbyteorder("<")
        wanted = math.prod(shape) * dtype.itemsize
        held = path.stat().st_size
        if length not in (-1, wanted) or offset < 0 or offset + wanted > held:
            raise ModelFormatError(
                f"constant {name!r} of shape {shape} takes {wanted} bytes of {location!r} from {offset} on, which says "
                f"{length if length >= 0 else wanted} and holds {held} in all"
            )
        self._rest -= wanted
        if self._rest < 0:
            raise ModelFormatError(f"constant {name!r} brings the weights above {MAX_BYTES} bytes")
        with open(path, "rb") as file:
            file.seek(offset)
            array = np.frombuffer(file.read(wanted), dtype).reshape(shape)
        return _native(array)


def _native(array: np.ndarray) -> np.ndarray:
    """An array in the machine's order of bytes."""
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))
