"""The pages of `report` and `explore`: they hold all they show, say what is true, and refuse what is no run."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import data
import models
from data import strokes
from models import Sequential
from twinkernels import plots, runs
from twinkernels.pages import explore, report
from twinkernels.pages import html as page

from ..support.digits import write_folder

pytest.importorskip("matplotlib", reason="pictures need the extra plots")
from matplotlib.figure import Figure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set as a folder, by the name of <digits>, which a page has to escape."""
    return write_folder(tmp_path_factory.mktemp("data") / "<digits>", data.Dataset(*strokes.load(train=300, test=80)))


@pytest.fixture(scope="module")
def kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    runs.run("cnn-bn", str(folder), backend="numpy", epochs=2, batch_size=50, out=out)
    return out


@pytest.fixture
def broken(kept: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be broken."""
    return Path(shutil.copytree(kept, tmp_path / "run"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without their content, and no page that holds them: for tests that look at none."""
    for name in ("curves", "learning_rate", "network", "confusion", "predictions", "convolution", "weights"):
        monkeypatch.setattr(report.plots, name, lambda *_: Figure())
    monkeypatch.setattr(page, "svg", lambda figure, description: "<svg></svg>")


@pytest.fixture(scope="module")
def text(kept: Path) -> str:
    return report.report(runs.read_run(kept), profiled=False)


def check_page(text: str, figures: int) -> None:
    """It is well-formed, needs nothing from outside, and every colour of its figures follows light and dark."""
    assert re.findall(r'(?:src|href|url)\s*[=(]\s*"?(?!data:image/png|#)[^"\s>]{3}', text) == []
    assert "<script" not in text
    assert text.count("<section>") == text.count("</section>")
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) == figures
    assert text.count("<figcaption>") == text.count("<figure ") > 0
    names = []
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.replace("<svg ", '<svg xmlns:xlink="xlink" ', 1))
        assert root.get("aria-label")
        names += [name for element in root.iter() if (name := element.get("id"))]
        styles = " ".join(element.get("style", "") for element in root.iter())
        assert re.findall(r"(?:fill|stroke): #\w+", styles) == []
        used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', drawing))
        assert {name for pair in used for name in pair if name} <= set(names)
    assert len(names) == len(set(names))


# The report ---------------------------------------------------------------------------------------------------


def test_the_page_holds_all_it_shows(text: str, folder: Path):
    check_page(text, figures=11)
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Training", "Network", "Answers", "Inside"]
    assert "<digits>" not in text
    assert "&lt;digits&gt;" in text


def test_the_page_says_what_evaluate_says(text: str, kept: Path, folder: Path):
    test = data.load(folder).test
    accuracy = models.load(kept / "model.safetensors", backend="numpy").evaluate(*test).accuracy
    assert f"<dt>test accuracy</dt><dd>{accuracy:.2%}</dd>" in text
    assert f"<dt>of 80 test images read wrongly</dt><dd>{round(80 * (1 - accuracy))}</dd>" in text
    assert "<dt>parameters</dt><dd>18,474</dd>" in text
    assert "<dt>steps of 50 images</dt><dd>12</dd>" in text
    assert "OneCycle(warmup=0.3, start=0.04, final=0.0)" in text


def test_the_command_writes_it_beside_the_run(run, broken: Path, undrawn: None):
    status, out, err = run("report", broken, "--no-profile")
    assert (status, err) == (0, [])
    assert out == [f"report in {broken / 'report.html'}"]
    assert (broken / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_speed_is_measured_for_known_recipes(broken: Path, monkeypatch: pytest.MonkeyPatch):
    from kernels.limits import Limits
    from twinkernels import profile

    measure = profile.profile
    limits = Limits(1e11, {1 << 14: 1e11})
    monkeypatch.setattr(profile, "profile", lambda name, n: measure(name, 4, seconds=0.02, limits=limits))
    section = report.speed(runs.read_run(broken))
    check_page(section, figures=1)
    assert "A training step of 50 images by layer" in section
    assert "least time" not in section, "the limit is passed where arrays are still in a cache"
    assert "above 100 % of this limit" in section

    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"recipe": "my own"}))
    assert "my own is none of the recipes" in report.speed(runs.read_run(broken))


