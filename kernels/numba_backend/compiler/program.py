"""Sequences of kernel calls, run in one call from Python.

A kernel's public function reshapes its arguments, chooses a variant and calls compiled code; all of that depends on
shapes alone. So the functions of a sequence are called once while `jit.recording` notes what they would run. A table
then holds the noted arguments in the form in which compiled code takes them, one 64-bit word after the other, and a
loop, `_run`, hands them to one kernel's machine code after another.

A sequence is data: nothing is compiled for it but the kernels themselves, which are the very code that a call from
Python runs. What code takes arguments of some types out of a table, a `_bridge`, is a page of instructions, made anew
in every process in some milliseconds.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import lower_builtin, type_callable

from ...interface import Scalar
from .ahead import compile_ahead
from .jit import ArgumentTypes, CompiledKernel, inside, kernel, noting, recording, threads
from .library import Straight
from .threads import DISABLED, forked, turn

_WORD = ir.IntType(64)
_TABLE = (types.voidptr,)

# --- From words to a call -------------------------------------------------------------------------------------------


def _invoke(bridge: int, table: np.ndarray, at: int) -> None:
    """Call a bridge with the words from `at` on."""


@type_callable(_invoke)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda bridge, table, at: types.void


@lower_builtin(_invoke, types.int64, types.Array, types.int64)
def _(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
    bridge, table, at = values
    data = context.make_array(signature.args[1])(context, builder, table).data
    kind = context.call_conv.get_function_type(types.none, _TABLE)
    words = builder.bitcast(builder.gep(data, [at]), cgutils.voidptr_t)
    _call(context, builder, builder.inttoptr(bridge, kind.as_pointer()), _TABLE, [words])
    return context.get_dummy_value()


def _call(context: Any, builder: ir.IRBuilder, callee: ir.Value, arguments: Any, values: list[ir.Value]) -> None:
    """Call compiled code; its exception, such as for want of memory, is its caller's."""
    status, _ = context.call_conv.call_function(builder, callee, types.none, arguments, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


_bridges: dict[ArgumentTypes, tuple[int, Any]] = {}  # with the library, which keeps the code in memory


def _bridge(arguments: ArgumentTypes) -> int:
    """Address of a function of one pointer, to the address of a kernel's code followed by the arguments' words."""
    with global_compiler_lock:
        if arguments not in _bridges:
            context = cpu_target.target_context
            name = f"bridge{len(_bridges)}"
            library = Straight(context.codegen(), name)
            module = library.create_ir_module(name)
            _write_bridge(context, module, name, arguments)
            library.add_ir_module(module)
            library.finalize()
            _bridges[arguments] = library.get_pointer_to_function(name), library
        return _bridges[arguments][0]


def _write_bridge(context: Any, module: ir.Module, name: str, arguments: ArgumentTypes) -> None:
    """Numba takes an array or a tuple apart into its fields, each of which is a word of the table."""
    convention = context.call_conv
    function = ir.Function(module, convention.get_function_type(types.none, _TABLE), name)
    result, exception, table = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    words = builder.bitcast(table, _WORD.as_pointer())
    kind = convention.get_function_type(types.none, arguments)
    callee = builder.inttoptr(builder.load(words), kind.as_pointer())
    fields = []
    for at, field in enumerate(kind.args[2:], start=1):
        word = builder.gep(words, [ir.Constant(_WORD, at)])
        fields.append(builder.load(builder.bitcast(word, field.as_pointer())))
    builder.ret(builder.call(callee, [result, exception, *fields]))


@kernel
def _run(calls: np.ndarray, table: np.ndarray, places: np.ndarray, words: np.ndarray) -> None:
    """Round after round: put the round's words in their places, then call one after the other."""
    for r in range(words.shape[0]):
        for i in range(places.size):
            table[places[i]] = words[r, i]
        for c in range(calls.shape[0]):
            _invoke(calls[c, 0], table, calls[c, 1])


def _look(clock: int, stamps: np.ndarray, at: int) -> None:
    """Have clock_gettime write the time to stamps[at]: seconds and nanoseconds."""


@type_callable(_look)
def _(context: Any) -> Callable[..., types.Type]:
    return lambda clock, stamps, at: types.void


@lower_builtin(_look, types.int64, types.Array, types.int64)
def _(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
    clock, stamps, at = values
    data = context.make_array(signature.args[1])(context, builder, stamps).data
    place = builder.bitcast(builder.gep(data, [builder.mul(at, ir.Constant(_WORD, 2))]), cgutils.voidptr_t)
    kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), cgutils.voidptr_t])
    builder.call(builder.inttoptr(clock, kind.as_pointer()), [ir.Constant(ir.IntType(32), time.CLOCK_MONOTONIC), place])
    return context.get_dummy_value()


