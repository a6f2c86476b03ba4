"""Losses by weight, what an optimizer may do besides its step, and both against PyTorch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from kernels.accuracy import ULPS
from models import (
    SGD,
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Huber,
    Linear,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftCrossEntropy,
    SoftmaxCrossEntropy,
    Trainer,
)

RNG = np.random.default_rng(0)
N, K, C = 12, 6, 4
X = RNG.standard_normal((N, K)).astype(np.float32)
LABELS = RNG.integers(0, C, N)
TARGET = RNG.standard_normal((N, C)).astype(np.float32)
SHARES = RNG.dirichlet(np.ones(C), N).astype(np.float32)
WEIGHTS = np.where(np.arange(N) % 4 == 1, 0.0, RNG.uniform(0.5, 2, N))


def network(backend: str = "numpy", layers: list[models.Layer] | None = None, dtype: Any = np.float32) -> Sequential:
    return Sequential(layers or [Linear(5), ReLU(), Linear(C)], (K,), backend, seed=1, dtype=dtype)


def trained(steps: int = 3, backend: str = "numpy", y: np.ndarray = LABELS, **options: Any) -> Trainer:
    weights = options.pop("sample_weight", None)
    trainer = Trainer(network(backend), options.pop("optimizer", SGD(0.1)), batch_size=N, **options)
    for _ in range(steps):
        trainer.step(X, y, sample_weight=weights)
    return trainer


def parameters(trainer: Trainer) -> np.ndarray:
    return np.concatenate([array.ravel() for array in trainer.model.parameters().values()])


HEAVY = Huber(weighted=True)
LOSSES: list[tuple[Loss, np.ndarray]] = [
    (SoftmaxCrossEntropy(weighted=True), LABELS),
    (SoftmaxCrossEntropy(0.1, weighted=True), LABELS),
    (SoftCrossEntropy(weighted=True), SHARES),
    (BinaryCrossEntropy(weighted=True), SHARES),
    (Huber(0.7, weighted=True), TARGET),
    (MeanAbsoluteError(weighted=True), TARGET),
    (MeanSquaredError(weighted=True), TARGET),
]


@pytest.mark.parametrize(("loss", "y"), LOSSES, ids=lambda value: str(value) if isinstance(value, Loss) else "")
def test_a_weight_is_so_many_samples_and_none_is_no_sample(loss: Loss, y: np.ndarray) -> None:
    counts = np.arange(N) % 3
    weighted = trained(loss=loss, y=y, sample_weight=counts.astype(float))
    trainer = Trainer(network(), SGD(0.1), loss, batch_size=2 * N)
    for _ in range(3):
        value = trainer.step(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0))
    np.testing.assert_allclose(parameters(weighted), parameters(trainer), rtol=1e-4, atol=1e-6)
    assert weighted.step(X, y, sample_weight=counts) < value or isinstance(loss, MeanAbsoluteError)
    found = weighted.model.evaluate(X, y, loss, sample_weight=counts)
    repeated = weighted.model.evaluate(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), loss)
    np.testing.assert_allclose(found, repeated, rtol=1e-5)


@pytest.mark.parametrize(("loss", "y"), LOSSES, ids=lambda value: str(value) if isinstance(value, Loss) else "")
def test_gradients_are_right(loss: Loss, y: np.ndarray) -> None:
    assert models.gradcheck(network(dtype=np.float64), X, y, loss).error < 1e-6


def test_class_weights_are_those_of_the_samples_and_ignored_ones_have_none() -> None:
    own = (1.0, 2.0, 0.5, 3.0)
    by_class = trained(loss=SoftmaxCrossEntropy(class_weights=own))
    by_sample = trained(loss=SoftmaxCrossEntropy(weighted=True), sample_weight=np.array(own)[LABELS])
    np.testing.assert_array_equal(parameters(by_class), parameters(by_sample))
    marked = np.where(np.arange(N) < 4, -100, LABELS)
    without = Trainer(network(), SGD(0.1), SoftmaxCrossEntropy(), batch_size=N)
    for _ in range(3):
        without.step(X[4:], LABELS[4:])
    np.testing.assert_allclose(
        parameters(trained(loss=SoftmaxCrossEntropy(ignore_index=-100), y=marked)), parameters(without), rtol=1e-5
    )
    loss = SoftmaxCrossEntropy(ignore_index=-100)
    found, expected = (without.model.evaluate(x, y, loss) for x, y in ((X, marked), (X[4:], LABELS[4:])))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    history = Trainer(network(), SGD(0.1), loss, batch_size=4).fit(X, marked, epochs=1)
    assert 0 <= history.accuracy[0] <= 1


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_weighted_fit_is_its_steps(backend: str) -> None:
    """Batches that run in one compiled call, and those that run one by one, see the same weights."""
    one = Trainer(network(backend), SGD(0.1), SoftmaxCrossEntropy(weighted=True), batch_size=5)
    history = one.fit(X, LABELS, epochs=2, sample_weight=WEIGHTS)
    watched = Trainer(network(backend), SGD(0.1), SoftmaxCrossEntropy(weighted=True), batch_size=5, on_nonfinite="skip")
    again = watched.fit(X, LABELS, epochs=2, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(parameters(one), parameters(watched))
    assert history.loss == again.loss
    assert history.accuracy == again.accuracy


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: trained(sample_weight=WEIGHTS),
            r"the loss does not weigh, expected SoftmaxCrossEntropy\(w",
        ),
        (lambda: trained(loss=HEAVY, y=TARGET, sample_weight=-WEIGHTS), r"sample_weight\[0\] is -"),
        (
            lambda: trained(loss=Huber(weighted=True), y=TARGET, sample_weight=WEIGHTS[:3]),
            "sample_weight has shape",
        ),
        (lambda: trained(loss=HEAVY, y=TARGET, sample_weight=0 * WEIGHTS), "zeros alone"),
        (
            lambda: trained(loss=SoftmaxCrossEntropy(class_weights=(1.0, 2.0))),
            "class_weights has 2 numbers",
        ),
        (
            lambda: SoftmaxCrossEntropy(class_weights=(1.0, -2.0)),
            r"class_weights is \(1.0, -2.0\), expected a number a",
        ),
        (
            lambda: trained(loss=BinaryCrossEntropy(), y=TARGET),
            r"target holds -\S+ to \S+, expected 0 to 1",
        ),
        (lambda: trained(y=np.eye(C)[LABELS]), r"of one-hot rows that is y\.argmax\(axis=1\)"),
        (lambda: trained(y=LABELS.astype(float)), r"whole numbers become labels by y\.astype\(int\)"),
        (lambda: trained(y=np.array(list("abcd" * 3))), r"numpy\.unique\(y, return_inverse=True\)"),
        (lambda: trained(y=LABELS.tolist()), r"numpy\.asarray makes one"),
        (lambda: trained(loss=Huber(), y=np.round(TARGET).astype(int)), r"y\.astype\(float\) makes one"),
        (lambda: trained(learning_rates={"7": 0.1}), "learning_rates names '7', expected some of 0, 1, 2"),
        (lambda: trained(learning_rates={"0": -1.0}), r"learning_rates\['0'\] is -1.0"),
        (lambda: trained(learning_rates={"0": 0, "2": 0}), "no parameter is trained, expected one at least"),
        (lambda: trained(average=1.0), "average is 1.0"),
        (lambda: trained(accumulate=0), "accumulate is 0"),
        (lambda: trained().averaged(), "the trainer keeps no average"),
        (lambda: SGD(0.1, clip_norm=0.0), "clip_norm is 0.0"),
        (lambda: SGD(0.1, clip_value=-1.0), "clip_value is -1.0"),
    ],
)
def test_a_slip_is_answered_in_a_line_that_names_the_argument(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_unused_features_leave_the_plan_as_it_was() -> None:
    plain = str(trained(0).plan)
    assert str(trained(0, loss=SoftmaxCrossEntropy(), learning_rates=None, average=None, accumulate=1).plan) == plain
    assert "softmax_cross_entropy" in plain
    for word in ("weights", "clip", "average", "[0]"):
        assert word not in plain
    more = str(trained(0, loss=SoftmaxCrossEntropy(weighted=True), average=0.9, optimizer=SGD(0.1, clip_norm=1.0)).plan)
    for word in ("weighted_cross_entropy", "clip_norm", "optimizer.average"):
        assert word in more


def test_frozen_nodes_stay_and_have_no_gradients() -> None:
    trainer = trained(learning_rates={"0": 0.0})
    fresh = network()
    for name, array in trainer.model.parameters().items():
        assert (array.tobytes() == fresh.parameters()[name].tobytes()) == name.startswith("0.")
    assert "linear_backward" not in [s.kernel for s in trainer.plan.steps if s.node == "0"]
    assert not trainer.gradients()["0.w"].any()
    behind = trained(learning_rates={"2": 0.0}, optimizer=Adam(0.1, weight_decay=0.5))
    np.testing.assert_array_equal(behind.model.parameters()["2.w"], fresh.parameters()["2.w"])
    assert not np.array_equal(behind.model.parameters()["0.w"], fresh.parameters()["0.w"])


def test_a_part_learns_as_if_alone_at_its_rate() -> None:
    parts = trained(1, learning_rates={"2": 0.5}).model.parameters()
    whole, half = (trained(1, optimizer=SGD(rate)).model.parameters() for rate in (0.1, 0.05))
    for name, array in parts.items():
        np.testing.assert_allclose(array, (half if name.startswith("2") else whole)[name], rtol=1e-6, atol=1e-7)


def test_names_stand_for_all_that_begin_with_them() -> None:
    nodes = {
        "stem.a": (Linear(5), "input"),
        "stem.b": (BatchNorm(), "stem.a"),
        "stem2": (Linear(5), "stem.b"),
        "head": (Linear(C), "stem2"),
    }
    model = models.Graph(nodes, "head", (K,), "numpy")
    trainer = Trainer(model, SGD(0.1), batch_size=N, learning_rates={"stem": 0.0, "head": 2.0})
    before = {name: array.copy() for name, array in model.parameters().items()}
    trainer.step(X, LABELS)
    changed = {name for name, array in model.parameters().items() if not np.array_equal(array, before[name])}
    assert changed == {"stem2.w", "stem2.b", "head.w", "head.b"}


def test_clipping() -> None:
    raw = trained(1).gradients()
    norm = np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in raw.values()))
    start = np.concatenate([array.ravel() for array in network().parameters().values()])
    moved = (start - parameters(trained(1, optimizer=SGD(0.1, clip_norm=norm / 4)))) / 0.1
    assert np.linalg.norm(moved) == pytest.approx(norm / 4, rel=1e-4)
    np.testing.assert_array_equal(
        parameters(trained(1, optimizer=SGD(0.1, clip_norm=2 * norm))), parameters(trained(1))
    )
    moved = (start - parameters(trained(1, optimizer=SGD(0.1, clip_value=0.01)))) / 0.1
    assert np.abs(moved).max() == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_are_one_large_batch() -> None:
    small = Trainer(network(), SGD(0.1, momentum=0.9), batch_size=N // 3, accumulate=3)
    large = Trainer(network(), SGD(0.1, momentum=0.9), batch_size=N)
    for _ in range(2):
        for part in np.split(np.arange(N), 3):
            small.step(X[part], LABELS[part])
        large.step(X, LABELS)
    assert small.steps == large.steps == 2
    np.testing.assert_allclose(parameters(small), parameters(large), rtol=1e-5, atol=1e-6)


def test_the_average_begins_with_the_first_step() -> None:
    trainer = Trainer(network(), SGD(0.1), batch_size=N, average=0.75)
    expected = None
    for _ in range(4):
        trainer.step(X, LABELS)
        now = parameters(trainer)
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    averaged = np.concatenate([array.ravel() for array in trainer.averaged().parameters().values()])
    np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-7)


OPTIONS: dict[str, Any] = {"average": 0.9, "learning_rates": {"0": 0.5}, "accumulate": 2}


@pytest.mark.parametrize("way", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copied_trainer_goes_on_to_the_same_bits(way: Any) -> None:
    trainer = trained(3, optimizer=Adam(0.01, clip_norm=1.0), **OPTIONS)
    twin = way(trainer)
    for own in (trainer, twin):
        for _ in range(3):
            own.step(X, LABELS)
    assert parameters(twin).tobytes() == parameters(trainer).tobytes()
    assert twin.averaged().parameters()["0.w"].tobytes() == trainer.averaged().parameters()["0.w"].tobytes()


def test_a_resumed_fit_ends_with_the_same_bits(tmp_path: Path) -> None:
    class Stop(models.Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            if trainer.progress.done == 5:
                raise KeyboardInterrupt

    def fit(folder: Path, resume: bool = False, callbacks: Any = ()) -> Trainer:
        trainer = Trainer(network(), Adam(0.01, clip_norm=1.0), batch_size=4, **OPTIONS)
        kept = models.Checkpoints(folder, every_steps=1)
        trainer.fit(X, LABELS, epochs=4, checkpoints=kept, resume=resume, callbacks=callbacks)
        return trainer

    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", callbacks=[Stop()])
    resumed = fit(tmp_path / "cut", resume=True)
    assert parameters(resumed).tobytes() == parameters(whole).tobytes()
    assert resumed.state["average"].tobytes() == whole.state["average"].tobytes()
    with pytest.raises(ValueError, match=r"average was 0\.9, is null now"):
        Trainer(network(), Adam(0.01, clip_norm=1.0), batch_size=4, accumulate=2, learning_rates={"0": 0.5}).fit(
            X, LABELS, epochs=4, checkpoints=models.Checkpoints(tmp_path / "cut"), resume=True
        )


def test_top_k_and_the_confusion_matrix() -> None:
    model = network()
    found = model.evaluate(X, LABELS)
    loss, accuracy = found
    assert (loss, accuracy) == (found.loss, found.accuracy)
    order = np.argsort(-model.predict(X), axis=1)
    for k in range(1, C + 1):
        assert found.top(k) == np.mean([label in row[:k] for label, row in zip(LABELS, order, strict=True)])
    assert found.top(1) == found.accuracy
    assert found.confusion.sum() == N
    assert np.trace(found.confusion) == round(found.accuracy * N)
    np.testing.assert_array_equal(found.confusion.sum(axis=1), np.bincount(LABELS, minlength=C))
    with pytest.raises(ValueError, match="top: k is 5, expected 1 to 4"):
        found.top(5)
    with pytest.raises(ValueError, match="confusion: the evaluation has no classes"):
        _ = model.evaluate(X, TARGET, MeanSquaredError()).confusion


# Against PyTorch -----------------------------------------------------------------------------------------------------


def theirs(loss: Any, y: np.ndarray, steps: int, clip: Any = None, rates: tuple[float, float] = (0.1, 0.1)) -> Any:
    """Parameters after so many steps of SGD, and the losses, of the same network in PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is what it is held against")
    layers = [torch.nn.Linear(K, 5), torch.nn.ReLU(), torch.nn.Linear(5, C)]
    start = network().parameters()
    for at in (0, 2):
        with torch.no_grad():
            layers[at].weight.copy_(torch.tensor(start[f"{at}.w"].T.copy()))
            layers[at].bias.copy_(torch.tensor(start[f"{at}.b"].copy()))
    net = torch.nn.Sequential(*layers)
    groups = [{"params": net[at].parameters(), "lr": rate} for at, rate in zip((0, 2), rates, strict=True)]
    optimizer, losses = torch.optim.SGD(groups), []
    averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.75))
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(torch.nn, net(torch.tensor(X)), torch.tensor(y))
        value.backward()
        if clip is not None:
            clip(torch.nn.utils, net.parameters())
        optimizer.step()
        averaged.update_parameters(net)
        losses.append(float(value.detach()))

    def flat(module: Any) -> np.ndarray:
        arrays = [p.detach().numpy().T.ravel() for p in module.parameters()]
        return np.concatenate(arrays)

    return flat(net), np.array(losses), flat(averaged.module)


