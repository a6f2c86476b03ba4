"""Layers: each against its kernels and the gradient check, and what training does that inference does not."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
import models
from kernels import Kernels
from models import (
    CELU,
    ELU,
    GELU,
    SELU,
    SGD,
    Abs,
    Add,
    Affine,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Divide,
    Dropout,
    Dropout2d,
    Erf,
    Exp,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Graph,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Log,
    LogSoftmax,
    MaxPool2d,
    Mean,
    MeanNorm,
    MeanSquaredError,
    Mish,
    Multiply,
    Negative,
    Pad2d,
    ParametricPower,
    PlanBuilder,
    Power,
    PReLU,
    RaiseToPower,
    Reciprocal,
    ReLU,
    ReLU6,
    Reshape,
    Sequential,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Sqrt,
    Subtract,
    Tanh,
    ThresholdedReLU,
    Trainer,
    Transpose,
    Upsample2d,
    Value,
    gradcheck,
)
from models.execute import Executor

IMAGE = (6, 5, 4)

LAYERS: list[tuple[Layer, tuple[int, ...], tuple[int, ...]]] = [
    (Linear(3), (4,), (3,)),
    (Linear(3, bias=False), (4,), (3,)),
    (Conv2d(6, 3), IMAGE, (4, 3, 6)),
    (Conv2d(4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, bias=False), IMAGE, (3, 7, 4)),
    (Conv2d(3, (3, 2), stride=2, padding="same_lower"), IMAGE, (3, 3, 3)),
    (ConvTranspose2d(4, 3), IMAGE, (8, 7, 4)),
    (
        ConvTranspose2d(6, (3, 2), stride=2, padding=((1, 0), (0, 1)), output_padding=(1, 0), groups=2, bias=False),
        (3, 2, 4),
        (7, 3, 6),
    ),
    (MaxPool2d(2), IMAGE, (3, 2, 4)),
    (MaxPool2d(2, ceil_mode=True), IMAGE, (3, 3, 4)),
    (MaxPool2d(2, 1, "same", dilation=2), IMAGE, (6, 5, 4)),
    (AvgPool2d(3, 2, ((0, 1), (1, 0)), ceil_mode=True, dilation=(1, 2)), IMAGE, (3, 2, 4)),
    (MaxPool2d(3, stride=(1, 2), padding=1), IMAGE, (6, 3, 4)),
    (AvgPool2d(2), IMAGE, (3, 2, 4)),
    (AvgPool2d(3, stride=2, padding=1, count_include_pad=False), IMAGE, (3, 3, 4)),
    (GlobalMaxPool2d(), IMAGE, (4,)),
    (GlobalAvgPool2d(), IMAGE, (4,)),
    (Flatten(), IMAGE, (120,)),
    (BatchNorm(), (3, 2, 4), (3, 2, 4)),
    (BatchNorm(eps=0.1), (4,), (4,)),
    (MeanNorm(), (3, 2, 4), (3, 2, 4)),
    (MeanNorm(), (4,), (4,)),
    (ReLU(), (4,), (4,)),
    (LeakyReLU(0.2), (4,), (4,)),
    (ELU(0.7), (4,), (4,)),
    (GELU(), (4,), (4,)),
    (SiLU(), (4,), (4,)),
    (Sigmoid(), (4,), (4,)),
    (Tanh(), (4,), (4,)),
    (Softplus(), (4,), (4,)),
    (Softmax(), (4,), (4,)),
    (Softmax(1), (3, 2, 4), (3, 2, 4)),
    (LogSoftmax(), (4,), (4,)),
    (Clip(-0.3, 0.4), (4,), (4,)),
    (ReLU6(), (4,), (4,)),
    (HardSigmoid(), (4,), (4,)),
    (HardSwish(), (4,), (4,)),
    (Mish(), (4,), (4,)),
    (SELU(), (4,), (4,)),
    (CELU(0.7), (4,), (4,)),
    (GELU("tanh"), (4,), (4,)),
    (PReLU(), (3, 2, 4), (3, 2, 4)),
    (PReLU(shared=True), (4,), (4,)),
    (Softsign(), (4,), (4,)),
    (ThresholdedReLU(0.3), (4,), (4,)),
    (Exp(), (4,), (4,)),
    (Log(), (4,), (4,)),
    (Sqrt(), (4,), (4,)),
    (Abs(), (4,), (4,)),
    (Negative(), (4,), (4,)),
    (Reciprocal(), (4,), (4,)),
    (Power(-1.5), (4,), (4,)),
    (ParametricPower(), (3, 2, 4), (3, 2, 4)),
    (ParametricPower((3, 1, 4)), (3, 2, 4), (3, 2, 4)),
    (Erf(), (4,), (4,)),
    (LogSoftmax(-2), (3, 2, 4), (3, 2, 4)),
    (LayerNorm(), (3, 2, 4), (3, 2, 4)),
    (LayerNorm((1, 2, 3), eps=0.1), (3, 2, 4), (3, 2, 4)),
    (GroupNorm(2), (3, 2, 4), (3, 2, 4)),
    (InstanceNorm(), (3, 2, 4), (3, 2, 4)),
    (LocalResponseNorm(3, alpha=0.3), (3, 2, 4), (3, 2, 4)),
    (Affine(), (3, 2, 4), (3, 2, 4)),
    (Affine((3, 1, 4), bias=False), (3, 2, 4), (3, 2, 4)),
    (Affine((2, 1), scale=False), (3, 2, 4), (3, 2, 4)),
    (Mean((1, 2)), IMAGE, (4,)),
    (Mean((1, -1), keepdims=True), IMAGE, (1, 5, 1)),
    (Reshape((-1, 2, 4)), IMAGE, (15, 2, 4)),
    (Transpose((3, 1, 2)), IMAGE, (4, 6, 5)),
    (Slice(1, 1, 4), IMAGE, (3, 5, 4)),
    (Slice(-1, step=-2), IMAGE, (6, 5, 2)),
    (Pad2d(((1, 2), (0, -1))), IMAGE, (9, 4, 4)),
    (Pad2d(2, "reflect"), IMAGE, (10, 9, 4)),
    (Upsample2d((2, 3)), (2, 3, 4), (4, 9, 4)),
    (Dropout(0.4), (4,), (4,)),
    (Dropout2d(0.4), IMAGE, IMAGE),
]
JOINS: list[tuple[Layer, tuple[int, ...]]] = [
    (Add(), (3, 3, 2)),
    (Multiply(), (3, 3, 2)),
    (Concat(), (3, 3, 6)),
    (Concat(1), (9, 3, 2)),
]
PAIRS: list[Layer] = [Add(), Subtract(), Multiply(), Divide(), RaiseToPower()]


def test_every_layer_is_in_these_tables() -> None:
    exported = [getattr(models, name) for name in models.__all__]
    layers = {c for c in exported if isinstance(c, type) and issubclass(c, Layer)} - {Layer}
    assert layers == {type(row[0]) for row in (*LAYERS, *JOINS)} | set(map(type, PAIRS))


@pytest.mark.parametrize(("layer", "input_shape", "output_shape"), LAYERS, ids=[str(row[0]) for row in LAYERS])
def test_a_layers_gradients_and_output_shape(
    k: Kernels, layer: Layer, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    positive = isinstance(layer, Log | Sqrt | Power | ParametricPower)
    x = np.random.default_rng(0).uniform(0.5, 2, (3, *input_shape)) if positive else None
    check = gradcheck(layer, x, input_shape=input_shape, backend=k.name)
    assert check.error < 1e-7, check
    assert Sequential([layer], input_shape).output_shape == ("N", *output_shape)


@pytest.mark.parametrize(("layer", "output_shape"), JOINS, ids=[str(row[0]) for row in JOINS])
def test_the_gradients_of_a_join(k: Kernels, layer: Layer, output_shape: tuple[int, ...]) -> None:
    """Three inputs that all need a gradient, and one that does not in the middle."""
    nodes = {"a": (Conv2d(2, 1), "input"), "b": (Conv2d(2, 1), "input"), "c": (Tanh(), "input")}
    graph = Graph({**nodes, "join": (layer, "a", "c", "b")}, "join", (3, 3, 2), k.name)
    assert graph.output_shape == ("N", *output_shape)
    assert gradcheck(graph, loss=MeanSquaredError()).error < 1e-7
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 2))
    a, b = (np.einsum("nhwc,cf->nhwf", x, graph.parameters()[f"{name}.w"][0, 0].astype(np.float64)) for name in "ab")
    parts = [a, np.tanh(x), b]
    match layer:
        case Concat():
            expected = np.concatenate(parts, axis=layer.axis)
        case _:
            expected = {"add": np.add, "multiply": np.multiply}[layer.kernel].reduce(parts)
    np.testing.assert_allclose(graph.to(k.name, np.float64).predict(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", PAIRS, ids=str)
@pytest.mark.parametrize("narrow", ["a", "b"])
def test_a_map_and_a_number_a_channel(k: Kernels, layer: Layer, narrow: str) -> None:
    """As in a squeeze-and-excitation block; either may be the first."""
    nodes = {
        "map": (Conv2d(2, 1), "input"),
        "squeezed": (Mean((1, 2), keepdims=True), "map"),
        "scale": (Softplus(), "squeezed"),
        "join": (layer, *(("scale", "map") if narrow == "a" else ("map", "scale"))),
    }
    if (type(layer), narrow) in ((Divide, "a"), (RaiseToPower, "b")):
        nodes["map"] = (Softplus(), "input")
    graph = Graph(nodes, "join", (3, 4, 2), k.name)
    assert graph.output_shape == ("N", 3, 4, 2)
    assert gradcheck(graph, loss=MeanSquaredError()).error < 1e-7


def test_a_product_of_one_input_with_itself_is_its_square(k: Kernels) -> None:
    graph = Graph({"a": (Linear(3), "input"), "square": (Multiply(), "a", "a")}, "square", (4,), k.name)
    assert gradcheck(graph, loss=MeanSquaredError()).error < 1e-7


def test_many_inputs_are_joined_in_order_and_in_few_turns(k: Kernels) -> None:
    nodes: dict[str, Any] = {f"{i}": (Affine(), "input") for i in range(9)}
    graph = Graph({**nodes, "join": (Concat(), *nodes)}, "join", (2, 3), k.name, dtype=np.float64)
    graph.set_parameters({f"{i}.beta": np.full(3, float(i)) for i in range(9)})
    assert [step.name for step in graph.plan.steps].count("concat") == 5  # of two, two, two and three, and of those
    np.testing.assert_array_equal(graph.predict(np.zeros((1, 2, 3)))[0, 1], np.repeat(np.arange(9.0), 3))
    assert gradcheck(graph, loss=MeanSquaredError()).error < 1e-7


def test_what_moves_nothing_in_memory_writes_no_step() -> None:
    layers = [Reshape((1, 12, 1)), Transpose((2, 3, 1)), Reshape((3, 4)), Flatten()]
    assert Sequential(layers, (3, 4), "numpy").plan.steps == ()
    model = Sequential([Transpose((2, 1)), Transpose((2, 1))], (3, 4), "numpy")
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(model.predict(x), x)


@pytest.mark.parametrize("wrong", ["dx", "dw", "db"])
def test_the_gradient_check_notices_a_wrong_gradient(wrong: str) -> None:
    @dataclass(frozen=True)
    class Mistaken(Linear):
        """Linear, but one of its gradients is off by a thousandth."""

        def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Any) -> Any:
            y, correct = super().lower(plan, p, *x)
            assert correct is not None

            def backward(dy: Value) -> Any:
                dx = correct(dy)
                target = {"dx": dx, "dw": plan.gradient(p.w), "db": plan.gradient(p.b)}[wrong]
                assert isinstance(target, Value)
                of = {"dx": x[0], "dw": p.w, "db": p.b}[wrong]
                plan.call("sgd", target, of, None, 1e-3, 0.0, False, 1.0, True)
                return dx

            return y, backward

    right = gradcheck(Linear(3), input_shape=(4,))
    assert right.error < 1e-7
    found = gradcheck(Mistaken(3), input_shape=(4,))
    assert found.error > 1e-5
    assert found.where.startswith({"dx": "input[", "dw": "0.w[", "db": "0.b["}[wrong])


def test_the_gradient_check_leaves_the_model_as_it_was(k: Kernels) -> None:
    model = Sequential([Linear(3), BatchNorm(), Tanh(), Linear(2)], (4,), k.name, seed=1)
    before = {name: view.copy() for name, view in (model.parameters() | model.statistics()).items()}
    x, y = np.random.default_rng(0).standard_normal((5, 4)), np.array([0, 1, 1, 0, 1])
    given = x.copy()
    for loss in (None, models.SoftmaxCrossEntropy(smoothing=0.2)):
        assert gradcheck(model, x, y, loss).error < 1e-7
    np.testing.assert_array_equal(x, given)
    for name, view in (model.parameters() | model.statistics()).items():
        np.testing.assert_array_equal(view, before[name])
    with pytest.raises(ValueError, match="input_shape is None"):
        gradcheck(Linear(3))


def test_a_layer_without_a_gradient_by_its_input_is_refused_before_one_that_needs_it() -> None:
    @dataclass(frozen=True)
    class Step(Layer):
        def lower(self, plan: PlanBuilder, p: SimpleNamespace, *x: Any) -> Any:
            y = plan.like(x[0])
            plan.call("relu", x[0], y)
            return y, lambda dy: None

    Trainer(Sequential([Step(), Linear(2)], (3,)), SGD(0.1))
    with pytest.raises(TypeError, match="layer Step gives no gradient by its input '0'"):
        Trainer(Sequential([Linear(3), Step(), Linear(2)], (3,)), SGD(0.1))


def test_forward_passes_are_the_kernels_own(k: Kernels) -> None:
    model = Sequential([Conv2d(3, 3, stride=2, padding=1), LeakyReLU(0.3), AvgPool2d(2)], (8, 8, 2), k.name)
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 2)).astype(np.float32)
    w, b = (np.array(model.parameters()[name]) for name in ("0.w", "0.b"))
    expected = k.avgpool2d(k.leaky_relu(k.conv2d(x, w, b, stride=2, padding=1), 0.3), 2)
    np.testing.assert_array_equal(model.predict(x), expected)


# Running statistics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.75])
def test_momentum_is_the_weight_of_the_new_statistic(k: Kernels, momentum: float) -> None:
    """And the running variance is unbiased; inference uses both."""
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((5, 2, 2, 3)) * 3 + 1 for _ in range(3)]
    layer = BatchNorm(momentum=momentum)
    model = Sequential([layer, Flatten()], (2, 2, 3), k.name, dtype=np.float64)
    trainer = Trainer(model, SGD(1e-30), MeanSquaredError(), batch_size=5)
    mean, var = np.zeros(3), np.ones(3)
    for x in batches:
        trainer.step(x, np.zeros((5, 12)))
        rows = x.reshape(-1, 3)
        mean = (1 - momentum) * mean + momentum * rows.mean(0)
        var = (1 - momentum) * var + momentum * rows.var(0, ddof=1)
    np.testing.assert_allclose(model.statistics()["0.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(model.statistics()["0.running_var"], var, rtol=1e-12)
    x = batches[0]
    np.testing.assert_allclose(model.predict(x), ((x - mean) / np.sqrt(var + layer.eps)).reshape(5, -1), rtol=1e-12)


def test_the_running_mean_of_mean_only_norm(k: Kernels) -> None:
    """Two batches of one channel, by hand: 0.1 · 4 = 0.4, then 0.9 · 0.4 + 0.1 · 10 = 1.36."""
    model = Sequential([MeanNorm()], (1,), k.name, dtype=np.float64)
    trainer = Trainer(model, SGD(1e-30), MeanSquaredError(), batch_size=2)
    trainer.step(np.array([[3.0], [5.0]]), np.zeros((2, 1)))
    assert model.statistics()["0.running_mean"] == pytest.approx([0.4], rel=1e-15)
    trainer.step(np.array([[10.0], [10.0]]), np.zeros((2, 1)))
    assert model.statistics()["0.running_mean"] == pytest.approx([1.36], rel=1e-15)
    assert model.predict(np.array([[2.0]]))[0, 0] == pytest.approx(0.64, rel=1e-15)


def test_prediction_leaves_the_running_statistics_alone(k: Kernels) -> None:
    model = Sequential([BatchNorm(), MeanNorm()], (3,), k.name)
    before = {name: view.copy() for name, view in model.statistics().items()}
    model.predict(np.random.default_rng(0).standard_normal((8, 3)))
    for name, view in model.statistics().items():
        np.testing.assert_array_equal(view, before[name])


# Dropout --------------------------------------------------------------------------------------------------------


def dropped(
    backend: str,
    x: np.ndarray,
    batch_size: int,
    steps: int = 1,
    seed: int = 0,
    at: int = 0,
    layer: Layer = Dropout(0.4),  # noqa: B008
) -> np.ndarray:
    """What a dropout layer behind `at` others makes of x in the last of some training steps."""
    model = Sequential([*[Tanh()] * at, layer], x.shape[1:], backend, seed, np.float64)
    plan = model.lower_training(MeanSquaredError(), None, input_gradient=True)
    executor = Executor(plan, model.kernels, batch_size, model.arrays())
    for step in range(1, steps + 1):
        outputs = executor.run({"input": x, "target": np.zeros_like(x)}, len(x), step=step)
    return outputs["output"]


def test_dropout_keeps_the_expectation_and_is_the_identity_in_inference(k: Kernels) -> None:
    x = np.ones((50, 40))
    y = dropped(k.name, x, batch_size=50)
    kept = y != 0
    np.testing.assert_array_equal(y[kept], 1 / 0.6)
    assert abs(kept.mean() - 0.6) < 4 * math.sqrt(0.6 * 0.4 / x.size)
    model = Sequential([Dropout(0.4)], (40,), k.name, dtype=np.float64)
    np.testing.assert_array_equal(model.predict(x), x)


def test_dropout_of_maps_drops_them_whole(k: Kernels) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (30, 3, 2, 40))
    y = dropped(k.name, x, batch_size=30, layer=Dropout2d(0.4))
    kept = y[:, :1, :1] != 0
    np.testing.assert_allclose(y, np.where(kept, x / 0.6, 0), rtol=1e-15)
    assert abs(kept.mean() - 0.6) < 4 * math.sqrt(0.6 * 0.4 / kept.size)
    model = Sequential([Dropout2d(0.4)], x.shape[1:], k.name, dtype=np.float64)
    np.testing.assert_array_equal(model.predict(x), x)
    with pytest.raises(ValueError, match="Dropout2d: x has shape"):
        Sequential([Dropout2d()], (4,))


def test_dropout_trains(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model = Sequential([Linear(32), ReLU(), Dropout(0.5), Linear(2)], (6,), k.name)
    Trainer(model, models.Adam(0.02), batch_size=32).fit(x, y, epochs=30)
    assert model.evaluate(x, y).accuracy > 0.95


def test_dropout_masks_depend_on_seed_step_and_place_alone() -> None:
    x = np.ones((6, 7))
    reference = dropped("numpy", x, batch_size=6) != 0
    for backend, batch_size in itertools.product(kernels.names(), (6, 20)):
        np.testing.assert_array_equal(dropped(backend, x, batch_size) != 0, reference)
        # a shorter batch sees the same beginning of the mask
        np.testing.assert_array_equal(dropped(backend, x[:3], batch_size) != 0, reference[:3])
    different = [dropped("numpy", x, 6, steps=2), dropped("numpy", x, 6, seed=1), dropped("numpy", x, 6, at=1)]
    for y in different:
        assert not np.array_equal(y != 0, reference)


# Configuration --------------------------------------------------------------------------------------------------


def test_layers_print_as_they_are_written() -> None:
    assert str(Conv2d(16, 5)) == "Conv2d(16, 5)"
    assert str(Conv2d(16, (5, 3), padding=1, bias=False)) == "Conv2d(16, (5, 3), padding=1, bias=False)"
    assert str(MaxPool2d(2)) == "MaxPool2d()"
    assert str(BatchNorm(momentum=0.2)) == "BatchNorm(momentum=0.2)"
    assert Conv2d(16, 5) == Conv2d(16, 5, stride=1)
    with pytest.raises(AttributeError):
        Conv2d(16, 5).filters = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0), "Linear: outputs is 0, expected an int >= 1"),
        (lambda: Conv2d(0, 3), "Conv2d: filters is 0"),
        (lambda: Conv2d(3, 0), "Conv2d: size is 0"),
        (lambda: Conv2d(3, (3, 3, 3)), r"Conv2d: size is \(3, 3, 3\)"),
        (lambda: Conv2d(3, 3, stride=0), "Conv2d: stride is 0"),
        (lambda: Conv2d(3, 3, padding=-1), "Conv2d: padding is -1"),
        (lambda: Conv2d(3, 3, padding="valid"), "Conv2d: padding is 'valid'"),
        (lambda: ConvTranspose2d(3, 3, padding="same"), "ConvTranspose2d: padding is 'same'"),
        (lambda: ConvTranspose2d(3, 3, groups=2), "ConvTranspose2d: groups is 2, expected a divisor of 3 filters"),
        (lambda: MaxPool2d(2, ceil_mode=1), "MaxPool2d: ceil_mode is 1"),
        (lambda: AvgPool2d(2, dilation=0), "AvgPool2d: dilation is 0"),
        (lambda: Conv2d(3, 3, dilation=1.5), "Conv2d: dilation is 1.5"),
        (lambda: Conv2d(3, 3, groups=0), "Conv2d: groups is 0"),
        (lambda: Dropout(1.0), "Dropout: rate is 1.0, expected a finite number >= 0 and < 1"),
        (lambda: BatchNorm(eps=-1.0), "BatchNorm: eps is -1.0"),
        (lambda: BatchNorm(momentum=float("nan")), "BatchNorm: momentum is nan"),
        (lambda: MeanNorm(momentum=-0.1), "MeanNorm: momentum is -0.1"),
        (lambda: Affine(scale=False, bias=False), "Affine: scale and bias are False"),
        (lambda: Affine(()), r"Affine: shape is \(\), expected a tuple of sizes"),
        (lambda: Affine((2, 0)), r"Affine: shape\[1\] is 0"),
        (lambda: Reshape((-1, -1)), r"Reshape: shape is \(-1, -1\), expected at most one -1"),
        (lambda: Reshape((0, 3)), r"Reshape: shape\[0\] is 0"),
        (lambda: Transpose((1, 1)), r"Transpose: axes is \(1, 1\)"),
        (lambda: Transpose((0, 1)), r"Transpose: axes is \(0, 1\)"),
        (lambda: Concat(0), "Concat: axis is 0"),
        (lambda: Softmax(0.5), "Softmax: axis is 0.5"),
        (lambda: Mean((1, 0)), "Mean: axes is 0"),
        (lambda: LayerNorm(0), "LayerNorm: axes is 0"),
        (lambda: GroupNorm(0), "GroupNorm: groups is 0"),
        (lambda: InstanceNorm(eps=-1.0), "InstanceNorm: eps is -1.0"),
        (lambda: LocalResponseNorm(0), "LocalResponseNorm: size is 0"),
        (lambda: LocalResponseNorm(3, bias=0.0), "LocalResponseNorm: bias is 0.0"),
        (lambda: Slice(1, step=0), "Slice: step is 0"),
        (lambda: Pad2d("same"), "Pad2d: padding is 'same'"),
        (lambda: Pad2d(1, "wrap"), "Pad2d: mode is 'wrap'"),
        (lambda: Upsample2d(0), "Upsample2d: factor is 0"),
        (lambda: Upsample2d(2, "linear"), "Upsample2d: mode is 'linear'"),
    ],
)
def test_wrong_configurations_are_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("init", "spread"),
    [
        (models.XavierUniform(), math.sqrt(6 / (60 * 9 + 50 * 9) / 3)),
        (models.XavierNormal(gain=2.0), 2 * math.sqrt(2 / (60 * 9 + 50 * 9))),
        (models.HeUniform(), math.sqrt(6 / (60 * 9) / 3)),
        (models.HeNormal(), math.sqrt(2 / (60 * 9))),
    ],
)
def test_initialisers_have_the_stated_spread(init: models.Initialiser, spread: float) -> None:
    w = Sequential([Conv2d(50, 3, init=init)], (3, 3, 60), "numpy", dtype=np.float64).parameters()["0.w"]
    # the standard deviation of n draws varies by less than 1 / √(2 n), here 1 in 232
    assert abs(w.std() / spread - 1) < 4 / math.sqrt(2 * w.size)
    assert abs(w.mean()) < 4 * spread / math.sqrt(w.size)
    if "Uniform" in type(init).__name__:
        assert np.abs(w).max() <= spread * math.sqrt(3)
    else:
        assert np.abs(w).max() > spread * math.sqrt(3)


def test_constant_starts() -> None:
    layers = [Linear(2, init=models.Constant(0.5)), BatchNorm(), Linear(2, init=models.Zeros())]
    model = Sequential(layers, (3,), "numpy")
    p = model.parameters()
    assert (p["0.w"] == 0.5).all()
    assert (p["1.gamma"] == 1).all()
    assert (model.statistics()["1.running_var"] == 1).all()
    assert not any(p[name].any() for name in ("0.b", "1.beta", "2.w", "2.b"))
