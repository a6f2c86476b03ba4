import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import strokes

GRID = np.arange(28)


def digest(images, labels):
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def drawn():
    return strokes.generate(3_000, 7)


def test_images_and_labels_have_mnist_types(drawn):
    images, labels = drawn
    assert images.shape == (3_000, 28, 28)
    assert labels.shape == (3_000,)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous
    assert images.min() == 0
    assert (images.max(axis=(1, 2)) > 128).all(), "a digit is nearly invisible"


def test_every_digit_comes_up_about_equally(drawn):
    counts = np.bincount(drawn[1], minlength=10)
    assert len(counts) == 10
    assert (abs(counts - 300) < 70).all()  # four standard deviations


SINGLE = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
OLD = {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_L2_SIZE": "256"}


@pytest.mark.parametrize("environment", [{}, SINGLE, OLD], ids=["same", "one-thread", "another-blas-kernel"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(drawn, environment):
    assert digest(*strokes.generate(3_000, 7)) == digest(*drawn)
    program = (
        "import hashlib; from data import strokes; images, labels = strokes.generate(3_000, 7);"
        "print(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest(*drawn)


def test_every_machine_draws_the_same_bytes(drawn):
    """Whatever its processor, its BLAS and its NumPy: runs on strokes are resumed and compared elsewhere."""
    assert digest(*drawn) == "74acbac61553f403caa339146a845529dc179c5117afcc605825d6a40fd5c192"


def test_the_gaussians_are_far_from_where_rounding_could_turn():
    offsets = (np.arange(-27, 28) - np.arange(strokes.PLACES)[:, None] / strokes.PLACES) / strokes.SOFT
    exact = 2**17 * np.exp(-(offsets**2) / 2)
    assert (np.abs(exact - np.floor(exact) - 0.5) > 1e-12 * exact).all()


@pytest.mark.parametrize(
    ("function", "reference", "low", "high"),
    [(strokes._exp, np.exp, -9, 3), (strokes._sin, np.sin, -30, 30), (strokes._cos, np.cos, -30, 30)],
)
def test_functions_of_a_fixed_order(function, reference, low, high):
    x = np.linspace(low, high, 10_001)
    np.testing.assert_allclose(function(x), reference(x), rtol=0, atol=1e-8 * np.abs(reference(x)).max())


def test_the_logarithm_of_a_fixed_order():
    x = np.concatenate([np.geomspace(1e-30, 10, 10_001), [1.0]])
    np.testing.assert_allclose(strokes._log(x), np.log(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("count", [1, strokes.BLOCK - 1, strokes.BLOCK, strokes.BLOCK + 1, 1_000])
def test_fewer_images_are_the_beginning_of_more(drawn, count):
    images, labels = strokes.generate(count, 7)
    np.testing.assert_array_equal(images, drawn[0][:count])
    np.testing.assert_array_equal(labels, drawn[1][:count])


def test_seeds_and_blocks_share_no_image(drawn):
    everything = np.concatenate([drawn[0], *(strokes.generate(1_000, seed)[0] for seed in (0, 1, 8, 2**70))])
    assert len(np.unique(everything.reshape(len(everything), -1), axis=0)) == len(everything)


def test_ink_lies_in_a_box_of_twenty_pixels(drawn):
    ink = drawn[0] > 0
    sides = ink.any(axis=2), ink.any(axis=1)
    longest = np.max([28 - side.argmax(axis=1) - side[:, ::-1].argmax(axis=1) for side in sides], axis=0)
    assert (longest == 20).mean() > 0.8
    assert longest.min() >= 19
    assert longest.max() <= 22  # where lines cross, the ink runs out a little


def test_the_centre_of_mass_is_the_centre_of_the_image(drawn):
    images = drawn[0].astype(float)
    mass = images.sum(axis=(1, 2))
    for axis in 1, 2:
        centre = (images.sum(axis=3 - axis) @ GRID) / mass
        assert (abs(centre - 14) <= 0.5).mean() > 0.99  # a few would lose ink over the edge
        assert abs(centre - 14).max() < 3
        assert abs(centre.mean() - 14) < 0.05


def test_there_is_as_much_ink_as_in_mnist(drawn):
    # MNIST's training images: mean 33.3, standard deviation 78.6.
    assert drawn[0].mean() == pytest.approx(33.3, rel=0.1)
    assert drawn[0].std() == pytest.approx(78.6, rel=0.1)


def test_edges_are_grey_and_strokes_white(drawn):
    ink = drawn[0][drawn[0] > 0]
    assert 0.3 < (ink == 255).mean() < 0.7
    assert len(np.unique(ink)) == 255


def test_hands_slant_stretch_and_press_differently(drawn):
    images, labels = drawn
    ones, noughts = (images[labels == digit].astype(float) for digit in (1, 0))
    x, y = GRID - 14, (GRID - 14)[:, None]
    slant = (ones * x * y).sum(axis=(1, 2)) / (ones * y * y).sum(axis=(1, 2))
    assert slant.std() > 0.2
    assert (noughts > 0).any(axis=1).sum(axis=1).std() > 3
    assert noughts.mean(axis=(1, 2)).std() > 0.15 * noughts.mean()


@pytest.mark.parametrize(
    "trait", ["nothing", "wobble", "ends", "lift", "bend", "aspect", "slant", "turn", "spread", "pressure"]
)
def test_each_trait_of_a_hand_makes_one_template_look_different(monkeypatch, trait):
    crossed = next(i for i, (_, _, text) in enumerate(strokes.TEMPLATES) if "|" in text)
    monkeypatch.setattr(strokes, "FONT", strokes.FONT._replace(chance=np.eye(len(strokes.TEMPLATES))[crossed]))
    steady = dict.fromkeys(strokes.Hand._fields, 0.0) | {"limit": 9.0, "pen": 1.3}
    if trait != "nothing":
        steady[trait] = 0.2
    monkeypatch.setattr(strokes, "HAND", strokes.Hand(**steady))
    images, _ = strokes.generate(20, 0)
    looks = len(np.unique(images.reshape(20, -1), axis=0))
    assert looks == 1 if trait == "nothing" else looks > 15


def test_load_splits_into_training_and_test_images():
    (x, y), (xt, yt) = strokes.load(600, 300, seed=3)
    assert [part.shape for part in (x, y, xt, yt)] == [(600, 28, 28, 1), (600,), (300, 28, 28, 1), (300,)]
    assert all(part.dtype == np.uint8 and part.flags.c_contiguous for part in (x, y, xt, yt))
    both = np.concatenate([x, xt, *strokes.load(600, 300, seed=4)[0][:1]]).reshape(1_500, -1)
    assert len(np.unique(both, axis=0)) == 1_500


def test_a_crude_classifier_learns_something_but_not_all(drawn):
    images, labels = drawn
    mean = np.stack([images[labels == digit].mean(axis=0).ravel() for digit in range(10)])
    fresh, truth = strokes.generate(1_000, 8)
    distance = (mean**2).sum(axis=1) - 2 * fresh.reshape(1_000, -1).astype(float) @ mean.T
    accuracy = (distance.argmin(axis=1) == truth).mean()
    assert 0.4 < accuracy < 0.92


def test_templates_give_every_digit_the_same_chance_and_paths_within_their_points():
    font = strokes.FONT
    np.testing.assert_allclose(np.bincount(font.digit, font.chance), np.full(10, 0.1))
    assert font.basis.min() >= 0
    np.testing.assert_allclose(font.basis.sum(axis=2), 1, atol=1e-6)


def test_a_spline_begins_and_ends_at_its_outer_points_and_touches_its_legs():
    points = np.array([[0, 0], [0, 4], [8, 4], [8, 0]])
    curve = strokes._spline(points)
    np.testing.assert_array_equal(curve[[0, -1]], points[[0, -1]])
    assert (curve == [4, 4]).all(axis=1).any()
    np.testing.assert_allclose(strokes._spline(points[:2])[:, 0], 0)


def test_a_straight_line_is_drawn_as_wide_as_the_pen():
    path = np.stack([np.zeros(strokes.SAMPLES), np.linspace(0, 1, strokes.SAMPLES)], axis=1, dtype=np.float32)[None]
    for half_width in 0.75, 1.0, 1.5, 2.2:
        ink, pen = np.ones((1, strokes.SAMPLES - 1), np.float32), np.full(1, half_width, np.float32)
        image = strokes._draw(path, ink, pen)[0]
        assert image[12].sum() / 255 == pytest.approx(2 * half_width, abs=0.02)
        assert np.flatnonzero(image.any(axis=1)).tolist() == list(range(4, 24))


def test_nothing_is_lost_or_changed_by_centring():
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 0, 0], images[0, 3, 5] = 10, 200
    images[1, 2:6, 20:24] = 7
    moved = strokes._centre(images)
    np.testing.assert_array_equal(np.sort(moved.reshape(2, -1)), np.sort(images.reshape(2, -1)))
    np.testing.assert_array_equal(moved[1], np.roll(images[1], (10, -8), axis=(0, 1)))
    far = np.zeros((1, 28, 28), np.uint8)
    far[0, 0, 14], far[0, 20, 14] = 1, 255
    np.testing.assert_array_equal(strokes._centre(far), far)


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [
        (0, 0, "generate: count is 0, expected an integer of at least 1"),
        (-5, 0, "generate: count is -5, expected an integer of at least 1"),
        (2.0, 0, r"generate: count is 2\.0, expected an integer of at least 1"),
        (10, -1, "generate: seed is -1, expected an integer of at least 0"),
        (10, None, "generate: seed is None, expected an integer of at least 0"),
        ("10", 0, "generate: count is '10', expected an integer of at least 1"),
        (True, 0, "generate: count is True, expected an integer of at least 1"),
    ],
)
def test_bad_arguments_are_named(count, seed, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        strokes.generate(count, seed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "load: train is 0, expected an integer of at least 1"),
        ({"test": 0.5}, r"load: test is 0\.5, expected an integer of at least 1"),
        ({"seed": -1}, "load: seed is -1, expected an integer of at least 0"),
    ],
)
def test_load_names_its_own_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        strokes.load(**arguments)


def test_numpy_integers_are_integers():
    assert digest(*strokes.generate(np.int64(5), np.uint8(3))) == digest(*strokes.generate(5, 3))
