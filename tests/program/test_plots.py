"""The pictures show what they are given: curves, networks, filters, answers, data."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

import kernels
from data import strokes
from kernels.limits import Limits
from models import (
    Adam,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Epoch,
    Flatten,
    Graph,
    History,
    Linear,
    OneCycle,
    ReLU,
    Schedule,
    Sequential,
    StepDecay,
    Trainer,
    build,
)
from models.graph import Evaluation
from twinkernels import plots
from twinkernels.plots.layout import folded, half, layered
from twinkernels.plots.speed import by_layer
from twinkernels.plots.style import share
from twinkernels.profile import Line, Profile

matplotlib = pytest.importorskip("matplotlib", reason="pictures need the extra plots")
ROOT = Path(__file__).parents[2]
NUMPY = kernels.get("numpy")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    (x, y), _ = strokes.load(train=60, test=1)
    return x, y


@pytest.fixture(scope="module")
def branching() -> Graph:
    """A residual block, then two ways of unequal length that meet."""
    return Graph(
        {
            "stem": (Conv2d(4, 3, padding=1), "input"),
            "body": (Conv2d(4, 3, padding=1), "stem"),
            "norm": (BatchNorm(), "body"),
            "sum": (Add(), "stem", "norm"),
            "short": (Conv2d(2, 1), "sum"),
            "long": (Conv2d(3, 1), "sum"),
            "longer": (ReLU(), "long"),
            "both": (Concat(), "short", "longer"),
            "flat": (Flatten(), "both"),
            "head": (Linear(10), "flat"),
        },
        output="head",
        input_shape=(6, 5, 1),
        backend="numpy",
        seed=1,
    )


def history(losses: list[float], held_out: list[float] | None = None) -> History:
    return History(
        [
            Epoch(
                epoch=at + 1,
                step=10 * (at + 1),
                loss=loss,
                accuracy=1 - loss / 10,
                validation_loss=None if held_out is None else held_out[at],
                validation_accuracy=None if held_out is None else 1 - held_out[at] / 10,
                learning_rate=0.1,
                seconds=1.0,
            )
            for at, loss in enumerate(losses)
        ]
    )


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# A training ---------------------------------------------------------------------------------------------------


def test_curves_are_the_history():
    figure = plots.curves(history([2.0, 1.0, 0.5], held_out=[2.5, 1.5, 1.0]))
    loss, accuracy = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0, 1.0, 0.5], [2.5, 1.5, 1.0]]
    assert np.allclose([line.get_ydata() for line in accuracy.lines], [[0.8, 0.9, 0.95], [0.75, 0.85, 0.9]])
    assert [text.get_text() for text in loss.texts] == ["training\n0.5000", "validation\n1.0000"]
    assert loss.get_yscale() == "linear"


def test_curves_end_with_the_test_figures_and_may_be_one_of_two():
    (axes,) = plots.curves(history([2.0, 1.0]), Evaluation(0.75, 0.9), ["accuracy"], (3, 3)).axes
    training, test = (np.array(line.get_ydata()) for line in axes.lines)
    assert len(training) == 2
    assert np.isnan(test[0])
    assert test[1] == 0.9
    assert axes.texts[-1].get_text() == "test\n0.9000"


def test_curves_without_validation_with_a_wide_range_and_with_a_loss_that_diverged():
    figure = plots.curves(history([2.0, 0.01, math.nan]))
    loss = figure.axes[0]
    assert len(loss.lines) == 1
    assert loss.get_yscale() == "log"
    assert [text.get_text() for text in loss.texts] == ["training\n0.0100"]
    assert loss.get_title(loc="left") == "Loss, logarithmic"
    plots.curves(history([math.nan]))


def test_curves_of_no_epochs_are_refused():
    with pytest.raises(ValueError, match="history has no epochs"):
        plots.curves(History())


@pytest.mark.parametrize("schedule", [Schedule(), OneCycle(), StepDecay(2, 0.1)], ids=lambda s: type(s).__name__)
def test_learning_rate_is_the_schedule(schedule: Schedule):
    (axes,) = plots.learning_rate(schedule, 0.2, steps_per_epoch=10, total_steps=50).axes
    assert list(axes.lines[0].get_ydata()) == [0.2 * schedule(step, 10, 50) for step in range(50)]
    assert texts(axes.figure) == [f"{0.2 * max(schedule(step, 10, 50) for step in range(50)):.3g}"]


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The profile of a step of cnn-bn with made-up times: line i takes i + 1 µs with Numba, NumPy ten times as long."""
    plan = Trainer(build("cnn-bn", "numpy"), Adam(1e-3), batch_size=4).plan
    lines = [
        Line(step, "", 0, 0, 1e-7 * (at + 1), {"numba": 1e-6 * (at + 1), "numpy": 1e-5 * (at + 1)}, {})
        for at, step in enumerate(plan.steps)
    ]
    return Profile("cnn-bn", 4, 1, Limits(1e9, {1: 1e9}), tuple(lines), {"numba": 0.0, "numpy": 0.0}, {})


