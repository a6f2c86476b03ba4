"""Images side by side: many small ones as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import FAINT, INK, WIDTH, blank, diverging, fading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tiled(tiles: np.ndarray, across: int, title: str, signed: bool) -> Figure:
    grid = wrapped(tiles, across)
    figure = blank(WIDTH, WIDTH / across * len(grid) + 0.35)
    axes = figure.subplots()
    mosaic(axes, grid, signed)
    axes.set_title(title)
    return figure


def labelled(tiles: np.ndarray, rows: Sequence[str], columns: Sequence[str] = ()) -> Figure:
    count, across, height, width = tiles.shape
    figure = blank(WIDTH, WIDTH / across * count * height / width + (0.3 if columns else 0.1))
    axes = figure.subplots()
    step = mosaic(axes, tiles, signed=False, framed=False)
    axes.axis("on")
    axes.spines[:].set_visible(False)
    axes.set_yticks(step[0] * np.arange(count) + height / 2, rows, color=INK, weight="bold")
    axes.set_xticks(step[1] * np.arange(len(columns)) + width / 2, columns, color=INK, weight="bold")
    axes.tick_params(labeltop=True, labelbottom=False)
    return figure


def wrapped(tiles: np.ndarray, across: int) -> np.ndarray:
    """Tiles (N, H, W) in rows of `across`: (rows, across, H, W), the places left over NaN."""
    rows = -(-len(tiles) // across)
    grid = np.full((rows * across, *tiles.shape[1:]), np.nan)
    grid[: len(tiles)] = tiles
    return grid.reshape(rows, across, *tiles.shape[1:])


def mosaic(axes: Axes, tiles: np.ndarray, signed: bool, framed: bool = True) -> tuple[int, int]:
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
    cmap = diverging() if signed else fading(INK)
    axes.imshow(
        np.ma.masked_invalid(whole), cmap, vmin=-largest if signed else 0, vmax=largest, extent=(0, right, bottom, 0)
    )
    if framed:
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=FAINT, linewidth=0.5, clip_on=False))
    axes.axis("off")
    return height + gap, width + gap


def draw_image(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """One image (H, W, C); grey is ink on paper, three channels of uint8 are colours.

    The extent is narrowed to the image's proportions.
    """
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
    coloured = image.dtype == np.uint8 and image.shape[2] == 3
    axes.imshow(image if coloured else grey(image[np.newaxis])[0], fading(INK), extent=extent, aspect="auto")


def grey(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as (N, H, W) floats: the mean over their channels."""
    grey: np.ndarray = images.mean(axis=-1, dtype=np.float64)
    return grey