def test_other_data_another_backend_and_another_place_can_be_named(run, broken: Path, folder: Path, undrawn: None):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"data": None}))
    status, _, err = run("report", broken, "--no-profile")
    assert (status, len(err)) == (2, 1)
    assert "name the images to test on with --data" in err[0]
    target = broken.parent / "page.html"
    status, out, err = run("report", broken, "--no-profile", "--data", folder, "--backend", "numpy", "--out", target)
    assert (status, out, err) == (0, [f"report in {target}"], [])
    assert "</html>" in target.read_text(encoding="utf-8")


def test_a_perfect_model_has_no_worst_mistakes(kept: Path, folder: Path, tmp_path: Path):
    images = data.load(folder).test.images
    model = runs.read_run(kept).model
    flawless = tmp_path / "flawless"
    flawless.mkdir()
    for prefix in "train", "t10k":
        data.write_idx(flawless / f"{prefix}-images-idx3-ubyte", images[..., 0])
        data.write_idx(flawless / f"{prefix}-labels-idx1-ubyte", model.predict(images).argmax(axis=1).astype(np.uint8))
    text = report.report(runs.read_run(kept), str(flawless), profiled=False)
    check_page(text, figures=9)
    assert "Not one test image is read wrongly." in text


def test_an_mlp_shows_its_weights(folder: Path, tmp_path: Path):
    runs.run("mlp-meannorm", str(folder), backend="numpy", epochs=1, out=tmp_path / "run")
    text = report.report(runs.read_run(tmp_path / "run"), profiled=False)
    check_page(text, figures=10)
    assert "64 of 256 units" in text
    assert "Validation: after each epoch" in text
    assert len(re.findall(r">validation</tspan>|>validation<", text)) == 2
    assert "17% of the training images" in text


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "model.safetensors"])
def test_a_run_half_written_is_refused_in_one_line(run, broken: Path, name: str):
    (broken / name).unlink()
    hint = f"; twinkernels train --resume {broken} goes on with it" if name == "model.safetensors" else ""
    assert run("report", broken) == (2, [], [f"twinkernels: {broken} is no finished run: it lacks {name}{hint}"])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", b'{"recipe": ', "not a readable configuration (Expecting value"),
        ("config.json", b"\xff\xfe", "not a readable configuration ("),
        ("config.json", b"[]", "not a readable configuration (it holds a list, expected an object)"),
        ("config.json", b"{}", "not a readable configuration ('recipe')"),
        ("config.json", {"schedule": {"type": "Sudden"}}, "not a readable configuration (unknown"),
        ("config.json", {"schedule": 3}, "Recipe: schedule is 3, expected"),
        ("config.json", {"epochs": None, "iterations": None}, "expected one of them"),
        ("config.json", {"optimizer": {}}, "not a readable configuration"),
        ("config.json", {"backend": "nonesuch"}, "unknown backend 'nonesuch'"),
        ("history.jsonl", b"", "history.jsonl holds no epoch"),
        ("history.jsonl", b'{"epoch": 1}\n', "history.jsonl:1: not an epoch's record ('loss')"),
        ("history.jsonl", {"epoch": "1"}, "not an epoch's record (an epoch's epoch is '1', expected int)"),
        ("history.jsonl", b'{"epoch": 1, "ste', "not an epoch's record (Unterminated string"),
        ("model.safetensors", b"nothing", "not a readable model"),
    ],
)
def test_a_broken_run_is_refused_in_one_line(run, broken: Path, name: str, content: object, complaint: str):
    if isinstance(content, dict):
        whole = (broken / name).read_text()
        content = json.dumps(json.loads(whole if name == "config.json" else whole.splitlines()[0]) | content).encode()
    (broken / name).write_bytes(content)
    status, out, err = run("report", broken)
    assert (status, out, len(err)) == (2, [], 1)
    assert complaint in err[0]
    assert not (broken / "report.html").exists()


