"""Profile: the listing of a training step with each backend's time, its share of the machine's limit, and its error."""

from __future__ import annotations

import contextlib
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

import kernels
from data.files import expanded
from kernels import Kernels, accuracy
from kernels.accuracy import Call, scales
from kernels.interface import Scalar, roles
from kernels.shapes import text
from models.encoding import harmless
from models.execute import Executor, filled
from models.graph import Graph
from models.loading import load
from models.losses import Loss, SoftmaxCrossEntropy
from models.nodes import INPUT
from models.optimizers import Adam, Optimizer
from models.plan import Plan, Step, Value, table
from models.trainer import Trainer
from models.zoo import build

from . import plots, recipes, runs
from .bench import timing
from .plots.style import shortened
from .recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kernels.limits import Limits

BACKENDS = ("numpy", "numba")
_TITLES = {"numpy": "NumPy", "numba": "Numba"}
_FITTED = ("NumPy µs", "Numba µs", "faster", "limit", "GFLOP/s", "error", "MFLOP", "kB")
"""Columns of a listing that has to fit a width, the most telling first; Numba's where no backend is named."""
_LEAST = 4  # of these columns stay at any width
_ROUNDS = 3


@dataclass(frozen=True)
class Line:
    """One step of the plan: what it costs, how long each backend takes, and how far each is from the truth.

    limit: what the machine takes at its peak, or to copy as many bytes, the longer time (`Limits.seconds`); a step
    whose arrays are still in a nearer cache than the copy's can be faster. errors: the largest |result − truth| of an
    output in ulp, as `kernels.accuracy` counts it, at least of the step's first input, since some gradients are sums
    that cancel; the truth is computed in float64 from the same inputs. NumPy runs the steps that a fused step replaces.
    """

    step: Step
    shapes: str
    flops: int
    bytes: int
    limit: float
    seconds: dict[str, float]
    errors: dict[str, float]

    @property
    def title(self) -> str:
        """The first of its layers, and the kernel."""
        return f"{self.step.node}  {self.step.name}" if self.step.node else self.step.name


@dataclass(frozen=True)
class Profile:
    """A training step, line by line. `whole`: each backend's time of the step, measured without looking inside.

    memory: bytes of each backend's buffers, as they share memory and if they did not.
    """

    name: str
    batch_size: int
    threads: int
    limits: Limits
    lines: tuple[Line, ...]
    whole: dict[str, float]
    memory: dict[str, tuple[int, int]]

    def seconds(self, backend: str) -> float:
        """The sum of all steps."""
        return sum(line.seconds[backend] for line in self.lines)

    def __str__(self) -> str:
        return self.listing()

    def listing(self, width: int | None = None) -> str:
        """A line for each step, with its times. width: columns that it may take; None for all there is to tell.

        In a width, a phase has a line of its own with the sum of its steps, and a fused step stands for what it
        replaces.
        """
        rates = "  ".join(f"{size >> 10:,} KiB {rate / 1e9:.1f}" for size, rate in self.limits.bandwidths.items())
        memory = ", ".join(
            f"{_TITLES[backend]} {shared / 1e6:.1f}, apart they would take {apart / 1e6:.1f}"
            for backend, (shared, apart) in self.memory.items()
        )
        head = f"{self.name}: a training step, batch of {self.batch_size}, float32, {self.threads} threads"
        limit = f"limit: {self.limits.peak / 1e9:.1f} GFLOP/s; copies in GB/s: {rates}"
        parts = [head, limit, self._all() if width is None else self._fitted(width), f"buffers in MB: {memory}"]
        if width is not None:
            parts = [part if "\n" in part else textwrap.fill(part, width) for part in parts]
        return "\n".join(parts)

    def _all(self) -> str:
        head = ["", "phase", "step", "shapes written", "MFLOP", "kB"]
        for backend in BACKENDS:
            head += [f"{_TITLES[backend]} µs", "GFLOP/s", "of limit"]
        head += ["speed-up", *(f"{_TITLES[backend]} error, ulp" for backend in BACKENDS)]
        rows = [tuple(head)]
        for i, line in enumerate(self.lines):
            start = (str(i), line.step.phase, str(line.step), line.shapes)
            errors = tuple(f"{line.errors[backend]:.1f}" for backend in BACKENDS)
            rows.append(start + _figures(line.flops, line.bytes, line.limit, line.seconds) + errors)
            rows += [("", "", replaced, *[""] * (len(head) - 3)) for _, replaced in line.step.definition()]
        flops, size, limit = (sum(getattr(line, name) for line in self.lines) for name in ("flops", "bytes", "limit"))
        largest = tuple(f"{max(line.errors[backend] for line in self.lines):.1f}" for backend in BACKENDS)
        totals = {backend: self.seconds(backend) for backend in BACKENDS}
        rows.append(("", "", "total", "", *_figures(flops, size, limit, totals), *largest))
        rows.append(("", "", "the whole step at once", "", *_figures(flops, size, limit, self.whole), "", ""))
        return table(rows, right=(0, *range(4, len(head))))

    def _fitted(self, width: int) -> str:
        """As many columns as the width holds, the least telling left out first; at last the names are shortened."""
        rows: list[tuple[str, ...]] = [("step", *_FITTED)]
        for phase, lines in groupby(self.lines, lambda line: line.step.phase):
            steps = tuple(lines)
            rows += [_fitted(phase, steps), *(_fitted(f"  {line.title}", [line]) for line in steps)]
        rows += [_fitted("total", self.lines), _fitted("the whole step at once", self.lines, self.whole)]
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        count = len(widths)
        while count > 1 + _LEAST and sum(widths[:count]) - 2 > width:
            count -= 1
        most = max(width - sum(widths[1:count]), 12)
        rows = [(shortened(name, most), *cells[: count - 1]) for name, *cells in rows]
        return table(rows, right=tuple(range(1, count)))

    def figure(self) -> Figure:
        """A picture: the contractions under the machine's limit, and every step's times. Needs matplotlib."""
        return plots.step_times(self)


