"""Are the twins equal? Every check of a contestant on a case, and what is shown where one fails."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import kernels
from kernels.accuracy import Call, Closeness, Results

from . import arrays, timing
from .calls import Fault
from .declare import SPECIALS, Case, FileError, in_words
from .shrink import lengths, resized, shrunk
from .truth import NOBODY, Truth, closeness, flattened, results, truth

CHECKS = ("agreement", "outputs", "inputs", "bounds", "types", "bits", "float64", "takes", "sizes")
"""What is asked of a contestant.

agreement: within the budget. outputs: filled in full, whatever memory held. inputs: unchanged. bounds: nothing written
beside the arrays. types: dtypes and shapes of the definition. bits: the same at a second call and at 1, 2 and 3
threads. float64: no arithmetic in it between float32 arrays. takes, sizes: right on what the file says that it takes.
"""

THREADS = (1, 2, 3)
REPEATS, RACES, RACING = 4, 50, 0.5
"""Further calls at the most threads; how many where Numba's threads may race, and the seconds they may take: a race
seldom shows in one, and on a busy machine in few."""
EXAMPLES = 25
"""Sizes that hypothesis tries."""
SHOWN = 8
HUGE = 1e9


@dataclass(frozen=True)
class Checked:
    """A contestant on a case. error, baseline: its and the definition's, in ulp; share: of its budget, beyond 1 wrong.

    missing: why it could not be run, "" where it was.
    """

    case: str
    contestant: str
    dtype: str
    faults: tuple[Fault, ...] = ()
    error: float = 0.0
    baseline: float = 0.0
    share: float = 0.0
    missing: str = ""

    @property
    def title(self) -> str:
        """Case, contestant and dtype."""
        return f"{self.case} {self.contestant} {self.dtype}"

    def __str__(self) -> str:
        """A line, and the faults below it."""
        if self.missing:
            return f"{self.title}  left out: {self.missing}"
        if not self.faults:
            figures = f"{self.error:.3g} ulp, {self.share:.0%} of its budget; the definition {self.baseline:.3g}"
            return f"{self.title}  ok  {figures}"
        lines = [f"{self.title}  FAILED"]
        for fault in self.faults:
            first, *rest = fault.text.split("\n")
            lines += [f"    {fault.check}: {first}", *(f"        {line}" for line in rest)]
        return "\n".join(lines)


# One contestant on one case --------------------------------------------------------------------------------------


@dataclass
class _Examination:
    case: Case
    contestant: str
    dtype: str
    right: Truth
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_definition(self) -> bool:
        return self.contestant == self.case.twins.definition

    def add(self, check: str, text: str) -> None:
        self.faults.append(Fault(check, text))

    def run(self, call: Call, poison: float = np.nan, **how: Any) -> Results:
        found, faults = results(self.case, call, self.contestant, poison, **how)
        self.faults += [fault for fault in faults if fault not in self.faults]
        return found

    def compare(self, found: Results, right: Truth) -> dict[str, Closeness]:
        """Closeness of what can be compared; what cannot is a fault, or two functions of different kinds."""
        if len(found) != len(right.own):
            definition = self.case.twins.definition
            raise self.case.fail(
                f"{self.contestant} gives {len(found)} arrays ({', '.join(found) or 'none'}), "
                f"{definition} {len(right.own)} ({', '.join(right.own)})"
            )
        found = dict(zip(right.own, found.values(), strict=True))  # names of a tuple's fields may be others
        comparable = {}
        for name, result in found.items():
            own = right.own[name]
            if result.shape != own.shape:
                self.add("types", f"{name} has shape {result.shape}, the definition's {own.shape}")
            else:
                if result.dtype != own.dtype:
                    self.add("types", f"{name} is {result.dtype}, the definition's {own.dtype}")
                comparable[name] = result
        return closeness(self.case, comparable, right)

    def wrong(self, call: Call) -> bool:
        """Whether the contestant is beyond its budget on a call that the definition takes."""
        right = truth(self.case, call)
        found, _ = results(self.case, call, self.contestant)
        found = dict(zip(right.own, found.values(), strict=True))
        return any(near.share > 1.0 for near in closeness(self.case, found, right).values())


def examine(case: Case, contestant: str, dtype: str, right: Truth | None = None, quick: bool = False) -> Checked:
    """Every check of a contestant on a case. quick: those alone whose outcome hangs on sizes.

    Raises FileError where the file itself is at fault.
    """
    right = right or truth(case, case.call(dtype))
    e = _Examination(case, contestant, dtype, right)
    try:
        first = e.run(right.call)
    except ImportError as error:
        return Checked(case.id, contestant, dtype, missing=str(error))
    except FileError:
        raise
    except Exception as error:
        return Checked(case.id, contestant, dtype, (Fault("agreement", f"raises {in_words(error)}"),), math.inf)
    near = e.compare(first, right)
    baseline = closeness(case, right.own, right)
    if fault := _parted(e, right, first, near):
        e.add("agreement", fault + _smallest(e, right.call))
    try:
        _further(e, first, quick)
    except FileError:
        raise
    except Exception as error:
        e.add("agreement", f"raises {in_words(error)} in a later call")
    return Checked(
        case.id,
        contestant,
        dtype,
        tuple(e.faults),
        max((one.ulps for one in near.values()), default=0.0),
        max((one.ulps for one in baseline.values()), default=0.0),
        max((one.share for one in near.values()), default=0.0),
    )


def _further(e: _Examination, first: Results, quick: bool) -> None:
    _outputs(e, first)
    if e.is_definition or quick:
        return
    _unaligned(e)
    wrong = {fault.check for fault in e.faults}
    if e.case.twins.same_bits and "outputs" not in wrong:
        _bits(e, first)
    if not e.case.twins.float64 and e.dtype == "float32":
        _float64(e)
    if e.case.takes and not {"agreement", "outputs"} & wrong:  # what is wrong already is wrong there as well
        _takes(e)


# Where they part -------------------------------------------------------------------------------------------------


def _parted(e: _Examination, right: Truth, found: Results, near: Mapping[str, Closeness]) -> str:
    """The element that is most beyond its budget, in words; "" where none is."""
    named = dict(zip(right.own, found.values(), strict=True))
    worst = max(near, key=lambda name: near[name].share, default=None)
    if worst is None or near[worst].share <= 1.0:
        return ""
    one = near[worst]
    at = np.unravel_index(int(np.argmax(one.error / one.budget)), one.error.shape)
    error, allowed, ulp = (float(array[at]) for array in one)
    wrong = int(np.count_nonzero(one.error > one.budget))
    place = _place(worst, at)
    text = f"{place} is {named[worst][at]!s}, by the definition {right.own[worst][at]!s}"
    if right.single and right.exact[worst].dtype.kind == "f":
        text += f", in float64 {right.exact[worst][at]!s}"
    if math.isfinite(error) and error < HUGE * ulp:
        text += f": {error / ulp:,.3g} ulp, {error / allowed:,.3g} times its budget"
    text += f"; {wrong:,} of {one.error.size:,} elements"
    read = [
        f"{_place(name, at)} = {array[at]!s}"
        for name, array in right.call.arrays("input", "in place").items()
        if array.shape == one.error.shape and array.size
    ]
    return text + (f", with {', '.join(read)}" if read else "")


def _place(name: str, at: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in at)}]" if at else name


def _smallest(e: _Examination, call: Call) -> str:
    """The smallest input at which they still part, in words, on a line of its own."""
    small = shrunk(call, e.wrong)
    shown = ", ".join(_shown(name, value) for name, value in small.arguments.items() if name not in _outputs_of(small))
    try:
        right = truth(e.case, small)
        found, _ = results(e.case, small, e.contestant)
        answers = [
            f"{e.contestant} {_shown(name, theirs)}, {e.case.twins.definition} {_shown(name, own)}"
            for (name, own), theirs in zip(right.own.items(), found.values(), strict=True)
        ]
    except Exception as error:  # the same call went well a moment ago
        answers = [in_words(error)]
    return f"\nsmallest input: {shown}\n" + "\n".join(answers)


def _outputs_of(call: Call) -> Results:
    return call.arrays("output")


def _shown(name: str, value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"{name} = {value!r}"
    text = f"{name} {value.shape} {value.dtype}"
    values = np.array2string(value.ravel(), threshold=SHOWN, edgeitems=SHOWN // 2, separator=", ", max_line_width=10**6)
    return f"{text} {values}"


# The checks ------------------------------------------------------------------------------------------------------


def _outputs(e: _Examination, first: Results) -> None:
    """Outputs hold another poison, and new memory other garbage."""

    def filled(kind: int) -> Results:
        with arrays.garbage(arrays.GARBAGE[kind]):
            return e.run(e.right.call, arrays.POISONS[kind])

    seen = [filled(0)], [filled(1)]
    for name in first:
        differ = _differ(seen[0][0][name], seen[1][0][name])
        if not differ.any():
            continue
        for kind, runs in enumerate(seen):
            while len(runs) <= REPEATS:
                runs.append(filled(kind))
        if any(_differ(runs[0][name], other[name]).any() for runs in seen for other in runs):
            continue  # not even with the same memory: `bits` tells
        held = "as the caller left it" if name in e.right.call.arguments else "or made of memory that nobody wrote"
        count = int(np.count_nonzero(differ))
        e.add("outputs", f"{_place(name, _at(differ))} is unwritten, {held}; {count:,} of {differ.size:,} elements")


def _unaligned(e: _Examination) -> None:
    """Arrays that begin in the middle of a cache line."""
    found = e.run(e.right.call, shift=1)
    if "agreement" not in {fault.check for fault in e.faults}:
        fault = _parted(e, e.right, found, e.compare(found, e.right))
        if fault:
            e.add("agreement", f"with arrays off alignment {fault}")


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where bits differ; two NaN may."""
    differ: np.ndarray = _bits_of(one) != _bits_of(other)
    if one.dtype.kind == "f":
        differ &= ~(np.isnan(one) & np.isnan(other))
    return differ


