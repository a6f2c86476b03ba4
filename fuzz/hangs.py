"""The command `python -m fuzz.hangs`: predictions beside forks, in signal handlers, and beside new parameters.

`fork`: children of a process whose other thread predicts, each of which has to predict as well. `signal`: a handler
that predicts wherever it interrupts a prediction. `write`: threads that predict while another writes parameters, and
see all of one kind or all of the other. Exit status 1 for an answer that is not what it should be, and for a case that
takes much longer than its rounds, which is a hang.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

import numpy as np

import models
from models import BatchNorm, Conv2d, Flatten, Graph, Linear, MaxPool2d, ReLU, Sequential

TIMEOUT = 60


def model(backend: str, seed: int = 0) -> Graph:
    """Of fused and of plain steps, with packed weights where the backend packs them."""
    layers = [Conv2d(4, 3), BatchNorm(), ReLU(), MaxPool2d(2), Flatten(), Linear(16), models.Tanh(), Linear(3)]
    return Sequential(layers, (10, 10, 1), backend, seed=seed)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 10, 10, 1)).astype(np.float32)


def fork(backend: str, rounds: int) -> str:
    """Forks, while another thread predicts."""
    shared, x = model(backend), images(64)
    expected = shared.predict(x)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            shared.predict(x)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(rounds):
            if not (child := os.fork()):
                signal.alarm(TIMEOUT)
                os._exit(0 if np.allclose(shared.predict(x), expected, rtol=1e-4, atol=1e-5) else 1)
            if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                return f"a child hangs, dies or predicts other numbers: status {status}"
    finally:
        stop.set()
        thread.join()
    return ""


def interrupt(backend: str, rounds: int) -> str:
    """Predicts in a signal handler, at any moment of a prediction."""
    shared, chance = model(backend), random.Random(0)
    batches = [images(count) for count in (1, 7, 64)]
    expected = [shared.predict(x).tobytes() for x in batches]
    done, wrong = 0, 0

    def handler(_signal: int, _frame: FrameType | None) -> None:
        nonlocal done, wrong
        i = chance.randrange(len(batches))
        wrong += shared.predict(batches[i]).tobytes() != expected[i]
        done += 1
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, 2e-3))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    try:
        while done < rounds:
            if done % 50 == 0:
                shared.rewrites = None  # its executor is made anew, under the handler too
            for x, right in zip(batches, expected, strict=True):
                wrong += shared.predict(x).tobytes() != right
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return f"{wrong} predictions are other numbers" if wrong else ""


def write(backend: str, rounds: int) -> str:
    """Writes one set of parameters and the other in turn, while threads predict."""
    shared, x = model(backend), images(600)  # in more than one batch
    kinds = [model(backend, seed) for seed in (0, 1)]
    states = [{**kind.parameters(), **kind.statistics()} for kind in kinds]
    expected = {kind.predict(x).tobytes() for kind in kinds}
    stop, wrong, seen = threading.Event(), [], []

    def busy() -> None:
        while not stop.is_set():
            seen.append(1)
            if shared.predict(x).tobytes() not in expected:
                wrong.append(1)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        while len(seen) < rounds:
            for state in states:
                shared.set_parameters(state)
                time.sleep(1e-4)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return f"{len(wrong)} of {len(seen)} predictions saw some parameters of each kind" if wrong else ""


CASES: dict[str, Callable[[str, int], str]] = {"fork": fork, "signal": interrupt, "write": write}


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m fuzz.hangs", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=(*CASES, []), help="some of them; all if left out")
    parser.add_argument("--rounds", type=int, default=1000, help="of each case (1000)")
    parser.add_argument("--backend", choices=("numba", "numpy"), action="append", help="both if left out")
    parser.add_argument("--here", action="store_true", help="in this process, which may hang")
    given = parser.parse_args(arguments)
    backends, cases = given.backend or ("numpy", "numba"), given.cases or tuple(CASES)
    return sum(_failed(backend, case, given.rounds, given.here) for backend in backends for case in cases) and 1


def _failed(backend: str, case: str, rounds: int, here: bool) -> bool:
    if not here:
        options = [case, "--here", "--backend", backend, "--rounds", str(rounds)]
        try:
            return bool(
                subprocess.run([sys.executable, "-m", "fuzz.hangs", *options], timeout=TIMEOUT + rounds).returncode
            )
        except subprocess.TimeoutExpired:
            print(f"{backend} {case}: hangs", flush=True)
            return True
    began = time.perf_counter()
    found = CASES[case](backend, rounds)
    seconds = time.perf_counter() - began
    print(f"{backend} {case}: {rounds:,} rounds in {seconds:.1f} s: {found or 'right'}", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
