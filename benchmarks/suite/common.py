"""What the benchmarks share: a case as the call that a backend receives, its error, and times that are comparable."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

if "ASV_ENV_DIR" in os.environ:  # before numba is loaded: commits share no compiled kernels
    os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(os.environ["ASV_ENV_DIR"], "numba-cache"))

import numpy as np
from numpy.typing import DTypeLike

import kernels
from kernels import Kernels, memory
from kernels.interface import roles

from . import cases
from .cases import Case

Results = dict[str, np.ndarray]

THREADS = min(2, kernels.get_threads())
"""Threads of every figure that is kept, so that it does not depend on who else may use the machine's other cores."""

ULPS = 16.0
"""What rounding may cost beyond the baseline's own error, in units of the output's scale."""


# A case as a call of a backend -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A kernel and the arguments that a backend receives, by parameter name and in the call's order."""

    kernel: str
    arguments: dict[str, Any]

    def arrays(self, *wanted: str) -> dict[str, np.ndarray]:
        """The arguments of these roles that are there."""
        return {
            name: self.arguments[name]
            for name, role in roles(self.kernel).items()
            if role in wanted and self.arguments[name] is not None
        }

    @property
    def bytes(self) -> int:
        """Bytes of all arrays but scratch, each counted once a direction."""
        read, written = self.arrays("input", "in place"), self.arrays("output", "in place")
        return sum(array.nbytes for array in [*read.values(), *written.values()])

    def bind(self, k: Kernels) -> tuple[Callable[[], Any], Results]:
        """The call on arrays of its own, allocated and touched, and those of them that it writes."""
        arguments = dict(self.arguments)
        first = next(iter(self.arrays("input", "in place").values()))
        written: Results = {}
        for name, role in roles(self.kernel).items():
            value = arguments[name]
            if not isinstance(value, np.ndarray):
                continue
            size = k.scratch_size(self.kernel, arguments["d"], len(first)) if role == "scratch" else value.shape
            arguments[name] = memory.empty(size, value.dtype)
            if role in ("input", "in place"):
                arguments[name][...] = value
            else:
                arguments[name].fill(np.nan if value.dtype.kind == "f" else 113)
            if role in ("output", "in place"):
                written[name] = arguments[name]
        function, values = k.function(self.kernel), list(arguments.values())
        return lambda: function(*values), written

    def results(self, k: Kernels) -> Results:
        """What the call writes when it is made once."""
        run, written = self.bind(k)
        run()
        return written

    def in_float64(self) -> Call:
        """The same call with every float32 array in float64: its results are the truth for float32."""

        def widen(value: Any, role: str) -> Any:
            if not isinstance(value, np.ndarray) or value.dtype != np.float32:
                return value
            # What an output holds before the call may be anything, and no number to convert.
            return value.astype(np.float64) if role in ("input", "in place") else np.empty(value.shape)

        names = roles(self.kernel)
        return Call(self.kernel, {name: widen(value, names[name]) for name, value in self.arguments.items()})


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


def errors(call: Call, results: Results, truth: Results) -> dict[str, float]:
    """Largest |result − truth| of each output, in units of rounding (eps) at the size of its largest value.

    Where a result is what is left of larger terms, the size is theirs. Whole numbers must be equal: else infinity.
    """
    return {name: _error(value, truth[name], _size(call, truth[name])) for name, value in results.items()}


def _size(call: Call, truth: np.ndarray) -> float:
    own = float(np.abs(truth).max())
    if not any(word in call.kernel for word in ("norm", "softmax")):
        return own
    terms = next(iter(call.arrays("input").values()))  # x, logits, or dy
    return max(own, float(np.abs(terms).max()))


def _error(result: np.ndarray, truth: np.ndarray, size: float) -> float:
    if result.dtype.kind != "f":
        return 0.0 if np.array_equal(result, truth) else math.inf
    difference = float(np.abs(result - truth).max())
    unit = float(np.finfo(result.dtype).eps) * size + float(np.finfo(result.dtype).tiny)
    return difference / unit if math.isfinite(difference) else math.inf


class Accuracy(NamedTuple):
    """How far a backend is from the truth, beside the definition's own distance; in units of rounding."""

    error: float
    baseline: float
    excess: float

    @property
    def relative(self) -> float:
        """The error in units of the definition's own, an ulp added to both so that neither is zero."""
        return (1.0 + self.error) / (1.0 + self.baseline)


def accuracy(call: Call, k: Kernels, definition: Kernels | None = None) -> Accuracy:
    """The errors of a call, the largest over its outputs.

    `excess` is the largest share that an output takes of its budget, 4 times the definition's error + ULPS: beyond
    1 the result is wrong. The truth is the definition in float64; for a call in float64 it is its own truth.
    """
    definition = definition or kernels.get("numpy")
    truth, results = call.in_float64().results(definition), call.results(k)
    error, baseline = errors(call, results, truth), errors(call, call.results(definition), truth)
    excess = max(error[name] / (4.0 * baseline[name] + ULPS * _terms(call)) for name in error)
    return Accuracy(max(error.values()), max(baseline.values()), excess)


def _terms(call: Call) -> float:
    """1 for float32. In float64 there is no better truth, and a sum's error grows with its length: some room."""
    first = next(iter(call.arrays("input", "in place").values()))
    return 64.0 if first.dtype == np.float64 else 1.0


def prepare(case_id: str, backend: str, dtype: DTypeLike = np.float32) -> Callable[[], Any]:
    """The call behind a case, ready to be timed; AssertionError where the backend's result is wrong."""
    call, k = record(cases.get(case_id), dtype), kernels.get(backend)
    if backend != "numpy":
        excess = accuracy(call, k).excess
        assert excess <= 1.0, f"{case_id} on {backend}: {excess:.3g} times its error budget"
    run, _ = call.bind(k)
    run()
    return run


def compile_ahead(needed: Iterable[tuple[str, str]]) -> None:
    """Have the Numba kernels behind cases (id, dtype) compiled in as many processes as there are threads.

    Whatever cannot be is compiled by the benchmark that needs it, and fails there.
    """
    with contextlib.suppress(ImportError):  # no Numba, or a commit that compiles one kernel after the other
        try:
            from kernels.numba_backend.compiler import ahead, jit
        except ImportError:  # a commit before there was `compiler`
            from kernels.numba_backend import ahead, jit  # type: ignore[no-redef]

        calls = []
        for case_id, dtype in needed:
            run, _ = record(cases.get(case_id), dtype).bind(kernels.get("numba"))
            with jit.recording() as recorded:
                run()
            calls += [(kernel, threads, kernel.types(arguments)) for kernel, threads, arguments in recorded]
        ahead.compile_ahead(calls)


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
