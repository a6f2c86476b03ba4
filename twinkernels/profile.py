"""Profile: the listing of a training step with each backend's time, its share of the machine's limit, and its error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import DTypeLike

import kernels
from kernels import Kernels, accuracy
from kernels.accuracy import Call, scales
from kernels.interface import Scalar, roles
from kernels.shapes import text
from models.execute import Executor, filled
from models.graph import INPUT
from models.plan import Plan, Step, Value, table
from models.trainer import Trainer
from models.zoo import build

from . import plots, recipes
from .recipes import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kernels.limits import Limits

BACKENDS = ("numpy", "numba")
_TITLES = {"numpy": "NumPy", "numba": "Numba"}
_PAUSE = 0.1  # seconds; idle workers of OpenMP and OpenBLAS spin for tens of milliseconds before they sleep
_ROUNDS = 3


@dataclass(frozen=True)
class Line:
    """One step of the plan: what it costs, how long each backend takes, and how far each is from the truth.

    limit: the least seconds this machine could take. errors: the largest |result − truth| of an output in ulp, as
    `kernels.accuracy` counts it, at least of the step's first input, since some gradients are sums that cancel; the
    truth is computed in float64 from the same inputs. NumPy runs the steps that a fused step replaces.
    """

    step: Step
    shapes: str
    flops: int
    bytes: int
    limit: float
    seconds: dict[str, float]
    errors: dict[str, float]


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
        rates = "  ".join(f"{size >> 10:,} KiB {rate / 1e9:.1f}" for size, rate in self.limits.bandwidths.items())
        memory = ", ".join(
            f"{_TITLES[backend]} {shared / 1e6:.1f}, apart they would take {apart / 1e6:.1f}"
            for backend, (shared, apart) in self.memory.items()
        )
        return (
            f"{self.name}: a training step, batch of {self.batch_size}, float32, {self.threads} threads\n"
            f"limit: {self.limits.peak / 1e9:.1f} GFLOP/s; copies in GB/s: {rates}\n"
            + table(rows, right=(0, *range(4, len(head))))
            + f"\nbuffers in MB: {memory}"
        )

    def figure(self) -> Figure:
        """A picture: the steps under the roofline, and each backend's time as a stacked bar. Needs matplotlib."""
        figure = plots.figure_class()(figsize=(13, 5), layout="constrained")
        roofline, bars = figure.subplots(1, 2)
        self._draw_roofline(roofline)
        self._draw_bars(bars)
        figure.suptitle(f"{self.name}: a training step, batch of {self.batch_size}, {self.threads} threads")
        return figure

    def _draw_roofline(self, axes: Axes) -> None:
        contractions = [line for line in self.lines if line.flops]
        intensity = np.array([line.flops / line.bytes for line in contractions])
        reach = np.geomspace(0.5, max(200.0, 2 * intensity.max(initial=1.0)), 100)
        for size, style in (1 << 18, "--"), (1 << 26, "-"):
            rate = self.limits.bandwidth(2 * size)
            roof = np.minimum(self.limits.peak, reach * rate) / 1e9
            axes.loglog(reach, roof, style, color="0.4", label=f"limit, {size >> 10:,} KiB in use")
        for backend, marker, colour in ("numpy", "o", "tab:blue"), ("numba", "s", "tab:orange"):
            rates = [line.flops / line.seconds[backend] / 1e9 for line in contractions]
            axes.loglog(intensity, rates, marker, color=colour, label=_TITLES[backend])
        for x, line in zip(intensity, contractions, strict=True):
            label = f" {next(iter(line.step.outputs.values())).name}"
            axes.annotate(label, (x, line.flops / line.seconds["numba"] / 1e9), fontsize=7)
        axes.set(xlabel="FLOP a byte", ylabel="GFLOP/s", title="Contractions under the roofline")
        axes.legend(fontsize=8)

    def _draw_bars(self, axes: Axes) -> None:
        import matplotlib

        colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
        longest = max(self.seconds(backend) for backend in BACKENDS)
        for row, backend in enumerate(BACKENDS):
            start = 0.0
            for i, line in enumerate(self.lines):
                width = line.seconds[backend]
                axes.barh(row, width * 1e3, left=start * 1e3, color=colours[i % 20], edgecolor="white", linewidth=0.5)
                if width > 0.04 * longest:
                    middle = (start + width / 2) * 1e3
                    axes.text(middle, row, line.step.name, rotation=90, ha="center", va="center", fontsize=7)
                start += width
            axes.text(start * 1e3, row, f" {start * 1e3:.2f} ms", va="center")
        axes.set_yticks(range(len(BACKENDS)), [_TITLES[backend] for backend in BACKENDS])
        axes.margins(x=0.15)
        axes.set(xlabel="ms a step, the plan's lines from left to right", title="Where the time goes")
        axes.invert_yaxis()


