"""Checkpoints: a fit that ended anywhere goes on with the bits it would have had, or says why not."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kernels
import models
from kernels import Kernels
from models import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Checkpoints,
    Dropout,
    EarlyStopping,
    Linear,
    LinearWarmup,
    ModelFormatError,
    OneCycle,
    ReLU,
    RMSProp,
    Sequential,
    StepDecay,
    Trainer,
)
from twinkernels import locks, recipes, runs

from ..support.digits import write_folder
from ..support.kill import digits
from ..support.processes import ROOT, Process, after

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((52, 4)), RNG.integers(0, 3, 52)
VALIDATION = RNG.standard_normal((12, 4)), RNG.integers(0, 3, 12)


class Killed(BaseException):
    """The end of a fit at a step, as a SIGKILL would end it."""


class Kill(Callback):
    """Ends the fit after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        if trainer.progress.done == self.step:
            raise Killed


def trainer(backend: str = "numpy", seed: int = 1, dtype: Any = np.float64, **options: Any) -> Trainer:
    layers = [Linear(6), BatchNorm(), ReLU(), Dropout(0.2), Linear(3)]
    options = {"optimizer": Adam(0.03), "batch_size": 8, "schedule": OneCycle(), "on_nonfinite": "skip"} | options
    return Trainer(Sequential(layers, (4,), backend, seed, dtype), **options)


def fit(its: Trainer, *callbacks: Callback, x: np.ndarray = X, patience: int = 6, **options: Any) -> models.History:
    """6 epochs of 7 batches, the last of them smaller."""
    options = {"epochs": 6, "validation": VALIDATION} | options
    return its.fit(x, Y, callbacks=[EarlyStopping(patience=patience), *callbacks], **options)


def outcome(its: Trainer, history: models.History) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All that a fit leaves, but for the seconds."""
    arrays = its.model.parameters() | its.model.statistics() | its.state
    epochs = [{k: v for k, v in vars(epoch).items() if k != "seconds"} for epoch in history.epochs]
    return {name: array.tobytes() for name, array in arrays.items()} | {"steps": bytes(its.steps)}, epochs


def killed(folder: Path, step: int, its: Trainer | None = None, **options: Any) -> Checkpoints:
    """The checkpoints of a fit that was killed after a step."""
    checkpoints = Checkpoints(folder, every_steps=3)
    with pytest.raises(Killed):
        fit(its or trainer(), Kill(step), checkpoints=checkpoints, **options)
    return checkpoints


# The same bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 3, 7, 8, 20, 41, 42])
def test_a_resumed_fit_is_the_one_never_killed(k: Kernels, tmp_path: Path, step: int) -> None:
    whole = trainer(k.name)
    expected = outcome(whole, fit(whole))
    checkpoints = killed(tmp_path, step, trainer(k.name))
    for later in range(step + 5, 42, 17):  # and killed again
        with pytest.raises(Killed):
            fit(trainer(k.name), Kill(later), checkpoints=checkpoints, resume=True)
    resumed = trainer(k.name)
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, momentum=0.9), RMSProp(0.01), Adam(0.01)], ids=str)
@pytest.mark.parametrize("schedule", [StepDecay(2), LinearWarmup(5, OneCycle())], ids=str)
def test_every_optimizers_state_is_kept(tmp_path: Path, optimizer: Any, schedule: Any) -> None:
    options = {"optimizer": optimizer, "schedule": schedule, "dtype": np.float32}
    whole, resumed = trainer(**options), trainer(**options)
    expected = outcome(whole, fit(whole))
    checkpoints = killed(tmp_path, 20, trainer(**options))
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected


def test_uint8_images_skipped_batches_and_iterations_resume_alike(tmp_path: Path) -> None:
    x = X.copy()
    x[9] = np.nan
    whole, resumed = trainer(), trainer()
    expected = outcome(whole, fit(whole, x=x, epochs=None, iterations=30))
    assert whole.skipped == 4
    checkpoints = killed(tmp_path, 20, x=x, epochs=None, iterations=30)
    again = fit(resumed, x=x, epochs=None, iterations=30, checkpoints=checkpoints, resume=True)
    assert (outcome(resumed, again), resumed.skipped) == (expected, 4)

    images = RNG.integers(0, 255, (52, 4), dtype=np.uint8)
    whole, resumed = trainer(), trainer()
    validation = images[: len(VALIDATION[1])], VALIDATION[1]
    expected = outcome(whole, fit(whole, x=images, validation=validation))
    checkpoints = killed(tmp_path / "images", 20, x=images, validation=validation)
    again = fit(resumed, x=images, validation=validation, checkpoints=checkpoints, resume=True)
    assert outcome(resumed, again) == expected
    assert resumed.model.normalisation == whole.model.normalisation


def test_early_stopping_goes_on_where_it_was(tmp_path: Path) -> None:
    noise = VALIDATION[0], (VALIDATION[1] + 1) % 3
    whole, resumed = trainer(), trainer()
    history = fit(whole, epochs=60, validation=noise, patience=4)
    ended = len(history.epochs)
    assert ended < 60
    checkpoints = Checkpoints(tmp_path)

    class KilledAtTheEnd(Callback):
        def on_fit_end(self, trainer: Trainer) -> None:
            raise Killed

    with pytest.raises(Killed):
        fit(trainer(), KilledAtTheEnd(), epochs=60, validation=noise, patience=4, checkpoints=checkpoints)
    again = fit(resumed, epochs=60, validation=noise, patience=4, checkpoints=checkpoints, resume=True)
    assert outcome(resumed, again) == outcome(whole, history)


class Longest(Callback):
    """A callback of a user's own that remembers."""

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.losses, self.name = np.zeros(total_steps), "none"

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.losses[trainer.progress.done - 1] = loss
        self.name = f"step {trainer.progress.done}"

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses, "name": self.name}

    def restore(self, state: dict[str, Any]) -> None:
        self.losses, self.name = state["losses"], state["name"]


