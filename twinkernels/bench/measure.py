"""How fast are the twins? Contestants timed side by side, beside the machine's limit, an older revision, and floors."""

from __future__ import annotations

import functools
import math
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import kernels
from kernels.accuracy import Call

from . import gate, memory, timing
from .calls import Function
from .declare import Case, FileError, in_words, read
from .elsewhere import Elsewhere
from .timing import Interval, Sampler
from .truth import NOBODY, Truth, closeness, results, truth

if TYPE_CHECKING:
    from kernels.limits import Limits

ROUNDS = 30
LEAST_ROUNDS = 9
"""Rounds of a case whose calls are so long that there is no time for more."""
SECONDS = 5.0
"""What the rounds of a case may take."""


@dataclass
class Prepared:
    """A contestant's call on arrays of its own. first: seconds of its first call, compiling included."""

    call: Callable[[], Any]
    restore: Callable[[], None] | None
    made: Call
    first: float
    error: float
    baseline: float
    share: float

    def sampler(self) -> Sampler:
        """Times it."""
        return Sampler(self.call, self.restore)


def bound(case: Case, call: Call, function: Function) -> tuple[Callable[[], Any], Callable[[], None] | None]:
    """A call on arrays of its own, allocated and touched, and what gives arrays in place their first values back."""
    arguments = call.fresh(NOBODY)
    placed, values = case.placed(function), tuple(arguments.values())
    in_place = call.arrays("in place")

    def restore() -> None:
        for name, value in in_place.items():
            arguments[name][...] = value

    return functools.partial(placed, *values), restore if in_place else None


def prepare(case: Case, contestant: str, dtype: str | None = None, right: Truth | None = None) -> Prepared:
    """A contestant's call, ready to be timed, with its errors. ImportError where it is not installed."""
    dtype = dtype or case.dtypes[0]
    right = right or truth(case, case.call(dtype))
    call, restore = bound(case, right.call, case.twins.function(contestant))
    began = time.perf_counter()
    with np.errstate(all="ignore"):
        call()
    first = time.perf_counter() - began
    found, _ = results(case, right.call, contestant)
    if len(found) != len(right.own):
        raise case.fail(
            f"{contestant} gives {len(found)} arrays, the definition {case.twins.definition} {len(right.own)}"
        )
    named = dict(zip(right.own, found.values(), strict=True))
    wrong = any(value.shape != right.own[name].shape for name, value in named.items())
    near = {} if wrong else closeness(case, named, right)
    itself = closeness(case, right.own, right)
    return Prepared(
        call,
        restore,
        right.call,
        first,
        math.inf if wrong else max((one.ulps for one in near.values()), default=0.0),
        max((one.ulps for one in itself.values()), default=0.0),
        math.inf if wrong else max((one.share for one in near.values()), default=0.0),
    )


