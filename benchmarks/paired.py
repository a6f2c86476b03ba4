"""The gate: is Numba as much faster than NumPy as it was, and as accurate? Run: python -m benchmarks.paired

NumPy and Numba run alternately, in random order, in one process. The speed-up is the median of the paired ratios; a
case fails when its whole bootstrap interval lies below MARGIN times its floor, so that noise alone fails nothing.
Floors are kept by kind of CPU in floors.json. A third contestant, NumPy in a process that never loads Numba, shows
that the two do not disturb each other. A case fails as well when its error is beyond its budget. One that fails is
tried again when all others are done: a moment in which the machine had something else to do is over by then.

Exit status: 0 passed, 1 failed, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

import kernels
import models
from kernels import Kernels, accuracy

from .suite import cases, common
from .suite.common import Interval, Sampler

FLOORS = Path(__file__).with_name("floors.json")
MARGIN = 0.75
"""A case may lose a quarter of its floor before it fails: the spread between machines of one kind."""

SHORT, SHORT_MARGIN = 100e-6, 0.5
"""One whose call takes Numba fewer seconds may lose half: what the start of the threads costs differs from one machine
of a kind to another, and from hour to hour on each."""

TRIES = 3
"""How often a case is measured before its failure counts."""

CONSERVATIVE = 1.0
"""The floor of a case on a kind of CPU that was never measured: the fast twin is no slower than the definition."""

DISTURBED = 1.25
"""NumPy beside Numba may take so many times NumPy alone, as the median over all cases of the intervals' low ends."""

CASE_DISTURBED = 2.0
"""And so many times in one case, by its whole interval; two processes' luck with memory counts there as well."""

SHARP = 1.25
"""How far apart the ends of an interval may be if it is to become a floor."""

TERMS = 49
"""A network's answer has the budget of a sum of so many terms. Its longest sum has thousands, whose errors average."""

STEPS = tuple(f"step/{network}-b{batch}" for network in models.NETWORKS for batch in (64,))
PREDICTIONS = tuple(f"predict/{network}-b1" for network in models.NETWORKS)


def ids() -> list[str]:
    """Every case of the gate: the bench cases in float32, and training and inference of the zoo's networks."""
    return [*(case.id for case in cases.select(tag="bench")), *STEPS, *PREDICTIONS]


def prepare(case_id: str, k: Kernels) -> Callable[[], Any]:
    """The call to be timed."""
    kind, name = case_id.split("/")
    if kind not in ("step", "predict"):
        return common.record(cases.get(case_id)).bind(k)[0]
    network, batch = name.rsplit("-b", 1)
    model, x, y = _network(network, int(batch), k)
    if kind == "predict":
        return lambda: model.predict(x)
    trainer = models.Trainer(model, models.SGD(1e-3), batch_size=int(batch))
    return lambda: trainer.step(x, y)


def share(case_id: str, k: Kernels) -> float:
    """The share of its error budget that a case takes on these kernels; beyond 1 it is wrong."""
    kind, name = case_id.split("/")
    if kind not in ("step", "predict"):
        return common.measure_accuracy(common.record(cases.get(case_id)), k).share
    network, batch = name.rsplit("-b", 1)

    def answer(k: Kernels, dtype: str) -> np.ndarray:
        model, x, y = _network(network, int(batch), k, dtype)
        if kind == "predict":
            return model.predict(x)
        return np.asarray(models.Trainer(model, models.SGD(1e-3), batch_size=int(batch)).step(x, y))

    truth = answer(kernels.get("numpy"), "float64")
    own, found = (accuracy.errors(answer(each, "float32"), truth).max() for each in (kernels.get("numpy"), k))
    ulp = np.finfo(np.float32).eps * np.abs(truth).max()
    return float(found / accuracy.budget(ulp, TERMS, np.float32, own))


