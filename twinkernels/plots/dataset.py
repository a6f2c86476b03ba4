"""Pictures of a data set: samples, class counts and mean images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .mosaic import grey, labelled
from .style import BLUE, INK, PAPER, WIDTH, blank, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@picture
def samples(images: np.ndarray, labels: np.ndarray, count: int = 16) -> Figure:
    """A row for each class: its first `count` images."""
    classes = np.unique(labels)
    height, width = images.shape[1:3]
    tiles = np.full((len(classes), count, height, width), np.nan)
    for row, label in enumerate(classes):
        chosen = grey(images[np.flatnonzero(labels == label)[:count]])
        tiles[row, : len(chosen)] = chosen
    return labelled(tiles, [str(label) for label in classes])


@picture
def mean_images(images: np.ndarray, labels: np.ndarray) -> Figure:
    """Each class's mean image, and the standard deviation of every pixel within the class."""
    classes = np.unique(labels)
    members = [grey(images[labels == label]) for label in classes]
    tiles = np.stack([[f(group, axis=0) for group in members] for f in (np.mean, np.std)])
    return labelled(tiles, ["mean", "spread"], [str(label) for label in classes])


@picture
def class_counts(labels: Mapping[str, np.ndarray]) -> Figure:
    """How many images of each class every split holds. labels: {split: labels (N,)}."""
    classes = np.unique(np.concatenate(list(labels.values())))
    figure = blank(WIDTH / 2 * min(len(labels), 2), 0.6 + 0.24 * len(classes))
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
