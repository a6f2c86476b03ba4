"""Storage: a study's trials at a place, which any number of processes may work on.

Which trials there are is fixed beforehand, and kept by us. A process takes one in a turn, and as long as it lives holds
a lock of its own: a trial whose worker is dead is given out again. (Optuna's grid sampler stops with points missing
when its processes are seeded differently, and counts trials that failed as done. Its heartbeat needs a time to wait,
takes a suspended process for a dead one, and misses a process that dies before its first beat.)
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from models.graph import DEFAULT_BACKEND

from .factors import CHOICES
from .places import Place, load_optuna, sqlite_error
from .trials import Outcome, Trial

NAME = "twinkernels"
OPTIONS, KEY, WORKER, DIVERGED = "options", "key", "worker", "diverged"
"""Attributes of the study, and of a trial."""

DEFAULTS: dict[str, Any] = {
    "data": "strokes",
    "backend": DEFAULT_BACKEND,
    "epochs": 4,
    "images": 10_000,
    "batch_size": 128,
}


class Storage:
    """The trials of a study at a place, where it is made if there is none; for several processes at once.

    given: options; None stands for the storage's own, or for the default where there is none yet. check: called with
    the options before anything is written, to raise what is wrong with them.

    Raises ValueError where Optuna is missing, for a place that holds no storage, and for options that are not those
    that it was made with; this and every method OSError where it cannot be read or written.
    """

    def __init__(self, place: Place, given: Mapping[str, Any], check: Callable[[Mapping[str, Any]], None]) -> None:
        optuna = load_optuna()
        self._states = optuna.trial.TrialState
        self._place = place
        if place.is_new():
            check(_settled(given, None, place.name))
            place.make()
        self._id = uuid.uuid4().hex
        try:
            with self._alone():  # tables cannot be made by two at once
                self._storage = place.open()
                try:
                    self._study, kept = self._own_study()
                    self.options = _settled(given, kept, place.name)
                    check(self.options)
                    self._storage.set_study_user_attr(self._study, OPTIONS, self.options)
                except BaseException:
                    self._dispose()
                    raise
                place.begin(self._id)
        except BaseException:
            place.close()
            raise

    def close(self) -> None:
        """Let go of the place; a trial that was taken and is not done is free again."""
        self._dispose()
        self._place.close()

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
        """Keep what a trial came to, unless it was given to another: this process was taken for dead."""
        with self._alone():
            if self._storage.get_trial(number).state != self._states.RUNNING:
                return
            self._storage.set_trial_user_attr(number, DIVERGED, outcome.diverged)
            self._storage.set_trial_state_values(number, self._states.COMPLETE, [outcome.accuracy])

    def outcomes(self, wanted: Mapping[str, Trial]) -> dict[Trial, Outcome]:
        """What those of the wanted trials that are done came to."""
        with self._told():
            return {
                wanted[key]: Outcome(kept.values[0], kept.user_attrs.get(DIVERGED, False))
                for kept in self._kept()
                if kept.state == self._states.COMPLETE and (key := _key(kept)) in wanted
            }

    def _own_study(self) -> tuple[int, Any]:
        """Its id, and the options that it was made with."""
        optuna = load_optuna()
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
        optuna = load_optuna()
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
        self._place.sweep()
        for kept in self._kept():
            worker = kept.user_attrs.get(WORKER)
            if kept.state == self._states.RUNNING and worker != self._id and not self._place.is_alive(worker):
                number = self._storage.get_trial_id_from_study_id_trial_number(self._study, kept.number)
                self._storage.set_trial_state_values(number, self._states.FAIL)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._told(), self._place.turn():
            yield

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database in one line of ours: SQLAlchemy's tell of statements, Optuna's of none."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except (load_optuna().exceptions.OptunaError, SQLAlchemyError, sqlite3.Error) as error:
            inner: BaseException | None = error
            while inner is not None and not isinstance(inner, DBAPIError):
                inner = inner.__cause__ or inner.__context__
            reason = sqlite_error(error) or (inner.orig if isinstance(inner, DBAPIError) else None) or error
            raise OSError(f"{self._place.name}: the study cannot be kept ({' '.join(str(reason).split())})") from error

    def _dispose(self) -> None:
        self._storage.remove_session()
        if hasattr(self._storage, "engine"):
            self._storage.engine.dispose()


def _key(kept: Any) -> str:
    return str(kept.user_attrs.get(KEY))


def _settled(given: Mapping[str, Any], kept: Mapping[str, Any] | None, name_of: str) -> dict[str, Any]:
    """The options: those that the storage was made with, or, where there are none, those given and the defaults."""
    if kept is None:
        return DEFAULTS | {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if value is not None and value != kept.get(name):
            raise ValueError(f"{name_of}: {name} of this study is {kept.get(name)!r}, {value!r} was asked for")
    return dict(kept)
