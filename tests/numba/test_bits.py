"""Bits do not depend on where machine code comes from, nor on whether it has threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..support.processes import BRIEF, Process

PROGRAM = """
import os
from benchmarks.bits import of_cases

def show():
    for case in {cases}:
        for name, digest in of_cases("numba", case):
            print(name, digest, flush=True)

if {shared}:
    from benchmarks.suite import common
    common.compile_ahead([(case, "float32") for case in {cases}])
show()
if {fork}:
    child = os.fork()
    if child == 0:
        show()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

CASES = ["adam/mlp-512", "rmsprop/mlp-512", "sgd/mlp-512"]
"""The optimizers on more elements than one thread takes: a x + b y, in which a multiply-add may take either product."""


def bits(cache: Path, shared: bool = False, fork: bool = False) -> list[str]:
    program = BRIEF + PROGRAM.format(cases=CASES, shared=shared, fork=fork)
    return Process(program, NUMBA_CACHE_DIR=cache, NUMBA_NUM_THREADS=2).result(180)[0]


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A cache, and what the process saw that filled it."""
    cache = tmp_path_factory.mktemp("bits")
    lines = bits(cache)
    assert len(lines) >= len(CASES)
    return cache, lines


def test_no_cache_gives_the_bits_of_one(cold: tuple[Path, list[str]], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert bits(blocked) == cold[1]


def test_code_from_other_processes_gives_the_same_bits(cold: tuple[Path, list[str]], tmp_path: Path) -> None:
    assert bits(tmp_path, shared=True) == cold[1]


def test_a_warm_cache_gives_the_bits_of_a_cold_one_and_so_does_a_forked_child_without_threads(
    cold: tuple[Path, list[str]],
) -> None:
    cache, lines = cold
    fork = hasattr(os, "fork")
    assert bits(cache, fork=fork) == lines * (2 if fork else 1)
