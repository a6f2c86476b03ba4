"""What the benchmarks share: a case as the call that a backend receives, its error, and times that are comparable."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

if "ASV_ENV_DIR" in os.environ:  # before numba is loaded: commits share no compiled kernels
    os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(os.environ["ASV_ENV_DIR"], "numba-cache"))

import numpy as np
from numpy.typing import DTypeLike

import kernels
from kernels import Kernels
from kernels.interface import roles

from . import cases
from .cases import Case

if find_spec("kernels.accuracy") is None:  # a commit from before it: held to the budget of the commit that has this
    kernels.__path__.append(str(Path(__file__).parents[2] / "kernels"))

from kernels import accuracy
from kernels.accuracy import Call

THREADS = min(2, kernels.get_threads())
"""Threads of every figure that is kept, so that it does not depend on who else may use the machine's other cores."""


# A case as a call of a backend -----------------------------------------------------------------------------------


class _Recorder:
    """A backend that keeps its arguments and fills nothing."""

    call: Call

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_scratch"):
            return lambda d, n: 0

        def keep(*arguments: Any) -> None:
            self.call = Call(name, dict(zip(roles(name), arguments, strict=True)))

        return keep


def record(case: Case, dtype: DTypeLike = np.float32, seed: int = 0) -> Call:
    """The call behind a case."""
    recorder = _Recorder()
    case.run(Kernels("recorder", recorder), dtype, seed)
    return recorder.call


# Errors ----------------------------------------------------------------------------------------------------------


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


def measure_accuracy(call: Call, k: Kernels, definition: Kernels | None = None) -> Accuracy:
    """The errors of a call, the largest over its outputs.

    The truth is the definition in float64; for a call in float64 it is its own truth.
    """
    definition = definition or kernels.get("numpy")
    truth, own = call.in_float64().results(definition), call.results(definition)
    single = any(array.dtype == np.float32 for array in call.arrays("input", "in place").values())
    twin = accuracy.closeness(call, call.results(k), truth, own if single else None)
    itself = accuracy.closeness(call, own, truth)
    return Accuracy(
        max(output.ulps for output in twin.values()),
        max(output.ulps for output in itself.values()),
        max(output.share for output in twin.values()),
    )


def prepare(case_id: str, backend: str, dtype: DTypeLike = np.float32) -> Callable[[], Any]:
    """The call behind a case, ready to be timed; AssertionError where the backend's result is wrong."""
    call, k = record(cases.get(case_id), dtype), kernels.get(backend)
    if backend != "numpy":
        share = measure_accuracy(call, k).share
        assert share <= 1.0, f"{case_id} on {backend}: {share:.3g} times its error budget"
    run, _ = call.bind(k)
    run()
    return run


def compile_ahead(needed: Iterable[tuple[str, str]]) -> None:
    """Have the Numba kernels behind cases (id, dtype) compiled in as many processes as there are threads.

    Whatever cannot be is compiled by the benchmark that needs it, and fails there.
    """
    with contextlib.suppress(ImportError):  # no Numba, or a commit that compiles one kernel after the other
        from kernels.numba_backend.compiler.ahead import compile_for

        k = kernels.get("numba")
        compile_for(*(lambda c=c, d=d: record(cases.get(c), d).bind(k)[0]() for c, d in needed))


# Times -----------------------------------------------------------------------------------------------------------


def settle(threads: int = THREADS) -> None:
    """Make times comparable: so many threads in every backend, left to the scheduler.

    OpenMP could bind them for good (OMP_PROC_BIND), but OpenBLAS's threads inherit the one core of the thread that
    makes them: NumPy then takes two to a hundred times as long.
    """
    with contextlib.suppress(ImportError):
        kernels.get("numba")
    kernels.set_threads(threads)


def load() -> None:
    """Load what processes forked from this one would each load again; Numba's tables alone take 0.3 s."""
    for name in kernels.names():
        with contextlib.suppress(ImportError):
            kernels.get(name)
    with contextlib.suppress(ImportError):
        from numba.core.registry import cpu_target

        cpu_target.target_context.refresh()


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
    raise RuntimeError(f"threads of this process keep working for {limit} s while idle; is OMP_WAIT_POLICY=active set?")


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


class Sampler:
    """Times a call in samples, each begun when the process is quiet and long enough for the clock."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
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
        start = time.perf_counter()
        for _ in itertools.repeat(None, repetitions):
            self.call()
        return (time.perf_counter() - start) / repetitions

    def __call__(self) -> float:
        """Seconds a call."""
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
