"""Python programs run in processes of their own, for what one process cannot show: forks, layers, caches, targets."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
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


BRIEF = "import atexit, gc; gc.disable(); atexit.register(gc.freeze)\n"
"""What programs begin with that are no longer than a test, and are about neither garbage nor their end.

Numba has so many objects that Python's collector goes through them for half a second when the interpreter ends, and for
a fifth of one while they are loaded.
"""


def run(program: str | Path, root: Path = ROOT, **environment: object) -> list[str]:
    """Run a program to its end, which is none that a test could be about; the lines of its output."""
    program = program if isinstance(program, Path) else BRIEF + program
    return Process(program, root, **environment).result()[0]


# Forks ---------------------------------------------------------------------------------------------------------------

_NUMBA = """
import numba
from numba.core.registry import cpu_target

cpu_target.target_context.refresh()
numba.njit(lambda x: x + 1)(1)
"""

_FORKING = """
import atexit, importlib, json, os, sys, threading

{loaded}
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
os.environ.clear()
os.environ.update(request["environment"])
if "numba" in sys.modules:
    sys.modules["numba"].config.reload_config()
os.chdir(request["root"])
sys.path.insert(0, request["root"])
for stream, path in enumerate(request["streams"]):
    os.dup2(os.open(path, os.O_RDWR), stream)
status = 0
try:
    exec(compile(request["program"], "<string>", "exec"), {{"__name__": "__main__"}})
except SystemExit as end:
    status = end.code or 0
except BaseException:
    sys.excepthook(*sys.exc_info())
    status = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


@functools.cache
def _forking(modules: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process that has these modules loaded, or else Numba, which has compiled, and forks itself for each program
    that it is sent."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    if modules:
        environment["PYTHONPATH"] = str(ROOT)
    loaded = "".join(f"import {module}\n" for module in modules) or _NUMBA
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = _FORKING.format(loaded=loaded)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes
    )
    atexit.register(process.communicate)  # it ends with its input
    return process


def forked(program: str, root: Path = ROOT, **environment: object) -> tuple[list[str], str]:
    """As `Process(program, root, **environment).result()`, in a tenth of the time: Numba is there before it begins, and
    the interpreter is left when its threads have ended, without looking for garbage among Numba's objects.

    Nothing of ours is. For programs that are about ours, then, and not about how a process begins, its threads or its
    forks: what Python reads of the environment when it starts is not theirs, what Numba reads is.
    """
    if not hasattr(os, "fork"):
        return Process(program, root, **environment).result()
    status, said, wrong = _forked(program, root, environment, ())
    assert status == 0, f"exit status {status}\n{said}\n{wrong}"
    return said.splitlines(), wrong


def after(modules: tuple[str, ...], program: str) -> tuple[int, list[str], str]:
    """Exit status, lines of output and errors' text of a program that finds these modules loaded, of ours or not; none
    of them may have started a thread. For programs about what comes after that."""
    if not hasattr(os, "fork"):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr
    status, said, wrong = _forked(program, ROOT, {}, modules)
    return status, said.splitlines(), wrong


def _forked(program: str, root: Path, environment: dict[str, object], modules: tuple[str, ...]) -> tuple[int, str, str]:
    changed = {name: str(value) for name, value in environment.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    process = _forking(modules)
    assert process.stdin is not None
    assert process.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as errors:
        streams = [os.devnull, out.name, errors.name]
        request = {"program": program, "root": str(root), "environment": kept | changed, "streams": streams}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], 60.0)[0]:
            os.killpg(process.pid, signal.SIGKILL)
            _forking.cache_clear()
            raise AssertionError(f"still running after 60 s\n{out.read()}\n{errors.read()}")
        return int(process.stdout.readline()), out.read(), errors.read()
