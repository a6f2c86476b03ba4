"""Layout: where the arrays of a model lie in one flat vector, so that an optimizer's step is one call."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

ALIGNED_ELEMENTS = 16  # parameters start on a cache line of float32


class Layout:
    """Where named arrays lie in one flat vector; each starts on a cache line, gaps stay zero."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
        self.offsets: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = end
            end += -(-math.prod(shape) // ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS
        self.size = end

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The named arrays as views into `flat`."""
        return {
            name: flat[start : start + math.prod(self.shapes[name])].reshape(self.shapes[name])
            for name, start in self.offsets.items()
        }
