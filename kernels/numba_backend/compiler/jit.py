"""The one decorator: compiler flags, and how compiled functions are called. No other file says njit.

``@kernel`` makes a function with ``prange`` loops callable from Python. Its helpers differ in what they cost:
``@inline`` merges small ones into their callers, ``@serial`` and ``@disjoint`` leave a function of its own, which is
optimised again with every kernel that calls it, and ``@separate`` compiles a large one once, under declared types.
With NUMBA_DISABLE_JIT=1 all of them leave plain Python behind.

Flags. ``fastmath`` allows reordering and fusing but keeps NaN and Inf meaningful; ``error_model="numpy"`` drops
the checks for division by zero. Which of Numba's passes run, `passes` says; what becomes of ``prange``, `loops`.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import gc
import inspect
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any, get_type_hints

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import prange, types
from numba.core import cgutils, event
from numba.core.registry import CPUDispatcher
from numba.extending import lower_builtin, type_callable

from ...compiling import watched
from ...interface import Scalar
from .cache import DIRECTORY, Cache
from .library import DisjointPart, Linked, Part, Whole
from .loops import THREADS, bring_symbols, has_loops, remember, rewritten, with_threads, worker
from .threads import DISABLED, forked, turn, use_threads

__all__ = [
    "ArgumentTypes",
    "Bytes",
    "CompiledKernel",
    "Constant",
    "Flat",
    "disjoint",
    "exact",
    "functions",
    "inline",
    "inside",
    "kernel",
    "needs",
    "noting",
    "pieces",
    "prange",
    "recording",
    "separate",
    "serial",
    "strict",
    "threads",
    "use_threads",
    "worker",
]

ArgumentTypes = tuple[types.Type, ...]
"""Numba's types of a function's arguments."""

FLAGS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "nogil": True}


class Constant:
    """Declared type of a helper's argument that the compiler is to know: it is compiled once for each number in a call.

    Numba does so for every number, each time with all that the helper calls.
    """


class _Callee(CPUDispatcher):
    """What the compiler makes of a helper."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Numba's, with the type of each number in place of the number, unless that is declared `Constant`."""
        declared = self.py_func.__annotations__
        named = zip(self.py_func.__code__.co_varnames, args, strict=False)
        wanted = Constant, Constant.__name__  # as it is written, or as text in a file that postpones annotations
        plain = [type_ if declared.get(name) in wanted else _plain(type_) for name, type_ in named]
        return super().get_call_template(plain, kws)


def _plain(type_: types.Type) -> types.Type:
    return types.unliteral(type_) if isinstance(type_, types.IntegerLiteral | types.BooleanLiteral) else type_


class _Later:
    """Decorator for an attribute that is made when it is first asked for. Of two threads that ask at once both get the
    same."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return instance.__dict__.setdefault(self._name, self._make(instance))


class _Helper:
    """A function that kernels call. Called from Python it is plain Python, so that what lays scratch out for a kernel
    also says how much that is.

    Numba's dispatcher is made for those that are compiled: to make all 464 took a tenth of a second of every start.
    """

    def __init__(self, function: FunctionType, options: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func, self.takes_threads, self._options = function, has_loops(function), options
        remember(function)

    def __call__(self, *args: Any) -> Any:
        return self.py_func(*args)

    @_Later
    def dispatcher(self) -> Any:
        dispatcher = _dispatcher(self.py_func, self._options, self.takes_threads)
        dispatcher.__class__ = _Callee
        return dispatcher

    @property
    def _numba_type_(self) -> types.Type:
        return self.dispatcher._numba_type_


def _helper(flags: Mapping[str, Any], pipeline: type[Part] = Part) -> Callable[[FunctionType], Any]:
    def decorate(function: FunctionType) -> Any:
        if DISABLED:
            return numba.njit(**flags)(function)
        return _Helper(function, {**flags, "pipeline_class": pipeline})

    return decorate


def _dispatcher(function: FunctionType, options: Mapping[str, Any], takes_threads: bool) -> Any:
    """Numba's dispatcher for a function. One that takes threads has one more argument, and its loops become parts of
    the same flags."""
    if not takes_threads:
        return numba.njit(**options)(function)
    dispatcher = numba.njit(**options)(with_threads(function))
    flags = {name: value for name, value in options.items() if name not in ("pipeline_class", "forceinline")}

    def part(loop: FunctionType, disjoint: bool) -> Any:
        return numba.njit(**flags, pipeline_class=DisjointPart if disjoint else Part)(loop)

    dispatcher._compiler._get_implementation = lambda args, kws: rewritten(function, part)
    return dispatcher


serial = _helper(FLAGS)
"""Decorator for a helper that stays a function of its own in the machine code."""

inline = _helper({**FLAGS, "forceinline": True})
"""Decorator for a helper that is merged into its caller: register tiles stay in registers."""

exact = _helper({**FLAGS, "forceinline": True, "fastmath": {"contract", "nsz"}})
"""`inline` for arithmetic that must keep its order: error terms and range reductions rest on it."""

_STRICT: dict[str, Any] = {**FLAGS, "fastmath": False}

strict = _helper({**_STRICT, "forceinline": True})
"""`inline` for a `kernel` that is `strict`."""

disjoint = _helper(FLAGS, DisjointPart)
"""`serial` for a helper whose array arguments share no memory, or are only read.

