"""Pictures: of a training, a network and its answers, and a data set, as matplotlib figures.

Every function returns a `matplotlib.figure.Figure` of its own, so a notebook shows it and `figure.savefig(path)` keeps
it. They need matplotlib, which is loaded when the first picture is drawn: pip install 'twinkernels[plots]'.

Colours tell apart for every kind of colour vision (Okabe and Ito 2008), and lines are labelled where they end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from models.graph import Evaluation, Graph
from models.history import History
from models.layers import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Linear,
    MaxPool2d,
    MeanNorm,
)
from models.nodes import INPUT, Node
from models.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from .profile import Line, Profile

    Hashable = str | tuple[str, str, int]

P = ParamSpec("P")

INK, MUTED, FAINT, PAPER = "#1d2129", "#667080", "#d8dde4", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY = "#0072b2", "#d55e00", "#009e73", "#b65d92", "#c98b00", "#3f9bd6"

WIDTH = 9.5  # inches
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "image.composite_image": False,
    "image.interpolation": "none",
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}

_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((Conv2d,), BLUE),
    ((Linear,), ORANGE),
    ((BatchNorm, MeanNorm), PURPLE),
    ((MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d), GREEN),
    ((Add, Concat), YELLOW),
    ((Flatten, Dropout), MUTED),
)


def figure_class() -> type[Figure]:
    """Matplotlib's Figure; ValueError that says what to install where there is none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the picture needs matplotlib: pip install 'twinkernels[plots]'") from None
    return Figure


