"""How many threads the kernels use: one number for every backend."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import shapes

_requested: int | None = None


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, and a container's CPU quota rounded up."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or the quota "max"
        pass
    return max(cores, 1)


def get_threads() -> int:
    """Threads that a kernel may use."""
    return _requested or available_cores()


def set_threads(n: int) -> None:
    """Let every backend's kernels use n threads, in all Python threads of this process; n >= 1."""
    global _requested
    _requested = shapes.integer("set_threads", "n", n, 1)
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=_requested, user_api="blas")
    numba_jit = sys.modules.get(f"{__package__}.numba_backend.jit")
    if numba_jit is not None:  # else it asks get_threads() when it is first loaded
        numba_jit.set_threads(_requested)
