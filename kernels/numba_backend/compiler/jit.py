"""The one decorator: compiler flags, disk cache and threads. No other file says njit.

``@kernel`` makes a function with ``prange`` loops callable from Python. Its helpers differ in what they cost:
``@inline`` and ``@region`` merge small ones into their callers, ``@serial`` and ``@disjoint`` leave a function of its
own, which is compiled again with every kernel that calls it, and ``@separate`` compiles a large one once, under
declared types.
With NUMBA_DISABLE_JIT=1 all of them leave plain Python behind.

Flags. ``fastmath`` allows reordering and fusing but keeps NaN and Inf meaningful; ``error_model="numpy"`` drops
the checks for division by zero; of the parallel passes only ``prange`` is on, the others cost compile time.

Cache. Numba's own key sees a function but not its helpers or the tile's code, so the folder's name carries a hash
of every source that can change the machine code. A folder that cannot be written or read means compiling again,
never an error.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, ClassVar

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
import platformdirs
from numba import prange, types
from numba.core import caching, cgutils, event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import lower_builtin, type_callable
from numba.np.ufunc import parallel as _pool

from ...interface import Scalar
from ...threads import available_cores, get_threads, on_change

__all__ = [
    "DISABLED",
    "Bytes",
    "Flat",
    "cache_directory",
    "disjoint",
    "exact",
    "forked",
    "functions",
    "inline",
    "kernel",
    "needs",
    "prange",
    "recording",
    "region",
    "separate",
    "serial",
    "strict",
    "turn",
    "use_threads",
]

DISABLED = bool(numba.config.DISABLE_JIT)
"""Whether NUMBA_DISABLE_JIT asks for plain Python."""

FLAGS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "nogil": True}
_OTHER_PASSES = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PARALLEL = {"prange": True, **dict.fromkeys(_OTHER_PASSES, False)}

serial = numba.njit(**FLAGS)
"""Decorator for a helper that stays a function of its own in the machine code."""

inline = numba.njit(forceinline=True, **FLAGS)
"""Decorator for a helper that is merged into its caller: register tiles stay in registers."""

region = numba.njit(inline="always", **FLAGS)
"""Decorator for a helper with ``prange`` loops: merged into the kernel that calls it before those become parallel."""


exact = numba.njit(forceinline=True, **{**FLAGS, "fastmath": {"contract", "nsz"}})
"""`inline` for arithmetic that must keep its order: error terms and range reductions rest on it."""

_STRICT: dict[str, Any] = {**FLAGS, "fastmath": False}

strict = numba.njit(forceinline=True, **_STRICT)
"""`inline` for a `kernel` that is `strict`."""


class _Disjoint(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


disjoint = numba.njit(pipeline_class=_Disjoint, **FLAGS)
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

    def __init__(self, function: FunctionType) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = inspect.signature(function, eval_str=True)
        self.dispatcher = _compiled(function)
        _kernel_dispatchers.discard(id(self.dispatcher))  # no kernel of its own, to those who watch the messages
        self.symbols: dict[types.Type, str] = {}
        functions[function.__module__, function.__qualname__] = self

    def variant(self, threads: bool) -> Any:
        """The Numba dispatcher: there is but one, without threads of its own."""
        return self.dispatcher

    def types(self, dtype: types.Type) -> tuple[types.Type, ...]:
        """The declared types of the arguments."""
        return tuple(_declared(parameter.annotation, dtype) for parameter in self.signature.parameters.values())

    def provide(self, dtype: types.Type) -> str:
        """Name of the symbol under which compiled code finds the variant of this dtype; compiled or loaded if new."""
        if dtype not in self.symbols:
            symbol = f"{self.name}.{dtype}"
            llvm.add_symbol(symbol, _address(self.dispatcher, self.types(dtype)))
            self.symbols[dtype] = symbol
        return self.symbols[dtype]


_separate: dict[Any, _Separate] = {}

functions: dict[tuple[str, str], _Separate | Kernel] = {}
"""Every function whose machine code has a place of its own in the cache, by module and name."""


def _address(dispatcher: Any, arguments: tuple[types.Type, ...]) -> int:
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
    if annotation in (int, bool):
        return {int: types.int64, bool: types.boolean}[annotation]
    return types.NamedUniTuple(types.int64, len(annotation._fields), annotation)


def _dtype(arguments: tuple[types.Type, ...]) -> types.Type:
    """The dtype that a kernel computes in: that of its first array of floats."""
    return next(a.dtype for a in arguments if isinstance(getattr(a, "dtype", None), types.Float))


def separate(function: FunctionType) -> FunctionType:
    """Decorator for a large helper, called from compiled code: compiled once a dtype, and linked by name.

    Numba otherwise optimises a function again in each of its callers, at three levels for every ``prange`` loop.
    The arguments are declared: `Flat`, `Bytes`, int, bool or a NamedTuple of ints. Nothing is returned.
    """
    if DISABLED:
        return function
    separate_ = _separate[function] = _Separate(function)

    @type_callable(function)
    def _typer(context: Any) -> Callable[..., Any]:
        def typer(*arguments: types.Type) -> Any:
            dtype = _dtype(arguments)
            separate_.provide(dtype)
            return types.void(*separate_.types(dtype))

        typer.__signature__ = separate_.signature  # type: ignore[attr-defined]
        return typer

    @lower_builtin(function, types.VarArg(types.Any))
    def _lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.call_conv.get_function_type(types.none, signature.args)
        callee = cgutils.get_or_insert_function(builder.module, kind, separate_.provide(_dtype(signature.args)))
        context.call_conv.call_function(builder, callee, types.none, signature.args, values)
        return context.get_dummy_value()

    return function


def needs(
    function: FunctionType, arguments: tuple[types.Type, ...]
) -> Iterator[tuple[str, str, tuple[types.Type, ...]]]:
    """The `separate` functions that code for these argument types is linked with: module, name, argument types."""
    for needed in _called(function):
        yield needed.__module__, needed.__qualname__, _separate[needed].types(_dtype(arguments))


def _called(function: FunctionType) -> set[FunctionType]:
    """The `separate` functions that a function calls, itself or through its helpers."""
    found = set()
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        value = getattr(value, "__wrapped__", getattr(value, "py_func", value))
        if isinstance(value, FunctionType):
            found |= {value} if value in _separate else _called(value)
    return found


class Kernel:
    """A compiled function with ``prange`` loops, called from Python in the way that the threads of this process allow.

    `parallel` and `serial` are the Numba dispatchers behind it, for calls from compiled code. Arguments named in
    `optional` (name: number of axes) may be None in a call from Python; the function sees an empty array. Calls whose
    arguments are `small` run without threads.
    """

    def __init__(
        self,
        function: FunctionType,
        optional: Mapping[str, int],
        small: Callable[..., bool] | None,
        strict: bool,
    ) -> None:
        self.__name__, self.__doc__, self.__wrapped__ = function.__name__, function.__doc__, function
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__
        names = list(inspect.signature(function).parameters)
        self._optional = tuple((names.index(name), ndim) for name, ndim in optional.items())
        self._small = small
        self._serial: Callable[..., None] | None = None
        self._flags = _STRICT if strict else FLAGS
        self.parallel = _compiled(function, self._flags, parallel=_PARALLEL)
        functions[function.__module__, function.__qualname__] = self

    @property
    def serial(self) -> Callable[..., None]:
        """The same function without threads; a twin under another name, since Numba's cache would confuse the two."""
        if self._serial is None:
            function = self.__wrapped__
            twin = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_serial")
            twin.__qualname__ = f"{function.__qualname__}_serial"
            twin.__module__ = function.__module__
            self._serial = _compiled(twin, self._flags)
        return self._serial

    def variant(self, threads: bool) -> Any:
        """The Numba dispatcher with or without threads."""
        return self.parallel if threads else self.serial

    def __call__(self, *args: Any) -> None:
        if self._small is not None and self._small(*args):
            self.alone(*args)
            return
        args = self._prepared(args)
        if _this_thread.recorded is not None:
            _this_thread.recorded.append((self, True, args))
        elif DISABLED:
            _plainly(self.__wrapped__, args)
        else:
            with turn():
                (self.serial if _forked else self.parallel)(*args)

    def alone(self, *args: Any) -> None:
        """The call without threads."""
        args = self._prepared(args)
        if _this_thread.recorded is not None:
            _this_thread.recorded.append((self, False, args))
        elif DISABLED:
            _plainly(self.__wrapped__, args)
        else:
            self.serial(*args)

    def types(self, arguments: Iterable[Any]) -> tuple[types.Type, ...]:
        """The argument types of a recorded call; a `Scalar` is yet to come."""
        return tuple(_SCALARS[a.type] if isinstance(a, Scalar) else self.parallel.typeof_pyval(a) for a in arguments)

    def address(self, threads: bool, arguments: tuple[types.Type, ...]) -> int:
        """Where the machine code for these argument types lies, with or without threads; compiled or loaded if new."""
        return _address(self.variant(threads), arguments)

    def _prepared(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """None as an empty array, and read-only arrays as others: each mix of either would be compiled anew."""
        for position, ndim in self._optional:
            if args[position] is None:
                args = (*args[:position], _absent(args[0].dtype, ndim), *args[position + 1 :])
        for position, value in enumerate(args):
            if type(value) is np.ndarray and not value.flags.writeable:
                args = (*args[:position], _writable(value), *args[position + 1 :])
        return args

    def __repr__(self) -> str:
        return f"<kernel {self.__name__}{inspect.signature(self.__wrapped__)}>"


_SCALARS = {int: types.int64, float: types.float64}

Call = tuple[Kernel, bool, tuple[Any, ...]]
"""A kernel, whether it is called with threads, and its arguments."""


@contextlib.contextmanager
def recording() -> Iterator[list[Call]]:
    """The calls of kernels that this Python thread makes within: noted, not carried out."""
    _this_thread.recorded = calls = []
    try:
        yield calls
    finally:
        _this_thread.recorded = None


def kernel(
    function: FunctionType | None = None,
    *,
    optional: Mapping[str, int] | None = None,
    small: Callable[..., bool] | None = None,
    strict: bool = False,
) -> Any:
    """Decorator for a function with ``prange`` loops that Python calls; gives a `Kernel`.

    `optional` names the arguments that may be None and their number of axes. They arrive as arrays of size 0, so
    that one compiled variant serves both. `small` is asked, with a call's arguments, whether threads would not pay.
    `strict` leaves every operation its order and its rounding: in a x + b y the compiler else chooses the product that
    goes into a multiply-add, another with threads than without.
    """
    if function is None:
        return lambda decorated: Kernel(decorated, optional or {}, small, strict)
    return Kernel(function, optional or {}, small, strict)


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


# --- Cache ----------------------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where compiled kernels are kept: under NUMBA_CACHE_DIR if set, else in the user's cache folder."""
    return Path(numba.config.CACHE_DIR or platformdirs.user_cache_dir("twinkernels")) / f"numba-{_sources_hash()}"


_SETTINGS = (
    *("OPT", "ENABLE_AVX", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DISABLE_INTEL_SVML"),
    *("DEBUGINFO_DEFAULT", "BOUNDSCHECK", "DEBUG_NRT", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS"),
)
"""Of Numba's own, those that change machine code. The processor and its features are in Numba's key."""


def _sources_hash() -> str:
    package = Path(__file__).parents[2]
    settings = [getattr(numba.config, name, None) for name in _SETTINGS]
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {settings}".encode())
    for path in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


_CACHE_DIRECTORY = str(cache_directory())


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Points Numba at our folder, whose name already stands for the state of the sources."""

    def __init__(self, function: FunctionType) -> None:
        self._place = f"{function.__module__}.{function.__code__.co_firstlineno}"

    @classmethod
    def from_function(cls, function: FunctionType, _file: str) -> _Locator:
        return cls(function)

    def get_cache_path(self) -> str:
        return _CACHE_DIRECTORY

    def get_source_stamp(self) -> str:
        return _CACHE_DIRECTORY

    def get_disambiguator(self) -> str:
        return self._place


class _CacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar = [_Locator]


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Numba's cache, for which an unreadable or unwritable folder is an empty one."""

    _impl_class = _CacheImpl

    def holds(self, arguments: tuple[types.Type, ...]) -> bool:
        """Whether code for these argument types is listed; whether it is whole shows when it is loaded."""
        with contextlib.suppress(Exception):
            return self._index_key(arguments, cpu_target.target_context.codegen()) in self._cache_file._load_index()
        return False

    def is_writable(self) -> bool:
        """Whether what is compiled can be kept."""
        with contextlib.suppress(OSError):
            self._impl.locator.ensure_cache_path()
            return True
        return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        for function in _called(self._py_func):  # what is loaded refers to them by name
            _separate[function].provide(_dtype(getattr(sig, "args", sig)))
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a torn file raises whatever unpickling happens to meet
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:  # a torn index: begin it anew
                self.flush()
                super().save_overload(sig, data)


_SHARED = (llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr)


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Machine code that runs the same bits, whether the compiler hands it over or the cache.

    Numba compiles the body of a ``prange`` loop as a library of its own and links a copy into the kernel's, where it is
    optimised again. Both are weak symbols: after compiling the first was called; out of the cache, which keeps only the
    kernel's, the second. They differed where the optimiser had chosen another product for a multiply-add. A copy that
    is private to its library is the one that is called.
    """

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:  # not sooner: a private function would be inlined otherwise
            if not function.is_declaration and function.linkage in _SHARED:
                function.linkage = llvm.Linkage.internal


class _Whole(CompilerBase):  # type: ignore[misc]
    """Numba's pipeline, into a `_Library`."""

    def define_pipelines(self) -> list[Any]:
        codegen = self.state.targetctx.codegen()
        self.state.library = _Library(codegen, self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


def _compiled(function: FunctionType, flags: Mapping[str, Any] = FLAGS, **options: Any) -> Any:
    dispatcher = numba.njit(**flags, **options, pipeline_class=_Whole)(function)
    if not DISABLED:
        dispatcher._cache = _Cache(function)
        _kernel_dispatchers.add(id(dispatcher))
    return dispatcher


# --- What is being compiled -----------------------------------------------------------------------------------------

verbose: bool | None = {"0": False, "1": True}.get(os.environ.get("TWINKERNELS_VERBOSE", ""))
"""Whether to say on stderr what is being compiled; None: only on a terminal. TWINKERNELS_VERBOSE=0 or 1 sets it."""

_kernel_dispatchers: set[int] = set()


class _CompileMessage(event.Listener):  # type: ignore[misc]
    def on_start(self, occurrence: Any) -> None:
        dispatcher = occurrence.data["dispatcher"]
        if id(dispatcher) not in _kernel_dispatchers or not (sys.stderr.isatty() if verbose is None else verbose):
            return
        dtype = next((a.dtype for a in occurrence.data["args"] if hasattr(a, "dtype")), "no array")
        name = dispatcher.py_func.__name__
        print(f"twinkernels: compiling {name} for {dtype} (once; kept in {_CACHE_DIRECTORY})", file=sys.stderr)

    def on_end(self, occurrence: Any) -> None:
        pass


event.register("numba:compile", _CompileMessage())


class _NoCollection(event.Listener):  # type: ignore[misc]
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


# --- Threads --------------------------------------------------------------------------------------------------------


class _Settings:
    """The thread count asked for. A new object for each change, so that threads notice by identity."""

    def __init__(self, threads: int) -> None:
        self.threads = threads


class _ThisThread(threading.local):
    settings: _Settings | None = None
    recorded: list[Call] | None = None


_settings = _Settings(get_threads())
_this_thread = _ThisThread()
_one_at_a_time = threading.RLock()
_concurrent = False  # whether Python threads may enter parallel regions at the same time
_forked = False  # whether this process is the child of one whose OpenMP pool did not survive the fork


def _load_openmp() -> None:
    """Load OpenMP's pool in a way that its waiting threads soon sleep.

    GNU OpenMP spins for milliseconds at every barrier. Where Linux has put two of its threads on one core, or another
    program holds a core, the one that spins keeps the other from what it waits for, and a region of 30 µs lasts a
    scheduler's time slice: 8 ms were seen, and steps of a cnn-bn with a mean of 97 ms instead of 3.4. Fewer rounds
    than a thread takes to wake up are no good either: on a virtual machine that is 0.1 to 0.3 ms, and who waits for
    one that wakes falls asleep as well, so that the next region begins with the same. 5000 rounds lie between: beside
    2000 they took a quarter off the mean step of a cnn-bn where nothing else ran, and added as much where another
    program held a core; 20000 doubled it there. OMP_WAIT_POLICY or GOMP_SPINCOUNT rule where they are set. The variable
    is read once and taken back, so that no child process inherits it.
    """
    if os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        return
    os.environ["GOMP_SPINCOUNT"] = "5000"
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc.omppool")
    del os.environ["GOMP_SPINCOUNT"]


if not DISABLED:
    _load_openmp()


@on_change
def use_threads(n: int) -> None:
    """Use n threads from now on, whichever Python thread calls; `kernels.set_threads` checks n and calls this."""
    global _settings
    _settings = _Settings(n)


_nothing = contextlib.nullcontext()


def turn() -> contextlib.AbstractContextManager[object]:
    """What to hold while code with threads runs; brings this Python thread up to date."""
    if _this_thread.settings is not _settings:
        _enter_thread()
    return _nothing if _concurrent or _forked else _one_at_a_time


def forked() -> bool:
    """Whether this process is the child of one whose threads did not survive the fork: parallel code would kill it."""
    return _forked


def _enter_thread() -> None:
    """Bring this Python thread up to date: Numba keeps the thread count for each of them."""
    global _concurrent
    settings = _settings
    if not (DISABLED or _forked):
        _raise_ceiling()
        numba.set_num_threads(min(settings.threads, numba.config.NUMBA_NUM_THREADS))
        _concurrent = numba.threading_layer() != "workqueue"  # which aborts when entered twice
    _this_thread.settings = settings


def _raise_ceiling() -> None:
    """Let set_threads ask for more threads than cores, unless NUMBA_NUM_THREADS rules or the pool already runs.

    Numba reads its ceiling at import, too early for us, so its copies are set as well.
    """
    ceiling = max(numba.config.NUMBA_NUM_THREADS, 2 * available_cores(), 8, _settings.threads)
    if "NUMBA_NUM_THREADS" not in os.environ and not getattr(_pool, "_is_initialized", True):
        numba.config.NUMBA_NUM_THREADS = _pool.NUM_THREADS = ceiling
        _pool.snt_check = _pool.gen_snt_check()


def _after_fork() -> None:
    """In a forked child: OpenMP's pool would kill it, so run serially; a lock may have been held by a lost thread."""
    global _concurrent, _forked, _one_at_a_time
    global_compiler_lock.release()
    _one_at_a_time = threading.RLock()
    _this_thread.settings = None
    if getattr(_pool, "_threading_layer", None) == "omp":
        _concurrent, _forked = False, True


if hasattr(os, "register_at_fork"):
    # Numba's compiler must not be at work in another thread while the process forks: the child would wait for ever.
    os.register_at_fork(
        before=global_compiler_lock.acquire, after_in_parent=global_compiler_lock.release, after_in_child=_after_fork
    )
