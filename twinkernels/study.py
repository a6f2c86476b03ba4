"""Study: the effect of each factor of a training on its accuracy, with its spread over seeds, through Optuna.

The trials are enumerated beforehand, in `factors`: every setup at each of its learning rates, for every seed. They are
kept in an Optuna storage of SQLite, which any number of processes may work on. A process takes a trial under a lock
on the file STORAGE.lock, and as long as it lives holds another on a file of its own, STORAGE.worker-ID. Both are
SQLite's, which end with the process, however that ends: a trial whose worker's lock is free is given out again at once.
(Optuna's heartbeat would need a time to wait, would take a suspended process for a dead one, and misses a process that
dies before its first beat.)

A trial's value is the accuracy on training images that were set aside; the test images have no part in it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sqlite3
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer

import data as datasets
import kernels
from kernels import shapes
from models.checkpoint import write_atomically
from models.graph import DEFAULT_BACKEND
from models.losses import SoftmaxCrossEntropy
from models.nonfinite import NonFiniteError
from models.sequential import Sequential
from models.trainer import Trainer

from . import plots
from .factors import BASELINE, CHOICES, FACTORS, Factor, Level, Setup
from .progress import bar
from .recipes import source_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "twinkernels"
OPTIONS, KEY, WORKER, DIVERGED = "options", "key", "worker", "diverged"
"""Attributes of the study, and of a trial."""

GIVEN = "given"
"""What the options call data that were handed over loaded."""

DEFAULTS: dict[str, Any] = {
    "data": "strokes",
    "backend": DEFAULT_BACKEND,
    "epochs": 4,
    "images": 10_000,
    "batch_size": 128,
}
SEEDS = 5
HELD_OUT = 1 / 6
"""Share of the training images that accuracies are taken on."""

WAIT = 600.0
"""Seconds for a lock that others hold for a moment at a time."""

POLL = 1.0

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Trial(NamedTuple):
    """One training of the study."""

    setup: Setup
    learning_rate: float
    seed: int

    def __str__(self) -> str:
        plain = asdict(BASELINE)
        changed = [f"{name}: {value}" for name, value in asdict(self.setup).items() if value != plain[name]]
        changed = changed or ["baseline"]
        return f"{', '.join(changed)}, learning rate {self.learning_rate:g}, seed {self.seed}".replace("_", " ")

    def key(self, epochs: int) -> str:
        """All that decides it, options of the study aside: equal keys are equal trials."""
        return f"{self.seed} {self.setup.training(self.learning_rate, epochs).text}"


def trials(factors: Sequence[Factor], seeds: int) -> list[Trial]:
    """All trials of the factors in their order: seed by seed, so that what is done first stands for all of it."""
    setups = dict.fromkeys(
        (level.setup, rate) for factor in factors for level in factor.levels.values() for rate in level.rates
    )
    return [Trial(*setup, seed) for seed in range(seeds) for setup in setups]


class Outcome(NamedTuple):
    """What a trial came to: accuracy on the images held out, and whether its numbers ceased to be finite."""

    accuracy: float
    diverged: bool = False


class Effect(NamedTuple):
    """What a level does, over the seeds that are done with it.

    rates: the learning rate of each seed, chosen by the mean accuracy of the other seeds, so that no figure has picked
    itself. accuracies: with them. differences: the accuracies less those of the factor's first level, seed by seed:
    both train on the same images, in the same order.
    """

    factor: str
    level: str
    is_reference: bool
    tried: tuple[float, ...]
    rates: tuple[float, ...]
    accuracies: tuple[float, ...]
    differences: tuple[float, ...]
    diverged: int

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval of the mean difference, by Student's t; infinite for one seed."""
        return interval(self.differences)

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval leaves out zero."""
        mean = statistics.fmean(self.differences)
        return "unclear" if abs(mean) <= self.interval else "better" if mean > 0 else "worse"

    @property
    def at_edge(self) -> bool:
        """Whether the rate chosen most often is the lowest or the highest tried: the best may lie beyond."""
        return len(self.tried) > 1 and statistics.mode(self.rates) in (self.tried[0], self.tried[-1])


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean, t s / √n by Student's t; infinite for one value."""
    if len(values) < 2:
        return math.inf
    quantile = _STUDENT[len(values) - 2] if len(values) - 2 < len(_STUDENT) else 2.0
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def effects(factors: Sequence[Factor], outcomes: Mapping[Trial, Outcome]) -> list[Effect]:
    """The effect of every level that has a seed with all its trials done, as the level it is compared with has."""
    found = []
    for factor in factors:
        reference: dict[int, tuple[float, float]] = {}
        for name, level in factor.levels.items():
            chosen = _chosen(level, outcomes)
            reference = reference or chosen
            seeds = sorted(chosen.keys() & reference.keys())
            if seeds:
                at = [chosen[seed] for seed in seeds]
                ran = [Trial(level.setup, rate, seed) for seed, (rate, _) in zip(seeds, at, strict=True)]
                found.append(
                    Effect(
                        factor.name,
                        name,
                        chosen is reference,
                        level.rates,
                        tuple(rate for rate, _ in at),
                        tuple(accuracy for _, accuracy in at),
                        tuple(chosen[seed][1] - reference[seed][1] for seed in seeds),
                        sum(outcomes[trial].diverged for trial in ran),
                    )
                )
    return found


