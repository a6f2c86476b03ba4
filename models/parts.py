"""Parts: stretches of the flat parameter vector that an optimizer updates each at a learning rate of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kernels import shapes
from kernels.interface import Scalar

from .layout import Layout


@dataclass(frozen=True)
class Part:
    """Elements `start` to `stop` of the flat vectors: the parameters of `nodes`, at `factor` times the rate."""

    index: int
    nodes: tuple[str, ...]
    start: int
    stop: int
    factor: float

    @property
    def learning_rate(self) -> Scalar:
        """Its learning rate among a step's scalars."""
        return Scalar(f"learning_rate[{self.index}]", float)

    def of(self, vector: str) -> str:
        """The name of its stretch of a vector."""
        return f"{vector}[{self.index}]"

    def views(self, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Its stretches of vectors, by name."""
        return {self.of(name): vector[self.start : self.stop] for name, vector in vectors.items()}


def parts_of(where: str, layout: Layout, nodes: Sequence[str], factors: Mapping[str, float]) -> tuple[Part, ...]:
    """The parts of a model whose nodes learn at these factors of the learning rate, those at 0 left out.

    factors: by a node's name, or by what its name begins with up to a dot; 1 for all others, and the longest name
    decides. Raises TypeError or ValueError, which `where` begins, for a name that is no node's and a factor below 0.
    """
    if not isinstance(factors, Mapping):
        raise TypeError(f"{where}: learning_rates is {factors!r}, expected factors by the names of nodes")
    for name, factor in factors.items():
        if not any(_covers(name, node) for node in nodes):
            raise ValueError(f"{where}: learning_rates names {name!r}, expected some of {', '.join(nodes)}")
        shapes.number(where, f"learning_rates[{name!r}]", factor, 0.0)
    found: list[Part] = []
    for name, shape in layout.shapes.items():
        node, start = name.rpartition(".")[0], layout.offsets[name]
        stop = start + math.prod(shape)
        own = max((n for n in factors if _covers(n, node)), key=len, default=None)
        factor = 1.0 if own is None else float(factors[own])
        if factor == 0:
            continue
        last = found[-1] if found else None
        if last and last.factor == factor and not _between(layout, last.stop, start):
            found[-1] = Part(last.index, (*last.nodes, node), last.start, stop, factor)
        else:
            found.append(Part(len(found), (node,), start, stop, factor))
    return tuple(found)


def _covers(name: str, node: str) -> bool:
    return node == name or node.startswith(f"{name}.")


def _between(layout: Layout, stop: int, start: int) -> bool:
    """Whether a parameter begins between two places of the vector."""
    return any(stop <= offset < start for offset in layout.offsets.values())
