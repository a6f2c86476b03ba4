"""The study: what it varies, that no trial is lost or done twice, and what it makes of the outcomes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import data
from data import strokes
from models import AdamW, SoftmaxCrossEntropy
from twinkernels import cli, plots, study
from twinkernels.study import effects, factors, page, trials
from twinkernels.study.factors import BASELINE, CHOICES, FACTORS, Factor, Level, Setup
from twinkernels.study.storage import NAME
from twinkernels.study.trials import Outcome, Trial

from ..support.digits import write_folder
from ..support.processes import BRIEF, ROOT

optuna = pytest.importorskip("optuna", reason="a study needs the extra study")
pytest.importorskip("matplotlib", reason="pictures need the extra plots")

SMALL = {"factors": ["smoothing"], "seeds": 2, "backend": "numpy", "epochs": 1, "images": 64, "batch_size": 32}
TRIALS = 3 * 5 * 2

PROGRAM = """
import os, sys, time
import numpy as np
import data
from twinkernels import study
from twinkernels.study import trials

def fit(trial, train, options):
    print(trial, flush=True)
    {work}
    return trials.Outcome(0.5)

trials.fit = fit
split = data.Split(np.arange(32 * 784, dtype=np.uint8).reshape(32, 28, 28, 1), np.arange(32, dtype=np.uint8) % 10)
found = study.run({storage!r}, data.Dataset(split, split), **{options!r})
print(len(found.outcomes), "done")
"""
"""A study with trials that cost nothing, in a process of its own."""


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    (x, y), (xt, yt) = strokes.load(train=120, test=10)
    return data.Dataset(data.Split(x, y), data.Split(xt, yt))


def begin(storage: Path, work: str = "time.sleep(0.02)") -> subprocess.Popen[str]:
    program = PROGRAM.format(work=work, storage=str(storage), options=SMALL)
    return subprocess.Popen([sys.executable, "-c", BRIEF + program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def states(storage: Path) -> Counter[str]:
    """How many trials the storage holds in each state, as Optuna itself reads it."""
    engine = optuna.storages.RDBStorage(f"sqlite:///{storage}")
    kept = optuna.load_study(study_name=NAME, storage=engine).trials
    engine.remove_session()
    engine.engine.dispose()
    return Counter(trial.state.name for trial in kept)


def quick(monkeypatch: pytest.MonkeyPatch, accuracy=lambda trial: 0.5) -> list[Trial]:
    """Have trials cost nothing; the list of those that were done."""
    done: list[Trial] = []

    def fit(trial, train, options):
        done.append(trial)
        return Outcome(accuracy(trial))

    monkeypatch.setattr(trials, "fit", fit)
    return done


# What it varies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_changes_one_part_of_its_first_level(name):
    first, *others = FACTORS[name].levels.values()
    for setup, rates in others:
        changed = [field for field in CHOICES if getattr(setup, field) != getattr(first.setup, field)]
        assert len(changed) == (0 if name == "learning rate" else 1)
        assert list(rates) == sorted(set(rates))
        assert len(rates) == (1 if name == "learning rate" else 5)


def test_every_choice_is_a_level_of_some_factor():
    studied = {level.setup for factor in FACTORS.values() for level in factor.levels.values()}
    for field, choices in CHOICES.items():
        assert {getattr(setup, field) for setup in studied} == set(choices)
        assert getattr(BASELINE, field) == choices[0]


def test_trials_are_enumerated_once_each_and_seed_by_seed():
    enumerated = trials.trials(tuple(FACTORS.values()), 3)
    assert len(set(enumerated)) == len(enumerated)
    assert [trial.seed for trial in enumerated] == sorted(trial.seed for trial in enumerated)
    assert len({trial.key(4) for trial in enumerated}) == len(enumerated)
    assert trials.trials(tuple(FACTORS.values()), 2) == enumerated[: 2 * len(enumerated) // 3]


def test_setups_come_to_what_they_say():
    training = Setup(weight_decay="decoupled 0.05", smoothing="0.1").training(0.01, 4)
    assert training.optimizer == AdamW(0.01, weight_decay=0.05)
    assert training.loss == SoftmaxCrossEntropy(0.1)
    flips = Setup(augmentation="flips as well").training(0.01, 4).augment
    assert flips.flip_horizontal
    assert flips.flip_vertical
    for name, make in factors.SCHEDULES.items():
        schedule = make(4)
        last = schedule(399, 100, 400)
        assert (last == 1) == (name == "constant")
        assert 0 <= last < 0.05 or name == "constant"


# Trials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", [level.setup for factor in FACTORS.values() for level in factor.levels.values()][::3])
def test_setups_train(digits, setup):
    options = {"epochs": 1, "images": 64, "batch_size": 32, "backend": "numpy"}
    first, second = (trials.fit(Trial(setup, 1e-3, 1), digits.train, options) for _ in range(2))
    assert first == second
    assert 0 <= first.accuracy <= 1


def test_a_trial_never_sees_what_it_is_judged_on(digits, monkeypatch):
    seen = {}
    trainer_fit, evaluate = trials.Trainer.fit, trials.Sequential.evaluate

    def fit(self, x, y, **options):
        seen["trained"] = {image.tobytes() for image in x}
        return trainer_fit(self, x, y, **options)

    def judge(self, x, y):
        seen["judged"] = {image.tobytes() for image in x}
        return evaluate(self, x, y)

    monkeypatch.setattr(trials.Trainer, "fit", fit)
    monkeypatch.setattr(trials.Sequential, "evaluate", judge)
    parts = []
    for seed in 0, 1:
        trials.fit(Trial(BASELINE, 1e-3, seed), digits.train, {**SMALL, "images": 64})
        assert (len(seen["trained"]), len(seen["judged"])) == (64, 20)
        assert not seen["trained"] & seen["judged"]
        parts.append(seen["judged"])
    assert parts[0] != parts[1]


def test_a_training_that_diverges_counts_as_it_stands(digits):
    outcome = trials.fit(Trial(Setup(normalisation="none", optimizer="SGD"), 1e30, 0), digits.train, SMALL)
    assert outcome.diverged
    assert 0 <= outcome.accuracy < 0.5


# Storage -----------------------------------------------------------------------------------------------------


def test_a_study_goes_on_with_what_is_there(digits, tmp_path, monkeypatch):
    done = quick(monkeypatch)
    found = study.run(tmp_path / "study.db", digits, most=5, **SMALL)
    assert (len(found.outcomes), found.total, len(done)) == (5, TRIALS, 5)
    study.run(tmp_path / "study.db", digits, **SMALL)
    assert sorted(map(str, done)) == sorted(map(str, trials.trials((FACTORS["smoothing"],), 2)))
    found = study.run(tmp_path / "study.db", digits, **SMALL)
    assert (len(found.outcomes), len(done)) == (TRIALS, TRIALS)
    assert states(tmp_path / "study.db") == {"COMPLETE": TRIALS}
    study.run(tmp_path / "study.db", digits, factors=["smoothing", "augmentation"], seeds=3)  # more of the same
    assert len(done) == 3 * 5 * 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.db", "study.db.lock"]


def test_a_trial_that_is_interrupted_is_done_again(digits, tmp_path, monkeypatch):
    def interrupted(trial):
        raise KeyboardInterrupt

    quick(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path / "study.db", digits, **SMALL)
    assert states(tmp_path / "study.db") == {"RUNNING": 1}
    done = quick(monkeypatch)
    study.run(tmp_path / "study.db", digits, **SMALL)
    assert len(set(done)) == len(done) == TRIALS
    assert states(tmp_path / "study.db") == {"COMPLETE": TRIALS, "FAIL": 1}


def test_processes_share_a_storage(tmp_path):
    """Three that start together, so that they also make it together."""
    began = [begin(tmp_path / "study.db") for _ in range(3)]
    shares = [process.communicate(timeout=300)[0].splitlines() for process in began]
    assert [process.returncode for process in began] == [0, 0, 0]
    assert [share.pop() for share in shares] == [f"{TRIALS} done"] * 3
    done = [line for share in shares for line in share]
    assert sorted(done) == sorted(map(str, trials.trials((FACTORS["smoothing"],), 2)))
    assert states(tmp_path / "study.db") == {"COMPLETE": TRIALS}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_loses_no_trial(tmp_path):
    """The other, which is waiting for the trial of the killed one to end, does it in its place."""
    killed = begin(tmp_path / "study.db", "time.sleep(3600)")
    lost = killed.stdout.readline().strip()
    other = begin(tmp_path / "study.db", "pass")
    done = [other.stdout.readline().strip() for _ in range(TRIALS - 1)]
    time.sleep(0.1)
    assert other.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    rest = other.communicate(timeout=300)[0].splitlines()
    assert rest == [lost, f"{TRIALS} done"]
    assert lost not in done
    assert len(set(done)) == TRIALS - 1
    assert states(tmp_path / "study.db") == {"COMPLETE": TRIALS, "FAIL": 1}
    assert sorted(os.listdir(tmp_path)) == ["study.db", "study.db.lock"]


# Findings ----------------------------------------------------------------------------------------------------


def test_a_seed_takes_the_learning_rate_that_the_others_choose():
    level = Level(BASELINE, (0.1, 0.2))
    factor = Factor("f", "", {"first": level})
    accuracies = {0.1: (0.9, 0.1, 0.5), 0.2: (0.2, 0.8, 0.6)}
    outcomes = {Trial(BASELINE, r, s): Outcome(a) for r, each in accuracies.items() for s, a in enumerate(each)}
    (effect,) = effects.effects([factor], outcomes)
    assert effect.rates == (0.2, 0.1, 0.1)  # means of the others: 0.3 or 0.7, 0.7 or 0.4, 0.5 or 0.5
    assert effect.accuracies == (0.2, 0.1, 0.5)
    assert effect.differences == (0, 0, 0)


def test_effects_are_differences_seed_by_seed():
    other = Setup(smoothing="0.1")
    factor = Factor("f", "", {"first": Level(BASELINE, (1.0,)), "second": Level(other, (1.0,))})
    first, second = (0.90, 0.92, 0.94, 0.96), (0.91, 0.925, 0.96)
    outcomes = {Trial(BASELINE, 1.0, s): Outcome(a) for s, a in enumerate(first)}
    outcomes |= {Trial(other, 1.0, s): Outcome(a, diverged=s == 1) for s, a in enumerate(second)}
    reference, effect = effects.effects([factor], outcomes)
    assert reference.is_reference
    assert not effect.is_reference
    assert effect.differences == pytest.approx((0.01, 0.005, 0.02))
    # 95 % interval of 3: t is 4.303 with 2 degrees of freedom.
    assert effect.interval == pytest.approx(4.303 * np.std(effect.differences, ddof=1) / 3**0.5)
    assert (effect.verdict, effect.diverged) == ("unclear", 1)
    assert effect._replace(differences=(0.010, 0.011, 0.012)).verdict == "better"
    assert effect._replace(differences=(-0.010, -0.011, -0.012)).verdict == "worse"
    assert effect._replace(differences=(0.01,)).verdict == "unclear"


def test_a_level_counts_the_seeds_that_are_done_with_all_its_rates():
    factor = Factor("f", "", {"first": Level(BASELINE, (0.1, 0.2)), "second": Level(Setup(smoothing="0.1"), (0.1,))})
    outcomes = {Trial(BASELINE, rate, 0): Outcome(0.5) for rate in (0.1, 0.2)} | {Trial(BASELINE, 0.1, 1): Outcome(0.5)}
    assert [len(effect.accuracies) for effect in effects.effects([factor], outcomes)] == [1]


def test_the_best_rate_at_an_end_is_marked():
    marked = []
    for best in 1, 2, 3:
        trials = [Trial(BASELINE, rate, seed) for rate in (1, 2, 3) for seed in (0, 1)]
        outcomes = {trial: Outcome(0.9 if trial.learning_rate == best else 0.5) for trial in trials}
        marked.append(effects.effects([Factor("smoothing", "", {"0": Level(BASELINE, (1, 2, 3))})], outcomes))
    assert [effect.at_edge for (effect,) in marked] == [True, False, True]
    assert [row[2] for (row,) in map(page.rows, marked)] == ["1 †", "2", "3 †"]


def test_pictures_show_every_level_and_seed():
    figure = plots.factors({"optimizer": {"Adam": [0.02, 0.03], "SGD": [0.05, 0.06]}, "smoothing": {"0": [0.02, 0.03]}})
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["Adam", "SGD"]
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("optimizer", "smoothing")
    dots = [sorted(line.get_xdata()) for line in first.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, [[2, 3], [5, 6]])
    colours = [line.get_color() for line in first.lines if line.get_marker() == "o"]
    assert colours == [plots.INK, plots.ORANGE]
    same = plots.factors({"optimizer": {"Adam": [0.02, 0.03], "SGD": [0.05, 0.06]}}, differing=()).axes[0]
    assert [line.get_color() for line in same.lines if line.get_marker() == "o"] == [plots.INK, plots.MUTED]
    figure = plots.learning_rates({"Adam": {0.1: [0.02, 0.04], 0.01: [0.05]}})
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0.01, 5], [0.1, 3]])


# The command -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(digits, tmp_path, monkeypatch, capsys):
    """Call the command on a folder of images; exit status, lines of standard output, lines of standard error."""
    write_folder(tmp_path / "digits", digits)
    monkeypatch.chdir(tmp_path)
    given = "study --factor smoothing --backend numpy --epochs 1 --images 64 --batch-size 32 --seeds 2 --data digits"

    def call(*more: str, without: str = "") -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as end:
            cli.main([*given.replace(without, "").split(), *more])
        out, err = capsys.readouterr()
        return int(end.value.code), out.splitlines(), err.splitlines()

    return call


def test_the_command_studies_and_writes_a_page(run, tmp_path):
    status, out, err = run()
    assert (status, err) == (0, [])
    for number, line in enumerate(out[:TRIALS], start=1):
        assert re.fullmatch(rf"{number} of {TRIALS}  .*, seed [01]  accuracy 0\.\d{{4}}", line)
    assert out[-1] == f"{TRIALS} of {TRIALS} trainings; table and pictures in study/study.md"
    page = (tmp_path / "study" / "study.md").read_text()
    assert "2 seeds" in page
    assert "1 epoch of 64 images" in page
    assert len([line for line in page.splitlines() if line.startswith("| ")]) == 2 + 3
    for name in re.findall(r"\]\((.*?)\)", page):
        assert (tmp_path / "study" / name).read_bytes().startswith(b"\x89PNG")

    before = (tmp_path / "study" / "study.md").read_bytes()
    status, again, err = run(without="--epochs 1 --images 64 --batch-size 32")
    assert (status, err) == (0, [])
    assert again == out[TRIALS:]
    assert (tmp_path / "study" / "study.md").read_bytes() == before


def test_a_page_of_what_there_is(run, tmp_path):
    assert run("--trials", "4")[1][-1].startswith(f"4 of {TRIALS} trainings")
    status, out, _ = run("--trials", "0", "--storage", "study/study.db", "--out", "docs")
    assert (status, out[-1]) == (0, f"4 of {TRIALS} trainings; table and pictures in docs/study.md")
    assert f"**Not complete**: 4 of {TRIALS}" in (tmp_path / "docs" / "study.md").read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--epochs", "2"), ("epochs", "1", "2")),
        (("--images", "65"), ("images", "64", "65")),
        (("--batch-size", "16"), ("batch_size", "32", "16")),
        (("--backend", "numba"), ("backend", "'numpy'", "'numba'")),
        (("--data", "strokes"), ("data", "'strokes'", "digits")),
    ],
)
def test_a_storage_of_other_options_is_refused(run, changed, words):
    assert run("--trials", "0")[0] == 0
    status, out, err = run(*changed)
    assert (status, out, len(err)) == (2, [], 1)
    assert "study/study.db" in err[0]
    assert all(word in err[0] for word in words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--factor", "luck"), ("luck", "smoothing")),
        (("--backend", "abacus"), ("abacus", "numpy")),
        (("--data", "nowhere"), ("nowhere",)),
        (("--storage", "digits"), ("digits", "folder")),
        (("--storage", "digits/train-images-idx3-ubyte"), ("digits/train-images-idx3-ubyte", "no storage")),
        (("--out", "digits/train-images-idx3-ubyte"), ("--out", "folder")),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(run, tmp_path, wrong, words):
    status, out, err = run(*wrong)
    assert (status, out, len(err)) == (2, [], 1)
    assert all(word in err[0] for word in words)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("trials", [None, 1])
def test_a_full_disk_ends_in_one_line_of_ours(run, tmp_path, monkeypatch, trials):
    """At the making of the tables, and between two trials."""
    connect, pages = sqlite3.connect, 4
    if trials:
        assert run("--trials", str(trials))[0] == 0
        with contextlib.closing(connect("study/study.db")) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]

    def small(path, **options):
        connection = connect(path, **options)
        if Path(path).name == "study.db":
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Optuna tries again, some seconds later each time
    status, out, err = run("--seeds", "40") if trials else run()
    assert (status, err) == (2, ["twinkernels: study/study.db: the study cannot be kept (database or disk is full)"])
    assert not any("trainings" in line for line in out)


@pytest.mark.parametrize("missing", ["optuna", "matplotlib"])
def test_a_missing_extra_ends_in_one_line(run, monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing] + [missing, f"{missing}.figure"]:
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run()
    assert (status, out, len(err)) == (2, [], 1)
    assert missing in err[0]
    assert "pip install 'twinkernels[" in err[0]


def test_images_that_the_networks_cannot_take_are_refused_first(tmp_path):
    split = data.Split(np.zeros((60, 8, 8, 1), np.uint8), np.zeros(60, np.uint8))
    with pytest.raises(ValueError, match="conv2d"):
        study.run(tmp_path / "study.db", data.Dataset(split, split), factors=["structure"], backend="numpy")
    assert list(tmp_path.iterdir()) == []
