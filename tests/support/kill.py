"""Runs killed at random moments and resumed, held against the undisturbed run: `python -m tests.support.kill`.

A run is killed by SIGKILL, resumed, killed again, until it ends; then its model must be the undisturbed run's byte for
byte, and its history that run's but for the seconds. Kills fall at random times, and at chosen moments of a write:
before and within it, before and after the new file takes its name. Runs train with dropout, batch-norm, a schedule,
validation and early stopping, on both backends. They are forked from the process that trained the undisturbed run;
every twentieth is the command in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import kernels
from data import strokes
from models import Adam, BatchNorm, Conv2d, Dropout, EarlyStopping, Flatten, Linear, MaxPool2d, OneCycle, ReLU
from models.zoo import NETWORKS
from twinkernels import runs
from twinkernels.recipes import Recipe

from .processes import ROOT

LAYERS = (
    Conv2d(4, 5),
    BatchNorm(),
    ReLU(),
    MaxPool2d(4),
    Flatten(),
    Dropout(0.3),
    Linear(16),
    ReLU(),
    Dropout(0.2),
    Linear(10),
)
RECIPE = Recipe(
    name="kill",
    description="small, with everything that could go astray",
    network="kill",
    optimizer=Adam(1e-2),
    schedule=OneCycle(),
    batch_size=16,
    epochs=6,
    validation=0.2,
    published="",
    floor=0.0,
)
CHECKPOINT_STEPS = 4
MOMENTS = ("write", "half", "rename", "renamed")


def digits(train: int = 300, test: int = 60) -> data.Dataset:
    """A small data set, the same every time."""
    (x, y), (xt, yt) = strokes.load(train=train, test=test)
    return data.Dataset(data.Split(x, y), data.Split(xt, yt))


def train(out: Path, backend: str, dataset: data.Dataset) -> None:
    """Begin a run, or go on with it."""
    NETWORKS["kill"] = lambda: list(LAYERS)
    callbacks = [EarlyStopping(patience=3)]
    options: dict[str, Any] = {"backend": backend, "seed": 3, "checkpoint_steps": CHECKPOINT_STEPS}
    if out.exists():
        runs.resume(out, dataset, recipe=RECIPE, callbacks=callbacks, **options)
    else:
        runs.run(RECIPE, dataset, out=out, callbacks=callbacks, **options)


def outcome(run: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a run must not change: its model, and its history without the seconds."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return (run / "model.safetensors").read_bytes(), [{k: v for k, v in e.items() if k != "seconds"} for e in lines]


def die_in_write(moment: str, after: int) -> None:
    """Have this process kill itself at a moment of its `after`-th write from now."""
    left = after
    fsync, replace = os.fsync, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def written(descriptor: int) -> None:
        nonlocal left
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            return fsync(descriptor)
        left -= 1
        if left == 0 and moment == "write":
            die()
        if left == 0 and moment == "half":
            os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        return fsync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        if left == 0 and moment == "rename":
            die()
        replace(source, target)
        if left == 0 and moment == "renamed":
            die()

    os.fsync, os.replace = written, renamed


def fork(work: Callable[[], None], seconds: float | None = None) -> bool:
    """Do the work in a child, killed after so many seconds; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(3)
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"a run ended with status {status}"
    return status == 0


def command(arguments: list[str], seconds: float | None = None) -> bool:
    """`twinkernels` in a process of its own, killed after so many seconds; whether it came to its end."""
    child = subprocess.Popen([sys.executable, "-m", "twinkernels", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
    assert child.wait() in (0, -signal.SIGKILL), f"the command ended with status {child.returncode}"
    return child.returncode == 0


class Killer:
    """Runs in a folder, and counts its kills by where they fell."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.kills = dict.fromkeys([*MOMENTS, "any time", "command"], 0)
        self.runs = 0
        self._folder, self._random = folder, random.Random(seed)
        self._dataset = digits()
        self._references: dict[str, tuple[float, Any]] = {}

    def reference(self, name: str, begin: Callable[[Path], object]) -> tuple[float, Any]:
        """How long the undisturbed run takes, and its outcome."""
        if name not in self._references:
            out = self._folder / f"whole-{name}"
            start = time.perf_counter()
            begin(out)
            self._references[name] = time.perf_counter() - start, outcome(out)
        return self._references[name]

    def run(self, backend: str) -> None:
        """One run, killed about four times."""
        whole, expected = self.reference(backend, lambda out: train(out, backend, self._dataset))
        out = self._folder / f"run-{self.runs}"
        while True:
            if self._random.random() < 0.4:
                where, after = self._random.choice(MOMENTS), self._random.randint(1, 12)

                def work(where: str = where, after: int = after) -> None:
                    die_in_write(where, after)
                    train(out, backend, self._dataset)

                ended = fork(work)
            else:
                where = "any time"
                ended = fork(lambda: train(out, backend, self._dataset), self._random.uniform(0.0, 0.6 * whole))
            if ended:
                break
            self.kills[where] += 1
        self._compare(out, expected)

    def command(self, backend: str, folder: Path) -> None:
        """One run of the command, killed about four times."""
        base = ["train", "mlp-512", "--backend", backend, "--data", str(folder), "--epochs", "40"]
        options = [*base, "--checkpoint-steps", "7"]
        whole, expected = self.reference(f"command-{backend}", lambda out: command([*options, "--out", str(out)]))
        out = self._folder / f"run-{self.runs}"
        while True:
            keep = "--resume" if out.exists() else "--out"
            if command([*options, keep, str(out)], self._random.uniform(0.2 * whole, whole)):
                break
            self.kills["command"] += 1
        self._compare(out, expected)

    def _compare(self, out: Path, expected: Any) -> None:
        assert outcome(out) == expected, f"{out} is not the run that was never killed"
        left = [path.name for path in out.rglob("*.part")]
        assert not left, f"{out} holds {left}"
        self.runs += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="kills, at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killer = Killer(folder, arguments.seed)
        files = folder / "digits"
        files.mkdir()
        for prefix, split in zip(("train", "t10k"), digits(), strict=True):
            data.write_idx(files / f"{prefix}-images-idx3-ubyte", split.images[..., 0])
            data.write_idx(files / f"{prefix}-labels-idx1-ubyte", split.labels)
        while sum(killer.kills.values()) < arguments.count:
            for at, backend in enumerate(kernels.names()):
                if killer.runs % 20 == 18 + at:
                    killer.command(backend, files)
                else:
                    killer.run(backend)
        where = ", ".join(f"{count} {moment}" for moment, count in killer.kills.items())
        print(f"{sum(killer.kills.values())} kills ({where}), {killer.runs} runs, all resumed to identical bits")


if __name__ == "__main__":
    main()
