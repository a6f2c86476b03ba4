#!/usr/bin/env bash
# Guess: np.sum and np.mean inside a compiled function are as accurate as NumPy's, and in NumPy the axis of a sum says
# which numbers are added, not how well.
# Seen: Numba adds one element after the other in the array's own dtype, so that the mean of twenty million ones is
# 0.84; NumPy adds in pairs, but only along the axis that lies together in memory: over axis 0 its mean is 0.84 too.
# Why it matters: statistics of a batch (a mean over samples and pixels, channels last) are sums over the first axes,
# and moving NumPy code into a compiled function takes digits away from it without a word.
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


@numba.njit
def compiled(x):
    return np.sum(x), np.mean(x)


x = np.ones(20_000_000, dtype=np.float32)
print("numba", numba.__version__, "numpy", np.__version__)
in_numba, in_numpy = [float(v) for v in compiled(x)], [float(x.sum()), float(x.mean())]
print("20,000,000 ones: Numba's sum and mean", in_numba, " NumPy's", in_numpy)
x = np.ones((20_000_000, 2), dtype=np.float32)
first_axis = [float(v) for v in (x.sum(axis=0)[0], x.mean(axis=0)[0])]
print("two columns of as many, over axis 0: NumPy's", first_axis)
if not (in_numba[0] == first_axis[0] == 2**24 and in_numpy == [20e6, 1.0] and in_numba[1] < 0.9 > first_axis[1]):
    sys.exit("changed: the sums are no longer these")
PYTHON
venv/bin/python main.py
