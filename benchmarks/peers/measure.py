"""The parent's side: start the workers of a case, give them turns in rounds, and put the figures together."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .networks import Network
from .variants import OURS, REFERENCE, Variant

ROOT = Path(__file__).parents[2]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",  # what XLA sizes its pool by
)
STEPS = 5, 3000
"""Steps of a turn, at least and at most, where their number is chosen by time."""
SETTLE_SECONDS = 0.02


class WorkerError(Exception):
    """A worker could not get ready, or ended. `unavailable` if its library simply is not there."""

    def __init__(self, reason: str, unavailable: bool = False) -> None:
        super().__init__(reason)
        self.unavailable = unavailable


@dataclass
class Result:
    """What one variant did in one case. Times in seconds, memory in bytes; `rounds` has one entry a turn."""

    peer: str
    variant: str
    status: str = "measured"
    reason: str = ""
    step_seconds: float = 0.0
    min_seconds: float = 0.0
    images_per_second: float = 0.0
    ours_over_peer: float | None = None
    ours_over_peer_by_min: float | None = None
    first_step_seconds: float = 0.0
    peak_bytes: int = 0
    deviation: float | None = None
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def label(self) -> str:
        """ "peer variant", as tables show it."""
        return f"{self.peer} {self.variant}"


class Worker:
    """A child process that holds one variant's case, frozen except in its turn."""

    def __init__(
        self,
        variant: Variant,
        request: Mapping[str, Any],
        python: str,
        limit_seconds: float = 300.0,
        command: Sequence[str] = ("-m", f"{__package__}.worker"),
    ) -> None:
        self.variant = variant
        self.limit_seconds = limit_seconds
        threads = dict.fromkeys(THREAD_VARIABLES, str(request["threads"]))
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={**os.environ, **threads, **variant.environment},
        )
        try:
            self._send({"module": variant.module, "variant": variant.name, **request})
            self._receive("first")
            self.first_step_seconds = time.perf_counter() - started
            self.ready = self._receive("ready")
        except BaseException:
            self.close()
            raise
        self._freeze()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer, with this worker awake."""
        self._signal("SIGCONT")
        self._send({"do": do, **arguments})
        answer = self._receive()
        self._freeze()
        return answer

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        self.process.kill()
        self.process.wait()
        for stream in self.process.stdin, self.process.stdout:
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._log.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come says why
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _receive(self, event: str | None = None) -> dict[str, Any]:
        assert self.process.stdout is not None
        watchdog = threading.Timer(self.limit_seconds, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            late = not watchdog.is_alive()
            watchdog.cancel()
        if not line:
            code = self.process.wait()
            reason = f"no answer within {self.limit_seconds:g} s" if late else f"ended with status {code}"
            raise WorkerError(f"{self.variant.label}: {reason}; {self._log_tail()}")
        message: dict[str, Any] = json.loads(line)
        if message.get("event") in ("unavailable", "failed"):
            raise WorkerError(message["reason"], unavailable=message["event"] == "unavailable")
        if message.get("event") != event:
            raise WorkerError(f"{self.variant.label}: answered {line.strip()[:200]}, expected the event {event}")
        return message

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it wrote nothing to standard error"

    def _freeze(self) -> None:
        """Stop the process: threads of its pool that still spin for more work would disturb the next turn."""
        self._signal("SIGSTOP")

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self.process.poll() is None:
            self.process.send_signal(getattr(signal, name))


def measure(
    variants: Sequence[Variant],
    pythons: Mapping[str, str],
    request: Mapping[str, Any],
    rounds: int,
    steps: int | None,
    turn_seconds: float,
    say: Callable[[str], None] = lambda line: None,
    seed: int = 0,
    limit_seconds: float = 300.0,
) -> list[Result]:
    """All variants on one case, in rounds.

    pythons: interpreter by peer, "" for all the others. request: what a worker is to build. steps: of a turn; chosen
    so that a turn takes about turn_seconds if None.
    """
    results = {variant.label: Result(variant.peer, variant.name) for variant in variants}
    workers: dict[str, Worker] = {}
    outputs: dict[str, Any] = {}
    order = random.Random(seed)
    try:
        for variant in variants:
            result = results[variant.label]
            try:
                python = pythons.get(variant.peer, pythons[""])
                worker = Worker(variant, request, python, limit_seconds)
            except (WorkerError, OSError) as error:
                result.status = "unavailable" if getattr(error, "unavailable", False) else "failed"
                result.reason = str(error)
                say(f"{variant.label}: {result.reason}")
                continue
            workers[variant.label] = worker
            result.first_step_seconds = worker.first_step_seconds
            result.notes, result.versions = worker.ready["notes"], worker.ready["versions"]
            outputs[variant.label] = worker.ready["outputs"]
        count = {
            label: steps or min(max(round(turn_seconds / worker.ready["step_seconds"]), STEPS[0]), STEPS[1])
            for label, worker in workers.items()
        }
        for _ in range(rounds):
            for label in order.sample(sorted(workers), len(workers)):
                time.sleep(SETTLE_SECONDS)
                try:
                    seconds = workers[label].ask("turn", steps=count[label])["seconds"]
                except WorkerError as error:
                    results[label].status, results[label].reason = "failed", str(error)
                    say(f"{label}: {error}")
                    workers.pop(label).close()
                    continue
                results[label].rounds.append(
                    {"median": statistics.median(seconds), "min": min(seconds), "steps": len(seconds)}
                )
        for label, worker in workers.items():
            results[label].peak_bytes = worker.ask("usage")["peak_bytes"]
    finally:
        for worker in workers.values():
            worker.close()
    summarise(list(results.values()), request["batch_size"])
    reference = outputs.get(f"{OURS} {REFERENCE}")
    if reference is not None:
        for label, output in outputs.items():
            if output is not None:
                results[label].deviation = deviation(output, reference)
    return list(results.values())


def summarise(results: Sequence[Result], batch_size: int) -> None:
    """Fill in medians over rounds, throughput, and each one's ratios to ours."""
    done = [result for result in results if result.status == "measured" and result.rounds]
    for result in done:
        result.step_seconds = statistics.median(turn["median"] for turn in result.rounds)
        result.min_seconds = min(turn["min"] for turn in result.rounds)
        result.images_per_second = batch_size / result.step_seconds
    ours = our(done)
    if ours is None:
        return
    for result in done:
        # Both turns of a round lie close together: what slows the machine for a while slows both.
        result.ratios = [
            theirs["median"] / mine["median"] for theirs, mine in zip(result.rounds, ours.rounds, strict=True)
        ]
        result.ours_over_peer = statistics.median(result.ratios)
        result.ours_over_peer_by_min = result.min_seconds / ours.min_seconds


