"""What each rewrite of a plan brings. Run: python -m benchmarks.rewrites [--repetitions N]

The same network runs with all rewrites, without each of them, and without any, one after the other in an order drawn
anew each round; a figure is the median over rounds of how many times longer it takes than with all of them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

import models
from models import Adam, Optimizer, RMSProp, Trainer
from models.plan import table
from models.rewrite import REWRITES, rewrite
from twinkernels.bench import timing

NETWORKS: dict[str, Optimizer] = {"cnn-bn": Adam(1e-3), "mlp-512": RMSProp(1e-3)}
BATCHES = (64, 128, 512)
LEAST = 0.02  # seconds of one measurement

Call = Callable[[], object]


def choices(plan: models.Plan, model: models.Graph) -> dict[str, tuple[str, ...]]:
    """What to compare, by name: all rewrites that change the plan, all but each of them, none."""
    before: list[str] = []
    for name in REWRITES:
        if str(rewrite(plan, model.kernels, [*before, name])) != str(rewrite(plan, model.kernels, before)):
            before.append(name)
    without = {f"without {name}": tuple(n for n in before if n != name) for name in before}
    return {"all": tuple(before)} | without | {"none": ()}


def training(network: str, batch_size: int) -> dict[str, Call]:
    """A training step with each choice of rewrites."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch_size, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, batch_size)
    plain = Trainer(models.build(network), NETWORKS[network], batch_size=batch_size, rewrites=())
    calls: dict[str, Call] = {}
    for choice, names in choices(plain.plan, plain.model).items():
        trainer = Trainer(models.build(network), NETWORKS[network], batch_size=batch_size, rewrites=names)
        calls[choice] = lambda trainer=trainer: trainer.step(x, y)  # type: ignore[misc]
    return calls


def inference(network: str, batch_size: int) -> dict[str, Call]:
    """A prediction with each choice of rewrites."""
    x = np.random.default_rng(0).standard_normal((batch_size, 28, 28, 1)).astype(np.float32)
    calls: dict[str, Call] = {}
    model = models.build(network)
    for choice, names in choices(model.plan, model).items():
        twin = models.build(network)
        twin.rewrites = names
        calls[choice] = lambda twin=twin: twin.predict(x)  # type: ignore[misc]
    return calls


def compare(calls: dict[str, Call], repetitions: int) -> dict[str, tuple[float, float]]:
    """By choice: the median time in seconds, and the median ratio to all rewrites."""
    for call in calls.values():
        call()
    rounds: list[dict[str, float]] = []
    for _ in range(repetitions):
        order = list(calls)
        random.shuffle(order)
        rounds.append({choice: timing.mean(calls[choice], LEAST) for choice in order})
    return {c: (median(r[c] for r in rounds), median(r[c] / r["all"] for r in rounds)) for c in calls}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.rewrites", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=21, help="rounds a case (21)")
    repetitions = parser.parse_args(arguments).repetitions
    for title, kind in (("training", training), ("inference", inference)):
        for network in NETWORKS:
            found = {batch_size: compare(kind(network, batch_size), repetitions) for batch_size in BATCHES}
            head = (f"{title} {network}", *(f"batch {batch_size}, µs" for batch_size in BATCHES), "times all")
            rows = [
                (
                    choice,
                    *(f"{found[batch_size][choice][0] * 1e6:,.0f}" for batch_size in BATCHES),
                    "  ".join(f"{found[batch_size][choice][1]:.2f}" for batch_size in BATCHES),
                )
                for choice in found[BATCHES[0]]
            ]
            print(table([head, *rows], right=(1, 2, 3, 4)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
