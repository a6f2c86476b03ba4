"""One test over many cases: each is checked, and each that fails is named with its traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

FAILURES = (Exception, pytest.fail.Exception)  # of which the second is no Exception


def every(cases: Iterable[Any], check: Callable[..., object]) -> None:
    """Call `check(*case)` for every case, or `check(case)` for one that is no tuple; at least one is asked for.

    A test of its own costs each case as much again as pytest's reports of it, ten milliseconds of two processes, and
    most of the table's cases take one. Raises a group of what was raised, each with a note that names its case.
    """
    failed: list[BaseException] = []
    given = list(cases)
    for case in given:
        arguments = case if isinstance(case, tuple) else (case,)
        try:
            check(*arguments)
        except FAILURES as error:
            error.add_note(f"case: {', '.join(map(_name, arguments))}")
            failed.append(error)
    assert given, "no case at all"
    if failed:
        names = "; ".join(error.__notes__[-1].removeprefix("case: ") for error in failed)
        raise BaseExceptionGroup(f"{len(failed)} of {len(given)} cases: {names}", failed)


def _name(value: Any) -> str:
    """As pytest would name it: an id or a name where there is one."""
    return str(getattr(value, "id", None) or getattr(value, "name", None) or getattr(value, "__name__", None) or value)
