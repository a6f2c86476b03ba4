"""A MariaDB of the tests' own, which speaks as MySQL does: started on a socket in a folder, gone afterwards."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
"""Where servers lie, for others than root as well."""


def binaries() -> tuple[str, str] | None:
    """What makes a folder of databases, and the server."""
    found = shutil.which("mariadb-install-db", path=PATH), shutil.which("mariadbd", path=PATH)
    return (found[0], found[1]) if found[0] and found[1] else None


def missing() -> str:
    """Why there can be no server here; nothing where there can."""
    if binaries() is None:
        return "no MariaDB here: apt-get install mariadb-server"
    try:
        import pymysql  # noqa: F401
    except ImportError:
        return "no PyMySQL here: pip install 'twinkernels[mysql]'"
    return ""


class Server:
    """A running server with one empty database. `url` is SQLAlchemy's."""

    def __init__(self, folder: Path) -> None:
        found = binaries()
        assert found is not None
        self._install, self._server = found
        self._folder = folder
        self._options = ["--no-defaults", f"--datadir={folder}/data", f"--user={getpass.getuser()}"]
        self.socket = folder / "socket"
        self.url = f"mysql://root@localhost/studies?unix_socket={self.socket}"

    def make(self) -> None:
        """Make the folder of databases."""
        more = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        done = subprocess.run(
            [self._install, *self._options, *more],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Listen on a socket in the folder, and on no port."""
        import pymysql

        quick = ["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"]
        own = [f"--socket={self.socket}", "--skip-networking", f"--pid-file={self._folder}/pid"]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._server, *self._options, *own, *quick], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while not self._listens():
            running = self._process.poll() is None and time.monotonic() < end
            assert running, (self._folder / "log").read_text()
            time.sleep(0.05)
        with pymysql.connect(user="root", unix_socket=str(self.socket)) as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS studies")

    def _listens(self) -> bool:
        """By a socket of our own: PyMySQL leaves one open where nobody listens."""
        with socket.socket(socket.AF_UNIX) as looking:
            return looking.connect_ex(str(self.socket)) == 0

    def stop(self) -> None:
        """End it, with all connections."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server, for the time of the block. Its folder's name is short: a socket's path has a limit."""
    folder = Path(tempfile.mkdtemp(prefix="my-"))
    try:
        server = Server(folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
