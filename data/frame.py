"""A drawing or photograph of one digit, framed as NIST's digits were for MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.splits import as_count

FAINT = 50  # brightness up to which a pixel counts as paper when the ink's box is sought: shadows, JPEG's ripples
GRAIN = 6  # the deviation of the paper's brightness that needs no smoothing
LARGEST = 1024  # pixels of a side; larger pictures are shrunk
DARKEST = 0.4  # of the light around it, which paper keeps in a shadow; what keeps less is ink
PLACES = 32  # of a side, at which the paper's brightness is sought
REACH = 5 / 32  # of a side: ink is narrower than twice that, where strokes run together as well
SHADOW = 0.1  # of the light, by which it differs at least where a shadow's edge has to be found
CELLS = 256  # of a side, in which marks are told apart
SPECK = 1 / 50  # of the largest mark's area, below which a mark is left out, wherever it is
SMALL = 1 / 6  # of that area, below which a mark is left out that is further from it than
NEAR = 1 / 5  # of its size
HIGH = 0.35  # of all marks' height: a mark beside the largest that is higher is another digit
WIDE = 2  # times as wide as high are the marks of more than one digit
CONTRAST = 4.5  # deviations between ink and paper; noise that is nothing else, cut in the middle, has 3 to 4.2
CLEAN = 8  # levels that the ground of a picture that needs no work may differ from black or white: a ripple of JPEG


def frame(ink: NDArray[Any], height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    """Ink 0 to 255 on paper 0, (H, W) of any size, in a frame (height, width) uint8.

    The ink's bounding box is scaled, its aspect kept, to fit 5/7 of the frame (20 x 20 in 28 x 28), a pixel being the
    mean of what it covers. It is then moved by whole pixels until its centre of mass is as near to row height / 2 and
    column width / 2, counted from 0, as it can be without leaving the frame. Raises ValueError where no pixel is
    brighter than FAINT, and TypeError for what is no picture.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
    """
    if not isinstance(ink, np.ndarray) or ink.ndim != 2 or ink.dtype.kind not in "uif":
        got = f"of {ink.dtype} {ink.shape}" if isinstance(ink, np.ndarray) else f"a {type(ink).__name__}"
        raise TypeError(f"frame: ink is {got}, expected a numpy array (H, W) of numbers")
    height, width = as_count("frame: height", height, 1), as_count("frame: width", width, 1)
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


def taken(picture: NDArray[np.uint8], height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    """A grey picture (H, W) of one digit as ink (height, width): bright on a dark ground, as networks are given it.

    A picture of that size is taken as it is, as its negative where it shows dark ink on paper, if the median of its
    edge is black or white to CLEAN levels and no line runs along it. Of any other, the digit is framed (`digit_in`).

    Raises ValueError where there is no ink, or more than one digit: of a picture that is taken as it is, `is_pair`.
    """
    if picture.shape == (height, width):
        ink = picture if is_board(picture) else 255 - picture
        if ink.max() <= FAINT:
            raise ValueError("no ink in the picture")
        if np.median(edge(ink)) <= CLEAN and not has_lines(ink):
            if is_pair(ink):
                raise ValueError("more than one digit in the picture")
            return ink
    return digit_in(picture, height, width)


def digit_in(picture: NDArray[np.uint8], height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    """The digit in a grey picture (H, W), framed (height, width): `frame` of the `one_digit` in the picture's `ink_of`.

    Raises ValueError where there is no ink, or more than one digit, or nothing but noise.
    """
    return frame(one_digit(ink_of(picture)), height, width)


def ink_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ink of a grey picture (H, W): the share of the light that it takes from its paper, 0 to 255.

    - A dark board is read as the negative of paper (`is_board`).
    - The paper's brightness at each place, shadows included, is estimated (`_paper`) and divided by.
    - Grain: medians of three pixels are taken down and across until its deviation is at most GRAIN, at most three
      times. What stays within three deviations of the paper is paper.
    - The strongest ink becomes 255, unless it is as faint as FAINT: that is no ink.

    Raises ValueError where ink and paper, parted half-way between them, differ by less than CONTRAST of the deviations
    within them (the root of their mean square): that is one kind of grain.

    A picture with a side above LARGEST is halved, thirded, ... first, so that a photograph needs little memory.
    """
    grey = _shrunk(picture, -(-max(picture.shape) // LARGEST))
    if is_board(picture):
        grey = 255 - grey
    for smoothed in range(4):
        if smoothed:
            grey = _median_of_three(_median_of_three(grey).T).T
        ink = 255 * (1 - np.maximum(grey, 1) / _paper(grey))
        ground = ink[ink <= (ink.min() + ink.max()) / 2]
        level = np.median(ground)
        grain = 1.4826 * np.median(np.abs(ground - level))
        if grain <= GRAIN:
            break
    inked = ink > (level + ink.max()) / 2
    if inked.any():
        written, paper = ink[inked], ink[~inked]
        if written.mean() - paper.mean() < CONTRAST * np.sqrt((written.var() + paper.var()) / 2):
            raise ValueError("no ink in the picture that stands out from its grain")
    ink -= level + 3 * grain
    if ink.max() > FAINT:
        ink *= 255 / ink.max()
    levels: NDArray[np.uint8] = np.rint(ink.clip(0, 255)).astype(np.uint8)
    return levels


def is_board(picture: NDArray[np.uint8]) -> bool:
    """Whether a grey picture (H, W) shows bright ink on a dark board, not dark ink on bright paper.

    The paper is what there is more of, above or below the middle of the darkest and the brightest level. Where that is
    close, since the digit fills its picture or half of it lies in a shadow, the edge decides: ink seldom lies there, so
    that the darkest or the brightest level is ink's if it alone is missing; otherwise by its median.
    """
    low, high = int(picture.min()), int(picture.max())
    middle = (low + high) / 2
    above = (picture >= middle).mean()
    if not 0.35 < above < 0.65:
        return bool(above < 0.5)
    dark, bright = np.quantile(edge(picture), (0.1, 0.9))
    if abs((dark - low) - (high - bright)) > (high - low) / 4:
        return bool(dark - low < high - bright)
    return bool(np.median(edge(picture)) <= middle)


def edge(picture: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels of a picture (H, W)."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def has_lines(ink: NDArray[np.uint8]) -> bool:
    """Whether nine tenths of an outermost row or column of the ink (H, W) are brighter than FAINT."""
    return any((side > FAINT).mean() > 0.9 for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


def is_pair(ink: NDArray[np.uint8]) -> bool:
    """Whether ink (H, W) is plainly that of two digits, parted by an empty column or row.

    Side by side: each at least 0.6 as high as both together, the smaller with at least half the other's area. One
    below the other: each at least 10/28 of the picture high, the smaller with at least a quarter of the other's area.
    None of MNIST's 60,000 training digits is such a pair, in however many pieces it was written, and none of 12,000
    strokes; of pairs of them in 28 x 28 that do not touch, 0.88 side by side and 1.00 one below the other are.
    """
    inked = ink > FAINT
    beside = _parts(inked), 0.6 * _extent(inked), 1 / 2
    below = (tuple(part.T for part in parts) for parts in _parts(inked.T)), len(ink) * 10 / 28, 1 / 4
    for pairs, height, share in beside, below:
        for parts in pairs:
            areas = [np.count_nonzero(part) for part in parts]
            if min(areas) >= share * max(areas) and min(_extent(part) for part in parts) >= height:
                return True
    return False


def _parts(inked: NDArray[np.bool]) -> Iterator[tuple[NDArray[np.bool], ...]]:
    """Ink (H, W) parted at each of its empty columns."""
    for gap in np.flatnonzero(~inked.any(axis=0)):
        yield inked[:, :gap], inked[:, gap:]


def _extent(inked: NDArray[np.bool]) -> int:
    """From the first row with ink to the last, both counted; 0 without ink."""
    at = np.flatnonzero(inked.any(axis=1))
    return int(at[-1] - at[0]) + 1 if len(at) else 0


def one_digit(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ink (H, W) of the one digit in it, without form lines and specks.

    A mark is what hangs together, corners included, of the ink brighter than FAINT. One that is at least 6 pixels and
    an eighth of the picture high and does not touch its edge may be a digit. Where there is one, these are left out:

    - a form's lines: marks from one edge of the picture to another, or a box around a mark that may be a digit;
    - what is cut off at the edge, if it has less than half the area of the largest mark that may be a digit.

    In any case specks are: marks of less than a fiftieth of the largest one's area, or of less than a sixth and further
    from it than a fifth of its size. (5's hat, where it stands apart in MNIST, has three tenths and more.)

    Raises ValueError where no mark of 6 pixels is left, or nothing but lines; where more than one digit is: a mark
    beside the largest is more than 0.35 as high as all together (5's hat at most 0.27), or they are more than twice as
    wide as high; and where the specks together are larger than what is left. Of MNIST's first 2,000
    training digits, on pages of 112 x 112, one is refused: a 9 with a stripe beside it.
    """
    cell = max(-(-max(ink.shape) // CELLS), 1)
    inked = _shrunk(ink > FAINT, cell) > 0
    marks = _marks(inked & ~_lines(inked))
    digits = [mark for mark in marks if not mark.edges and mark.height >= max(6, inked.shape[0] / 8)]
    if digits:
        least = max(mark.area for mark in digits) / 2
        marks = [
            mark
            for mark in marks
            if (not mark.edges or (mark.edges == 1 and mark.area >= least))
            and not any(mark.frames(digit) for digit in digits)
        ]
    middle = inked[tuple(slice(size // 8, size - size // 8) for size in inked.shape)]
    if not marks or not (digits or middle.any()):
        raise ValueError("no ink in the picture" + " but along its edge" * bool(marks))
    main = max(marks, key=lambda mark: mark.area)
    if max(main.height, main.width) * cell < 6:
        raise ValueError("no ink in the picture but specks")
    size = max(main.height, main.width)
    kept = [
        mark
        for mark in marks
        if mark.area >= SMALL * main.area or (mark.area >= SPECK * main.area and mark.distance(main) <= NEAR * size)
    ]
    if sum(mark.area for mark in marks) > 2 * sum(mark.area for mark in kept):
        raise ValueError("the picture is full of marks")
    cells = np.concatenate([mark.cells for mark in kept])
    height, width = np.ptp(cells, axis=0) + 1
    beside = (mark for mark in kept if mark.distance(main) > 0)
    if any(mark.height > HIGH * height for mark in beside) or width > WIDE * height:
        raise ValueError("more than one digit in the picture")
    mask = np.zeros(inked.shape, bool)
    mask[tuple(cells.T)] = True
    left_out = _widened(inked & ~mask) & ~mask
    left_out = left_out.repeat(cell, axis=0).repeat(cell, axis=1)[: ink.shape[0], : ink.shape[1]]
    return np.where(left_out, 0, ink).astype(np.uint8)


@dataclass(frozen=True)
class _Mark:
    """Cells (N, 2) that hang together, how many of the picture's four edges they touch, and their box's corners."""

    cells: NDArray[np.intp]
    edges: int
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    @property
    def area(self) -> int:
        return len(self.cells)

    @property
    def height(self) -> int:
        return int(self.last[0] - self.first[0]) + 1

    @property
    def width(self) -> int:
        return int(self.last[1] - self.first[1]) + 1

    def frames(self, other: _Mark) -> bool:
        """Whether it is a box around another, which is at least a third as high."""
        around = (self.first < other.first).all() and (self.last > other.last).all()
        return bool(around) and 3 * other.height >= self.height

    def distance(self, other: _Mark) -> int:
        """The gap between their boxes, along the axis where it is larger."""
        return int(np.maximum(self.first - other.last, other.first - self.last).max())


def _lines(inked: NDArray[np.bool]) -> NDArray[np.bool]:
    """The rows and columns within a quarter of an edge that are ink from end to end: a form's, a digit may touch them.

    None where what is left reaches an edge, or is nothing: then they are the bars of a digit that fills its picture.
    """
    lines = np.zeros_like(inked)
    for view, turned in (inked, lines), (inked.T, lines.T):
        full = view.mean(axis=1) > 0.95
        full[len(full) // 4 : -(len(full) // 4) or None] = False
        turned[full] = True
    rest = inked & ~lines
    return lines if rest.any() and not edge(rest).any() else np.zeros_like(lines)


def _marks(inked: NDArray[np.bool]) -> list[_Mark]:
    """What hangs together in a picture (H, W), corners included: runs of a row, joined to those of the row above."""
    steps = np.diff(np.pad(inked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    mark = list(range(len(rows)))  # of each run; the first run that it is joined to, or itself

    def first(run: int) -> int:
        while mark[run] != run:
            mark[run] = run = mark[mark[run]]
        return run

    bounds = np.searchsorted(rows, np.arange(inked.shape[0] + 1)).tolist()
    left, right = starts.tolist(), ends.tolist()
    for above, row, below in zip(bounds, bounds[1:], bounds[2:], strict=False):
        up, down = above, row
        while up < row and down < below:
            if left[up] <= right[down] and left[down] <= right[up]:
                one, other = first(up), first(down)
                mark[max(one, other)] = min(one, other)
            if right[up] < right[down]:
                up += 1
            else:
                down += 1
    runs = np.array([first(run) for run in range(len(mark))], np.intp)
    of_cell = np.repeat(runs, ends - starts)
    order = np.argsort(of_cell, kind="stable")
    cells = np.argwhere(inked)[order]
    marks = []
    for found in np.split(cells, np.flatnonzero(np.diff(of_cell[order])) + 1) if len(cells) else ():
        low, high = found.min(axis=0), found.max(axis=0)
        edges = np.concatenate([low == 0, high == np.subtract(inked.shape, 1)])
        marks.append(_Mark(found, int(edges.sum()), low, high))
    return marks


def _paper(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The brightness of bright paper at each pixel of a picture (H, W), as if nothing were written on it.

    Sought in at most PLACES x PLACES cells, each the mean of its pixels. What is darker than all around it within REACH
    is ink, and filled. A quadratic surface through what is left, fitted three times to the cells that are near it,
    takes away what varies slowly: a lamp's shading, which would look like ink where it is darkest, at an edge. What
    stays after filling in the cells divided by it is a shadow, with an edge of its own; where there is one, the pixels
    are filled as well, whose edge is as sharp as the shadow's and does not look like a line of ink.
    """
    cell = max(*grey.shape, PLACES) / PLACES
    counts = [max(round(size / cell), 1) for size in grey.shape]
    cells = _cells(_cells(grey, counts[0]).T, counts[1]).T
    surface = _surface(cells)
    light = _filled(cells / surface).clip(DARKEST)
    filled = (light * surface).astype(np.float32)
    paper = _between(_between(filled, grey.shape[0]).T, grey.shape[1]).T
    if np.ptp(light) > SHADOW:
        paper = np.minimum(paper, _filled(grey))
    return np.maximum(paper, 1)


def _surface(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quadratic in row and column through the paper's cells, positive."""
    row, column = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in cells.shape), indexing="ij"))
    terms = np.stack([np.ones(cells.size), row, column, row * row, row * column, column * column], axis=1)
    level = cells.ravel()
    used = level >= np.maximum(0.9 * _filled(cells).ravel(), DARKEST * np.quantile(level, 0.95))
    for _ in range(3):
        fitted = terms @ np.linalg.lstsq(terms[used], level[used], rcond=None)[0]
        off = np.abs(level - fitted)
        used = off <= max(1, 3 * float(np.median(off)))
    brightest = cells.max()
    surface: NDArray[np.float64] = fitted.reshape(cells.shape).clip(brightest / 10, brightest)
    return surface


def _filled(cells: NDArray[Any]) -> NDArray[Any]:
    """Cells (H, W) with what is darker than all around it within REACH of their longer side, or of PLACES where that is
    longer, filled: a closing."""
    reach = round(REACH * max(*cells.shape, PLACES))
    for most in np.maximum, np.minimum:
        cells = _window(_window(cells, most, reach).T, most, reach).T
    return cells


def _window(cells: NDArray[Any], most: np.ufunc, reach: int) -> NDArray[Any]:
    """The maximum, or what `most` is, of each cell and `reach` of those above and below it."""
    done = 0
    while done < reach:
        step = min(2 * done + 1, reach - done)  # windows that meet
        wider = cells.copy()
        most(wider[step:], cells[:-step], out=wider[step:])
        most(wider[:-step], cells[step:], out=wider[:-step])
        cells, done = wider, done + step
    return cells


def _median_of_three(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of each pixel and those above and below it."""
    above, below = np.vstack([grey[:1], grey[:-1]]), np.vstack([grey[1:], grey[-1:]])
    return np.maximum(np.minimum(above, grey), np.minimum(np.maximum(above, grey), below))


def _widened(mask: NDArray[np.bool]) -> NDArray[np.bool]:
    """A mask and the pixels next to it."""
    wide = np.pad(mask, 1)
    wide[1:] |= wide[:-1]
    wide[:-1] |= wide[1:]
    wide[:, 1:] |= wide[:, :-1]
    wide[:, :-1] |= wide[:, 1:]
    return wide[1:-1, 1:-1]


def _shrunk(picture: NDArray[Any], step: int) -> NDArray[np.float32]:
    """The means (H / step, W / step) over step x step pixels, and over what is left of them at the end."""
    means = picture.astype(np.float32) if step == 1 else picture
    for axis, size in enumerate(picture.shape):
        starts = np.arange(0, size, step)
        counts = np.diff(starts, append=size).astype(np.float32)
        means = np.add.reduceat(means, starts, axis=axis, dtype=np.float32) / counts.reshape((-1, 1)[: 2 - axis])
    return means


def _means(size: int, count: int) -> NDArray[np.float64]:
    """The matrix (count, size) that takes ``size`` pixels to the means over ``count`` equal parts of their length."""
    edges = np.linspace(0, size, count + 1)[:, np.newaxis]
    pixels = np.arange(size)
    covered: NDArray[np.float64] = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return covered.clip(0) * (count / size)


def _cells(grey: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """The means (count, W) over equal parts of a picture's height. As `_means`, without the product: BLAS's threads
    take longer to start."""
    at = np.linspace(0, len(grey), count + 1)
    whole = np.minimum(at.astype(np.intp), len(grey) - 1)
    sums = np.zeros((len(grey) + 1, grey.shape[1]))
    np.cumsum(grey, axis=0, out=sums[1:])
    sums = sums[whole] + (at - whole)[:, np.newaxis] * grey[whole]
    means: NDArray[np.float64] = np.diff(sums, axis=0) * (count / len(grey))
    return means


def _between(cells: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The levels of ``size`` rows between those of equal parts (N, W), linearly."""
    at = ((np.arange(size) + 0.5) * len(cells) / size - 0.5).clip(0, len(cells) - 1)
    low = np.minimum(at.astype(np.intp), max(len(cells) - 2, 0))
    share = (at - low).astype(np.float32)[:, np.newaxis]
    levels: NDArray[np.float32] = (1 - share) * cells[low] + share * cells[np.minimum(low + 1, len(cells) - 1)]
    return levels


def _start(profile: NDArray[np.float64], room: int) -> int:
    """Where to begin in ``room`` pixels so that the profile's centre of mass is pixel ``room / 2``, if it fits there.

    The centre of that pixel, not its edge: in MNIST the means of both coordinates, counted from 0, are 14.0.
    """
    centre = np.average(np.arange(len(profile)), weights=profile)
    return min(max(round(room / 2 - float(centre)), 0), room - len(profile))
