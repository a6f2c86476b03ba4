"""Pictures of kernels of one's own, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .speed import draw_roofline
from .style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, WIDTH, YELLOW, blank, picture, share, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kernels.limits import Limits

    from ..bench.measure import Measured

COLOURS = (ORANGE, BLUE, GREEN, PURPLE, YELLOW, SKY)
"""Of contestants, in their order; the definition's first, as on other pictures."""


@picture
def contestants(lines: Sequence[Measured], limits: Limits | None = None) -> Figure:
    """What `twinkernels bench` measured: speed-ups over the definition with their intervals, and contractions under
    the machine's limit.

    lines: of `twinkernels.bench.bench`. limits: the machine's; without them there is no second part.

    Raises ValueError where no contestant could be timed beside its definition.
    """
    timed = [line for line in lines if line.speedup is not None]
    if not timed:
        raise ValueError("nothing to draw: no contestant was timed beside its definition")
    names = list(dict.fromkeys(line.contestant for line in lines))
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    contracting = [line for line in lines if line.flops and not line.missing]
    height = 1.0 + 0.3 * len(timed)
    if limits is None or not contracting:
        figure = blank(WIDTH, height)
        _draw_bars(figure.subplots(), timed, colours)
        return figure
    figure = blank(WIDTH, height + 3.7)
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 3.7))
    _draw_bars(parts[0].subplots(), timed, colours)
    _draw_limit(parts[1].subplots(), contracting, limits, colours)
    return figure


def _draw_bars(axes: Axes, lines: Sequence[Measured], colours: dict[str, str]) -> None:
    for at, line in enumerate(lines):
        assert line.speedup is not None
        low, median, high = line.speedup
        axes.barh(at, median, 0.62, color=colours[line.contestant], linewidth=0)
        axes.plot([low, high], [at, at], color=INK, linewidth=1.6, solid_capstyle="butt")
        limit = "" if line.limit is None else share(line.limit / line.seconds)
        for x, text in (1.12, f"{1e6 * line.seconds:,.1f}"), (1.22, f"{median:.1f}×"), (1.34, limit):
            axes.text(x, at, text, transform=axes.get_yaxis_transform(), ha="right", va="center")
    for x, text in (1.12, "µs"), (1.22, "faster"), (1.34, "of limit"):
        axes.text(x, -0.85, text, transform=axes.get_yaxis_transform(), ha="right", va="center", color=MUTED)
    labels = [shortened(f"{line.case}  {line.contestant}", 46) for line in lines]
    axes.set_yticks(range(len(lines)), labels, color=INK)
    axes.axvline(1.0, color=MUTED, linewidth=0.8)
    axes.set(xlabel="times as fast as the definition", ylim=(len(lines) - 0.4, -1.3))
    axes.set_xlim(left=0)
    axes.grid(axis="x")


def _draw_limit(axes: Axes, lines: Sequence[Measured], limits: Limits, colours: dict[str, str]) -> None:
    cases = list(dict.fromkeys(line.case for line in lines))
    by_case = {case: {line.contestant: line for line in lines if line.case == case} for case in cases}
    names = list(dict.fromkeys(line.contestant for line in lines))
    first = [next(iter(by_case[case].values())) for case in cases]
    intensity = np.array([(line.flops or 0) / max(line.bytes, 1) for line in first])
    rates = {}
    for marker, name in zip("osD^vP" * len(names), names, strict=False):
        found = [by_case[case].get(name) for case in cases]
        rates[(name, colours[name], marker)] = [
            np.nan if line is None else (line.flops or 0) / line.seconds / 1e9 for line in found
        ]
    numbered = [str(at + 1) for at in range(len(cases))]
    draw_roofline(axes, limits, numbered, intensity, rates)
    axes.set_title(shortened(", ".join(f"{n} {case}" for n, case in zip(numbered, cases, strict=True)), 110), pad=24)
