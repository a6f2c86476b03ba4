"""Pictures of a network: its layers, its filters and its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from models.graph import Graph
from models.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Linear,
    MaxPool2d,
    MeanNorm,
)
from models.nodes import INPUT, Node

from .layout import folded, half, layered
from .mosaic import mosaic, tiled, wrapped
from .style import BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, WIDTH, YELLOW, blank, figure_class, picture, rgb, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((Conv2d, ConvTranspose2d), BLUE),
    ((Linear,), ORANGE),
    ((BatchNorm, MeanNorm), PURPLE),
    ((MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d), GREEN),
    ((Add, Concat), YELLOW),
    ((Flatten, Dropout), MUTED),
)


@picture
def network(model: Graph) -> Figure:
    """The network from its input down: layers, output shapes, parameters, and what reads what."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    nodes = {node.name: node for node in model.nodes}
    places, routes = layered(model.nodes)
    width, height, column, row = 2.5, 0.42, 2.75, 0.66
    margin = 0.1
    if all(x == 0 for x, _ in places.values()):
        places = folded(places)
        if len({x for x, _ in places.values()}) > 1:
            margin = 0.3  # for the lines from the foot of a column to the head of the next
    depth = max(y for _, y in places.values())
    left = min(x * column - half(place) * width for place, (x, _) in places.items()) - 0.15
    right = max(x * column + half(place) * width for place, (x, _) in places.items()) + 0.15
    figure = figure_class()(figsize=(right - left, depth * row + height + 2 * margin))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(
        xlim=(left, right),
        ylim=(depth * row + height / 2 + margin, -height / 2 - margin),
    )
    axes.axis("off")
    counts = dict.fromkeys(nodes, 0)
    for name, sizes in model.parameter_layout.shapes.items():
        counts[name.rpartition(".")[0]] += math.prod(sizes)
    shapes: dict[str, Sequence[object]] = {INPUT: model.input_shape} | {
        name: model.node_shapes[name][1:] for name in nodes
    }

    for route in routes:
        centres = [(places[at][0] * column, places[at][1] * row) for at in route]
        vertices, codes = [(centres[0][0], centres[0][1] + height / 2)], [Path.MOVETO]
        for (x0, y0), (x1, y1) in pairwise(centres):
            start, end = y0 + height / 2, y1 - height / 2
            if y1 < y0:  # on to the top of the next column, between the two
                gap = (x0 + x1) / 2
                foot, head = start + margin / 2, end - margin + 0.03
                vertices += [(x0, foot), (gap, foot), (gap, head), (x1, head), (x1, end)]
                codes += [Path.LINETO] * 5
                continue
            between = (start + end) / 2
            vertices += [(x0, start), (x0, between), (x1, between), (x1, end)]
            codes += [Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        arrow = FancyArrowPatch(
            path=Path(vertices, codes), arrowstyle="-|>", mutation_scale=8, color=MUTED, linewidth=1, shrinkA=0
        )
        axes.add_patch(arrow)
    for name, shape in shapes.items():
        x, y = places[name][0] * column, places[name][1] * row
        colour = _colour(nodes[name]) if name in nodes else MUTED
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, "round,pad=0,rounding_size=0.07", linewidth=0.9
        )
        box.set(facecolor=(*rgb(colour), 0.12), edgecolor=colour)
        axes.add_patch(box)
        title = str(nodes[name].layer).removesuffix("()") if name in nodes else INPUT
        details = [] if name == INPUT else [name]
        details.append(" × ".join(map(str, shape)))
        if counts.get(name):
            details.append(f"{counts[name]:,} parameters")
        axes.text(x, y - 0.085, shortened(title, 36), ha="center", va="center", weight="bold", fontsize=8)
        axes.text(
            x, y + 0.095, shortened("  ·  ".join(details), 50), ha="center", va="center", color=MUTED, fontsize=7.5
        )
    return figure


def _colour(node: Node) -> str:
    return next((colour for kinds, colour in _KINDS if isinstance(node.layer, kinds)), SKY)


@picture
def convolution(model: Graph, node: str, image: np.ndarray) -> Figure:
    """A convolution's responses to an image, and its filters: a column of kernels, one an input channel, a filter.

    image: one sample of the model's input_shape, uint8 or float as `predict` takes them. The responses are what the
    convolution gives, before normalisation and activation. Raises ValueError where `node` is no convolution.
    """
    layers = {n.name: n.layer for n in model.nodes}
    if node not in layers:
        raise ValueError(f"convolution: node is {node!r}, expected one of {', '.join(layers)}")
    if not isinstance(layers[node], Conv2d):
        raise ValueError(f"convolution: node {node!r} is {layers[node]}, expected a Conv2d")
    responses = model.until(node).predict(image[np.newaxis])[0].transpose(2, 0, 1)
    weights = model.parameters()[f"{node}.w"].transpose(2, 3, 0, 1)
    channels, filters = weights.shape[:2]
    across = 16
    if channels == 1:
        weights = wrapped(weights[0], across)
    grid = wrapped(responses, across)
    heights = [WIDTH / tiles.shape[1] * tiles.shape[0] for tiles in (grid, weights)]
    figure = blank(WIDTH, sum(heights) + 0.6)
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    mosaic(upper, grid, signed=True)
    mosaic(lower, weights, signed=True)
    upper.set_title(f"{filters} responses")
    title = f"{filters} filters"
    lower.set_title(title if channels == 1 else f"{title}: a column each, a row for each of {channels} input channels")
    return figure


def until(model: Graph, node: str) -> Graph:
    """The part of a graph that leads to a node, with the same weights: its prediction is that node's output."""
    return model.until(node)


def first_linear(model: Graph) -> str | None:
    """The linear layer whose inputs are an image's pixels, if the model has one."""
    nodes = {n.name: n for n in model.nodes}
    for name, node in nodes.items():
        source = node.inputs[0]
        flat = source in nodes and isinstance(nodes[source].layer, Flatten) and nodes[source].inputs == (INPUT,)
        if isinstance(node.layer, Linear) and flat and len(model.input_shape) == 3 and model.input_shape[2] == 1:
            return name
    return None


@picture
def weights(model: Graph, count: int = 64) -> Figure:
    """What the units of an MLP's first layer look for: their weights as images, those with the largest norms first.

    Raises ValueError for a model whose pixels do not go straight into a linear layer.
    """
    node = first_linear(model)
    if node is None:
        raise ValueError("weights: the model has no linear layer that reads grey pixels")
    w = model.parameters()[f"{node}.w"]
    strongest = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")[:count]
    tiles = w[:, strongest].T.reshape(-1, *model.input_shape[:2])
    return tiled(tiles, 16, f"{len(tiles)} of {w.shape[1]} units", signed=True)
