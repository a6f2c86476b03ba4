"""A cold start shared out among processes: who compiles what, in which order, and what goes wrong on the way."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest

import kernels
from benchmarks.suite import cases
from benchmarks.suite.common import record

from ..support.every import every
from ..support.processes import PRELUDE, forked

COLD = f"""
{PRELUDE}
import contextlib, os, subprocess, sys, threading
import numpy as np
import kernels
from kernels.numba_backend.compiler import ahead, cache, jit

k = kernels.get("numba")
x = np.linspace(-2, 2, 90_000, dtype=np.float32).reshape(300, 300)
calls = {{"relu": [x], "leaky_relu": [x], "relu_backward": [x, x, x]}}

def compile_ahead():
    with jit.recording() as recorded:
        for name, arguments in calls.items():
            getattr(k, name)(*arguments)
    ahead.compile_ahead((kernel, kernel.types(arguments)) for kernel, _, arguments in recorded)

def jobs():
    "The jobs that would be shared out, and among how many other processes."
    kept = [({{}}, 0)]
    share_out, ahead._share_out = ahead._share_out, lambda *given: kept.append(given)
    compile_ahead()
    ahead._share_out = share_out
    return kept[-1]

def finish():
    "Call the kernels; whether they are right, and how often this process has compiled: kernels, and in all."
    def of(backend):
        return [getattr(backend, name)(*arguments) for name, arguments in calls.items()]

    pairs = zip(of(k), of(kernels.get("numpy")), strict=True)
    print(all(np.allclose(*pair, rtol=1e-4, atol=1e-3) for pair in pairs))
    print(len(calls.keys() & set(compiled)), len(compiled))

kernels.set_threads(2)
"""
"""Three kernels to call in a process where nothing is compiled."""

RIGHT = "True"


def cold(tmp_path: Path, source: str) -> list[str]:
    """The lines of a program that begins with COLD, with a cache of its own; on stderr it says nothing."""
    lines, errors = forked(COLD + source, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert errors == ""
    return lines


def test_another_process_compiles_everything_that_it_is_sent(tmp_path: Path) -> None:
    lines = cold(
        tmp_path,
        """
found, helpers = jobs()
with ahead._helper(ahead._Queue(found)):
    pass
print(helpers, all(job.done for job in found), len(compiled))
finish()
""",
    )
    assert lines == ["1 True 0", RIGHT, "0 0"]


def test_a_second_start_has_nothing_to_share(tmp_path: Path) -> None:
    source = """
calls["meannorm_inference"] = [x, x[0], x[1]]
found, helpers = jobs()
print(len(found), helpers)
compile_ahead()
finish()
"""
    assert cold(tmp_path, source)[:2] == ["5 1", RIGHT]  # the four, and one that the last of them is linked with
    assert cold(tmp_path, source) == ["0 0", RIGHT, "0 0"]


@pytest.mark.parametrize(
    ("verbose", "alone", "heard"), [(None, True, False), (True, True, True), (False, False, False)]
)
def test_what_a_listener_shows_is_not_said_twice(
    tmp_path: Path, verbose: bool | None, alone: bool, heard: bool
) -> None:
    lines = cold(
        tmp_path,
        f"""
import io, types
from kernels.compiling import on_compile
class Terminal(io.StringIO):
    def isatty(self):
        return True
def said():
    stderr, sys.stderr = sys.stderr, Terminal()
    dispatcher = next(f for f in jit.functions.values() if isinstance(f, jit.CompiledKernel)).dispatcher
    jit._CompileMessage().on_start(types.SimpleNamespace(data={{"dispatcher": dispatcher, "args": ()}}))
    written, sys.stderr = sys.stderr.getvalue(), stderr
    return "compiling" in written
jit.verbose = {verbose}
print(said())
with on_compile(lambda *told: None):
    print(said())
