"""A PostgreSQL of the tests' own: started on a socket in a folder, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def binaries() -> Path | None:
    """Where initdb and pg_ctl are: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").is_file()), None)


def missing() -> str:
    """Why there can be no server here; nothing where there can."""
    if binaries() is None:
        return "no PostgreSQL here: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "no psycopg here: pip install 'twinkernels[postgresql]'"
    return "" if _user() is not None or os.getuid() else "root cannot run PostgreSQL, and there is no user postgres"


def _user() -> str | None:
    """Whom the server runs as: PostgreSQL refuses root."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None
    return None


class Server:
    """A running server with one empty database. `url` is SQLAlchemy's."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._bin = folder, binaries()
        self.url = f"postgresql://studies@/postgres?host={folder}"

    def _run(self, name: str, *arguments: str) -> None:
        assert self._bin is not None
        command = [str(self._bin / name), *arguments]
        done = subprocess.run(
            command,
            user=_user(),
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}"

    def make(self) -> None:
        """Make the cluster of databases."""
        self._run("initdb", "-D", f"{self._folder}/data", "-U", "studies", "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Listen on a socket in the folder, and on no port."""
        options = f"-c listen_addresses='' -k {self._folder} -F -c max_connections=40"
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-o", options, "-l", f"{self._folder}/log", "-w", "start")

    def stop(self) -> None:
        """End it, with all connections."""
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server, for the time of the block. Its folder's name is short: a socket's path has a limit."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if (user := _user()) is not None:
            shutil.chown(folder, user)
        server = Server(folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
