"""Kernels compiled before they are needed, in several processes at once.

Numba compiles one function at a time, and most of that is Python. What a program will call is known before it runs, so
that a cold start can be shared out: each process leaves what it compiles in the cache, where this one finds it. What
is not there in the end, for whatever reason, this process compiles when it comes to it.

The others are started as programs of their own. `multiprocessing` would import the user's main module again, or fork
a process with threads.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from numba import types
from numba.core.compiler_lock import global_compiler_lock

from ...compiling import tell, watched
from ...threads import get_threads
from . import jit
from .cache import cache_directory

__all__ = ["compile_ahead", "compile_for"]

_FEWEST = 3
"""Functions to compile for which a second process pays: it takes a second to start."""

_MOST_PROCESSES = 4
"""Beyond these the longest function and what waits for it decide: a cold `cnn-bn` took one process 24.5 s, two 14.4,
four 13.2 and eight 12.2, on 16 cores. Each takes 200 MB."""


class _Job(NamedTuple):
    """A function to be compiled for argument types."""

    module: str
    name: str
    types: jit.ArgumentTypes

    def __str__(self) -> str:
        return self.name

    @property
    def dispatcher(self) -> Any:
        importlib.import_module(self.module)
        return jit.functions[self.module, self.name].dispatcher

    @property
    def done(self) -> bool:
        """Whether the machine code is in this process's memory, or in the cache."""
        return self.types in self.dispatcher.overloads or bool(self.dispatcher._cache.holds(self.types))

    def needs(self) -> list[_Job]:
        """The `separate` functions that have to be there first."""
        found = jit.needs(self.dispatcher.py_func, self.types)
        return [_Job(module, name, declared) for module, name, declared in found]

    def pieces(self) -> dict[Any, int]:
        """What is compiled for it, and how much that is; other jobs may share some."""
        return jit.pieces(self.dispatcher.py_func, self.types)

    def do(self) -> None:
        self.dispatcher.compile(self.types)

    def written(self) -> str:
        """A line that `read` makes the same job of."""
        return json.dumps([self.module, self.name, [_written(type_) for type_ in self.types]])

    @classmethod
    def read(cls, line: str) -> _Job:
        module, name, written = json.loads(line)
        return cls(module, name, tuple(map(_read, written)))


def _written(type_: types.Type) -> Any:
    if isinstance(type_, types.Array):
        return [type_.dtype.name, type_.ndim, type_.layout]
    if isinstance(type_, types.BaseNamedTuple):
        return [
            type_.instance_class.__module__,
            type_.instance_class.__qualname__,
            [_written(field) for field in type_],
        ]
    if isinstance(type_, types.BaseTuple):
        return ["tuple", [_written(field) for field in type_]]
    if isinstance(type_, types.CPointer):
        return [type_.dtype.name]
    return type_.name


def _read(written: Any) -> types.Type:
    match written:
        case [str(dtype), int(ndim), layout]:
            return types.Array(_read(dtype), ndim, layout)
        case [str(module), str(name), fields]:
            named_tuple = getattr(importlib.import_module(module), name)
            return types.BaseTuple.from_types([_read(field) for field in fields], named_tuple)
        case ["tuple", fields]:
            return types.BaseTuple.from_types([_read(field) for field in fields])
        case [dtype]:
            return types.CPointer(_read(dtype))
        case _:
            return types.boolean if written == "bool" else getattr(types, written)


def compile_for(*runs: Callable[[], Any]) -> None:
    """Compile what functions would call, and carry out none of it: to what they compute, outputs hold what they held.

    Raises what a function raises.
    """
    compile_ahead(itertools.chain.from_iterable(map(_called, runs)))


def _called(run: Callable[[], Any]) -> set[tuple[jit.CompiledKernel, jit.ArgumentTypes]]:
    with jit.recording() as calls:
        run()
    return {(kernel, kernel.types(arguments)) for kernel, _, arguments in calls}


def compile_ahead(calls: Iterable[tuple[jit.CompiledKernel, jit.ArgumentTypes]]) -> None:
    """Compile what these calls lack: kernels for argument types.

    Nothing happens where that would not pay: for few functions, on one thread, without a cache; unless somebody is to
    be told of it, see `kernels.compiling`.
    """
    jobs: dict[_Job, set[_Job]] = {}
    with global_compiler_lock:  # a thread that asks for the same waits, and finds it done
        for kernel, arguments in calls:
            name = kernel.__module__, kernel.__qualname__
            if jit.functions[name] is kernel:  # else another process would find the other of that name
                _note(_Job(*name, arguments), jobs)
        processes = min(get_threads(), len(jobs), _MOST_PROCESSES)
        pays = processes > 1 and len(jobs) >= _FEWEST and _can_start()
        if pays and next(iter(jobs)).dispatcher._cache.is_writable():
            _share_out(jobs, processes - 1)
        elif jobs and watched():  # alone, but told of one by one
            _share_out(jobs, 0)


