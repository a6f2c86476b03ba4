"""Times that are comparable: samples taken in quiet, interleaved in random order, and ratios with their intervals."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kernels

THREADS = min(2, kernels.get_threads())
"""Threads of every figure that is kept, so that it does not depend on who else may use the machine's other cores."""


def settle(threads: int = THREADS) -> None:
    """Make times comparable: so many threads in every backend, left to the scheduler.

    OpenMP could bind them for good (OMP_PROC_BIND), but OpenBLAS's threads inherit the one core of the thread that
    makes them: NumPy then takes two to a hundred times as long.
    """
    with contextlib.suppress(ImportError):
        kernels.get("numba")
    set_threads(threads)


def set_threads(n: int) -> None:
    """As `kernels.set_threads`, at once for Numba's functions that are not the package's own."""
    kernels.set_threads(n)
    if "numba" in sys.modules:
        with contextlib.suppress(ImportError):  # a commit before there was `compiler`
            from kernels.numba_backend.compiler.threads import turn

            with turn():
                pass


_SAMPLE = 1e-3
"""Seconds that a sample lasts at least: a thousand times the clock's own cost."""


def quiet(limit: float = 2.0) -> None:
    """Wait until no thread of this process works.

    Idle workers spin: OpenMP's for some milliseconds, OpenBLAS's for some tens of them. Whatever runs next would
    share its cores with them, which flatters Numba after NumPy and NumPy after Numba.
    """
    deadline = time.perf_counter() + limit
    while time.perf_counter() < deadline:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(0.002)
        if time.process_time() - cpu < 0.1 * (time.perf_counter() - wall) and not _runnable():
            return
    raise ValueError(f"threads of this process keep working for {limit} s while idle; is OMP_WAIT_POLICY=active set?")


@contextlib.contextmanager
def parted() -> Iterator[None]:
    """Keep the workers of each pool on cores of their own, away from the calling thread's, for as long as this lasts.

    A virtual machine's idle core is given away by its host. Linux then wakes a worker on the core of the thread that
    woke it, and may leave both there for tens of milliseconds. A training, which leaves its workers no time to sleep,
    has both cores nearly always: samples of cnn-bn's step at batch 64 take 5.3 ms parted and 9.0 ms free.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    first, *others = sorted(allowed)
    # Each pool makes its workers in a row, so that in the order of their making they go round the cores.
    places = {tid: [core] for tid, core in zip(_workers(), itertools.cycle(others or [first]), strict=False)}
    try:
        _place({threading.get_native_id(): [first], **places})
        yield
    finally:  # threads that were made meanwhile have inherited one core
        _place(dict.fromkeys([threading.get_native_id(), *_workers()], allowed))


def _runnable() -> bool:
    """Whether a worker wants a core, be it that other programs leave it none; False where that is not told."""
    for tid in _workers():
        with contextlib.suppress(OSError):  # a thread that has ended
            if Path(f"/proc/self/task/{tid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].startswith("R"):
                return True
    return False


def _workers() -> list[int]:
    """The process's other threads, oldest first; none where the system does not list them."""
    tasks = Path("/proc/self/task")
    return sorted({int(task.name) for task in tasks.iterdir()} - {threading.get_native_id()}) if tasks.exists() else []


def _place(cores: Mapping[int, Iterable[int]]) -> None:
    for tid, allowed in cores.items():
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended
            os.sched_setaffinity(tid, allowed)


_WAKING = 0.01
"""Seconds of calls before a sample: time enough for a worker that sleeps on the wrong core to wake on its own."""


@contextlib.contextmanager
def undisturbed(call: Callable[[], Any]) -> Iterator[None]:
    """What a time is taken within: no thread at work from before, the call's own threads awake and `parted`."""
    quiet()
    awake = time.perf_counter() + _WAKING
    with parted():
        while time.perf_counter() < awake:
            call()
        yield


def mean(call: Callable[[], Any], least: float = 0.01) -> float:
    """Seconds of one call, the mean over as many as fill `least` seconds, whatever else there is at work."""
    calls, start = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        if (spent := time.perf_counter() - start) >= least:
            return spent / calls


class Sampler:
    """Times a call in samples, each begun when the process is quiet and long enough for the clock."""

    def __init__(self, call: Callable[[], Any], before: Callable[[], Any] | None = None) -> None:
        """before: what is done before each sample, as to give a call that works in place its first arrays back."""
        self.call, self.before = call, before
        call()
        self._once = self._seconds(1)

    @property
    def repetitions(self) -> int:
        """Calls a sample, by the fastest call so far.

        A busy moment must not decide it: on a busy machine a sample of one call and one of sixteen, of the same
        kernel, differ threefold.
        """
        return max(1, math.ceil(_SAMPLE / max(self._once, 1e-7)))

    def _seconds(self, repetitions: int) -> float:
        call = self.call
        start = time.perf_counter()
        for _ in itertools.repeat(None, repetitions):
            call()
        return (time.perf_counter() - start) / repetitions

    def __call__(self) -> float:
        """Seconds a call."""
        if self.before is not None:
            self.before()
        with undisturbed(self._look):
            return self._seconds(self.repetitions)

    def _look(self) -> None:
        self._once = min(self._once, self._seconds(1))


def sample(samplers: Mapping[str, Callable[[], float]], rounds: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Seconds (rounds,) of each sampler, each round in a random order: what the machine does hits all alike."""
    rng = np.random.default_rng(seed)
    seconds = {name: np.empty(rounds) for name in samplers}
    for i in range(rounds):
        for name in rng.permutation(list(samplers)):
            seconds[name][i] = samplers[name]()
    return seconds


class Interval(NamedTuple):
    """A median and the interval that holds it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(numerator: np.ndarray, denominator: np.ndarray, confidence: float = 0.99, seed: int = 0) -> Interval:
    """Median of the paired ratios, by their logarithms, with its bootstrap interval."""
    logarithms = np.log(numerator / denominator)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(logarithms, (2000, logarithms.size)), axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.exp(low)), float(np.exp(np.median(logarithms))), float(np.exp(high)))
