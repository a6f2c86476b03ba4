"""A drawing or photograph of one digit, framed as NIST's digits were for MNIST."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FAINT = 50  # brightness up to which a pixel counts as paper when the ink's box is sought: shadows, JPEG's ripples


def frame(ink: NDArray[Any], height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    """Ink 0 to 255 on paper 0, (H, W) of any size, in a frame (height, width) uint8.

    The ink's bounding box is scaled, its aspect kept, to fit 5/7 of the frame (20 x 20 in 28 x 28), a pixel being the
    mean of what it covers. It is then moved by whole pixels until its centre of mass is as near to row height / 2 and
    column width / 2, counted from 0, as it can be without leaving the frame. Raises ValueError where no pixel is
    brighter than FAINT.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
    """
    rows, columns = (np.flatnonzero((ink > FAINT).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("no ink in the picture")
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(room * 5 / 7 / size for room, size in zip((height, width), digit.shape, strict=True))
    down, across = (_means(size, max(round(size * scale), 1)) for size in digit.shape)
    scaled = down @ digit @ across.T
    framed = np.zeros((height, width), np.uint8)
    top, left = (_start(scaled.sum(axis=1 - axis), room) for axis, room in enumerate(framed.shape))
    framed[top : top + scaled.shape[0], left : left + scaled.shape[1]] = np.rint(scaled)
    return framed


def paper_of(picture: NDArray[np.uint8]) -> float:
    """The brightness of a grey picture's (H, W) paper: the median of its edge."""
    return float(np.median(_edge(picture)))


def ink_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ink of a grey picture (H, W): how far it is darker than bright paper, or brighter than dark paper.

    Shading and noise, which is what nine in ten pixels of the edge stay below, count as paper. The strongest ink
    becomes 255, unless it is as faint as FAINT: that is no ink.
    """
    paper, levels = paper_of(picture), np.arange(256)
    ink = np.clip(paper - levels if paper > 127 else levels - paper, 0, None)
    strongest = max(ink[picture.min()], ink[picture.max()])
    uneven = np.quantile(ink[_edge(picture)], 0.9)
    if uneven < strongest / 3:  # else the digit itself reaches the edge
        ink = np.clip(ink - uneven, 0, None)
        strongest -= uneven
    if strongest > FAINT:
        ink = np.clip(ink * (255 / strongest), 0, 255)
    # A table of the levels, since a photograph in floats would take eight times its memory.
    table: NDArray[np.uint8] = np.rint(ink).astype(np.uint8)
    return table[picture]


def _edge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def _means(size: int, count: int) -> NDArray[np.float64]:
    """The matrix (count, size) that takes ``size`` pixels to the means over ``count`` equal parts of their length."""
    edges = np.linspace(0, size, count + 1)[:, np.newaxis]
    pixels = np.arange(size)
    covered: NDArray[np.float64] = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return covered.clip(0) * (count / size)


def _start(profile: NDArray[np.float64], room: int) -> int:
    """Where to begin in ``room`` pixels so that the profile's centre of mass is pixel ``room / 2``, if it fits there.

    The centre of that pixel, not its edge: in MNIST the means of both coordinates, counted from 0, are 14.0.
    """
    centre = np.average(np.arange(len(profile)), weights=profile)
    return min(max(round(room / 2 - float(centre)), 0), room - len(profile))
