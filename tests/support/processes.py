"""Python programs run in processes of their own, for what one process cannot show: forks, layers, caches, targets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PRELUDE = """
import numba
from numba.core import event

class _Compilations(event.Listener):
    names = []

    def on_start(self, occurrence):
        self.names.append(occurrence.data["dispatcher"].py_func.__name__)

    def on_end(self, occurrence):
        pass

event.register("numba:compile", _Compilations())
compiled = _Compilations.names
"""
"""What programs begin with that want to know what Numba compiled and did not find in its cache: `compiled`."""


class Process:
    """A running program: its source, or the path of a file that holds it."""

    def __init__(self, program: str | Path, root: Path = ROOT, **environment: object) -> None:
        """`environment` changes variables of this process's own environment; None removes one."""
        changed = {name: str(value) for name, value in environment.items() if value is not None}
        kept = {name: value for name, value in os.environ.items() if name not in environment}
        command = [str(program)] if isinstance(program, Path) else ["-c", program]
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            env={**kept, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **changed},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=hasattr(os, "killpg"),
        )

    def result(self, timeout: float = 60.0) -> tuple[list[str], str]:
        """The lines of its output and its errors' text, after asserting that it ended well and in time.

        Forked children that hang are ended with it: they hold its output open.
        """
        try:
            out, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            out, errors = self._process.communicate()
            raise AssertionError(f"still running after {timeout:g} s\n{out}\n{errors}") from None
        assert self._process.returncode == 0, f"exit status {self._process.returncode}\n{out}\n{errors}"
        return out.splitlines(), errors


def run(program: str | Path, root: Path = ROOT, **environment: object) -> list[str]:
    """Run a program to its end; the lines of its output."""
    return Process(program, root, **environment).result()[0]
