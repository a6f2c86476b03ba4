"""No kernel reads or writes beside its arrays: every case runs on arrays that end where memory ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

from ..support.processes import BRIEF

ROOT = Path(__file__).parents[2]

# In a process of its own, which a touch of the guarded page ends; the last line that it wrote names the case.
RUN = """
import sys
import numpy as np
import kernels
from benchmarks.suite import cases
from benchmarks.suite.common import record
from fuzz.redteam import paged

k = kernels.get(sys.argv[1])
for case in cases.select():
    if "bench" in case.tags:
        continue
    for dtype in (np.float32, np.float64):
        print(case.id, np.dtype(dtype), flush=True)
        call = record(case, dtype)
        with np.errstate(all="ignore"):
            k.function(call.kernel)(*call.fresh(k, paged).values())
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="guards pages with mprotect")
@pytest.mark.parametrize("backend", kernels.names())
def test_arrays_end_where_memory_ends(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + RUN, backend],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    last = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert (done.returncode, last) == (0, "done"), done.stderr[-2000:]
