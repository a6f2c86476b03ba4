"""Side by side with other libraries. See the package's docstring for how; --help for what can be chosen."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data
from data import strokes
from kernels.threads import available_cores

from . import measure, report
from .install import install
from .networks import BATCHES, NETWORKS, save
from .variants import BOTH, DISTRIBUTIONS, OURS, VARIANTS, Variant

OUR_DISTRIBUTIONS = (
    "numpy",
    "numba",
    "safetensors",
    "pooch",
    "requests",
    "platformdirs",
    "rich",
    "typer",
    "threadpoolctl",
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)

    def names(known: Sequence[str]) -> Any:
        def split(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
            unknown = set(chosen) - set(known)
            if unknown:
                message = f"{', '.join(sorted(unknown))}; expected some of {', '.join(known)}"
                raise argparse.ArgumentTypeError(message)
            return chosen

        return split

    def positive(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}; expected an integer of at least 1")
        return int(text)

    def sizes(text: str) -> list[int]:
        return [positive(size) for size in text.split(",")]

    ours = [variant.name for variant in VARIANTS if variant.peer == OURS]
    add = parser.add_argument
    add("--peers", type=names(list(DISTRIBUTIONS)), default=list(DISTRIBUTIONS), help="comma-separated; default all")
    add("--variants", type=names([v.name for v in VARIANTS if v.peer != OURS]), help="the peers' variants; default all")
    add("--ours", type=names(ours), default=ours, metavar="BACKENDS", help="our backends; default all")
    add("--networks", type=names(list(NETWORKS)), default=list(NETWORKS), help=f"default {','.join(NETWORKS)}")
    add("--batch-sizes", type=sizes, help="default 64,128,512 to train, 1,64,512 to infer")
    add("--train", action="store_true", help="training alone")
    add("--infer", action="store_true", help="inference alone")
    add("--rounds", type=positive, default=7)
    add("--steps", type=positive, help="steps of a turn; default as many as --turn-seconds holds")
    add("--turn-seconds", type=float, default=0.3)
    add("--threads", type=positive, default=available_cores())
    add("--seed", type=int, default=0, help="of the order of the turns")
    add("--limit-seconds", type=float, default=300.0, help="that a worker may take to get ready, or for a turn")
    add("--python", help="interpreter that has the peers; default the environment of --install, else this one")
    add("--install", action="store_true", help="install the chosen peers in an environment of their own first")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    return parser.parse_args(arguments)


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor()
    try:
        lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        facts = {key.strip(): value.strip() for key, value in lines}
        # Virtual machines often hide the name; family and model tell the generation.
        cpu = f"{facts['model name']}, family {facts['cpu family']}, model {facts['model']}"
    except (OSError, KeyError):
        pass
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "machine": platform.machine(),
        "cores": available_cores(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": load,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
    }


def commit() -> str | None:
    """The source's commit, with a plus sign if the files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=measure.ROOT,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def batches(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised strokes as (BATCHES, N, 28, 28, 1) float32, and their labels as int64."""
    raw = strokes.load(train=BATCHES * batch_size, test=1)
    train, _ = data.normalise(*(data.Split(*split) for split in raw))
    x = train.images.reshape(BATCHES, batch_size, *train.images.shape[1:])
    return x, train.labels.reshape(BATCHES, batch_size).astype(np.int64)


def chosen(options: argparse.Namespace, network: str, task: str) -> list[Variant]:
    """The variants that take part in a case."""
    return [
        variant
        for variant in VARIANTS
        if variant.takes(network, task)
        and (
            variant.name in options.ours
            if variant.peer == OURS
            else variant.peer in options.peers and (not options.variants or variant.name in options.variants)
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 if one of ours failed."""
    options = parse(arguments)
    if options.install:
        install(options.peers, say)
    peers_python = options.python or measure.default_python()
    pythons = {OURS: sys.executable, "": peers_python}
    found: dict[str, Any] = {
        "machine": machine(options.threads),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "installed_bytes": {
            OURS: measure.installed_bytes(sys.executable, OUR_DISTRIBUTIONS),
            **{peer: measure.installed_bytes(peers_python, DISTRIBUTIONS[peer]) for peer in options.peers},
        },
        "cases": [],
    }
    tasks = [task for task in BOTH if getattr(options, task) or not (options.train or options.infer)]
    failed = False
    for task in tasks:
        for name in options.networks:
            for batch_size in options.batch_sizes or ([64, 128, 512] if task == "train" else [1, 64, 512]):
                kind = "training" if task == "train" else "inference"
                title = f"{kind} {name}, batch {batch_size}, threads {options.threads}"
                say(f"{title} ...")
                results = case(options, pythons, name, task, batch_size)
                failed = failed or any(result.peer == OURS and result.status == "failed" for result in results)
                print(report.text(title, results), end="\n\n", flush=True)
                found["cases"].append(
                    {
                        "network": name,
                        "task": task,
                        "batch_size": batch_size,
                        "results": [measure.as_json(result) for result in results],
                    }
                )
                if options.json:
                    options.json.write_text(json.dumps(found, indent=1) + "\n")
    for peer, parts in found["installed_bytes"].items():
        if parts:
            print(f"installed size of {peer} with what it requires: {sum(parts.values()) / 1e6:,.0f} MB")
    return int(failed)


def case(
    options: argparse.Namespace, pythons: dict[str, str], name: str, task: str, batch_size: int
) -> list[measure.Result]:
    """Measure one case."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        save(arrays, NETWORKS[name], *batches(batch_size))
        return measure.measure(
            chosen(options, name, task),
            pythons,
            measure.request(NETWORKS[name], task, batch_size, options.threads, arrays),
            options.rounds,
            options.steps,
            options.turn_seconds,
            say,
            options.seed,
            options.limit_seconds,
        )


def say(line: str) -> None:
    """Progress, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
