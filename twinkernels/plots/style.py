"""What all pictures share: colours, type, and matplotlib, which is loaded when the first one is drawn.

Colours tell apart for every kind of colour vision (Okabe and Ito 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

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


def figure_class() -> type[Figure]:
    """Matplotlib's Figure; ValueError that says what to install where there is none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the picture needs matplotlib: pip install 'twinkernels[plots]'") from None
    return Figure


def picture(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in the style of this module, whatever the style outside."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        figure_class()
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            figure = draw(*args, **kwargs)
            # Ticks are made when their places are first asked for, and take their style then.
            if (layout := figure.get_layout_engine()) is not None:
                layout.execute(figure)
            else:
                figure.draw_without_rendering()
        return figure

    return styled


def blank(width: float, height: float) -> Figure:
    return figure_class()(figsize=(width, height), layout="constrained")


def percents(axis: Axis) -> None:
    """Marks of a logarithmic scale at round numbers."""
    axis.set_major_locator(ticker().LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(ticker().NullLocator())
    axis.set_major_formatter("{x:g}")


def fading(colour: str) -> Colormap:
    """From clear to a colour, so that the page shows through on light paper as on dark."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fading", [(*rgb(colour), 0.0), (*rgb(colour), 1.0)])


def diverging() -> Colormap:
    """Blue for negative, clear for zero, orange for positive."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = (*rgb(BLUE), 1.0), (*rgb(BLUE), 0.0), (*rgb(ORANGE), 0.0), (*rgb(ORANGE), 1.0)
    return LinearSegmentedColormap.from_list("diverging", list(zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)))


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def share(value: float) -> str:
    return "<1%" if value < 0.005 else f"{value:.0%}"


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def ticker() -> Any:
    from matplotlib import ticker

    return ticker
