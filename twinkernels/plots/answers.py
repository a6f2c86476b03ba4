"""Pictures of what a classifier answers, and where it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..classify import confusion_matrix, softmax
from .mosaic import draw_image
from .style import BLUE, FAINT, INK, MUTED, ORANGE, WIDTH, blank, fading, figure_class, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@picture
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
    probabilities = softmax(logits)
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
        draw_image(axes, images[at], (x + 0.02, x + 0.46, y + bottom, y + 0.18))
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


@picture
def confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> Figure:
    """How often each class, a row, is read as each, a column; the shades weigh mistakes alone."""
    counts = confusion_matrix(labels, answers, classes)
    wrong = counts.astype(float)
    np.fill_diagonal(wrong, 0.0)
    size = 0.42 * classes
    figure = blank(size + 1.5, size + 0.8)
    axes = figure.subplots()
    axes.imshow(wrong, fading(ORANGE), vmin=0, vmax=max(wrong.max(), 1.0) * 1.25)
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
