"""Kernels under pytest-benchmark: a group a case, so that the backends stand side by side.

Plain pytest runs each once; `--benchmark-enable` times them. Each result is held to its budget first, those in float32
only where they are timed: otherwise tests/kernels/test_conformance.py, of the same run, holds them.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import pytest

import kernels
from kernels.accuracy import Call
from twinkernels.bench.errors import accuracy

from .suite import cases, common

BENCH = [(case.id, dtype) for case in cases.select(tag="bench") for dtype in ("float32",)]
BENCH += [(f"{kernel}/cnn-bn-conv2-b128", "float64") for kernel in ("conv2d", "conv2d_backward")]
BENCH += [(f"{kernel}/mlp-512-hidden-b128", "float64") for kernel in ("linear", "linear_backward")]


@lru_cache(1)  # a case's backends come one after the other, and those of a real layer are large
def recorded(case_id: str, dtype: str) -> Call:
    return common.record(cases.get(case_id), dtype)


@cache
def limits(dtype: str) -> Any:
    """The machine's limits, measured once."""
    from kernels.limits import measure

    return measure(dtype)


@pytest.mark.parametrize("backend", kernels.names())
@pytest.mark.parametrize(("case_id", "dtype"), BENCH, ids=[f"{id}-{dtype}" for id, dtype in BENCH])
def test_kernel(benchmark: Any, case_id: str, dtype: str, backend: str) -> None:
    benchmark.group = f"{case_id} {dtype}"
    case, k = cases.get(case_id), kernels.get(backend)
    call = recorded(case_id, dtype)
    if benchmark.enabled or dtype == "float64":
        found = accuracy(call, k, kernels.get("numpy"))
        assert found.share <= 1.0, f"{case_id} on {backend}: {found}"
    run, _ = call.bind(k)
    benchmark(run)
    if benchmark.stats is None:
        return
    seconds = benchmark.stats.stats.median
    least = limits(dtype).seconds(case.flops, call.bytes)
    benchmark.extra_info |= {
        "threads": kernels.get_threads(),
        "GFLOP/s": case.flops / seconds / 1e9,
        "GB/s": call.bytes / seconds / 1e9,
        "share of limit": least / seconds,
        "error in ulp": found.error,
        "error in units of NumPy's": found.relative,
    }