def _chosen(level: Level, outcomes: Mapping[Trial, Outcome]) -> dict[int, tuple[float, float]]:
    """By seed the learning rate that the other seeds choose, and the accuracy with it. The lower of two equals."""
    by_seed: dict[int, dict[float, float]] = {}
    for (setup, rate, seed), outcome in outcomes.items():
        if setup == level.setup and rate in level.rates:
            by_seed.setdefault(seed, {})[rate] = outcome.accuracy
    done = {seed: rates for seed, rates in by_seed.items() if len(rates) == len(level.rates)}
    chosen = {}
    for seed, own in done.items():
        others = [rates for other, rates in done.items() if other != seed] or [own]
        rate = max(level.rates, key=lambda rate: statistics.fmean(rates[rate] for rates in others))
        chosen[seed] = rate, own[rate]
    return chosen


# One trial ---------------------------------------------------------------------------------------------------


def fit(trial: Trial, train: datasets.Split, options: Mapping[str, Any]) -> Outcome:
    """Train, and evaluate on what is held out of the training images; a training that diverges is taken as it stands.

    The seed decides what is held out, which of the others are trained on, the weights and the order.
    """
    setup, rate, seed = trial
    rest, held_out = datasets.split(train, max(1, round(HELD_OUT * len(train.labels))), seed)
    if options["images"] < len(rest.labels):
        _, rest = datasets.split(rest, options["images"], seed)
    training = setup.training(rate, options["epochs"])
    model = Sequential(list(training.layers), train.images.shape[1:], options["backend"], seed)
    trainer = Trainer(model, training.optimizer, training.loss, options["batch_size"], training.schedule)
    try:
        trainer.fit(rest.images, rest.labels, epochs=options["epochs"], augment=training.augment)
        diverged = False
    except NonFiniteError:
        diverged = True
    with np.errstate(all="ignore"):  # weights on their way to infinity overflow
        return Outcome(model.evaluate(*held_out).accuracy, diverged)


# Storage -----------------------------------------------------------------------------------------------------


