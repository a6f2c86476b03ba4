"""The gate: is a twin as much faster than its definition as it was, and as accurate?

The two run alternately, in random order, in one process. The speed-up is the median of the paired ratios; a case fails
when its whole bootstrap interval lies below a margin times its floor, so that noise alone fails nothing. Floors are
kept by kind of CPU. A case fails as well when its error is beyond its budget. One that fails is tried again when all
others are done: a moment in which the machine had something else to do is over by then.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import kernels
from data.files import write_atomically

from . import timing
from .timing import Interval

MARGIN = 0.75
"""A case may lose a quarter of its floor before it fails: the spread between machines of one kind."""

SHORT, SHORT_MARGIN = 100e-6, 0.5
"""One whose call takes the twin fewer seconds may lose half: what the start of the threads costs differs from one
machine of a kind to another, and from hour to hour on each."""

NEAR = 0.8
"""What a twin has to keep of a floor that is this very machine's: one that takes one and a half times as long fails."""

TRIES = 3
"""How often a case is measured before its failure counts."""

FALSE_ALARMS = 0.01
"""The share of runs of something against itself that may raise an alarm."""

CONSERVATIVE = 1.0
"""The floor of a case on a kind of CPU that was never measured: the fast twin is no slower than the definition."""

DISTURBED = 1.25
"""The definition beside its twin may take so many times its time alone, as the median over all cases of the intervals'
low ends."""

CASE_DISTURBED = 2.0
"""And so many times in one case, by its whole interval; two processes' luck with memory counts there as well."""

SHARP = 1.25
"""How far apart the ends of an interval may be if it is to become a floor."""


# One case --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one case showed. definition, twin: seconds of a call.

    disturbance: the definition's time beside the twin over its time alone; None if not measured. lenient: the floor is
    that of any machine of a kind, and not of this one.
    """

    id: str
    speedup: Interval
    floor: float
    share: float
    definition: float
    twin: float
    disturbance: Interval | None = None
    lenient: bool = True

    @property
    def margin(self) -> float:
        """The share of its floor that the case has to reach."""
        if not self.lenient:
            return NEAR
        return min(SHORT_MARGIN, MARGIN) if self.twin < SHORT else MARGIN

    @property
    def failures(self) -> list[str]:
        """What is wrong, in words."""
        found = []
        if self.speedup.high < self.margin * self.floor:
            found.append(f"speed-up {self.speedup} is below {self.margin} x its floor {self.floor:g}")
        if not self.share <= 1.0:
            found.append(f"the error takes {self.share:.3g} times its budget")
        if self.disturbance is not None and self.disturbance.low > CASE_DISTURBED:
            found.append(f"the definition takes {self.disturbance} times as long as in a process of its own")
        return found

    def __str__(self) -> str:
        alone = "" if self.disturbance is None else f"{self.disturbance.median:.2f}"
        figures = f"{self.definition * 1e6:12,.1f} {self.twin * 1e6:12,.1f}  {self.speedup!s:24} {self.floor:6g}"
        line = f"{self.id:48} {figures} {self.share:7.3f} {alone:>6}"
        return "\n    FAILED: ".join([line, *self.failures])


HEADING = (
    f"{'case':48} {'plain µs':>12} {'twin µs':>12}  {'speed-up [99 %]':24} {'floor':>6} {'budget':>7} {'alone':>6}"
)


def race(
    id: str,
    both: tuple[Callable[[], float], Callable[[], float]],
    floor: float,
    share: float,
    pairs: int,
    seed: int = 0,
    alone: Callable[[], float] | None = None,
    lenient: bool = True,
) -> Outcome:
    """Race the samplers of a case, the definition's and its twin's. alone: samples the definition where it is alone."""
    samplers = dict(zip(("definition", "twin"), both, strict=True))
    if alone is not None:
        samplers["alone"] = alone
    seconds = timing.sample(samplers, pairs, seed)
    return Outcome(
        id,
        timing.ratio(seconds["definition"], seconds["twin"], seed=seed),
        floor,
        share,
        float(np.median(seconds["definition"])),
        float(np.median(seconds["twin"])),
        None if alone is None else timing.ratio(seconds["definition"], seconds["alone"], seed=seed),
        lenient,
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


def read_floors(path: Path) -> dict[str, dict[str, float]]:
    """{kind of CPU: {case: speed-up}}."""
    floors: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return floors


def record_floors(outcomes: Sequence[Outcome], kind: str, path: Path, digits: int = 2) -> None:
    """Write this run's speed-ups, each the low end of its interval, as the floors of this kind of CPU.

    A case that was measured in too much noise keeps the floor it had.
    """
    floors = read_floors(path) if path.exists() else {}
    sharp = [outcome for outcome in outcomes if outcome.speedup.high < SHARP * outcome.speedup.low]
    floors.setdefault(kind, {}).update({outcome.id: _down(outcome.speedup.low, digits) for outcome in sharp})
    write_atomically(path, (json.dumps(floors, indent=1) + "\n").encode())


def _down(value: float, digits: int) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return round(math.floor(value / scale) * scale, 9)


# The gate --------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """All outcomes, and how much slower definitions were beside twins than alone: each end the median of the cases'."""

    outcomes: list[Outcome]
    disturbance: Interval | None

    @property
    def disturbed(self) -> bool:
        """Whether the twins' threads slowed the definitions, which would flatter every speed-up."""
        return self.disturbance is not None and self.disturbance.low > DISTURBED

    @property
    def passed(self) -> bool:
        """Whether every case, and the comparison itself, holds."""
        return not self.disturbed and not any(outcome.failures for outcome in self.outcomes)


