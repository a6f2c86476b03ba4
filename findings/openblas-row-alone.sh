#!/usr/bin/env bash
# Guess: row i of A @ B depends on row i of A alone, so that a sample's answer does not depend on its batch.
# Seen: the first row computed alone has other bits than the first row of the product. For one row OpenBLAS, which
# NumPy's wheels bring, takes another routine (matrix times vector), which adds in another order. Whether half of the
# rows or a second thread changes bits too depends on the processor, and is printed.
# Why it matters: a prediction served one at a time is not the one that was evaluated in batches; a test for equality
# fails, and a tie between two classes may go the other way.
set -euo pipefail
unset PYTHONPATH "${!OPENBLAS_@}" OMP_NUM_THREADS
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet numpy==2.4.6 threadpoolctl==3.8.0 || exit 2

cat >main.py <<'PYTHON'
import sys

import numpy as np
import threadpoolctl

found = [library for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"]
if not found:
    print("not tried: this NumPy computes with another library")
    sys.exit(2)
print("numpy", np.__version__, "openblas", found[0]["version"], "for", found[0]["architecture"])
random = np.random.default_rng(0)
a = random.standard_normal((128, 784), dtype=np.float32)
b = random.standard_normal((784, 512), dtype=np.float32)
product = {}
for threads in (1, 2):
    with threadpoolctl.threadpool_limits(threads):
        product[threads] = a @ b
with threadpoolctl.threadpool_limits(1):
    alone, half = a[:1] @ b, a[:64] @ b
differ = int(np.count_nonzero(alone != product[1][:1]))
print(f"first row alone: {differ} of 512 numbers differ from those in a batch of 128")
print("half of the rows: same bits", np.array_equal(half, product[1][:64]))
print("two threads: same bits", np.array_equal(product[2], product[1]))
if not differ:
    sys.exit("changed: a row alone has the bits of the batch")
PYTHON
venv/bin/python main.py
