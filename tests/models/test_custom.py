"""A layer and two kernels written outside the packages: trained, gradient-checked, saved, on either backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

import models
from kernels import Input, Kernel, Kernels, Output, Scratch, shapes
from kernels.shapes import Shape
from models import SGD, Constant, Layer, Linear, Parameter, PlanBuilder, Sequential, Trainer, Value, gradcheck

# A leaky ReLU whose slope is learned, one a channel (He et al. 2015). First the kernels: functions that fill the
# arrays they are given. The annotations tell what is read and what is written.


def prelu(x: Input, slope: Input, y: Output) -> None:
    """y = x where x > 0, else slope x."""
    y[...] = np.where(x > 0, x, slope * x)


def prelu_backward(dy: Input, x: Input, slope: Input, dx: Output | None, dslope: Output) -> None:
    """dx = dy where x > 0, else slope dy; dslope = Σ dy x where x <= 0. dx is None if nobody needs it."""
    negative = x <= 0
    np.sum(np.where(negative, dy * x, 0), axis=tuple(range(x.ndim - 1)), out=dslope)
    if dx is not None:
        dx[...] = np.where(negative, slope * dy, dy)


# Their twins for the Numba backend.


@numba.njit
def fast_prelu(x, slope, y):  # type: ignore[no-untyped-def]
    rows, filled = x.reshape(-1, slope.size), y.reshape(-1, slope.size)
    for i in range(len(rows)):
        for c in range(slope.size):
            filled[i, c] = rows[i, c] if rows[i, c] > 0 else slope[c] * rows[i, c]


@numba.njit
def fast_prelu_backward(dy, x, slope, dx, dslope):  # type: ignore[no-untyped-def]
    rows, gradient = x.reshape(-1, slope.size), dy.reshape(-1, slope.size)
    dslope[:] = 0
    for i in range(len(rows)):
        for c in range(slope.size):
            if rows[i, c] <= 0:
                dslope[c] += gradient[i, c] * rows[i, c]
    if dx is not None:
        filled = dx.reshape(-1, slope.size)
        for i in range(len(rows)):
            for c in range(slope.size):
                filled[i, c] = gradient[i, c] * (1 if rows[i, c] > 0 else slope[c])


PRELU = Kernel(prelu, fast_prelu, shapes="x y (N, ..., C), slope (C)")
PRELU_BACKWARD = Kernel(prelu_backward, fast_prelu_backward, shapes="dy x dx (N, ..., C), slope dslope (C)")


# Then the layer: its parameters, and its calls forward and backward.


@dataclass(frozen=True)
class PReLU(Layer):
    """y = x where x > 0, else slope x, with one learned slope a channel."""

    start: float = 0.25

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {"slope": Parameter((int(x[-1]),), Constant(self.start))}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Any:
        y = plan.like(x)
        plan.call(PRELU, x, p.slope, y)

        def backward(dy: Value) -> Value | None:
            dx = plan.gradient(x)
            plan.call(PRELU_BACKWARD, dy, x, p.slope, dx, plan.gradient(p.slope))
            return dx

        return y, backward


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4)])
def test_the_layer_passes_the_gradient_check(k: Kernels, shape: tuple[int, ...]) -> None:
    check = gradcheck(PReLU(), input_shape=shape, backend=k.name)
    assert check.error < 1e-7, check


def test_the_layer_trains_to_the_slope_of_the_data(k: Kernels) -> None:
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    y = np.where(x > 0, x, np.array([0.1, -0.4, 0.7], np.float32) * x)
    model = Sequential([PReLU()], (3,), k.name)
    trainer = Trainer(model, SGD(1.0), models.MeanSquaredError(), batch_size=64)
    for _ in range(200):
        trainer.step(x, y)
    np.testing.assert_allclose(model.parameters()["0.slope"], [0.1, -0.4, 0.7], atol=1e-5)
    assert trainer.plan.steps[-2].outputs.keys() == {"dslope"}


def test_the_layer_trains_among_others_and_is_saved(k: Kernels, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 5)).astype(np.float32)
    y = (np.abs(x[:, 0]) > 0.6).astype(np.int64)
    model = Sequential([Linear(16), PReLU(), Linear(2)], (5,), k.name)
    assert gradcheck(model).error < 1e-7
    Trainer(model, models.Adam(0.02), batch_size=20).fit(x, y, epochs=40)
    assert model.evaluate(x, y).accuracy > 0.9
    model.save(tmp_path / "m.safetensors")
    loaded = models.load(tmp_path / "m.safetensors", backend=k.name, layers=[PReLU])
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert "1.y = prelu(0.y, 1.slope)" in str(model.plan)


def test_both_kernels_agree() -> None:
    rng = np.random.default_rng(0)
    dy, x, slope = rng.standard_normal((5, 4, 3)), rng.standard_normal((5, 4, 3)), rng.standard_normal(3)
    results = []
    for backend in ("numpy", "numba"):
        y, dx, dslope, alone = np.empty_like(x), np.empty_like(x), np.empty(3), np.empty(3)
        PRELU.on(backend)(x, slope, y)
        PRELU_BACKWARD.on(backend)(dy, x, slope, dx, dslope)
        PRELU_BACKWARD.on(backend)(dy, x, slope, None, alone)
        np.testing.assert_array_equal(alone, dslope)
        results.append((y, dx, dslope))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_a_kernel_without_a_twin_runs_on_its_own_backend_alone() -> None:
    alone = Kernel(prelu)
    assert alone.on("numpy") is prelu
    with pytest.raises(ValueError, match="kernel prelu has no numba implementation"):
        alone.on("numba")


def scaled(x: Input, d: str, scratch: Scratch, y: Output) -> None:
    """y = 2 x by way of the scratch; the dims can be any object."""
    work = scratch[: x.size].reshape(x.shape)
    np.add(x, x, out=work)
    y[...] = work


def test_a_kernel_of_ones_own_has_scratch(k: Kernels) -> None:
    asked: list[tuple[Any, ...]] = []

    def size(backend: str, d: Any, n: int) -> int:
        asked.append((backend, d, n))
        return 3 * n

    doubling = Kernel(scaled, scaled, scratch=size)

    @dataclass(frozen=True)
    class Double(Layer):
        def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Any:
            y = plan.like(x)
            plan.call(doubling, x, "dims", y)
            return y, None

    model = Sequential([Double()], (3,), k.name)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(model.predict(x), 2 * x)
    assert set(asked) == {(k.name, "dims", 2)}
    with pytest.raises(TypeError, match="layer Double gives no backward in training"):
        Trainer(Sequential([Linear(3), Double(), Linear(2)], (3,)), SGD(0.1))


def test_a_layer_that_defines_nothing_is_named() -> None:
    @dataclass(frozen=True)
    class Nothing(Layer):
        pass

    with pytest.raises(TypeError, match=r"node '0' \(Nothing\(\)\): layer Nothing does not define lower"):
        Sequential([Nothing()], (3,))


# Mistakes in a layer: one line that names the layer, the kernel and the parameter


Call = Callable[[PlanBuilder, Value, SimpleNamespace, Value, Any], None]


@dataclass(frozen=True)
class Careless(Layer):
    """A linear layer that makes one call, in its forward or in its backward."""

    call: Call
    late: bool = False

    def parameters(self, x: Shape) -> Mapping[str, Parameter]:
        return {name: Parameter(shape, Constant(1.0)) for name, shape in (("w", (4, 4)), ("b", (4,)))}

    def lower(self, plan: PlanBuilder, p: SimpleNamespace, x: Value) -> Any:
        y, d = plan.like(x), shapes.linear(x.shape, p.w.shape, None)
        if self.late:
            plan.call("linear", x, p.w, p.b, d, y)
        else:
            self.call(plan, x, p, y, d)

        def backward(dy: Value) -> Value | None:
            self.call(plan, x, p, y, d)
            return plan.gradient(x)

        return y, backward

    def __str__(self) -> str:
        return "Careless()"


MISTAKES: dict[str, tuple[Call, type[Exception], str]] = {
    "misspelt": (
        lambda plan, x, p, y, d: plan.call("linaer", x, p.w, p.b, d, y),
        ValueError,
        "unknown kernel 'linaer'; did you mean 'linear'",
    ),
    "of no kind": (
        lambda plan, x, p, y, d: plan.call("quantise", x, y),
        ValueError,
        "unknown kernel 'quantise'; kernels.kernel_names() lists them",
    ),
    "a function": (
        lambda plan, x, p, y, d: plan.call(prelu, x, p.b, y),  # type: ignore[arg-type]
        TypeError,
        "kernel is <function prelu",
    ),
    "without the output": (
        lambda plan, x, p, y, d: plan.call("relu", x),
        TypeError,
        "kernel relu has no argument for y: relu(0.y), expected relu(x, y)",
    ),
    "without the bias": (
        lambda plan, x, p, y, d: plan.call("linear", x, p.w, d, y),
        TypeError,
        "kernel linear has no argument for b: linear(0.y, 1.w, LinearDims, 1.y), expected linear(x, w, b, d, y)",
    ),
    "without bias and dims": (
        lambda plan, x, p, y, d: plan.call("linear", x, p.w, y),
        TypeError,
        "kernel linear has no argument for d and y: linear(0.y, 1.w, 1.y), expected linear(x, w, b, d, y)",
    ),
    "one too many": (
        lambda plan, x, p, y, d: plan.call("relu", x, 0.5, y),
        TypeError,
        "kernel relu has no parameter for 0.5: relu(0.y, 0.5, 1.y), expected relu(x, y)",
    ),
    "swapped": (
        lambda plan, x, p, y, d: plan.call("linear", x, p.w, d, p.b, y),
        TypeError,
        "kernel linear: b is LinearDims, expected a value of the plan: linear(0.y, 1.w, LinearDims, 1.b, 1.y)",
    ),
    "of its own, without the output": (
        lambda plan, x, p, y, d: plan.call(PRELU, x, p.b),
        TypeError,
        "kernel prelu has no argument for y: prelu(0.y, 1.b), expected prelu(x, slope, y)",
    ),
    "of its own, one too many": (
        lambda plan, x, p, y, d: plan.call(PRELU, x, p.b, y, None),
        TypeError,
        "kernel prelu has no parameter for None: prelu(0.y, 1.b, 1.y, None), expected prelu(x, slope, y)",
    ),
}


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistaken_call_is_told_in_one_line(mistake: str, late: bool) -> None:
    call, error, message = MISTAKES[mistake]

    def build() -> None:
        model = Sequential([Linear(4), Careless(call, late)], (4,), "numpy")
        assert late  # or it would not have come here
        Trainer(model, SGD(0.1))

    with pytest.raises(error) as raised:
        build()
    assert type(raised.value) is error
    assert str(raised.value).startswith(f"node '1' (Careless()): {message}")
    assert "\n" not in str(raised.value)


def test_a_backward_gives_as_many_gradients_as_there_are_inputs() -> None:
    @dataclass(frozen=True)
    class Half(Layer):
        arity = 2

        def lower(self, plan: PlanBuilder, p: SimpleNamespace, left: Value, right: Value) -> Any:
            y = plan.like(left)
            plan.call("add", left, right, y)
            return y, lambda dy: dy

    model = models.Graph({"a": (Linear(3), "input"), "b": (Half(), "a", "input")}, "b", (3,), "numpy")
    with pytest.raises(TypeError, match=r"^node 'b' \(Half\(\)\): backward gives 1 gradients, expected 2"):
        Trainer(model, SGD(0.1), models.MeanSquaredError())


def test_the_names_of_before_are_aliases() -> None:
    assert models.Array is models.Parameter
    assert models.Lowering is models.PlanBuilder