def test_a_users_own_callback_is_kept(tmp_path: Path) -> None:
    whole, resumed = Longest(), Longest()
    fit(trainer(), whole)
    checkpoints = Checkpoints(tmp_path, every_steps=5)
    with pytest.raises(Killed):
        fit(trainer(), Longest(), Kill(24), checkpoints=checkpoints)
    fit(trainer(), resumed, checkpoints=checkpoints, resume=True)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.name == whole.name


def test_runs_killed_at_random_moments_resume_to_identical_bits() -> None:
    program = "import sys; sys.argv[1:] = ['--count', '10']; from tests.support import kill; kill.main()"
    out, _ = Process(program).result(timeout=300)
    assert out[-1].endswith("all resumed to identical bits")


# Writing -----------------------------------------------------------------------------------------------------


def names(checkpoints: Checkpoints) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in checkpoints.files()]


def test_a_number_of_checkpoints_is_kept(tmp_path: Path) -> None:
    written: list[list[int]] = []

    class Look(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            written.append(names(checkpoints))

    checkpoints = Checkpoints(tmp_path / "new" / "folder", every_steps=3, every_seconds=None, keep=2)
    fit(trainer(), Look(), epochs=2, checkpoints=checkpoints)
    assert written[:12] == [[]] * 3 + [[3]] * 3 + [[6, 3]] + [[7, 6]] * 2 + [[9, 7]] * 3
    assert names(checkpoints) == [14, 12]
    assert checkpoints.files()[0].name == "step-00000014.safetensors"
    assert sorted(tmp_path.rglob("*.*")) == sorted(checkpoints.files())


def test_seconds_count_from_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(models.checkpoints.time, "monotonic", lambda: now)

    class Tick(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            nonlocal now
            now += 1.0

    checkpoints = Checkpoints(tmp_path, every_seconds=5.0, keep=99)
    fit(trainer(), Tick(), epochs=2, checkpoints=checkpoints)
    assert names(checkpoints) == [14, 12, 7, 5]
    never = Checkpoints(tmp_path / "never", every_seconds=None, keep=99)
    fit(trainer(), Tick(), epochs=2, checkpoints=never)
    assert names(never) == [14, 7]


def test_a_checkpoint_and_its_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    kind = {True: "folder synced", False: "file synced"}
    monkeypatch.setattr(os, "fsync", lambda d: (done.append(kind[os.path.isdir(f"/proc/self/fd/{d}")]), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names))[1])
    fit(trainer(), epochs=1, checkpoints=Checkpoints(tmp_path))
    assert done == ["file synced", "renamed", "folder synced"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: Any, moment: str) -> None:
    whole, resumed = trainer(), trainer()
    expected = outcome(whole, fit(whole))

    class Fill(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            if trainer.progress.done == 20:
                monkeypatch.setattr(os, moment, full)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = Checkpoints(tmp_path, every_steps=3)
    with pytest.raises(OSError, match=r"No space left on device: '.*step-00000021\.safetensors'"):
        fit(trainer(), Fill(), checkpoints=checkpoints)
    monkeypatch.undo()
    assert names(checkpoints)[0] == 18
    assert sorted(tmp_path.iterdir()) == sorted(checkpoints.files())
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected


def test_a_folder_that_holds_a_fit_is_refused_unless_resumed(tmp_path: Path) -> None:
    checkpoints = killed(tmp_path, 8)
    with pytest.raises(FileExistsError, match="holds the checkpoints of a fit; expected a new folder, or resume"):
        fit(trainer(), checkpoints=checkpoints)
    with pytest.raises(ValueError, match="resume is True and checkpoints is None"):
        fit(trainer(), resume=True)
    for options, message in (({"keep": 0}, "keep is 0"), ({"every_steps": 0}, "every_steps is 0")):
        with pytest.raises(ValueError, match=message):
            Checkpoints(tmp_path, **options)


# Reading -----------------------------------------------------------------------------------------------------


def cut(whole: bytes) -> bytes:
    return whole[:-100]


def flip_a_weight(whole: bytes) -> bytes:
    return whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]


def flip_the_header(whole: bytes) -> bytes:
    at = whole.index(b"samples")
    return whole[:at] + b"S" + whole[at + 1 :]


DAMAGES: list[Callable[[bytes], bytes]] = [
    cut,
    flip_a_weight,
    flip_the_header,
    lambda whole: b"",
    lambda whole: whole + b"\0",
    lambda whole: b"\xff" * 8 + whole[8:],
    lambda whole: whole + bytes(1 << 25),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: Any, capfd: Any) -> None:
    whole, resumed = trainer(), trainer()
    expected = outcome(whole, fit(whole))
    checkpoints = killed(tmp_path, 20)
    newest = checkpoints.files()[0]
    newest.write_bytes(damage(newest.read_bytes()))
    program = f"""
from tests.program import test_resume as t
its = t.trainer()
checkpoints = t.Checkpoints({str(tmp_path)!r}, every_steps=3)
history = t.fit(its, t.Kill(22), checkpoints=checkpoints, resume=True)
"""
    _, _, errors = after(("tests.program.test_resume",), program)
    first, *_, last = errors.splitlines()
    assert first.startswith(f"{newest}: not a readable checkpoint (")
    assert first.endswith("; trying the one before")
    assert "Killed" in last
    assert newest not in checkpoints.files() or names(checkpoints)[0] == 21
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_folders_and_links_in_a_checkpoints_place_are_passed_over(tmp_path: Path, caplog: Any) -> None:
    whole, resumed = trainer(), trainer()
    expected = outcome(whole, fit(whole))
    checkpoints = killed(tmp_path, 20)
    (tmp_path / "step-00000097.safetensors").mkdir()
    (tmp_path / "step-00000098.safetensors").symlink_to("step-00000098.safetensors")
    (tmp_path / "step-00000099.safetensors").symlink_to("/dev/zero")
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected
    assert len(caplog.records) == 2
    assert names(checkpoints) == [42, 39, 36]


def test_files_of_other_names_are_the_users(tmp_path: Path) -> None:
    others = [
        "step-00000008-good.safetensors",
        "step-8.safetensors",
        "step-000000008.safetensors",
        "step-00000009.safetensors.bak",
        "step-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0668.safetensors",
        ".notes.part",
        ".step-00000009.safetensors.mine.part",
    ]
    for name in others:
        (tmp_path / name).write_text(name)
    whole, resumed = trainer(), trainer()
    expected = outcome(whole, fit(whole))
    checkpoints = killed(tmp_path, 20)
    (tmp_path / "step-00000099-good.safetensors").write_bytes((tmp_path / "step-00000018.safetensors").read_bytes())
    assert names(checkpoints) == [18, 15, 14]
    assert outcome(resumed, fit(resumed, checkpoints=checkpoints, resume=True)) == expected
    assert names(checkpoints) == [42, 39, 36]
    assert [(tmp_path / name).read_text() for name in others] == others
    assert Checkpoints(tmp_path).files() == checkpoints.files()
    assert len(list(tmp_path.iterdir())) == len(others) + 1 + 3


def test_a_checkpoint_that_another_removes_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    write = models.checkpoints.write
    monkeypatch.setattr(models.checkpoints, "write", lambda path, *rest: (write(path, *rest), path.unlink()))
    with pytest.raises(FileNotFoundError, match=r"step-00000003\.safetensors was removed as soon as it was written"):
        fit(trainer(), checkpoints=Checkpoints(tmp_path, every_steps=3))


def test_a_folder_of_checkpoints_is_not_made_twice(tmp_path: Path) -> None:
    class Remove(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            if trainer.progress.done == 4:
                (tmp_path / "kept").rename(tmp_path / "moved")

    with pytest.raises(FileNotFoundError, match=r"kept/step-00000006\.safetensors"):
        fit(trainer(), Remove(), checkpoints=Checkpoints(tmp_path / "kept", every_steps=3))
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_without_a_readable_checkpoint_nothing_is_started_over(tmp_path: Path, caplog: Any) -> None:
    checkpoints = killed(tmp_path, 20)
    for path in checkpoints.files():
        path.write_bytes(cut(path.read_bytes()))
    its = trainer()
    before = outcome(its, models.History())
    with pytest.raises(ModelFormatError, match="none of its 3 checkpoints is readable"):
        fit(its, checkpoints=checkpoints, resume=True)
    assert outcome(its, models.History()) == before
    assert len(caplog.records) == 3


def contents_of(path: Path) -> dict[str, Any]:
    """What a checkpoint holds beside its arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["twinkernels"])


def rewritten(path: Path, arrays: Any = None, **numbers: Any) -> None:
    """Write a checkpoint anew, its checksums right: what a forger could do."""
    contents, held = contents_of(path), load_file(path)
    held = arrays(held) if arrays else held
    for name, value in numbers.items():
        target = contents["numbers"]["progress"] if name in contents["numbers"]["progress"] else contents["numbers"]
        target[name] = value
    contents["arrays"] = models.checkpoints._digest(models.checkpoints._named(held))
    text = json.dumps(contents)
    save_file(held, path, metadata={"twinkernels": text, "digest": models.checkpoints._digest([text.encode()])})


@pytest.mark.parametrize(
    ("arrays", "numbers", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "model/0.w"}, {}, "arrays are not those of the fit: model/0.w"),
        (lambda a: a | {"model/9.w": np.zeros(3)}, {}, "arrays are not those of the fit: model/9.w"),
        (lambda a: a | {"../x": np.zeros(3)}, {}, r"arrays are not those of the fit: \.\./x"),
        (lambda a: a | {"model/0.w": a["model/0.w"].T.copy()}, {}, r"model/0\.w is \(6, 4\) F64, expected \(4, 6\)"),
        (lambda a: a | {"optimizer.m/0.b": np.zeros(6, np.float32)}, {}, r"optimizer\.m/0\.b is \(6,\) F32, expected"),
        (lambda a: a | {"callback 0/0.w": np.zeros((4, 5))}, {}, r"callback 0/0\.w is \(4, 5\)"),
        (None, {"steps": -1}, "steps is -1, expected at least 0"),
        (None, {"epochs": 10**30}, "epochs is 10+, expected at least 0 and at most"),
        (None, {"samples": 10**9}, "1000000000 samples and 0 skipped in"),
        (None, {"skipped": 9}, "9 skipped in"),
        (None, {"steps": "many"}, 'steps is "many", expected a int'),
        (None, {"done": 10**9}, "1000000000 of 42 in all"),
        (None, {"position": 7}, "batch 7 of an epoch"),
        (None, {"stop": 1}, "stop is 1, expected a bool"),
        (None, {"colour": 1}, "numbers has other keys than"),
        (None, {"history": [{"epoch": 1}]}, "missing 7 required positional arguments"),
        (None, {"callbacks": {"0": {"best": 0.0}}}, "0 has other keys than best, waited"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: Any, numbers: Any, message: str, caplog: Any
) -> None:
    checkpoints = killed(tmp_path, 20)
    rewritten(checkpoints.files()[0], arrays, **numbers)
    fit(trainer(), checkpoints=checkpoints, resume=True)
    (record,) = caplog.records
    assert re.search(message, record.getMessage()), record.getMessage()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "batch_size was 8, is 4 now"),
        ({"seed": 2}, "model was"),
        ({"dtype": np.float32}, "model was"),
        ({"optimizer": Adam(0.01)}, "optimizer was"),
        ({"schedule": StepDecay(2)}, "schedule was"),
        ({"backend": "numba"}, 'backend was "numpy", is "numba" now'),
        ({"on_nonfinite": "raise"}, "on_nonfinite was"),
        ({"fit": {"epochs": 7}}, "steps was 42, is 49 now"),
        ({"fit": {"x": X + 1}}, "was trained on other data"),
        ({"fit": {"validation": (VALIDATION[0], VALIDATION[1][::-1])}}, "was trained on other data"),
    ],
)
def test_another_fit_is_not_resumed(tmp_path: Path, options: dict[str, Any], message: str, caplog: Any) -> None:
    checkpoints = killed(tmp_path, 20)
    its = trainer(**{name: value for name, value in options.items() if name != "fit"})
    with pytest.raises(ValueError, match=rf"step-00000018\.safetensors: {message}"):
        fit(its, checkpoints=checkpoints, resume=True, **options.get("fit", {}))
    assert caplog.records == []


def test_other_callbacks_do_not_resume(tmp_path: Path) -> None:
    checkpoints = killed(tmp_path, 20)
    with pytest.raises(ValueError, match="callbacks was"):
        fit(trainer(), Longest(), checkpoints=checkpoints, resume=True)


def test_other_versions_or_threads_are_told(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    checkpoints = killed(tmp_path, 20)
    monkeypatch.setattr(models.checkpoints, "versions", lambda: {"twinkernels": "9", "numpy": "9", "numba": "9"})
    fit(trainer(), checkpoints=checkpoints, resume=True)
    assert "numpy" in caplog.text
    assert caplog.text.count("results may differ by rounding") == 1


# The command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("digits"), digits())


OPTIONS = ("mlp-512", "--backend", "numpy", "--epochs", "4", "--seed", "5", "--batch-size", "32")


def begun(folder: Path, out: Path, step: int) -> Path:
    """A run of `OPTIONS` that was killed after a step."""
    with pytest.raises(Killed):
        runs.run("mlp-512", folder, backend="numpy", epochs=4, seed=5, batch_size=32, out=out, callbacks=[Kill(step)])
    return out


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `OPTIONS` that nothing befell."""
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.run("mlp-512", folder, backend="numpy", epochs=4, seed=5, batch_size=32, out=out)
    return out


def kept(run: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    for epoch in history:
        del epoch["seconds"]
    return (run / "model.safetensors").read_bytes(), (run / "config.json").read_bytes(), history


def test_the_command_resumes_and_says_so(run: Any, folder: Path, tmp_path: Path) -> None:
    _, whole, _ = run("train", *OPTIONS, "--data", folder, "--out", tmp_path / "whole")
    begun(folder, tmp_path / "a", 25)
    status, out, err = run("train", "--resume", tmp_path / "a")
    assert (status, err) == (0, [])
    assert "going on after 20 steps" in out
    assert [line.split()[1] for line in out if line.startswith("epoch")] == ["3", "4"]
    assert out[-1] == whole[-1]
    assert out[-1].startswith("test accuracy ")
    assert kept(tmp_path / "a") == kept(tmp_path / "whole")

    status, again, err = run("train", *OPTIONS, "--resume", tmp_path / "a")
    assert (status, err) == (0, [])
    loss = next(line for line in whole if line.startswith("test loss "))
    assert again == [f"{tmp_path / 'a'} has ended, nothing to resume", loss, f"kept in {tmp_path / 'a'}", whole[-1]]


def test_a_run_without_a_checkpoint_starts_over(run: Any, folder: Path, whole: Path, tmp_path: Path) -> None:
    begun(folder, tmp_path / "a", 3)
    assert not (tmp_path / "a" / "checkpoints").exists()
    (tmp_path / "a" / ".history.jsonl.0123abcd.part").write_bytes(b"half")
    assert run("train", "--resume", tmp_path / "a")[0] == 0
    assert kept(tmp_path / "a") == kept(whole)
    assert list(tmp_path.rglob("*.part")) == []


def test_a_run_that_had_not_begun_starts_by_its_recipe(run: Any, folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    out.mkdir()
    (out / ".config.json.0123abcd.part").write_bytes(b"{")
    status, _, err = run("train", "--resume", out)
    assert (status, len(err)) == (2, 1)
    assert "the run had not begun; expected its recipe" in err[0]
    assert run("train", *OPTIONS, "--data", folder, "--resume", out)[0] == 0
    assert kept(out) == kept(whole)


def test_equal_options_may_be_repeated(run: Any, folder: Path, tmp_path: Path) -> None:
    out = begun(folder, tmp_path / "a", 25)
    options = [*OPTIONS, "--data", folder, "--threads", 1, "--out", out, "--checkpoint-seconds", 60]
    assert run("train", *options, "--resume", out)[::2] == (0, [])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["mlp-rmsprop"], "recipe of this run is 'mlp-512', 'mlp-rmsprop' was asked for"),
        (["--backend", "numba"], "backend of this run is 'numpy', 'numba' was asked for"),
        (["--data", "strokes"], "data of this run is"),
        (["--epochs", "5"], "epochs of this run is 4, 5 was asked for"),
        (["--iterations", "5"], "iterations of this run is None, 5 was asked for"),
        (["--batch-size", "64"], "batch_size of this run is 32, 64"),
        (["--seed", "0"], "seed of this run is 5, 0"),
        (["--threads", "2"], "threads of this run is 1, 2"),
        (["--checkpoint-steps", "2"], "checkpoint_steps of this run is None, 2"),
        (["--out", "elsewhere"], "name two runs, expected one"),
    ],
)
def test_different_options_end_with_status_2(
    run: Any, folder: Path, tmp_path: Path, option: list[str], message: str
) -> None:
    out = begun(folder, tmp_path / "a", 25)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    status, _, err = run("train", *option, "--resume", out)
    assert (status, len(err)) == (2, 1)
    assert message in err[0]
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_what_is_no_run_is_refused(run: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file", folder):
        status, out, err = run("train", "mlp-512", "--resume", path)
        assert (status, out, len(err)) == (2, [], 1)
        assert "no run there, it has no config.json" in err[0]
    out = begun(folder, tmp_path / "a", 25)
    for damage in (b"", b"[]", b"{}", b"[" * 100_000, (out / "config.json").read_bytes().replace(b"RMSProp", b"Popen")):
        (out / "config.json").write_bytes(damage)
        status, _, err = run("train", "--resume", out)
        assert (status, len(err)) == (2, 1)
        assert "config.json: not a readable configuration" in err[0]


@pytest.mark.parametrize("name", ["config.json", "history.jsonl"])
def test_what_no_run_could_have_written_ends_in_one_line(run: Any, folder: Path, tmp_path: Path, name: str) -> None:
    """Each field in turn is of another type, or beyond any run: a line that names the file."""
    out = tmp_path / "a"
    run("train", *OPTIONS, "--data", folder, "--out", out)
    text = (out / name).read_text()
    lines = [text] if name == "config.json" else text.splitlines()
    record = json.loads(lines[0])
    never, sometimes = ([], {}, {"type": "Popen"}), ("\x1b[2J", True, -1, 10**400, {"type": "Cosine"})
    for field in record:
        for value in (*never, *sometimes):
            (out / name).write_text("\n".join([json.dumps(record | {field: value}), *lines[1:]]))
            status, _, err = run("train", "--resume", out)
            refused = name == "history.jsonl" or (value in never and field != "versions")
            assert (status, len(err)) in ([(2, 1)] if refused else [(2, 1), (0, 0)]), (field, value, err)
            assert all(line.isprintable() and len(line) < 1000 for line in err), (field, value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["config.json", "history.jsonl"])
def test_what_is_no_file_of_a_run_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    begun(folder, tmp_path / "a", 25)
    read = runs.read_options if name == "config.json" else runs.read_history
    path = tmp_path / "a" / name
    path.write_bytes(b"[" * (1 << 25))
    with pytest.raises(ModelFormatError, match=f"{name}: more than [0-9]+ bytes"):
        read(tmp_path / "a")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ModelFormatError, match=f"{name}: not a regular file"):
        read(tmp_path / "a")


def test_a_history_of_endless_lines_is_refused() -> None:
    epoch = json.dumps(vars(models.history.Epoch(1, 1, 0.5, 0.5, None, None, 0.1, 1.0))).encode()
    path = Path("history.jsonl")
    most = runs.MAX_EPOCHS
    assert len(runs.parse_history(path, (epoch + b"\n") * 3).epochs) == 3
    for content, number in ((epoch[:-1] + b" " * 2000 + b"}", 1), ((epoch + b"\n") * (most + 1), most + 1)):
        with pytest.raises(
            ModelFormatError, match=rf"history\.jsonl:{number}: .*expected at most {most} lines of at m"
        ):
            runs.parse_history(path, content)


def test_a_fit_too_long_to_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="40001 epochs, expected at most 40000 with checkpoints"):
        fit(trainer(), epochs=40_001, checkpoints=Checkpoints(tmp_path))
    worst = models.history.Epoch(40_000, 10**10, *[-2.2250738585072014e-308] * 6, 10**10)
    assert len(json.dumps(json.dumps(vars(worst)))) * 40_000 < models.checkpoints.MAX_HEADER - (1 << 20)


