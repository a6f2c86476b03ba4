"""The kernels that most tests call, compiled before the first test begins."""

from __future__ import annotations

import itertools

import numba
import numpy as np

import models
from benchmarks.suite.cases import CASES
from benchmarks.suite.common import compile_ahead

DTYPES = ("float32", "float64")

def compile_what_the_suite_calls() -> None:
    """The table's cases, the large ones in float32 alone, and what the zoo's networks add to them.

    Each kernel once, in as many processes as there are threads. pytest's workers would compile most of them at the same
    time, each for itself, and so would the programs that tests start.
    """
    if numba.config.DISABLE_JIT:
        return
    needed = itertools.product(CASES, DTYPES)
    compile_ahead((case.id, dtype) for case, dtype in needed if dtype == "float32" or "bench" not in case.tags)
    for dtype, network in itertools.product(DTYPES, models.NETWORKS):
        model = models.build(network, "numba", dtype=dtype)
        x, labels = np.zeros((64, *model.input_shape)), np.zeros(64, np.int64)
        models.Trainer(model, models.Adam(1e-3), batch_size=64).fit(x, labels, iterations=1)
        model.predict(x)
