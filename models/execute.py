"""Runs a plan: binds every step to a backend's kernel and to views of buffers that are allocated once.

Where the backend can, the bound steps become a program: one call from Python for a whole step, or for many.
"""

from __future__ import annotations

import bisect
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels import Kernels, memory, shapes
from kernels.interface import Program, Scalar, roles

from .flow import check_flow
from .locks import Turn
from .plan import Plan, Step, Value

Call = tuple[Callable[..., None], list[Any]]


class Calls:
    """The plain program: its functions called from Python, one after the other."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    def __add__(self, other: Calls) -> Calls:
        return Calls([*self._calls, *other._calls])

    def compile(self) -> None:
        """Nothing."""

    def run(
        self,
        rounds: int,
        scalars: Mapping[str, Sequence[float] | np.ndarray],
        given: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        """All calls, `rounds` times over. Scalars have a value a round, by name; what is given is copied in."""
        for array, values in given:
            array[...] = values
        for i in range(rounds):
            now = {name: series[i] for name, series in scalars.items()}
            for function, arguments in self._calls:
                function(*filled(arguments, now))

    def times(self, scalars: Mapping[str, Sequence[float] | np.ndarray]) -> np.ndarray:
        """All calls once: the seconds of each."""
        now = {name: values[0] for name, values in scalars.items()}
        stamps = [time.perf_counter()]
        for function, arguments in self._calls:
            function(*filled(arguments, now))
            stamps.append(time.perf_counter())
        return np.diff(stamps)


def filled(arguments: Sequence[Any], scalars: Mapping[str, float]) -> list[Any]:
    """A call's arguments with each `Scalar`'s value in its place."""
    return [scalars[a.name] if isinstance(a, Scalar) else a for a in arguments]


class _Bound(NamedTuple):
    """A plan at one batch size: its steps, those last that change the model, and its inputs' and outputs' arrays."""

    computing: Program
    updating: Program
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class _Life(NamedTuple):
    """From which step to which a value is needed, and its bytes."""

    first: int
    last: int
    size: int


def _laid_out(lives: Mapping[Value, _Life]) -> tuple[dict[Value, int], int]:
    """Where each value lies in one piece of memory, so that none overlaps another of its time, and the bytes of that.

    The largest first, each in the first gap that holds it (Pisarchyk and Lee 2020, greedy by size).
    """
    placed: list[tuple[int, _Life]] = []
    places: dict[Value, int] = {}
    for value, life in sorted(lives.items(), key=lambda item: -item[1].size):
        start = 0
        for other_start, other in placed:
            if other.first <= life.last and life.first <= other.last:
                if start + life.size <= other_start:
                    break
                start = max(start, other_start + -(-other.size // memory.ALIGNMENT) * memory.ALIGNMENT)
        places[value] = start
        bisect.insort(placed, (start, life))
    return places, max((start + life.size for start, life in placed), default=0)


class Executor:
    """A plan on one backend, for batches of up to `batch_size` samples.

    `arrays` holds the persistent arrays by value name (parameters, gradients, statistics, optimizer state);
    the others get buffers, shared by values that are never needed at once. A smaller batch runs the same steps on
    shorter views. Fused steps whose kernel the backend lacks give way to those that they replace.

    `compiled` False runs the steps from Python, one by one, for debugging. On a backend that cannot compile a sequence,
    and for plans with kernels that are not the backend's own, it becomes False at the first run.

    Raises ValueError or TypeError for a plan that reads what nobody has written, or arrays that are not its values'.
    """

    def __init__(
        self,
        plan: Plan,
        kernels: Kernels,
        batch_size: int,
        arrays: Mapping[str, np.ndarray],
        compiled: bool = True,
    ) -> None:
        self.plan = plan.expanded(kernels.has)
        self.kernels = kernels
        self.batch_size = shapes.integer("Executor", "batch_size", batch_size, 1)
        check_flow(self.plan, arrays.keys())
        self._turn = Turn()
        self._given = dict(arrays)
        self._second: Executor | None = None
        self._arrays: dict[Value, np.ndarray] = {}
        buffers = self._share_memory(arrays)
        self._shared = frozenset(buffers)
        for value in self.plan.values():
            if value.base is not None and value.part is not None:
                self._arrays[value] = self._arrays[value.base][..., slice(*value.part)]
            elif value.base is not None:
                self._arrays[value] = self._arrays[value.base].reshape(value.sized(batch_size))
            elif value.name in arrays:
                self._arrays[value] = self._checked(value, arrays[value.name])
            else:
                dtype, shape = value.dtype or plan.dtype, value.sized(batch_size)
                used = buffers[value][: math.prod(shape) * dtype.itemsize]
                self._arrays[value] = used.view(dtype).reshape(shape)
        steps = (*self.plan.constants, *self.plan.steps)
        for step in steps:
            self._check_packed(step)
        read = {value.origin for value in plan.outputs.values()}
        self._filled = frozenset(name for name, value in plan.inputs.items() if value.origin in read)
        self._scratch = memory.empty(max((self._scratch_size(s, batch_size) for s in steps), default=0), plan.dtype)
        self.compiled = compiled and kernels.compiles and all(isinstance(step.kernel, str) for step in steps)
        self._constants: Program | None = None
        self._version: int | None = None
        self._bounds: dict[int, _Bound] = {}
        self.kept: Any = None
        """What whoever runs rounds keeps for the next time."""

    def _checked(self, value: Value, array: object) -> np.ndarray:
        """A persistent array as its value has it."""
        expected = value.dtype or self.plan.dtype
        if not isinstance(array, np.ndarray) or array.dtype != expected:
            got = f"has dtype {array.dtype}" if isinstance(array, np.ndarray) else f"is a {type(array).__name__}"
            raise TypeError(f"Executor: {value.name} {got}, expected an array of {expected}")
        shapes.equal("Executor", value.name, array.shape, value.sized(self.batch_size), "its value's in the plan")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(f"Executor: {value.name} is not C-contiguous and aligned (strides {array.strides})")
        return array

    def _check_packed(self, step: Step) -> None:
        """Parameters that a backend packs have the size that it wants, which no rule knows."""
        packed = step.named.get("packed") if isinstance(step.kernel, str) else None
        if packed is not None and self.kernels.has(step.name):
            contraction = step.name.partition("_")[0]
            size = self.kernels.fold_size(contraction, step.dims["d"])
            shapes.equal(step.name, "packed", packed.shape, (size,), f"as {self.kernels.name} packs them")

    def _share_memory(self, arrays: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
        """Bytes for every value without an array: those whose lives do not overlap share them.

        A value lives from the first step that mentions it to the last; inputs, outputs and constants live throughout.
        In training the memory freed last is taken first, since it still lies in the caches; inference, where lives are
        short, gets by with as little as it can.
        """
        plan = self.plan
        made = (value for step in plan.constants for value in step.outputs.values())
        throughout = {value.origin: None for value in (*plan.inputs.values(), *plan.outputs.values(), *made)}
        buffers = {v: memory.empty(self._size(v), np.uint8) for v in throughout if v.name not in arrays}
        self._buffers = list(buffers.values())
        mentioned = [dict.fromkeys(v.origin for v in step.arguments if isinstance(v, Value)) for step in plan.steps]
        lives: dict[Value, _Life] = {}
        for i, values in enumerate(mentioned):
            for value in values:
                if value not in throughout and value.name not in arrays:
                    first = lives[value].first if value in lives else i
                    lives[value] = _Life(first, i, self._size(value))
        if all(step.phase == "forward" for step in plan.steps):
            places, size = _laid_out(lives)
            self._buffers.append(memory.empty(size, np.uint8))
            return buffers | {v: self._buffers[-1][place : place + lives[v].size] for v, place in places.items()}
        free: list[np.ndarray] = []
        for i, values in enumerate(mentioned):
            for value in (v for v in values if v in lives and v not in buffers):
                size = lives[value].size
                fitting = [j for j, buffer in enumerate(free) if size <= buffer.size <= 2 * size]
                if not fitting:
                    self._buffers.append(memory.empty(size, np.uint8))
                buffers[value] = free.pop(fitting[-1]) if fitting else self._buffers[-1]
            free.extend(buffers[value] for value in values if value in lives and lives[value].last == i)
        return buffers

    def _size(self, value: Value) -> int:
        """Bytes of a value."""
        return math.prod(value.sized(self.batch_size)) * (value.dtype or self.plan.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Memory of the buffers and the scratch; parameters and other persistent arrays not counted."""
        return sum(buffer.nbytes for buffer in self._buffers) + self._scratch.nbytes

    @property
    def bytes_without_sharing(self) -> int:
        """What `bytes` would be if no two values shared memory."""
        own = (array for value, array in self._arrays.items() if value.base is None and value in self._shared)
        return sum(array.nbytes for array in own) + self._scratch.nbytes

    def array(self, value: Value, n: int) -> np.ndarray:
        """A value's array at batch size n."""
        whole = self._arrays[value]
        return whole if value.sized(n) == whole.shape else whole[:n]

    def calls(self, n: int) -> list[Call]:
        """The steps on n samples as functions with their arguments, each `Scalar` in its place."""
        return [self._call(step, n) for step in self.plan.steps]

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        n: int,
        accept: Callable[[dict[str, np.ndarray]], bool] | None = None,
        version: int = 0,
        **scalars: float,
    ) -> dict[str, np.ndarray]:
        """Run all steps on n samples of the inputs, and copy the outputs out. Safe from several threads, and in a
        signal handler that interrupts another run, where the plan changes nothing; else RuntimeError. What the inputs'
        arrays hold afterwards is undefined: large inputs are read where they lie.

        accept: is handed the outputs before the first step that changes the model, and decides whether those steps run.
        version: of the parameters and running statistics; where it is another than in the last run, the plan's
        constants are computed anew.

        Raises ValueError or TypeError for other inputs than the plan's.
        """
        with self._turn.lock:
            if self._turn.busy:
                return self._beside().run(inputs, n, accept, version, **scalars)
            try:
                self._turn.busy = True
                bound = self._bound(n)
                given = self._given_to(bound.inputs, inputs)
                self._renew_constants(version)
                rounds = {name: [value] for name, value in scalars.items()}
                bound.computing.run(1, rounds, given)
                outputs = {name: array.copy() for name, array in bound.outputs.items()}
                if accept is None or accept(outputs):
                    bound.updating.run(1, rounds, given)
                return outputs
            finally:
                self._turn.busy = False

    def run_in_place(self, n: int, version: int = 0, /, **scalars: float) -> None:
        """Run all steps on the n samples that lie in the input buffers."""
        bound = self._bound(n)
        self._renew_constants(version)
        rounds = {name: [value] for name, value in scalars.items()}
        bound.computing.run(1, rounds)
        bound.updating.run(1, rounds)

    def times(self, n: int, version: int = 0, /, **scalars: float) -> np.ndarray:
        """Run all steps as `run_in_place` does: the seconds of each, (steps,).

        A compiled step is timed where it runs; on a system whose clock cannot be called there, all are called from
        Python, whose microseconds then count.
        """
        bound = self._bound(n)
        self._renew_constants(version)
        rounds = {name: [value] for name, value in scalars.items()}
        computing = bound.computing.times(rounds)
        if computing is None:
            return Calls(self.calls(n)).times(rounds)
        return np.concatenate([computing, bound.updating.times(rounds)])

    def stages(self, n: int, places: Sequence[int]) -> list[Program]:
        """The steps on n samples, cut before these places: a program of each part, to be run one after the other.

        Whoever runs them fills the arrays of the inputs, keeps other threads out, and has no constants in the plan.
        """
        calls = self.calls(n)
        ends = [0, *places, len(calls)]
        return [self.program(calls[start:end]) for start, end in itertools.pairwise(ends)]

    def run_rounds(
        self,
        n: int,
        rounds: int,
        scalars: Mapping[str, Sequence[float] | np.ndarray],
        before: Sequence[Call] = (),
        after: Sequence[Call] = (),
        version: int = 0,
        program: Program | None = None,
        fill: Callable[[], None] | None = None,
    ) -> Program:
        """Run all steps on n samples `rounds` times over, between calls of one's own: in one call, where compiled.

        scalars: a value a round, by name. before, after: run in each round, before the first step and after the last;
        those `before` fill the arrays of the inputs. fill: called once, when nobody else runs any more. Returns the
        program, which may be handed in again for the same n and calls: to link one takes milliseconds.
        """
        with self._turn.lock:
            if self._turn.busy:
                return self._beside().run_rounds(n, rounds, scalars, before, after, version, None, fill)
            try:
                self._turn.busy = True
                bound = self._bound(n)
                if fill is not None:
                    fill()
                self._renew_constants(version)
                if program is None:
                    program = self.program(before) + bound.computing + bound.updating + self.program(after)
                program.run(rounds, scalars)
                return program
            finally:
                self._turn.busy = False

    def _beside(self) -> Executor:
        """Another with buffers of its own, for whoever interrupts a run of this one in its own thread."""
        if self.plan.updates < len(self.plan.steps):
            raise RuntimeError("Executor: a step that changes the model was interrupted, and another is asked for")
        if self._second is None:
            self._second = Executor(self.plan, self.kernels, self.batch_size, self._given, self.compiled)
        return self._second

    def _given_to(
        self, arrays: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The arrays of the inputs, each with what it is to hold; those that outputs are read from are filled.

        All inputs have to be there, in the arrays' shapes; numbers of another kind are refused.
        """
        if inputs.keys() != arrays.keys():
            names = ", ".join(inputs) or "nothing"
            raise ValueError(f"Executor: the inputs are {names}; expected {', '.join(arrays)}")
        given = []
        for name, array in arrays.items():
            values = np.asarray(inputs[name])
            shapes.equal("Executor", f"input {name!r}", values.shape, array.shape)
            if values.dtype != array.dtype and not np.can_cast(values.dtype, array.dtype, "same_kind"):
                raise TypeError(f"Executor: input {name!r} has dtype {values.dtype}, expected {array.dtype}")
            if name in self._filled:
                array[...] = values
            else:
                given.append((array, values))
        return given

    def _bound(self, n: int) -> _Bound:
        if not 1 <= n <= self.batch_size:
            raise ValueError(f"Executor: n is {n}, expected 1 to {self.batch_size}, the batch size")
        if self._constants is None:
            self._constants = self.program([self._call(step, self.batch_size) for step in self.plan.constants])
        if n not in self._bounds:
            if len(self._bounds) > 8:  # batch sizes vary without bound where a model serves requests
                self._bounds.clear()
            plan, calls = self.plan, self.calls(n)
            parts = calls[: plan.updates], calls[plan.updates :]
            computing, updating = map(self.program, parts)
            if not self.compiled:
                computing, updating = map(Calls, parts)
            else:
                (self._constants + computing + updating).compile()
            self._bounds[n] = _Bound(
                computing,
                updating,
                {name: self.array(value, n) for name, value in plan.inputs.items()},
                {name: self.array(value, n) for name, value in plan.outputs.items()},
            )
        return self._bounds[n]

    def program(self, calls: Sequence[Call]) -> Program:
        """The calls as a compiled program, or a plain one; all of an executor's are of the same kind."""
        program = self.kernels.program(calls) if self.compiled else None
        self.compiled = program is not None
        return program or Calls(calls)

    def _renew_constants(self, version: int) -> None:
        if self.plan.constants and version != self._version:
            assert self._constants is not None
            self._constants.run(1, {})
            self._version = version

    def _call(self, step: Step, n: int) -> Call:
        given = iter(step.arguments)
        arguments: list[Any] = []
        for role in roles(step.kernel).values():
            if role == "scratch":
                arguments.append(self._scratch[: self._scratch_size(step, n)])
                continue
            value = next(given)
            arguments.append(self.array(value, n) if isinstance(value, Value) else value)
        return self.kernels.function(step.kernel), arguments

    def _scratch_size(self, step: Step, n: int) -> int:
        if "scratch" not in roles(step.kernel).values():
            return 0
        return self.kernels.scratch_size(step.kernel, step.dims["d"], n)
