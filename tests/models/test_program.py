"""Plans as one compiled call: bit for bit what the plain executor does, a step or an epoch at a time."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import data
import kernels
import models
from benchmarks.suite.cases import CASES, Case
from benchmarks.suite.common import record
from kernels import InPlace, Input, Output, memory, shapes
from kernels.interface import Scalar, roles
from kernels.numba_backend.compiler.program import Program
from models import (
    SGD,
    Adam,
    AdamW,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Graph,
    Linear,
    Loss,
    MaxPool2d,
    MeanNorm,
    MeanSquaredError,
    Optimizer,
    Plan,
    ReLU,
    RMSProp,
    Sequential,
    SiLU,
    SoftmaxCrossEntropy,
    Step,
    Tanh,
    Value,
)
from models.epochs import run_epoch
from models.execute import Calls, Executor
from models.plan import LEARNING_RATE, STEP

from ..support.every import every
from ..support.processes import PRELUDE, Process, forked, run

NUMBA = kernels.get("numba")
SMALL = [case for case in CASES if "bench" not in case.tags]
OPTIMIZERS = [SGD(0.1, momentum=0.9, nesterov=True), RMSProp(1e-3), Adam(1e-2), AdamW(1e-2), SGD(0.1), Adam(1e-3)]
CAN_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def executor(
    model: Graph, optimizer: Optimizer | None, batch_size: int, loss: Loss | None = None, compiled: bool = True
) -> Executor:
    """What a trainer builds."""
    plan = model.lower_training(SoftmaxCrossEntropy() if loss is None else loss, optimizer, batch_size)
    gradients = memory.zeros(model.parameter_layout.size, model.dtype)
    arrays = model.arrays() | {"gradients": gradients}
    arrays |= {f"d{name}": view for name, view in model.parameter_layout.views(gradients).items()}
    arrays |= {f"optimizer.{name}": np.zeros_like(gradients) for name in (optimizer.state if optimizer else ())}
    return Executor(plan, model.kernels, batch_size, arrays, compiled)


def weights(model: Graph) -> bytes:
    return b"".join(array.tobytes() for array in (*model.parameters().values(), *model.statistics().values()))


def trained(build: Callable[[], Graph], optimizer: Optimizer, loss: Loss | None, compiled: bool) -> list[bytes]:
    """Everything that some steps on batches of 7, 7 and 3, and inference on 5 and 2, leave behind."""
    model = build()
    step = executor(model, optimizer, 7, loss, compiled)
    rng = np.random.default_rng(1)
    seen = []
    for number, n in enumerate((7, 7, 3), start=1):
        x = rng.standard_normal((n, *model.input_shape)).astype(model.dtype)
        shape = (n, *model.output_shape[1:])
        target = rng.integers(0, shape[-1], n) if loss is None else rng.standard_normal(shape).astype(model.dtype)
        outputs = step.run({"input": x, "target": target}, n, step=number, learning_rate=0.1 / number)
        seen += [array.tobytes() for array in outputs.values()]
        assert np.isfinite(outputs["loss"])
    inference = Executor(model.plan, model.kernels, 5, model.arrays(), compiled)
    for n in (5, 2):
        seen.append(inference.run({"input": x[:1].repeat(n, axis=0)}, n)["output"].tobytes())
    assert step.compiled == inference.compiled == compiled
    return [*seen, weights(model)]


# Kernels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", kernels.kernel_names())
def test_every_kernel_becomes_a_program(kernel: str) -> None:
    every((case for case in SMALL if case.kernel == kernel), becomes_a_program)


def becomes_a_program(case: Case) -> None:
    call = record(case)
    numbers: dict[str, float] = {}
    arguments: list[Any] = []
    for name, value in call.arguments.items():
        if roles(call.kernel)[name] == "scratch":
            first = next(a for a in call.arguments.values() if isinstance(a, np.ndarray))
            value = memory.empty(NUMBA.scratch_size(call.kernel, call.arguments["d"], len(first)), first.dtype)
        if name in ("step", "learning_rate") and call.kernel != "uniform":  # whose step no plan counts
            numbers[name] = value
            value = STEP if name == "step" else LEARNING_RATE
        arguments.append(value)
    plainly = [v.copy() if isinstance(v, np.ndarray) else numbers[v.name] if isinstance(v, Scalar) else v
               for v in arguments]  # fmt: skip
    function = NUMBA.function(call.kernel)
    before = [value.tobytes() for value in arguments if isinstance(value, np.ndarray)]
    program = NUMBA.program([(function, arguments)])
    assert program is not None, f"{call.kernel} computes outside of compiled code"
    assert before == [value.tobytes() for value in arguments if isinstance(value, np.ndarray)], "recorded, not run"
    function(*plainly)
    program.run(1, {name: [value] for name, value in numbers.items()})
    for name, role, one, other in zip(call.arguments, roles(call.kernel).values(), arguments, plainly, strict=True):
        if role != "scratch" and isinstance(one, np.ndarray):
            assert one.tobytes() == other.tobytes(), name


def test_programs_add_up_and_run_in_rounds() -> None:
    x, y, z = (np.full(40_000, value, np.float32) for value in (1, 2, 3))
    first, second = NUMBA.program([(NUMBA.backend.add, [x, y, y])]), NUMBA.program([(NUMBA.backend.add, [z, y, z])])
    assert first is not None
    assert second is not None
    (first + second).run(3, {})
    assert set(y) == {5}
    assert set(z) == {3 + 3 + 4 + 5}


def test_a_program_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[Program] = []
    link = Program._link

    def noted(program: Program) -> None:
        laid_out.append(program)
        link(program)

    monkeypatch.setattr(Program, "_link", noted)
    step = executor(Sequential([Linear(3)], (4,), "numba"), SGD(0.1), 2)
    for value in step.plan.inputs.values():
        step.array(value, 2)[...] = 0
    step.run_in_place(2, step=1, learning_rate=0.1)
    first = list(laid_out)
    for i in 2, 3:
        step.run_in_place(2, step=i, learning_rate=0.1)
    assert first
    assert laid_out == first


@pytest.mark.parametrize("clock", [True, False])
def test_each_step_is_timed_where_it_runs(k: kernels.Kernels, clock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's time is in its own place, and what is computed stays the same."""
    if not clock:
        monkeypatch.setattr("kernels.numba_backend.compiler.program._clock", lambda: None)
    kept = []
    passes = []
    for timed in False, True:
        model = Sequential([Linear(600), ReLU(), Linear(3)], (900,), k.name)
        step = executor(model, SGD(0.1), 64)
        step.array(step.plan.inputs["input"], 64)[...] = np.linspace(-1, 1, 900)
        step.array(step.plan.inputs["target"], 64)[...] = 0
        for i in range(1, 6):
            start = time.perf_counter()
            if timed:
                passes.append(step.times(64, step=i, learning_rate=0.1))
                assert 0 < passes[-1].sum() <= time.perf_counter() - start
            else:
                step.run_in_place(64, step=i, learning_rate=0.1)
        kept.append(weights(model))
    assert kept[0] == kept[1]
    seconds = np.min(passes, axis=0)
    assert seconds.shape == (len(step.plan.steps),)
    assert str(step.plan.steps[int(np.argmax(seconds))].kernel).startswith("linear")