def _figures(flops: int, size: int, limit: float, seconds: dict[str, float]) -> tuple[str, ...]:
    cells = [f"{flops / 1e6:,.2f}" if flops else "", f"{size / 1e3:,.1f}"]
    for backend in BACKENDS:
        rate = f"{flops / seconds[backend] / 1e9:,.1f}" if flops else ""
        cells += [f"{seconds[backend] * 1e6:,.1f}", rate, f"{limit / seconds[backend]:.0%}"]
    return (*cells, f"{seconds['numpy'] / seconds['numba']:.1f}")


def profile(
    recipe: str | Recipe,
    batch_size: int | None = None,
    *,
    seed: int = 0,
    seconds: float = 1.0,
    limits: Limits | None = None,
    rewrites: Iterable[str] | None = None,
) -> Profile:
    """Measure a recipe's training step on random images, kernel by kernel, on both backends.

    batch_size: in place of the recipe's. seconds: how long each backend is measured. limits: the machine's, measured
    unless given. rewrites: as in `Trainer`, for Numba; NumPy runs the steps that they replace. A backend runs for a
    while, then all rest, then the other runs: their idle threads never meet.

    Raises ValueError for an unknown recipe or a batch size below 1.
    """
    recipe = recipes.get(recipe) if isinstance(recipe, str) else recipe
    n = recipe.batch_size if batch_size is None else batch_size
    trainers = {}
    for backend in BACKENDS:
        model = build(recipe.network, backend, seed)
        trainers[backend] = Trainer(model, recipe.optimizer, recipe.loss, n, recipe.schedule, rewrites)
    if limits is None:
        from kernels import limits as machine

        limits = machine.measure()
    plan = trainers["numba"].plan
    executors = {backend: _filled(plan, trainer, seed) for backend, trainer in trainers.items()}
    errors = _errors(plan, executors["numpy"], trainers["numba"].model.kernels, n, recipe.optimizer.learning_rate)
    passes: dict[str, list[np.ndarray]] = {backend: [] for backend in BACKENDS}
    whole: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(_ROUNDS):
        for backend, executor in executors.items():
            time.sleep(_PAUSE)
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
    memory = {backend: (executor.bytes, executor.bytes_apart) for backend, executor in executors.items()}
    return Profile(recipe.name, n, kernels.get_threads(), limits, lines, totals, memory)


def _filled(plan: Plan, trainer: Trainer, seed: int) -> Executor:
    """The plan in the kernels of the trainer's backend and on its arrays, with a random batch in the inputs."""
    rng = np.random.default_rng(seed)
    k, n = trainer.model.kernels, trainer.batch_size
    executor = Executor(plan.expanded(_available(k)), k, n, trainer.arrays())
    for name, value in plan.inputs.items():
        array = executor.array(value, n)
        if name == INPUT or array.dtype.kind == "f":
            array[...] = rng.standard_normal(array.shape)
        else:
            array[...] = rng.integers(0, int(trainer.model.output_shape[-1]), array.shape)
    return executor


def _available(k: Kernels) -> Callable[[str], bool]:
    return partial(hasattr, k.backend)


def _starts(plan: Plan, k: Kernels) -> list[int]:
    """Where each step of the plan begins among those that the backend runs."""
    counts = [len(step.expanded(_available(k))) for step in plan.steps]
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
    to each other, each side takes from itself.
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

    errors = []
    for step in plan.steps:
        originals = step.expanded(_available(definition))
        results = {
            side: _results(step.expanded(_available(k)), given(side), k, n, dtype, scalars)
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


def command(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name that `twinkernels list` shows.")],
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the images.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that compute; all cores if left out.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Where the picture goes; profile-RECIPE.png here if left out."),
    ] = None,
) -> None:
    """Time a training step kernel by kernel, NumPy against Numba; print it and draw it."""
    recipes.get(recipe)
    if threads is not None:
        kernels.set_threads(threads)
    if out is not None:
        plots.figure_class()  # what was asked for must not fail after the measuring
    measured = profile(recipe, batch_size, seed=seed)
    print(measured)
    path = out or Path(f"profile-{recipe}.png")
    try:
        figure = measured.figure()
    except ValueError as error:
        print(f"no picture: {error}")
        return
    figure.savefig(path, dpi=150)
    print(f"picture in {path}")
