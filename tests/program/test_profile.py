"""The profile: its lines are the plan's, its sums add up, its errors see a wrong kernel, its picture is drawn."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import data
import kernels
from kernels import Kernels
from kernels.limits import Limits
from models import SGD, BatchNorm, Linear, MeanSquaredError, Sequential
from models.plan import Value
from models.rewrite import rewrite
from twinkernels import cli, profile, recipes, runs, terminal
from twinkernels.profile import BACKENDS, Profile

from ..support import fused

LIMITS = Limits(1e11, {1 << 14: 1e11, 1 << 26: 1e10})
NUMPY = kernels.get("numpy")


@pytest.fixture(scope="module")
def measured() -> Profile:
    return profile.profile("cnn-bn", batch_size=4, seconds=0.05, limits=LIMITS)


def test_its_lines_are_the_plan(measured: Profile) -> None:
    listing = str(measured)
    assert "batch of 4" in listing
    kernels_named = [step.name for line in measured.lines for step in (line.step.replaces or (line.step,))]
    assert kernels_named[0] == "conv2d"
    assert kernels_named[-1] == "adam"
    assert "softmax_cross_entropy" in kernels_named
    for line in measured.lines:
        assert str(line.step) in listing
    assert listing.count("\n") == sum(1 + len(line.step.definition()) for line in measured.lines) + 5
    assert "(4, 24, 24, 16)" in listing


def test_contractions_have_operations_and_every_line_has_bytes(measured: Profile) -> None:
    first = measured.lines[0]
    assert first.flops == 2 * 4 * 24 * 24 * 16 * 25
    assert all(line.bytes > 0 for line in measured.lines)
    assert first.limit == max(first.flops / 1e11, first.bytes / LIMITS.bandwidth(first.bytes))


def test_times_and_errors_are_sane(measured: Profile) -> None:
    for line in measured.lines:
        for backend in BACKENDS:
            assert line.seconds[backend] > 0
            assert line.errors[backend] < 100, line.step  # ulp
    for backend in BACKENDS:
        assert measured.seconds(backend) == pytest.approx(sum(line.seconds[backend] for line in measured.lines))
        assert measured.whole[backend] > 0


def test_a_pass_is_timed_whole_and_step_by_step_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**9))
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(ticks)))
    calls: list[str] = []

    def times(n: int, **scalars: float) -> np.ndarray:
        calls.append("steps")
        return np.array([0.5, 0.25])

    executor = SimpleNamespace(run_in_place=lambda n, **scalars: calls.append("whole"), times=times)
    passes: list[np.ndarray] = []
    whole: list[float] = []
    profile._measure(executor, 1, 0.0, passes, whole)  # type: ignore[arg-type]
    assert whole == [1.0] * 3
    assert [found.tolist() for found in passes] == [[0.5, 0.25]] * 3
    assert calls == ["whole", *["whole", "steps"] * 3]


def test_the_typical_pass_is_a_pass() -> None:
    passes = [np.array([1.0, 2.0]), np.array([50.0, 2.0]), np.array([2.0, 2.0]), np.array([1.0, 90.0])]
    assert profile._typical(passes).tolist() == [1.5, 2.0]


def test_a_wrong_kernel_shows_in_its_own_line() -> None:
    def relu(x: Any, y: Any) -> None:
        NUMPY.function("relu")(x, y)
        y *= np.float32(1.001)

    names = {name: getattr(NUMPY.backend, name) for name in dir(NUMPY.backend) if not name.startswith("_")}
    twin = Kernels("numba", SimpleNamespace(**{**names, "relu": relu}))
    recipe = recipes.get("mlp-512")
    trainer = profile.Trainer(profile.build(recipe.network, "numpy"), recipe.optimizer, recipe.loss, 4)
    executor = profile._filled(trainer.plan, trainer, 0)
    errors = profile._errors(trainer.plan, executor, twin, 4, 1e-3)
    for step, found in zip(trainer.plan.steps, errors, strict=True):
        assert found["numpy"] < 80
        assert (found["numba"] > 4000) == (step.name == "relu"), step


def test_a_fused_step_is_held_to_what_it_replaces() -> None:
    """NumPy has no fused kernel and runs the steps instead; a wrong kernel shows in its line, a wrong place of a
    maximum in the line that scatters the gradient there."""

    def wrong(*arguments: Any) -> None:
        fused.conv2d_batchnorm_relu_maxpool2d(*arguments)
        arguments[-1][...] = 0

    kernel = "conv2d_batchnorm_relu_maxpool2d"
    twins = {name: fused.backend(NUMPY.backend, fused.NAMES) for name in ("right", "wrong")}
    setattr(twins["wrong"], kernel, wrong)
    recipe = recipes.get("cnn-bn")
    trainer = profile.Trainer(profile.build(recipe.network, "numpy"), recipe.optimizer, recipe.loss, 4)
    plan = rewrite(trainer.plan, fused.REFERENCE)
    assert profile._starts(plan, fused.REFERENCE) == list(range(len(plan.steps)))
    assert profile._starts(plan, NUMPY) == [0, 4, 8, 9, 10, 11, 15, 19, 20, 21, 22, 23]
    for kind, twin in twins.items():
        executor = profile._filled(plan, trainer, 0)
        errors = profile._errors(plan, executor, Kernels("numba", twin), 4, 1e-3)
        for step, found in zip(plan.steps, errors, strict=True):
            assert found["numpy"] < 80
            assert (found["numba"] > 8000) == (kind == "wrong" and step.name == f"{kernel}_backward"), step


def largest(result: Any, truth: Any, scale: float = 1.0) -> float:
    """The profile's error of one array."""
    value = Value("y", (3,))
    found, expected = (profile.Written(np.asarray(array), np.full(3, scale)) for array in (result, truth))
    return profile._largest({value: found}, {value: expected})


