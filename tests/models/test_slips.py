"""Slips in layers of one's own, plans made by hand, arrays that change under a run: refused, never written outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
from fuzz import redteam
from kernels import shapes
from models import (
    SGD,
    Callback,
    Constant,
    Graph,
    Layer,
    Linear,
    MeanSquaredError,
    NonFiniteError,
    Parameter,
    Plan,
    Sequential,
    SoftmaxCrossEntropy,
    Step,
    Trainer,
    Value,
    gradcheck,
)
from models.epochs import run_epoch
from models.execute import Executor

Lower = Callable[[Any, SimpleNamespace, Value], Any]


@dataclass(frozen=True)
class Own(Layer):
    """A layer of one's own with a parameter."""

    write: Lower

    def parameters(self, x: shapes.Shape) -> dict[str, Parameter]:
        return {"w": Parameter((int(x[-1]),), Constant(1.0))}

    def lower(self, plan: Any, p: SimpleNamespace, x: Value) -> Any:
        return self.write(plan, p, x)

    def __str__(self) -> str:
        return "Own()"


def meannorm(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    """The layer as it should be: a mean-norm in either form."""
    y, mean, d = plan.like(x), plan.like(p.w, "mean"), shapes.channels(x.shape, "Own")
    plan.call("meannorm", x, p.w, d, y, mean)

    def backward(dy: Value) -> Value | None:
        dx = plan.gradient(x)
        plan.call("meannorm_backward", dy, d, dx, plan.gradient(p.w))
        return dx

    return y, backward


def narrow(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    y = plan.value("y", ("N", x.shape[1] // 2))
    plan.call("relu", x, y)
    return y, None


def with_dims(**wrong: Any) -> Lower:
    def write(plan: Any, p: SimpleNamespace, x: Value) -> Any:
        d = shapes.channels(x.shape, "Own")._replace(**wrong)
        y = plan.like(x)
        plan.call("meannorm", x, p.w, d, y, plan.like(p.w, "mean"))
        return y, None

    return write


def backwards(wrong: Callable[[Any, SimpleNamespace, Value, Value], Any]) -> Lower:
    def write(plan: Any, p: SimpleNamespace, x: Value) -> Any:
        y, backward = meannorm(plan, p, x)
        return y, lambda dy: wrong(plan, p, x, dy) or backward(dy)

    return write


def other_shape(plan: Any, p: SimpleNamespace, x: Value, dy: Value) -> Any:
    dx = plan.value("dx", ("N", 3))
    plan.call("meannorm_backward", dy, shapes.channels(x.shape, "Own"), plan.gradient(x), plan.gradient(p.w))
    plan.call("concat", dx, dx, None, None, plan.like(x))
    return dx


def twice(plan: Any, p: SimpleNamespace, x: Value, dy: Value) -> None:
    plan.call("meannorm_backward", dy, shapes.channels(x.shape, "Own"), plan.gradient(x), plan.gradient(p.w))


def forgotten(plan: Any, p: SimpleNamespace, x: Value, dy: Value) -> Any:
    dx = plan.gradient(x)
    plan.call("relu", dy, dx)
    return dx


def unwritten(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    y, t = plan.like(x), plan.like(x, "t")
    plan.call("add", x, t, y)
    return y, None


def in_place(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    plan.call("relu", x, x)
    return x, None


def of_other_windows(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    image = plan.view(x, ("N", 2, 2, 1))
    whole, part = shapes.pool2d(image.shape, 2, 2, 0, "Own"), shapes.pool2d(image.shape, 1, 2, 0, "Own")
    y, argmax, again = plan.value("y", ("N", 1, 1, 1)), plan.value("a", ("N", 1, 1, 1), np.uint8), plan.like(image)
    plan.call("maxpool2d", image, whole, y, argmax)
    plan.call("maxpool2d_backward", y, argmax, part, again)
    return plan.view(again, x.shape), None


def reshaped(plan: Any, p: SimpleNamespace, x: Value) -> Any:
    return plan.view(x, ("N", 3)), None


SLIPS: dict[str, tuple[Lower, str]] = {
    "half the output": (narrow, "kernel relu: y has shape (N, 2), expected (N, 4): relu(x (N, 4), y (N, 2))"),
    "other channels": (with_dims(channels=5), "kernel meannorm: x has shape (N, 4), expected (N, 5)"),
    "other positions": (with_dims(positions=2), "kernel meannorm: x has shape (N, 4), whose places"),
    "no number": (with_dims(channels=4.0), "kernel meannorm: d.channels is 4.0, expected an int >= 1"),
    "a gradient of other shape": (backwards(other_shape), "kernel concat: y has shape (N, 4), expected (N, 6)"),
    "a gradient twice": (backwards(twice), "kernel meannorm_backward: dbeta is d1.w, which meannorm_backward has"),
    "a gradient forgotten": (backwards(forgotten), "layer Own gives no gradient by its 'w'"),
    "what nobody has written": (unwritten, "kernel add: b is 1.t, which nothing has written before"),
    "in place": (in_place, "kernel relu: y is 0.y, as x is; expected an array of its own"),
    "an argmax of other windows": (of_other_windows, "kernel maxpool2d_backward: argmax is 1.a, expected what a max-"),
    "a view of other size": (reshaped, "value 0.y: shape (N, 3) does not hold the elements of (N, 4)"),
    "no output": (lambda plan, p, x: None, "lower gives None, expected the output and the function"),
    "an output without samples": (lambda plan, p, x: (p.w, None), "lower: the output has shape (4,), expected the"),
    "a name of NumPy's": (lambda plan, p, x: (plan.like(x, dtype=np.int64), None), "lower: the output has dtype int64"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_refused_when_the_plan_is_made(slip: str) -> None:
    write, message = SLIPS[slip]
    with pytest.raises((ValueError, TypeError)) as raised:
        Trainer(Sequential([Linear(4), Own(write), Linear(2)], (3,), "numpy"), SGD(0.1))
    assert str(raised.value).startswith(f"node '1' (Own()): {message}")
    assert "\n" not in str(raised.value)


def test_without_a_slip_the_layer_trains() -> None:
    model = Sequential([Linear(4), Own(meannorm), Linear(2)], (3,), "numpy")
    Trainer(model, SGD(0.1)).step(np.ones((2, 3), np.float32), np.array([0, 1]))


def test_slips_at_random_are_refused_or_plans_like_any_other() -> None:
    seen: dict[str, int] = {}

    def told(number: int, kind: str, words: str) -> None:
        seen[kind] = seen.get(kind, 0) + 1
        assert kind in (redteam.REFUSED, redteam.LEGAL, redteam.NONE), (number, kind, words)

    redteam.findings(0, 300, "numpy", "canaries", told)
    assert seen[redteam.REFUSED] > 150
    assert seen[redteam.LEGAL] > 5


def test_what_is_written_beside_an_array_is_seen() -> None:
    canaries = redteam.Canaries()
    array = canaries((3, 5), np.float32)
    array.fill(1)
    assert canaries.intact()
    np.lib.stride_tricks.as_strided(canaries(7, np.float32), (8,))[7] = 1
    assert not canaries.intact()


# Names --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments(Layer):
    """Parameters of the names that an optimizer keeps."""

    def parameters(self, x: shapes.Shape) -> dict[str, Parameter]:
        return {name: Parameter((int(x[-1]),), Constant(1.0)) for name in ("m", "v")}

    def lower(self, plan: Any, p: SimpleNamespace, x: Value) -> Any:
        y, mean, d = plan.like(x), plan.like(p.m, "mean"), shapes.channels(x.shape, "Moments")
        plan.call("meannorm", x, p.m, d, y, mean)
        z, other = plan.like(x, "z"), plan.like(p.v, "mean")
        plan.call("meannorm", y, p.v, d, z, other)

        def backward(dy: Value) -> Value | None:
            middle, dx = plan.like(dy, "dz"), plan.gradient(x)
            plan.call("meannorm_backward", dy, d, middle, plan.gradient(p.v))
            plan.call("meannorm_backward", middle, d, dx, plan.gradient(p.m))
            return dx

        return z, backward


def test_an_optimizers_own_names_are_no_nodes() -> None:
    nodes = {"optimizer": (Moments(), "input"), "last": (Linear(2), "optimizer")}
    model = Graph(nodes, "last", (3,), "numpy")
    for optimizer in (SGD(0.1), SGD(0.1, momentum=0.5)):
        if optimizer.state:
            with pytest.raises(ValueError, match="node name 'optimizer' is not allowed: its 'v' is the name of SGD"):
                Trainer(model, optimizer)
        else:
            Trainer(model, optimizer).step(np.ones((2, 3), np.float32), np.array([0, 1]))


def test_two_nodes_share_no_array() -> None:
    @dataclass(frozen=True)
    class Dotted(Moments):
        def parameters(self, x: shapes.Shape) -> dict[str, Parameter]:
            return {"b.m": Parameter((3,), Constant(1.0))}

    with pytest.raises(ValueError, match=r"node 'a' \(.*\): parameters gives the name 'b.m', expected one that Python"):
        Graph({"a": (Dotted(), "input")}, "a", (3,), "numpy")


# Executors ------------------------------------------------------------------------------------------------------------


def executor(backend: str = "numpy") -> Executor:
    return Trainer(Sequential([Linear(3)], (4,), backend), SGD(0.1), batch_size=4).executor


X, LABELS = np.ones((4, 4), np.float32), np.array([0, 1, 2, 0])
SCALARS = {"step": 1, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("inputs", "n", "message"),
    [
        ({"input": X[:1], "target": LABELS}, 4, r"input 'input' has shape \(1, 4\), expected \(4, 4\)"),
        ({"input": X, "target": LABELS[:1]}, 4, r"input 'target' has shape \(1,\), expected \(4,\)"),
        ({"input": X, "target": LABELS.astype(np.float32)}, 4, "input 'target' has dtype float32, expected int64"),
        ({"input": X}, 4, "the inputs are input; expected input, target"),
        ({"input": X, "target": LABELS}, 5, "n is 5, expected 1 to 4, the batch size"),
        ({"input": X, "target": LABELS}, 0, "n is 0, expected 1 to 4"),
    ],
)
def test_an_executor_takes_inputs_of_its_plans_shapes(inputs: dict[str, np.ndarray], n: int, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"Executor: {message}"):
        executor().run(inputs, n, **SCALARS)


def test_an_epoch_takes_the_plans_inputs_alone() -> None:
    numbers = {name: [value] for name, value in SCALARS.items()}
    for inputs, message in (
        ({"input": X}, "the inputs are input; expected input, target"),
        ({"input": X, "target": LABELS.astype(np.float32)}, "target has dtype float32, expected int64"),
        ({"input": np.ones((4, 3), np.float32), "target": LABELS}, r"input has shape \(3,\), expected \(4,\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"run_epoch: {message}"):
            run_epoch(executor(), inputs, np.arange(4), **numbers)


def test_a_plan_made_by_hand_is_held_to_the_same() -> None:
    k = kernels.get("numpy")
    x, y, w = Value("x", ("N", 4)), Value("y", ("N", 4)), Value("w", (4, 4))
    with pytest.raises(ValueError, match=r"kernel relu: y has shape \(4, 4\), expected \(N, 4\)"):
        Step("relu", (x, w), "forward")
    linear = Step("linear", (x, w, None, shapes.LinearDims(4, 4), y), "forward")
    plan = Plan((linear,), {"x": x}, {"y": y})
    with pytest.raises(ValueError, match="kernel linear: w is w, which nothing has written before"):
        Executor(plan, k, 2, {})
    with pytest.raises(ValueError, match=r"Executor: w has shape \(4, 3\), expected \(4, 4\)"):
        Executor(plan, k, 2, {"w": np.ones((4, 3), np.float32)})
    with pytest.raises(TypeError, match="Executor: w has dtype float64, expected an array of float32"):
        Executor(plan, k, 2, {"w": np.ones((4, 4))})
    with pytest.raises(ValueError, match="kernel relu: x is another w than the model's own"):
        Executor(replace(plan, steps=(linear, Step("relu", (Value("w", (4, 4)), Value("z", (4, 4))), "")) ), k, 2,
                 {"w": np.ones((4, 4), np.float32)})  # fmt: skip


# Labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_outside_makes_its_row_and_the_loss_nan(k: kernels.Kernels, smoothing: float) -> None:
    logits = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    d, loss, gradient = shapes.ChannelDims(1, 3), np.empty((), np.float32), np.empty_like(logits)
    scratch = np.empty(k.scratch_size("softmax_cross_entropy", d, 5), np.float32)
    labels = np.array([0, 3, 2, -1, 1])
    with np.errstate(invalid="ignore"):
        k.function("softmax_cross_entropy")(logits, labels, smoothing, d, scratch, loss, gradient)
    assert np.isnan(loss)
    assert np.isnan(gradient).all(axis=1).tolist() == [False, True, False, True, False]
    right = k.softmax_cross_entropy(logits, np.array([0, 0, 2, 0, 1]), smoothing)[1]
    np.testing.assert_array_equal(gradient[::2], right[::2])


@dataclass(frozen=True)
class Unchecked(SoftmaxCrossEntropy):
    """A loss that looks at nothing."""

    def check(self, y: Any, rows: int, output: shapes.Shape) -> np.ndarray:
        found: np.ndarray = y
        return found


def test_labels_that_no_loss_has_looked_at_are_no_places(k: kernels.Kernels) -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), k.name), SGD(0.1), Unchecked(), batch_size=4)
    with pytest.raises(NonFiniteError, match="loss is nan"):
        trainer.step(X, np.array([0, 1, 10**12, -(10**12)]))
    with pytest.raises(ValueError, match=r"input 'target' has shape \(2,\)"):
        trainer.step(X, LABELS[:2])


def test_labels_that_change_during_a_fit_are_those_of_its_beginning() -> None:
    class Vandal(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            labels[...] = 10**12

    def fit(callbacks: list[Callback]) -> bytes:
        trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), batch_size=2)
        trainer.fit(np.eye(4, dtype=np.float32), labels, epochs=3, callbacks=callbacks)
        return trainer.model.parameters()["0.w"].tobytes()

    labels = LABELS.copy()
    expected = fit([])
    assert fit([Vandal()]) == expected
    assert labels[0] == 10**12


# Losses and optimizers ------------------------------------------------------------------------------------------------


def test_a_slip_in_a_loss_names_the_loss() -> None:
    @dataclass(frozen=True)
    class Mine(MeanSquaredError):
        def lower(self, plan: Any, output: Value, target: Value) -> tuple[Value, Value]:
            loss, _ = super().lower(plan, output, target)
            return loss, plan.value("other", ("N", 9))

    with pytest.raises(
        ValueError, match=r"^loss .*Mine\(\): lower: the gradient has shape \(N, 9\), expected \(N, 3\)"
    ):
        Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), Mine())


def test_what_is_no_argument_is_named() -> None:
    model: Any = Sequential([Linear(3)], (4,), "numpy")
    trainer: Any = Trainer(model, SGD(0.1))
    calls: dict[str, Callable[[], Any]] = {
        "x is a NoneType, expected a numpy array": lambda: trainer.step(None, LABELS),
        "evaluate: loss is 'mse', expected a models.Loss": lambda: model.evaluate(X, LABELS, "mse"),
        "set_parameters: new is a list, expected arrays by name": lambda: model.set_parameters([1]),
        "rewrites is 5, expected some of pool_first": lambda: Trainer(model, SGD(0.1), rewrites=5),  # type: ignore[arg-type]
        "model: dtype is 'foo', expected float32 or float64": lambda: model.to("numpy", "foo"),
        "model: backend is": lambda: Sequential([Linear(3)], (4,), ["numpy"]),  # type: ignore[arg-type]
        "lower_training: loss is 'x', expected a models.Loss": lambda: model.lower_training("x", None),
        "lower_training: optimizer is 'x', expected a": lambda: model.lower_training(MeanSquaredError(), "x"),
        "gradcheck: model is 'x', expected a models.Graph": lambda: gradcheck("x"),  # type: ignore[arg-type]
    }
    for message, call in calls.items():
        with pytest.raises(TypeError, match=message):
            call()
