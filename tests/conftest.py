"""What all tests share: the backends, hypothesis's settings, the machine's cores, and kernels compiled ahead."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

import kernels
from data import strokes

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


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the whole suite, and before there are workers, compile what most of it calls."""
    config = session.config
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    if everything and not config.option.collectonly and not hasattr(config, "workerinput"):
        from .support.ahead import compile_what_the_suite_calls

        compile_what_the_suite_calls()


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
