"""Random arrays for cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


class Draw:
    """Random arrays of one dtype. All values are float32 numbers, so that both dtypes see the same ones."""

    def __init__(self, dtype: DTypeLike = np.float32, seed: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, mean: float | np.ndarray = 0.0, std: float | np.ndarray = 1.0) -> np.ndarray:
        """Normal values."""
        values = mean + std * self.rng.standard_normal(shape)
        return np.asarray(values, np.float32).astype(self.dtype)

    def positive(self, *shape: int) -> np.ndarray:
        """Values in [0.25, 2)."""
        return self.uniform(*shape, low=0.25, high=2.0)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Values in [low, high)."""
        return self.rng.uniform(low, high, shape).astype(np.float32).astype(self.dtype)

    def integers(self, *shape: int, low: int = -2, high: int = 3) -> np.ndarray:
        """Whole numbers in [low, high): many ties, and sums that float32 holds exactly."""
        return self.rng.integers(low, high, shape).astype(self.dtype)

    def special(self, *shape: int, values: tuple[float, ...]) -> np.ndarray:
        """Normal values with each of `values` at several random places."""
        array = self.normal(*shape)
        places = self.rng.permutation(array.size)[: max(array.size // 2, len(values))]
        array.flat[places] = np.resize(np.asarray(values, np.float32), places.size)
        return array

    def labels(self, rows: int, classes: int) -> np.ndarray:
        """int64 labels in [0, classes)."""
        return self.rng.integers(0, classes, rows)

    def booleans(self, *shape: int) -> np.ndarray:
        """True and False, as often."""
        return self.rng.integers(0, 2, shape).astype(bool)

    def empty(self, *shape: int) -> np.ndarray:
        """Room for an output, of whose values nothing is known."""
        return np.full(shape, np.nan, self.dtype)
