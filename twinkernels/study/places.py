"""Places: where a study is kept, and how the processes that work on it keep out of each other's way.

    a file       SQLite's; locks on files beside it, which end with the process, however that ends
    a server     PostgreSQL or MySQL; locks of its own, which end with the connection
    a journal    a file that is only appended to, in a folder that machines share; links, and files that are touched

Each gives one process a turn, and tells whether another is alive. A process's lock ends at once where it is killed. In
a folder that machines share there is no such lock: whoever has not touched its file for `GRACE` seconds counts as dead,
and may find, when it comes back, that another has done its trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ..locks import HeldError, Lock

WAIT = 600.0
"""Seconds for a turn: others take one for a moment at a time."""
BEAT, GRACE = 10.0, 60.0
"""Seconds between two touches of a worker's file, and after the last one for it to count as dead."""

DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}
"""The Python packages by which servers are spoken to, unless a URL names another."""


class Place(Protocol):
    """Where a study is kept."""

    name: str
    """What messages call it."""

    def make(self) -> None:
        """Make room for it; OSError where that cannot be."""

    def is_new(self) -> bool:
        """Whether nothing is there for certain, not even an empty storage."""

    def open(self) -> Any:
        """Optuna's storage there. Raises ValueError where something else is there."""

    def turn(self) -> AbstractContextManager[Any]:
        """One process at a time."""

    def begin(self, worker: str) -> None:
        """From here on this worker is alive."""

    def is_alive(self, worker: str) -> bool:
        """Whether another worker is."""

    def sweep(self) -> None:
        """Remove what dead workers left."""

    def close(self) -> None:
        """This worker is no longer alive."""


def place(storage: str | os.PathLike[str]) -> Place:
    """Where a path or a URL leads. ValueError for a URL of another kind, OSError for a folder."""
    text = os.fspath(storage)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return File(Path(text).expanduser())
    if scheme == "journal":
        return Journal(Path(rest).expanduser())
    if scheme.partition("+")[0] in DRIVERS:
        return Server(text)
    known = ", ".join(f"{name}://" for name in (*DRIVERS, "journal"))
    raise ValueError(f"--storage {scheme}://... is not known; expected a file, or one of {known}")


def load_optuna() -> Any:
    """The package; ValueError that says what to install where there is none."""
    try:
        import optuna
    except ImportError:
        raise ValueError("study needs optuna and matplotlib: pip install 'twinkernels[study]'") from None
    return optuna


class _Beside:
    """What a file and a journal have in common: other files beside them."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        if path.is_dir():
            raise ValueError(f"cannot keep the study in {path}, a folder; expected a file")
        self._own: Path | None = None

    def make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def is_new(self) -> bool:
        return not self.path.exists()

    def file(self, worker: str) -> Path:
        return self.path.with_name(f"{self.path.name}.worker-{worker}")

    def others(self) -> Iterator[Path]:
        """The files of workers but for this one's."""
        for path in self.path.parent.iterdir():
            prefix, _, worker = path.name.rpartition("-")
            is_worker = f"{prefix}-" == self.file("").name and re.fullmatch("[0-9a-f]{32}", worker)
            if is_worker and path != self._own:
                yield path


class File(_Beside):
    """A file in SQLite."""

    def open(self) -> Any:
        optuna = load_optuna()
        from sqlalchemy.exc import SQLAlchemyError

        opened: list[sqlite3.Connection] = []

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False)
            opened.append(connection)
            try:
                # A commit need not wait for the disk: a power cut may take the last trials back, and harms no more.
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
            for connection in opened:  # which Optuna leaves open where it cannot make its tables
                connection.close()
            if reason := sqlite_error(error):
                if reason.sqlite_errorcode not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise  # the disk's fault, not the file's
                error = reason
            raise ValueError(f"{self.path} is no storage of Optuna's ({error})") from error

    def turn(self) -> Lock:
        return Lock(self.path.with_name(f"{self.path.name}.lock"), WAIT)

    def begin(self, worker: str) -> None:
        self._own = self.file(worker)
        self._lock = Lock(self._own)

    def is_alive(self, worker: str) -> bool:
        return self.file(worker).exists()

    def sweep(self) -> None:
        for path in self.others():
            with contextlib.suppress(HeldError):
                Lock(path).close()
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._own is not None:
            self._lock.close()
            self._own.unlink(missing_ok=True)


class Journal(_Beside):
    """A journal, in a folder that machines may share: locks on files are not to be relied on there."""

    def open(self) -> Any:
        storages = load_optuna().storages
        try:
            return storages.JournalStorage(storages.journal.JournalFileBackend(str(self.path)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no journal of Optuna's ({error})") from error

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        lock = load_optuna().storages.journal.JournalFileSymlinkLock(f"{self.path}.turn", int(GRACE))
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self, worker: str) -> None:
        self._own = self.file(worker)
        self._own.touch()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(self._own,), daemon=True)
        self._thread.start()

    def _beat(self, own: Path) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # the folder may be away for a while
                own.touch()

    def is_alive(self, worker: str) -> bool:
        return self.file(worker).exists()

    def sweep(self) -> None:
        if self._own is None:
            return
        self._own.touch()
        now = self._own.stat().st_mtime  # of the clock that the others' files go by as well
        for path in self.others():
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > GRACE:
                    path.unlink()

    def close(self) -> None:
        if self._own is not None:
            self._ended.set()
            self._thread.join()
            self._own.unlink(missing_ok=True)


