"""What is right: the definition's results in its own dtype and in float64, and how close others come."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import Kernels, accuracy
from kernels.accuracy import Call, Closeness, Results

from . import calls
from .calls import Fault
from .declare import Case, FileError, in_words

MOST_TERMS = 10_000
"""That a sum has unless told: naive sums of more in float32 are off by a visible amount, and are to be seen."""

NOBODY = Kernels("", None)
"""Whose scratch functions have that have none."""


@dataclass
class Truth:
    """A call, what the definition makes of it in its own dtype, and in float64."""

    call: Call
    own: Results
    exact: Results

    @functools.cached_property
    def single(self) -> bool:
        """Whether float64 knows better."""
        return any(array.dtype == np.float32 for array in self.call.arrays("input", "in place").values())


def flattened(case: Case, returned: Any) -> Results:
    """What a function gave back, as arrays by name."""
    if returned is None:
        return {}
    if isinstance(returned, Mapping):
        named = {str(name): value for name, value in returned.items()}
    elif isinstance(returned, tuple) and hasattr(returned, "_fields"):
        named = dict(zip(returned._fields, returned, strict=True))
    elif isinstance(returned, (tuple, list)):
        named = {f"result[{i}]": value for i, value in enumerate(returned)}
    else:
        named = {"result": returned}
    found = {name: np.array(value) for name, value in named.items()}
    for name, array in found.items():
        if array.dtype.kind not in "iub" and array.dtype.name not in accuracy.ULPS:
            kind = array.dtype if array.dtype.kind != "O" else type(named[name]).__name__
            raise case.fail(f"{name} is {kind}, expected arrays or numbers of float32, float64, integers or booleans")
    return found


def results(case: Case, call: Call, contestant: str, poison: float = np.nan, **how: Any) -> tuple[Results, list[Fault]]:
    """All that a contestant's call fills, updates and returns, and what was wrong on the way."""
    function = case.placed(case.twins.function(contestant))
    with np.errstate(all="ignore"):
        ran = calls.run(call, function, NOBODY, poison, **how)
    return {**ran.results, **flattened(case, ran.returned)}, list(ran.faults)


def truth(case: Case, call: Call) -> Truth:
    """What is right. Raises FileError where the definition raises or gives nothing."""
    definition = case.twins.definition
    try:
        own, _ = results(case, call, definition)
        exact, _ = results(case, call.in_float64(), definition)
    except (ImportError, FileError):
        raise
    except Exception as error:
        function = case.twins.function(definition)
        raise case.fail(
            f"the definition {getattr(function, '__name__', definition)} raises {in_words(error)}"
        ) from None
    if not own:
        raise case.fail(
            "the definition returns nothing and fills nothing: say twins(..., outputs='y') with the names of the "
            "parameters that it fills"
        )
    return Truth(call, own, exact)


def closeness(case: Case, found: Results, right: Truth) -> dict[str, Closeness]:
    """How close each output is to the truth, by the budget of `kernels.accuracy`."""
    told = case.count("terms", right.call)
    near = {}
    for name, result in found.items():
        own, exact = right.own[name], right.exact[name]
        if result.dtype.kind != "f" or own.dtype.kind != "f":
            error = accuracy.errors(result, own.astype(result.dtype) if result.dtype.kind == "f" else own)
            near[name] = Closeness(error, np.ones(error.shape), np.ones(error.shape))
            continue
        error = accuracy.errors(result, exact)
        same = (result == own) | (np.isnan(result) & np.isnan(own))
        error[np.isinf(error) & same] = 0.0  # the definition overflows as well
        baseline = accuracy.errors(own, exact) if right.single else np.zeros(error.shape)
        size = np.where(np.isfinite(exact), np.abs(exact.astype(np.float64)), 0.0)
        if case.twins.elementwise:
            inputs = right.call.arrays("input", "in place").values()
            for array in inputs:
                if array.dtype.kind == "f" and array.shape == size.shape:
                    size = np.maximum(size, np.where(np.isfinite(array), np.abs(array.astype(np.float64)), 0.0))
        else:
            size = np.full(size.shape, size.max(initial=0.0))
            finite = np.where(np.isfinite(baseline), baseline, 0.0)
            baseline = np.full(baseline.shape, finite.max(initial=0.0))
        limits = np.finfo(own.dtype)
        ulp = limits.eps * size
        terms = told if told is not None else _terms(right.call, result)
        allowed = accuracy.budget(ulp, terms, own.dtype, baseline) + case.twins.ulps * ulp
        near[name] = Closeness(error, allowed, np.maximum(ulp, float(limits.smallest_subnormal)))
    return near


def _terms(call: Call, result: np.ndarray) -> int:
    given = sum(array.size for array in call.arrays("input", "in place").values())
    return max(1, min(given // max(result.size, 1), MOST_TERMS))
