"""The kernels that most tests call, compiled before the first test begins; run as a program it does no more."""

from __future__ import annotations

import argparse
import functools
import itertools

import numba

import kernels
from benchmarks.suite.cases import CASES, Case
from benchmarks.suite.common import record
from twinkernels.precompile import train_briefly
from twinkernels.recipes import RECIPES

DTYPES = ("float32", "float64")


def compile_what_the_suite_calls() -> None:
    """The table's small cases, of which the large ones call the same kernels, and what the recipes add to them.

    Each kernel once, in as many processes as there are threads, and all in one go: none waits for the last of another
    list. pytest's workers would compile most of them at the same time, each for itself, and so would the programs that
    tests start.
    """
    if numba.config.DISABLE_JIT:
        return
    k = kernels.get("numba")
    from kernels.numba_backend.compiler.ahead import compile_for

    def call(case: Case, dtype: str) -> None:
        record(case, dtype).bind(k)[0]()

    small = [case for case in CASES if "bench" not in case.tags]
    calls = [functools.partial(call, *pair) for pair in itertools.product(small, DTYPES)]
    trainings = [functools.partial(train_briefly, *pair) for pair in itertools.product(RECIPES.values(), DTYPES)]
    compile_for(*calls, *trainings)


if __name__ == "__main__":
    assert __doc__ is not None
    argparse.ArgumentParser("python -m tests.support.ahead", description=__doc__.splitlines()[0]).parse_args()
    compile_what_the_suite_calls()
