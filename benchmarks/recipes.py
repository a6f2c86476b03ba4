"""The recipes, each trained in full on both backends: does it reach its floor, and how long does it take?

Run: python -m benchmarks.recipes [RECIPE ...] [--only-missing] [--precision bfloat16]

A figure is the accuracy on MNIST's test images after the last epoch. A training has a process to itself, since idle
threads of one backend slow the other, and its time is that of the whole fit, with the evaluation of validation images
after each epoch, without loading data and without compiling: the same recipe has taken a few steps before. The
backends take turns, seed by seed; the speed-up is the median over seeds of NumPy's time over Numba's. What was trained
in bfloat16 has a table of its own, beside the same seeds in float32.

Every result is kept in results/recipes.json as it comes, so that this may be done in parts. Of that
`python -m benchmarks.pages` makes a section of RESULTS.md, and the figures that `twinkernels list` shows. Exit status 1
if a recipe misses its floor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import data
import kernels
from kernels.threads import available_cores
from models.callbacks import Callback
from models.encoding import encode
from twinkernels import recipes, runs
from twinkernels.recipes import RECIPES, Recipe

from .kept import Run, told, write
from .peers.__main__ import machine
from .text import bullet, number, prose, span, table, times

HERE = Path(__file__).parent
KEPT = HERE / "results" / "recipes.json"

SHORTER = [replace(RECIPES["mlp-nobias"], iterations=1_000, published="0.51", floor=0.90)]
"""Shown before the recipe of their name. The program that mlp-nobias answers to has two published figures."""

SEEDS = 5
FEWER_SEEDS = {"mlp-meannorm": 1, "cnn-record": 3}
NUMBA_ALONE = {
    "cnn-record": "its training takes NumPy hours, and tests hold each of its kernels and its losses to NumPy's"
}
"""Recipes that are not trained in full on NumPy, and why."""

PRECISIONS = ("float32", "bfloat16")
BACKENDS = {"numba": "Numba", "numpy": "NumPy"}
WARM_IMAGES, WARM_STEPS = 1_200, (1, 3)
"""A fit of one step calls what a single step calls, one of three what a stretch of an epoch calls."""


def rows() -> list[Recipe]:
    """What the table shows, in order."""
    return [row for recipe in RECIPES.values() for row in (*shorter(recipe.name), recipe)]


def shorter(name: str) -> list[Recipe]:
    """The lengths of a recipe beside its own."""
    return [recipe for recipe in SHORTER if recipe.name == name]


def settings(recipe: Recipe) -> dict[str, Any]:
    """All that decides a training, as JSON."""
    told_apart = ("name", "description", "published", "floor")
    found = {key: encode(getattr(recipe, key)) for key in Recipe.__dataclass_fields__ if key not in told_apart}
    decoded: dict[str, Any] = json.loads(json.dumps(found))
    return decoded


def of(runs: Iterable[Run], recipe: Recipe, backend: str, precision: str = "float32") -> list[Run]:
    """The runs of a row on a backend, by seed; those of a recipe as it was before a change are none."""
    asked = (recipe.name, settings(recipe), backend, precision)
    found = [run for run in runs if (run["recipe"], run["settings"], run["backend"], precision_of(run)) == asked]
    return sorted(found, key=lambda run: int(run["seed"]))


def precision_of(run: Run) -> str:
    """In which a run was trained; files say so of none in float32."""
    return str(run.get("precision", "float32"))


def accuracy(runs: Sequence[Run]) -> float:
    """Mean over seeds."""
    return fmean(run["accuracy"] for run in runs)


# ------------------------------------------------------------------------------------------------------------- Training


class Stopwatch(Callback):
    """Seconds of a fit."""

    def on_fit_begin(self, trainer: object, total_steps: int) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_fit_end(self, trainer: object) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


def train(
    recipe: Recipe, source: str, backend: str, seed: int, threads: int, precision: str = "float32"
) -> tuple[float, float]:
    """Accuracy on the test images, and seconds of the fit."""
    kernels.set_threads(threads)
    digits = data.load(source)
    few = data.Dataset(*(data.Split(split.images[:WARM_IMAGES], split.labels[:WARM_IMAGES]) for split in digits))
    for steps in WARM_STEPS:
        runs.run(recipe, few, backend=backend, iterations=steps, precision=precision)
    watch = Stopwatch()
    outcome = runs.run(recipe, digits, backend=backend, seed=seed, callbacks=[watch], precision=precision)
    return outcome.test.accuracy, watch.seconds


def train_apart(*arguments: Any) -> tuple[float, float]:
    """`train` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(train, *arguments).result()


