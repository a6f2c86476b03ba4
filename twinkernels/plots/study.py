"""Pictures of a study: the error by level of each factor, and by learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, WIDTH, YELLOW, blank, percents, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@picture
def factors(
    errors: Mapping[str, Mapping[str, Sequence[float]]], differing: Collection[tuple[str, str]] | None = None
) -> Figure:
    """The error of every level of each factor: a dot for each seed, and a bar at the mean.

    errors: shares, by factor, level and seed; a factor's first level is the one that the others are compared with, and
    a line at its mean runs through them. On a logarithmic scale, half the error is as far everywhere.
    differing: factors and levels that are coloured, blue where they are better and orange where worse; all if None.
    """
    figure = blank(WIDTH, 0.5 + sum(0.5 + 0.21 * len(levels) for levels in errors.values()))
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
    percents(panels[-1].xaxis)
    panels[-1].set_xlabel("error on images held out, %")
    return figure


@picture
def learning_rates(errors: Mapping[str, Mapping[float, Sequence[float]]]) -> Figure:
    """The error by learning rate: a line for each optimizer through the means over seeds, and their range.

    errors: shares, by optimizer, learning rate and seed.
    """
    figure = blank(WIDTH, 3.4)
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
    percents(axes.yaxis)
    axes.margins(y=0.22)
    axes.grid(axis="y")
    return figure