""",
    )
    assert lines == [str(alone), str(heard)]


@pytest.mark.parametrize("threads", [1, 2])
def test_who_listens_is_told_of_each_function(tmp_path: Path, threads: int) -> None:
    lines = cold(
        tmp_path,
        f"""
from kernels.compiling import on_compile
kernels.set_threads({threads})
heard = []
with on_compile(lambda *told: heard.append(told)):
    compile_ahead()
    *each, last = heard
    print(*sorted(name for name, _, _ in each), last == ("", 3, 3))
    print([done for _, done, _ in each] == sorted(done for _, done, _ in each), each[0][1:], each[-1][1] < 3)
    heard.clear()
    compile_ahead()
    print(heard)
""",
    )
    assert lines == ["leaky_relu relu relu_backward True", "True (0, 3) True", "[]"]


def test_both_processes_work_at_once(tmp_path: Path) -> None:
    lines = cold(
        tmp_path,
        """
do, here, there = ahead._Job.do, [], threading.Event()
hand_on = ahead._hand_on
def noticing(jobs, process):
    def each():
        for job in jobs:
            yield job
            there.set()  # the other process has done one
    hand_on(each(), process)
def waiting(job):
    there.wait(50)
    here.append(job)
    do(job)
ahead._hand_on, ahead._Job.do = noticing, waiting
compile_ahead()
print(0 < len(here) < 3)
finish()
""",
    )
    assert lines[:2] == ["True", RIGHT]


def test_a_program_is_compiled_ahead_when_it_is_linked(tmp_path: Path) -> None:
    lines = cold(
        tmp_path,
        """
y = np.empty_like(x)
arguments = {"leaky_relu": (x, 0.5, y), "relu_backward": (x, x, x, y), "relu": (x, y)}
linked = k.program([(k.function(name), given) for name, given in arguments.items()])
shared = []
share_out = ahead._share_out
def noting(jobs, helpers):
    shared.extend(job.name for job in jobs)
    share_out(jobs, helpers)
ahead._share_out = noting
linked.run(1, {})
print(sorted(shared), np.array_equal(y, np.maximum(x, 0)))
""",
    )
    assert lines == ["['_run', 'leaky_relu', 'relu', 'relu_backward'] True"]


def test_there_are_as_many_processes_as_threads_up_to_four(tmp_path: Path) -> None:
    source = """
calls["linear"] = [x, x[:, :64].copy()]
for threads in 2, 3, 4, 16:
    kernels.set_threads(threads)
    print(threads, jobs()[1])
"""
    assert cold(tmp_path, source) == ["2 1", "3 2", "4 3", "16 3"]


def test_threads_that_ask_for_the_same_share_it_out_once(tmp_path: Path) -> None:
    lines = cold(
        tmp_path,
        """
shared = []
share_out = ahead._share_out
def noting(jobs, helpers):
    shared.append(len(jobs))
    share_out(jobs, helpers)
