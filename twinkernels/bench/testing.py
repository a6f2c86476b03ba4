"""A file of one's own as tests: a test for each case, contestant and check, and the contestants side by side."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import checks
from .checks import CHECKS, Checked
from .declare import Case, read
from .truth import Truth, truth

OF_DEFINITION = ("agreement", "outputs", "inputs", "bounds")
"""What a definition is asked: that it is as exact as its dtype allows, and leaves its inputs alone."""


def pytest_suite(path: str | Path) -> tuple[Callable[..., None], Callable[..., None]]:
    """A file of twins and cases as tests, in one line of a test module.

    ``test_twins, test_speed = pytest_suite("softplus.py")``: the first has a test for each case, contestant and check,
    the second a group of pytest-benchmark for each case, where that is installed.

    Args:
        path: of the file; a relative one begins at the folder of the module that calls.

    Raises:
        FileError, OSError: as `read` has them.
    """
    home = Path(sys._getframe(1).f_globals.get("__file__", "")).parent
    return tests(read(home / path))


def tests(cases: Sequence[Case]) -> tuple[Callable[..., None], Callable[..., None]]:
    """As `pytest_suite`, of cases that are read."""
    import pytest

    known = {case.id: case for case in cases}

    @functools.cache
    def checked(id: str, contestant: str, dtype: str) -> Checked:
        case = known[id]
        if case.sizes:
            return checks.of_sizes(case, contestant, dtype)
        return checks.examine(case, contestant, dtype, right(id, dtype))

    @functools.cache
    def right(id: str, dtype: str) -> Truth:
        return truth(known[id], known[id].call(dtype))

    wanted = list(_checks(cases))

    @pytest.mark.parametrize(("case", "contestant", "dtype", "check"), wanted, ids=["-".join(one) for one in wanted])
    def test_twins(case: str, contestant: str, dtype: str, check: str) -> None:
        found = checked(case, contestant, dtype)
        if found.missing:
            pytest.skip(found.missing)
        if faults := [fault.text for fault in found.faults if fault.check == check]:
            pytest.fail("\n".join([f"{found.title}: {check}", *faults]), pytrace=False)

    timed = [(case.id, name, dtype) for case, name, dtype in _contestants(cases) if not case.sizes]

    @pytest.mark.parametrize(("case", "contestant", "dtype"), timed, ids=["-".join(one) for one in timed])
    def test_speed(request: pytest.FixtureRequest, case: str, contestant: str, dtype: str) -> None:
        from . import measure

        if find_spec("pytest_benchmark") is None:
            pytest.skip("pytest-benchmark is not installed")
        benchmark: Any = request.getfixturevalue("benchmark")
        benchmark.group = f"{case} {dtype}"
        try:
            ready = measure.prepare(known[case], contestant, dtype, right(case, dtype))
        except ImportError as error:
            pytest.skip(str(error))
        assert ready.share <= 1.0, f"{case} on {contestant}: {ready.share:.3g} times its error budget"
        benchmark(ready.call)
        benchmark.extra_info |= {"error in ulp": ready.error, "definition's": ready.baseline}

    return test_twins, test_speed


def _contestants(cases: Sequence[Case]) -> Iterator[tuple[Case, str, str]]:
    for case in cases:
        for dtype in case.dtypes:
            for contestant in case.twins.contestants:
                yield case, contestant, dtype


def _checks(cases: Sequence[Case]) -> Iterator[tuple[str, str, str, str]]:
    for case, contestant, dtype in _contestants(cases):
        names: Sequence[str] = OF_DEFINITION if contestant == case.twins.definition else CHECKS
        if case.sizes:
            names = ("sizes",)
        for check in names:
            asked = {"takes": bool(case.takes), "sizes": bool(case.sizes), "float64": dtype == "float32"}
            if asked.get(check, True):
                yield case.id, contestant, dtype, check
