"""What people hand a model out of habit: each works, or is answered in a line that says what to write instead."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import data
import models
from models import SGD, Conv2d, Flatten, Linear, ReLU, Sequential, Trainer

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 6, 3), np.uint8)
LABELS = RNG.integers(0, 4, 12)


def network(shape: tuple[int, ...] = (6, 6, 3), **options: Any) -> Sequential:
    return Sequential([Conv2d(3, 3), ReLU(), Flatten(), Linear(4)], shape, "numpy", **options)


def trained() -> Sequential:
    model = network()
    Trainer(model, SGD(0.01), batch_size=6).fit(PIXELS, LABELS, epochs=1)
    return model


class Frame:
    """What a DataFrame has."""

    def to_numpy(self) -> np.ndarray:
        return np.zeros((2, 2))


WORKS: dict[str, Any] = {
    "bytes": PIXELS,
    "a view": np.repeat(PIXELS, 2, axis=0)[::2],
    "in Fortran's order": np.asfortranarray(PIXELS),
    "read-only": np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "float64": data.standardise(PIXELS, *data.statistics((PIXELS, LABELS))).astype(np.float64),
    "float16": data.standardise(PIXELS, *data.statistics((PIXELS, LABELS))).astype(np.float16),
}


@pytest.mark.parametrize("name", WORKS)
def test_this_works(name: str) -> None:
    model = trained()
    with warnings.catch_warnings(action="error"):
        found = model.predict(WORKS[name])
    np.testing.assert_allclose(found, model.predict(PIXELS), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (PIXELS.transpose(0, 3, 1, 2), "channels come last: x.transpose(0, 2, 3, 1)"),
        (PIXELS[0], "one sample is x[np.newaxis]"),
        (PIXELS.reshape(12, -1), "x.reshape(-1, 6, 6, 3)"),
        (PIXELS.tolist(), "x is a list, expected a numpy array; numpy.asarray(x) makes one"),
        (Frame(), "x is a Frame, expected a numpy array; x.to_numpy() gives one"),
        ("photo.png", "x is a str, expected a numpy array"),
        (
            PIXELS.astype(np.int64),
            "x has dtype int64, expected uint8 images or floats; pixels are x.astype(numpy.uint8)",
        ),
        (PIXELS.astype(np.int64) - 300, "x.astype(numpy.float32) makes floats"),
        (PIXELS > 100, "x has dtype bool, expected uint8 images or floats; x.astype(numpy.float32) makes floats"),
        (PIXELS.astype(str), "expected uint8 images or floats"),
        (PIXELS[:0], "x has an empty batch"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "x",
)
def test_this_is_answered(x: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as raised:
        trained().predict(x)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (PIXELS.transpose(0, 3, 1, 2), "channels come last: x.transpose(0, 2, 3, 1)"),
        (PIXELS[0], "one sample is x[np.newaxis]"),
        (PIXELS.reshape(12, -1), "x.reshape(-1, 6, 6, 3)"),
        (PIXELS.tolist(), "numpy.asarray(x) makes one"),
        (Frame(), "x.to_numpy() gives one"),
        (PIXELS.astype(object), "x.astype(numpy.uint8) makes pixels, x.astype(numpy.float32) floats"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "x",
)
def test_validation_and_evaluation_answer_alike(x: Any, message: str) -> None:
    """In Python that can be written so, by whatever name a message calls the images."""
    trainer = Trainer(network(), SGD(0.01), batch_size=6)
    calls = [
        lambda: trainer.fit(x, LABELS, epochs=1),
        lambda: trainer.fit(PIXELS, LABELS, epochs=1, validation=(x, LABELS)),
        lambda: trained().evaluate(x, LABELS),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=re.escape(message)) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert trainer.steps == 0


def test_grey_images_without_their_channel() -> None:
    with pytest.raises(ValueError, match=r"grey images are x\[\.\.\., np\.newaxis\]"):
        network((6, 6, 1)).predict(PIXELS[..., 0])


def test_a_batch_of_one_image_without_its_axis_is_answered_in_training_too() -> None:
    with pytest.raises(ValueError, match=r"one sample is x\[np\.newaxis\]"):
        Trainer(network(), SGD(0.01), batch_size=6).step(PIXELS[0], LABELS[:1])


@pytest.mark.parametrize("scaled", [PIXELS.astype(np.float32), PIXELS / np.float32(255)])
def test_raw_pixels_into_a_network_of_normalised_ones_are_warned_of(scaled: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="pass uint8 images, or those of data.standardise"):
        trained().predict(scaled)


def test_labels_out_of_habit() -> None:
    trainer = Trainer(network(normalisation=(0.0, 1.0)), SGD(0.01), batch_size=12)
    for labels in (LABELS.astype(np.uint8), LABELS.astype(np.int32), np.repeat(LABELS, 2)[::2]):
        assert trainer.step(PIXELS, labels) > 0
    answers: list[tuple[Any, str]] = [
        (np.eye(4)[LABELS], "of one-hot rows that is y.argmax(axis=1)"),
        (LABELS[:, np.newaxis], "labels have shape (12, 1), expected (12,)"),
        (LABELS.tolist(), "labels have type list, expected an array of integers; numpy.asarray makes one"),
        (LABELS.astype(float), "whole numbers become labels by y.astype(int)"),
        (np.array(list("abcd" * 3)), "numbered by numpy.unique(y, return_inverse=True)"),
        (Frame(), "y.to_numpy() gives one"),
        (LABELS > 1, "labels have dtype bool, expected an array of integers; y.astype(int) makes 0 and 1"),
        (LABELS + 1, "expected 0 to 3 for 4 classes"),
    ]
    for given, message in answers:
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            trainer.step(PIXELS, given)


def test_one_column_of_targets_out_of_habit() -> None:
    trainer = Trainer(Sequential([Linear(1)], (3,), "numpy"), SGD(0.01), models.MeanSquaredError(), batch_size=5)
    x = np.ones((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"expected \(5, 1\), the shape of the output; y\[:, np\.newaxis\]"):
        trainer.step(x, np.ones(5, np.float32))
