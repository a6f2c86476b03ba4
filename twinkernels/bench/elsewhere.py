"""Calls that are timed in a process of their own, between the samples of this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import kernels

from . import timing
from .timing import Sampler

Prepare = Callable[[str], Callable[[], Any]]
"""Given a case's id, the call to be timed."""


class Elsewhere:
    """A process that measures when asked and sleeps otherwise.

    prepare: has to be found by its name there, as `pickle` does. without: a module that it never loads.
    environment: variables that it starts with.
    """

    def __init__(self, prepare: Prepare, without: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._prepare, self._without, self._environment = prepare, without, environment or {}

    def __enter__(self) -> Elsewhere:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._prepare, kernels.get_threads(), self._without)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        with _environment(self._environment):
            self._process.start()
        theirs.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
        self._process.join(10)

    def sampler(self, case_id: str) -> Callable[[], float]:
        """Measures the case over there. Raises ValueError with what it says where it cannot."""

        def ask() -> float:
            timing.quiet()
            self._connection.send(case_id)
            answer = self._connection.recv()
            if isinstance(answer, str):
                raise ValueError(answer)
            return float(answer)

        return ask


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def serve(connection: Connection, prepare: Prepare, threads: int, without: str) -> None:
    """Answer each case's id with seconds of a call, or with what is wrong, until the other end is closed."""
    kernels.set_threads(threads)
    current: str | None = None
    sampler: Sampler | None = None
    while True:
        try:
            case_id = connection.recv()
        except EOFError:
            return
        try:
            if case_id != current or sampler is None:
                call = prepare(case_id)
                timing.set_threads(threads)  # once more, for what has been imported meanwhile
                sampler, current = Sampler(call), case_id
            answer: float | str = sampler()
        except Exception as error:
            current, answer = None, f"{type(error).__name__}: {error}"
        assert not without or without not in sys.modules, f"the process that stands for itself has loaded {without}"
        timing.quiet()  # who asks sees no thread but its own: these would spin beside its next sample
        connection.send(answer)