def test_a_pass_is_timed_without_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks once a look, every kernel takes a second, whatever it costs, wherever it is called from."""
    ticks = itertools.count()
    monkeypatch.setattr("models.execute.time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int64))
    def clock(kind: int, time: Any) -> int:
        time[0], time[1] = next(ticks), 0
        return 0

    address = ctypes.cast(clock, ctypes.c_void_p).value
    monkeypatch.setattr("kernels.numba_backend.compiler.program._clock", lambda: address)
    add, x = NUMBA.backend.add, np.ones(9, np.float32)
    calls = [(lambda x, y: (add(x, y, y), add(x, y, y)), [x, x.copy()]), (add, [x, x, x.copy()])]
    program = NUMBA.program(calls)
    assert program is not None
    assert (program + program).times({}).tolist() == [2, 1, 2, 1]
    assert Calls(calls).times({}).tolist() == [1, 1]


def test_scalars_come_anew_each_round() -> None:
    p, g = np.full(9, 100, np.float32), np.ones(9, np.float32)
    program = NUMBA.program([(NUMBA.backend.sgd, [p, g, None, LEARNING_RATE, 0.0, False, 0.0, False])])
    assert program is not None
    program.run(3, {"learning_rate": [1.0, 20.0, 0.5]})
    assert set(p) == {100 - 21.5}
    with pytest.raises(KeyError, match="learning_rate"):
        program.run(1, {})


def _with_a_copy(x: Input, y: Output) -> None:
    NUMBA.backend.relu(x + 1, y)


def _with_a_write(x: Input, y: Output) -> None:
    NUMBA.backend.relu(x, y)
    y += 1


def _with_arithmetic(p: InPlace, g: Input, learning_rate: float) -> None:
    NUMBA.backend.sgd(p, g, None, 2 * learning_rate, 0.0, False, 0.0, False)


@pytest.mark.parametrize("function", [_with_a_copy, _with_a_write, _with_arithmetic], ids=lambda f: f.__name__[1:])
def test_what_computes_in_python_is_no_program(function: Callable[..., None]) -> None:
    arrays = np.ones(9, np.float32), np.ones(9, np.float32)
    scalars = [LEARNING_RATE] if function is _with_arithmetic else []
    assert NUMBA.program([(function, [*arrays, *scalars])]) is None
    assert set(np.concatenate(arrays)) == {1}


def test_a_kernels_exception_reaches_python() -> None:
    from kernels.numba_backend.compiler.jit import kernel

    @kernel  # type: ignore[untyped-decorator]
    def refuse(x: Any) -> None:
        if x[0] < 0:
            raise ValueError("negative")

    x = np.ones(3)
    program = NUMBA.program([(refuse.alone, [x])])
    assert program is not None
    program.run(1, {})
    x[0] = -1
    with pytest.raises(ValueError, match="negative"):
        program.run(1, {})


# Plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(("network", "optimizer"), list(zip(models.NETWORKS, OPTIMIZERS, strict=True)))
def test_networks(network: str, optimizer: Optimizer, dtype: type) -> None:
    def build() -> Graph:
        return models.build(network, "numba", dtype=dtype)

    assert trained(build, optimizer, None, compiled=True) == trained(build, optimizer, None, compiled=False)


def random_graph(seed: int) -> Graph:
    """Some layers in a row, here and there in two branches that meet again."""
    rng = random.Random(seed)
    nodes: dict[str, tuple[Any, ...]] = {}
    last, size = "input", 8

    def add(layer: Any, *inputs: str) -> str:
        nodes[f"n{len(nodes)}"] = (layer, *inputs)
        return f"n{len(nodes) - 1}"

    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(("convolution", "pool", "pointwise", "norm", "branch"))
        if kind == "convolution":
            last = add(Conv2d(rng.choice((3, 8)), 3, padding=1, bias=rng.random() < 0.5), last)
        elif kind == "pool" and size >= 2:
            last, size = add(rng.choice((MaxPool2d, AvgPool2d))(2), last), size // 2
        elif kind == "pointwise":
            last = add(rng.choice((ReLU(), Tanh(), SiLU(), Dropout(0.3))), last)
        elif kind == "norm":
            last = add(rng.choice((BatchNorm(), MeanNorm())), last)
        elif kind == "branch":
            one, two = (add(Conv2d(4, 1, padding=0), last) for _ in range(2))
            last = add(rng.choice((Add(), Concat())), one, two)
    last = add(Linear(rng.randint(2, 12)), add(Flatten(), last))
    return Graph(nodes, last, (8, 8, 2), "numba", seed)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed: int) -> None:
    optimizer, loss = OPTIMIZERS[seed % len(OPTIMIZERS)], MeanSquaredError() if seed % 3 == 0 else None

    def build() -> Graph:
        return random_graph(seed)

    assert trained(build, optimizer, loss, compiled=True) == trained(build, optimizer, loss, compiled=False)


def test_numpy_and_kernels_of_ones_own_run_plainly() -> None:
    from .test_custom import PReLU

    for model in (Sequential([Linear(2)], (3,), "numpy"), Sequential([PReLU(), Linear(2)], (3,), "numba")):
        x = np.ones((4, 3), np.float32)
        plain = Executor(model.plan, model.kernels, 4, model.arrays())
        assert plain.run({"input": x}, 4)["output"].tobytes() == model.predict(x).tobytes()
        assert not plain.compiled


def test_constants_run_when_the_version_changes(k: kernels.Kernels) -> None:
    shapes = {"x": ("N", 4), "w": (4,), "folded": (4,), "sum": ("N", 4), "y": ("N", 4), "last": (4,)}
    x, w, folded, sum_, y, last = (Value(name, shape) for name, shape in shapes.items())
    calls = ("relu", (x, sum_)), ("add", (sum_, sum_, y)), ("add", (folded, folded, last))
    steps = tuple(Step(kernel, arguments, "forward") for kernel, arguments in calls)
    plan = Plan(steps, {"x": x}, {"y": y, "last": last}, constants=(Step("relu", (w, folded), ""),))
    w_array = np.arange(-1, 3, dtype=np.float32)
    constant = Executor(plan, k, 2, {"w": w_array})
    for version, start, expected in ((5, -1, [0, 0, 2, 4]), (5, 1, [0, 0, 2, 4]), (6, 1, [2, 4, 6, 8])):
        w_array[...] = np.arange(start, start + 4)
        outputs = constant.run({"x": np.ones((2, 4), np.float32)}, 2, version=version)
        np.testing.assert_array_equal(outputs["last"], expected)
        np.testing.assert_array_equal(outputs["y"], 2)


@pytest.fixture
def rectifier() -> Executor:
    """y = relu(x) of 64 KiB."""
    x, y = (Value(name, ("N", 4096)) for name in ("x", "y"))
    return Executor(Plan((Step("relu", (x, y), "forward"),), {"x": x}, {"y": y}), NUMBA, 4, {})


@pytest.mark.parametrize("n", [4, 3])
def test_large_inputs_are_read_where_they_lie(rectifier: Executor, n: int) -> None:
    own = rectifier.array(rectifier.plan.inputs["x"], n)
    own[...] = 7
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((n, 4096), np.float32)
        np.testing.assert_array_equal(rectifier.run({"x": x}, n)["y"], np.maximum(x, 0))
    assert (own == 7).all()
    rectifier.run_in_place(n)
    assert (rectifier.array(rectifier.plan.outputs["y"], n) == 7).all()


def test_inputs_of_another_layout_are_copied(rectifier: Executor) -> None:
    rng = np.random.default_rng(0)
    astray = np.empty(4 * 4 * 4096 + 1, np.uint8)[1:].view(np.float32).reshape(4, 4096)
    astray[...] = rng.standard_normal((4, 4096))
    for x in (rng.standard_normal((4, 8192), np.float32)[:, ::2], rng.standard_normal((4096, 4), np.float32).T, astray):
        np.testing.assert_array_equal(rectifier.run({"x": x}, 4)["y"], np.maximum(x, 0))
    wide = rng.standard_normal((4, 4096))
    np.testing.assert_array_equal(rectifier.run({"x": wide}, 4)["y"], np.maximum(wide.astype(np.float32), 0))


def test_an_input_that_is_an_output_as_well_is_there() -> None:
    x, y = (Value(name, ("N", 4096)) for name in ("x", "y"))
    plan = Plan((Step("relu", (x, y), "forward"),), {"x": x}, {"y": y, "maps": Value("maps", ("N", 64, 64), base=x)})
    given = np.random.default_rng(0).standard_normal((4, 4096), np.float32)
    outputs = Executor(plan, NUMBA, 4, {}).run({"x": given}, 4)
    np.testing.assert_array_equal(outputs["y"], np.maximum(given, 0))
    np.testing.assert_array_equal(outputs["maps"].reshape(4, 4096), given)


def test_a_fused_step_without_its_kernel_gives_way(k: kernels.Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    x, middle, y = (Value(name, ("N", 4)) for name in ("x", "middle", "y"))
    w, d = Value("w", (4, 4)), shapes.LinearDims(4, 4)
    inner = Step("linear", (x, w, None, d, middle), ""), Step("relu", (middle, y), "")
    fused = Step("linear_relu", (x, w, None, d, y), "", replaces=inner)
    monkeypatch.setattr(k, "has", lambda name: name != fused.name and hasattr(k.backend, name))
    ran = Executor(Plan((fused,), {"x": x}, {"y": y}), k, 1, {"w": np.eye(4, dtype=np.float32)})
    assert ran.plan.steps == inner
    np.testing.assert_array_equal(ran.run({"x": np.array([[-1, 0, 1, 2]], np.float32)}, 1)["y"], [[0, 0, 1, 2]])


# Epochs ----------------------------------------------------------------------------------------------------------


def images(dtype: type, count: int = 45) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 6, 5, 1)).astype(np.uint8) if dtype is np.uint8 else rng.standard_normal(
        (count, 6, 5, 1)).astype(dtype)  # fmt: skip


def small(backend: str, dtype: type = np.float32) -> Graph:
    layers = [Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(3)]
    return Sequential(layers, (6, 5, 1), backend, dtype=dtype, normalisation=(100.5, 61.3))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "floats"])
@pytest.mark.parametrize("source", [np.uint8, np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_an_epoch_is_its_steps(k: kernels.Kernels, dtype: type, source: type, labelled: bool, compiled: bool) -> None:
    x, rng, optimizer = images(source), np.random.default_rng(2), RMSProp(1e-2)
    target = rng.integers(0, 3, len(x)) if labelled else rng.standard_normal((len(x), 3))
    loss = SoftmaxCrossEntropy(0.1) if labelled else MeanSquaredError()
    order, rates = rng.permutation(len(x))[:41], np.linspace(1e-2, 1e-3, 6)

    one, other = small(k.name, dtype), small(k.name, dtype)
    whole = executor(one, optimizer, 8, loss, compiled)
    inputs = {"input": x, "target": target}
    losses, counts = run_epoch(whole, inputs, order, one.normalisation, step=range(10, 16), learning_rate=rates)
    assert whole.compiled == (compiled and k.name == "numba")

    steps = executor(other, optimizer, 8, loss, compiled=False)
    for batch in range(6):
        chosen = order[8 * batch : 8 * batch + 8]
        given = {"input": other.prepare(x[chosen]), "target": target[chosen]}
        outputs = steps.run(given, len(chosen), step=10 + batch, learning_rate=rates[batch])
        assert losses[batch] == outputs["loss"]
        if counts is not None:
            assert counts[batch] / len(chosen) == models.accuracy(outputs["output"], target[chosen])
    assert weights(one) == weights(other)
    assert (counts is not None) == labelled


def test_an_epoch_in_parts_is_the_same_epoch() -> None:
    x, labels, order = images(np.uint8), np.arange(45) % 3, np.random.default_rng(3).permutation(45)
    seen = []
    for parts in ([45], [16, 24, 5], [8] * 5 + [5]):
        model = small("numba")
        part, first, losses = executor(model, Adam(1e-2), 8), 0, []
        for count in parts:
            batches = -(-count // 8)
            losses += list(
                run_epoch(
                    part,
                    {"input": x, "target": labels},
                    order[first : first + count],
                    model.normalisation,
                    step=range(1 + first // 8, 1 + first // 8 + batches),
                    learning_rate=[0.01] * batches,
                )[0]
            )
            first += count
        seen.append((losses, weights(model)))
    assert seen[0] == seen[1] == seen[2]


def test_an_epoch_refuses_what_it_cannot_read() -> None:
    model = small("numba")
    reader = executor(model, SGD(0.1), 8)
    inputs = {"input": images(np.uint8), "target": np.zeros(45, np.int64)}
    scalars = {"step": [1, 2], "learning_rate": [0.1, 0.1]}
    for bad in (-1, 45):
        with pytest.raises(IndexError, match=r"epoch: order holds .* input has 45 samples"):
            run_epoch(reader, inputs, np.array([0, bad]), (1.0, 1.0), **scalars)
    with pytest.raises(ValueError, match="epoch: step has 2 values, expected 3"):
        run_epoch(reader, inputs, np.arange(17), (1.0, 1.0), **scalars)
    with pytest.raises(ValueError, match="epoch: input holds uint8 images, expected a normalisation"):
        run_epoch(reader, inputs, np.arange(16), **scalars)
    losses, counts = run_epoch(reader, inputs, np.arange(0), (1.0, 1.0), step=[], learning_rate=[])
    assert losses.size == 0
    assert counts is not None
    assert counts.size == 0


def test_levels_are_the_pixels_normalised(k: kernels.Kernels) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    levels = data.standardise(np.arange(256, dtype=np.uint8), 33.3, 78.6)
    y = np.empty((5, 16), np.float32)
    order = np.random.default_rng(0).permutation(16)
    k.function("gather")(pixels, order, 2, levels, y)
    np.testing.assert_array_equal(y, data.standardise(pixels[order[10:15]], 33.3, 78.6))


def test_correct_predictions_are_counted_as_numpy_does(k: kernels.Kernels) -> None:
    nan, inf = np.nan, np.inf
    rows = [[1, 3, 2], [2, 2, 1], [nan, 1, 2], [1, nan, 2], [5, nan, nan], [-inf, -inf, -inf], [-inf, inf, nan]]
    output = np.array(rows, np.float32)
    for label in range(3):
        labels, counts = np.full(len(rows), label), np.zeros(2, np.int64)
        k.function("count_correct")(output, labels, 1, counts)
        assert list(counts) == [0, np.sum(output.argmax(axis=1) == label)]


# Processes -------------------------------------------------------------------------------------------------------

STEPS = """
import numpy as np
import models
from models import RMSProp, Trainer

