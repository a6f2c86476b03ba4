"""What becomes of a loop over ``prange``: a function of its own, whose rounds the threads share out.

Numba's own way compiles such a loop three times over, and the whole kernel again for calls without threads. Here a
function with such loops takes one more argument, the number of threads, and its source is rewritten::

    for i in prange(n):                      def loop(first, end, worker, x, y):
        y[i] = x[i]                              for i in range(first, end):
                                                     y[i] = x[i]

                                             launch(loop, threads, n, (x, y))

Each thread has a stretch of the rounds, and takes a piece of it after the other; who has done takes of the others'.
What a round only needs while it runs may lie where its `worker` had that of the last one, which is still in its cache.

Functions with loops that it calls are handed the number on; from within a loop, which one thread runs, a 1. Nothing
that a loop assigns is seen outside it.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any, TypeGuard

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable
from numba.np.ufunc.parallel import _launch_threads

from ..tiles.tile import flat, lanes

__all__ = ["THREADS", "bring_symbols", "has_loops", "remember", "rewritten", "with_threads", "worker"]

bring_symbols = _launch_threads
"""To be called before code with loops is linked: what it calls comes with Numba's threads."""

THREADS = types.int64
"""Type of the further argument: how many threads, 0 for as many as `kernels.set_threads` says."""

_THREADS, _LAUNCH, _FLAT = "threads__", "launch__", "flat__"
_FIRST, _END, _WORKER = _OWN = ("first__", "end__", "worker__")
"""Arguments of a loop's function, before those that it captures."""


def worker() -> int:
    """In a loop: a number below those of threads and of rounds, which no two rounds have at the same time."""
    return 0


def has_loops(function: FunctionType) -> bool:
    """Whether a function has loops over ``prange``, or calls one that has."""
    return any(_is_loop(function, name) or _takes_threads(function, name) for name in function.__code__.co_names)


def _is_loop(function: FunctionType, name: str) -> bool:
    return function.__globals__.get(name) is numba.prange


def _takes_threads(function: FunctionType, name: str) -> bool:
    return bool(getattr(function.__globals__.get(name), "takes_threads", False))


_imported: dict[str, tuple[int, int] | None] = {}
"""The files whose functions will be rewritten, as they were when these were made."""


def _state(file: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = os.stat(file)
        return found.st_mtime_ns, found.st_size
    return None


def remember(function: FunctionType) -> None:
    """Take down the state of a function's file, while it is what was imported."""
    file = function.__code__.co_filename
    if file not in _imported:
        _imported[file] = _state(file)


def with_threads(function: FunctionType) -> FunctionType:
    """The same function under a signature with one more argument, to be `rewritten` when it is compiled."""
    twin = FunctionType(function.__code__, function.__globals__, function.__name__)
    twin.__module__, twin.__qualname__, twin.__doc__ = function.__module__, function.__qualname__, function.__doc__
    signature = inspect.signature(function, eval_str=True)
    threads = inspect.Parameter(_THREADS, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    twin.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), threads]
    )
    return twin


def rewritten(function: FunctionType, part: Callable[[FunctionType, bool], Any]) -> FunctionType:
    """The function without its loops.

    part: compiles a loop's function, given whether what it is handed are arguments of the function, which share no
    memory, rather than views of them.
    """
    tree, definition = _source(function)
    arguments = [argument.arg for argument in definition.args.args]
    rewriter = _Rewriter(function)
    definition.body = [rewriter.visit(statement) for statement in definition.body]
    definition.args.args.append(ast.arg(_THREADS))
    tree.body = [*rewriter.loops, definition]
    names: dict[str, Any] = {**function.__globals__, _LAUNCH: launch, _FLAT: flat}
    exec(compile(ast.fix_missing_locations(tree), function.__code__.co_filename, "exec"), names)
    for loop in rewriter.loops:
        captured = [argument.arg for argument in loop.args.args[len(_OWN) :]]
        names[loop.name].__module__ = function.__module__
        names[loop.name] = part(names[loop.name], set(captured) <= set(arguments))
    result: FunctionType = names[function.__name__]
    result.__module__, result.__qualname__ = function.__module__, function.__qualname__
    return result


