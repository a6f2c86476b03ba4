"""Views: how a tensor of a file lies in the memory of a node's output, in factors of its axes.

A file's tensor (N, C, H, W) and a node's output (N, H, W, C) hold the same numbers. Both are described by the same
factors, called atoms: the memory lists them in the order in which they lie, each of the file's axes lists those that it
is made of. Transposing, flattening, splitting and joining axes then are bookkeeping: a Reshape or a Transpose of the
file costs nothing until a layer wants the numbers in an order in which they do not lie.

>>> c, h, w = Atom(3), Atom(4), Atom(5)
>>> image = View("stem", (h, w, c), ((BATCH,), (c,), (h,), (w,)))   # (N, H, W, C) in memory, (N, C, H, W) in the file
>>> regrouped(image, (2, 60), 2).axes == ((BATCH,), (c, h, w))
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

STAND_IN = (1 << 61) - 1
"""A prime: the batch size in arithmetic on shapes where it is not known, a factor that no other number has."""


class Atom:
    """A factor of an axis: an identity and a size."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return "N" if self is BATCH else str(self.size)


BATCH = Atom(0)
"""The batch axis, of whatever size."""

Axis = tuple[Atom, ...]
"""The factors of one axis, the slowest first; none for an axis of size 1."""


@dataclass(frozen=True)
class View:
    """A tensor of the file: a node's output, the atoms of one sample as they lie there, and the file's axes."""

    node: str
    memory: Axis
    axes: tuple[Axis, ...]

    @property
    def rank(self) -> int:
        """The number of the file's axes."""
        return len(self.axes)


def axis_of(size: int) -> Axis:
    """A new axis of a size."""
    return (Atom(size),) if size != 1 else ()


def extent(axis: Axis) -> int:
    """The size of an axis, the batch left out."""
    return math.prod(atom.size for atom in axis if atom is not BATCH)


def fresh(node: str, shape: Sequence[int], order: Sequence[int]) -> View:
    """A node's whole output (N, *shape), where the file's axis i is the output's axis order[i] (0 is the batch)."""
    own = [(BATCH,), *(axis_of(size) for size in shape)]
    return View(node, tuple(atom for axis in own[1:] for atom in axis), tuple(own[at] for at in order))


def regrouped(view: View, sizes: Sequence[int], batch: int) -> View | None:
    """The view with the file's axes in other sizes, read in the same order, or None where no factors allow that.

    sizes: whole numbers in which the batch counts as `batch`. Their product is that of the view.
    """
    waiting = [atom for axis in view.axes for atom in axis][::-1]
    memory = list(view.memory)
    axes: list[Axis] = []
    for size in sizes:
        group: list[Atom] = []
        rest = size
        while waiting and (rest > 1 or (waiting[-1] is BATCH and batch == 1)):
            atom = waiting.pop()
            extent = batch if atom is BATCH else atom.size
            if rest % extent == 0:
                group.append(atom)
                rest //= extent
            elif extent % rest == 0 and atom is not BATCH:
                outer, inner = Atom(rest), Atom(extent // rest)
                at = memory.index(atom)
                memory[at : at + 1] = [outer, inner]
                # The atom may stand in other axes of this view nowhere: every atom belongs to one axis.
                waiting.append(inner)
                group.append(outer)
                rest = 1
            else:
                return None
        if rest != 1:
            return None
        axes.append(tuple(group))
    if waiting:
        return None
    return View(view.node, tuple(memory), tuple(axes))


def transposed(view: View, order: Sequence[int]) -> View:
    """The file's axes in another order."""
    return replace(view, axes=tuple(view.axes[at] for at in order))


def flat(groups: Sequence[Axis]) -> Axis:
    """All atoms of some axes."""
    return tuple(atom for group in groups for atom in group)


def refined(view: View, groups: Sequence[Axis]) -> tuple[list[int], list[int]]:
    """How memory is brought into the order of groups: the sizes of its runs, and these runs' new order.

    Runs of atoms that stay neighbours move as one axis.
    """
    wanted = flat(groups)
    runs: list[list[Atom]] = []
    place = {atom: at for at, atom in enumerate(wanted)}
    for atom in view.memory:
        if runs and place[runs[-1][-1]] + 1 == place[atom]:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    order = sorted(range(len(runs)), key=lambda at: place[runs[at][0]])
    return [math.prod(atom.size for atom in run) for run in runs], order


def turned(array: np.ndarray, axes: Sequence[Axis], groups: Sequence[Axis]) -> np.ndarray:
    """An array over the file's axes, each of full size or 1, as one that broadcasts over the groups' shape.

    axes: the file's, the batch's left out. Where a group is of several axes of which only some vary, it is filled up.
    """
    atoms = flat(axes)
    full = [atom.size if array.shape[at] != 1 else 1 for at, axis in enumerate(axes) for atom in axis]
    place = {atom: at for at, atom in enumerate(atoms)}
    spread = array.reshape(full).transpose([place[atom] for atom in flat(groups)])
    shape: list[int] = []
    at = 0
    for group in groups:
        sizes = spread.shape[at : at + len(group)]
        if all(size == 1 for size in sizes):
            shape.append(1)
        else:
            shape.append(math.prod(atom.size for atom in group))
            wide = [*spread.shape[:at], *(atom.size for atom in group), *spread.shape[at + len(group) :]]
            spread = np.broadcast_to(spread, wide)
        at += len(group)
    return spread.reshape(shape)