def _fitted(name: str, lines: Sequence[Line], whole: dict[str, float] | None = None) -> tuple[str, ...]:
    """A row of _FITTED, of the sums over lines; whole: the time of all of them, measured at once."""
    seconds = whole or {backend: sum(line.seconds[backend] for line in lines) for backend in BACKENDS}
    flops, limit = sum(line.flops for line in lines), sum(line.limit for line in lines)
    return (
        name,
        *(f"{1e6 * seconds[backend]:,.{1 if seconds[backend] < 1e-3 else 0}f}" for backend in BACKENDS),
        f"{seconds['numpy'] / seconds['numba']:.1f}×",
        f"{limit / seconds['numba']:.0%}",
        f"{flops / seconds['numba'] / 1e9:,.1f}" if flops else "",
        "" if whole else f"{max(line.errors['numba'] for line in lines):.0e}",
        f"{flops / 1e6:,.2f}" if flops else "",
        f"{sum(line.bytes for line in lines) / 1e3:,.1f}",
    )


def _figures(flops: int, size: int, limit: float, seconds: dict[str, float]) -> tuple[str, ...]:
    cells = [f"{flops / 1e6:,.2f}" if flops else "", f"{size / 1e3:,.1f}"]
    for backend in BACKENDS:
        rate = f"{flops / seconds[backend] / 1e9:,.1f}" if flops else ""
        cells += [f"{seconds[backend] * 1e6:,.1f}", rate, f"{limit / seconds[backend]:.0%}"]
    return (*cells, f"{seconds['numpy'] / seconds['numba']:.1f}")


