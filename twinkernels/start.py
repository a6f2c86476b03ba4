"""What is waited for before a first step: the stages of a fresh process, with an empty cache and with a full one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import kernels
from data.files import expanded
from models.plan import table

from .recipes import RECIPES
from .runs import model_file, model_name

_PROGRAM = """
import json, sys, time
file, network, batch_size, threads = json.loads(sys.argv[1])
marks = [("python", time.time())]

def mark(stage):
    marks.append((stage, time.time()))

import numpy as np
import kernels, models
mark("imports")
kernels.get("numba")
mark("Numba and its kernels")
from numba.core import event

compiled, running = {}, []

class Listener(event.Listener):
    def on_start(self, occurrence):
        running.append([time.perf_counter(), 0.0])

    def on_end(self, occurrence):
        began, within = running.pop()
        seconds = time.perf_counter() - began
        if running:
            running[-1][1] += seconds
        name = occurrence.data["dispatcher"].py_func.__name__
        compiled[name] = compiled.get(name, 0.0) + seconds - within

event.register("numba:compile", Listener())
kernels.set_threads(threads)
if network:
    model = models.build(network, "numba")
    run = models.Trainer(model, models.Adam(1e-3), batch_size=batch_size).step
    arguments = (np.zeros((batch_size, *model.input_shape), np.float32), np.zeros(batch_size, np.int64))
else:
    model = models.load(file, backend="numba")
    run, arguments = model.predict, (np.zeros((batch_size, *model.input_shape), np.float32),)
mark("network")
with np.errstate(all="ignore"):
    run(*arguments)
    mark("first call")
    run(*arguments)
    mark("second call")
print(json.dumps([marks, compiled]))
"""


@dataclass(frozen=True)
class Start:
    """Seconds by stage of a process that trains a recipe's network for a step, or reads one batch with a model.

    cold, warm: without compiled kernels, and with them. compiled: seconds that each function took in the cold process
    itself, less those that it waited for; other processes that help are not in it, so with one thread it is all.
    """

    name: str
    batch_size: int
    threads: int
    cold: Mapping[str, float]
    warm: Mapping[str, float]
    compiled: Mapping[str, float]

    def __str__(self) -> str:
        return self.listing()

    def listing(self, longest: int = 12) -> str:
        """A line for each stage, then the functions that took longest to compile."""
        title = f"{self.name}: process start to first result, batch of {self.batch_size}, {self.threads} threads"
        rows = [(stage, self.cold[stage], self.warm[stage]) for stage in self.cold]
        first = [row for row in rows if row[0] != "second call"]
        rows.append(("start to first result", sum(row[1] for row in first), sum(row[2] for row in first)))
        stages = [("stage", "cold s", "warm s"), *((stage, f"{c:.3f}", f"{w:.3f}") for stage, c, w in rows)]
        ranked = sorted(self.compiled.items(), key=lambda item: -item[1])[:longest]
        functions = [("compiled by this process", "s"), *((name, f"{seconds:.2f}") for name, seconds in ranked)]
        lines = [title, "", table(stages, right=(1, 2)), "", table(functions, right=(1,))]
        return "\n".join(lines)


def measure(subject: str, batch_size: int | None = None) -> Start:
    """Start a process twice for a recipe, a run or a model's file, first with an empty cache."""
    recipe = RECIPES.get(subject)
    file = None if recipe else str(model_file(expanded(subject)).resolve())
    size = batch_size or (recipe.batch_size if recipe else 64)
    given = json.dumps([file, recipe and recipe.network, size, kernels.get_threads()])
    with tempfile.TemporaryDirectory() as cache:
        (cold, compiled), (warm, _) = (_stages(given, cache) for _ in range(2))
    name = subject if file is None else model_name(Path(file))
    return Start(name, size, kernels.get_threads(), cold, warm, compiled)


def _stages(given: str, cache: str) -> tuple[dict[str, float], dict[str, float]]:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "TWINKERNELS_VERBOSE": "0"}
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, given], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().rpartition("\n")[2] or f"the process ended with status {done.returncode}")
    marks, compiled = json.loads(done.stdout)
    stages = {}
    for stage, at in marks:
        stages[stage], began = at - began, at
    return stages, compiled
