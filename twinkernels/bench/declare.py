"""What a file of one's own declares: twins, which compute the same, and cases, which are calls of them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kernels.accuracy import Call
from kernels.interface import InPlace, Input, Kernel, Output, roles

from .draw import Draw

Function = Callable[..., Any]
Arguments = dict[str, Any]

HINTS: dict[str, Any] = {"input": Input, "output": Output, "in place": InPlace, "attribute": Any}

SPECIALS: dict[str, tuple[float, ...]] = {
    "nan": (np.nan,),
    "inf": (np.inf, -np.inf),
    "zeros": (-0.0, 0.0),
    "denormals": (1e-40, -1e-42),
    "ties": (),
}
TAKES = (*SPECIALS, "empty", "one", "views", "readonly")
"""What a file may say that its kernels take: values, sizes, and arrays that lie in other ways."""


class FileError(ValueError):
    """A file that cannot be checked or timed; the message names the file, and the thing in it."""


def _names(function: str, argument: str, given: str | Iterable[str]) -> tuple[str, ...]:
    names = tuple(given.split()) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise FileError(f"{function}: {argument} is {given!r}, expected names")
    return names


def _taken(function: str, given: str | Iterable[str]) -> tuple[str, ...]:
    takes = _names(function, "takes", given)
    for name in takes:
        if name not in TAKES:
            raise FileError(f"{function}: takes has {name!r}, expected of {', '.join(TAKES)}")
    return takes


@dataclass(eq=False)
class Twins:
    """Functions that compute the same, the definition first; see `twins`."""

    contestants: dict[str, Function | str]
    name: str = ""
    outputs: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    elementwise: bool = False
    terms: int | Function | None = None
    float64: bool = False
    same_bits: bool = True
    ulps: float = 0.0
    takes: tuple[str, ...] = ()
    folder: Path | None = None
    _kernels: dict[tuple[tuple[str, str], ...], Kernel] = field(default_factory=dict, repr=False)

    @property
    def definition(self) -> str:
        """The name of the contestant that says what is right."""
        return next(iter(self.contestants))

    def function(self, contestant: str) -> Function:
        """A contestant's function; one that is named is imported now. ImportError where there is none."""
        given = self.contestants[contestant]
        if not isinstance(given, str):
            return given
        module, _, attribute = given.partition(":")
        _import_from(self.folder)
        found = importlib.import_module(module)
        if not callable(function := getattr(found, attribute, None)):
            raise FileError(f"{self.name}: {contestant} is {given!r}, but {module} has no function {attribute!r}")
        return function  # type: ignore[no-any-return]

    def kernel(self, parameters: Mapping[str, str]) -> Kernel:
        """The twins as a kernel with these parameters, each in its role."""
        key = tuple(parameters.items())
        if key not in self._kernels:

            def declared() -> None: ...

            declared.__name__ = self.name
            declared.__annotations__ = {name: HINTS[role] for name, role in key}
            declared.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name, _ in key]
            )
            self._kernels[key] = Kernel(declared)
        return self._kernels[key]


def twins(
    *,
    name: str = "",
    outputs: str | Iterable[str] = (),
    in_place: str | Iterable[str] = (),
    elementwise: bool = False,
    terms: int | Function | None = None,
    float64: bool = False,
    same_bits: bool = True,
    ulps: float = 0.0,
    takes: str | Iterable[str] = (),
    **contestants: Function | str,
) -> Twins:
    """Functions that compute the same: ``twins(numpy=softplus_numpy, numba=softplus_numba)``.

    Args:
        name: what they are called; the name of the variable unless told.
        outputs: parameters that are arrays to fill, in full. Those that the definition annotates as `kernels.Output`
            are known.
        in_place: parameters that are arrays to update, `kernels.InPlace` in annotations.
        elementwise: each element of the result depends on the inputs at its place alone, and is measured at its own
            size. Otherwise an error is measured at the size of the largest element.
        terms: in the longest sum, or a function of a case's arguments that tells. Unless told it is the number of
            input elements for each of the output, at most 10,000.
        float64: the twins compute in float64 on purpose where their arrays are float32.
        same_bits: the same call gives the same bits, at any number of threads. The definition is not held to it.
        ulps: how far off an approximation may be, beside the budget of rounding.
        takes: of nan, inf, zeros (of either sign), denormals, ties, empty (an axis), one (element), views (that are
            not contiguous) and readonly: what is tried as well.
        contestants: name=function, the definition first. A function returns its results or fills arrays. A text
            "module:function" is imported when it is run, from the file's folder as well, and so is whatever a
            function imports itself; where that is missing, the contestant is left out with the reason.

    Returns:
        What `case` takes.

    Raises:
        FileError: a mistake in one of them.
    """
    if not contestants:
        raise FileError("twins() has no functions, expected numpy=function and the like, the definition first")
    for contestant, function in contestants.items():
        if not callable(function) and not (isinstance(function, str) and function.count(":") == 1):
            raise FileError(f"twins: {contestant} is {function!r}, expected a function or 'module:function'")
    return Twins(
        contestants,
        name,
        _names("twins", "outputs", outputs),
        _names("twins", "in_place", in_place),
        elementwise,
        terms,
        float64,
        same_bits,
        float(ulps),
        _taken("twins", takes),
    )