class _Lock:
    """A file that one process holds at a time, and lets go however it ends; sqlite3.OperationalError if it is held."""

    def __init__(self, path: Path, seconds: float = 0.0) -> None:
        self._connection = sqlite3.connect(path, timeout=seconds, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = MEMORY")  # no second file beside it
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go."""
        self._connection.close()

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Storage:
    """The trials of a study in a file, which is made if there is none; for several processes at once.

    given: options; None stands for the storage's own, or for the default where there is none yet. check: called with
    the options before anything is written, to raise what is wrong with them.

    Raises ValueError where Optuna is missing, for a file that is no storage, and for options that are not those that it
    was made with.
    """

    def __init__(self, path: Path, given: Mapping[str, Any], check: Callable[[Mapping[str, Any]], None]) -> None:
        optuna = _optuna()
        self._states = optuna.trial.TrialState
        self.path = path
        if path.is_dir():
            raise ValueError(f"cannot keep the study in {path}, a folder; expected a file")
        if not path.exists():
            check(_settled(given, None, path))
            path.parent.mkdir(parents=True, exist_ok=True)
        self._id = uuid.uuid4().hex
        with self._alone():  # tables cannot be made by two at once
            self._storage = _open(path)
            try:
                self._study, kept = self._own_study()
                self.options = _settled(given, kept, path)
                check(self.options)
                self._storage.set_study_user_attr(self._study, OPTIONS, self.options)
            except BaseException:
                self._dispose()
                raise
            self._worker = _Lock(self._worker_file(self._id))

    def close(self) -> None:
        """Let go of the file; a trial that was taken and is not done is free again."""
        self._dispose()
        self._worker.close()
        self._worker_file(self._id).unlink(missing_ok=True)

    def take(self, wanted: Mapping[str, Trial]) -> tuple[int, Trial] | None:
        """The first of the wanted trials that is neither done nor in work, with its id; None if there is none.

        wanted: trials by their keys.
        """
        with self._alone():
            self._bury()
            taken = {_key(kept) for kept in self._kept() if kept.state != self._states.FAIL}
            free = next((key for key in wanted if key not in taken), None)
            if free is None:
                return None
            return self._storage.create_new_trial(self._study, self._template(free, wanted[free])), wanted[free]

    def tell(self, number: int, outcome: Outcome) -> None:
        """Keep what a trial came to."""
        with self._alone():
            self._storage.set_trial_user_attr(number, DIVERGED, outcome.diverged)
            self._storage.set_trial_state_values(number, self._states.COMPLETE, [outcome.accuracy])

    def outcomes(self, wanted: Mapping[str, Trial]) -> dict[Trial, Outcome]:
        """What those of the wanted trials that are done came to."""
        return {
            wanted[key]: Outcome(kept.values[0], kept.user_attrs.get(DIVERGED, False))
            for kept in self._kept()
            if kept.state == self._states.COMPLETE and (key := _key(kept)) in wanted
        }

    def _own_study(self) -> tuple[int, Any]:
        """Its id, and the options that it was made with."""
        optuna = _optuna()
        if NAME not in (study.study_name for study in self._storage.get_all_studies()):
            before = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], NAME)
            optuna.logging.set_verbosity(before)
        study = self._storage.get_study_id_from_name(NAME)
        # What reads anew only trials that were not done when it last did.
        self._read = optuna.load_study(study_name=NAME, storage=self._storage)
        return study, self._storage.get_study_user_attrs(study).get(OPTIONS)

    def _template(self, key: str, trial: Trial) -> Any:
        """A trial in work, which this process has: all of it in one transaction."""
        optuna = _optuna()
        distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(choices) for name, choices in CHOICES.items()
        }
        distributions["learning_rate"] = optuna.distributions.FloatDistribution(1e-6, 1e2, log=True)
        distributions["seed"] = optuna.distributions.IntDistribution(0, 2**31 - 1)
        return optuna.trial.create_trial(
            state=self._states.RUNNING,
            params=asdict(trial.setup) | {"learning_rate": trial.learning_rate, "seed": trial.seed},
            distributions=distributions,
            user_attrs={KEY: key, WORKER: self._id},
        )

    def _kept(self) -> Any:
        return self._read.get_trials(deepcopy=False)

    def _bury(self) -> None:
        """Have those trials fail whose processes are dead, and remove what these left."""
        for path in self.path.parent.iterdir():
            if path.name.startswith(self._worker_file("").name) and path != self._worker_file(self._id):
                with contextlib.suppress(sqlite3.OperationalError):
                    _Lock(path).close()
                    path.unlink(missing_ok=True)
        for kept in self._kept():
            if kept.state == self._states.RUNNING and not self._worker_file(kept.user_attrs[WORKER]).exists():
                number = self._storage.get_trial_id_from_study_id_trial_number(self._study, kept.number)
                self._storage.set_trial_state_values(number, self._states.FAIL)

    def _alone(self) -> _Lock:
        return _Lock(self.path.with_name(f"{self.path.name}.lock"), WAIT)

    def _worker_file(self, worker: str) -> Path:
        return self.path.with_name(f"{self.path.name}.worker-{worker}")

    def _dispose(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def _key(kept: Any) -> str:
    return str(kept.user_attrs.get(KEY))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("study needs optuna and matplotlib: pip install 'twinkernels[study]'") from None
    return optuna


def _open(path: Path) -> Any:
    optuna = _optuna()
    from sqlalchemy.exc import SQLAlchemyError

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)
        try:
            # A commit need not wait for the disk: a power cut may take the last trials back, and harms nothing else.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.DatabaseError:  # no database: Python 3.13 warns of what is left open
            connection.close()
            raise
        return connection

    try:
        # By a connection of our own, since a path may hold what means something in a URL.
        return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})
    except (optuna.exceptions.OptunaError, SQLAlchemyError, RuntimeError) as error:
        raise ValueError(f"{path} is no storage of Optuna's ({error})") from error


def _settled(given: Mapping[str, Any], kept: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    """The options: those that the storage was made with, or, where there are none, those given and the defaults."""
    if kept is None:
        return DEFAULTS | {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if value is not None and value != kept.get(name):
            raise ValueError(f"{path}: {name} of this study is {kept.get(name)!r}, {value!r} was asked for")
    return dict(kept)


# The whole ---------------------------------------------------------------------------------------------------


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
    source: str | os.PathLike[str] | datasets.Dataset | None = None,
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

    storage: a file, made if there is none. Any number of processes may work on it, and one that is killed costs no more
    than the trial that it was at. Each returns when all trials are done. source: what `data.load` takes, or a loaded
    Dataset. factors: names in FACTORS; all if None. seeds: repetitions of every training; more of them, and more
    factors, go on with what is there. most: end after so many trials of this process.
    backend, epochs, images (of those not held out), batch_size: of every training. A storage has the options, source
    among them, that it was made with: None stands for these, or for the DEFAULTS.
    watch: called with the trials done, all of them, and a line that tells of a trial just done.

    Raises ValueError for options that do not fit, and what `data.load` raises; all of it before training begins.
    """
    chosen = tuple(_named(name) for name in (FACTORS if factors is None else factors))
    shapes.integer("study", "seeds", seeds, 1)
    given = {
        "data": None if source is None else source_name(source) or GIVEN,
        "backend": backend,
        "epochs": epochs,
        "images": images,
        "batch_size": batch_size,
    }
    loaded: list[datasets.Split] = []

    def check(options: Mapping[str, Any]) -> None:
        kernels.get(options["backend"])
        for name in ("epochs", "images", "batch_size"):
            shapes.integer("study", name, options[name], 1)
        if options["data"] == GIVEN and source is None:
            raise ValueError(f"{storage}: the study was handed its data; pass it as source")
        if not loaded:
            loaded.append((source if isinstance(source, datasets.Dataset) else datasets.load(options["data"])).train)
        for layers in {trial.setup.training(trial.learning_rate, 1).layers for trial in trials(chosen, 1)}:
            model = Sequential(list(layers), loaded[0].images.shape[1:], options["backend"])
            model.check_images(loaded[0].images)
            SoftmaxCrossEntropy().check(loaded[0].labels, len(loaded[0].labels), model.output_shape)

    kept = Storage(Path(storage), given, check)
    try:
        wanted = {trial.key(kept.options["epochs"]): trial for trial in trials(chosen, seeds)}
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
            outcome = fit(trial, loaded[0], kept.options)
            kept.tell(number, outcome)
            here += 1
            if watch:
                how = "  diverged" if outcome.diverged else ""
                watch(len(outcomes) + 1, len(wanted), f"{trial}  accuracy {outcome.accuracy:.4f}{how}")
    except _optuna().exceptions.OptunaError as error:
        raise OSError(f"{storage}: the study cannot be kept ({error})") from error
    finally:
        kept.close()


def _named(name: str) -> Factor:
    if name not in FACTORS:
        raise ValueError(f"unknown factor {name!r}; expected one of {', '.join(FACTORS)}")
    return FACTORS[name]


# What is shown -----------------------------------------------------------------------------------------------

HEADINGS = ("factor", "level", "learning rate", "accuracy, %", "difference, points", "which is", "published")

_METHOD = """\
One part of a training is changed at a time, and the accuracy compared with the baseline's. The baseline is `cnn-bn`:
two blocks of 5x5 convolution, batch-norm, ReLU and max-pool; He's initialisation, Adam, a one-cycle schedule, no weight
decay, no augmentation, no smoothing. Every training takes {epochs} of {images:,} images in batches of
{batch_size}, on the {backend} backend. Data: {data}. Accuracy is that on a sixth of the training images, which is set
aside; no test image has a say.

Each line stands for {seeds}. A seed decides what is set aside, the images trained on, the first weights and the
order, the same for all levels, so that differences are taken seed by seed. *Accuracy* is the mean and standard
deviation over seeds, *difference* the mean difference from the factor's first level and half its 95 % interval
(Student's t); a level is better or worse where that leaves out zero.

Every level has the learning rate that suits it, out of five: a seed's rate is the one with which the other seeds are
best. † marks a choice at the end of what was tried; the best may lie beyond. *Published* is what the program that
`cnn-bn` answers to reported. Its smoothing was in the loss alone and not in the gradient, which trains as none does;
its augmentation flipped digits.
"""

_CAPTIONS = {
    "factors": "Error by level: a dot for each seed, a bar at the mean; blue: better than the first, orange: worse",
    "rates": "Error of each optimizer by learning rate: mean and range over seeds",
}


def rows(found: Sequence[Effect]) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each level; a factor's name stands in its first."""
    cells: list[tuple[str, ...]] = []
    for effect in found:
        several = len(effect.accuracies) > 1
        accuracy = f"{100 * statistics.fmean(effect.accuracies):.2f}"
        difference = f"{100 * statistics.fmean(effect.differences):+.2f}".replace("-", "−")
        if several:
            accuracy += f" ± {100 * statistics.stdev(effect.accuracies):.2f}"
            difference += f" ± {100 * effect.interval:.2f}"
        verdict = effect.verdict
        if effect.is_reference:
            difference, verdict = "", "compared with"
        if effect.diverged:
            verdict += f"; diverged {effect.diverged} of {len(effect.rates)} times"
        low, high = min(effect.rates), max(effect.rates)
        rate = (f"{low:g}" if low == high else f"{low:g} to {high:g}") + (" †" if effect.at_edge else "")
        first, published = (effect.factor, FACTORS[effect.factor].published) if effect.is_reference else ("", "")
        cells.append((first, effect.level, rate, accuracy, difference, verdict, published))
    return cells


def markdown(findings: Findings, pictures: Mapping[str, str]) -> str:
    """The findings as a page of Markdown. pictures: their files by what they show."""
    counts = sorted({len(effect.accuracies) for effect in findings.effects})
    seeds = f"{' or '.join(map(str, counts)) or 'no'} seed{'' if counts == [1] else 's'}"
    epochs = findings.options["epochs"]
    options = {**findings.options, "epochs": f"{epochs} epoch{'' if epochs == 1 else 's'}"}
    lines = ["# What each factor does", ""]
    lines += ["Written by `twinkernels study`, with its pictures.", ""]
    if len(findings.outcomes) < findings.total:
        lines += [f"**Not complete**: {len(findings.outcomes):,} of {findings.total:,} trainings.", ""]
    lines += [_METHOD.format(**options, seeds=seeds)]
    lines += [f"![{_CAPTIONS[name]}]({file})\n" for name, file in pictures.items() if name == "factors"]
    lines += ["| " + " | ".join(HEADINGS) + " |", "| --- | --- | --- | ---: | ---: | --- | --- |"]
    for first, *others in rows(findings.effects):
        lines.append("| " + " | ".join([f"**{first}**" if first else "", *others]) + " |")
    lines += [f"\n![{_CAPTIONS[name]}]({file})" for name, file in pictures.items() if name != "factors"]
    return "\n".join(lines) + "\n"


def pictures(findings: Findings) -> dict[str, Figure]:
    """Figures by what they show: the factors, and the optimizers' learning rates where these were a factor."""
    levels: dict[str, dict[str, list[float]]] = {}
    for effect in findings.effects:
        levels.setdefault(effect.factor, {})[effect.level] = [1 - accuracy for accuracy in effect.accuracies]
    differing = {(effect.factor, effect.level) for effect in findings.effects if effect.verdict != "unclear"}
    drawn = {"factors": plots.factors(levels, differing)} if levels else {}
    curves = {}
    for factor in findings.factors:
        if factor.name == "optimizer":
            for name, level in factor.levels.items():
                points = {rate: _errors(findings, level.setup, rate) for rate in level.rates}
                if all(points.values()):
                    curves[name] = points
    if curves:
        drawn["rates"] = plots.learning_rates(curves)
    return drawn


def _errors(findings: Findings, setup: Setup, rate: float) -> list[float]:
    return [1 - outcome.accuracy for trial, outcome in findings.outcomes.items() if trial[:2] == (setup, rate)]


def write(findings: Findings, folder: Path) -> Path:
    """Write study.md and its pictures, study-factors.png and study-rates.png, into a folder; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, figure in pictures(findings).items():
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
        files[name] = f"study-{name}.png"
        write_atomically(folder / files[name], content.getvalue())
    page = folder / "study.md"
    write_atomically(page, markdown(findings, files).encode())
    return page


def command(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="strokes|mnist|PATH",
            help="Data: a name, or a folder of IDX or CSV files.",
            show_default=DEFAULTS["data"],
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="numba|numpy", help="Whose kernels compute.", show_default=False)
    ] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A factor to study, instead of all; may be repeated.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of every training.")] = SEEDS,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes of a training.", show_default=str(DEFAULTS["epochs"]))
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images of a training.", show_default=f"{DEFAULTS['images']:,}")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step.", show_default=str(DEFAULTS["batch_size"]))
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that compute; all cores if left out.", show_default=False)
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=0, help="Trainings after which to end; 0 writes what there is.", show_default=False),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Optuna's, in SQLite; OUT/study.db if left out.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For table and pictures.")] = Path("study"),
) -> None:
    """Study the factors of a training: each one's effect, and its spread over seeds.

    Ends when all is done. After Ctrl-C or a crash, the same command goes on; any number of processes may share a
    storage.
    """
    from rich.console import Console
    from rich.table import Table

    _optuna()
    plots.figure_class()
    if threads is not None:
        kernels.set_threads(threads)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, expected a folder")
    with contextlib.closing(_Watch()) as watch:
        findings = run(
            out / "study.db" if storage is None else storage,
            data,
            factors=factor or None,
            seeds=seeds,
            most=trials,
            backend=backend,
            epochs=epochs,
            images=images,
            batch_size=batch_size,
            watch=watch,
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in zip(HEADINGS, ("left", "left", "left", "right", "right", "left", "left"), strict=True):
        table.add_column(heading, justify=justify, no_wrap=heading != "factor")  # type: ignore[arg-type]
    for row in rows(findings.effects):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(f"{len(findings.outcomes):,} of {findings.total:,} trainings; table and pictures in {write(findings, out)}")


class _Watch:
    """Prints a line a trial, and shows a bar on standard error where that is a terminal."""

    def __init__(self) -> None:
        self._bar = bar()
        self._task: Any = None

    def __call__(self, done: int, total: int, line: str | None) -> None:
        if self._task is None:
            self._task = self._bar.add_task("studying", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
        if line is not None:
            print(f"{done:,} of {total:,}  {line}", flush=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._bar.stop()
