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
    """A reentrant lock, and whether whoever holds it is at work, which is theirs to say.

    `lock` is entered anew each time: while a fork waits for it, it is one that lets nobody else begin.
    """

    def __init__(self) -> None:
        self._own: Any = threading.RLock()
        self.lock: Any = self._own
        self.busy = False
        _turns.add(self)

    def owned(self) -> bool:
        """Whether this thread holds the lock."""
        owned: bool = self._own._is_owned()
        return owned

    def close(self) -> None:
        """Let nobody begin but those who have begun elsewhere."""
        self.lock = _Gate(self._own)

    def free(self, until: float) -> None:
        """Wait until nobody else holds the lock, or until a moment has come."""
        if self._own.acquire(timeout=max(0.0, until - time.monotonic())):
            self._own.release()

    def claim(self) -> bool:
        """Take the lock, if it is to be had at once."""
        claimed: bool = self._own.acquire(blocking=False)
        return claimed

    def release(self) -> None:
        """Give the lock back."""
        self._own.release()

    def open(self) -> None:
        """Let anybody begin again."""
        self.lock = self._own

    def reopen(self) -> None:
        """In a forked child: nobody but this thread is left."""
        if not self.owned():
            self._own._at_fork_reinit()
            self.busy = False


class _Gate:
    """A turn's lock while a fork waits: who has begun goes on, for the fork waits for them; all others wait for it.

    Without it, a thread that predicts without a pause takes the lock again before the fork's can wake.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not any(turn.owned() for turn in list(_turns)):
            _passed.wait(LONGEST_WAIT)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


LONGEST_WAIT = 2.0
"""Seconds for which a fork waits for those at work. They might in turn wait for what the forking thread holds."""

_turns: weakref.WeakSet[Turn] = weakref.WeakSet()
_passed = threading.Event()
_passed.set()


class _Held(threading.local):
    closed: tuple[Turn, ...] = ()
    claimed: tuple[Turn, ...] = ()


_held = _Held()


def _wait() -> None:
    """Before a fork: let the other threads finish. A BLAS has locks as well, which nobody opens again in the child."""
    end = time.monotonic() + LONGEST_WAIT
    turns = _held.closed = tuple(_turns)
    _passed.clear()
    for turn in turns:
        turn.close()
    while True:
        for turn in turns:  # holding none of the others, which whoever is at work may want as well
            turn.free(end)
        _held.claimed = tuple(turn for turn in turns if turn.claim())
        if len(_held.claimed) == len(turns) or time.monotonic() > end:
            return
        _release()


def _release() -> None:
    for turn in _held.claimed:
        turn.release()
    _held.claimed = ()


def _go_on() -> None:
    for turn in _held.closed:
        turn.open()
    _release()
    _held.closed = ()
    _passed.set()


def _go_on_alone() -> None:
    global _passed
    _passed = threading.Event()  # the parent's has a lock, which another thread may have held
    _go_on()
    for turn in list(_turns):
        turn.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_go_on_alone)