def budget(values: np.ndarray, steps: int) -> float:
    """A few ulp of the largest value for each step and each term of its longest sum."""
    return float(ULPS["float32"] * steps * np.sqrt(N) * np.finfo(np.float32).eps * np.abs(values).max() * 4)


W4 = (1.0, 2.0, 0.5, 3.0)
PAIRS: dict[str, tuple[Loss, np.ndarray, Any]] = {
    "binary": (BinaryCrossEntropy(), SHARES, lambda nn, x, y: nn.BCEWithLogitsLoss()(x, y)),
    "huber": (Huber(0.7), TARGET, lambda nn, x, y: nn.HuberLoss(delta=0.7)(x, y)),
    "mae": (MeanAbsoluteError(), TARGET, lambda nn, x, y: nn.L1Loss()(x, y)),
    "soft": (SoftCrossEntropy(), SHARES, lambda nn, x, y: nn.CrossEntropyLoss()(x, y)),
    "classes": (
        SoftmaxCrossEntropy(class_weights=W4),
        LABELS,
        lambda nn, x, y: nn.CrossEntropyLoss(weight=x.new_tensor(W4))(x, y),
    ),
    "ignored": (
        SoftmaxCrossEntropy(0.1, ignore_index=2),
        LABELS,
        lambda nn, x, y: nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.1)(x, y),
    ),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", PAIRS)