# ------------------------------------------------------------------------------------------------------------- Keeping


def read(path: Path) -> list[Run]:
    """The runs in a file that `keep` wrote, none where there is no file."""
    try:
        runs: list[Run] = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            float(run["accuracy"]), float(run["seconds"]), run["recipe"], run["settings"], run["backend"], run["seed"]
            run["machine"]["cpu"], run["machine"]["threads"], run["machine"]["date"]
        return runs
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a file of benchmarks.recipes: {error!r}") from None


def same_machine(path: Path, runs: Iterable[Run], facts: dict[str, Any]) -> None:
    """Raise ValueError if runs come from another machine than the one described."""
    for run in runs:
        for key in ("cpu", "cores", "threads"):
            if (kept := run["machine"].get(key)) != facts[key]:
                raise ValueError(
                    f"{path} holds figures of another machine ({key} {kept!r}, here {facts[key]!r}); "
                    "expected one machine: remove it, or name another file with --json"
                )


def keep(path: Path, new: Run) -> None:
    """Add a run to a file, in place of the one before it, and leave out runs of recipes that have changed since."""
    runs = [
        run
        for recipe in rows()
        for backend in BACKENDS
        for precision in PRECISIONS
        for run in of(read(path), recipe, backend, precision)
        if any(run.get(key) != new.get(key) for key in ("recipe", "settings", "backend", "seed", "precision"))
    ]
    write(path, [*runs, new])


