"""What a user configures: numbers of NumPy's, arguments in PyTorch's order, values that no layer can have."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from data import Augment
from models import (
    ELU,
    SGD,
    Adam,
    AvgPool2d,
    BatchNorm,
    Checkpoints,
    Constant,
    Conv2d,
    Cosine,
    Dropout,
    EarlyStopping,
    Exponential,
    HeNormal,
    LeakyReLU,
    Linear,
    LinearWarmup,
    MaxPool2d,
    MeanNorm,
    MeanSquaredError,
    MultiStep,
    Normal,
    OneCycle,
    RMSProp,
    Schedule,
    Sequential,
    SoftmaxCrossEntropy,
    StepDecay,
    Trainer,
)
from models.settings import Settings

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 4)).astype(np.float32), RNG.integers(0, 3, 12)


def numbers_of_numpy(value: Any) -> list[Any]:
    """Every number of NumPy's type in a setting, however deep."""
    if isinstance(value, np.generic):
        return [value]
    if isinstance(value, tuple | list):
        return [found for part in value for found in numbers_of_numpy(part)]
    if dataclasses.is_dataclass(value):
        return numbers_of_numpy([getattr(value, field.name) for field in dataclasses.fields(value)])
    return []


SETTINGS = [
    Linear(np.int64(3), bias=np.bool_(True), init=Normal(np.float32(0.1))),
    Conv2d(np.int32(3), (np.int64(3), np.int64(2)), stride=np.int8(2), padding=[np.int64(1), 0], groups=np.int64(1)),
    MaxPool2d(np.int64(2), np.int64(1), padding=np.int64(0)),
    AvgPool2d(np.int64(2), count_include_pad=np.bool_(False)),
    BatchNorm(eps=np.float32(1e-3), momentum=np.float64(0.5)),
    MeanNorm(momentum=np.float16(0.5)),
    LeakyReLU(np.float64(0.1)),
    ELU(np.float32(0.1)),
    Dropout(np.float64(0.25)),
    Constant(np.float64(1.0)),
    HeNormal(np.float64(2.0)),
    SGD(np.float64(0.1), momentum=np.float32(0.5), nesterov=np.bool_(True)),
    RMSProp(np.float32(0.1), rho=np.float64(0.5)),
    Adam(np.longdouble(0.1), beta1=np.float64(0.5)),
    StepDecay(np.int64(2), np.float64(0.5)),
    MultiStep((np.int64(1), np.int64(2)), np.float64(0.5)),
    Exponential(np.float64(0.5)),
    Cosine(np.float64(0.1)),
    OneCycle(np.float64(0.3)),
    LinearWarmup(np.int64(3)),
    SoftmaxCrossEntropy(np.float64(0.1)),
    EarlyStopping(patience=np.int64(2), minimum_change=np.float64(0.1)),
    Augment(rotation=np.float64(10.0), scale=(np.float64(0.9), np.float32(1.0)), flip_vertical=np.bool_(True)),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: type(setting).__name__)
def test_numbers_of_numpy_become_pythons(setting: Any) -> None:
    assert numbers_of_numpy(setting) == []


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.longdouble])
@pytest.mark.parametrize(
    ("layer", "expected"), [(LeakyReLU, -0.02), (ELU, 2 * (np.exp(-1) - 1) * 0.1 * np.exp(-1) * 0.1)]
)
def test_a_number_of_numpy_gives_the_gradient_of_pythons(kind: Any, layer: Any, expected: float) -> None:
    model = Sequential([Linear(1, bias=False, init=Constant(-1.0)), layer(kind(0.1))], (1,), "numpy")
    trainer = Trainer(model, SGD(kind(1.0)), MeanSquaredError(), batch_size=1)
    trainer.step(np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32))
    assert trainer.gradients()["0.w"][0, 0] == pytest.approx(expected, rel=1e-5)


def test_a_layer_of_ones_own_may_call_with_numbers_of_numpy() -> None:
    @dataclasses.dataclass(frozen=True)
    class Slope(models.Layer):
        def lower(self, plan: models.PlanBuilder, p: Any, x: models.Value) -> Any:
            y = plan.like(x)
            plan.call("leaky_relu", x, np.linspace(0.1, 1, 3)[0], y)
            return y, None

    model = Sequential([Slope()], (4,), "numpy")
    assert [type(value) for step in model.plan.steps for value in step.dims.values()] == [float]


def trained(number: Callable[[float], Any]) -> models.Graph:
    layers = [Linear(8), BatchNorm(momentum=number(0.25)), LeakyReLU(number(0.125)), Dropout(number(0.5)), Linear(3)]
    model = Sequential(layers, (4,), "numpy", seed=3)
    schedule = OneCycle(warmup=number(0.5))
    trainer = Trainer(model, Adam(number(0.0625), beta1=number(0.5)), SoftmaxCrossEntropy(number(0.25)), 5, schedule)
    trainer.fit(X, Y, epochs=2)
    return model