def test_sizes_beyond_any_machine_end_in_one_line(run: Any, folder: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--batch-size", 10**9], "Unable to allocate"),
        (["--batch-size", 10**30], "expected at most 2147483647"),
        (["--epochs", 10**30], "expected at most 2147483647"),
        (["--threads", 10**30], "set_threads: n is 10+, expected at most 4096"),
    ):
        status, _, err = run("train", "mlp-512", "--backend", "numpy", "--data", folder, *options)
        assert (status, len(err)) == (2, 1)
        assert re.search(message, err[0])


def test_a_checkpoint_cannot_write_to_the_terminal(tmp_path: Path, caplog: Any) -> None:
    checkpoints = killed(tmp_path, 20)
    path = checkpoints.files()[0]
    text = json.dumps(contents_of(path) | {"versions": {"numpy": "\x1b[2J"}})
    digest = models.checkpoints._digest([text.encode()])
    save_file(load_file(path), path, metadata={"twinkernels": text, "digest": digest})
    fit(trainer(), checkpoints=checkpoints, resume=True)
    assert "u001b[2J" in caplog.text
    assert "\x1b" not in caplog.text


def test_changed_data_is_noticed(run: Any, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "digits"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    out = begun(copy, tmp_path / "a", 25)
    images = copy / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    status, _, err = run("train", "--resume", out)
    assert (status, len(err)) == (2, 1)
    assert "was trained on other data" in err[0]


def test_a_run_with_data_of_its_own_is_resumed_with_it(tmp_path: Path) -> None:
    dataset = digits()
    with pytest.raises(Killed):
        runs.run("mlp-512", dataset, backend="numpy", epochs=2, out=tmp_path / "a", callbacks=[Kill(4)])
    whole = runs.run("mlp-512", dataset, backend="numpy", epochs=2)
    with pytest.raises(ValueError, match="the run was handed its data; pass it as source"):
        runs.resume(tmp_path / "a")
    resumed = runs.resume(tmp_path / "a", dataset)
    assert resumed.test == whole.test
    assert resumed.history.loss == whole.history.loss
    ended = runs.resume(tmp_path / "a", dataset)
    assert (ended.test, ended.history.loss) == (whole.test, whole.history.loss)


@pytest.fixture
def threads() -> Iterator[None]:
    """Those that the other tests' runs record."""
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_resumed_run_has_the_threads_that_it_began_with_and_the_process_its_own(folder: Path, tmp_path: Path) -> None:
    out = begun(folder, tmp_path / "a", 25)
    seen: list[int] = []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer, loss: float) -> None:
            seen.append(kernels.get_threads())

    kernels.set_threads(2)
    with pytest.raises(ValueError, match="seed of this run is 5"):
        runs.resume(out, seed=6)
    runs.resume(out, callbacks=[Watch()])
    assert (set(seen), kernels.get_threads()) == ({1}, 2)
    runs.resume(out)  # which has ended
    assert kernels.get_threads() == 2

    (tmp_path / "empty").mkdir()
    options = {"recipe": "mlp-512", "backend": "numpy", "iterations": 1}
    runs.resume(tmp_path / "empty", folder, threads=1, **options)
    assert kernels.get_threads() == 2
    assert json.loads((tmp_path / "empty" / "config.json").read_text())["threads"] == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a file's size")