def _note(job: _Job, jobs: dict[_Job, set[_Job]]) -> None:
    """Enter a job with what it needs, all but what is compiled already."""
    if job in jobs or job.done:
        return
    needed = job.needs()
    for need in needed:
        _note(need, jobs)
    jobs[job] = {need for need in needed if need in jobs}


def _can_start() -> bool:
    """Whether this program is an interpreter that can be started with other code."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


class _Queue:
    """Jobs to be taken by several threads, for a process each."""

    def __init__(
        self, jobs: dict[_Job, set[_Job]], pieces: Callable[[_Job], Mapping[Any, int]] = lambda job: {}
    ) -> None:
        """`jobs`: each with those that it needs, which come before it. `pieces`: how much there is of what a job
        consists of; who has met a piece in one job has it for all."""
        self._waiting = dict(jobs)
        self._pieces = {job: pieces(job) for job in jobs}
        size = {job: 1 + sum(of.values()) for job, of in self._pieces.items()}
        self._path = dict(size)  # how much waits in a row for a job, and the job itself
        for job, needed in reversed(jobs.items()):
            for need in needed:
                self._path[need] = max(self._path[need], size[need] + self._path[job])
        self._met: set[Any] = set()
        self._change = threading.Condition()
        self._done, self._total = 0, len(jobs)

    def take(self, needed_first: bool) -> Iterator[_Job]:
        """One job after the other; it counts as done when the next is asked for, or the loop is left. A process that
        will run what it compiles takes a job when those that it needs are done: it is linked with them."""
        mine: set[Any] = set()
        while (job := self._next(mine, needed_first)) is not None:
            try:
                yield job
            finally:
                with self._change:
                    for needed in self._waiting.values():
                        needed.discard(job)
                    self._done += 1
                    self._change.notify_all()

    def _next(self, mine: set[Any], needed_first: bool) -> _Job | None:
        """The job that most waits for, where it is not for somebody else, who has its pieces."""

        def worth(job: _Job) -> int:
            theirs = self._met - mine
            shared = ((piece in mine) - (piece in theirs) for piece in self._pieces[job])
            return self._path[job] + sum(s * n for s, n in zip(shared, self._pieces[job].values(), strict=True))

        with self._change:
            while self._waiting:
                ready = [job for job, needed in self._waiting.items() if not (needed and needed_first)]
                if ready:
                    job = max(ready, key=worth)
                    del self._waiting[job]
                    mine.update(self._pieces[job])
                    self._met.update(self._pieces[job])
                    tell(str(job), self._done, self._total)
                    return job
                self._change.wait()
            return None

    def clear(self) -> None:
        """Let nobody take another."""
        with self._change:
            self._waiting.clear()
            self._change.notify_all()


def _share_out(jobs: dict[_Job, set[_Job]], helpers: int) -> None:
    """Do the jobs here and in so many other processes."""
    waiting = _Queue(jobs, _Job.pieces)
    with contextlib.ExitStack() as started:
        with contextlib.suppress(OSError):  # fewer, where the system gives no more
            for _ in range(helpers):
                started.enter_context(_helper(waiting))
        for job in waiting.take(needed_first=True):
            job.do()
    tell("", len(jobs), len(jobs))


@contextlib.contextmanager
def _helper(jobs: _Queue) -> Iterator[None]:
    """Another process at work on the jobs; at the end its last job is waited for, unless that is an exception."""
    # SciPy, if it is there, is what Numba asks for BLAS: a quarter of the time until the first job is begun.
    settings = f"sys.path[:] = {sys.path!r}; sys.modules['scipy'] = None"
    program = f"import sys; {settings}; from {__name__} import _serve; _serve()"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache_directory().parent)}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, env=environment, text=True)
    thread = threading.Thread(target=_hand_on, args=(jobs.take(needed_first=False), process), daemon=True)
    thread.start()
    try:
        yield
        thread.join()
    finally:
        jobs.clear()
        process.kill()
        thread.join()
        process.communicate()


def _hand_on(jobs: Iterator[_Job], process: subprocess.Popen[str]) -> None:
    """Send a process one job after the other from when it is ready, until none is left or it has died."""
    assert process.stdin is not None
    assert process.stdout is not None
    if not process.stdout.readline():
        return
    for job in jobs:
        with contextlib.suppress(OSError):
            print(job.written(), file=process.stdin, flush=True)
        if not process.stdout.readline():
            return


def _serve() -> None:
    """The other process: say that it is there, do the jobs that come in, one a line, and answer each with a line."""
    jit.linked = False  # none of it is run here
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_do, args=(lines,), daemon=True).start()
    print(flush=True)
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # no more is wanted, not even what is half done


def _do(lines: queue.SimpleQueue[str]) -> None:
    while True:
        line = lines.get()
        with contextlib.suppress(Exception):  # whoever needs the function will meet the same error
            _Job.read(line).do()
        with contextlib.suppress(OSError):
            print(flush=True)