def profile(
    subject: str | os.PathLike[str] | Recipe | Graph,
    batch_size: int | None = None,
    *,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    seconds: float = 1.0,
    limits: Limits | None = None,
    rewrites: Iterable[str] | None = None,
    precision: str | None = None,
) -> Profile:
    """Measure a training step on random images, kernel by kernel, on both backends, in float32.

    subject: a recipe or its name, the folder of a run, the file of a model, or a model, which is left as it is.
    batch_size, optimizer, loss: in place of the recipe's; a model has none, and takes 128, Adam(1e-3) and
    SoftmaxCrossEntropy() unless told. seed: of a recipe's weights and of the images.
    seconds: how long each backend is measured. limits: the machine's, measured
    unless given. rewrites: as in `Trainer`, for Numba; NumPy runs the steps that they replace. precision: as in
    `Trainer`; that of the run or the model unless told. A backend runs for a while, then all rest, then the other runs:
    their idle threads never meet.

    Raises ValueError for an unknown recipe or a batch size below 1, and what `models.load` raises.
    """
    name, model, recipe = _subject(subject, seed)
    n = batch_size if batch_size is not None else recipe.batch_size if recipe else 128
    optimizer = optimizer or (recipe.optimizer if recipe else Adam(1e-3))
    loss = loss or (recipe.loss if recipe else SoftmaxCrossEntropy())
    trainers = {
        backend: Trainer(model.to(backend, np.float32), optimizer, loss, n, rewrites=rewrites, precision=precision)
        for backend in BACKENDS
    }
    if limits is None:
        from kernels import limits as machine

        limits = machine.measure()
    plan = trainers["numba"].plan
    executors = {backend: _filled(plan, trainer, seed) for backend, trainer in trainers.items()}
    errors = _errors(plan, executors["numpy"], trainers["numba"].model.kernels, n, optimizer.learning_rate)
    passes: dict[str, list[np.ndarray]] = {backend: [] for backend in BACKENDS}
    whole: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(_ROUNDS):
        for backend, executor in executors.items():
            with contextlib.suppress(ValueError):  # with OMP_WAIT_POLICY=active they never rest
                timing.quiet()
            _measure(executor, n, seconds / _ROUNDS, passes[backend], whole[backend])

    steps = {
        backend: np.add.reduceat(_typical(passes[backend]), _starts(plan, executor.kernels))
        for backend, executor in executors.items()
    }
    lines = tuple(
        Line(
            step,
            " ".join(text(value.sized(n)) for value in step.outputs.values()),
            step.flops(n),
            step.bytes(n),
            limits.seconds(step.flops(n), step.bytes(n)),
            {backend: float(steps[backend][i]) for backend in BACKENDS},
            errors[i],
        )
        for i, step in enumerate(plan.steps)
    )
    totals = {backend: float(_typical([np.array([t]) for t in whole[backend]])[0]) for backend in BACKENDS}
    memory = {backend: (executor.bytes, executor.bytes_without_sharing) for backend, executor in executors.items()}
    return Profile(name, n, kernels.get_threads(), limits, lines, totals, memory)


def _subject(subject: str | os.PathLike[str] | Recipe | Graph, seed: int) -> tuple[str, Graph, Recipe | None]:
    """What it is called, the model, and the recipe that says how it is trained, if there is one."""
    if isinstance(subject, Graph):
        return type(subject).__name__, subject, None
    if isinstance(subject, str) and subject in recipes.RECIPES:
        subject = recipes.get(subject)
    if isinstance(subject, Recipe):
        return subject.name, build(subject.network, "numpy", seed), subject
    path = expanded(subject)
    if not path.exists():
        raise ValueError(
            f"unknown recipe {str(subject)!r}; expected one of {', '.join(recipes.RECIPES)}, "
            "the folder of a run or the file of a model"
        )
    if path.is_dir():
        run = runs.read_run(path, "numpy")
        return harmless(path.resolve().name), run.model, run.options.recipe
    return harmless(runs.model_name(path)), load(path, "numpy"), None


def _filled(plan: Plan, trainer: Trainer, seed: int) -> Executor:
    """The plan in the kernels of the trainer's backend and on its arrays, with a random batch in the inputs."""
    rng = np.random.default_rng(seed)
    k, n = trainer.model.kernels, trainer.batch_size
    executor = Executor(plan.expanded(k.has), k, n, trainer.arrays())
    for name, value in plan.inputs.items():
        array = executor.array(value, n)
        if name == INPUT or array.dtype.kind == "f":
            array[...] = rng.standard_normal(array.shape)
        else:
            array[...] = rng.integers(0, int(trainer.model.output_shape[-1]), array.shape)
    return executor


def _starts(plan: Plan, k: Kernels) -> list[int]:
    """Where each step of the plan begins among those that the backend runs."""
    counts = [len(step.expanded(k.has)) for step in plan.steps]
    return [0, *accumulate(counts[:-1])]


def _measure(executor: Executor, n: int, seconds: float, passes: list[np.ndarray], whole: list[float]) -> None:
    """Time passes over the plan, in turn as a whole and with a look at the clock after each step."""
    scalars = {"step": 1, "learning_rate": 0.0}  # every pass finds the same parameters
    executor.run_in_place(n, **scalars)
    clock = time.perf_counter
    deadline, done = clock() + seconds, 0
    while clock() < deadline or done < 3:
        start = clock()
        executor.run_in_place(n, **scalars)
        whole.append(clock() - start)
        passes.append(executor.times(n, **scalars))
        done += 1