def test_a_loss_that_diverged_is_shown_as_a_gap(broken: Path):
    path = broken / "history.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(json.dumps(json.loads(first) | {"loss": None}) + "\n" + second + "\n")
    history = runs.read_run(broken).history
    assert np.isnan(history.loss[0])
    assert history.validation_loss == [None, None]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["report", "nonesuch"], "no run at nonesuch"),
        (["report", "RUN", "--data", "nonesuch"], "neither"),
        (["report", "RUN", "--backend", "nonesuch"], "unknown backend 'nonesuch'"),
        (["report", "RUN", "--out", "nowhere/page.html"], "cannot write the page nowhere/page.html"),
        (["report", "RUN", "--out", "."], "cannot write the page ."),
        (["explore", "nonesuch"], "neither"),
        (["explore", "strokes", "--out", "nowhere/page.html"], "cannot write the page nowhere/page.html"),
    ],
)
def test_mistakes_end_in_one_line(run, kept: Path, tmp_path: Path, monkeypatch, arguments: list[str], complaint: str):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*(kept if argument == "RUN" else argument for argument in arguments))
    assert (status, len(err)) == (2, 1)
    assert complaint in err[0]


def test_images_of_another_size_are_refused(run, kept: Path, tmp_path: Path):
    for prefix in "train", "t10k":
        data.write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.zeros((3, 8, 8), np.uint8))
        data.write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(3, dtype=np.uint8))
    status, _, err = run("report", kept, "--data", tmp_path)
    assert (status, len(err)) == (2, 1)
    assert "test images" in err[0]


def test_a_model_that_is_no_classifier_is_refused(broken: Path):
    model = Sequential([models.Conv2d(2, 3)], input_shape=(28, 28, 1), backend="numpy")
    model.save(broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"output is \('N', 26, 26, 2\), expected \(N, classes\)"):
        report.report(runs.read_run(broken), profiled=False)


# Explore ------------------------------------------------------------------------------------------------------


def test_explore_prints_the_counts_and_writes_a_page(run, folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("explore", folder)
    assert (status, err) == (0, [])
    dataset = data.load(folder)
    rows = {line.split()[0]: line.split()[1:] for line in out}
    assert rows["class"] == ["train", "test"]
    for label in range(10):
        assert rows[str(label)] == [str(np.count_nonzero(split.labels == label)) for split in dataset]
    assert rows["all"] == ["300", "80"]
    assert rows["mean"] == [f"{split.images.mean():.2f}" for split in dataset]
    assert out[-1] == "page in explore-<digits>.html"
    text = (tmp_path / "explore-<digits>.html").read_text(encoding="utf-8")
    check_page(text, figures=4)
    assert "<dt>training images</dt><dd>300</dd>" in text
    assert "<h1>&lt;digits&gt;</h1>" in text


def test_report_without_matplotlib_says_what_to_install(run, broken: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, err = run("report", broken, "--no-profile")
    assert (status, out, len(err)) == (2, [], 1)
    assert "pip install 'twinkernels[plots]'" in err[0]


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(run, broken: Path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    for arguments in (["report", broken], ["explore", "strokes", "--out", broken / "page.html"]):
        status, out, err = run(*arguments)
        assert (status, out, len(err)) == (2, [], 1)
        assert "can be written to" in err[0]


def test_explore_without_matplotlib_still_prints(run, folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, _ = run("explore", folder)
    assert status == 0
    assert out[-1] == "no page: the picture needs matplotlib: pip install 'twinkernels[plots]'"
    status, _, err = run("explore", folder, "--out", "page.html")
    assert (status, len(err)) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_colours_and_images_have_a_light_and_a_dark_form():
    text = page.page("t", "l", {}, [page.picture(plots.class_counts({"test": np.array([1, 1, 2])}), "Counts.")])
    light, dark = text.split("prefers-color-scheme: dark", 1)
    for colour in plots.INK, plots.PAPER, plots.BLUE:
        assert f": {colour}" in light
        assert f": {colour}" not in dark
    assert "fill: var(--blue)" in dark
    assert "invert(1)" in dark


def test_the_summary_is_aligned(folder: Path):
    lines = explore.summary(data.load(folder)).splitlines()
    assert len({len(line) for line in lines}) == 1