def test_wrong_indices_and_nan_are_infinite_errors() -> None:
    single = np.ones(3, np.float32)
    assert largest([1, 2, 3], [1, 3, 3]) == np.inf
    for wrong in (np.nan, np.inf):
        for place in range(3):
            result = single.copy()
            result[place] = wrong
            assert largest(result, np.ones(3)) == np.inf
            assert largest(single, result.astype(np.float64)) == np.inf
    assert largest(single, np.full(3, 1 - 2.0**-23)) == 1.0
    assert largest(single, np.full(3, 1 - 2.0**-23), scale=4.0) == 0.25


def test_the_picture_has_a_bar_and_a_point_for_every_step(measured: Profile, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra plots")
    figure = measured.figure()
    roofline, bars = figure.axes
    assert len(bars.patches) == 2 * len(measured.lines)
    contractions = sum(line.flops > 0 for line in measured.lines)
    assert [len(line.get_xdata()) for line in roofline.lines[2:]] == [contractions, contractions]
    figure.savefig(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 10_000


def test_no_label_of_the_picture_runs_over_another_or_over_the_edge(measured: Profile) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra plots")
    figure = measured.figure()
    figure.draw_without_rendering()
    boxes = {}
    for axes in figure.axes:
        labels = [*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
        if legend := axes.get_legend():
            labels += legend.get_texts()
        for axis in axes.xaxis, axes.yaxis:
            low, high = sorted(axis.get_view_interval())
            labels += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        for label in labels:
            if label.get_text():
                boxes[label] = label.get_window_extent()
    assert len(boxes) > 4 * len(measured.lines)
    for label, box in boxes.items():
        assert figure.bbox.x0 - 1 <= box.x0, label
        assert box.x1 <= figure.bbox.x1 + 1, label
        assert figure.bbox.y0 - 1 <= box.y0, label
        assert box.y1 <= figure.bbox.y1 + 1, label
    for (one, box), (other, another) in combinations(boxes.items(), 2):
        across = min(box.x1, another.x1) - max(box.x0, another.x0)
        down = min(box.y1, another.y1) - max(box.y0, another.y0)
        assert min(across, down) < 1, (one, other)  # pixels, of a hundred an inch


def test_the_listing_fits_a_terminal(measured: Profile) -> None:
    for width in 80, 100, 160:
        lines = measured.listing(width).splitlines()
        assert max(map(len, lines)) <= width
        for phase in "forward", "loss", "backward", "statistics", "optimizer", "total", "the whole step at once":
            assert sum(line.startswith(f"{phase} ") for line in lines) == 1
        for line in measured.lines:
            assert any(shown.startswith(f"  {line.title} ") for shown in lines)
    backward = [line for line in measured.lines if line.step.phase == "backward"]
    (shown,) = [row for row in measured.listing(80).splitlines() if row.startswith("backward ")]
    numpy, numba = (1e6 * sum(line.seconds[backend] for line in backward) for backend in BACKENDS)
    found = [float(cell.replace(",", "")) for cell in shown.split()[1:3]]
    assert found == pytest.approx([numpy, numba], rel=1e-3, abs=0.06)
    assert shown.split()[3] == f"{numpy / numba:.1f}×"
    assert str(measured) == measured.listing() == measured.listing(None)


def test_a_long_name_is_shortened_in_a_listing_that_fits(measured: Profile) -> None:
    step = replace(measured.lines[0].step, node="a node with a long name " * 4, replaces=())
    long = replace(measured, lines=(replace(measured.lines[0], step=step), *measured.lines[1:]))
    lines = long.listing(80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  a node with a long name") and "…" in line for line in lines)


def test_a_terminal_gets_what_fits_and_a_file_all(
    measured: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "profile", lambda *arguments, **options: measured)
    figure = measured.figure()
    figure.clear()  # another test draws it
    monkeypatch.setattr(Profile, "figure", lambda self: figure)
    monkeypatch.chdir(tmp_path)
    for width, wide, expected in (
        (80, False, measured.listing(80)),
        (80, True, measured.listing()),
        (None, False, measured.listing()),
    ):
        monkeypatch.setattr(terminal, "width", lambda width=width: width)
        cli.profile_step("cnn-bn", wide=wide)
        assert capsys.readouterr().out.startswith(f"{expected}\n")


def test_runs_files_and_models_are_profiled_as_recipes_are(tmp_path: Path) -> None:
    digits = data.Split(np.zeros((8, 28, 28, 1), np.uint8), np.arange(8, dtype=np.uint8))
    digits.images[:, ::3] = 255
    dataset = data.Dataset(digits, digits)
    own = replace(recipes.get("mlp-512"), name="my own", optimizer=SGD(0.1), batch_size=4, epochs=1)
    runs.run(own, dataset, backend="numpy", out=tmp_path / "a run")
    options: dict[str, Any] = {"seconds": 0.02, "limits": LIMITS}

    found = profile.profile(tmp_path / "a run", **options)
    assert (found.name, found.batch_size, found.lines[-1].step.name) == ("a run", 4, "sgd")
    found = profile.profile(str(tmp_path / "a run" / "model.safetensors"), 2, **options)
    assert (found.name, found.batch_size, found.lines[-1].step.name) == ("a run", 2, "adam")
    assert profile.profile(own, **options).name == "my own"

    model = Sequential([Linear(3), BatchNorm()], input_shape=(5,), backend="numpy", dtype=np.float64)
    before = {name: array.copy() for name, array in (model.parameters() | model.statistics()).items()}
    found = profile.profile(model, 3, optimizer=SGD(0.5), loss=MeanSquaredError(), **options)
    assert (found.name, found.batch_size) == ("Sequential", 3)
    assert [line.step.name for line in found.lines][2:3] == ["mse"]
    for name, array in (model.parameters() | model.statistics()).items():
        np.testing.assert_array_equal(array, before[name])

    found = profile.profile(own, precision="bfloat16", **options)
    steps = [one for line in found.lines for one in line.step.expanded(lambda kernel: False)]
    rounded = [one for one in steps if one.name == "round_to_bfloat16"]
    assert [one.inputs["x"].name for one in rounded[:2]] == ["input", "1.w"]


def test_what_a_contraction_in_bfloat16_reads_is_still_there_when_errors_are_taken() -> None:
    """NumPy's pass rounds an operand first, and may then lay something else in its place."""
    found = profile.profile("cnn-bn", 16, precision="bfloat16", seconds=0.02, limits=LIMITS)
    contractions = [line for line in found.lines if line.step.name.startswith(("conv2d", "linear"))]
    assert len(contractions) == 6
    assert max(line.errors["numba"] for line in contractions) < 1000


def test_without_matplotlib_the_listing_still_comes(
    measured: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(profile, "profile", lambda *arguments, **options: measured)
    cli.profile_step("cnn-bn")
    printed = capsys.readouterr().out
    assert "conv2d" in printed
    assert "pip install 'twinkernels[plots]'" in printed
    with pytest.raises(ValueError, match="needs matplotlib"):
        cli.profile_step("cnn-bn", out=Path("picture.png"))


def test_the_command_keeps_the_picture(
    measured: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra plots")
    monkeypatch.setattr(profile, "profile", lambda *arguments, **options: measured)
    monkeypatch.chdir(tmp_path)
    cli.profile_step("cnn-bn")
    assert (tmp_path / "profile-cnn-bn.png").exists()
    assert "profile-cnn-bn.png" in capsys.readouterr().out


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'nonesuch'"):
        profile.profile("nonesuch")
    with pytest.raises(ValueError, match=r"'nowhere/run'; expected one of mlp-meannorm, .*, the folder of a run or"):
        profile.profile("nowhere/run")
    with pytest.raises(ValueError, match="batch_size is 0"):
        profile.profile("cnn-bn", batch_size=0)


def test_limits_take_the_nearest_size_and_the_slower_resource() -> None:
    assert LIMITS.bandwidth(1 << 15) == 1e11
    assert LIMITS.bandwidth(1 << 27) == 1e10
    assert LIMITS.seconds(10**11, 1) == 1.0
    assert LIMITS.seconds(1, 10**10) == 1.0


def test_small_copies_are_repeated_within_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call from Python takes longer than they do: steps in compiled code came to 178 % of what it left."""
    from kernels import limits

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(limits, "_copy_to_and_fro", lambda y, x, times: seen.append((x.nbytes, times)))
    limits.bandwidth(1 << 14, repetitions=1)
    limits.bandwidth(1 << 22, repetitions=1)
    assert sorted(set(seen)) == [(1 << 14, 64), (1 << 22, 1)]


def test_the_machine_has_limits() -> None:
    from kernels import limits

    assert limits.peak(threads=1, repetitions=2) > 1e8
    assert limits.bandwidth(1 << 14, threads=1, repetitions=2) > 1e7