def _typical(passes: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the faster half of the passes: what else the machine does can only lengthen one."""
    ordered = sorted(passes, key=lambda times: float(times.sum()))
    typical: np.ndarray = np.mean(ordered[: (len(ordered) + 1) // 2], axis=0)
    return typical


def _errors(plan: Plan, executor: Executor, twin: Kernels, n: int, learning_rate: float) -> list[dict[str, float]]:
    """Each step's error on both backends, all of them given the inputs that NumPy's pass makes.

    What fused steps hand to each other (a window's maximum and its place) and what the steps that they replace hand
    to each other, each side takes from itself. What a fused step reads and those do not (an operand that is rounded
    before) is kept, since NumPy's pass lays other arrays in its place.
    """
    definition = executor.kernels
    scalars = {"step": 1, "learning_rate": learning_rate}
    calls = iter(executor.calls(n))
    sides: dict[str, tuple[Kernels, DTypeLike]] = {
        "numpy": (definition, np.float32),
        "numba": (twin, np.float32),
        "truth": (definition, np.float64),
    }
    handed: dict[str, dict[Value, np.ndarray]] = {side: {} for side in sides}

    def given(side: str) -> Callable[[Value], np.ndarray]:
        return lambda value: handed[side][value] if value in handed[side] else executor.array(value, n)

    alone = set()
    for step in plan.steps:
        alone |= {*step.inputs.values()} - {v for one in step.expanded(definition.has) for v in one.inputs.values()}
    errors = []
    for step in plan.steps:
        originals = step.expanded(definition.has)
        results = {
            side: _results(step.expanded(k.has), given(side), k, n, dtype, scalars)
            for side, (k, dtype) in sides.items()
        }
        indices_too = not step.replaces  # where a ReLU is off, a fused step may find its maximum elsewhere
        compared = [v for v in step.outputs.values() if v in results["truth"] and (indices_too or v.dtype is None)]
        truth = {value: results["truth"][value] for value in compared}
        errors.append({backend: _largest(results[backend], truth) for backend in BACKENDS})
        for side, written in results.items():
            handed[side] |= {value: array for value, (array, _) in written.items() if value not in compared}
        for _ in originals:
            function, arguments = next(calls)
            function(*filled(arguments, scalars))
        made = {value.origin for one in originals for value in one.outputs.values()}
        kept = {value: executor.array(value, n).copy() for value in alone if value.origin in made}
        for side in sides:
            handed[side] |= {value: array for value, array in kept.items() if value not in handed[side]}
    return errors


def _results(
    steps: Iterable[Step],
    given: Callable[[Value], np.ndarray],
    k: Kernels,
    n: int,
    dtype: DTypeLike,
    scalars: Mapping[str, float],
) -> dict[Value, Written]:
    """What steps write, on arrays of their own; `given` has what they read of others."""
    own: dict[Value, Written] = {}
    for step in steps:
        arguments: dict[str, Any] = {}
        for name, role in roles(step.kernel).items():
            value = step.named.get(name)
            if role == "scratch":
                value = np.empty(0, dtype)
            elif isinstance(value, Scalar):
                value = scalars[value.name]
            elif isinstance(value, Value):
                element = dtype if value.dtype is None else value.dtype
                if role == "output":
                    value = np.empty(value.sized(n), element)
                else:
                    value = (own[value].array if value in own else given(value)).astype(element)
            arguments[name] = value
        call = Call(step.kernel, arguments)
        for name, array in call.results(k).items():
            own[step.outputs[name]] = Written(array, scales(call, name, array, cancelling=True))
    return own


class Written(NamedTuple):
    """An array that a step writes, and the size against which its rounding is measured."""

    array: np.ndarray
    scale: np.ndarray


def _largest(found: Mapping[Value, Written], truths: Mapping[Value, Written]) -> float:
    """The largest error of several arrays in ulp of float32; infinity for what is wrong by more than rounding."""
    worst = 0.0
    for value, truth in truths.items():
        error = accuracy.errors(found[value].array, truth.array)
        ulp = np.maximum(np.finfo(np.float32).eps * truth.scale, float(np.finfo(np.float32).smallest_subnormal))
        worst = max(worst, float(np.max(error / ulp)))
    return worst