@dataclass(frozen=True, eq=False)
class Case:
    """A call of twins; see `case`."""

    twins: Twins
    name: str
    build: Function
    flops: int | Function | None = None
    bytes: int | Function | None = None
    dtypes: tuple[str, ...] = ("float32",)
    takes: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """kernel/case"""
        return f"{self.twins.name}/{self.name}"

    def fail(self, message: str) -> FileError:
        """An error that names the case."""
        return FileError(f"{self.id}: {message}")

    def arguments(self, dtype: DTypeLike = np.float32, seed: int = 0, **sizes: int) -> Arguments:
        """Fresh arguments by name, in the order in which the definition takes them."""
        try:
            made = self.build(Draw(dtype, seed), **sizes)
        except Exception as error:
            raise self.fail(f"the case raises {in_words(error)}") from None
        definition = self.twins.function(self.twins.definition)
        try:
            signature = inspect.signature(definition)
        except (TypeError, ValueError):  # a ufunc, or written in C: by place, in the order of the case
            signature = None
        positional = made if isinstance(made, (tuple, list)) else ()
        named = made if isinstance(made, Mapping) else {}
        if not positional and not named and made is not named:
            raise self.fail(f"the case returns {type(made).__name__}, expected arguments by name")
        if signature is None:
            return dict(named) or {f"x{place}": value for place, value in enumerate(positional)}
        try:
            bound = signature.bind(*positional, **named)
        except TypeError as error:
            raise self.fail(f"{called(definition)} does not take what the case gives: {error}") from None
        arguments: Arguments = {}
        for parameter, value in bound.arguments.items():
            match signature.parameters[parameter].kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    arguments |= {f"{parameter}{place}": each for place, each in enumerate(value)}
                case inspect.Parameter.VAR_KEYWORD:
                    arguments |= value
                case _:
                    arguments[parameter] = value
        return arguments

    def call(self, dtype: DTypeLike = np.float32, seed: int = 0, **sizes: int) -> Call:
        """The call, with every argument in its role."""
        arguments = self.arguments(dtype, seed, **sizes)
        definition = self.twins.function(self.twins.definition)
        annotated: Mapping[str, str] = {}
        with contextlib.suppress(Exception):  # annotations of any kind, or none
            annotated = roles(Kernel(definition))
        found = {}
        for name, value in arguments.items():
            role = annotated.get(name, "attribute")
            if name in self.twins.outputs:
                role = "output"
            elif name in self.twins.in_place:
                role = "in place"
            is_array = isinstance(value, np.ndarray)
            found[name] = (role if role in HINTS and role != "attribute" else "input") if is_array else "attribute"
        for name in (*self.twins.outputs, *self.twins.in_place):
            if name not in found:
                raise self.fail(f"twins say that {name} is filled, but the case has {', '.join(found)}")
        return Call(self.twins.kernel(found), arguments)

    def placed(self, function: Function) -> Function:
        """The function taking its arguments by place, as calls hand them over."""
        definition = self.twins.function(self.twins.definition)
        try:
            parameters = inspect.signature(definition).parameters.values()
        except (TypeError, ValueError):
            return function
        by_name = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        if not by_name:
            return function

        def by_place(*values: Any) -> Any:
            split = len(values) - len(by_name)
            return function(*values[:split], **dict(zip(by_name, values[split:], strict=True)))

        return by_place

    def count(self, what: str, call: Call) -> int | None:
        """flops or bytes of a call, or the terms of its longest sum; None where nobody says."""
        told = self.twins.terms if what == "terms" else getattr(self, what)
        if not callable(told):
            return None if told is None else int(told)
        try:
            return int(told(**call.arguments))
        except Exception as error:
            raise self.fail(f"{what} raises {in_words(error)}") from None