def test_a_disk_that_fills_up_ends_the_run_with_one_line(run: Any, folder: Path, whole: Path, tmp_path: Path) -> None:
    out = begun(folder, tmp_path / "a", 25)
    before = {path: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        f"from twinkernels import cli; cli.main(['train', '--resume', {str(out)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"twinkernels: {out}/checkpoints/step-00000030.safetensors: {os.strerror(errno.EFBIG)}\n"
    assert {path: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    assert run("train", "--resume", out)[0] == 0
    assert kept(out) == kept(whole)


def test_numbers_that_are_not_finite_end_with_status_2_and_one_line(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    recipe = replace(recipes.get("mlp-512"), optimizer=SGD(1e30))
    monkeypatch.setitem(recipes.RECIPES, "mlp-512", recipe)
    status, _, err = run("train", *OPTIONS, "--data", folder)
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("twinkernels: training: loss is ")
    assert "first not finite is" in err[0]


# One owner ---------------------------------------------------------------------------------------------------


class During(Callback):
    """Does something after an epoch, or, for None, after the last step."""

    def __init__(self, epoch: int | None, do: Callable[[], Any]) -> None:
        self.epoch, self.do, self.done = epoch, do, None

    def on_epoch_end(self, trainer: Trainer, epoch: models.Epoch) -> None:
        if epoch.epoch == self.epoch:
            self.done = self.do()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.epoch is None:
            self.done = self.do()


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("keep", ["--out", "--resume"])
def test_a_run_has_one_owner(
    run: Any, folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, resumed: bool
) -> None:
    monkeypatch.setattr(runs, "WAIT", 0.1)  # seconds for which the other hopes
    out = tmp_path / "a"
    other = During(2, lambda: run("train", *OPTIONS, "--data", folder, keep, out))
    if resumed:
        begun(folder, out, 12)
        runs.resume(out, callbacks=[other])
    else:
        runs.run("mlp-512", folder, backend="numpy", epochs=4, seed=5, batch_size=32, out=out, callbacks=[other])
    assert other.done == (2, [], [f"twinkernels: {out}: process {os.getpid()} trains in this folder"])
    assert kept(out) == kept(whole)
    assert not (out / ".lock").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the lock's, which tells who held it last."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_of_two_that_begin_at_once_the_second_touches_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    options = {"backend": "numpy", "epochs": 2, "batch_size": 32, "out": out}

    class Forestall(Callback):
        """The other begins and ends its first epoch after this one has found the folder free."""

        def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
            with pytest.raises(Killed):
                runs.run("mlp-512", folder, seed=1, callbacks=[Kill(12)], **options)
            self.files = contents(out)
            (out / "checkpoints" / ".step-00000020.safetensors.0123abcd.part").write_bytes(b"half")

    late = Forestall()
    with pytest.raises(FileExistsError, match="exists already; expected a new folder for the run; twinkernels train"):
        runs.run("mlp-512", folder, seed=2, callbacks=[late], **options)
    assert json.loads((out / "config.json").read_text())["seed"] == 1
    half = contents(out / "checkpoints").keys() - late.files.keys()
    assert [path.name for path in half] == [".step-00000020.safetensors.0123abcd.part"]
    assert contents(out).items() >= late.files.items()


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no folder with an open file in it")
@pytest.mark.parametrize("epoch", [2, None], ids=["early", "at the end"])
@pytest.mark.parametrize("how", ["moved", "deleted", "another in its place"])
def test_a_run_that_is_moved_or_deleted_says_so(folder: Path, tmp_path: Path, how: str, epoch: int | None) -> None:
    out = tmp_path / "a"

    def away() -> None:
        if how == "deleted":
            shutil.rmtree(out)
        else:
            out.rename(tmp_path / "b")
        if how == "another in its place":
            begun(folder, out, 3)

    with pytest.raises(FileNotFoundError, match="a: the run's folder was moved or deleted while it was trained in"):
        runs.run("mlp-512", folder, backend="numpy", epochs=4, batch_size=32, out=out, callbacks=[During(epoch, away)])
    if how == "another in its place":
        assert {path.name for path in out.iterdir()} == {"config.json", ".lock"}
    else:
        assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork to leave a child with")
def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    program = f"""
import os, sys
from pathlib import Path
from twinkernels.locks import Lock
lock = Lock(Path({str(path)!r}), named=True)
if os.fork():
    print(os.getpid(), flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True, **pipes) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        with pytest.raises(locks.HeldError, match=f"held by process {child.pid}"):
            locks.Lock(path)
        child.kill()
        child.wait()
        locks.Lock(path).close()  # though a child of its own lives on, until its input is closed
    with locks.Lock(path, named=True) as ours:
        assert ours.in_place()
        with pytest.raises(locks.HeldError, match=f"held by process {os.getpid()}"):
            locks.check_free(path)
    locks.check_free(path)
    locks.check_free(tmp_path / "nowhere")
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_what_cannot_be_locked_is_told(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("not a lock" * 100)
    with pytest.raises(OSError, match=r"\.lock cannot be locked \(file is not a database\)"):
        locks.Lock(tmp_path / ".lock")
