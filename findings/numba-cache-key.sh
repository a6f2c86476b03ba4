#!/usr/bin/env bash
# Guess: code cached by Numba is compiled again when what it was made from has changed.
# Seen: its key is the function's own file, the argument types and the processor. A helper in another file, a global
# whose value came from outside, and Numba's own compiler settings are frozen in the code on disk: a later process
# runs what an earlier one was asked for, without a word. (Numba's documentation names the helper alone.)
# Why it matters: an edit seems to have no effect, an experiment runs with another's constant, and a comparison of
# compiler settings compares a program with itself.
set -euo pipefail
unset PYTHONPATH "${!NUMBA_@}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numba==0.68.1 numpy==2.4.6 || exit 2

cat >helper.py <<'PYTHON'
from numba import njit


@njit
def shifted(x):
    return x + 1
PYTHON
cat >main.py <<'PYTHON'
import os

import numpy as np
from numba import njit

from helper import shifted

SCALE = float(os.environ["SCALE"])


@njit(cache=True)
def result(x):
    return SCALE * shifted(x)


@njit(cache=True, fastmath=True)
def dot(a, b):
    total = np.float32(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


a, b = np.random.default_rng(0).standard_normal((2, 1000), dtype=np.float32)
print(result(1.0), float(dot(a, b)).hex())
PYTHON

# cached: in the one cache that all share; fresh: with a cache of its own, which shows what the answer should be.
cached() { env "$@" venv/bin/python main.py; }
fresh() { env NUMBA_CACHE_DIR="$(mktemp -d -p "$folder")" "$@" venv/bin/python main.py; }
stale=0
compare() {
    local what=$1 old new
    shift
    old=$(cached "$@") new=$(fresh "$@")
    printf '%-24s cached %s, fresh %s\n' "$what" "$old" "$new"
    [ "$old" = "$first" ] && [ "$new" != "$first" ] && stale=$((stale + 1))
    return 0
}
venv/bin/python -c 'import numba, numpy; print("numba", numba.__version__, "numpy", numpy.__version__)'
first=$(cached SCALE=1)
echo "first run                $first"
compare "global from outside" SCALE=5
compare "NUMBA_LOOP_VECTORIZE=0" SCALE=1 NUMBA_LOOP_VECTORIZE=0
sed -i.old 's/x + 1/x + 100/' helper.py
compare "helper in another file" SCALE=1
[ "$stale" = 3 ] || { echo "changed: $stale of 3 are stale" && exit 1; }
