#!/usr/bin/env bash
# Guess: a Parquet file that is read with `use_threads=False` leaves a process with the threads that it had.
# Seen: there is one more. The columns' bytes are fetched ahead by a pool of another kind, for which `use_threads` does
# not count: `pre_buffer`, which ParquetFile has switched on unless it is told otherwise. Read with `pre_buffer=False` as
# well, no thread is started.
# Why it matters: who asks for no threads often does so because the process forks later, or ends in C's `exit`, and both
# have to reckon with a thread that nobody knows of.
set -euo pipefail
unset PYTHONPATH
[ -d /proc/self/task ] || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet pyarrow==26.0.1 || exit 2

cat >main.py <<'PYTHON'
import os
import sys

import pyarrow
import pyarrow.parquet


def started(**how):
    before = len(os.listdir("/proc/self/task"))
    with open("table.parquet", "rb") as file:
        read = pyarrow.parquet.ParquetFile(file, **how).read(use_threads=False)
    assert read.num_rows == 1000
    return len(os.listdir("/proc/self/task")) - before


pyarrow.set_cpu_count(2)
pyarrow.parquet.write_table(pyarrow.table({"a": range(1000), "b": range(1000)}), "table.parquet")
seen = started(pre_buffer=False), started()
print("pyarrow", pyarrow.__version__)
print("threads started without and with pre_buffer, by use_threads=False:", seen)
if seen != (0, 1):
    sys.exit("changed: the number of threads that reading starts")
PYTHON
venv/bin/python main.py
