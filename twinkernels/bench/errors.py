"""How far a backend is from the truth on a call of the contract."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels import Kernels
from kernels import accuracy as measure
from kernels.accuracy import Call


class Accuracy(NamedTuple):
    """How far a backend is from the truth, beside the definition's own distance, both in ulp; see `kernels.accuracy`.

    share: the largest that an output's error takes of its budget. Beyond 1 the result is wrong.
    """

    error: float
    baseline: float
    share: float

    @property
    def relative(self) -> float:
        """The error in units of the definition's own, an ulp added to both so that neither is zero."""
        return (1.0 + self.error) / (1.0 + self.baseline)


def accuracy(call: Call, k: Kernels, definition: Kernels) -> Accuracy:
    """The errors of a call of the contract, the largest over its outputs.

    The truth is the definition in float64; for a call in float64 it is its own truth.
    """
    truth, own = call.in_float64().results(definition), call.results(definition)
    single = any(array.dtype == np.float32 for array in call.arrays("input", "in place").values())
    twin = measure.closeness(call, call.results(k), truth, own if single else None)
    itself = measure.closeness(call, own, truth)
    return Accuracy(
        max(output.ulps for output in twin.values()),
        max(output.ulps for output in itself.values()),
        max(output.share for output in twin.values()),
    )