# What came out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A contestant on a case.

    seconds: of a call, the median. speedup: the definition's time over it, in pairs, None for the definition. limit:
    seconds that the machine takes at its best. memory: bytes that a call takes beside its arguments, None where the
    system does not tell. older: the time of the same contestant at another revision over its time, in pairs. missing:
    why it could not be run.
    """

    case: str
    contestant: str
    dtype: str
    seconds: float = math.nan
    speedup: Interval | None = None
    first: float = math.nan
    flops: int | None = None
    bytes: int = 0
    limit: float | None = None
    memory: int | None = None
    error: float = 0.0
    baseline: float = 0.0
    share: float = 0.0
    older: Interval | None = None
    missing: str = ""

    @property
    def id(self) -> str:
        """Under which its floor is kept."""
        return f"{self.case} {self.contestant}" + ("" if self.dtype == "float32" else f" {self.dtype}")

    @property
    def compiling(self) -> float:
        """Seconds that its first call took beyond any other."""
        return max(0.0, self.first - self.seconds)

    @property
    def wrong(self) -> bool:
        """Whether its error is beyond its budget."""
        return not self.share <= 1.0


@dataclass
class Bench:
    """All lines, and what they were measured on."""

    machine: dict[str, Any]
    lines: list[Measured] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """What `--json` keeps: intervals as [low, median, high], infinite errors as "inf"."""

        def plain(value: Any) -> Any:
            if isinstance(value, float) and not math.isfinite(value):
                return str(value)
            return value

        lines = [{name: plain(value) for name, value in asdict(line).items()} for line in self.lines]
        return {"machine": self.machine, "lines": lines}


def machine() -> dict[str, Any]:
    """What figures depend on."""
    versions = {"python": platform.python_version()}
    for name in ("twinkernels", "numpy", "numba"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"kind": _kind(), "threads": kernels.get_threads(), "versions": versions}


def _kind() -> str:
    try:
        return gate.cpu_class()
    except ImportError:  # no Numba, which knows the width of vectors
        return f"{platform.machine().lower()}, {kernels.get_threads()} threads"


# Measuring -------------------------------------------------------------------------------------------------------


def bench(
    cases: Iterable[Case],
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    seed: int = 0,
    limits: Callable[[str], Limits | None] | None = None,
    older: Elsewhere | None = None,
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Iterator[Measured]:
    """Time every contestant of every case, interleaved in random order, each beside the definition in its round.

    Args:
        cases: those with sizes of their own are left out.
        rounds: of a case, each of which samples every contestant once.
        seconds: of a case; where calls are long there are fewer rounds, 9 at least.
        seed: of the order and of the intervals.
        limits: the machine's for a dtype; measured unless given, None where there is no Numba.
        older: what times the same contestants at another revision.
        tell: called with the case, how many are done and how many there are.

    Raises:
        FileError: a case that cannot be timed.
    """
    todo = [(case, dtype) for case in cases if not case.sizes for dtype in case.dtypes]
    limits = limits or machine_limits
    memory.steady()
    for done, (case, dtype) in enumerate(todo):
        tell(case.id, done, len(todo))
        yield from _case(case, dtype, rounds, seconds, seed, limits(dtype), older)
    tell("", len(todo), len(todo))


@functools.cache
def machine_limits(dtype: str) -> Limits | None:
    """This machine's, measured once; None where there is no Numba."""
    try:
        from kernels.limits import measure
    except ImportError:
        return None
    return measure(dtype, repetitions=5)


def _case(
    case: Case, dtype: str, rounds: int, seconds: float, seed: int, limits: Limits | None, older: Elsewhere | None
) -> list[Measured]:
    right = truth(case, case.call(dtype))
    ready: dict[str, Prepared] = {}
    missing: dict[str, str] = {}
    for contestant in case.twins.contestants:
        try:
            ready[contestant] = prepare(case, contestant, dtype, right)
        except FileError:
            raise
        except ImportError as error:
            missing[contestant] = str(error)
        except Exception as error:
            missing[contestant] = in_words(error)
    samplers: dict[str, Callable[[], float]] = {name: prepared.sampler() for name, prepared in ready.items()}
    twins = [name for name in ready if name != case.twins.definition]
    if older is not None:
        samplers |= {f"{name}@": older.sampler(older_id(case, name, dtype)) for name in twins}
    with np.errstate(all="ignore"):
        spent = sampled(samplers, rounds, seconds, seed)

    def ratio(slow: str, fast: str) -> Interval | None:
        known = slow in spent and slow != fast
        return timing.ratio(spent[slow], spent[fast], seed=seed) if known else None

    lines = []
    for contestant in case.twins.contestants:
        if contestant in missing:
            lines.append(Measured(case.id, contestant, dtype, missing=missing[contestant]))
            continue
        prepared = ready[contestant]
        flops = case.count("flops", right.call)
        told = case.count("bytes", right.call)
        size = moved(right) if told is None else told
        lines.append(
            Measured(
                case.id,
                contestant,
                dtype,
                float(np.median(spent[contestant])),
                timing.ratio(spent[case.twins.definition], spent[contestant], seed=seed)
                if contestant in twins
                else None,
                prepared.first,
                flops,
                size,
                None if limits is None else limits.seconds(flops or 0, size),
                memory.peak(prepared.call),
                prepared.error,
                prepared.baseline,
                prepared.share,
                timing.ratio(spent[f"{contestant}@"], spent[contestant], seed=seed)
                if f"{contestant}@" in spent
                else None,
            )
        )
    return lines