def _picture(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in the style of this module, whatever the style outside."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        figure_class()
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made on the first drawing, and take their style then
        return figure

    return styled


# A training --------------------------------------------------------------------------------------------------


@_picture
def curves(
    history: History,
    test: Evaluation | None = None,
    names: Sequence[str] = ("loss", "accuracy"),
    size: tuple[float, float] = (WIDTH, 3.2),
) -> Figure:
    """Loss and accuracy by epoch, on the images trained on and, where there are some, on those held out.

    The training figures are means over an epoch's batches, taken while the weights still change, so the first of
    them are worse than what the epoch ends with. test: what came out on the test images in the end, a diamond.
    names: which of the two to draw. size: inches. Raises ValueError for a history without epochs.
    """
    if not history.epochs:
        raise ValueError("curves: history has no epochs")
    epochs = history.epoch
    figure = _figure(*size)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        title = name.capitalize()
        lines = {"training": getattr(history, name)}
        held_out = getattr(history, f"validation_{name}")
        if any(value is not None for value in held_out):
            lines["validation"] = held_out
        if test is not None:
            lines["test"] = [math.nan] * (len(epochs) - 1) + [getattr(test, name)]
        lines = {key: np.array(values, float) for key, values in lines.items()}
        everything = np.concatenate(list(lines.values()))
        everything = everything[np.isfinite(everything)]
        if name == "loss" and everything.size and everything.min() > 0 and everything.max() > 10 * everything.min():
            title += ", logarithmic"
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(_ticker().NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        line = "o-" if len(epochs) <= 30 else "-"
        looks = {"training": (BLUE, line), "validation": (ORANGE, line), "test": (GREEN, "D")}
        for at, (key, values) in enumerate(lines.items()):
            colour, look = looks[key]
            axes.plot(epochs, values, look, color=colour, clip_on=False, zorder=3)
            end = values[np.isfinite(values)][-1:]
            axes.annotate(
                f"{key}\n{end[0]:.4f}" if end.size else key,
                (at / 3, 1),
                (0, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                color=colour,
                va="bottom",
            )
        axes.set_title(title, pad=32)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(_ticker().MaxNLocator(integer=True))
        axes.margins(x=0.03 if len(epochs) > 1 else 0.5)
        axes.grid(axis="y")
    return figure


@_picture
def learning_rate(
    schedule: Schedule,
    peak: float,
    steps_per_epoch: int,
    total_steps: int,
    size: tuple[float, float] = (WIDTH, 2.0),
) -> Figure:
    """The learning rate of every step: the optimizer's own, `peak`, times the schedule's factor. size: inches."""
    steps = np.unique(np.linspace(0, total_steps - 1, min(total_steps, 1000)).astype(int))
    rates = [peak * schedule(int(step), steps_per_epoch, total_steps) for step in steps]
    figure = _figure(*size)
    axes = figure.subplots()
    axes.plot(steps, rates, color=BLUE, solid_capstyle="round")
    axes.fill_between(steps, rates, color=BLUE, alpha=0.12, linewidth=0)
    highest = int(np.argmax(rates))
    axes.annotate(
        f"{rates[highest]:.3g}",
        (steps[highest], rates[highest]),
        (0, 4),
        textcoords="offset points",
        ha="left" if highest == 0 else "center",
        color=BLUE,
    )
    axes.set(title="Learning rate", xlabel="step", ylim=(0, 1.2 * max(rates) or 1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(4 if size[0] < 5 else 8))
    axes.yaxis.set_major_locator(_ticker().MaxNLocator(3))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.01)
    axes.grid(axis="y")
    return figure


@_picture
def layer_times(profile: Profile) -> Figure:
    """Where a training step's time goes: each layer's forward and backward, and the least time the machine allows.

    Numba's times; the factor tells how much longer NumPy takes.
    """
    layers = _by_layer(profile)
    slowest = max(sum(line.seconds["numba"] for line in lines) for lines in layers.values())
    scale, unit, digits = (1e3, "ms", 1) if slowest >= 0.01 else (1e6, "µs", 0)
    figure = _figure(WIDTH, 0.7 + 0.27 * len(layers))
    axes = figure.subplots()
    for row, lines in enumerate(layers.values()):
        start = 0.0
        for backward, colour in (False, SKY), (True, BLUE):
            width = scale * sum(line.seconds["numba"] for line in lines if (line.step.phase == "backward") == backward)
            axes.barh(row, width, 0.62, start, color=colour, linewidth=0)
            start += width
        limit = scale * sum(line.limit for line in lines)
        axes.plot([limit, limit], [row - 0.42, row + 0.42], color=INK, linewidth=1.6, solid_capstyle="butt")
        speedup = scale * sum(line.seconds["numpy"] for line in lines) / start
        for x, text in zip(
            (1.09, 1.19, 1.30), (f"{start:,.{digits}f}", _share(limit / start), f"{speedup:.1f}×"), strict=True
        ):
            axes.text(x, row, text, transform=axes.get_yaxis_transform(), ha="right", va="center")
    for x, text in zip((1.09, 1.19, 1.30), (unit, "of limit", "NumPy"), strict=True):
        axes.text(x, -0.85, text, transform=axes.get_yaxis_transform(), ha="right", va="center", color=MUTED)
    axes.text(0, -0.85, "forward", color=SKY, va="center", weight="bold")
    axes.annotate("backward", (0, -0.85), (48, 0), textcoords="offset points", color=BLUE, va="center", weight="bold")
    axes.annotate("|  the machine's limit", (0, -0.85), (108, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(layers)), list(layers), color=INK)
    axes.set(xlabel=f"{unit} a step", ylim=(len(layers) - 0.4, -1.3))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0)
    axes.grid(axis="x")
    return figure


def _by_layer(profile: Profile) -> dict[str, list[Line]]:
    """The profile's lines by layer, "name kernel"; what belongs to none by phase.

    A step belongs to the last layer, in forward order, that any of its arrays does: it may read its predecessor's
    output and write its gradient.
    """
    titles: dict[str, str] = {}
    for line in profile.lines:
        if line.step.phase == "forward":
            node = next(iter(line.step.outputs.values())).name.rpartition(".")[0]
            titles.setdefault(node, f"{node}  {line.step.name}")
    ranks = {node: rank for rank, node in enumerate(titles)} | {f"d{node}": rank for rank, node in enumerate(titles)}
    names = list(titles.values())
    layers: dict[str, list[Line]] = {title: [] for title in names}
    for line in profile.lines:
        touched = [*line.step.inputs.values(), *line.step.outputs.values()]
        found = [ranks[node] for value in touched if (node := value.name.rpartition(".")[0]) in ranks]
        inside = found and line.step.phase in ("forward", "backward", "statistics")
        layers.setdefault(names[max(found)] if inside else line.step.phase, []).append(line)
    return layers


# A study -----------------------------------------------------------------------------------------------------


@_picture
def factors(
    errors: Mapping[str, Mapping[str, Sequence[float]]], differing: Collection[tuple[str, str]] | None = None
) -> Figure:
    """The error of every level of each factor: a dot for each seed, and a bar at the mean.

    errors: shares, by factor, level and seed; a factor's first level is the one that the others are compared with, and
    a line at its mean runs through them. On a logarithmic scale, half the error is as far everywhere.
    differing: factors and levels that are coloured, blue where they are better and orange where worse; all if None.
    """
    figure = _figure(WIDTH, 0.5 + sum(0.5 + 0.21 * len(levels) for levels in errors.values()))
    heights = [1.2 + len(levels) for levels in errors.values()]
    panels = figure.subplots(len(errors), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, levels) in zip(panels, errors.items(), strict=True):
        compared = 100 * float(np.mean(next(iter(levels.values()))))
        axes.axvline(compared, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for row, (level, values) in enumerate(levels.items()):
            percent = 100 * np.array(values)
            mean = float(percent.mean())
            colour = BLUE if mean < compared else ORANGE
            if row == 0 or (differing is not None and (name, level) not in differing):
                colour = MUTED if row else INK
            axes.plot(percent, np.full(len(percent), row), "o", color=colour, alpha=0.45, markeredgewidth=0)
            axes.plot([mean, mean], [row - 0.33, row + 0.33], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.text(1.02, row, f"{mean:.2f} %", transform=axes.get_yaxis_transform(), va="center", color=colour)
        axes.set_yticks(range(len(levels)), list(levels), color=INK)
        axes.set(title=name, ylim=(len(levels) - 0.4, -0.6), xscale="log")
        axes.grid(axis="x")
    _percents(panels[-1].xaxis)
    panels[-1].set_xlabel("error on images held out, %")
    return figure


@_picture
def learning_rates(errors: Mapping[str, Mapping[float, Sequence[float]]]) -> Figure:
    """The error by learning rate: a line for each optimizer through the means over seeds, and their range.

    errors: shares, by optimizer, learning rate and seed.
    """
    figure = _figure(WIDTH, 3.4)
    axes = figure.subplots()
    for (name, points), colour in zip(errors.items(), (BLUE, GREEN, PURPLE, ORANGE, YELLOW, SKY), strict=False):
        rates = sorted(points)
        seeds = [100 * np.array(points[rate]) for rate in rates]
        means = [float(values.mean()) for values in seeds]
        axes.fill_between(
            rates, [v.min() for v in seeds], [v.max() for v in seeds], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(rates, means, "o-", color=colour)
        lowest = int(np.argmin(means))
        axes.annotate(
            f"{name}\n{means[lowest]:.2f} %",
            (rates[lowest], means[lowest]),
            (0, -9),
            textcoords="offset points",
            ha="center",
            va="top",
            color=colour,
        )
    axes.set(title="Learning rate", xlabel="learning rate", ylabel="error on images held out, %")
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    _percents(axes.yaxis)
    axes.margins(y=0.22)
    axes.grid(axis="y")
    return figure


def _percents(axis: Axis) -> None:
    """Marks of a logarithmic scale at round numbers."""
    axis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(_ticker().NullLocator())
    axis.set_major_formatter("{x:g}")


# A network ---------------------------------------------------------------------------------------------------


@_picture
def network(model: Graph) -> Figure:
    """The network from its input down: layers, output shapes, parameters, and what reads what."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    nodes = {node.name: node for node in model.nodes}
    places, routes = _layered(model.nodes)
    width, height, column, row = 2.5, 0.42, 2.75, 0.66
    margin = 0.1
    if all(x == 0 for x, _ in places.values()):
        places = _folded(places)
        if len({x for x, _ in places.values()}) > 1:
            margin = 0.3  # for the lines from the foot of a column to the head of the next
    depth = max(y for _, y in places.values())
    left = min(x * column - _half(place) * width for place, (x, _) in places.items()) - 0.15
    right = max(x * column + _half(place) * width for place, (x, _) in places.items()) + 0.15
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
        box.set(facecolor=(*_rgb(colour), 0.12), edgecolor=colour)
        axes.add_patch(box)
        title = str(nodes[name].layer).removesuffix("()") if name in nodes else INPUT
        details = [] if name == INPUT else [name]
        details.append(" × ".join(map(str, shape)))
        if counts.get(name):
            details.append(f"{counts[name]:,} parameters")
        axes.text(x, y - 0.085, _shortened(title, 36), ha="center", va="center", weight="bold", fontsize=8)
        axes.text(
            x, y + 0.095, _shortened("  ·  ".join(details), 50), ha="center", va="center", color=MUTED, fontsize=7.5
        )
    return figure


def _colour(node: Node) -> str:
    return next((colour for kinds, colour in _KINDS if isinstance(node.layer, kinds)), SKY)


def _layered(nodes: Sequence[Node]) -> tuple[dict[Hashable, tuple[float, int]], list[list[Hashable]]]:
    """Places (x, row) of a directed acyclic graph's nodes and the way of every edge, without an edge under a box.

    Sugiyama, Tagawa and Toda 1981: a node's row is its longest path from the input; an edge over several rows passes
    a point in each; rows are ordered by the mean place of their neighbours.
    """
    row_of: dict[Hashable, int] = {INPUT: 0}
    routes: list[list[Hashable]] = []
    for node in nodes:
        row_of[node.name] = 1 + max(row_of[name] for name in node.inputs)
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            between: list[Hashable] = [(name, node.name, at) for at in range(row_of[name] + 1, row_of[node.name])]
            row_of |= {point: int(point[2]) for point in between}
            routes.append([name, *between, node.name])
    rows: list[list[Hashable]] = [[] for _ in range(1 + max(row_of.values()))]
    for place, row in row_of.items():
        rows[row].append(place)

    above: dict[Hashable, list[Hashable]] = {place: [] for place in row_of}
    below: dict[Hashable, list[Hashable]] = {place: [] for place in row_of}
    for route in routes:
        for upper, lower in pairwise(route):
            above[lower].append(upper)
            below[upper].append(lower)
    x = {place: float(at) for members in rows for at, place in enumerate(members)}
    weight = {place: 1.0 if isinstance(place, str) else 1e-6 for place in row_of}  # boxes stand straight, lines bend

    def middle(neighbours: Sequence[Hashable], otherwise: float) -> float:
        total = sum(weight[place] for place in neighbours)
        return sum(weight[place] * x[place] for place in neighbours) / total if total else otherwise

    for sides, order in ((above, rows), (below, rows[::-1])) * 4:
        for members in order:
            members.sort(key=lambda place: middle(sides[place], x[place]))
            x |= {place: float(at) for at, place in enumerate(members)}
    for sides, order in ((above, rows), (below, rows[::-1]), (above, rows)):
        for members in order:
            aims = [middle(sides[place], x[place]) for place in members]
            x |= zip(members, _spaced(aims, [weight[p] for p in members], [_half(p) for p in members]), strict=True)
    return {place: (x[place], row) for place, row in row_of.items()}, routes


def _folded(places: Mapping[Hashable, tuple[float, int]], most: int = 13) -> dict[Hashable, tuple[float, int]]:
    """A chain in as few columns of about one height as keep it to `most` rows each."""
    height = -(-len(places) // -(-len(places) // most))
    return {place: (float(row // height), row % height) for place, (_, row) in places.items()}


def _half(place: Hashable) -> float:
    return 0.5 if isinstance(place, str) else 0.1


def _spaced(aims: Sequence[float], weights: Sequence[float], halves: Sequence[float]) -> list[float]:
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


@_picture
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
    responses = until(model, node).predict(image[np.newaxis])[0].transpose(2, 0, 1)
    weights = model.parameters()[f"{node}.w"].transpose(2, 3, 0, 1)
    channels, filters = weights.shape[:2]
    across = 16
    if channels == 1:
        weights = _wrapped(weights[0], across)
    grid = _wrapped(responses, across)
    heights = [WIDTH / tiles.shape[1] * tiles.shape[0] for tiles in (grid, weights)]
    figure = _figure(WIDTH, sum(heights) + 0.6)
    upper, lower = figure.subplots(2, 1, height_ratios=heights)
    _mosaic(upper, grid, signed=True)
    _mosaic(lower, weights, signed=True)
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


@_picture
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
    return _tiled(tiles, 16, f"{len(tiles)} of {w.shape[1]} units", signed=True)


# Answers -----------------------------------------------------------------------------------------------------


@_picture
def predictions(
    images: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray | None = None,
    across: int = 6,
    span: tuple[float, float] | None = None,
) -> Figure:
    """Images, each with its logits as bars: the answer's in blue, or orange where it is wrong and the truth in black.

    images (N, H, W, C), logits (N, classes), labels (N,). The percentage is the softmax's. All bars have one scale,
    of the logits in `span`, (lowest, highest): those given if left out.
    """
    count, classes = logits.shape
    probabilities = _softmax(logits)
    lowest, highest = (logits.min(), logits.max()) if span is None else span
    low, high = min(lowest, 0.0), max(highest, 0.0)
    rows = -(-count // across)
    cell = WIDTH / 6
    tall, bottom = 0.88, 0.76  # of a cell's width: the cell, and its bars' lower end
    figure = figure_class()(figsize=(across * cell, rows * cell * tall))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, across), ylim=(rows * tall, 0))
    axes.axis("off")
    scale = 0.37 / max(high - low, 1e-9)
    for at in range(count):
        x, y = at % across, at // across * tall
        answer = int(logits[at].argmax())
        truth = answer if labels is None else int(labels[at])
        right = truth == answer
        _draw_image(axes, images[at], (x + 0.02, x + 0.46, y + bottom, y + 0.18))
        title = f"{answer}" if right else f"{truth} read as {answer}"
        axes.text(x + 0.04, y + 0.13, title, weight="bold", color=INK if right else ORANGE)
        axes.text(x + 0.94, y + 0.13, f"{probabilities[at, answer]:.1%}", color=MUTED, ha="right")
        zero, thick = x + 0.57 - low * scale, (bottom - 0.18) / classes
        colours = [
            BLUE if c == answer and right else ORANGE if c == answer else INK if c == truth else FAINT
            for c in range(classes)
        ]
        places = y + 0.18 + thick * (np.arange(classes) + 0.5)
        axes.barh(places, logits[at] * scale, 0.78 * thick, zero, color=colours, linewidth=0)
        axes.plot([zero, zero], [y + 0.18, y + bottom], color=MUTED, linewidth=0.5)
        if classes <= 12:
            for c, place in enumerate(places):
                shade = MUTED if colours[c] == FAINT else colours[c]
                axes.text(x + 0.55, place, str(c), fontsize=6.5, color=shade, ha="right", va="center_baseline")
    return figure


def mistakes(logits: np.ndarray, labels: np.ndarray, count: int = 24) -> np.ndarray:
    """Indices of the samples that are read wrongly, the least probable truth first; at most `count`."""
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    probable = _softmax(logits)[wrong, labels[wrong]]
    return wrong[np.argsort(probable, kind="stable")[:count]]


@_picture
def confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> Figure:
    """How often each class, a row, is read as each, a column; the shades weigh mistakes alone."""
    counts = confusion_matrix(labels, answers, classes)
    wrong = counts.astype(float)
    np.fill_diagonal(wrong, 0.0)
    size = 0.42 * classes
    figure = _figure(size + 1.5, size + 0.8)
    axes = figure.subplots()
    axes.imshow(wrong, _fading(ORANGE), vmin=0, vmax=max(wrong.max(), 1.0) * 1.25)
    for row, column in np.ndindex(classes, classes):
        value = counts[row, column]
        on_diagonal = row == column
        axes.text(
            column,
            row,
            f"{value}" if value or on_diagonal else "·",
            ha="center",
            va="center",
            fontsize=8 if value < 10_000 else 7,
            color=BLUE if on_diagonal else INK if value else MUTED,
            weight="bold" if on_diagonal else "normal",
        )
    totals = counts.sum(axis=1)
    for row in np.flatnonzero(totals).tolist():
        axes.text(classes - 0.2, row, f"{counts[row, row] / totals[row]:.1%}", va="center", color=MUTED)
    axes.text(classes - 0.2, -0.95, "read\nrightly", va="center", color=MUTED)
    axes.set_xticks(range(classes), map(str, range(classes)), color=INK)
    axes.set_yticks(range(classes), map(str, range(classes)), color=INK)
    axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="read as", ylabel="truth")
    axes.spines[:].set_visible(False)
    return figure


def confusion_matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row the label, column the answer."""
    counts: np.ndarray = np.bincount(labels.astype(int) * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)


# A data set --------------------------------------------------------------------------------------------------


@_picture
def samples(images: np.ndarray, labels: np.ndarray, count: int = 16) -> Figure:
    """A row for each class: its first `count` images."""
    classes = np.unique(labels)
    height, width = images.shape[1:3]
    tiles = np.full((len(classes), count, height, width), np.nan)
    for row, label in enumerate(classes):
        chosen = _grey(images[np.flatnonzero(labels == label)[:count]])
        tiles[row, : len(chosen)] = chosen
    return _labelled(tiles, [str(label) for label in classes])


@_picture
def mean_images(images: np.ndarray, labels: np.ndarray) -> Figure:
    """Each class's mean image, and the standard deviation of every pixel within the class."""
    classes = np.unique(labels)
    members = [_grey(images[labels == label]) for label in classes]
    tiles = np.stack([[f(group, axis=0) for group in members] for f in (np.mean, np.std)])
    return _labelled(tiles, ["mean", "spread"], [str(label) for label in classes])


@_picture
def class_counts(labels: Mapping[str, np.ndarray]) -> Figure:
    """How many images of each class every split holds. labels: {split: labels (N,)}."""
    classes = np.unique(np.concatenate(list(labels.values())))
    figure = _figure(WIDTH / 2 * min(len(labels), 2), 0.6 + 0.24 * len(classes))
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axes, (name, given) in zip(panels, labels.items(), strict=True):
        counts = [int(np.count_nonzero(given == label)) for label in classes]
        axes.barh(range(len(classes)), counts, 0.68, color=BLUE, linewidth=0)
        for row, count in enumerate(counts):
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center_baseline"}
            axes.annotate(f"{count:,}", (0, row), **place, fontsize=8, color=PAPER)
        axes.axvline(len(given) / len(classes), color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.set_title(f"{name}: {len(given):,}")
        axes.set_yticks(range(len(classes)), [str(label) for label in classes], color=INK)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.set_xlim(0, 1.05 * max(counts))
    panels[0].invert_yaxis()
    return figure


# Shared ------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    return figure_class()(figsize=(width, height), layout="constrained")


def _tiled(tiles: np.ndarray, across: int, title: str, signed: bool) -> Figure:
    grid = _wrapped(tiles, across)
    figure = _figure(WIDTH, WIDTH / across * len(grid) + 0.35)
    axes = figure.subplots()
    _mosaic(axes, grid, signed)
    axes.set_title(title)
    return figure


def _labelled(tiles: np.ndarray, rows: Sequence[str], columns: Sequence[str] = ()) -> Figure:
    count, across, height, width = tiles.shape
    figure = _figure(WIDTH, WIDTH / across * count * height / width + (0.3 if columns else 0.1))
    axes = figure.subplots()
    step = _mosaic(axes, tiles, signed=False, framed=False)
    axes.axis("on")
    axes.spines[:].set_visible(False)
    axes.set_yticks(step[0] * np.arange(count) + height / 2, rows, color=INK, weight="bold")
    axes.set_xticks(step[1] * np.arange(len(columns)) + width / 2, columns, color=INK, weight="bold")
    axes.tick_params(labeltop=True, labelbottom=False)
    return figure


def _wrapped(tiles: np.ndarray, across: int) -> np.ndarray:
    """Tiles (N, H, W) in rows of `across`: (rows, across, H, W), the places left over NaN."""
    rows = -(-len(tiles) // across)
    grid = np.full((rows * across, *tiles.shape[1:]), np.nan)
    grid[: len(tiles)] = tiles
    return grid.reshape(rows, across, *tiles.shape[1:])


def _mosaic(axes: Axes, tiles: np.ndarray, signed: bool, framed: bool = True) -> tuple[int, int]:
    """Tiles (R, C, H, W) as one image, gaps between; returns the distance from tile to tile."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    rows, columns, height, width = tiles.shape
    gap = max(1, round(0.1 * width))
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    frames = []
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + height, left : left + width] = tiles[row, column]
        if np.isfinite(tiles[row, column]).any():
            frames.append(Rectangle((left, top), width, height))
    largest = float(np.nanpercentile(np.abs(whole), 99.5 if signed else 100)) or 1.0
    bottom, right = whole.shape
    cmap = _diverging() if signed else _fading(INK)
    axes.imshow(
        np.ma.masked_invalid(whole), cmap, vmin=-largest if signed else 0, vmax=largest, extent=(0, right, bottom, 0)
    )
    if framed:
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=FAINT, linewidth=0.5, clip_on=False))
    axes.axis("off")
    return height + gap, width + gap


def _draw_image(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """One image (H, W, C); grey is ink on paper. The extent is narrowed to the image's proportions."""
    height, width = image.shape[:2]
    left, right, bottom, top = extent
    scale = min((right - left) / width, (bottom - top) / height)
    middle, centre = (left + right) / 2, (top + bottom) / 2
    extent = (
        middle - scale * width / 2,
        middle + scale * width / 2,
        centre + scale * height / 2,
        centre - scale * height / 2,
    )
    axes.imshow(_grey(image[np.newaxis])[0], _fading(INK), extent=extent, aspect="auto")


def _grey(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as (N, H, W) floats: the mean over their channels."""
    grey: np.ndarray = images.mean(axis=-1, dtype=np.float64)
    return grey


def _softmax(logits: np.ndarray) -> np.ndarray:
    import kernels

    return kernels.get("numpy").softmax(np.ascontiguousarray(logits))


def _fading(colour: str) -> Colormap:
    """From clear to a colour, so that the page shows through on light paper as on dark."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fading", [(*_rgb(colour), 0.0), (*_rgb(colour), 1.0)])


def _diverging() -> Colormap:
    """Blue for negative, clear for zero, orange for positive."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = (*_rgb(BLUE), 1.0), (*_rgb(BLUE), 0.0), (*_rgb(ORANGE), 0.0), (*_rgb(ORANGE), 1.0)
    return LinearSegmentedColormap.from_list("diverging", list(zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)))


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _share(value: float) -> str:
    return "<1%" if value < 0.005 else f"{value:.0%}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker
