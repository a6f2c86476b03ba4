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
        gaps = [np.empty(0, np.intp)]
        for name, shape in self.shapes.items():
            self.offsets[name], held = end, end + math.prod(shape)
            end = -(-held // ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS
            gaps.append(np.arange(held, end))
        self.size = end
        self._gaps = np.concatenate(gaps)

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The named arrays as views into `flat`."""
        return {
            name: flat[start : start + math.prod(self.shapes[name])].reshape(self.shapes[name])
            for name, start in self.offsets.items()
        }

    def clear_gaps(self, *flat: np.ndarray) -> None:
        """Back to zero with what an update has made of the gaps: 0 / 0 is NaN, as in Adam's step with eps = 0.

        All elements of all gaps are alike, so that the first one tells.
        """
        if self._gaps.size and flat[0][self._gaps[0]] != 0:
            for array in flat:
                array[self._gaps] = 0
