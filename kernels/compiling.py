"""Who is told what a backend compiles, and how much of it is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Listener = Callable[[str, int, int], None]
"""Called with the name of a function, how many are done, and how many there are; at the end with "" and all done."""

_listeners: list[Listener] = []


@contextlib.contextmanager
def on_compile(listener: Listener) -> Iterator[None]:
    """Have the listener told of each function that is compiled meanwhile, from whatever thread, one call at a time."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def watched() -> bool:
    """Whether anybody listens."""
    return bool(_listeners)


def tell(name: str, done: int, total: int) -> None:
    """Call the listeners."""
    for listener in list(_listeners):
        listener(name, done, total)
