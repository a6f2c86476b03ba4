"""Nodes: the layers of a graph by name, each with the names of those that it reads."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .layers import Layer
from .plan import gradient_name

INPUT = "input"
MAX_NAME = 200


@dataclass(frozen=True)
class Node:
    """One layer of a graph and the names of the nodes it reads."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


def _objection(name: object) -> str:
    """What is wrong with a node's name, "" if nothing: names stand in files, in messages and in names of arrays."""
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}, expected a string"
    if not name or name == INPUT:
        return (
            f"expected another than {INPUT!r}, which is the model's input" if name else "expected a character at least"
        )
    if len(name) > MAX_NAME:
        return f"it has {len(name)} characters, expected at most {MAX_NAME}"
    odd = next((c for c in name if c == "'" or not c.isprintable()), "")
    if odd:
        return f"it has the character {odd!r}, expected printable ones other than a single quote"
    if ".." in name.replace("\\", "/").split("/"):  # of a file that is unpacked by names
        return "it has a part '..', which leads elsewhere where a name is taken for a path"
    return ""


def ordered(nodes: Mapping[str, Sequence[Any]], output: str) -> tuple[Node, ...]:
    """The nodes with every input before its readers, after checking names, arity, cycles and reachability."""
    if not isinstance(nodes, Mapping):
        raise TypeError(f"Graph: nodes is {nodes!r}, expected {{name: (layer, input, ...)}}")
    if not isinstance(output, str):
        raise TypeError(f"output is {output!r}, expected the name of one node")
    parsed: dict[str, Node] = {}
    for name, entry in nodes.items():
        if objection := _objection(name):
            raise ValueError(f"node name {name!r} is not allowed: {objection}")
        if not isinstance(entry, (tuple, list)) or len(entry) < 2 or not isinstance(entry[0], Layer):
            raise TypeError(f"node {name!r} is {entry!r}, expected (layer, input, ...)")
        layer, *inputs = entry
        if len(inputs) != layer.arity if layer.arity else len(inputs) < 2:
            expected = layer.arity or "two or more"
            raise ValueError(f"node {name!r} has {len(inputs)} inputs, {type(layer).__name__} expects {expected}")
        if (other := gradient_name(name)) in nodes:  # both would own an array "dname.w"
            raise ValueError(f"node names {name!r} and {other!r} clash: {other}.w is the gradient by {name}.w")
        parsed[name] = Node(name, layer, tuple(inputs))
    if output not in parsed:
        raise ValueError(f"output {output!r} is not a node; expected one of {', '.join(parsed) or 'no nodes'}")
    for node in parsed.values():
        for source in node.inputs:
            if not isinstance(source, str):
                raise TypeError(f"node {node.name!r} reads {source!r}, which is no name")
            if source != INPUT and source not in parsed:
                raise ValueError(
                    f"node {node.name!r} reads {source!r}, which is no node; expected one of "
                    f"{INPUT}, {', '.join(parsed)}"
                )
    try:
        sorter = graphlib.TopologicalSorter({n.name: [s for s in n.inputs if s != INPUT] for n in parsed.values()})
        order = list(sorter.static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"the graph has a cycle: {' -> '.join(error.args[1])}") from None
    leads = {output}
    for name in reversed(order):
        if name not in leads:
            raise ValueError(f"node {name!r} does not lead to the output {output!r}")
        leads.update(parsed[name].inputs)
    return tuple(parsed[name] for name in order)
