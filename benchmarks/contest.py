"""Contestants that take turns: each in a process of its own, asleep while the others run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Contestant"]

SETTLE_SECONDS = 0.01
"""Between two turns: what the kernel has still to do for the process that went to sleep."""


class Contestant:
    """A process in which `prepare(*arguments)` makes the function that answers every question."""

    def __init__(
        self,
        prepare: Callable[..., Callable[[Any], Any]],
        *arguments: Any,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, arguments), daemon=True)
        with _environment(environment or {}):
            self._process.start()
        theirs.close()
        self.prepare_seconds: float = self._connection.recv()
        self._signal("SIGSTOP")

    def ask(self, question: Any) -> Any:
        """Its answer; asleep before and after."""
        self._signal("SIGCONT")
        self._connection.send(question)
        answer = self._connection.recv()
        self._signal("SIGSTOP")
        time.sleep(SETTLE_SECONDS)
        return answer

    def close(self) -> None:
        """End it."""
        self._signal("SIGCONT")
        self._connection.close()
        self._process.join(10)

    def _signal(self, name: str) -> None:
        """Threads of a pool spin for more work when theirs is done: they would disturb the next turn."""
        if hasattr(signal, name) and self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, getattr(signal, name))


def _serve(connection: Connection, prepare: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    answer = prepare(*arguments)
    connection.send(time.perf_counter() - began)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(answer(connection.recv()))


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """These variables set, or dropped where they are None, for a process that is started meanwhile."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
