#!/usr/bin/env bash
# Guess: a jitted function is compiled once for each combination of argument types, so that calls of one helper with
# int arguments share one version of it, whatever the numbers.
# Seen: called from other jitted code with numbers that stand in the source, it is compiled once for each number, and
# so is all that it calls in turn. A loop's counter that starts at 0 is enough: the helper that it is handed to is
# compiled for the number 0 as well, although no call that remains at run time uses that version. From Python, the same
# calls share one version.
# Why it matters: compile time grows with the constants at a helper's calls, times those at its own helpers' calls, and
# nothing slow shows up in the source. `np.int64(0)` in place of 0 avoids it; `helper.signatures` shows it.
set -euo pipefail
unset PYTHONPATH "${!NUMBA_@}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numba==0.68.1 numpy==2.4.6 || exit 2

cat >main.py <<'PYTHON'
import sys

import numba
import numpy as np
from numba import njit


def helpers():
    @njit
    def inner(x, i):
        return x[i] * 2.0

    @njit
    def outer(x, i):
        return inner(x, i) + 1.0

    return inner, outer


def versions(make, *arguments):
    inner, outer = helpers()
    make(outer)(*arguments)
    return len(outer.signatures), len(inner.signatures)


def from_python(outer):
    return lambda x: [outer(x, i) for i in (0, 1, 2)]


def three_numbers(outer):
    return njit(lambda x: outer(x, 0) + outer(x, 1) + outer(x, 2))


def loop_from_0(outer):
    @njit
    def total(x):
        i, sum_ = 0, 0.0
        while i < x.size:
            sum_ += outer(x, i)
            i += 1
        return sum_

    return total


def loop_from_int64(outer):
    @njit
    def total(x):
        i, sum_ = np.int64(0), 0.0
        while i < x.size:
            sum_ += outer(x, i)
            i += 1
        return sum_

    return total


x = np.arange(5.0)
seen = {make.__name__: versions(make, x) for make in (from_python, three_numbers, loop_from_0, loop_from_int64)}
print("numba", numba.__version__, "numpy", np.__version__)
print("versions of a helper and of its helper:", seen)
if list(seen.values()) != [(1, 1), (3, 3), (2, 2), (1, 1)]:
    sys.exit("changed: numbers in calls are compiled in otherwise")
PYTHON
venv/bin/python main.py
