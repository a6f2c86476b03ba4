"""Inspection: what a model's file holds, layer by layer, and what of it can run here."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.files import expanded
from kernels import shapes

from ..encoding import ModelFormatError, harmless
from ..loading import FOREIGN_BYTES, load
from ..plan import BATCH, table
from . import folding, formats
from .folding import BatchSize
from .keras_reader import survey
from .onnx_file import OnnxFile, UnsupportedOperatorError, read_file
from .onnx_operators import OPERATORS
from .onnx_reader import Row, Walk
from .views import View

HEADINGS = ("node", "operator", "becomes", "output", "why not")


@dataclass(frozen=True)
class Inspection:
    """What is in a file: lines about the whole, a row for each node, and why it cannot run here, if it cannot."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether the whole network can run here."""
        return not self.reasons

    def __str__(self) -> str:
        listing = [table([HEADINGS, *self.rows])] if self.rows else []
        return "\n".join([*self.head, *listing, *self.reasons])


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """What is in a model's file. Raises FileNotFoundError, and ModelFormatError for a file that is damaged."""
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}")
    if formats.kind_of(path) in (formats.KERAS, formats.HDF5):
        return _keras(path)
    if formats.kind_of(path) != formats.ONNX:
        return Inspection(tuple(load(path, "numpy").summary().splitlines()), (), ())
    file = read_file(path)
    head = (
        f"{path.name}: {file.producer or 'of an unknown program'}, ONNX operator set {file.opset}, "
        f"{len(file.nodes)} nodes, {_counted(sum(array.size for array in file.constants.values()), 'number')} in it",
        *(f"input {_described(each)}" for each in file.inputs),
        *(f"output {_described(each)}{'' if at == 0 else ', not read here'}" for at, each in enumerate(file.outputs)),
    )
    try:
        walk = Walk(file, survey=True)
        reasons = _reasons(walk)
    except ModelFormatError as error:
        return Inspection(head, _unread(file), (str(error),))
    if reasons and (whole := _as_a_whole(file)) is not None:
        walk, reasons = whole, ()
        head = (*head, "its first axis is no batch: one sample is the whole input")
    rows = tuple(_row(walk, row) for row in walk.rows if not _folded(row))
    constant = sum(_folded(row) for row in walk.rows)
    idle = len(file.nodes) - len(walk.rows)
    more = [f"{_counted(constant, 'node')} over constants alone, computed beforehand"] * bool(constant)
    more += [f"{_counted(idle, 'node')} that the first output does not need"] * bool(idle)
    return Inspection((*head, *more), rows, reasons)


def _as_a_whole(file: OnnxFile) -> Walk | None:
    """The network on one sample that is the file's whole input; None where it cannot run so either."""
    try:
        walk = Walk(file, whole=True)
        walk.graph("numpy")
    except ModelFormatError:
        return None
    return walk


def _keras(path: Path) -> Inspection:
    """A network of Keras: by layer the nodes that it becomes, or what stands against it."""
    found = survey(path, FOREIGN_BYTES)
    head = f"{path.name}: Keras {harmless(found.version)}, {_counted(len(found.layers), 'layer')}"
    try:
        model = load(path, "numpy")
    except UnsupportedOperatorError as error:
        rows = tuple((harmless(name), harmless(kind), "", "", reason) for name, kind, reason in found.layers)
        return Inspection((head,), rows, (str(error),))
    made = []
    for name, kind, _ in found.layers:
        nodes = [node for node in model.nodes if node.name == name or node.name.startswith(f"{name}/")]
        output = shapes.text(model.node_shapes[nodes[-1].name]) if nodes else ""
        made.append((harmless(name), harmless(kind), ", ".join(str(node.layer) for node in nodes), output, ""))
    return Inspection((head, f"input {shapes.text((BATCH, *model.input_shape))}"), tuple(made), ())


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _described(value: object) -> str:
    name, dtype, shape = (getattr(value, each) for each in ("name", "dtype", "shape"))
    return f"{harmless(name)!r}: {dtype or 'of another type'} {'of any shape' if shape is None else shapes.text(shape)}"


def _folded(row: Row) -> bool:
    return row.output is not None and not isinstance(row.output, View)


def _row(walk: Walk, row: Row) -> tuple[str, ...]:
    node = row.node
    becomes = ""
    if isinstance(row.output, View):
        made = [str(walk.net.made[name].layer) for name in row.made]
        becomes = ", ".join(made) or (f"part of {row.output.node}" if _is_part(row) else "another view")
    return harmless(node.name or node.outputs[0]), node.operator, becomes, _shape(walk, row), harmless(row.reason)


def _is_part(row: Row) -> bool:
    return row.node.operator in ("Add", "Sum", "Sub", "Mul", "Div", "Log")


def _shape(walk: Walk, row: Row) -> str:
    if not isinstance(row.output, View):
        return ""
    sizes = walk.net.sizes(row.output)
    if walk.net.batch is not None and row.output.axes and len(row.output.axes[0]) == 1:
        sizes = [BatchSize(), *sizes[1:]]
    return shapes.text(tuple(BATCH if str(size) == "N" else str(size) for size in sizes))


def _unread(file: OnnxFile) -> tuple[tuple[str, ...], ...]:
    """The nodes of a network that cannot be begun: what is known of each alone."""
    rows = []
    for node in file.nodes:
        known = node.operator in OPERATORS or node.operator in folding.FOLDS
        rows.append(
            (harmless(node.name or node.outputs[0]), node.operator, "", "", "" if known else "is not supported")
        )
    return tuple(rows)


def _reasons(walk: Walk) -> tuple[str, ...]:
    """Why the network cannot run, a line for each operator; none if it can."""
    first = [row for row in walk.rows if row.reason and "cannot be computed" not in row.reason]
    if first:
        counts = Counter((row.node.operator, harmless(row.reason)) for row in first)
        return tuple(
            f"cannot run here: {_counted(n, operator + ' node')}: {why}" for (operator, why), n in counts.items()
        )
    try:
        walk.graph("numpy")
    except ModelFormatError as error:
        return (f"cannot run here: {error}",)
    return ()
