#!/usr/bin/env bash
# Guess: a function under cache=True computes the same, compiled or loaded; the cache saves time and nothing else.
# Seen: the first process, which compiles, gets other bits than every later one, which loads what the first has kept.
# Both moving averages below are one formula, a m + b g. fastmath lets LLVM fuse either product with the sum; the
# process that compiles runs code that fuses one, and keeps code that fuses the other. Only with parallel=True.
# Why it matters: a run repeated with the same seed on the same machine does not repeat the first, once, and a cache
# that cannot be written has the first bits for ever. Wants an x86-64 processor with AVX2 and multiply-add.
set -euo pipefail
unset PYTHONPATH "${!NUMBA_@}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
[ "$(uname -m)" = x86_64 ] || { echo "not tried: no x86-64 processor" && exit 2; }
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numba==0.68.1 numpy==2.4.6 || exit 2

cat >averages.py <<'PYTHON'
import hashlib

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True, fastmath=True)
def averages(m, n, g, a, b):
    for part in prange(4):
        start, stop = part * 4096, (part + 1) * 4096
        gs, ms, ns = g[start:stop], m[start:stop], n[start:stop]
        for i in range(gs.size):
            ms[i] = a * ms[i] + b * gs[i]
            ns[i] = a * ns[i] + b * gs[i]


g, m = np.random.default_rng(0).standard_normal((2, 4 * 4096), dtype=np.float32)
n = m.copy()
averages(m, n, g, np.float32(0.999), np.float32(0.001))
print("loaded  " if averages.stats.cache_hits else "compiled", hashlib.sha256(m).hexdigest()[:12])
PYTHON

export NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=
venv/bin/python -c 'import llvmlite, numba, numpy; print("numba", numba.__version__, "llvmlite", llvmlite.__version__, "numpy", numpy.__version__)'
first=$(venv/bin/python averages.py) second=$(venv/bin/python averages.py) third=$(venv/bin/python averages.py)
printf '%s\n' "$first" "$second" "$third"
[[ $first == compiled* && $second == loaded* ]] || { echo "changed: not compiled, then loaded" && exit 1; }
[ "$second" = "$third" ] || { echo "changed: loaded code differs from run to run" && exit 1; }
[ "${first##* }" != "${second##* }" ] || { echo "changed: compiled and loaded code give the same bits" && exit 1; }