@kernel
def _run_and_look(
    calls: np.ndarray, table: np.ndarray, places: np.ndarray, words: np.ndarray, clock: int, stamps: np.ndarray
) -> None:
    """One round, with a look at the clock before the first call and after each."""
    for i in range(places.size):
        table[places[i]] = words[0, i]
    _look(clock, stamps, 0)
    for c in range(calls.shape[0]):
        _invoke(calls[c, 0], table, calls[c, 1])
        _look(clock, stamps, c + 1)


def _clock() -> int | None:
    """Where clock_gettime lies, which compiled code can call; None where the system has none."""
    if not hasattr(time, "CLOCK_MONOTONIC"):
        return None
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value


# --- From a call to words -------------------------------------------------------------------------------------------


class _Noted:
    """One call of a kernel: its argument types, their words, and which of these are scalars still to come, or pointers
    to arrays."""

    def __init__(self, kernel: CompiledKernel, threads: bool, arguments: tuple[Any, ...]) -> None:
        self.kernel, self.threads = kernel, threads
        self.arguments = arguments  # kept, since the words hold no reference
        self.types = kernel.types(arguments)
        self.compiled = False
        self.words: list[int] = []
        self.places: list[tuple[int, Scalar]] = []
        self.pointers: list[int] = []
        for type_, value in zip(self.types, arguments, strict=False):  # all but the threads
            if isinstance(value, Scalar):
                self.places.append((len(self.words), value))
            elif isinstance(type_, types.Array):
                self.pointers.append(len(self.words) + _POINTER)
            self.words += _words(type_, value)

    def address(self) -> int:
        """Where the kernel's code lies."""
        return self.kernel.address(self.types)


_POINTER = 4  # among an array's words


def _words(type_: types.Type, value: Any) -> list[int]:
    """A value as compiled code has it in memory. An array has no owner there, so that nobody counts references."""
    if isinstance(value, Scalar):
        return [0]
    if isinstance(type_, types.Array):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    if isinstance(type_, types.UniTuple | types.NamedUniTuple) and type_.dtype == types.int64:
        return list(value)
    if isinstance(type_, types.Number | types.Boolean):
        raw = np.array(value, np.dtype(type_.name)).tobytes()
        return [int(np.frombuffer(raw.ljust(8, b"\0"), np.int64)[0])]
    raise TypeError(f"an argument of type {type_} has no words")


# --- Programs -------------------------------------------------------------------------------------------------------


_NOTHING = np.empty((0, 2), np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0), np.int64)
"""What `_run` takes, without calls, words, places and rounds."""


class _Readers(NamedTuple):
    """The places of a table that point into an array, and so many bytes behind its start."""

    array: np.ndarray
    start: int
    places: np.ndarray
    offsets: np.ndarray