Vector code for a loop over few channels then need not check them first: such checks are as long as the loop, and beyond
two or three arrays LLVM takes the scalar loop instead (max-pool's gradient: 17 times slower).
"""


class Flat:
    """Declared type of a `separate` function's argument: the memory of an array of the kernel's dtype, see `tile.flat`.

    Compiled it is a bare pointer. Numba counts the references to an array wherever it changes hands, which empties the
    registers every time.
    """


class Bytes:
    """`Flat` for an array of unsigned bytes."""


class _Separate:
    """What stands behind a `separate` function: its compiled variants, one a dtype, as symbols for other code."""

    def __init__(self, function: FunctionType, strict: bool) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._function, self._options = function, {**(_STRICT if strict else FLAGS), "pipeline_class": Linked}
        self._takes_threads = function.takes_threads = has_loops(function)  # type: ignore[attr-defined]
        remember(function)
        self.symbols: dict[types.Type, str] = {}
        functions[function.__module__, function.__qualname__] = self

    @_Later
    def dispatcher(self) -> Any:
        """Numba's."""
        return _cached(_dispatcher(self._function, self._options, self._takes_threads), self._function)

    @_Later
    def signature(self) -> inspect.Signature:
        """With the number of threads, if it takes that."""
        if self._takes_threads:
            return inspect.signature(with_threads(self._function))
        return inspect.signature(self._function, eval_str=True)

    def declared(self, dtype: types.Type) -> ArgumentTypes:
        """The declared types of the arguments."""
        hints = [parameter.annotation for parameter in self.signature.parameters.values()]
        return tuple(THREADS if hint is inspect.Parameter.empty else _declared(hint, dtype) for hint in hints)

    def provide(self, dtype: types.Type) -> str:
        """Name of the symbol under which compiled code finds the variant of this dtype; compiled or loaded if new."""
        if dtype not in self.symbols:
            symbol = f"{self.name}.{dtype}"
            llvm.add_symbol(symbol, _address(self.dispatcher, self.declared(dtype)) if linked else id(self))
            self.symbols[dtype] = symbol
        return self.symbols[dtype]


_separate: dict[Any, _Separate] = {}

linked = True
"""Whether code is linked with what it calls. Where it is only compiled, for the cache, any address will do."""

functions: dict[tuple[str, str], _Separate | CompiledKernel] = {}
"""Every function whose machine code has a place of its own in the cache, by module and name."""


def _address(dispatcher: Any, arguments: ArgumentTypes) -> int:
    """Where the machine code for these argument types lies; compiled or loaded if new."""
    # By types alone, as a call from Python asks: the cache would keep the same code again under a whole signature.
    dispatcher.compile(arguments)
    result = dispatcher.overloads[arguments]
    address: int = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
    return address


def _declared(annotation: Any, dtype: types.Type) -> types.Type:
    if annotation is Flat:
        return types.CPointer(dtype)
    if annotation is Bytes:
        return types.CPointer(types.uint8)
    if annotation in (int, bool, float):
        return {int: types.int64, bool: types.boolean, float: types.float64}[annotation]
    fields = get_type_hints(annotation)
    return types.BaseTuple.from_types([_declared(field, dtype) for field in fields.values()], annotation)


def _dtype(arguments: Iterable[types.Type], *otherwise: Any) -> Any:
    """The dtype that a kernel computes in, that of its first array of floats; else what is given for want of one."""
    floats = (a.dtype for a in _leaves(arguments) if isinstance(getattr(a, "dtype", None), types.Float))
    return next(floats, *otherwise)


def _leaves(arguments: Iterable[types.Type]) -> Iterator[types.Type]:
    """The argument types, those of a tuple one by one."""
    for type_ in arguments:
        if isinstance(type_, types.BaseTuple):
            yield from _leaves(type_)
        else:
            yield type_


def separate(function: FunctionType | None = None, *, strict: bool = False) -> Any:
    """Decorator for a large helper, called from compiled code: compiled once a dtype, and linked by name.

    Numba otherwise optimises a function again in each of its callers, at three levels for every ``prange`` loop.
    The arguments are declared: `Flat`, `Bytes`, int, bool, float or a NamedTuple of such. Nothing is returned. `strict`
    as for a `kernel`. With ``prange`` loops it is called where those may be shared out.
    """
    if function is None:
        return lambda decorated: separate(decorated, strict=strict)
    if DISABLED:
        return function
    separate_ = _separate[function] = _Separate(function, strict)

    @type_callable(function)
    def _typer(context: Any) -> Callable[..., Any]:
        def typer(*arguments: types.Type) -> Any:
            dtype = _dtype(arguments)
            separate_.provide(dtype)
            return types.void(*separate_.declared(dtype))

        typer.__signature__ = separate_.signature  # type: ignore[attr-defined]
        return typer

    @lower_builtin(function, types.VarArg(types.Any))
    def _lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.call_conv.get_function_type(types.none, signature.args)
        callee = cgutils.get_or_insert_function(builder.module, kind, separate_.provide(_dtype(signature.args)))
        context.call_conv.call_function(builder, callee, types.none, signature.args, values)
        return context.get_dummy_value()

    return function


def needs(function: FunctionType, arguments: ArgumentTypes) -> Iterator[tuple[str, str, ArgumentTypes]]:
    """The `separate` functions that code for these argument types is linked with: module, name, argument types."""
    for needed in _called(function):
        yield needed.__module__, needed.__qualname__, _separate[needed].declared(_dtype(arguments))


@functools.cache
def _called(function: FunctionType) -> frozenset[FunctionType]:
    """The `separate` functions that a function calls, itself or through its helpers."""
    found: set[FunctionType] = set()
    for value in _names(function):
        found |= {value} if value in _separate else _called(value)
    return frozenset(found)


def pieces(function: FunctionType, arguments: ArgumentTypes) -> dict[tuple[FunctionType, Any], int]:
    """What is compiled with a function for these argument types: itself and its helpers, each with the dtype, and with
    a measure of how much that is."""
    found: dict[tuple[FunctionType, Any], int] = {}
    dtype, left = _dtype(arguments, None), [function]
    while left:
        piece = left.pop()
        if (piece, dtype) not in found and (piece is function or piece not in _separate):
            found[piece, dtype] = len(piece.__code__.co_code)
            left += _names(piece)
    return found


@functools.cache
def _names(function: FunctionType) -> tuple[FunctionType, ...]:
    """The helpers and `separate` functions that a function names."""
    # co_names would hold the attributes as well: `exp` of `elementary.exp`, which may be another function here.
    names = {step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"}
    found = []
    for value in (function.__globals__.get(name) for name in sorted(names)):
        plain = value.py_func if isinstance(value, _Helper) else value
        if isinstance(plain, FunctionType) and (plain is not value or plain in _separate):
            found.append(plain)
    return tuple(found)


def _provide_called(function: FunctionType, arguments: ArgumentTypes) -> None:
    """Have what code for these argument types refers to by name: `separate` functions, and threads."""
    bring_symbols()
    for called in _called(function):
        _separate[called].provide(_dtype(arguments))


class CompiledKernel:
    """A compiled function with ``prange`` loops, called from Python in the way that the threads of this process allow.

    Arguments named in `optional` (name: number of axes) may be None in a call from Python; the function sees an empty
    array. Calls whose arguments are `small` run without threads.
    """

    def __init__(
        self,
        function: Callable[..., None],
        optional: Mapping[str, int],
        small: Callable[..., bool] | None,
        strict: bool,
    ) -> None:
        assert isinstance(function, FunctionType)
        self.__name__, self.__doc__, self.__wrapped__ = function.__name__, function.__doc__, function
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        names = list(inspect.signature(function).parameters)
        self._optional = tuple((names.index(name), ndim) for name, ndim in optional.items())
        self._small = small
        self._asked = _picker([names.index(name) for name in inspect.signature(small).parameters] if small else [])
        self._flags = _STRICT if strict else FLAGS
        remember(function)
        functions[function.__module__, function.__qualname__] = self

    @_Later
    def dispatcher(self) -> Any:
        """Numba's."""
        if DISABLED:
            return numba.njit(**self._flags)(self.__wrapped__)
        options = {**self._flags, "pipeline_class": Whole}
        dispatcher = _cached(_dispatcher(self.__wrapped__, options, takes_threads=True), self.__wrapped__)
        _kernel_dispatchers.add(id(dispatcher))
        return dispatcher

    def __call__(self, *args: Any) -> None:
        if self._small is not None and self._small(*self._asked(args)):
            self.alone(*args)
            return
        args = self._prepared(args)
        if _recording.notes(args):
            _recording.calls.append((self, True, args))
        elif DISABLED:
            _plainly(self.__wrapped__, args)
        else:
            with turn():
                self.dispatcher(*args, threads(True))

    def alone(self, *args: Any) -> None:
        """The call without threads."""
        args = self._prepared(args)
        if _recording.notes(args):
            _recording.calls.append((self, False, args))
        elif DISABLED:
            _plainly(self.__wrapped__, args)
        else:
            self.dispatcher(*args, threads(False))

    def types(self, arguments: Iterable[Any]) -> ArgumentTypes:
        """The argument types of a recorded call; a `Scalar` is yet to come."""
        given = (_SCALARS[a.type] if isinstance(a, Scalar) else self.dispatcher.typeof_pyval(a) for a in arguments)
        return (*given, THREADS)

    def address(self, arguments: ArgumentTypes) -> int:
        """Where the machine code for these argument types lies; compiled or loaded if new."""
        return _address(self.dispatcher, arguments)

    def _prepared(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """None as an empty array, read-only arrays as others, and ints, for the compiler, as 64 bits with a sign, whose
        arithmetic wraps.

        Each mix of either would be compiled anew.
        """
        for position, ndim in self._optional:
            if args[position] is None:
                args = (*args[:position], _absent(args[0].dtype, ndim), *args[position + 1 :])
        for position, value in enumerate(args):
            if type(value) is np.ndarray and not value.flags.writeable:
                args = (*args[:position], _writable(value), *args[position + 1 :])
            elif type(value) is int and value >= 1 << 63 and not DISABLED:
                args = (*args[:position], value - (1 << 64), *args[position + 1 :])
        return args

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}{inspect.signature(self.__wrapped__)}>"


def threads(wanted: bool) -> int:
    """A compiled kernel's last argument: 0 for all threads, 1 for none beside the caller."""
    return 0 if wanted and not forked() else 1


def _picker(positions: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """What picks the arguments at these positions out of all."""
    return operator.itemgetter(*positions) if len(positions) > 1 else lambda args: tuple(args[i] for i in positions)


_SCALARS = {int: types.int64, float: types.float64}

Call = tuple[CompiledKernel, bool, tuple[Any, ...]]
"""A kernel, whether it is called with threads, and its arguments."""


class _Recording(threading.local):
    active = False
    calls: list[Call] = []  # noqa: RUF012 - replaced by each recording
    arrays: Sequence[np.ndarray] | None = None

    def notes(self, args: Sequence[Any]) -> bool:
        """Whether a call is to be noted instead of carried out: one on none of the recorded arrays is somebody else's,
        such as a signal handler's, who waits for its results."""
        return self.active and (self.arrays is None or any(inside(value, self.arrays) for value in args))


_recording = _Recording()


def _extent(array: np.ndarray) -> int:
    """Bytes from an array's first element to behind its last: more than it has where it is a part of another."""
    if array.flags.c_contiguous:
        return int(array.nbytes)
    ends = (size - 1 for size in array.shape)
    return int(array.itemsize + sum(end * stride for end, stride in zip(ends, array.strides, strict=True)))


def inside(value: Any, arrays: Iterable[Any]) -> bool:
    """Whether a value is part of one of the arrays, and not empty."""
    if not isinstance(value, np.ndarray) or value.size == 0:
        return False
    start = value.ctypes.data
    whole = [(a.ctypes.data, _extent(a)) for a in arrays if isinstance(a, np.ndarray)]
    return any(begin <= start and start + value.nbytes <= begin + size for begin, size in whole)


@contextlib.contextmanager
def recording(arrays: Sequence[np.ndarray] | None = None) -> Iterator[list[Call]]:
    """The calls of kernels that this Python thread makes within: noted, not carried out.

    arrays: if given, only calls on parts of these are noted. A recording within another, as of a signal handler, leaves
    that as it was.
    """
    calls: list[Call] = []
    before = _recording.active, _recording.calls, _recording.arrays
    _recording.active, _recording.calls, _recording.arrays = True, calls, arrays
    try:
        yield calls
    finally:
        _recording.active, _recording.calls, _recording.arrays = before


def noting() -> list[Call] | None:
    """What all calls of this Python thread are added to instead of being carried out; None if they are carried out."""
    return _recording.calls if _recording.active and _recording.arrays is None else None


def kernel(
    function: Callable[..., None] | None = None,
    *,
    optional: Mapping[str, int] | None = None,
    small: Callable[..., bool] | None = None,
    strict: bool = False,
) -> Any:
    """Decorator for a function with ``prange`` loops that Python calls; gives a `CompiledKernel`.

    `optional` names the arguments that may be None and their number of axes. They arrive as arrays of size 0, so
    that one compiled variant serves both. `small` is asked whether threads would not pay, with those of a call's
    arguments that it names. `strict` leaves every operation its order and its rounding: in a x + b y the compiler else
    chooses the product that goes into a multiply-add, perhaps another in each kernel that a helper is linked with.
    """
    if function is None:
        return lambda decorated: CompiledKernel(decorated, optional or {}, small, strict)
    return CompiledKernel(function, optional or {}, small, strict)


def _plainly(function: Callable[..., None], args: tuple[Any, ...]) -> None:
    with np.errstate(all="ignore"):  # NumPy's scalars warn where compiled code does not
        function(*args)


def _writable(array: np.ndarray) -> np.ndarray:
    """The same memory without the mark; kernels write to no input."""
    interface = array.__array_interface__ | {"data": (array.ctypes.data, False)}
    return np.asarray(SimpleNamespace(__array_interface__=interface, memory=array))


_absent_arrays: dict[tuple[np.dtype, int], np.ndarray] = {}


def _absent(dtype: np.dtype, ndim: int) -> np.ndarray:
    array = _absent_arrays.get((dtype, ndim))
    if array is None:
        array = _absent_arrays[dtype, ndim] = np.empty((0,) * ndim, dtype)
    return array


def _cached(dispatcher: Any, function: FunctionType) -> Any:
    dispatcher._cache = Cache(function, lambda arguments: _provide_called(function, arguments))
    return dispatcher


# --- What is being compiled -----------------------------------------------------------------------------------------

verbose: bool | None = {"0": False, "1": True}.get(os.environ.get("TWINKERNELS_VERBOSE", ""))
"""Whether to say on stderr what is being compiled; None: only on a terminal. TWINKERNELS_VERBOSE=0 or 1 sets it."""

_kernel_dispatchers: set[int] = set()


class _CompileMessage(event.Listener):
    def on_start(self, occurrence: Any) -> None:
        dispatcher = occurrence.data["dispatcher"]
        said = sys.stderr.isatty() and not watched() if verbose is None else verbose  # a listener shows it itself
        if id(dispatcher) not in _kernel_dispatchers or not said:
            return
        dtype = next((a.dtype for a in occurrence.data["args"] if hasattr(a, "dtype")), "no array")
        name = dispatcher.py_func.__name__
        print(f"twinkernels: compiling {name} for {dtype} (once; kept in {DIRECTORY})", file=sys.stderr)

    def on_end(self, occurrence: Any) -> None:
        pass


event.register("numba:compile", _CompileMessage())


class _NoCollection(event.Listener):
    """Keeps Python from looking for garbage while Numba compiles, which takes a tenth of the time and finds little."""

    _compilations, _enabled = 0, False  # Numba compiles in one thread at a time

    def on_start(self, occurrence: Any) -> None:
        if self._compilations == 0:
            self._enabled = gc.isenabled()
            gc.disable()
        self._compilations += 1

    def on_end(self, occurrence: Any) -> None:
        self._compilations -= 1
        if self._compilations == 0 and self._enabled:
            gc.enable()


event.register("numba:compile", _NoCollection())