def _network(name: str, batch: int, k: Kernels, dtype: str = "float32") -> tuple[models.Graph, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    model = models.build(name, "numpy").to("numpy", dtype)  # the same weights in both dtypes
    model.kernels = k
    images = rng.standard_normal((batch, 28, 28, 1), np.float32)
    return model, images.astype(dtype), rng.integers(0, 10, batch)


# NumPy by itself -------------------------------------------------------------------------------------------------


class Alone:
    """NumPy in a process of its own, which never loads Numba; it measures when asked and sleeps otherwise."""

    def __enter__(self) -> Alone:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, kernels.get_threads()), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
        self._process.join(10)

    def sampler(self, case_id: str) -> Callable[[], float]:
        """Measures the case over there."""

        def ask() -> float:
            common.quiet()
            self._connection.send(case_id)
            seconds: float = self._connection.recv()
            return seconds

        return ask


def serve(connection: Connection, threads: int) -> None:
    """Answer each case's id with seconds of a call, until the other end is closed."""
    kernels.set_threads(threads)
    current, sampler = "", None
    while True:
        try:
            case_id = connection.recv()
        except EOFError:
            return
        if case_id != current:
            current, sampler = case_id, Sampler(prepare(case_id, kernels.get("numpy")))
        assert "numba" not in sys.modules, "the process that stands for NumPy alone has loaded Numba"
        assert sampler is not None
        seconds = sampler()
        common.quiet()  # who asks sees no thread but its own: these would spin beside its next sample
        connection.send(seconds)


# One case --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one case showed. `disturbance`: NumPy's time beside Numba over its time alone; None if not measured."""

    id: str
    speedup: Interval
    floor: float
    share: float
    numpy: float
    numba: float
    disturbance: Interval | None = None

    @property
    def margin(self) -> float:
        """The share of its floor that the case has to reach."""
        return min(SHORT_MARGIN, MARGIN) if self.numba < SHORT else MARGIN

    @property
    def failures(self) -> list[str]:
        """What is wrong, in words."""
        found = []
        if self.speedup.high < self.margin * self.floor:
            found.append(f"speed-up {self.speedup} is below {self.margin} x its floor {self.floor:g}")
        if not self.share <= 1.0:
            found.append(f"the error takes {self.share:.3g} times its budget")
        if self.disturbance is not None and self.disturbance.low > CASE_DISTURBED:
            found.append(f"NumPy takes {self.disturbance} times as long as in a process without Numba")
        return found

    def __str__(self) -> str:
        alone = "" if self.disturbance is None else f"{self.disturbance.median:.2f}"
        figures = f"{self.numpy * 1e6:12,.1f} {self.numba * 1e6:12,.1f}  {self.speedup!s:24} {self.floor:6g}"
        line = f"{self.id:48} {figures} {self.share:7.3f} {alone:>6}"
        return "\n    FAILED: ".join([line, *self.failures])


HEADING = (
    f"{'case':48} {'NumPy µs':>12} {'Numba µs':>12}  {'speed-up [99 %]':24} {'floor':>6} {'budget':>7} {'alone':>6}"
)


def measure(
    case_id: str,
    twins: tuple[Kernels, Kernels],
    floor: float,
    pairs: int,
    alone: Alone | None = None,
    seed: int = 0,
    used: float | None = None,
) -> Outcome:
    """Race the two kernels of a case: the definition, then its fast twin. `used`: its `share`, where that is known."""
    used = share(case_id, twins[1]) if used is None else used
    samplers: dict[str, Callable[[], float]] = {
        "numpy": Sampler(prepare(case_id, twins[0])),
        "numba": Sampler(prepare(case_id, twins[1])),
    }
    if alone is not None:
        samplers["alone"] = alone.sampler(case_id)
    seconds = common.sample(samplers, pairs, seed)
    return Outcome(
        case_id,
        common.ratio(seconds["numpy"], seconds["numba"], seed=seed),
        floor,
        used,
        float(np.median(seconds["numpy"])),
        float(np.median(seconds["numba"])),
        None if alone is None else common.ratio(seconds["numpy"], seconds["alone"], seed=seed),
    )


# Floors ----------------------------------------------------------------------------------------------------------


