#!/usr/bin/env bash
# Guess: processes may fill one cache of Numba's at the same time, and the worst is something compiled twice. (Numba's
# documentation calls this safe where the file system replaces a file in one step.)
# Seen: a later process finds the code for another type of argument under its own, and answers with wrong numbers.
# To save, a process reads the function's index, takes the first free number, writes the index, then the code. Two that
# compile the function for two types both take number 1; where one writes the index last and the other the code, the
# index leads from the one's type to the other's code. Nothing compares them at loading, and the call looks only at the
# size of an array's items: float32 code refuses float64, but int64 code takes float64, and code for C order takes a
# table in Fortran order, whose wrong sums look right.
# Here either process waits for its turn before it writes; only their timing is changed. Without that, two processes
# that began each of 600 functions together spoilt three.
# Why it matters: workers or jobs that start together with an empty cache can leave one that is wrong for all who come
# later. Give each a cache of its own (NUMBA_CACHE_DIR), or let one process compile for every type before the others.
set -euo pipefail
unset PYTHONPATH "${!NUMBA_@}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numba==0.68.1 numpy==2.4.6 || exit 2

cat >sums.py <<'PYTHON'
import numpy as np
from numba import njit


@njit(cache=True)
def row_sums(table):
    sums = np.zeros(table.shape[0])
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            sums[row] += table[row, column]
    return sums
PYTHON
cat >main.py <<'PYTHON'
import sys

import numpy as np

from sums import row_sums

dtype, order = sys.argv[1].split("/")
table = np.array([[1, 2, 3], [4, 5, 6]]).astype(dtype, order)
try:
    print(row_sums(table).tolist())
except TypeError as error:
    print("TypeError:", " ".join(str(error).split()))
PYTHON
cat >held.py <<'PYTHON'
import sys
import time
from pathlib import Path

from numba.core.caching import IndexDataCacheFile as CacheFile

STEPS = ["one has read", "other has read", "one's index", "other's index", "other's code", "one's code"]
turns, who = Path(sys.argv[2]), sys.argv[3]


def take_turn(step, act=lambda: None):
    end = time.monotonic() + 300
    while len([*turns.iterdir()]) < STEPS.index(step):
        if time.monotonic() > end:
            sys.exit(f"changed: waited in vain before: {step}")
        time.sleep(0.01)
    act()
    (turns / step).touch()


def save_index(self, overloads, save=CacheFile._save_index):
    take_turn(f"{who} has read")
    take_turn(f"{who}'s index", lambda: save(self, overloads))


def save_code(self, name, data, save=CacheFile._save_data):
    take_turn(f"{who}'s code", lambda: save(self, name, data))


CacheFile._save_index, CacheFile._save_data = save_index, save_code
import main
PYTHON

# race ONE OTHER: what two later processes answer for OTHER's type, once ONE and OTHER have compiled together.
race() {
    local turns well=yes again
    turns=$(mktemp -d -p "$folder") NUMBA_CACHE_DIR=$(mktemp -d -p "$folder")
    export NUMBA_CACHE_DIR
    venv/bin/python held.py "$1" "$turns" one >one.txt &
    venv/bin/python held.py "$2" "$turns" other >other.txt || well=no
    wait $! || well=no
    [ $well = yes ] || { echo "changed: the two processes cannot be held in this order" && exit 1; }
    [ "$(sort -u one.txt other.txt)" = "$right" ] || { echo "changed: who compiles is wrong" && exit 1; }
    later=$(venv/bin/python main.py "$2") again=$(venv/bin/python main.py "$2")
    printf '%s compiled beside %-10s %s\n' "$2" "$1:" "$later"
    [ "$later" = "$again" ] || { echo "changed: the process after it answers $again" && exit 1; }
}
right="[6.0, 15.0]"
venv/bin/python -c 'import numba, numpy; print("numba", numba.__version__, "numpy", numpy.__version__)'
echo "right answer                          $right"
race float64/C float64/F
[ "$later" = "[7.0, 14.0]" ] || { echo "changed: not the sums of a table read in the other order" && exit 1; }
race int64/C float64/C
[[ $later == "["*e+* ]] || { echo "changed: not the sums of the bits of floats" && exit 1; }
race float32/C float64/C
[[ $later == TypeError* ]] || { echo "changed: code for another item size is not refused" && exit 1; }
