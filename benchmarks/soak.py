"""Does memory stay flat? Trains, keeps and resumes, predicts from several threads, saves and loads, again and again.

`python -m benchmarks.soak --minutes 60` prints a line a minute and exits with status 1 if the process has grown. The
first quarter of the time is for getting warm.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import kernels
import models
from models import Adam, Checkpoints, Trainer

ALLOWED = 8.0  # MiB between the medians of the second quarter and the last; allocators wander by less
NETWORKS = ("cnn-bn", "mlp-512")
REQUESTS = (500, 1, 37, 500, 128, 3, 250, 64)  # images that are asked for at once
THREADS = 4

_STATM = Path("/proc/self/statm")
CAN_MEASURE = _STATM.exists()


def resident() -> float:
    """MiB of memory that the process holds now."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def grows(sizes: Sequence[tuple[float, float]]) -> bool:
    """Whether sizes (seconds, MiB) rise from the second quarter of the time to the last by more than ALLOWED."""
    return statistics.median(_quarter(sizes, 3)) - statistics.median(_quarter(sizes, 1)) > ALLOWED


def _quarter(sizes: Sequence[tuple[float, float]], number: int) -> list[float]:
    span = (sizes[-1][0] - sizes[0][0]) / 4
    start = sizes[0][0] + number * span
    return [size for second, size in sizes if start <= second <= start + span]


def turn(network: str, backend: str, seed: int, pool: ThreadPoolExecutor) -> tuple[int, int]:
    """One life of a model: (steps trained, images predicted)."""
    rng = np.random.default_rng(seed)
    x, labels = rng.integers(0, 256, (500, 28, 28, 1), np.uint8), rng.integers(0, 10, 500)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints = Checkpoints(folder / "checkpoints", every_steps=3)
        model, again = (models.build(network, backend, seed) for _ in range(2))
        trainer, resumed = (Trainer(m, Adam(1e-3), batch_size=64) for m in (model, again))
        trainer.fit(x, labels, epochs=1, checkpoints=checkpoints)
        checkpoints.files()[0].unlink()  # the end, so that two of its eight steps are done again
        resumed.fit(x, labels, epochs=1, checkpoints=checkpoints, resume=True)
        answers = list(pool.map(model.predict, (x[:count] for count in REQUESTS)))
        model.save(folder / "m.safetensors")
        loaded = models.load(folder / "m.safetensors", backend)
    for twin in (again, loaded):
        assert np.array_equal(twin.predict(x[: REQUESTS[0]]), answers[0])
    return trainer.steps + 2, sum(REQUESTS)


def _one_arena() -> None:
    """Make glibc serve all threads from one heap: heaps of their own wander by 50 MiB with the order of requests."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for the minutes asked for; 1 if memory grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--backend", choices=kernels.names(), default=models.DEFAULT_BACKEND)
    given = parser.parse_args(arguments)
    if not CAN_MEASURE:
        parser.error("this system does not tell a process its present size (/proc/self/statm)")
    _one_arena()
    sizes: list[tuple[float, float]] = []
    start = said = time.monotonic()
    steps = images = 0
    with ThreadPoolExecutor(THREADS) as pool:
        while len(sizes) < 8 or time.monotonic() - start < 60 * given.minutes:
            for network in NETWORKS:
                trained, predicted = turn(network, given.backend, len(sizes), pool)
                steps, images = steps + trained, images + predicted
            sizes.append((time.monotonic() - start, resident()))
            if time.monotonic() - said >= 60:
                said = time.monotonic()
                minutes, mib = sizes[-1][0] / 60, sizes[-1][1]
                print(f"{minutes:5.1f} min  {steps:,} steps  {images:,} images predicted  {mib:.1f} MiB", flush=True)
    quarters = " ".join(f"{statistics.median(_quarter(sizes, number)):.1f}" for number in range(4))
    print(f"{len(NETWORKS) * len(sizes)} models, {steps:,} steps, {images:,} images predicted")
    print(f"MiB held, the median of each quarter of the time: {quarters}")
    return int(grows(sizes))


if __name__ == "__main__":
    sys.exit(main())