def _source(function: FunctionType) -> tuple[ast.Module, ast.FunctionDef]:
    """A function's definition, less what there is beside arguments and body. OSError where it cannot be read or is no
    longer what it was: the cache would keep the new code as the old source's."""
    file = function.__code__.co_filename
    if _state(file) != _imported[file]:
        raise OSError(f"{file} has changed since it was imported: start Python again")
    lines, number = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, number - 1)
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list, definition.returns = [], None
    for argument in definition.args.args:
        argument.annotation = None
    return tree, definition


class _Rewriter(ast.NodeTransformer):
    """Takes the loops out of a function; `loops` are the functions that they become."""

    def __init__(self, function: FunctionType) -> None:
        self._function, self._within = function, False
        self.loops: list[ast.FunctionDef] = []

    def visit_For(self, node: ast.For) -> ast.AST:
        if not (isinstance(node.iter, ast.Call) and _is_loop(self._function, getattr(node.iter.func, "id", ""))):
            return self.generic_visit(node)
        (count,) = node.iter.args
        if self._within:
            node.iter = _call("range", count)
            return self.generic_visit(node)
        captured = _captured(node, self._function.__code__.co_varnames)
        pointers = [name for name in captured if self._is_memory_alone(name, node.body)]
        node.body = [_Pointers(self._function, pointers).visit(statement) for statement in node.body]
        self._within = True
        self.generic_visit(node)
        self._within = False
        name = f"{self._function.__name__}_loop{len(self.loops)}"
        node.iter = _call("range", ast.Name(_FIRST, ast.Load()), ast.Name(_END, ast.Load()))
        parameters = [ast.arg(each) for each in (*_OWN, *captured)]
        self.loops.append(
            ast.FunctionDef(
                name,
                ast.arguments(posonlyargs=[], args=parameters, kwonlyargs=[], kw_defaults=[], defaults=[]),
                [node],
                [],
                **_location(node),
            )
        )
        arrays: list[ast.expr] = [ast.Name(each, ast.Load()) for each in captured]
        values = [_call(_FLAT, x) if each in pointers else x for each, x in zip(captured, arrays, strict=True)]
        handed = ast.Tuple(values, ast.Load())
        launched = _call(_LAUNCH, ast.Name(name, ast.Load()), ast.Name(_THREADS, ast.Load()), count, handed)
        return ast.copy_location(ast.Expr(launched), node)

    def _is_memory_alone(self, name: str, body: list[ast.stmt]) -> bool:
        """Whether all that a loop takes of a variable is its memory and the length of vectors: as an array it would be
        some ten words instead of one, each handed over one by one."""
        nodes = [node for statement in body for node in ast.walk(statement)]
        read = [node.id for node in nodes if isinstance(node, ast.Name)].count(name)
        memory, length = (
            [ast.unparse(node.args[0]) for node in nodes if _calls(node, self._function, called)].count(name)
            for called in (flat, lanes)
        )
        return memory > 0 and memory + length == read

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _calls(node, self._function, worker):
            return ast.Name(_WORKER, ast.Load())
        if isinstance(node.func, ast.Name) and _takes_threads(self._function, node.func.id):
            node.args.append(ast.Constant(1) if self._within else ast.Name(_THREADS, ast.Load()))
        return node


class _Pointers(ast.NodeTransformer):
    """`flat(x)` becomes x, for some names x: what the loop is handed is the memory."""

    def __init__(self, function: FunctionType, names: Sequence[str]) -> None:
        self._function, self._names = function, names

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _calls(node, self._function, flat) and ast.unparse(node.args[0]) in self._names:
            return node.args[0]
        return node


def _calls(node: ast.AST, function: FunctionType, called: Any) -> TypeGuard[ast.Call]:
    """Whether a piece of a function is a call of this one."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and function.__globals__.get(node.func.id) is called
    )


def _location(node: ast.stmt) -> dict[str, Any]:
    return {name: getattr(node, name) for name in node._attributes}


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _captured(loop: ast.For, variables: Iterable[str]) -> list[str]:
    """The function's variables that a loop reads and does not assign."""
    nodes = (node for statement in (loop.target, *loop.body) for node in ast.walk(statement))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    read = {node.id for node in names} - assigned
    return [name for name in variables if name in read]