def cpu_class() -> str:
    """The kind of CPU: what decides a speed-up is the vectors' width and the number of cores, not the clock."""
    return f"{platform.machine().lower()}, {_vector_bits()}-bit vectors, {kernels.get_threads()} threads"


def _vector_bits() -> int:
    from kernels.numba_backend.tiles.tile import VECTOR_BYTES

    return 8 * int(VECTOR_BYTES)


def floor_of(case_id: str, floors: Mapping[str, Mapping[str, float]], kind: str) -> float:
    """The speed-up asked of a case: for this kind of CPU, else for any, else a conservative one."""
    return floors.get(kind, {}).get(case_id, floors.get("any", {}).get(case_id, CONSERVATIVE))


def read_floors(path: Path = FLOORS) -> dict[str, dict[str, float]]:
    """{kind of CPU: {case: speed-up}}."""
    floors: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return floors


def record_floors(outcomes: Sequence[Outcome], kind: str, path: Path = FLOORS) -> None:
    """Write this run's speed-ups, each the low end of its interval, as the floors of this kind of CPU.

    A case that was measured in too much noise keeps the floor it had.
    """
    floors = read_floors(path) if path.exists() else {}
    sharp = [outcome for outcome in outcomes if outcome.speedup.high < SHARP * outcome.speedup.low]
    floors.setdefault(kind, {}).update({outcome.id: _two_digits_down(outcome.speedup.low) for outcome in sharp})
    path.write_text(json.dumps(floors, indent=1) + "\n", encoding="utf-8")


def _two_digits_down(value: float) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.floor(value / scale) * scale, 6)


# The gate --------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """All outcomes, and how much slower NumPy was beside Numba than alone: each end the median of the cases'."""

    outcomes: list[Outcome]
    disturbance: Interval | None

    @property
    def disturbed(self) -> bool:
        """Whether Numba's threads slowed NumPy, which would flatter every speed-up."""
        return self.disturbance is not None and self.disturbance.low > DISTURBED

    @property
    def passed(self) -> bool:
        """Whether every case, and the comparison itself, holds."""
        return not self.disturbed and not any(outcome.failures for outcome in self.outcomes)


def gate(
    case_ids: Sequence[str],
    twins: tuple[Kernels, Kernels],
    floors: Mapping[str, Mapping[str, float]],
    kind: str,
    pairs: int = 30,
    alone: Alone | None = None,
    seed: int = 0,
    show: Callable[[object], None] = lambda line: None,
) -> Verdict:
    """Race every case and judge. `show` is given each line of the report as it comes."""
    show(HEADING)

    def race(case_id: str, attempt: int) -> Outcome:
        outcome = measure(case_id, twins, floor_of(case_id, floors, kind), pairs, alone, seed + attempt)
        show(outcome if attempt == 0 else f"again: {outcome}")
        return outcome

    outcomes = settled(case_ids, race)
    measured = [outcome.disturbance for outcome in outcomes if outcome.disturbance is not None]
    return Verdict(outcomes, Interval(*np.median(measured, axis=0).tolist()) if measured else None)


def settled(case_ids: Sequence[str], race: Callable[[str, int], Outcome]) -> list[Outcome]:
    """Each case's last outcome: those that fail are raced again, up to TRIES times, after all the others."""
    outcomes = {case_id: race(case_id, 0) for case_id in case_ids}
    for attempt in range(1, TRIES):
        for case_id in [id for id, outcome in outcomes.items() if outcome.failures]:
            outcomes[case_id] = race(case_id, attempt)
    return list(outcomes.values())


