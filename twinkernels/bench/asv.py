"""Benchmarks for asv: what it times itself, and a file of one's own as a suite."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import timing


class Timed:
    """What asv times itself: several calls a sample, in a process that nothing disturbs from its first setup on.

    asv calls setup again before each call. What these calls leave is as good for the next one, so there is nothing to
    do; NumPy's threads, which a setup sets spinning, would be timed with it.
    """

    number = 10
    prepared: tuple[str, ...] | None = None

    def setup(self, *params: str) -> None:
        if self.prepared != params:
            self.undisturbed = timing.undisturbed(self.prepare(*params))
            self.undisturbed.__enter__()  # for as long as this object lives
            self.prepared = params

    prepare: Callable[..., Callable[[], Any]]
    """Given the parameters, asserts that the results are right; the call that wakes the threads."""


def asv_suite(path: str | Path) -> type[Timed]:
    """A file of twins and cases as an asv suite, in one line of a module that asv finds.

    ``Softplus = asv_suite("../softplus.py")`` has, by contestant and case: the time of a call, its error in units of
    the definition's own (an ulp added to both), and its time over the definition's, measured in pairs; of a case with
    several dtypes in the first. A contestant that is wrong is not timed: its benchmarks fail. One that is not installed
    is n/a.

    Args:
        path: of the file; a relative one begins at the folder of the module that calls.

    Raises:
        FileError, OSError: as `read` has them.
    """
    from . import measure
    from .declare import read

    caller = sys._getframe(1).f_globals
    home = Path(caller["__file__"]).parent if "__file__" in caller else Path()
    cases = {case.id: case for case in read(home / path) if not case.sizes}
    contestants = list(dict.fromkeys(name for case in cases.values() for name in case.twins.contestants))
    timing.settle()

    def prepared(contestant: str, case_id: str) -> measure.Prepared:
        case = cases[case_id]
        try:
            if contestant not in case.twins.contestants:
                raise ImportError(f"{case_id} has no {contestant}")
            return measure.prepare(case, contestant)
        except ImportError as error:
            raise _skip(f"{case_id} on {contestant}: {error}") from error

    class Kernels(Timed):
        params = (contestants, list(cases))
        param_names = ("contestant", "case")
        version = "1"
        timeout = 300

        def prepare(self, contestant: str, case: str) -> Callable[[], Any]:
            self.ready = prepared(contestant, case)
            self.definition = prepared(cases[case].twins.definition, case)
            assert self.ready.share <= 1.0, f"{case} on {contestant}: {self.ready.share:.3g} times its error budget"
            self.call = self.ready.call
            return self.call

        def time_call(self, contestant: str, case: str) -> None:
            self.call()

        def track_error(self, contestant: str, case: str) -> float:
            return (1.0 + self.ready.error) / (1.0 + self.ready.baseline)

        def track_time_ratio(self, contestant: str, case: str) -> float:
            samplers = {"own": self.ready.sampler(), "definition": self.definition.sampler()}
            seconds = timing.sample(samplers, 9)
            return timing.ratio(seconds["own"], seconds["definition"]).median

    Kernels.track_error.unit = Kernels.track_time_ratio.unit = "times the definition's"  # type: ignore[attr-defined]
    Kernels.__module__ = caller.get("__name__", __name__)
    Kernels.__name__ = Kernels.__qualname__ = "".join(part.capitalize() for part in Path(path).stem.split("_"))
    return Kernels


def _skip(reason: str) -> Exception:
    """What tells asv that a benchmark is not applicable."""
    with contextlib.suppress(ImportError):
        from asv_runner.benchmarks.mark import SkipNotImplemented

        return SkipNotImplemented(reason)  # type: ignore[no-any-return]
    return NotImplementedError(reason)
