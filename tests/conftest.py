"""What all tests share: the backends, hypothesis's settings, the machine's cores, and kernels compiled ahead."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

import kernels
from data import strokes
from twinkernels.bench.arrays import mallopt

hypothesis.settings.register_profile("twinkernels", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("twinkernels")


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out among pytest-xdist's workers, and what these start: threads of one would wait for those of
    another. And have bytecode kept whatever the environment says: hundreds of processes import Numba, and would each
    compile it for seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if hasattr(config, "workerinput"):
        threads = max(1, kernels.get_threads() // config.workerinput["workercount"])
        kernels.set_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
    keep_memory()


def keep_memory(keep: bool = True) -> None:
    """Have the C library keep what arrays leave: it would hand megabytes back to the system, to be given them again
    page by page, each filled with zeros; a quarter of what a test of large arrays takes. Programs that tests start are
    as they are."""
    set_option = mallopt()
    if set_option is not None:
        trim_threshold, mmap_threshold = -1, -3  # glibc's numbers; of the second it takes no more than 32 MiB
        set_option(mmap_threshold, 32 << 20 if keep else 128 << 10)
        set_option(trim_threshold, 1 << 30 if keep else 128 << 10)


@pytest.fixture
def new_memory() -> Iterator[None]:
    """Arrays in memory that is new: threads that wait for its pages overlap, and races show on a busy machine too."""
    keep_memory(False)
    yield
    keep_memory()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the whole suite, and before there are workers, compile what most of it calls."""
    config = session.config
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    if everything and not config.option.collectonly and not hasattr(config, "workerinput"):
        from .support.ahead import compile_what_the_suite_calls

        compile_what_the_suite_calls()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without looking for garbage: of a million objects nearly all stay.

    Every second worker loads the files from the last to the first: two that go the same way, where no bytecode is kept
    yet, would each compile all of it, for ten seconds, at the same time.
    """
    gc.disable()
    try:
        if getattr(session.config, "workerinput", {}).get("workerid", "gw0")[-1] in "13579":
            load_backwards(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LONG = ("house/test_notebooks", "models/test_sharding", "program/test_ranks", "program/test_study_places")
"""Files with tests of ten seconds and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: one that came last would leave the other workers idle."""
    items.sort(key=lambda item: not item.path.with_suffix("").as_posix().endswith(LONG))


def load_backwards(config: pytest.Config) -> None:
    """Import the files with tests of all folders that pytest was given, in the order opposite to its own."""
    root = config.rootpath
    for folder in config.args:
        for path in sorted((root / folder).glob("**/test_*.py"), reverse=True):
            with contextlib.suppress(Exception, pytest.skip.Exception):  # pytest will meet and report it
                importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


def pytest_unconfigure() -> None:
    """Look for garbage once: pytest does so five times more, and Python when it ends, among a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def threads_left_as_found() -> Iterator[None]:
    """What a file sets is its own: on more threads than cores BLAS waits more than it computes, ten times as long."""
    before = kernels.get_threads()
    yield
    if kernels.get_threads() != before:
        kernels.set_threads(before)


@pytest.fixture(scope="session", autouse=True)
def strokes_drawn_once() -> Iterator[None]:
    """`strokes.load()` draws 25,000 digits, a second's work that twenty tests ask for: they are given copies."""
    load = strokes.load
    first = functools.cache(load)

    def again(*given: int, **named: int) -> Any:
        if given or named:
            return load(*given, **named)
        return tuple((x.copy(), y.copy()) for x, y in first())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strokes, "load", again)
        yield


@pytest.fixture(scope="session", params=kernels.names())
def k(request: pytest.FixtureRequest) -> kernels.Kernels:
    """The kernels of each backend in turn."""
    return kernels.get(request.param)