@pytest.mark.parametrize("number", [np.float64, np.float32, np.float16])
def test_a_training_ends_in_the_same_bits(number: Callable[[float], Any]) -> None:
    expected, model = trained(float), trained(number)
    for name, array in model.parameters().items():
        assert array.tobytes() == expected.parameters()[name].tobytes(), name


def test_a_model_predicts_the_same_after_save_and_load(tmp_path: Path) -> None:
    model = trained(np.float64)
    model.save(tmp_path / "m.safetensors")
    assert models.load(tmp_path / "m.safetensors", "numpy").predict(X).tobytes() == model.predict(X).tobytes()


def test_a_number_of_numpy_can_be_kept_in_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(np.float32(0.1)), batch_size=4)
    trainer.fit(X, Y, epochs=1, checkpoints=Checkpoints(tmp_path, every_steps=np.int64(1)))
    assert len(list(tmp_path.iterdir())) == 3


# What cannot be meant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(784, 128), r"Linear\(784, 128\): expected Linear\(outputs, .*in_features follows"),
        (lambda: Conv2d(1, 16, 5), r"Conv2d\(1, 16, 5\): expected Conv2d\(filters, size, .*in_channels follows"),
        (lambda: BatchNorm(16), r"BatchNorm\(16\): expected BatchNorm\(eps=, momentum=\); num_features follows"),
        (lambda: MeanNorm(16), "num_features follows"),
        (lambda: MaxPool2d(2, 2, 1, 1), r"expected MaxPool2d\(size, stride, padding, dilation=, ceil_mode=\)"),
        (lambda: AvgPool2d(2, 2, 1, False), r"expected AvgPool2d\(size, stride, padding, dilation=, ceil_mode=, count"),
    ],
)
def test_what_follows_from_the_layer_before_is_not_taken(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MaxPool2d(0), "MaxPool2d: size is 0"),
        (lambda: MaxPool2d(2, 0), "MaxPool2d: stride is 0"),
        (lambda: MaxPool2d(2, padding=-1), "MaxPool2d: padding is -1"),
        (lambda: AvgPool2d(2, count_include_pad=1), "AvgPool2d: count_include_pad is 1, expected True or False"),
        (lambda: Linear(3, bias=128), "Linear: bias is 128, expected True or False"),
        (lambda: Conv2d(3, 3, bias="no"), "Conv2d: bias is 'no'"),
        (lambda: Linear(3, init="he_normal"), "Linear: init is 'he_normal', expected a models.Initialiser"),
        (lambda: LeakyReLU("steep"), "LeakyReLU: negative_slope is 'steep'"),
        (lambda: ELU(float("nan")), "ELU: alpha is nan"),
        (lambda: BatchNorm(momentum=2.0), "BatchNorm: momentum is 2.0, expected a finite number >= 0 and <= 1"),
        (lambda: MeanNorm(momentum=1.5), "MeanNorm: momentum is 1.5"),
    ],
)
def test_every_field_is_checked_where_the_layer_is_made(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("outputs", "filters", "size", "every", "steps", "groups", "padding", "axis"), 3),
    **dict.fromkeys(("rate", "learning_rate", "exponent", "value", "std"), 0.5),
    **dict.fromkeys(("milestones", "axes", "shape"), (1, 2)),
    "folder": "nowhere",
}
EXPORTED = [value for value in (getattr(models, name) for name in models.__all__) if isinstance(value, type)]
CLASSES = [c for c in EXPORTED if issubclass(c, (Settings, Checkpoints, EarlyStopping)) and dataclasses.is_dataclass(c)]
FIELDS = [(c, field) for c in (*CLASSES, Augment) for field in dataclasses.fields(c)]
NUMERIC = [(c, field) for c, field in FIELDS if re.search(r"\b(int|float|bool|Pair)\b", str(field.type))]


