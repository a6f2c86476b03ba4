#!/usr/bin/env bash
# Guess: compiled code follows NumPy's rules for dtypes: since NumPy 2 a float32 times 2.0 is a float32, and sums of
# uint8 wrap.
# Seen: Numba types Python's literals as float64 and int64 and widens integers: a float32 scalar times 2.0, times 2 or
# plus 1 is a float64, uint8 plus uint8 a uint64. Of the six expressions below only the square stays float32.
# Why it matters: one literal turns a float32 loop into double precision, at half the vector width and with other bits
# than the NumPy code it was copied from.
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
    "x * 2.0": (np.float32(3), "float32", "float64"),
    "x * 2": (np.float32(3), "float32", "float64"),
    "x + 1": (np.float32(3), "float32", "float64"),
    "x / 2": (np.float32(3), "float32", "float64"),
    "x ** 0.5": (np.float32(3), "float32", "float64"),
    "x ** 2": (np.float32(3), "float32", "float32"),
    "x + x": (np.uint8(100), "uint8", "uint64"),
}
print("numba", numba.__version__, "numpy", np.__version__)
changed = False
for expression, (x, *expected) in EXPRESSIONS.items():
    function = eval(f"lambda x: {expression}")
    compiled = numba.njit(function)
    compiled(x)
    seen = [function(x).dtype.name, str(compiled.nopython_signatures[0].return_type)]
    print(f"x a {x.dtype}, {expression:8}: NumPy {seen[0]}, Numba {seen[1]}")
    changed |= seen != expected
if changed:
    sys.exit("changed: expected " + str(EXPRESSIONS))
PYTHON
venv/bin/python main.py
