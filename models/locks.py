"""Turns: what one thread at a time may use, in a process that forks and that signals interrupt.

A forked child has one thread, and finds a lock held for ever that another held when it was born. A signal handler runs
in the very thread that it interrupts: a plain lock would have it wait for itself, and a reentrant one lets it in where
somebody is at work.
"""

from __future__ import annotations

import os
import threading
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


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _reopen_all() -> None:
    for turn in list(_turns):
        turn.reopen()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reopen_all)
