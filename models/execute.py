"""Runs a plan: binds every step to a backend's kernel and to views of buffers that are allocated once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kernels import Kernels, memory
from kernels.interface import roles

from .plan import Plan, Scalar, Step, Value

Program = list[tuple[Callable[..., None], list[Any]]]


class Executor:
    """A plan on one backend, for batches of up to `batch_size` samples.

    `arrays` holds the persistent arrays by value name (parameters, gradients, statistics, optimizer state);
    the others get buffers, shared by values that are never needed at once. A smaller batch runs the same steps on
    shorter views.
    """

    def __init__(self, plan: Plan, kernels: Kernels, batch_size: int, arrays: Mapping[str, np.ndarray]) -> None:
        self.plan = plan
        self.kernels = kernels
        self.batch_size = batch_size
        self._lock = threading.Lock()
        self._updates = plan.updates
        self._arrays: dict[Value, np.ndarray] = {}
        buffers = self._share_memory(arrays)
        self._buffers = list(buffers.values())
        for value in plan.values():
            if value.base is not None:
                self._arrays[value] = self._arrays[value.base].reshape(value.sized(batch_size))
            elif value.name in arrays:
                self._arrays[value] = arrays[value.name]
            else:
                dtype, shape = value.dtype or plan.dtype, value.sized(batch_size)
                used = buffers[value][: math.prod(shape) * dtype.itemsize]
                self._arrays[value] = used.view(dtype).reshape(shape)
        self._scratch = memory.empty(
            max((self._scratch_size(step, batch_size) for step in plan.steps), default=0), plan.dtype
        )
        self._programs: dict[int, tuple[Program, list[tuple[list[Any], int, str]]]] = {}

    def _share_memory(self, arrays: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
        """Bytes for every value without an array: those whose lives do not overlap share them.

        A value lives from the first step that mentions it to the last; inputs and outputs live throughout. The memory
        freed last is taken first, since it still lies in the caches.
        """
        steps = self.plan.steps
        throughout = {_origin(v) for v in (*self.plan.inputs.values(), *self.plan.outputs.values())}
        mentioned = [[_origin(v) for v in step.arguments if isinstance(v, Value)] for step in steps]
        last = {value: i for i, values in enumerate(mentioned) for value in values}
        buffers: dict[Value, np.ndarray] = {}
        free: list[np.ndarray] = []
        for i, values in enumerate([list(throughout), *mentioned], start=-1):
            for value in dict.fromkeys(values):
                if value in buffers or value.name in arrays:
                    continue
                size = math.prod(value.sized(self.batch_size)) * (value.dtype or self.plan.dtype).itemsize
                fitting = [j for j, buffer in enumerate(free) if size <= buffer.size <= 2 * size]
                buffers[value] = free.pop(fitting[-1]) if fitting else memory.empty(size, np.uint8)
            ended = (v for v in dict.fromkeys(values) if v in buffers and v not in throughout and last[v] == i)
            free.extend(buffers[value] for value in ended)
        return buffers

    @property
    def bytes(self) -> int:
        """Memory of the buffers and the scratch; parameters and other persistent arrays not counted."""
        own = {id(b): b.nbytes for b in self._buffers}
        return sum(own.values()) + self._scratch.nbytes

    def array(self, value: Value, n: int) -> np.ndarray:
        """A value's array at batch size n."""
        whole = self._arrays[value]
        return whole if value.sized(n) == whole.shape else whole[:n]

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        n: int,
        accept: Callable[[dict[str, np.ndarray]], bool] | None = None,
        **scalars: float,
    ) -> dict[str, np.ndarray]:
        """Copy the inputs in, run all steps on n samples, and copy the outputs out. Safe from several threads.

        accept: is handed the outputs before the first step that changes the model, and decides whether those steps run.
        """
        with self._lock:
            for name, array in inputs.items():
                self.array(self.plan.inputs[name], n)[...] = array
            self.run_in_place(n, slice(None if accept is None else self._updates), **scalars)
            outputs = {name: self.array(value, n).copy() for name, value in self.plan.outputs.items()}
            if accept is not None and accept(outputs):
                self.run_in_place(n, slice(self._updates, None), **scalars)
            return outputs

    def run_in_place(self, n: int, steps: slice = slice(None), /, **scalars: float) -> None:
        """Run all steps, or some of them, on the n samples that lie in the input buffers."""
        if n not in self._programs:
            if len(self._programs) > 8:  # batch sizes vary without bound where a model serves requests
                self._programs.clear()
            self._programs[n] = self._bind(n)
        program, patches = self._programs[n]
        for arguments, position, name in patches:
            arguments[position] = scalars[name]
        for function, arguments in program[steps]:
            function(*arguments)

    def _bind(self, n: int) -> tuple[Program, list[tuple[list[Any], int, str]]]:
        program: Program = []
        patches = []
        for step in self.plan.steps:
            given = iter(step.arguments)
            arguments: list[Any] = []
            for role in roles(step.kernel).values():
                if role == "scratch":
                    arguments.append(self._scratch[: self._scratch_size(step, n)])
                    continue
                value = next(given)
                if isinstance(value, Scalar):
                    patches.append((arguments, len(arguments), value.name))
                arguments.append(self.array(value, n) if isinstance(value, Value) else value)
            program.append((self.kernels.function(step.kernel), arguments))
        return program, patches

    def _scratch_size(self, step: Step, n: int) -> int:
        if "scratch" not in roles(step.kernel).values():
            return 0
        return self.kernels.scratch_size(step.kernel, step.dims["d"], n)


def _origin(value: Value) -> Value:
    """The value whose memory this one is."""
    return value if value.base is None else _origin(value.base)