def figures(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """By recipe and backend: the mean accuracy, as `twinkernels.recipes.figures` reads it."""
    found = {
        recipe.name: {b: round(accuracy(done), 4) for b in BACKENDS if (done := of(runs, recipe, b))}
        for recipe in RECIPES.values()
    }
    return {name: by_backend for name, by_backend in found.items() if by_backend}


def published(runs: Sequence[Run]) -> str:
    """What `twinkernels list` shows, as its file holds it."""
    return json.dumps(figures(runs), indent=1) + "\n"


# ------------------------------------------------------------------------------------------------------------ The table


def report(runs: Sequence[Run], shown: Sequence[Recipe]) -> str:
    """The Markdown table of some rows, and what it was measured on."""
    lines, used = [], []
    for recipe in shown:
        done = {backend: of(runs, recipe, backend) for backend in BACKENDS}
        used += [run for found in done.values() for run in found]
        seconds = {b: {run["seed"]: run["seconds"] for run in found} for b, found in done.items()}
        both = seconds["numpy"].keys() & seconds["numba"].keys()
        pairs = [seconds["numpy"][seed] / seconds["numba"][seed] for seed in both]
        lines.append(
            [
                f"`{recipe.name}`",
                recipe.length,
                recipe.published,
                f"{recipe.floor:g}",
                *(spread([run["accuracy"] for run in done[b]]) for b in BACKENDS),
                *(number(median(seconds[b].values())) if seconds[b] else "–" for b in BACKENDS),
                times(median(pairs)) if pairs else "–",
            ]
        )
    headings = ["recipe", "length", "published", "floor"]
    headings += [*BACKENDS.values(), *(f"{name}, s" for name in BACKENDS.values()), "speed-up"]
    parts = [table(headings, lines, left=2)]
    if used:
        first = used[0]["machine"]
        threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
        dates = sorted({run["machine"]["date"][:10] for run in used})
        parts.append(
            prose(
                f"{first['cpu']}, {threads}, float32, {span(dates, str)}. Accuracy on MNIST's test "
                "images after the last epoch; where there are several seeds, their mean, least and greatest. Seconds "
                "are of the whole fit, without loading data and without compiling, the median over seeds. Each "
                "training has a process to itself."
            )
        )
    parts += in_bfloat16(runs, shown)
    alone = [
        bullet(f"`{r.name}` is trained on Numba alone: {NUMBA_ALONE[r.name]}.") for r in shown if r.name in NUMBA_ALONE
    ]
    return "\n\n".join([*parts, *(["\n".join(alone)] if alone else [])])


def in_bfloat16(runs: Sequence[Run], shown: Sequence[Recipe]) -> list[str]:
    """A table of the seeds that were trained in both precisions; nothing where there are none."""
    lines = []
    for recipe in shown:
        for backend, name in BACKENDS.items():
            plain, rounded = (
                {run["seed"]: 100 * (1 - run["accuracy"]) for run in of(runs, recipe, backend, precision)}
                for precision in PRECISIONS
            )
            if seeds := sorted(plain.keys() & rounded.keys()):
                changes = [rounded[seed] - plain[seed] for seed in seeds]
                errors = [f"{fmean(found[seed] for seed in seeds):.3f}" for found in (plain, rounded)]
                row = [f"`{recipe.name}`", recipe.length, name, str(len(seeds)), *errors, f"{fmean(changes):+.3f}"]
                lines.append([*row, f"{min(changes):+.2f} to {max(changes):+.2f}"])
    if not lines:
        return []
    headings = ["recipe", "length", "backend", "seeds", "float32, %", "bfloat16, %", "change, points", "by seed"]
    told = prose(
        "Contractions in bfloat16: the error on MNIST's test images, mean over seeds, beside the same seeds in "
        "float32, and what bfloat16 changes of it."
    )
    return [told, table(headings, lines, left=3)]


def spread(values: Sequence[float]) -> str:
    """Mean, and least to greatest where there are several."""
    if not values:
        return "–"
    return f"{fmean(values):.4f}" + (f" ({min(values):.4f} – {max(values):.4f})" if len(values) > 1 else "")


def missed(runs: Sequence[Run], shown: Sequence[Recipe]) -> list[str]:
    """A line for each floor that is not reached."""
    return [
        f"{recipe.name}, {recipe.length}, {backend}: {accuracy(done):.4f} is below its floor, {recipe.floor:g}"
        for recipe in shown
        for backend in BACKENDS
        if (done := of(runs, recipe, backend)) and accuracy(done) < recipe.floor
    ]


# -------------------------------------------------------------------------------------------------------------- Command


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, keep, print; 1 if a floor is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.recipes", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("recipes", nargs="*", metavar="RECIPE", help=f"default all: {', '.join(RECIPES)}")
    add("--backend", choices=list(BACKENDS), help="default both")
    add("--precision", choices=PRECISIONS, default="float32", help="default float32")
    add("--seeds", type=int, metavar="N", help=f"default {SEEDS}, for some recipes fewer")
    add("--threads", type=int, default=available_cores())
    add("--data", default="mnist", metavar="mnist|PATH", help="or a folder that holds MNIST")
    add("--only-missing", action="store_true", help="train what the file does not hold")
    add("--json", type=Path, default=KEPT, metavar="FILE", help="instead of results/recipes.json")
    options = parser.parse_args(arguments)
    try:
        for name in ("seeds", "threads"):
            if getattr(options, name) is not None and getattr(options, name) < 1:
                raise ValueError(f"--{name} is {getattr(options, name)}, expected at least 1")
        if options.data == "strokes":
            raise ValueError("--data is strokes, and floors are for MNIST; expected mnist or a folder that holds it")
        names = [recipes.get(name).name for name in options.recipes] or list(RECIPES)
        facts = told(machine(options.threads))
        same_machine(options.json, read(options.json), facts)
        data.load(options.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    shown = [recipe for recipe in rows() if recipe.name in names]
    for recipe in shown:
        for seed in range(options.seeds or FEWER_SEEDS.get(recipe.name, SEEDS)):
            for backend in [options.backend] if options.backend else BACKENDS:
                if backend == "numpy" and recipe.name in NUMBA_ALONE:
                    continue
                done = of(read(options.json), recipe, backend, options.precision)
                if options.only_missing and any(run["seed"] == seed for run in done):
                    continue
                run = {"recipe": recipe.name, "settings": settings(recipe), "backend": backend, "seed": seed}
                if options.precision != "float32":
                    run["precision"] = options.precision
                run["machine"] = told(machine(options.threads))
                share, seconds = train_apart(recipe, options.data, backend, seed, options.threads, options.precision)
                keep(options.json, run | {"accuracy": share, "seconds": float(f"{seconds:.5g}")})
                who = ", ".join((recipe.name, recipe.length, backend, options.precision))
                line = f"{who}, seed {seed}: {share:.4f} after {seconds:.1f} s"
                print(line, file=sys.stderr, flush=True)
    runs = read(options.json)
    print(report(runs, shown))
    lines = missed(runs, shown)
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
