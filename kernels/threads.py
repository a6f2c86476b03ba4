"""How many threads the kernels use: one number for every backend."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import shapes

MOST_THREADS = 4096
"""BLAS takes a C int, and a thread has a stack: more than any machine's cores is a mistake."""

Listener = Callable[[int], None]

_requested: int | None = None


def _asked_for() -> int:
    """What OMP_NUM_THREADS asks for, by which BLAS and OpenMP go as well; MOST_THREADS where it asks for nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # the others are for regions in regions
    return int(first) if first.isdecimal() and int(first) else MOST_THREADS


_asked = _asked_for()
_listeners: list[Listener] = []


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
    """Threads that a kernel may use: the number given to `set_threads`, else `available_cores()`.

    OMP_NUM_THREADS, if it was set when the package was imported, caps the latter.

    Returns:
        The number, at least 1.
    """
    return _requested or min(available_cores(), _asked)


def set_threads(n: int) -> None:
    """Let every backend's kernels use n threads, in all Python threads of this process.

    NumPy's matrix products run on the BLAS's threads, Numba's kernels on their own; both obey. More threads than
    `available_cores()` are allowed, and seldom faster. What Numba's kernels compute does not depend on n.

    Args:
        n: an int from 1 to 4096.

    Raises:
        ValueError: n is anything else.

    >>> before = get_threads()
    >>> set_threads(1)
    >>> get_threads()
    1
    >>> set_threads(before)
    """
    global _requested
    if shapes.integer("set_threads", "n", n, 1) > MOST_THREADS:
        raise ValueError(f"set_threads: n is {n}, expected at most {MOST_THREADS}")
    _requested = int(n)
    blas().limit(limits=_requested)
    for listener in _listeners:
        listener(_requested)


def blas() -> Any:
    """The BLAS libraries of this process, as threadpoolctl's controller of them.

    Looked for anew once a module has been imported, which may have brought one: threadpoolctl asks the system's loader
    for every library that there is, half a millisecond and, in a process of many libraries, several.
    """
    return _blas(len(sys.modules), next(reversed(sys.modules)))


@functools.lru_cache(1)
def _blas(modules: int, newest: str) -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def on_change(listener: Listener) -> Listener:
    """Have every later `set_threads` call this function with the new number. Decorates it."""
    _listeners.append(listener)
    return listener