class Server:
    """A database on PostgreSQL or MySQL. Two connections hold the locks, one for turns and one for life."""

    def __init__(self, url: str) -> None:
        load_optuna()
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.exc import ArgumentError
        from sqlalchemy.pool import NullPool

        kind = url.partition("://")[0].partition("+")[0]
        try:
            parsed = make_url(url)
            if parsed.drivername == kind:
                parsed = parsed.set(drivername=f"{kind}+{DRIVERS[kind]}")
            self._engine = create_engine(parsed, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        except ImportError as error:
            raise ValueError(f"{kind}:// needs a driver ({error}): pip install 'twinkernels[{kind}]'") from None
        except (ArgumentError, ValueError) as error:
            raise ValueError(f"--storage is no URL of a database ({' '.join(str(error).split())})") from None
        self._kind, self.name = kind, parsed.render_as_string(hide_password=True)
        self._url = parsed.render_as_string(hide_password=False)
        self._connections: dict[str, Any] = {}
        self._using, self._ended = threading.Lock(), threading.Event()

    def make(self) -> None:
        """Nothing: whoever runs the server makes the database."""

    def is_new(self) -> bool:
        return False

    def open(self) -> Any:
        optuna = load_optuna()
        try:
            # A server may end a connection that is idle: one that is dead is noticed before it is used.
            return optuna.storages.RDBStorage(self._url, engine_kwargs={"pool_pre_ping": True})
        except RuntimeError as error:  # tables of another version of Optuna's
            raise ValueError(f"{self.name} is no storage of Optuna's ({error})") from error

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        self._hold("turn", "turn")
        try:
            yield
        finally:
            self._let_go("turn")

    def begin(self, worker: str) -> None:
        self._worker = worker
        self._hold("life", worker)
        if self._kind == "mysql":
            threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """MySQL ends a session that is silent for too long, and does not ask whether its machine is there."""
        while not self._ended.wait(BEAT):
            with self._using, contextlib.suppress(Exception):  # the server may be away for a while
                self._ask(self._connections["life"], "SELECT 1")

    def is_alive(self, worker: str) -> bool:
        connection = self._connections["turn"]
        if not self._lock(connection, worker, wait=False):
            return True
        self._unlock(connection, worker)
        return False

    def sweep(self) -> None:
        """No lock leaves anything. This worker's own may be lost with its connection, and is taken again."""
        from sqlalchemy.exc import SQLAlchemyError

        with self._using:
            if "life" not in self._connections:
                return
            try:
                self._ask(self._connections["life"], "SELECT 1")
            except SQLAlchemyError:
                self._let_go("life")
                self._hold("life", self._worker)

    def close(self) -> None:
        self._ended.set()
        for purpose in list(self._connections):
            self._let_go(purpose)
        self._engine.dispose()

    def _hold(self, purpose: str, lock: str) -> None:
        connection = self._connections[purpose] = self._engine.connect()
        if self._kind == "postgresql":
            # A machine that is gone says no farewell: the server asks after half a minute, and not after two hours.
            for setting in ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3"):
                self._ask(connection, f"SET {setting}")
        elif purpose == "life":
            self._ask(connection, f"SET SESSION wait_timeout = {max(1, round(GRACE))}")
        if not self._lock(connection, lock, wait=True):
            raise TimeoutError(f"{self.name}: no turn within {WAIT:g} s")

    def _let_go(self, purpose: str) -> None:
        connection = self._connections.pop(purpose, None)
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be dead, and its locks with it
                connection.close()

    def _lock(self, connection: Any, name: str, wait: bool) -> bool:
        """Take a lock in a connection's session; whether it was to be had."""
        seconds = WAIT if wait else 0.0
        if self._kind == "mysql":
            return bool(self._ask(connection, "SELECT GET_LOCK(:key, :seconds)", name, seconds=seconds))
        if not wait:
            return bool(self._ask(connection, "SELECT pg_try_advisory_lock(:key)", name))
        self._ask(connection, f"SET lock_timeout = {1000 * seconds:.0f}")
        self._ask(connection, "SELECT pg_advisory_lock(:key)", name)
        return True

    def _unlock(self, connection: Any, name: str) -> None:
        release = {"mysql": "SELECT RELEASE_LOCK(:key)", "postgresql": "SELECT pg_advisory_unlock(:key)"}
        self._ask(connection, release[self._kind], name)

    def _ask(self, connection: Any, statement: str, name: str = "", **more: float) -> Any:
        """The one value that a statement gives; :key stands for a lock's name, as the server has names."""
        from sqlalchemy import text

        key: str | int = f"twinkernels {name}"
        if self._kind == "postgresql":
            key = int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "big", signed=True)
        found = connection.execute(text(statement), ({"key": key} if ":key" in statement else {}) | more)
        return found.scalar() if found.returns_rows else None


def sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    """SQLite's error that others were raised for."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error
