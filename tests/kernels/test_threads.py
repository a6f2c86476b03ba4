"""One number of threads for every backend, and kernels that several Python threads may call at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import threadpoolctl

import kernels
from benchmarks.suite.cases import get
from kernels import Kernels, threads


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
    x = np.ones(100_000, np.float32)
    np.testing.assert_array_equal(kernels.get("numba").relu(x), x)
    if not numba.config.DISABLE_JIT:  # plain Python has no pool
        assert numba.get_num_threads() == n


@pytest.mark.parametrize(
    ("asked", "most"),
    [("1", 1), ("1,4", 1), (" 2 ", 2), ("3", 3), ("100000", 5), (None, 5), ("0", 5), ("-1", 5), ("many", 5), ("", 5)],
)
def test_openmps_variable_caps_the_threads(monkeypatch: pytest.MonkeyPatch, asked: str | None, most: int) -> None:
    monkeypatch.setattr(threads, "_requested", None)
    monkeypatch.setattr(threads, "available_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(threads, "_asked", threads._asked_for())
    assert kernels.get_threads() == most
    monkeypatch.setattr(threads, "_requested", 4)  # as after set_threads
    assert kernels.get_threads() == 4


def test_whoever_wants_to_hear_of_a_change_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_listeners", [*threads._listeners])
    heard: list[int] = []

    @threads.on_change
    def listener(n: int) -> None:
        heard.append(n)

    kernels.set_threads(2)
    kernels.set_threads(1)
    with pytest.raises(ValueError, match="set_threads: n is 0"):
        kernels.set_threads(0)
    assert heard == [2, 1]
    listener(3)
    assert heard == [2, 1, 3]


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
