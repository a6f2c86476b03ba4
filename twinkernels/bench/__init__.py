"""Kernels of one's own on the bench: a file that names twins and cases is checked, timed, gated and kept.

>>> from twinkernels.bench import case, twins
>>> import numpy as np
>>> double = twins(numpy=lambda x: x + x, another=lambda x: 2 * x)
>>> @case(double, "small")
... def small(draw):
...     return {"x": draw.normal(8)}

`twinkernels check FILE` and `twinkernels bench FILE` read such a file; `pytest_suite` and `asv_suite` make tests and
benchmarks of it. The package's own benchmarks and conformance tests stand on the same.

What a file says      `declare`, with arrays of `draw`
How a call is made    `calls`, on `arrays` that tell what was done to them
What is right         `truth`, for the contract `errors`; `checks` asks, and makes what fails small with `shrink`
How fast              `timing`; `measure` with `memory`, `elsewhere` in another process, and the `gate`
Where it is shown     `report` and `running` in the command, `testing` and `plugin` in pytest, `asv`
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in twinkernels: pytest loads this package in every run, whoever is tested
if TYPE_CHECKING:
    from .asv import asv_suite as asv_suite
    from .checks import check as check
    from .declare import Case as Case
    from .declare import FileError as FileError
    from .declare import Twins as Twins
    from .declare import case as case
    from .declare import read as read
    from .declare import twins as twins
    from .draw import Draw as Draw
    from .measure import bench as bench
    from .testing import pytest_suite as pytest_suite

__all__ = [
    "Case",
    "Draw",
    "FileError",
    "Twins",
    "asv_suite",
    "bench",
    "case",
    "check",
    "pytest_suite",
    "read",
    "twins",
]

_HOMES = {
    "Case": "declare",
    "Draw": "draw",
    "FileError": "declare",
    "Twins": "declare",
    "asv_suite": "asv",
    "bench": "measure",
    "case": "declare",
    "check": "checks",
    "pytest_suite": "testing",
    "read": "declare",
    "twins": "declare",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