# --- Sharing a loop out ---------------------------------------------------------------------------------------------


def launch(loop: Any, threads: int, n: int, captured: tuple[Any, ...]) -> None:
    """loop(first, end, worker, *captured) for pieces of range(n), by so many threads."""


@type_callable(launch)
def _(context: Any) -> Callable[..., types.Type]:
    def typer(loop: types.Dispatcher, threads: Any, n: Any, captured: types.BaseTuple) -> types.Type:
        loop.get_call_type(context, _types(captured), {})
        return types.void

    return typer


def _types(captured: types.BaseTuple) -> tuple[types.Type, ...]:
    return (types.int64,) * len(_OWN) + tuple(map(types.unliteral, captured))


_INT, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_PIECES = 8  # of a thread's stretch of more than two rounds: the last to finish is waited for no longer than one takes
_MOST_STRETCHES = 32  # more threads have some in common
_APART = 16  # numbers before each that threads write: two lines of a cache, which are fetched together
_HEAD = (_INT, _INT, _INT, _INT, _INT, ir.ArrayType(_INT, (1 + _MOST_STRETCHES) * _APART))
_N, _STRETCHES, _EACH, _VISITS, _FAILED, _TAKEN = range(len(_HEAD))
"""What the threads of a loop share: its rounds, in how many stretches they lie, of how many pieces each, to how many a
thread goes, or 0 for its own alone, whether one has failed, and how much of each is taken; behind it lies what the loop
reads."""

_PART = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _INT.as_pointer(), _INT.as_pointer(), _BYTES])


@lower_builtin(launch, types.VarArg(types.Any))
def _(context: Any, builder: ir.IRBuilder, signature: Any, values: tuple[ir.Value, ...]) -> ir.Value:
    dispatcher, captured = signature.args[0], signature.args[3]
    arguments = _types(captured)
    threads, n = (context.cast(builder, values[i], signature.args[i], types.int64) for i in (1, 2))
    result = dispatcher.dispatcher.overloads[arguments]
    context.active_code_library.add_linking_library(result.library)
    bring_symbols()

    handed = [
        _borrowed(context, builder, type_, context.cast(builder, value, given, type_))
        for given, type_, value in zip(
            captured, arguments[len(_OWN) :], cgutils.unpack_tuple(builder, values[3]), strict=True
        )
    ]
    with builder.goto_entry_block():  # Numba's `alloca_once` would fill all of it with zeros
        shared = builder.alloca(ir.LiteralStructType([*_HEAD, *(value.type for value in handed)]))
    part = _part(context, builder.module, result.fndesc, arguments, shared.type)

    one, zero = _INT(1), _INT(0)
    count = cgutils.alloca_once_value(builder, threads)
    with builder.if_then(builder.icmp_signed("==", threads, zero)):
        asked = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, []), "get_num_threads")
        builder.store(builder.call(asked, []), count)
    pool = builder.load(count)
    parts = builder.select(builder.icmp_signed("<", n, pool), n, pool)
    several = builder.icmp_signed(">", parts, one)
    stretches = builder.select(builder.icmp_signed("<", parts, _INT(_MOST_STRETCHES)), parts, _INT(_MOST_STRETCHES))
    stretches = builder.select(several, stretches, one)
    many = builder.and_(several, builder.icmp_signed(">", n, builder.mul(parts, _INT(2))))  # enough to help with
    pieces, visits = builder.select(many, _INT(_PIECES), one), builder.select(many, stretches, zero)
    for i, value in enumerate([n, stretches, pieces, visits, zero]):
        builder.store(value, cgutils.gep_inbounds(builder, shared, 0, i))
    for i, value in enumerate(handed, start=len(_HEAD)):
        builder.store(value, cgutils.gep_inbounds(builder, shared, 0, i))
    taken = cgutils.gep_inbounds(builder, shared, 0, _TAKEN, _APART)
    with cgutils.for_range(builder, stretches) as each:
        builder.store(zero, cgutils.gep_inbounds(builder, taken, builder.mul(each.index, _INT(_APART))))
    # The number of the first part goes in as an address, which `numba_parallel_for` moves on by steps of one byte.
    number = cgutils.alloca_once_value(builder, ir.Constant(_BYTES, None))
    step, dims = cgutils.alloca_once_value(builder, one), cgutils.alloca_once_value(builder, parts)
    builder.store(parts, dims)
    builder.store(one, step)
    data = builder.bitcast(shared, _BYTES)
    with builder.if_else(several) as (shared_out, alone):
        with shared_out:
            types_ = [_BYTES] * 5 + [_INT] * 3
            run = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), types_), "numba_parallel_for"
            )
            pointers = [builder.bitcast(pointer, _BYTES) for pointer in (part, number, dims, step)]
            builder.call(run, [*pointers, data, zero, one, pool])
        with alone:
            builder.store(one, dims)
            builder.call(part, [number, dims, step, data])
    failed = builder.load(cgutils.gep_inbounds(builder, shared, 0, _FAILED))
    with cgutils.if_unlikely(builder, builder.icmp_signed("!=", failed, zero)):
        context.call_conv.return_user_exc(builder, MemoryError, ())
    return context.get_dummy_value()


