"""Where things lie in flat memory. Compiled code takes these values apart into registers: they cost nothing.

Starts, distances and widths count elements.
"""

from __future__ import annotations

from typing import NamedTuple

from ..compiler.jit import Flat


class Place(NamedTuple):
    """What begins somewhere in an array's memory."""

    memory: Flat
    start: int


class Rows(NamedTuple):
    """Rows of a matrix, or images: number r begins at `start + r apart`."""

    memory: Flat
    start: int
    apart: int


class Maps(NamedTuple):
    """Images: pixel number p of image r begins at `start + r apart + p pixel`."""

    memory: Flat
    start: int
    apart: int
    pixel: int


class Panel(NamedTuple):
    """Some columns of a matrix as `contract` reads them: rows of one or two vectors, one after the other."""

    memory: Flat
    start: int
    width: int


class Part(NamedTuple):
    """Rows number `low` to `high` of each of some images."""

    images: int
    low: int
    high: int
