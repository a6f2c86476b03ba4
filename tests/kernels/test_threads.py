"""One number of threads for every backend, and kernels that several Python threads may call at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import kernels
from benchmarks.suite.cases import get
from kernels import Kernels

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("n", [1, 2])
def test_every_backend_has_that_many_threads(n: int) -> None:
    for name in kernels.names():
        kernels.get(name)
    kernels.set_threads(n)
    assert kernels.get_threads() == n
    assert blas_threads() == {n}
    from kernels.numba_backend.compiler import threads

    assert threads.get_threads() == n


def test_a_backend_loaded_later_has_them_as_well() -> None:
    program = """
import kernels
kernels.set_threads(1)
kernels.get("numba")
from kernels.numba_backend.compiler import threads
print(threads.get_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_numpy_ints_are_ints() -> None:
    kernels.set_threads(np.int64(1))
    assert kernels.get_threads() == 1


def test_there_is_a_thread_at_least() -> None:
    assert kernels.get_threads() >= 1


@pytest.mark.parametrize("id", ["conv2d/padding", "linear_backward/odd", "maxpool2d/overlapping", "dropout/odd"])
def test_python_threads_may_call_at_once(k: Kernels, id: str) -> None:
    case = get(id)

    def run(seed: int) -> list[np.ndarray]:
        result = case.run(k, np.float64, seed)
        return list(result) if isinstance(result, tuple) else [result]

    alone = [run(seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(16)))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
