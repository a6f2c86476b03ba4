#!/usr/bin/env bash
# Guess: a maximum searched with `if` in a prange loop is found, as in a plain loop; or, if the loop cannot be
# parallel, it is refused or at worst races between threads.
# Seen: the variables keep their values from before the loop, every time, at any number of threads and without a
# warning. Numba makes an assigned variable each iteration's own unless it sees a reduction, which it does in
# `m = max(m, x[i])` and in `m += x[i]`, but not under `if`.
# Why it matters: arg-max, a count of correct answers that keeps its best, or an early "found" flag are written so, and
# the same function without parallel=True is right.
set -euo pipefail
unset PYTHONPATH "${!NUMBA_@}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numba==0.68.1 numpy==2.4.6 || exit 2

cat >main.py <<'PYTHON'
import sys
import warnings

import numba
import numpy as np
from numba import njit, prange

warnings.simplefilter("error")


def largest(x):
    value, place = -1.0, -1
    for i in prange(x.size):
        if x[i] > value:
            value, place = x[i], i
    return value, place


def reduced(x):
    value = -1.0
    for i in prange(x.size):
        value = max(value, x[i])
    return value


x = np.arange(1000.0)
serial, parallel = njit(largest)(x), {njit(parallel=True)(largest)(x) for _ in range(5)}
print("numba", numba.__version__, "numpy", np.__version__)
print("if, serial:", serial, " if, parallel:", *parallel, " max(), parallel:", njit(parallel=True)(reduced)(x))
if serial != (999.0, 999) or parallel != {(-1.0, -1)}:
    sys.exit("changed: the loop's result is no longer its starting value")
PYTHON
venv/bin/python main.py
