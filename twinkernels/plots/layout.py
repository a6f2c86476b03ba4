"""Where the boxes and lines of a graph's drawing go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from models.nodes import INPUT, Node

Place = str | tuple[str, str, int]
"""A node's name; or a point that an edge passes: from, to, row."""


def layered(nodes: Sequence[Node]) -> tuple[dict[Place, tuple[float, int]], list[list[Place]]]:
    """Places (x, row) of a directed acyclic graph's nodes and the way of every edge, without an edge under a box.

    Sugiyama, Tagawa and Toda 1981: a node's row is its longest path from the input; an edge over several rows passes
    a point in each; rows are ordered by the mean place of their neighbours.
    """
    row_of: dict[Place, int] = {INPUT: 0}
    routes: list[list[Place]] = []
    for node in nodes:
        row_of[node.name] = 1 + max(row_of[name] for name in node.inputs)
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            between: list[Place] = [(name, node.name, at) for at in range(row_of[name] + 1, row_of[node.name])]
            row_of |= {point: int(point[2]) for point in between}
            routes.append([name, *between, node.name])
    rows: list[list[Place]] = [[] for _ in range(1 + max(row_of.values()))]
    for place, row in row_of.items():
        rows[row].append(place)

    above: dict[Place, list[Place]] = {place: [] for place in row_of}
    below: dict[Place, list[Place]] = {place: [] for place in row_of}
    for route in routes:
        for upper, lower in pairwise(route):
            above[lower].append(upper)
            below[upper].append(lower)
    x = {place: float(at) for members in rows for at, place in enumerate(members)}
    weight = {place: 1.0 if isinstance(place, str) else 1e-6 for place in row_of}  # boxes stand straight, lines bend

    def middle(neighbours: Sequence[Place], otherwise: float) -> float:
        total = sum(weight[place] for place in neighbours)
        return sum(weight[place] * x[place] for place in neighbours) / total if total else otherwise

    for sides, order in ((above, rows), (below, rows[::-1])) * 4:
        for members in order:
            members.sort(key=lambda place: middle(sides[place], x[place]))
            x |= {place: float(at) for at, place in enumerate(members)}
    for sides, order in ((above, rows), (below, rows[::-1]), (above, rows)):
        for members in order:
            aims = [middle(sides[place], x[place]) for place in members]
            x |= zip(members, spaced(aims, [weight[p] for p in members], [half(p) for p in members]), strict=True)
    return {place: (x[place], row) for place, row in row_of.items()}, routes


def folded(places: Mapping[Place, tuple[float, int]], most: int = 13) -> dict[Place, tuple[float, int]]:
    """A chain in as few columns of about one height as keep it to `most` rows each."""
    height = -(-len(places) // -(-len(places) // most))
    return {place: (float(row // height), row % height) for place, (_, row) in places.items()}


def half(place: Place) -> float:
    return 0.5 if isinstance(place, str) else 0.1


def spaced(aims: Sequence[float], weights: Sequence[float], halves: Sequence[float]) -> list[float]:
    """The places nearest to the aims, in weighted squares, at which nothing overlaps: isotonic regression.

    Neighbours that would overlap are joined to blocks, which stand at the mean of their aims.
    """
    offsets = np.cumsum([0.0] + [left + right for left, right in pairwise(halves)])
    blocks: list[list[float]] = []  # place of the first, weight, members
    for aim, weight, offset in zip(aims, weights, offsets, strict=True):
        blocks.append([aim - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            place, mass, count = blocks.pop()
            before = blocks[-1]
            blocks[-1] = [
                (before[0] * before[1] + place * mass) / (before[1] + mass),
                before[1] + mass,
                before[2] + count,
            ]
    starts = [place for place, _, count in blocks for _ in range(int(count))]
    return [float(start + offset) for start, offset in zip(starts, offsets, strict=True)]