def test_losses_agree_with_pytorch(backend: str, name: str) -> None:
    loss, y, their = PAIRS[name]
    expected, losses, _ = theirs(their, y, 5)
    trainer = trained(0, backend, loss=loss)
    found = np.array([trainer.step(X, y) for _ in range(5)])
    np.testing.assert_allclose(found, losses, atol=budget(losses, 5))
    np.testing.assert_allclose(parameters(trainer), expected, atol=budget(expected, 5))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["norm", "value"])
def test_clipping_agrees_with_pytorch(backend: str, kind: str) -> None:
    def clip(utils: Any, own: Any) -> None:
        if kind == "norm":
            utils.clip_grad_norm_(own, 0.2)
        else:
            utils.clip_grad_value_(own, 0.02)

    expected, _, _ = theirs(lambda nn, x, y: nn.CrossEntropyLoss()(x, y), LABELS, 5, clip)
    optimizer = SGD(0.1, clip_norm=0.2) if kind == "norm" else SGD(0.1, clip_value=0.02)
    np.testing.assert_allclose(parameters(trained(5, backend, optimizer=optimizer)), expected, atol=budget(expected, 5))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_parts_and_averages_agree_with_pytorch(backend: str) -> None:
    expected, _, average = theirs(lambda nn, x, y: nn.CrossEntropyLoss()(x, y), LABELS, 5, rates=(0.1, 0.03))
    trainer = trained(5, backend, learning_rates={"2": 0.3}, average=0.75)
    np.testing.assert_allclose(parameters(trainer), expected, atol=budget(expected, 5))
    own = np.concatenate([array.ravel() for array in trainer.averaged().parameters().values()])
    np.testing.assert_allclose(own, average, atol=budget(average, 5))