def case(
    kernel: Twins,
    name: str,
    *,
    flops: int | Function | None = None,
    bytes: int | Function | None = None,
    dtypes: str | Iterable[str] = ("float32",),
    takes: str | Iterable[str] = (),
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Callable[[Function], Function]:
    """Declares that the decorated function makes the arguments of a call.

    The function is given a `Draw`, which has the case's dtype, and returns arguments by name, or a tuple of them in
    their order. Arrays of outputs say shape and dtype; what they hold is replaced.

    Args:
        kernel: of `twins`.
        name: of the case, which is then called kernel/name.
        flops: floating-point operations of the call, or a function of its arguments that counts them.
        bytes: that it moves; unless told, all arrays, each once a direction.
        dtypes: of float32 and float64.
        takes: what is tried beside what the twins take; see `twins`.
        sizes: {parameter: (least, most)}. The function is given these as well, and the case is checked at sizes that
            hypothesis chooses, and not timed.

    Raises:
        FileError: a mistake in one of them.
    """
    if not isinstance(kernel, Twins):
        raise FileError(f"case {name!r}: expected twins(...), got {kernel!r}")
    for dtype in (chosen := _names(f"case {name!r}", "dtypes", dtypes)):
        if dtype not in ("float32", "float64"):
            raise FileError(f"case {name!r}: dtypes has {dtype!r}, expected of float32, float64")
    ranges = dict(sizes or {})
    for size, limits in ranges.items():
        if not (isinstance(limits, tuple) and len(limits) == 2 and 0 <= limits[0] <= limits[1]):
            raise FileError(f"case {name!r}: sizes has {size}={limits!r}, expected (least, most)")
    taken = (*kernel.takes, *_taken(f"case {name!r}", takes))

    def declare(build: Function) -> Function:
        if not callable(build):
            raise FileError(f"case {name!r}: decorates {build!r}, expected a function of a Draw")
        declared = Case(kernel, name, build, flops, bytes, chosen, tuple(dict.fromkeys(taken)), ranges)
        _declared.append(declared)
        with contextlib.suppress(AttributeError):  # who imports the function from another module has the case as well
            build.__dict__.setdefault("twinkernels_cases", []).append(declared)
        return build

    return declare


_declared: list[Case] = []
"""Every case that this process has declared, in order."""


def read(path: str | Path) -> list[Case]:
    """The cases of a file, in its order.

    Raises:
        FileError: the file raises, has no case, or two of one name.
        OSError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file" if not path.exists() else "not a file", str(path))
    began = len(_declared)
    module = _executed(path)
    imported = [c for value in vars(module).values() for c in getattr(value, "twinkernels_cases", ())]
    found = list(dict.fromkeys([*imported, *_declared[began:]]))
    found.sort(key=_declared.index)
    if not found:
        have = (
            "twins, but no case" if any(isinstance(v, Twins) for v in vars(module).values()) else "no twins and no case"
        )
        raise FileError(f"{path} has {have}: expected twins(...) and functions under @case(...)")
    for each in found:
        kernel = each.twins
        kernel.folder = path.parent.absolute()
        if not kernel.name:
            first = kernel.contestants[kernel.definition]
            own = first.partition(":")[2] if isinstance(first, str) else called(first)
            where = {**getattr(each.build, "__globals__", {}), **vars(module)}  # a case may be another module's
            kernel.name = next((name for name, value in where.items() if value is kernel), own)
    seen: set[str] = set()
    for each in found:
        if each.id in seen:
            raise FileError(f"{path} has two cases {each.id}")
        seen.add(each.id)
    return found


def _executed(path: Path) -> ModuleType:
    """The file as a module of its own name."""
    name, file = path.stem, str(path.absolute())
    if not name.isidentifier() or (name in sys.modules and getattr(sys.modules[name], "__file__", None) != file):
        name = "twins_" + hashlib.sha256(file.encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    _import_from(path.absolute().parent)
    sys.modules[name] = module  # dataclasses look there for their own
    try:
        spec.loader.exec_module(module)
    except FileError as error:
        raise FileError(f"{path}{_line(error, path)}: {error}") from None
    except Exception as error:
        raise FileError(f"{path}{_line(error, path)}: {in_words(error)}") from None
    return module


def _import_from(folder: Path | None) -> None:
    """Have the folder among those that are imported from, as that of a program that is run: functions import later."""
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.absolute()]
    return f", line {frames[-1].lineno}" if frames else ""


def in_words(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def called(function: Function) -> str:
    return str(getattr(function, "__name__", function))