def steps(count=3, seed=0, compiled=True):
    "Losses and weights after some steps on batches large enough for parallel regions."
    trainer = Trainer(models.build("mlp-nobias", "numba", seed), RMSProp(1e-3), batch_size=64)
    trainer.executor.compiled = compiled
    x = np.random.default_rng(seed).standard_normal((64, 28, 28, 1)).astype(np.float32)
    losses = [trainer.step(x, np.arange(64) % 10) for _ in range(count)]
    assert trainer.executor.compiled == compiled
    return losses, b"".join(array.tobytes() for array in trainer.model.parameters().values())
"""

SMALL_PLAN = f"""
{PRELUDE}
import numpy as np
import kernels
from models import LeakyReLU, ReLU, Sequential
from models.execute import Executor

model = Sequential([LeakyReLU(), ReLU()], (300,), "numba")
x = np.linspace(-2, 2, 64 * 300).reshape(64, 300)

def output(compiled):
    "Of batches large enough for parallel regions, and of a small one."
    executor = Executor(model.plan, model.kernels, 64, model.arrays(), compiled)
    outputs = [executor.run({{"input": x[:n]}}, n)["output"].tobytes() for n in (64, 3)]
    return outputs, executor.compiled

plain = output(compiled=False)[0]
before = len(compiled)
same = output(compiled=True) == (plain, JIT)
print(same, before > 0, compiled[before:])
"""


def test_a_program_compiles_no_kernel_and_is_cached(tmp_path: Path) -> None:
    program = SMALL_PLAN.replace("JIT", "True")
    assert forked(program, NUMBA_CACHE_DIR=tmp_path)[0] == ["True True ['_run']"]
    assert forked(program, NUMBA_CACHE_DIR=tmp_path)[0] == ["True False []"]


def test_without_a_cache_or_a_compiler_it_works(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    lines, _ = forked(SMALL_PLAN.replace("JIT", "True"), NUMBA_CACHE_DIR=file / "folder")
    assert lines[0].startswith("True")
    assert run(SMALL_PLAN.replace("JIT", "False"), NUMBA_DISABLE_JIT=1) == ["True False []"]


FORK = f"""
import os
{STEPS}
import kernels
from models.execute import Executor
expected = steps()
model = models.build("mlp-nobias", "numba")
x = np.random.default_rng(0).standard_normal((300, 28, 28, 1)).astype(np.float32)
before = model.predict(x)  # bound in the parent, run again in the child

def same():
    # The child's code is without threads: another compilation, in which the optimizer's rounding may differ.
    return np.allclose(steps()[0], expected[0], rtol=1e-5, atol=0) and np.allclose(model.predict(x), before, rtol=1e-5)

child = os.fork()
if child == 0:
    os._exit(0 if same() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), steps() == expected, same())
"""


@CAN_FORK
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_a_forked_child_and_its_parent_go_on(layer: str) -> None:
    process = Process(FORK, NUMBA_THREADING_LAYER=layer)
    assert process.result()[0] == ["0 True True"]


AT_ONCE = f"""
{STEPS}
import threading
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(3)

def at_once(seed):
    barrier.wait()
    return steps(20, seed)

with ThreadPoolExecutor(3) as pool:
    together = list(pool.map(at_once, range(3)))
print(together == [steps(20, seed, compiled=False) for seed in range(3)])
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_python_threads_may_run_programs_at_once(layer: str) -> None:
    assert run(AT_ONCE, NUMBA_THREADING_LAYER=layer) == ["True"]
