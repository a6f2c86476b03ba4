"""The gate over the package's own kernels: is Numba as much faster than NumPy as it was, and as accurate?

Run: python -m benchmarks.paired

How it judges stands in `twinkernels.bench.gate`. Floors are kept by kind of CPU in floors.json. A third contestant,
NumPy in a process that never loads Numba, shows that the two do not disturb each other.

Exit status: 0 passed, 1 failed, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kernels
import models
from kernels import Kernels
from kernels import accuracy as measure
from twinkernels.bench import gate, timing
from twinkernels.bench.elsewhere import Elsewhere
from twinkernels.bench.errors import accuracy
from twinkernels.bench.gate import CONSERVATIVE, DISTURBED, Outcome, Verdict
from twinkernels.bench.timing import Sampler

from .suite import cases, common

FLOORS = Path(__file__).with_name("floors.json")

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
        return accuracy(common.record(cases.get(case_id)), k, kernels.get("numpy")).share
    network, batch = name.rsplit("-b", 1)

    def answer(k: Kernels, dtype: str) -> np.ndarray:
        model, x, y = _network(network, int(batch), k, dtype)
        if kind == "predict":
            return model.predict(x)
        return np.asarray(models.Trainer(model, models.SGD(1e-3), batch_size=int(batch)).step(x, y))

    truth = answer(kernels.get("numpy"), "float64")
    own, found = (measure.errors(answer(each, "float32"), truth).max() for each in (kernels.get("numpy"), k))
    ulp = np.finfo(np.float32).eps * np.abs(truth).max()
    return float(found / measure.budget(ulp, TERMS, np.float32, own))


def _network(name: str, batch: int, k: Kernels, dtype: str = "float32") -> tuple[models.Graph, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    model = models.build(name, "numpy").to("numpy", dtype)  # the same weights in both dtypes
    model.kernels = k
    images = rng.standard_normal((batch, 28, 28, 1), np.float32)
    return model, images.astype(dtype), rng.integers(0, 10, batch)


def alone() -> Elsewhere:
    """NumPy in a process of its own, which never loads Numba."""
    return Elsewhere(prepare_numpy, without="numba")


def prepare_numpy(case_id: str) -> Callable[[], Any]:
    """The definition's call."""
    return prepare(case_id, kernels.get("numpy"))


def races(
    twins: tuple[Kernels, Kernels],
    floors: Mapping[str, Mapping[str, float]],
    kind: str,
    pairs: int = 30,
    beside: Elsewhere | None = None,
    shares: Mapping[str, float] | None = None,
) -> gate.Race:
    """Races the two kernels of a case: the definition, then its fast twin. shares: of budgets, where they are known."""

    def race(case_id: str, seed: int) -> Outcome:
        used = shares[case_id] if shares is not None else share(case_id, twins[1])
        both = Sampler(prepare(case_id, twins[0])), Sampler(prepare(case_id, twins[1]))
        apart = None if beside is None else beside.sampler(case_id)
        return gate.race(case_id, both, gate.floor_of(case_id, floors, kind), used, pairs, seed, apart)

    return race


def judge(
    case_ids: Sequence[str],
    twins: tuple[Kernels, Kernels],
    floors: Mapping[str, Mapping[str, float]],
    kind: str,
    pairs: int = 30,
    beside: Elsewhere | None = None,
    show: Callable[[object], None] = lambda line: None,
) -> Verdict:
    """Race every case and judge."""
    return gate.gate(case_ids, races(twins, floors, kind, pairs, beside), show)


def calibrate(
    case_ids: Sequence[str],
    k: Kernels,
    runs: int,
    pairs: int,
    beside: Elsewhere | None = None,
    show: Callable[[object], None] = print,
) -> float:
    """Race a backend against itself: the share of runs with a false alarm. Errors do not change, and are taken once."""
    shares = {case_id: share(case_id, k) for case_id in case_ids}
    own = {"any": dict.fromkeys(case_ids, 1.0)}
    return gate.calibrate(case_ids, races((k, k), own, "any", pairs, beside, shares), runs, show)


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
    timing.settle(given.threads or timing.THREADS)

    def show(line: object) -> None:
        print(line, flush=True)

    numpy, kind = kernels.get("numpy"), gate.cpu_class()
    show(f"{kind}; {len(chosen)} cases, {given.pairs} pairs each")
    if given.calibrate:
        if given.backend == "numba":  # NumPy in a process of its own is no twin of Numba
            alarms = calibrate(chosen, kernels.get("numba"), given.calibrate, given.pairs, show=show)
        else:
            with alone() as beside:
                alarms = calibrate(chosen, numpy, given.calibrate, given.pairs, beside, show)
        return int(alarms > gate.FALSE_ALARMS)
    floors = gate.read_floors(FLOORS)
    if kind not in floors:
        show(f"no floors for this kind of CPU: conservative ones, {CONSERVATIVE:g} where none is kept for any")
    common.compile_ahead((id, "float32") for id in chosen if id not in (*STEPS, *PREDICTIONS))
    with alone() as beside:
        verdict = judge(chosen, (numpy, kernels.get("numba")), floors, kind, given.pairs, beside, show)
    failed = [outcome for outcome in verdict.outcomes if outcome.failures]
    show(f"NumPy beside Numba takes {verdict.disturbance} times NumPy alone; {DISTURBED} is too much")
    show(f"{len(failed)} of {len(chosen)} cases failed" + ": " * bool(failed) + ", ".join(o.id for o in failed))
    if given.json:
        report = [{**vars(o), "failures": o.failures} for o in verdict.outcomes]  # intervals as [low, median, high]
        given.json.write_text(json.dumps({"cpu": kind, "disturbance": verdict.disturbance, "cases": report}, indent=1))
    if given.record:
        gate.record_floors(verdict.outcomes, kind, FLOORS)
    return int(not verdict.passed)


if __name__ == "__main__":
    sys.exit(main())
