"""Predictions beside forks, in signal handlers and beside new parameters: a few rounds of `python -m fuzz.hangs`."""

from __future__ import annotations

import os

import pytest

from fuzz.hangs import CASES

from ..support.processes import run

ROUNDS = {"fork": 8, "signal": 60, "write": 30}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has neither forks nor timers that send signals")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_it_answers_and_is_right(backend: str) -> None:
    program = f"""
from fuzz.hangs import CASES
for case, rounds in {ROUNDS}.items():
    print(case, CASES[case]({backend!r}, rounds))
"""
    assert run(program) == [f"{case} " for case in CASES]