def our(results: Sequence[Result]) -> Result | None:
    """The one of ours that ratios are taken to: the first that was measured, in the order of `VARIANTS`."""
    return next((result for result in results if result.peer == OURS and result.status == "measured"), None)


def best(results: Sequence[Result], peer: str) -> Result | None:
    """A peer's fastest variant, by the median over rounds."""
    candidates = [result for result in results if result.peer == peer and result.status == "measured"]
    return min(candidates, key=lambda result: result.step_seconds, default=None)


def deviation(outputs: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """Largest difference between the first outputs and the reference's, relative to the reference's largest value.

    Infinity where either holds what is no number: NaN would pass for less than any limit.
    """
    ours, theirs = np.asarray(reference), np.asarray(outputs)
    with np.errstate(invalid="ignore"):
        found = float(np.abs(theirs - ours).max() / np.abs(ours).max())
    return found if math.isfinite(found) else math.inf


def request(network: Network, task: str, batch_size: int, threads: int, arrays: Path) -> dict[str, Any]:
    """The first line that a worker reads, but for its module and variant."""
    return {
        "network": network.name,
        "task": task,
        "batch_size": batch_size,
        "threads": threads,
        "arrays": str(arrays),
    }


def as_json(result: Result) -> dict[str, Any]:
    """A result for the file."""
    return asdict(result)


def installed_bytes(python: str, roots: Sequence[str]) -> dict[str, int]:
    """Size on disk of distributions and what they require, in an interpreter's environment."""
    code = f"import json; from {__package__}.installed import sizes; print(json.dumps(sizes({list(roots)!r})))"
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    sizes: dict[str, int] = json.loads(done.stdout) if done.returncode == 0 else {}
    return sizes


def default_python() -> str:
    """The peers' interpreter: of the environment that --install makes if it is there, else this one."""
    python = environment_python()
    return str(python) if python.exists() else sys.executable


def environment_python() -> Path:
    """Where --install puts the peers' interpreter."""
    return ROOT / ".venv-peers" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
