"""Storage: a study's trials in a file of Optuna's, which any number of processes may work on.

A process takes a trial under a lock on the file STORAGE.lock, and as long as it lives holds another on a file of its
own, STORAGE.worker-ID. Both are SQLite's, which end with the process, however that ends: a trial whose worker's lock is
free is given out again at once. (Optuna's heartbeat would need a time to wait, would take a suspended process for a
dead one, and misses a process that dies before its first beat.)
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.graph import DEFAULT_BACKEND

from ..locks import HeldError, Lock
from .factors import CHOICES
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

WAIT = 600.0
"""Seconds for a lock that others hold for a moment at a time."""


class Storage:
    """The trials of a study in a file, which is made if there is none; for several processes at once.

    given: options; None stands for the storage's own, or for the default where there is none yet. check: called with
    the options before anything is written, to raise what is wrong with them.

    Raises ValueError where Optuna is missing, for a file that is no storage, and for options that are not those that it
    was made with; this and every method OSError where the file cannot be read or written.
    """

    def __init__(self, path: Path, given: Mapping[str, Any], check: Callable[[Mapping[str, Any]], None]) -> None:
        optuna = load_optuna()
        self._states = optuna.trial.TrialState
        self.path = path
        if path.is_dir():
            raise ValueError(f"cannot keep the study in {path}, a folder; expected a file")
        if not path.exists():
            check(_settled(given, None, path))
            path.parent.mkdir(parents=True, exist_ok=True)
        self._id = uuid.uuid4().hex
        with self._alone():  # tables cannot be made by two at once
            with _told(path):
                self._storage = _open(path)
            try:
                with _told(path):
                    self._study, kept = self._own_study()
                self.options = _settled(given, kept, path)
                check(self.options)
                with _told(path):
                    self._storage.set_study_user_attr(self._study, OPTIONS, self.options)
            except BaseException:
                self._dispose()
                raise
            self._worker = Lock(self._worker_file(self._id))

    def close(self) -> None:
        """Let go of the file; a trial that was taken and is not done is free again."""
        self._dispose()
        self._worker.close()
        self._worker_file(self._id).unlink(missing_ok=True)

    def take(self, wanted: Mapping[str, Trial]) -> tuple[int, Trial] | None:
        """The first of the wanted trials that is neither done nor in work, with its id; None if there is none.

        wanted: trials by their keys.
        """
        with self._alone(), _told(self.path):
            self._bury()
            taken = {_key(kept) for kept in self._kept() if kept.state != self._states.FAIL}
            free = next((key for key in wanted if key not in taken), None)
            if free is None:
                return None
            return self._storage.create_new_trial(self._study, self._template(free, wanted[free])), wanted[free]

    def tell(self, number: int, outcome: Outcome) -> None:
        """Keep what a trial came to."""
        with self._alone(), _told(self.path):
            self._storage.set_trial_user_attr(number, DIVERGED, outcome.diverged)
            self._storage.set_trial_state_values(number, self._states.COMPLETE, [outcome.accuracy])

    def outcomes(self, wanted: Mapping[str, Trial]) -> dict[Trial, Outcome]:
        """What those of the wanted trials that are done came to."""
        with _told(self.path):
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
        for path in self.path.parent.iterdir():
            if self._is_worker(path) and path != self._worker_file(self._id):
                with contextlib.suppress(HeldError):
                    Lock(path).close()
                    path.unlink(missing_ok=True)
        for kept in self._kept():
            if kept.state == self._states.RUNNING and not self._worker_file(kept.user_attrs[WORKER]).exists():
                number = self._storage.get_trial_id_from_study_id_trial_number(self._study, kept.number)
                self._storage.set_trial_state_values(number, self._states.FAIL)

    def _alone(self) -> Lock:
        return Lock(self.path.with_name(f"{self.path.name}.lock"), WAIT)

    def _worker_file(self, worker: str) -> Path:
        return self.path.with_name(f"{self.path.name}.worker-{worker}")

    def _is_worker(self, path: Path) -> bool:
        prefix, _, worker = path.name.rpartition("-")
        return f"{prefix}-" == self._worker_file("").name and re.fullmatch("[0-9a-f]{32}", worker) is not None

    def _dispose(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def _key(kept: Any) -> str:
    return str(kept.user_attrs.get(KEY))


def load_optuna() -> Any:
    """The package; ValueError that says what to install where there is none."""
    try:
        import optuna
    except ImportError:
        raise ValueError("study needs optuna and matplotlib: pip install 'twinkernels[study]'") from None
    return optuna


def _open(path: Path) -> Any:
    optuna = load_optuna()
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
        if reason := _sqlite(error):
            if reason.sqlite_errorcode not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise  # the disk's fault, not the file's
            error = reason
        raise ValueError(f"{path} is no storage of Optuna's ({error})") from error


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of the database in one line of ours: SQLAlchemy's tell of statements, Optuna's of none."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (load_optuna().exceptions.OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        raise OSError(f"{path}: the study cannot be kept ({_sqlite(error) or error})") from error


def _sqlite(error: BaseException | None) -> sqlite3.Error | None:
    """SQLite's error that others were raised for."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


def _settled(given: Mapping[str, Any], kept: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    """The options: those that the storage was made with, or, where there are none, those given and the defaults."""
    if kept is None:
        return DEFAULTS | {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if value is not None and value != kept.get(name):
            raise ValueError(f"{path}: {name} of this study is {kept.get(name)!r}, {value!r} was asked for")
    return dict(kept)
