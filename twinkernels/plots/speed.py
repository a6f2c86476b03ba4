"""Pictures of where a training step's time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .layout import spaced
from .style import BLUE, FAINT, INK, MUTED, ORANGE, SKY, WIDTH, blank, picture, share, shortened, ticker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kernels.limits import Limits

    from ..profile import Line, Profile


@picture
def layer_times(profile: Profile) -> Figure:
    """Where a training step's time goes: each layer's forward and backward, and the machine's limit as a mark.

    Numba's times; the factor tells how much longer NumPy takes. The limit is that of `profile.Line`, which a layer can
    pass whose arrays are still in a cache.
    """
    layers = by_layer(profile)
    slowest = max(sum(line.seconds["numba"] for line in lines) for lines in layers.values())
    scale, unit, digits = (1e3, "ms", 1) if slowest >= 0.01 else (1e6, "µs", 0)
    figure = blank(WIDTH, 0.7 + 0.27 * len(layers))
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
            (1.09, 1.19, 1.30), (f"{start:,.{digits}f}", share(limit / start), f"{speedup:.1f}×"), strict=True
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


def by_layer(profile: Profile) -> dict[str, list[Line]]:
    """The profile's lines by layer, "name kernel"; what belongs to none by phase. Layers that are fused are one."""
    titles: dict[str, str] = {}
    for line in profile.lines:
        if line.step.phase == "forward":
            for node in line.step.nodes:
                titles.setdefault(node, line.title)
    layers: dict[str, list[Line]] = {title: [] for title in titles.values()}
    for line in profile.lines:
        title = next((titles[node] for node in line.step.nodes if node in titles), line.step.phase)
        layers.setdefault(title, []).append(line)
    return layers


LOOKS = {"numpy": ("NumPy", ORANGE, "o"), "numba": ("Numba", BLUE, "s")}


@picture
def step_times(profile: Profile) -> Figure:
    """A training step: its contractions under the machine's limit, and every step's time on both backends.

    A contraction has the same number in both, its place in the listing. Rates by operations a byte are Williams,
    Waterman and Patterson's roofline of 2009: the least of what the machine's arithmetic allows and its memory, which
    depends on how much is in use.
    """
    upper, lower = 3.7, 0.7 + 0.3 * len(profile.lines)
    figure = blank(WIDTH, upper + lower)
    parts: Any = figure.subfigures(2, 1, height_ratios=(upper, lower))  # each with a left margin of its own
    roofline, bars = (part.subplots() for part in parts)
    _draw_roofline(roofline, profile)
    _draw_steps(bars, profile)
    return figure


def _draw_roofline(axes: Axes, profile: Profile) -> None:
    contractions = [(at, line) for at, line in enumerate(profile.lines) if line.flops]
    intensity = np.array([line.flops / line.bytes for _, line in contractions])
    rates = {backend: [line.flops / line.seconds[backend] / 1e9 for _, line in contractions] for backend in LOOKS}
    names = [str(at) for at, _ in contractions]
    draw_roofline(axes, profile.limits, names, intensity, {LOOKS[backend]: rate for backend, rate in rates.items()})
    batch, threads = profile.batch_size, profile.threads
    axes.set_title(f"{profile.name}, {batch} images a step, {threads} threads: contractions and the limit", pad=24)


def draw_roofline(
    axes: Axes,
    limits: Limits,
    names: Sequence[str],
    intensity: np.ndarray,
    rates: Mapping[tuple[str, str, str], Sequence[float]],
) -> None:
    """Points under the machine's limit. rates: GFLOP/s by (label, colour, marker); names stand above the last."""
    left, right = 0.5 * intensity.min(initial=1.0), 2 * intensity.max(initial=100.0)
    reach = np.geomspace(left, right, 100)
    for size, style in (1 << 18, "--"), (1 << 26, "-"):
        roof = np.minimum(limits.peak, reach * limits.bandwidth(2 * size)) / 1e9
        label = f"limit, {f'{size >> 20} MiB' if size >> 20 else f'{size >> 10} KiB'} in use"
        axes.loglog(reach, roof, style, color=INK, linewidth=1.2, label=label)
    for (label, colour, marker), rate in rates.items():
        axes.loglog(intensity, rate, marker, color=colour, markersize=6, label=label, zorder=3)
    (_, colour, _), last = list(rates.items())[-1]
    # Names stand in a row of their own above all points, as near to these as they can without meeting.
    order = np.argsort(intensity, kind="stable")
    aims = [float(np.log(intensity[at] / left) / np.log(right / left)) for at in order]
    for at, place in zip(order, spaced(aims, [1.0] * len(aims), [0.013] * len(aims)), strict=True):
        axes.annotate(
            names[at],
            (intensity[at], last[at]),
            (place, 1.03),
            textcoords="axes fraction",
            ha="center",
            va="bottom",
            color=colour,
            weight="bold",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3},
        )
    axes.set(ylabel="GFLOP/s", xlim=(left, right))
    axes.set_xlabel("operations a byte", loc="left")
    for axis in axes.xaxis, axes.yaxis:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker().NullFormatter())
    axes.grid(axis="y")
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.07), frameon=False, ncols=4, borderaxespad=0)


def _draw_steps(axes: Axes, profile: Profile) -> None:
    """A row for each step, a bar for each backend; names and figures have a side each."""
    for side, (backend, (_, colour, _)) in zip((-0.19, 0.19), LOOKS.items(), strict=True):
        milliseconds = [1e3 * line.seconds[backend] for line in profile.lines]
        axes.barh(np.arange(len(milliseconds)) + side, milliseconds, 0.36, color=colour, linewidth=0)
    columns = [(62, ORANGE), (122, BLUE), (168, INK)]  # points right of the bars

    def write(row: float, *texts: str) -> None:
        for (x, colour), text in zip(columns, texts, strict=True):
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(text, (1, row), (x, 0), **place, ha="right", va="center", color=colour)

    write(-1, "NumPy µs", "Numba µs", "faster")
    for row, line in enumerate(profile.lines):
        times = [
            f"{1e6 * seconds:,.{0 if seconds >= 1e-4 else 1}f}"
            for seconds in (line.seconds[backend] for backend in LOOKS)
        ]
        write(row, *times, f"{line.seconds['numpy'] / line.seconds['numba']:.1f}×")
        if line.flops:
            axes.annotate(
                str(row),
                (0, row),
                (-6, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=BLUE,
                weight="bold",
            )
    axes.set_yticks(range(len(profile.lines)), [shortened(line.title, 46) for line in profile.lines], color=INK)
    axes.tick_params(axis="y", pad=24)
    axes.set(title="Where the time goes", xlabel="ms a step", ylim=(len(profile.lines) - 0.4, -1.4))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.margins(x=0)
    axes.grid(axis="x")