def test_a_small_share_is_not_shown_as_none():
    assert [share(value) for value in (0.0, 0.0051, 0.5)] == ["<1%", "1%", "50%"]


def test_every_step_counts_for_its_own_layer(profile: Profile):
    layers = {title: [line.step.name for line in lines] for title, lines in by_layer(profile).items()}
    block = ["conv2d", "conv2d_backward"]
    assert layers["0  conv2d"] == block
    assert layers["1  batchnorm"] == ["batchnorm", "batchnorm_backward", "ema_update", "ema_update"]
    assert layers["2  relu"] == ["relu", "relu_backward"]
    assert layers["3  maxpool2d"] == ["maxpool2d", "maxpool2d_backward"]
    assert layers["4  conv2d"] == block
    assert layers["9  linear"] == ["linear", "linear_backward"]
    assert list(layers)[-2:] == ["loss", "optimizer"]
    assert sum(map(len, layers.values())) == len(profile.lines)


def test_layer_times_add_up(profile: Profile):
    figure = plots.layer_times(profile)
    (axes,) = figure.axes
    total = 1e6 * sum(line.seconds["numba"] for line in profile.lines)
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)
    shown = texts(figure)
    layers = len(axes.get_yticks())
    assert shown.count("10%") == layers
    assert shown.count("10.0×") == layers


def test_a_long_chain_is_folded_into_columns():
    chain: dict[object, tuple[float, int]] = {row: (0.0, row) for row in range(27)}
    places = folded(chain, most=13)
    assert len(set(places.values())) == 27
    assert {x for x, _ in places.values()} == {0.0, 1.0, 2.0}
    assert max(row for _, row in places.values()) == 8
    assert folded(dict(list(chain.items())[:13]), most=13) == dict(list(chain.items())[:13])
    deep = Sequential([*[ReLU()] * 20, Flatten(), Linear(3)], input_shape=(2, 2, 1), backend="numpy")
    width, height = plots.network(deep).get_size_inches()
    assert 5 < width < 6
    assert height < 9


# A network ----------------------------------------------------------------------------------------------------


def test_the_drawing_names_every_layer_with_its_shape_and_parameters(branching: Graph):
    shown = texts(plots.network(branching))
    assert "input" in shown
    assert "6 × 5 × 1" in shown
    for node in branching.nodes:
        assert str(node.layer).removesuffix("()") in shown
    assert "stem  ·  6 × 5 × 4  ·  40 parameters" in shown
    assert "both  ·  6 × 5 × 5" in shown
    assert "head  ·  10  ·  1,510 parameters" in shown


def test_no_box_of_the_drawing_overlaps_another_and_no_edge_runs_under_one(branching: Graph):
    places, routes = layered(branching.nodes)
    assert set(places) >= {"input", *(node.name for node in branching.nodes)}
    for (a, (xa, row_a)), (b, (xb, row_b)) in combinations(places.items(), 2):
        if row_a == row_b:
            assert abs(xa - xb) >= half(a) + half(b) - 1e-9, (a, b)
    assert {(route[0], route[-1]) for route in routes} == {
        (name, node.name) for node in branching.nodes for name in node.inputs
    }
    for route in routes:
        assert all(places[lower][1] == places[upper][1] + 1 for upper, lower in pairwise(route))
    around = next(route for route in routes if (route[0], route[-1]) == ("stem", "sum"))
    assert len(around) == 4


def test_a_line_of_layers_is_drawn_straight():
    places, _ = layered(build("cnn-bn", "numpy").nodes)
    assert len({x for x, _ in places.values()}) == 1
    assert sorted(row for _, row in places.values()) == list(range(11))


def test_the_part_of_a_graph_up_to_a_node_gives_that_nodes_output(branching: Graph):
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 1)).astype(np.float32)
    p = branching.parameters()
    stem = NUMPY.conv2d(x, p["stem.w"], p["stem.b"], padding=1)
    body = NUMPY.conv2d(stem, p["body.w"], p["body.b"], padding=1)
    np.testing.assert_array_equal(plots.until(branching, "stem").predict(x), stem)
    np.testing.assert_array_equal(plots.until(branching, "body").predict(x), body)
    np.testing.assert_array_equal(plots.until(branching, "head").predict(x), branching.predict(x))


def test_a_convolution_shows_its_responses_and_its_filters(branching: Graph):
    x = np.random.default_rng(0).normal(size=(6, 5, 1)).astype(np.float32)
    upper, lower = plots.convolution(branching, "body", x).axes
    responses = plots.until(branching, "body").predict(x[np.newaxis])[0]
    shown = upper.images[0].get_array()
    np.testing.assert_array_equal(shown[:6, :5], responses[..., 0])
    np.testing.assert_array_equal(shown[:6, 6:11], responses[..., 1])
    w = branching.parameters()["body.w"]
    shown = lower.images[0].get_array()
    np.testing.assert_array_equal(shown[4:7, 8:11], w[:, :, 1, 2])
    assert shown.mask[3].all()