def sampled(
    samplers: Mapping[str, Callable[[], float]], rounds: int, seconds: float, seed: int
) -> dict[str, np.ndarray]:
    """As `timing.sample`, in as many rounds as the time allows."""
    began = time.perf_counter()
    first = timing.sample(samplers, 1, seed)
    each = time.perf_counter() - began
    more = min(rounds, max(LEAST_ROUNDS, int(seconds / max(each, 1e-9)))) - 1
    rest = timing.sample(samplers, more, seed + 1)
    return {name: np.concatenate([first[name], rest[name]]) for name in samplers}


def moved(right: Truth) -> int:
    """Bytes of all arrays that are read and of all results, those in place twice."""
    read_ = right.call.arrays("input", "in place").values()
    return sum(array.nbytes for array in read_) + sum(array.nbytes for array in right.own.values())


# The gate over a file --------------------------------------------------------------------------------------------


def races(
    cases: Sequence[Case], floors: Mapping[str, float], rounds: int, unknown: float, against_itself: bool = False
) -> tuple[list[str], gate.Race]:
    """The ids of every twin on every case, and what races one against its definition, or against itself.

    floors: speed-ups by id. unknown: the floor of one that is not among them.
    """
    known: dict[str, tuple[Case, str, str]] = {}
    for case in cases:
        for dtype in () if case.sizes else case.dtypes:
            for contestant in case.twins.contestants:
                if contestant != case.twins.definition:
                    known[Measured(case.id, contestant, dtype).id] = case, contestant, dtype
    shares: dict[str, float] = {}

    def race(id: str, seed: int) -> gate.Outcome:
        case, contestant, dtype = known[id]
        twin = prepare(case, contestant, dtype)
        other = prepare(case, contestant if against_itself else case.twins.definition, dtype)
        shares.setdefault(id, twin.share)
        floor = floors.get(id, unknown)
        with np.errstate(all="ignore"):
            return gate.race(id, (other.sampler(), twin.sampler()), floor, shares[id], rounds, seed, lenient=False)

    for id, (case, contestant, dtype) in list(known.items()):
        try:
            prepare(case, contestant, dtype)
        except ImportError:
            del known[id]
    return list(known), race


def floors_of(path: Path) -> Path:
    """Where a file's floors are kept: beside it."""
    return path.with_suffix(".floors.json")


# Another revision ------------------------------------------------------------------------------------------------


def older_id(case: Case, contestant: str, dtype: str) -> str:
    """What is asked of a process that has another revision."""
    return f"{case.id}\n{contestant}\n{dtype}"


@functools.cache
def _read_once(path: str) -> dict[str, Case]:
    return {case.id: case for case in read(path)}


def prepare_older(path: str, id: str) -> Callable[[], Any]:
    """The call of a contestant of a file, in a process of its own."""
    case_id, contestant, dtype = id.split("\n")
    cases = _read_once(path)
    if case_id not in cases or contestant not in cases[case_id].twins.contestants:
        raise ValueError(f"the other revision has no {contestant} of {case_id}")
    case = cases[case_id]
    call, _ = bound(case, case.call(dtype), case.twins.function(contestant))
    return call


def at_revision(path: Path, revision: str, folder: Path) -> Path:
    """A file as it was at a git revision, with all that lay beside it, in a folder. ValueError where there is none."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", "-C", str(path.absolute().parent), *arguments], capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no file, and no revision in git"]
            raise ValueError(f"--against {revision}: {said[-1]}")
        return done.stdout

    try:
        root = Path(git("rev-parse", "--show-toplevel").decode().strip())
    except FileNotFoundError:
        raise ValueError(f"--against {revision}: no file of this name, and git is not installed") from None
    git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    place = path.absolute().resolve().relative_to(root.resolve())
    with tarfile.open(fileobj=BytesIO(git("-C", str(root), "archive", "--format=tar", revision))) as archive:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on, which then asks for a filter
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    if not (folder / place).is_file():
        raise ValueError(f"--against {revision}: it has no {place}")
    return folder / place


def elsewhere(old: Path, folder: Path) -> Elsewhere:
    """A process that times the contestants of another revision, with a cache of compiled code of its own."""
    environment = {"NUMBA_CACHE_DIR": str(folder / "numba-cache")}
    return Elsewhere(functools.partial(prepare_older, str(old)), environment=environment)
