"""Threads: how many, who may use them at once, and what becomes of them in a forked child.

Code with ``prange`` loops runs while it holds its `turn`, unless the process is `forked` and has lost its threads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading

import numba
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel as _pool

from ...threads import available_cores, get_threads, on_change

__all__ = ["DISABLED", "forked", "turn", "use_threads"]

DISABLED = bool(numba.config.DISABLE_JIT)
"""Whether NUMBA_DISABLE_JIT asks for plain Python."""


class _Settings:
    """The thread count asked for. A new object for each change, so that threads notice by identity."""

    def __init__(self, threads: int) -> None:
        self.threads = threads


class _ThisThread(threading.local):
    settings: _Settings | None = None


_settings = _Settings(get_threads())
_this_thread = _ThisThread()
_one_at_a_time = threading.RLock()
_concurrent = False  # whether Python threads may enter parallel regions at the same time
_forked = False  # whether this process is the child of one whose OpenMP pool did not survive the fork


def _load_openmp() -> None:
    """Load OpenMP's pool in a way that its waiting threads soon sleep.

    GNU OpenMP spins for milliseconds at every barrier. Where Linux has put two of its threads on one core, or another
    program holds a core, the one that spins keeps the other from what it waits for, and a region of 30 µs lasts a
    scheduler's time slice: 8 ms were seen, and steps of a cnn-bn with a mean of 97 ms instead of 3.4. Fewer rounds
    than a thread takes to wake up are no good either: on a virtual machine that is 0.1 to 0.3 ms, and who waits for
    one that wakes falls asleep as well, so that the next region begins with the same. 5000 rounds lie between: beside
    2000 they took a quarter off the mean step of a cnn-bn where nothing else ran, and added as much where another
    program held a core; 20000 doubled it there. OMP_WAIT_POLICY or GOMP_SPINCOUNT rule where they are set. The variable
    is read once and taken back, so that no child process inherits it.
    """
    if os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        return
    os.environ["GOMP_SPINCOUNT"] = "5000"
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc.omppool")
    del os.environ["GOMP_SPINCOUNT"]


if not DISABLED:
    _load_openmp()


@on_change
def use_threads(n: int) -> None:
    """Use n threads from now on, whichever Python thread calls; `kernels.set_threads` checks n and calls this."""
    global _settings
    _settings = _Settings(n)


_nothing = contextlib.nullcontext()


def turn() -> contextlib.AbstractContextManager[object]:
    """What to hold while code with threads runs; brings this Python thread up to date."""
    if _this_thread.settings is not _settings:
        _enter_thread()
    return _nothing if _concurrent or _forked else _one_at_a_time


def forked() -> bool:
    """Whether this process is the child of one whose threads did not survive the fork: parallel code would kill it."""
    return _forked


def _enter_thread() -> None:
    """Bring this Python thread up to date: Numba keeps the thread count for each of them."""
    global _concurrent
    settings = _settings
    if not (DISABLED or _forked):
        _raise_ceiling()
        numba.set_num_threads(min(settings.threads, numba.config.NUMBA_NUM_THREADS))
        _concurrent = numba.threading_layer() != "workqueue"  # which aborts when entered twice
    _this_thread.settings = settings


def _raise_ceiling() -> None:
    """Let set_threads ask for more threads than cores, unless NUMBA_NUM_THREADS rules or the pool already runs.

    Numba reads its ceiling at import, too early for us, so its copies are set as well.
    """
    ceiling = max(numba.config.NUMBA_NUM_THREADS, 2 * available_cores(), 8, _settings.threads)
    if "NUMBA_NUM_THREADS" not in os.environ and not getattr(_pool, "_is_initialized", True):
        numba.config.NUMBA_NUM_THREADS = _pool.NUM_THREADS = ceiling
        _pool.snt_check = _pool.gen_snt_check()


def _after_fork() -> None:
    """In a forked child: OpenMP's pool would kill it, so run serially; a lock may have been held by a lost thread."""
    global _concurrent, _forked, _one_at_a_time
    global_compiler_lock.release()
    _one_at_a_time = threading.RLock()
    _this_thread.settings = None
    if getattr(_pool, "_threading_layer", None) == "omp":
        _concurrent, _forked = False, True


if hasattr(os, "register_at_fork"):
    # Numba's compiler must not be at work in another thread while the process forks: the child would wait for ever.
    os.register_at_fork(
        before=global_compiler_lock.acquire, after_in_parent=global_compiler_lock.release, after_in_child=_after_fork
    )
