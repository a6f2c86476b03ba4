"""How many threads the kernels use: one number for every backend."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from . import shapes

MOST_THREADS = 4096
"""BLAS takes a C int, and a thread has a stack: more than any machine's cores is a mistake."""

_requested: int | None = None


def available_cores() -> int:
    """Cores that this process may use: its affinity mask, capped by a control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


def _quotas() -> list[int]:
    """CPU limits of this process's control group (version 2) and of those around it, in cores, rounded up."""
    limits = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = Path("/sys/fs/cgroup") / next(line[4:] for line in lines if line.startswith("0::/"))
        for folder in [group, *group.parents]:
            with contextlib.suppress(OSError, ValueError):
                quota, period = (folder / "cpu.max").read_text().split()
                limits.append(-(-int(quota) // int(period)))
    return limits


def get_threads() -> int:
    """Threads that a kernel may use."""
    return _requested or available_cores()


def set_threads(n: int) -> None:
    """Let every backend's kernels use n threads, in all Python threads of this process; 1 <= n <= 4096."""
    global _requested
    if shapes.integer("set_threads", "n", n, 1) > MOST_THREADS:
        raise ValueError(f"set_threads: n is {n}, expected at most {MOST_THREADS}")
    _requested = int(n)
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=_requested, user_api="blas")
    numba_jit = sys.modules.get(f"{__package__}.numba_backend.compiler.jit")
    if numba_jit is not None:  # else it asks get_threads() when it is first loaded
        numba_jit.use_threads(_requested)