class Program:
    """Kernel calls that run in one call, over and over; made by `record`. Programs add up: one after the other.

    ends: for each recorded function, the number of kernel calls up to its end.
    """

    def __init__(self, calls: Sequence[_Noted], ends: Sequence[int]) -> None:
        self._noted, self._ends = calls, ends
        self._linked_in_fork: bool | None = None

    def __add__(self, other: Program) -> Program:
        ends = [*self._ends, *(len(self._noted) + end for end in other._ends)]
        return Program([*self._noted, *other._noted], ends)

    def compile(self) -> None:
        """Have all of it compiled at once, where it is not: in several processes, if that is much."""
        missing = [noted for noted in self._noted if not noted.compiled]
        if missing and noting() is None:
            compile_ahead([*((noted.kernel, noted.types) for noted in missing), (_run, _run.types(_NOTHING))])
            for noted in missing:
                noted.compiled = True

    def run(
        self,
        rounds: int,
        scalars: Mapping[str, Sequence[float]],
        given: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        """All calls, `rounds` times; scalars have a value a round.

        What is given is read where it lies, where that is worth it and it is laid out as the array is.
        """
        if (calls := noting()) is not None:
            calls += [(call.kernel, call.threads, call.arguments) for call in self._noted]
            calls.append((_run, False, _NOTHING))
            return
        if not self._noted:
            return
        words = self._words(rounds, scalars)
        moved: list[_Readers] = []
        with turn():
            try:
                for array, values in given:
                    if _may_stand_for(values, array):
                        readers = self._readers(array)
                        moved.append(readers)
                        self._table[readers.places] = readers.offsets + values.ctypes.data
                    else:
                        array[...] = values
                _run.dispatcher(self._calls, self._table, self._places, words, 1)
            finally:
                for readers in moved:
                    self._table[readers.places] = readers.offsets + readers.start

    def _readers(self, array: np.ndarray) -> _Readers:
        """What points into an array; looked for once, as that takes microseconds."""
        for readers in self._read:
            if readers.array is array:
                return readers
        start = array.ctypes.data
        offsets = self._table[self._pointers] - start
        inside = (offsets >= 0) & (offsets < array.nbytes)
        self._read.append(_Readers(array, start, self._pointers[inside], offsets[inside]))
        return self._read[-1]

    def times(self, scalars: Mapping[str, Sequence[float]]) -> np.ndarray | None:
        """All calls once: the seconds of each recorded function, by the clock's looks between kernels."""
        clock = _clock()
        if clock is None:
            return None
        words = self._words(1, scalars)
        stamps = np.empty((len(self._noted) + 1, 2), np.int64)
        with turn():
            _run_and_look.dispatcher(self._calls, self._table, self._places, words, clock, stamps, 1)
        nanoseconds = stamps[:, 0] * 10**9 + stamps[:, 1]
        seconds: np.ndarray = np.diff(nanoseconds[[0, *self._ends]]) / 1e9
        return seconds

    def _words(self, rounds: int, scalars: Mapping[str, Sequence[float]]) -> np.ndarray:
        """The scalars of every round as words, in the order of their places; the table is laid out where it is not."""
        if self._linked_in_fork is not forked():
            self._link()
        words = np.empty((rounds, self._places.size), np.int64)
        for i, scalar in enumerate(self._scalars):
            words.view(scalar.type)[:, i] = scalars[scalar.name]
        return words

    def _link(self) -> None:
        """Lay the table out. A forked child has one of its own, without threads."""
        self.compile()
        table: list[int] = []
        calls, places, pointers = [], [], []
        for noted in self._noted:
            calls.append((_bridge(noted.types), len(table)))
            table.append(noted.address())
            places += [(len(table) + place, scalar) for place, scalar in noted.places]
            pointers += [len(table) + place for place in noted.pointers]
            table += [*noted.words, threads(noted.threads)]
        self._calls = np.array(calls, np.int64).reshape(-1, 2)
        self._table = np.array(table, np.int64)
        self._places = np.array([place for place, _ in places], np.int64)
        self._pointers = np.array(pointers, np.int64)
        self._read: list[_Readers] = []
        self._scalars = [scalar for _, scalar in places]
        self._linked_in_fork = forked()


_WORTH_IT = 1 << 14  # bytes, which are copied in the time that it takes to have calls read something else


def _may_stand_for(values: np.ndarray, array: np.ndarray) -> bool:
    """Whether code that reads an array can read these values in its place."""
    if array.nbytes < _WORTH_IT or values.shape != array.shape or values.dtype != array.dtype:
        return False
    return bool(values.flags.c_contiguous and values.flags.aligned and array.flags.c_contiguous)


def record(calls: Iterable[tuple[Callable[..., None], Sequence[Any]]]) -> Program | None:
    """The functions with their arguments as a program; None if they do more than to call kernels.

    The functions see arrays that they cannot write to, and scalars with which they cannot compute. What they hand to
    kernels has to lie in the arrays that they were given.
    """
    if DISABLED:
        return None
    noted: list[_Noted] = []
    ends = []
    for function, arguments in calls:
        given = [_read_only(value) if isinstance(value, np.ndarray) else value for value in arguments]
        try:
            arrays = [value for value in given if isinstance(value, np.ndarray)]
            with recording(arrays) as made, np.errstate(all="ignore"):
                function(*given)
            if not all(_is_ours(value, arguments) for *_, handed in made for value in handed):
                return None
            noted += [_Noted(*call) for call in made]
            ends.append(len(noted))
        except (TypeError, ValueError, errors.NumbaError):
            return None
    return Program(noted, ends)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _is_ours(value: Any, arguments: Sequence[Any]) -> bool:
    """Whether a value is no array, an empty one, or part of one of the arguments."""
    return not isinstance(value, np.ndarray) or value.size == 0 or inside(value, arguments)