def _borrowed(context: Any, builder: ir.IRBuilder, type_: types.Type, value: ir.Value) -> ir.Value:
    """An array without its owner, so that no thread counts references."""
    if isinstance(type_, types.Array):
        array = context.make_array(type_)(context, builder, value)
        array.meminfo, array.parent = (ir.Constant(field.type, None) for field in (array.meminfo, array.parent))
        value = array._getvalue()
    return value


def _part(
    context: Any, module: ir.Module, loop: Any, arguments: tuple[types.Type, ...], shared: ir.Type
) -> ir.Function:
    """What `numba_parallel_for` calls for a thread: the pieces of its own stretch of the loop that nobody has taken,
    one after the other, then those of the next stretches.

    A thread that is late, or slower, is helped out; one that is not finds in its caches what it left there before.
    Where pieces begin and end does not depend on who takes them.
    """
    name = f"{loop.llvm_func_name}.part"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, _PART, name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    number, dims, _, data = function.args
    data = builder.bitcast(data, shared)
    n, stretches, pieces, visits, *values = (
        builder.load(cgutils.gep_inbounds(builder, data, 0, i))
        for i in (_N, _STRETCHES, _EACH, _VISITS, *range(len(_HEAD), len(shared.pointee.elements)))
    )
    callee = context.declare_function(module, loop)
    own, parts, one = builder.ptrtoint(builder.load(number), _INT), builder.load(dims), _INT(1)
    visits = builder.select(builder.icmp_signed(">", visits, parts), visits, parts)
    with cgutils.for_range(builder, visits) as each:
        stretch = builder.urem(builder.add(own, each.index), stretches)
        start = builder.sdiv(builder.mul(stretch, n), stretches)
        size = builder.sub(builder.sdiv(builder.mul(builder.add(stretch, one), n), stretches), start)
        length = builder.sdiv(builder.sub(builder.add(size, pieces), one), pieces)
        taken = cgutils.gep_inbounds(builder, data, 0, _TAKEN, builder.mul(builder.add(stretch, one), _INT(_APART)))
        look, take, more, done = (function.append_basic_block() for _ in range(4))
        builder.branch(look)
        builder.position_at_end(look)  # to take is to write, for which all others lose the line from their caches
        seen = builder.load_atomic(taken, "monotonic", 8)
        builder.cbranch(builder.icmp_signed("<", seen, size), take, done)
        builder.position_at_end(take)
        first = builder.atomic_rmw("add", taken, length, "monotonic")
        builder.cbranch(builder.icmp_signed("<", first, size), more, done)
        builder.position_at_end(more)
        end = builder.add(first, length)
        end = builder.select(builder.icmp_signed("<", end, size), end, size)
        limits = [builder.add(start, first), builder.add(start, end)]
        status, _ = context.call_conv.call_function(builder, callee, types.none, arguments, [*limits, own, *values])
        with cgutils.if_unlikely(builder, status.is_error):
            builder.store(one, cgutils.gep_inbounds(builder, data, 0, _FAILED))
        builder.branch(look)
        builder.position_at_end(done)
    builder.ret_void()
    return function
