"""The child's side: build one case, then do what the lines on standard input ask. JSON lines both ways.

First line in: {"module", "variant", "network", "task", "batch_size", "threads", "arrays"}. Then, one at a time:
{"do": "turn", "steps": K} answers {"seconds": [K step times]}; {"do": "usage"} answers {"peak_bytes"}. What comes
unasked while the worker gets ready: {"event": "first"} when the first step is done, then {"event": "ready", ...}; or
{"event": "unavailable", "reason"} or {"event": "failed", "reason"}, after which it ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .networks import BATCHES, NETWORKS, Case, Peer, Unavailable, load

WARM_UP_SECONDS = 1.0
WARM_UP_STEPS = (8, 50)
"""At least and at most."""
OPENING_STEPS = 3
"""Untimed steps at the start of a turn, which bring the caches and threads back from the others' turns."""
COMPARED_LOSSES = 5


class Runner:
    """Steps through the batches in turn."""

    def __init__(self, peer: Peer, case: Case) -> None:
        self.call = peer.call
        self.x, self.y = case.x, case.y
        self.batches = [(case.x[i], case.y[i]) for i in range(len(case.x))]
        self.next = 0

    def step(self) -> Any:
        x, y = self.batches[self.next]
        self.next = (self.next + 1) % len(self.batches)
        return self.call(x, y)

    def timed(self, steps: int) -> list[float]:
        """Seconds of each of several steps."""
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return seconds

    def turn(self, steps: int) -> list[float]:
        """As `timed`, after a few that do not count."""
        self.timed(OPENING_STEPS)
        return self.timed(steps)


def peak_bytes() -> int:
    """The most memory that this process has held in RAM."""
    try:
        # getrusage's figure would include the parent's memory at the time of the fork.
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def restrict(threads: int) -> None:
    """Keep to as many cores as there are threads, for libraries that size their pools by the cores they see."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])


def prepare(request: dict[str, Any], answer: Any) -> Runner:
    """Build the case, do the first steps, and report."""
    network = NETWORKS[request["network"]]
    weights, x, y = load(Path(request["arrays"]), network)
    case = Case(network, request["task"], request["variant"], request["batch_size"], request["threads"], weights, x, y)
    assert x.shape[:2] == (BATCHES, case.batch_size)
    peer: Peer = importlib.import_module(request["module"]).prepare(case)
    runner = Runner(peer, case)
    outputs = [runner.step()]
    answer(event="first")
    outputs += [runner.step() for _ in range(COMPARED_LOSSES - 1)]
    seconds: list[float] = []
    while len(seconds) < WARM_UP_STEPS[0] or (sum(seconds) < WARM_UP_SECONDS and len(seconds) < WARM_UP_STEPS[1]):
        seconds += runner.timed(1)
    answer(
        event="ready",
        step_seconds=float(np.median(seconds[-WARM_UP_STEPS[0] :])),
        outputs=[np.ravel(output)[:32].astype(float).tolist() for output in outputs] if peer.comparable else None,
        versions=peer.versions,
        notes=list(peer.notes),
    )
    return runner


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until standard input ends."""

    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = json.loads(requests.readline())
    restrict(request["threads"])
    try:
        runner = prepare(request, answer)
    except Unavailable as reason:
        return answer(event="unavailable", reason=str(reason))
    except ModuleNotFoundError as error:
        return answer(event="unavailable", reason=f"{error.name} is not installed for {sys.executable}")
    except Exception as error:
        traceback.print_exc()
        return answer(event="failed", reason=f"{type(error).__name__}: {error}"[:500])
    for line in requests:
        asked = json.loads(line)
        if asked["do"] == "turn":
            answer(seconds=runner.turn(asked["steps"]))
        elif asked["do"] == "usage":
            answer(peak_bytes=peak_bytes())
    return None


def main() -> None:
    """Keep the pipe to the parent for answers alone; what libraries print goes to standard error."""
    assert __doc__ is not None
    argparse.ArgumentParser("python -m benchmarks.peers.worker", description=__doc__.splitlines()[0]).parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
