"""Calls made smaller: by axes that are cut wherever their length stands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.accuracy import Call

TRIES = 60


def resized(call: Call, length: int, new: int, part: str = "first") -> Call:
    """The call with `new` in the place of every axis, and of every int, that is `length`.

    Arrays without gaps have none afterwards: a twin need not take views, and Numba would compile it for them.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            kept = slice(None, new) if part == "first" else slice(length - new, None)
            smaller = value[tuple(kept if size == length else slice(None) for size in value.shape)]
            return smaller.copy(order="K") if value.flags.forc else smaller
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return tuple(new if type(each) is int and each == length else each for each in value)
        return new if type(value) is int and value == length else value

    return Call(call.kernel, {name: cut(value) for name, value in call.arguments.items()})


def lengths(call: Call) -> list[int]:
    """How long the axes are, each length once, the longest first."""
    return sorted({size for array in call.arrays("input", "in place").values() for size in array.shape}, reverse=True)


def shrunk(call: Call, wrong: Callable[[Call], bool]) -> Call:
    """As small a call as halving and cutting axes leads to that is still wrong."""
    tries = TRIES

    def attempt(smaller: Call) -> bool:
        nonlocal tries
        tries -= 1
        with contextlib.suppress(Exception):  # the definition does not take it, or the twin does not
            return tries >= 0 and wrong(smaller)
        return False

    progress = True
    while progress and tries > 0:
        progress = False
        for length in lengths(call):
            for new in dict.fromkeys((1, length // 2, length - 1)):
                if not 0 < new < length:
                    continue
                found = next(
                    (small for part in ("first", "last") if attempt(small := resized(call, length, new, part))), None
                )
                if found is not None:
                    call, progress = found, True
                    break
    return call