def test_a_node_that_is_no_convolution_is_refused(branching: Graph):
    x = np.zeros((6, 5, 1), np.float32)
    with pytest.raises(ValueError, match=r"node is 'nonesuch', expected one of stem, body"):
        plots.convolution(branching, "nonesuch", x)
    with pytest.raises(ValueError, match=r"node 'norm' is BatchNorm\(\), expected a Conv2d"):
        plots.convolution(branching, "norm", x)


def test_weights_are_images_the_strongest_first(branching: Graph):
    model = Sequential([Flatten(), Linear(5), ReLU(), Linear(3)], input_shape=(4, 3, 1), backend="numpy")
    w = model.parameters()["1.w"].copy()
    w *= np.array([1, 5, 2, 4, 3]) / np.linalg.norm(w, axis=0)
    model.set_parameters({"1.w": w})
    (axes,) = plots.weights(model, count=2).axes
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown[:4, :3], w[:, 1].reshape(4, 3))
    np.testing.assert_array_equal(shown[:4, 4:7], w[:, 3].reshape(4, 3))
    assert shown.mask[:, 7:].all()
    assert axes.get_title(loc="left") == "2 of 5 units"
    with pytest.raises(ValueError, match="no linear layer that reads grey pixels"):
        plots.weights(branching)


# Answers ------------------------------------------------------------------------------------------------------


def test_predictions_show_answer_truth_and_logits(digits):
    images, _ = digits
    logits = np.zeros((2, 10), np.float32)
    logits[0, 3], logits[0, 4], logits[1, 7] = 5.0, -2.0, 4.0
    figure = plots.predictions(images[:2], logits, np.array([3, 1]))
    (axes,) = figure.axes
    assert len(axes.images) == 2
    widths = [bar.get_width() for bar in axes.patches]
    assert len(widths) == 20
    assert widths[4] / widths[3] == pytest.approx(-2 / 5)
    shown = texts(figure)
    assert "3" in shown
    assert "1 read as 7" in shown
    probability = np.exp(5.0) / (np.exp(5.0) + np.exp(-2.0) + 8)
    assert f"{probability:.1%}" in shown
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert [colours[3], colours[17], colours[11], colours[0]] == [plots.BLUE, plots.ORANGE, plots.INK, plots.FAINT]


def test_predictions_without_labels_call_nothing_wrong(digits):
    figure = plots.predictions(digits[0][:1], np.arange(10.0)[np.newaxis])
    assert not [text for text in texts(figure) if "read as" in text]


def test_mistakes_come_worst_first():
    logits = np.array([[9.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 8.0]])
    labels = np.array([1, 0, 0, 0])
    assert list(plots.mistakes(logits, labels)) == [0, 3, 1]
    assert list(plots.mistakes(logits, labels, count=1)) == [0]
    assert plots.mistakes(logits, logits.argmax(axis=1)).size == 0


def test_the_confusion_matrix_counts_pairs():
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 4, 50).astype(np.uint8), rng.integers(0, 4, 50)
    counts = plots.confusion_matrix(labels, answers, 5)
    for truth in range(5):
        for answer in range(5):
            assert counts[truth, answer] == sum((labels == truth) & (answers == answer))
    shown = texts(plots.confusion(labels, answers, 5))
    assert f"{counts[1, 1] / counts[1].sum():.1%}" in shown
    assert len(shown) == 25 + 4 + 1


# A data set ---------------------------------------------------------------------------------------------------


def test_samples_have_a_row_a_class(digits):
    images, labels = digits
    figure = plots.samples(images, labels, count=3)
    (axes,) = figure.axes
    shown = axes.images[0].get_array()
    for row, label in enumerate(np.unique(labels)):
        first = images[labels == label][0, ..., 0]
        np.testing.assert_array_equal(shown[31 * row : 31 * row + 28, :28], first)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [str(label) for label in np.unique(labels)]


def test_means_are_the_classes_means(digits):
    images, labels = digits
    (axes,) = plots.mean_images(images, labels).axes
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown[:28, 31:59], images[labels == 1].mean(axis=0)[..., 0])
    np.testing.assert_allclose(shown[31:59, 31:59], images[labels == 1].std(axis=0)[..., 0])


def test_counts_are_the_classes_sizes():
    figure = plots.class_counts({"training": np.array([0, 0, 2]), "test": np.array([2])})
    training, test = figure.axes
    assert [bar.get_width() for bar in training.patches] == [2, 1]
    assert [bar.get_width() for bar in test.patches] == [0, 1]
    assert training.get_title(loc="left") == "training: 3"


# Manners ------------------------------------------------------------------------------------------------------


def test_the_style_stays_inside_and_outside_styles_stay_out():
    before = dict(matplotlib.rcParams)
    plain = plots.curves(history([2.0, 1.0])).axes[0].title.get_color()
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"axes.titlecolor": "red"}):
        assert plots.curves(history([2.0, 1.0])).axes[0].title.get_color() == plain == plots.INK


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"needs matplotlib: pip install 'twinkernels\[plots\]'"):
        plots.curves(history([1.0]))


def test_the_command_loads_matplotlib_for_pictures_alone():
    program = "import sys, twinkernels.cli, twinkernels.plots; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
