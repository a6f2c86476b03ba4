#!/usr/bin/env bash
# Guess: parallel=True changes how fast an array's maximum is found, and not which.
# Seen: x.max(), np.max(x), x.min() and np.min(x) of an array with NaN are NaN in NumPy and under Numba's njit; under
# parallel=True the NaN is passed over, and the largest or smallest number returned. argmax finds the NaN in all three.
# Why it matters: one word in a decorator turns a loud NaN into a plausible number, and no option asks for that:
# fastmath is off.
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

EXPRESSIONS = {
    "x.max()": ("nan", "nan", "2.0"),
    "np.max(x)": ("nan", "nan", "2.0"),
    "x.min()": ("nan", "nan", "1.0"),
    "np.min(x)": ("nan", "nan", "1.0"),
    "x.argmax()": ("1", "1", "1"),
}
print("numba", numba.__version__, "numpy", np.__version__)
x = np.array([1.0, np.nan, 2.0])
changed = False
for expression, expected in EXPRESSIONS.items():
    function = eval(f"lambda x: {expression}", {"np": np})
    seen = tuple(str(f(x)) for f in (function, numba.njit(function), numba.njit(parallel=True)(function)))
    print(f"{expression:10}: NumPy {seen[0]}, Numba {seen[1]}, with parallel=True {seen[2]}")
    changed |= seen != expected
if changed:
    sys.exit("changed: expected " + str(EXPRESSIONS))
PYTHON
venv/bin/python main.py