ahead._share_out = noting
threads = [threading.Thread(target=compile_ahead) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(shared)
""",
    )
    assert lines == ["[3]"]


@pytest.mark.parametrize(
    "there",
    [
        pytest.param("ahead._serve = None; sys.executable = ''", id="no interpreter"),
        pytest.param("sys.frozen = True", id="one that runs the program itself"),
        pytest.param("kernels.set_threads(1)", id="one thread"),
        pytest.param("cache.Cache.is_writable = lambda self: False", id="no cache"),
        pytest.param("del calls['relu']", id="two kernels"),
    ],
)
def test_where_it_would_not_pay_or_cannot_be_nothing_is_started(tmp_path: Path, there: str) -> None:
    assert cold(tmp_path, f"{there}\nprint(len(jobs()[0]))") == ["0"]


INSTEAD = """
start = subprocess.Popen
subprocess.Popen = lambda command, **options: start([*command[:2], "{program}"], **options)
"""


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("sys.executable = '/nowhere/python'", id="cannot be started"),
        pytest.param(INSTEAD.format(program="pass"), id="ends at once"),
        pytest.param(INSTEAD.format(program="print(1); print(2)"), id="says what it has not done"),
        pytest.param("os.environ['PYTHONHASHSEED'] = 'nonsense'", id="cannot begin"),
    ],
)
def test_what_the_others_do_not_do_is_done_here(tmp_path: Path, trouble: str) -> None:
    lines, _ = forked(f"{COLD}\n{trouble}\ncompile_ahead()\nfinish()", NUMBA_CACHE_DIR=tmp_path / "cache")
    assert lines[0] == RIGHT
    assert lines[1].split()[0] == "3"


def test_an_interrupt_ends_the_others_too(tmp_path: Path) -> None:
    lines = cold(
        tmp_path,
        """
start, started = subprocess.Popen, []
class Noted(start):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        started.append(self)
subprocess.Popen = Noted
def interrupted(job):
    raise KeyboardInterrupt
do, ahead._Job.do = ahead._Job.do, interrupted
with contextlib.suppress(KeyboardInterrupt):
    compile_ahead()
    print("not interrupted")
print([process.poll() is None for process in started], threading.active_count())
ahead._Job.do = do
finish()
""",
    )
    assert lines[0] == "[False] 1"
    assert lines[1] == RIGHT


@pytest.mark.parametrize("kernel", sorted({case.kernel for case in cases.CASES}))
def test_what_another_process_reads_is_what_was_meant(kernel: str) -> None:
    every(["float32", "float64"], lambda dtype: is_read_as_it_was_meant(kernel, dtype))


def is_read_as_it_was_meant(kernel: str, dtype: str) -> None:
    from kernels.numba_backend.compiler import ahead, jit

    call = record(next(case for case in cases.CASES if case.kernel == kernel), dtype)
    with jit.recording() as made:
        call.bind(kernels.get("numba"))[0]()
    assert made
    for function, _, arguments in made:
        job = ahead._Job(function.__module__, function.__qualname__, function.types(arguments))
        for each in [job, *job.needs()]:
            assert ahead._Job.read(each.written()) == each


class TestQueue:
    """Letters for jobs; c and b wait for a, d for b."""

    JOBS: ClassVar = {"e": set(), "a": set(), "b": {"a"}, "c": {"a"}, "d": {"b"}}

    def queue(self) -> Any:
        from kernels.numba_backend.compiler import ahead

        return ahead._Queue({job: set(needed) for job, needed in self.JOBS.items()})

    def test_the_longest_row_comes_first(self) -> None:
        assert list(self.queue().take(True)) == ["a", "b", "e", "c", "d"]

    def test_who_has_a_jobs_pieces_gets_it(self) -> None:
        from kernels.numba_backend.compiler import ahead

        pieces = {"a": {"x": 9}, "b": {"y": 8}, "c": {"y": 7}, "d": {"x": 6}}
        queue = ahead._Queue({job: set() for job in pieces}, pieces.__getitem__)
        one, other = queue.take(True), queue.take(True)
        assert [next(one), next(other), next(one), next(other)] == ["a", "b", "d", "c"]

    def test_nobody_gets_a_job_before_what_it_needs_is_done(self) -> None:
        queue = self.queue()
        one, other = queue.take(True), queue.take(True)
        assert (next(one), next(other), next(one)) == ("a", "e", "b")
        one.close()  # its holder has gone: who needs it has to go on
        assert list(other) == ["c", "d"]

    def test_who_runs_nothing_waits_for_nobody(self) -> None:
        queue = self.queue()
        one, other = queue.take(True), queue.take(False)
        assert (next(one), next(other), next(other)) == ("a", "b", "e")

    def test_a_cleared_queue_is_empty(self) -> None:
        queue = self.queue()
        taken = list(itertools.islice(queue.take(True), 1))
        queue.clear()
        assert [*taken, *queue.take(True)] == ["a"]