def _at(where: np.ndarray) -> tuple[Any, ...]:
    """The first place."""
    return np.unravel_index(int(np.argmax(where)), where.shape)


def _bits_of(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "f" else array


def _bits(e: _Examination, first: Results) -> None:
    """The same bits at a second call and at any number of threads."""

    def differing(other: Results) -> str:
        for name, value in first.items():
            differ = _differ(value, other[name])
            if differ.any():
                at, count = _at(differ), int(np.count_nonzero(differ))
                return f"{_place(name, at)} is {value[at]!s} and {other[name][at]!s}; {count:,} elements differ"
        return ""

    if found := differing(e.run(e.right.call)):
        e.add("bits", f"a second call gives other bits: {found}")
        return
    for n in THREADS:
        with threads(n):
            if found := differing(e.run(e.right.call)):
                e.add("bits", f"{n} threads give other bits: {found}")
                return
    with threads(THREADS[-1]):
        if found := next(filter(None, map(differing, _repeated(e))), ""):
            e.add("bits", f"{THREADS[-1]} threads give other bits from call to call: {found}")


def _repeated(e: _Examination) -> Iterator[Results]:
    """What further calls give on the same arrays: more of them where Numba's threads may race, which they seldom do."""
    function = e.case.placed(e.case.twins.function(e.contestant))
    arguments = e.right.call.fresh(NOBODY)
    written = e.right.call.arrays("output", "in place")
    in_place = e.right.call.arrays("in place")
    parallel = getattr(function, "targetoptions", {}).get("parallel", False)
    until, done = time.perf_counter() + RACING, 0
    while done < REPEATS or (parallel and done < RACES and time.perf_counter() < until):
        for name, value in in_place.items():
            arguments[name][...] = value
        with np.errstate(all="ignore"):
            returned = function(*arguments.values())
        yield {**{name: arguments[name] for name in written}, **flattened(e.case, returned)}
        done += 1


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """So many threads in every backend, and in Numba's functions of whoever wrote them."""
    before = kernels.get_threads()
    timing.set_threads(n)
    try:
        yield
    finally:
        timing.set_threads(before)


_DOUBLE = re.compile(r"= (?:fadd|fsub|fmul|fdiv|frem|fneg|fpext)\b[^\n]*\bdouble\b")


def _float64(e: _Examination) -> None:
    """Whether Numba's code for float32 arrays computes in float64: one literal is enough."""
    function = e.case.twins.function(e.contestant)
    compiled = getattr(function, "overloads", None)
    given = e.right.call.arrays("input", "in place").values()
    if not isinstance(compiled, Mapping) or any(array.dtype == np.float64 for array in given):
        return
    for signature, overload in compiled.items():
        types = [str(getattr(type_, "dtype", type_)) for type_ in signature]
        if "float32" not in types or any("array" in str(t) and "float64" in str(t) for t in signature):
            continue
        library = getattr(overload, "library", None)
        kept = getattr(library, "_shared_module", None)  # what Numba's cache had; of it `inspect_llvm` tells nothing
        found = _DOUBLE.findall(str(kept) if kept is not None else library.get_llvm_str() if library else "")
        if found:
            floats = [name for name, value in e.right.call.arguments.items() if type(value) is float]
            blame = f" {', '.join(floats)} given as Python's float is one reason." if floats else ""
            e.add(
                "float64",
                f"computes in float64 between float32 arrays ({len(found)} instructions).{blame} Write "
                "np.float32(2.0) for 2.0, or say twins(..., float64=True) if it is meant",
            )
            return


def _takes(e: _Examination) -> None:
    for what in e.case.takes:
        for call, how in variants(e.right.call, what):
            try:
                right = truth(e.case, call)
            except Exception:
                if what in ("empty", "one"):
                    continue  # not of this axis
                raise
            try:
                found = e.run(call, **how)
            except Exception as error:
                e.add("takes", f"{what}: raises {in_words(error)}")
                break
            fault = _parted(e, right, found, e.compare(found, right))
            if fault:
                e.add("takes", f"{what}: {fault}" + ("" if how else _smallest(e, call)))
                break
            if fault := _near_zero(what, right, found):
                e.add("takes", f"{what}: {fault}")
                break


def _near_zero(what: str, right: Truth, found: Results) -> str:
    """Where a zero has another sign, or a denormal has become one, in words; no budget tells these apart."""
    for (name, own), result in zip(right.own.items(), found.values(), strict=True):
        if own.dtype.kind != "f" or what not in ("zeros", "denormals"):
            continue
        if what == "zeros":
            wrong = (own == 0) & (np.signbit(own) != np.signbit(result))
        else:
            wrong = (own != 0) & (np.abs(own) < np.finfo(own.dtype).tiny) & (result == 0)
        if wrong.any():
            at = _at(wrong)
            return f"{_place(name, at)} is {result[at]!s}, by the definition {own[at]!s}"
    return ""


def variants(call: Call, what: str) -> Iterator[tuple[Call, dict[str, Any]]]:
    """Calls that try what a file says that it takes, and how they are made."""
    floats = {name: array for name, array in call.arrays("input").items() if array.dtype.kind == "f" and array.size}
    match what:
        case "views":
            yield call, {"gap": 1}
        case "readonly":
            yield call, {"read_only": True}
        case "empty":
            for length in lengths(call):
                yield resized(call, length, 0), {}
        case "one":
            for length in lengths(call):
                yield resized(call, length, 1), {}
            for length in lengths(call):
                call = resized(call, length, 1)
            yield call, {}
        case "ties":
            ties = {name: np.clip(np.round(array), -2, 2) for name, array in floats.items()}
            yield Call(call.kernel, {**call.arguments, **ties}), {}
        case _:
            rng = np.random.default_rng(0)
            for name, array in floats.items():
                planted = array.copy()
                places = {0, array.size - 1, *rng.integers(0, array.size, 2).tolist()}
                for place, value in zip(sorted(places), SPECIALS[what] * len(places), strict=False):
                    planted.flat[place] = value
                yield Call(call.kernel, {**call.arguments, name: planted}), {}


# Sizes -----------------------------------------------------------------------------------------------------------


def of_sizes(case: Case, contestant: str, dtype: str) -> Checked:
    """A case whose sizes are chosen: the corners of their ranges, then what hypothesis finds; the smallest is shown."""
    failed: dict[str, tuple[dict[str, int], Checked]] = {}

    def holds(sizes: dict[str, int]) -> Checked:
        try:
            found = examine(case, contestant, dtype, truth(case, case.call(dtype, **sizes)), quick=True)
        except FileError as error:
            raise FileError(f"{error} (at {_sized(sizes)})") from None
        if found.faults:
            failed["last"] = sizes, found
        return found

    low, high = ({name: limits[end] for name, limits in case.sizes.items()} for end in (0, 1))
    corners = [low, high, *({**high, name: value} for name, value in low.items())]
    found = Checked(case.id, contestant, dtype)
    for sizes in corners:
        one = holds(sizes)
        if one.missing:
            return one
        found = max(found, one, key=lambda checked: (checked.share, checked.error))
        if one.faults:
            break
    with contextlib.suppress(_Found):
        _search(case, holds)
    if not failed:
        return found
    sizes, found = failed["last"]
    return replace(
        found, faults=tuple(Fault("sizes", f"{_sized(sizes)}: {fault.check}: {fault.text}") for fault in found.faults)
    )


def _sized(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sizes.items())


class _Found(Exception):
    """A fault, for hypothesis to make smaller."""


def _search(case: Case, holds: Callable[[dict[str, int]], Checked]) -> None:
    try:
        import hypothesis
        from hypothesis import strategies
    except ImportError:  # corners alone
        return
    ranges = {name: strategies.integers(*limits) for name, limits in case.sizes.items()}
    quiet = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )

    @quiet
    @hypothesis.given(strategies.fixed_dictionaries(ranges))
    def test(sizes: dict[str, int]) -> None:
        if holds(sizes).faults:
            raise _Found

    test()


# A file ----------------------------------------------------------------------------------------------------------


def check(cases: Iterable[Case]) -> Iterator[Checked]:
    """Every contestant of every case, in each of its dtypes, the definition first.

    Args:
        cases: as `read` gives them.

    Returns:
        What was found, as it is found; each is its own line of what `twinkernels check` prints.

    Raises:
        FileError: a case that no twin could pass: its definition raises, or gives nothing, or a contestant gives
            another number of arrays.
    """
    for case in cases:
        for dtype in case.dtypes:
            right = None if case.sizes else truth(case, case.call(dtype))
            for contestant in case.twins.contestants:
                if case.sizes:
                    yield of_sizes(case, contestant, dtype)
                else:
                    yield examine(case, contestant, dtype, right)
