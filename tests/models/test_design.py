"""The public names, used as the documentation's samples write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import data
import kernels
import models
from kernels import Kernels
from models import Adam, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential, SoftmaxCrossEntropy, Trainer


def test_everything_promised_is_exported() -> None:
    promised = """
        Linear Conv2d MaxPool2d AvgPool2d GlobalMaxPool2d GlobalAvgPool2d Flatten BatchNorm MeanNorm ReLU
        LeakyReLU ELU GELU SiLU Sigmoid Tanh Softplus Softmax LogSoftmax Dropout Add Concat
        SoftmaxCrossEntropy MeanSquaredError SGD RMSProp Adam AdamW
        StepDecay MultiStep Exponential Cosine OneCycle LinearWarmup
        XavierUniform XavierNormal HeUniform HeNormal Zeros Constant
        Sequential Graph Trainer Plan Step EarlyStopping Callback build load gradcheck
    """
    assert set(promised.split()) <= set(models.__all__)
    for name in models.__all__:
        assert getattr(models, name) is not None
        if isinstance(getattr(models, name), type):
            assert getattr(models, name).__doc__, name


def test_the_sample_of_a_sequential_model(k: Kernels, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((160, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 160).astype(np.uint8)
    xv, yv = x[:32], y[:32]

    model = Sequential(
        [
            Conv2d(16, 5), BatchNorm(), ReLU(), MaxPool2d(2),
            Conv2d(32, 5), BatchNorm(), ReLU(), MaxPool2d(2),
            Flatten(), Linear(10),
        ],
        input_shape=(28, 28, 1), backend=k.name, seed=0,
    )  # fmt: skip
    trainer = Trainer(model, Adam(1e-3), batch_size=128)
    history = trainer.fit(x, y, epochs=2, validation=(xv, yv))
    loss = trainer.step(x[:128], y[:128])
    evaluation = model.evaluate(x, y)
    logits = model.predict(x)

    assert len(history.loss) == 2
    assert isinstance(loss, float)
    assert logits.shape == (160, 10)
    assert logits.dtype == np.float32
    assert evaluation.loss > 0
    assert evaluation.accuracy == np.mean(logits.argmax(1) == y)
    assert model.parameters()["0.w"].shape == (5, 5, 1, 16)
    assert model.plan is not trainer.plan
    assert str(trainer.plan).count("\n") == sum(1 + len(step.definition()) for step in trainer.plan.steps) + 2

    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(models.load(tmp_path / "m.safetensors", backend=k.name).predict(x), logits)
    built = models.build("cnn-bn", backend=k.name, seed=0)
    assert built.plan.flops(1) == model.plan.flops(1)
    for name, view in built.parameters().items():
        np.testing.assert_array_equal(view, Sequential(model.layers, (28, 28, 1), seed=0).parameters()[name])
    twin = model.to("numpy")
    assert twin.backend == "numpy"
    for name, view in model.parameters().items():
        np.testing.assert_array_equal(twin.parameters()[name], view)


def test_the_options_that_the_samples_comments_name(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)
    for place in ("trainer", "fit"):
        model = Sequential([Linear(3)], (4,), k.name)
        schedule = models.OneCycle()
        trainer = Trainer(
            model,
            Adam(0.1),
            loss=SoftmaxCrossEntropy(smoothing=0.0),
            batch_size=8,
            schedule=schedule if place == "trainer" else None,
        )
        options = {} if place == "trainer" else {"schedule": schedule}
        history = trainer.fit(x, y, epochs=2, callbacks=[models.EarlyStopping("loss")], **options)
        assert history.learning_rate == pytest.approx([0.1 * schedule(2, 3, 6), 0.1 * schedule(5, 3, 6)])


def test_the_sample_of_a_graph(k: Kernels) -> None:
    from models import Add, GlobalAvgPool2d, Graph

    model = Graph(
        {
            "stem": (Conv2d(16, 3, padding=1), "input"),
            "body": (Conv2d(16, 3, padding=1), "stem"),
            "sum": (Add(), "stem", "body"),
            "pool": (GlobalAvgPool2d(), "sum"),
            "head": (Linear(10), "pool"),
        },
        output="head",
        input_shape=(28, 28, 1),
        backend=k.name,
    )
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype(np.float32)
    assert model.predict(x).shape == (3, 10)
    assert isinstance(Trainer(model, Adam(1e-3), batch_size=3).step(x, np.arange(3)), float)


def test_optimizers_take_the_learning_rate_first() -> None:
    for name in ("SGD", "RMSProp", "Adam", "AdamW"):
        assert getattr(models, name)(0.25).learning_rate == 0.25


def test_a_model_built_without_a_backend_takes_the_default() -> None:
    assert models.build("mlp-nobias").backend == models.DEFAULT_BACKEND
    assert models.DEFAULT_BACKEND in kernels.names()


def test_images_from_data_go_straight_into_a_model(k: Kernels) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    train, test = data.Split(images[:30], np.arange(30, dtype=np.uint8) % 10), data.Split(images[30:], np.arange(10))
    model = models.build("mlp-rmsprop", k.name)
    Trainer(model, Adam(1e-3), batch_size=16).fit(train.images, train.labels, epochs=1)
    raw = model.predict(test.images)
    (_, ready) = data.normalise(train, test)
    np.testing.assert_array_equal(model.predict(ready.images), raw)