@pytest.mark.parametrize(("kind", "field"), NUMERIC, ids=[f"{c.__name__}.{field.name}" for c, field in NUMERIC])
def test_every_number_of_every_class_is_checked_where_it_is_made(kind: Any, field: Any) -> None:
    """NaN, infinity, a string, None where it stands for nothing: one line that names class and field."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    needed = {name: REQUIRED[name] for name, f in fields.items() if f.default is dataclasses.MISSING}
    kind(**needed)
    bad = [float("nan"), "a", (float("nan"),), object()]
    bad += [] if field.name in getattr(kind, "unbounded", ()) else [float("inf"), -float("inf")]
    bad += [] if "None" in str(field.type) else [None]
    bad += [] if "float" in str(field.type) else [1.5]
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=rf"^{kind.__name__}: {field.name}\S* is [^\n]*expected"):
            kind(**needed | {field.name: value})


# Rates -----------------------------------------------------------------------------------------------------------


class Broken(Schedule):
    """A schedule that returns what no rate can be."""

    def __call__(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        return float("nan")


def test_settings_are_equal_where_class_and_fields_are() -> None:
    class Own(models.Layer):
        """No dataclass: what it holds is its own affair."""

    one, same, other = models.LeakyReLU(0.1), models.LeakyReLU(0.1), models.LeakyReLU(0.2)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert models.ReLU() != models.Tanh()
    assert models.Adam(0.1) != models.AdamW(0.1)
    assert len({models.ReLU(), models.ReLU(), models.Tanh()}) == 2
    assert len({Own(), Own()}) == 2
    assert repr(one) == "LeakyReLU(negative_slope=0.1)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.negative_slope = 0.3  # type: ignore[misc]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0, "fast"])
def test_a_rate_that_is_none_changes_nothing(rate: Any) -> None:
    model = Sequential([Linear(3)], (4,), "numpy")
    trainer = Trainer(model, SGD(0.1), batch_size=12)
    before = model.parameters()["0.w"].copy()
    with pytest.raises(ValueError, match=r"Trainer\.step: learning_rate is"):
        trainer.step(X, Y, learning_rate=rate)
    with pytest.raises(ValueError, match="Broken: factor at step 0 is nan"):
        trainer.fit(X, Y, epochs=1, schedule=Broken())
    np.testing.assert_array_equal(model.parameters()["0.w"], before)


def test_a_bad_input_is_blamed_before_the_layer_that_reads_it() -> None:
    model = Sequential([models.Flatten(), Linear(3)], (2, 2, 1), "numpy")
    x = X.reshape(-1, 2, 2, 1).copy()
    x[3] = np.nan
    with pytest.raises(models.NonFiniteError, match="first not finite is the input of node '1'"):
        Trainer(model, SGD(0.1), batch_size=12).step(x, Y)


# What is fixed, and what a loss cannot learn from ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "optimizer", "loss", "batch_size", "on_nonfinite", "plan"])
def test_what_the_plan_is_made_of_cannot_be_set(name: str) -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1))
    with pytest.raises(AttributeError, match=f"Trainer: {name} is fixed"):
        setattr(trainer, name, getattr(trainer, name))


def test_layers_cannot_be_appended() -> None:
    assert isinstance(Sequential([Linear(3)], (4,), "numpy").layers, tuple)


@pytest.mark.parametrize("layer", [models.Softmax(), models.LogSoftmax()])
def test_a_softmax_before_cross_entropy_is_warned_of(layer: models.Layer) -> None:
    with pytest.warns(UserWarning, match=rf"the model ends in {type(layer).__name__}\(\)"):
        Trainer(Sequential([Linear(3), layer], (4,), "numpy"), SGD(0.1))


def test_a_single_output_has_no_cross_entropy() -> None:
    with pytest.raises(ValueError, match="the model has 1 output, whose softmax is always 1"):
        Trainer(Sequential([Linear(1)], (4,), "numpy"), SGD(0.1))


@pytest.mark.parametrize("monitor", ["val_loss", "validation_loss", "epoch", "seconds"])
def test_a_monitor_that_has_no_value_is_found_at_the_start(monitor: str) -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), batch_size=4)
    with pytest.raises(ValueError, match=f"monitor is '{monitor}', expected one of loss, accuracy"):
        trainer.fit(X, Y, epochs=1, callbacks=[EarlyStopping(monitor)])
    assert trainer.steps == 0


def test_a_monitor_that_is_nan_ends_the_fit() -> None:
    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), MeanSquaredError(), batch_size=4)
    with pytest.raises(ValueError, match="monitor 'accuracy' is nan"):
        trainer.fit(X, RNG.standard_normal((12, 3)).astype(np.float32), epochs=1, callbacks=[EarlyStopping("accuracy")])


def test_a_second_thread_is_refused() -> None:
    import threading

    trainer = Trainer(Sequential([Linear(3)], (4,), "numpy"), SGD(0.1), batch_size=4)
    found: list[BaseException] = []

    class Intruder(models.Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            def intrude() -> None:
                for work in (lambda: trainer.step(X[:4], Y[:4]), lambda: trainer.fit(X, Y, epochs=1)):
                    try:
                        work()
                    except RuntimeError as error:
                        found.append(error)

            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join()

    trainer.fit(X, Y, epochs=1, callbacks=[Intruder()])
    assert trainer.steps == 3
    assert [str(error) for error in found] == [
        "Trainer: another thread is at work with this trainer; make one for each thread"
    ] * 6
    trainer.step(X[:4], Y[:4])