def calibrate(
    case_ids: Sequence[str],
    k: Kernels,
    runs: int,
    pairs: int,
    alone: Alone | None = None,
    show: Callable[[object], None] = print,
) -> float:
    """Race a backend against itself `runs` times: every failure is a false alarm. Returns the share of runs with one.

    Also shows how often the interval misses the true ratio 1, which a margin of nothing would have to bear, and how
    near the gate came to an alarm. Errors do not change from run to run, and are taken once.
    """
    used = {case_id: share(case_id, k) for case_id in case_ids}
    outcomes: list[Outcome] = []
    alarms = 0
    for run in range(runs):

        def race(id: str, attempt: int, run: int = run) -> Outcome:
            seed = run + runs * attempt
            outcome = measure(id, (k, k), 1.0, pairs, alone, seed, used[id])
            outcomes.append(outcome)
            return outcome

        raced = settled(case_ids, race)
        failed = [outcome for outcome in raced if outcome.failures]
        alarms += bool(failed)
        show(f"run {run + 1:4}: {len(failed)} of {len(case_ids)} cases failed" + "".join(f"\n  {o}" for o in failed))
    misses = sum(not outcome.speedup.low <= 1.0 <= outcome.speedup.high for outcome in outcomes)
    nearest = min(outcomes, key=lambda outcome: outcome.speedup.high)
    show(f"the lowest interval: {nearest.speedup} of {nearest.id}; an alarm is one that ends below {nearest.margin}")
    show(f"{alarms} of {runs} runs raised a false alarm: {alarms / runs:.1%}")
    show(f"{misses} of {len(outcomes)} intervals missed 1: {misses / len(outcomes):.1%}")
    return alarms / runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gate as a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="only cases whose id contains one of these")
    parser.add_argument("--pairs", type=int, default=30, help="pairs a case (30)")
    parser.add_argument("--threads", type=int, help="threads of both backends (2, or 1 on one core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--record", action="store_true", help="keep this run's speed-ups as floors of this kind of CPU")
    parser.add_argument("--calibrate", type=int, metavar="N", help="a backend against itself N times: the false alarms")
    parser.add_argument("--backend", choices=kernels.names(), help="the backend to calibrate (numpy)")
    given = parser.parse_args(arguments)
    chosen = [id for id in ids() if given.cases is None or any(text in id for text in given.cases)]
    if not chosen:
        parser.error(f"no case contains {' or '.join(given.cases)}")
    if given.pairs < 30:
        parser.error(f"--pairs is {given.pairs}, expected at least 30")
    if given.calibrate is not None and given.calibrate < 1:
        parser.error(f"--calibrate is {given.calibrate}, expected at least 1")
    if given.backend and not given.calibrate:
        parser.error("--backend is for --calibrate alone")
    common.settle(given.threads or common.THREADS)

    def show(line: object) -> None:
        print(line, flush=True)

    numpy, kind = kernels.get("numpy"), cpu_class()
    show(f"{kind}; {len(chosen)} cases, {given.pairs} pairs each")
    if given.calibrate:
        if given.backend == "numba":  # NumPy in a process of its own is no twin of Numba
            return int(calibrate(chosen, kernels.get("numba"), given.calibrate, given.pairs, show=show) > 0.01)
        with Alone() as alone:
            return int(calibrate(chosen, numpy, given.calibrate, given.pairs, alone, show) > 0.01)
    floors = read_floors()
    if kind not in floors:
        show(f"no floors for this kind of CPU: conservative ones, {CONSERVATIVE:g} where none is kept for any")
    common.compile_ahead((id, "float32") for id in chosen if id not in (*STEPS, *PREDICTIONS))
    with Alone() as alone:
        verdict = gate(chosen, (numpy, kernels.get("numba")), floors, kind, given.pairs, alone, show=show)
    failed = [outcome for outcome in verdict.outcomes if outcome.failures]
    show(f"NumPy beside Numba takes {verdict.disturbance} times NumPy alone; {DISTURBED} is too much")
    show(f"{len(failed)} of {len(chosen)} cases failed" + ": " * bool(failed) + ", ".join(o.id for o in failed))
    if given.json:
        report = [{**vars(o), "failures": o.failures} for o in verdict.outcomes]  # intervals as [low, median, high]
        given.json.write_text(json.dumps({"cpu": kind, "disturbance": verdict.disturbance, "cases": report}, indent=1))
    if given.record:
        record_floors(verdict.outcomes, kind)
    return int(not verdict.passed)


if __name__ == "__main__":
    sys.exit(main())
