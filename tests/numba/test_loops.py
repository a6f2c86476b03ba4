"""Loops over ``prange``: every round once, by any number of threads, with what the loop was given."""

from __future__ import annotations

import time
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

from kernels.numba_backend.compiler import loops
from kernels.numba_backend.compiler.jit import DISABLED, Flat, inline, kernel, prange, separate, worker
from kernels.numba_backend.tiles.tile import flat, given, lanes

from ..support.processes import Process

pytestmark = pytest.mark.skipif(DISABLED, reason="nothing is compiled")


@kernel
def count(times: np.ndarray, who: np.ndarray) -> None:
    for i in prange(times.size):
        times[i] += 1
        who[i] = i


@kernel
def two_levels(y: np.ndarray, factor: float) -> None:
    half = y.shape[1] // 2
    for i in prange(y.shape[0]):
        row = y[i]
        scale(row[:half], factor)
        for j in prange(half):  # within a loop: by the thread that is there
            row[half + j] = i - j
    scale(y[0], 1)


@inline
def scale(x: np.ndarray, factor: float) -> None:
    for i in prange(x.size):
        x[i] *= factor


@kernel
def allocate(sizes: np.ndarray, y: np.ndarray) -> None:
    for i in prange(y.size):
        y[i] = np.empty(sizes[i], np.float64).size


@kernel
def reduce(x: np.ndarray, y: np.ndarray) -> None:
    total = 0.0
    for i in prange(x.size):
        total += x[i]
    y[0] = total


@separate
def look(marks: Flat, at: int, seen: Flat) -> None:
    seen[0] = marks[at]


@kernel
def wait_for_another(marks: np.ndarray, seen: np.ndarray, rounds: int) -> None:
    last = marks.size // 2 - 1  # of two threads' stretches the first ends there
    for i in prange(marks.size):
        patience = rounds if i == 0 else 0
        while patience > 0 and seen[0] == 0:
            look(flat(marks), last, flat(seen))
            patience -= 1
        marks[i] = 1


def test_a_thread_that_is_held_up_is_helped_out() -> None:
    marks, seen = np.zeros(16), np.zeros(1)
    wait_for_another.dispatcher(marks, seen, 10**9, 2)
    assert marks.all()
    assert seen[0] == 1


@kernel
def number(workers: np.ndarray, seen: np.ndarray, rounds: int) -> None:
    last = workers.size // 2 - 1
    for i in prange(workers.size):
        patience = rounds if i == 0 else 0
        while patience > 0 and seen[0] == 0:
            look(flat(workers), last, flat(seen))
            patience -= 1
        workers[i] = worker() + 1


def test_two_rounds_at_a_time_have_two_workers() -> None:
    workers, seen = np.zeros(16), np.zeros(1)
    number.dispatcher(workers, seen, 10**9, 2)
    assert seen[0] == workers[7]
    assert {workers[0], workers[7]} == {1, 2}


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_workers_are_no_more_than_threads_and_rounds(n: int, threads: int) -> None:
    workers = np.zeros(n)
    number.dispatcher(workers, np.zeros(1), 0, threads)
    assert workers.min() >= 1
    assert workers.max() <= min(n, threads)


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 40])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64, 1000])
def test_every_round_is_run_once(n: int, threads: int) -> None:
    times, who = np.zeros(n), np.zeros(n)
    count.alone(times, who)  # so that there are threads before they are asked for
    count.dispatcher(times, who, threads)
    assert (times == 2).all()
    assert (who == np.arange(n)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loop_within_a_loop_and_loops_of_a_function_that_is_called(threads: int) -> None:
    y = np.ones((4, 6))
    two_levels.alone(np.ones((1, 2)), 1.0)
    two_levels.dispatcher(y, 2.0, threads)
    assert (y[:, :3] == 2).all()
    assert (y[:, 3:] == np.arange(4)[:, np.newaxis] - np.arange(3)).all()


def test_a_loop_sums_nothing_up() -> None:
    with pytest.raises(Exception, match="total"):
        reduce(np.ones(4), np.zeros(1))


def test_want_of_memory_in_a_loop_is_an_error() -> None:
    y = np.zeros(2)
    allocate(np.array([3, 4]), y)
    assert y.tolist() == [3, 4]
    with pytest.raises(MemoryError):
        allocate(np.array([3, 1 << 60]), y)


def test_a_source_that_has_changed_is_not_compiled(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    file.write_text(
        "from kernels.numba_backend.compiler.jit import kernel, prange\n"
        "@kernel\ndef fill(y):\n    for i in prange(y.size):\n        y[i] = 1\n"
    )
    later = time.time() + 10
    lines, _ = Process(
        f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
import numpy as np
import changing
os.utime({str(file)!r}, ({later}, {later}))
try:
    changing.fill(np.zeros(3))
except OSError as error:
    print(error)
"""
    ).result()
    assert lines == [f"{file} has changed since it was imported: start Python again"]


def test_what_is_handed_to_a_loop() -> None:
    source = two_levels.__wrapped__
    handed: list[tuple[str, tuple[str, ...], bool]] = []

    def part(loop: object, disjoint: bool) -> object:
        code = loop.__code__  # type: ignore[attr-defined]
        handed.append((loop.__name__, code.co_varnames[3 : code.co_argcount], disjoint))  # type: ignore[attr-defined]
        return loop

    loops.rewritten(source, part)
    assert handed == [("two_levels_loop0", ("y", "factor", "half"), False)]


@inline
def sink(memory: object) -> None:
    """Takes anything."""


@kernel
def memories(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    for i in prange(x.size):
        sink(flat(x))
        sink(flat(y))
        sink(flat(z))
        y[i] = lanes(x)


def test_an_array_whose_memory_alone_is_read_is_handed_on_as_that() -> None:
    sources: list[str] = []

    def part(loop: FunctionType, disjoint: bool) -> FunctionType:
        sources.append(" ".join(name for name in loop.__code__.co_names if name in ("flat", "lanes")))
        return loop

    rewritten = loops.rewritten(memories.__wrapped__, part)
    assert sources == ["flat lanes"]  # one left, for y, which is written to
    assert "flat__" in rewritten.__code__.co_names


@kernel
def kept(x: np.ndarray, found: np.ndarray) -> None:
    for i in prange(found.size):
        found[i] = given(flat(x))


@pytest.mark.parametrize("n", [0, 3])
def test_memory_handed_on_is_that_of_the_array(n: int) -> None:
    found = np.full(1, -1)
    kept(np.arange(float(n)), found)
    assert found[0] == (n > 0)