Race = Callable[[str, int], Outcome]
"""Races a case, with a seed."""


def gate(case_ids: Sequence[str], race: Race, show: Callable[[object], None] = lambda line: None) -> Verdict:
    """Race every case and judge. `show` is given each line of the report as it comes."""
    show(HEADING)

    def shown(case_id: str, attempt: int) -> Outcome:
        outcome = race(case_id, attempt)
        show(outcome if attempt == 0 else f"again: {outcome}")
        return outcome

    outcomes = settled(case_ids, shown)
    measured = [outcome.disturbance for outcome in outcomes if outcome.disturbance is not None]
    return Verdict(outcomes, Interval(*np.median(measured, axis=0).tolist()) if measured else None)


def settled(case_ids: Sequence[str], race: Callable[[str, int], Outcome]) -> list[Outcome]:
    """Each case's last outcome: those that fail are raced again, up to TRIES times, after all the others."""
    outcomes = {case_id: race(case_id, 0) for case_id in case_ids}
    for attempt in range(1, TRIES):
        for case_id in [id for id, outcome in outcomes.items() if outcome.failures]:
            outcomes[case_id] = race(case_id, attempt)
    return list(outcomes.values())


def calibrate(case_ids: Sequence[str], race: Race, runs: int, show: Callable[[object], None] = print) -> float:
    """Race something against itself `runs` times: every failure is a false alarm. Returns the share of runs with one.

    Also shows how often the interval misses the true ratio 1, which a margin of nothing would have to bear, and how
    near the gate came to an alarm.
    """
    outcomes: list[Outcome] = []
    alarms = 0
    for run in range(runs):

        def again(case_id: str, attempt: int, run: int = run) -> Outcome:
            outcome = race(case_id, run + runs * attempt)
            outcomes.append(outcome)
            return outcome

        failed = [outcome for outcome in settled(case_ids, again) if outcome.failures]
        alarms += bool(failed)
        show(f"run {run + 1:4}: {len(failed)} of {len(case_ids)} cases failed" + "".join(f"\n  {o}" for o in failed))
    misses = sum(not outcome.speedup.low <= 1.0 <= outcome.speedup.high for outcome in outcomes)
    nearest = min(outcomes, key=lambda outcome: outcome.speedup.high)
    show(f"the lowest interval: {nearest.speedup} of {nearest.id}; an alarm is one that ends below {nearest.margin}")
    show(f"{alarms} of {runs} runs raised a false alarm: {alarms / runs:.1%}")
    show(f"{misses} of {len(outcomes)} intervals missed 1: {misses / len(outcomes):.1%}")
    return alarms / runs
