"""The kernels that most tests call, compiled before the first test begins; run as a program it does no more."""

from __future__ import annotations

import argparse
import itertools

import numba

from benchmarks.suite.cases import CASES
from benchmarks.suite.common import compile_ahead
from twinkernels.precompile import compile_recipes
from twinkernels.recipes import RECIPES

DTYPES = ("float32", "float64")


def compile_what_the_suite_calls() -> None:
    """The table's small cases, of which the large ones call the same kernels, and what the recipes add to them.

    Each kernel once, in as many processes as there are threads. pytest's workers would compile most of them at the same
    time, each for itself, and so would the programs that tests start.
    """
    if numba.config.DISABLE_JIT:
        return
    small = [case.id for case in CASES if "bench" not in case.tags]
    compile_ahead(itertools.product(small, DTYPES))
    compile_recipes(RECIPES.values(), DTYPES)


if __name__ == "__main__":
    assert __doc__ is not None
    argparse.ArgumentParser("python -m tests.support.ahead", description=__doc__.splitlines()[0]).parse_args()
    compile_what_the_suite_calls()
