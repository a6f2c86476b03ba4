"""Locks: files that one process holds at a time, and lets go however it ends.

They are SQLite's, which has them on every system: killed processes keep none, forked children get none, and two holders
in one process refuse each other as two processes do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path


class HeldError(BlockingIOError):
    """What is locked is another's. `owner` says whose: "process 4711", or "another process" where no word was left."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"{path} is held by {owner}")
        self.owner = owner


class Lock:
    """Holds a file, which is made if there is none, from its making until `close`.

    seconds: how long to wait for one that holds it. named: leave word of who holds it.

    Raises HeldError where another holds it, and OSError for a file that cannot be locked.
    """

    def __init__(self, path: Path, seconds: float = 0.0, named: bool = False) -> None:
        self.path = path
        with _told(path):
            self._connection = sqlite3.connect(path, timeout=seconds, isolation_level=None)
        try:
            with _told(path, self._connection):
                self._connection.execute("PRAGMA journal_mode = MEMORY")  # no second file beside it
                self._begin()
                if named:
                    # In the file's first page, which is written in one go: a table could be left half made. Committed,
                    # so that others can read it; one of them may be quicker to hold the file then.
                    self._connection.execute(f"PRAGMA user_version = {os.getpid()}")
                    self._connection.execute("COMMIT")
                    self._begin()
            self._identity = _identity(path)
        except BaseException:
            self._connection.close()
            raise

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")  # others may read, and so learn who holds it

    def in_place(self) -> bool:
        """Whether the file is still where it was: not deleted, not moved, alone or with its folder."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Let go."""
        self._connection.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_free(path: Path, seconds: float = 0.0) -> None:
    """Raise HeldError if somebody holds a file, which is not made."""
    if path.is_file():
        Lock(path, seconds).close()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _told(path: Path, connection: sqlite3.Connection | None = None) -> Iterator[None]:
    """Errors of SQLite as those of files."""
    try:
        yield
    except sqlite3.Error as error:
        if connection is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise HeldError(path, _owner(connection)) from None
        raise OSError(f"{path} cannot be locked ({error})") from error


def _owner(connection: sqlite3.Connection) -> str:
    process = connection.execute("PRAGMA user_version").fetchone()[0]
    return f"process {process}" if process else "another process"
