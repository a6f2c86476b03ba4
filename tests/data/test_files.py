"""Files are replaced whole, on the disk before they take their name."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import models
from data import strokes
from data.files import remove_parts, replacing, write_atomically
from twinkernels import cli, runs


def test_content_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    write_atomically(tmp_path / "a", b"1")
    data.write_idx(tmp_path / "b.gz", np.arange(3, dtype=np.uint8))
    assert done == ["fsync", "replace", "fsync"] * 2  # the file, its name, the folder's entries
    assert (tmp_path / "a").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.gz"]


def test_a_body_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fill_the_disk() -> None:
        with replacing(path) as beside:
            beside.write_bytes(b"ne")
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space") as error:
        fill_the_disk()
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["nowhere/a", "folder"])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=name) as caught:
        write_atomically(tmp_path / name, b"1")
    assert str(tmp_path / name) in str(caught.value)
    assert ".part" not in str(caught.value)
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / name), None)


def test_an_error_of_the_body_about_another_file_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a"):
        (tmp_path / "b").read_bytes()
    assert Path(caught.value.filename) == tmp_path / "b"


def test_home_is_written_and_read_as_a_tilde(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (x, y), (xt, yt) = strokes.load(train=20, test=10)
    (tmp_path / "digits").mkdir()
    for name, array in ("train-images-idx3", x), ("train-labels-idx1", y), ("t10k-images-idx3", xt):
        data.write_idx(f"~/digits/{name}-ubyte", array.reshape(array.shape[:3]) if array.ndim > 1 else array)
    data.write_idx("~/digits/t10k-labels-idx1-ubyte", yt)
    assert len(data.load("~/digits").train.images) == len(data.read_idx("~/digits/train-labels-idx1-ubyte")) == 20
    assert len(data.load_test("~/digits/t10k-images-idx3-ubyte").labels) == 10
    assert len(data.read_images("~/digits/t10k-images-idx3-ubyte")[1]) == 10

    run = runs.run("mlp-512", "~/digits", backend="numpy", iterations=2, out="~/run")
    run.model.save("~/model.safetensors")
    assert models.load("~/model.safetensors", "numpy").evaluate(xt, yt) == run.test
    assert runs.resume("~/run").test == runs.resume("~/run", "~/digits").test == run.test
    assert models.Checkpoints("~/run/checkpoints").files()
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "~/run", "--data=~/digits"])
    assert end.value.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"digits", "run", "model.safetensors"}


def test_what_a_killed_writer_left_can_be_told_and_removed(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as beside:
        beside.write_bytes(b"half")
        killed = beside.with_name(beside.name.replace(".a.", ".b."))
        killed.write_bytes(b"half")
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
