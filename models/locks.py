"""Turns: what one thread at a time may use, in a process that forks and that signals interrupt.

A forked child has one thread, and finds a lock held for ever that another held when it was born. A signal handler runs
in the very thread that it interrupts: a plain lock would have it wait for itself, and a reentrant one lets it in where
somebody is at work.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any


class Turn:
    """A reentrant lock, and whether whoever holds it is at work, which is theirs to say."""

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.busy = False
        _turns.add(self)

    def reopen(self) -> None:
        """In a forked child: nobody but this thread is left."""
        if not self.lock._is_owned():
            self.lock._at_fork_reinit()
            self.busy = False


LONGEST_WAIT = 2.0
"""Seconds for which a fork waits for those at work. They might in turn wait for what the forking thread holds."""

_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class _Held(threading.local):
    turns: tuple[Turn, ...] = ()


_held = _Held()


def _wait() -> None:
    """Before a fork: let the other threads finish. A BLAS has locks as well, which nobody opens again in the child."""
    end = time.monotonic() + LONGEST_WAIT
    turns = list(_turns)
    _held.turns = tuple(turn for turn in turns if turn.lock.acquire(timeout=max(0.0, end - time.monotonic())))


def _go_on() -> None:
    for turn in _held.turns:
        turn.lock.release()
    _held.turns = ()


def _go_on_alone() -> None:
    _go_on()
    for turn in list(_turns):
        turn.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_go_on_alone)
