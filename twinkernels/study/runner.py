"""The study as a whole: do the trials that are left, alone or with other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import data
import kernels
from kernels import shapes
from models.losses import SoftmaxCrossEntropy
from models.sequential import Sequential

from ..runs import Source, as_source, source_name
from . import trials
from .effects import Effect, effects
from .factors import FACTORS, Factor
from .places import place
from .storage import Storage
from .trials import Outcome, Trial

SEEDS = 5
POLL = 1.0
"""Seconds between looks at the storage while others are at the last trials."""

GIVEN = "given"
"""What the options call data that were handed over loaded."""


@dataclass(frozen=True)
class Findings:
    """What a study has come to. total: the trials that it consists of."""

    factors: tuple[Factor, ...]
    options: Mapping[str, Any]
    outcomes: Mapping[Trial, Outcome]
    total: int

    @property
    def effects(self) -> list[Effect]:
        """Of every level, in order; see `effects`."""
        return effects(self.factors, self.outcomes)


def run(
    storage: str | os.PathLike[str],
    source: Source | None = None,
    *,
    factors: Sequence[str] | None = None,
    seeds: int = SEEDS,
    most: int | None = None,
    backend: str | None = None,
    epochs: int | None = None,
    images: int | None = None,
    batch_size: int | None = None,
    watch: Callable[[int, int, str | None], None] | None = None,
) -> Findings:
    """Do the trials of a study that are not done yet, and give what all of them came to.

    storage: a file, made if there is none, or a URL: postgresql://USER@HOST/DATABASE, mysql://..., or journal:///PATH
    in a folder that machines share. Any number of processes may work on it, and one that is killed costs no more than
    the trial that it was at. Each returns when all trials are done. source: what `runs.run` takes.
    factors: names in FACTORS; all if None. seeds: repetitions of every training; more of them, and more
    factors, go on with what is there. most: end after so many trials of this process.
    backend, epochs, images (of those not held out), batch_size: of every training. A storage has the options, source
    among them, that it was made with: None stands for these, or for the DEFAULTS.
    watch: called with the trials done, all of them, and a line that tells of a trial just done.

    Raises ValueError for options that do not fit, and what `data.load` raises, all of it before training begins;
    OSError where the storage cannot be read or written.
    """
    chosen = tuple(_named(name) for name in (FACTORS if factors is None else factors))
    shapes.integer("study", "seeds", seeds, 1)
    source = None if source is None else as_source(source)
    given = {
        "data": None if source is None else source_name(source) or GIVEN,
        "backend": backend,
        "epochs": epochs,
        "images": images,
        "batch_size": batch_size,
    }
    loaded: list[data.Split] = []

    def check(options: Mapping[str, Any]) -> None:
        kernels.get(options["backend"])
        for name in ("epochs", "images", "batch_size"):
            shapes.integer("study", name, options[name], 1)
        if options["data"] == GIVEN and source is None:
            raise ValueError(f"{storage}: the study was handed its data; pass it as source")
        if not loaded:
            loaded.append((source if isinstance(source, data.Dataset) else data.load(options["data"])).train)
        for layers in {trial.setup.training(trial.learning_rate, 1).layers for trial in trials.trials(chosen, 1)}:
            model = Sequential(list(layers), loaded[0].images.shape[1:], options["backend"])
            model.check_images(loaded[0].images)
            SoftmaxCrossEntropy().check(loaded[0].labels, len(loaded[0].labels), model.output_shape)

    kept = Storage(place(storage), given, check)
    try:
        wanted = {trial.key(kept.options["epochs"]): trial for trial in trials.trials(chosen, seeds)}
        here = 0
        while True:
            outcomes = kept.outcomes(wanted)
            if watch:
                watch(len(outcomes), len(wanted), None)
            if len(outcomes) == len(wanted) or here == most:
                return Findings(chosen, kept.options, outcomes, len(wanted))
            taken = kept.take(wanted)
            if taken is None:  # others are at the last ones
                time.sleep(POLL)
                continue
            number, trial = taken
            outcome = trials.fit(trial, loaded[0], kept.options)
            kept.tell(number, outcome)
            here += 1
            if watch:
                how = "  diverged" if outcome.diverged else ""
                watch(len(outcomes) + 1, len(wanted), f"{trial}  accuracy {outcome.accuracy:.4f}{how}")
    finally:
        kept.close()


def _named(name: str) -> Factor:
    if name not in FACTORS:
        raise ValueError(f"unknown factor {name!r}; expected one of {', '.join(FACTORS)}")
    return FACTORS[name]
