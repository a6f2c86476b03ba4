"""Files are replaced whole, on the disk before they take their name."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
from data.files import remove_parts, replacing, write_atomically


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


def test_what_a_killed_writer_left_can_be_told_and_removed(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as beside:
        beside.write_bytes(b"half")
        killed = beside.with_name(beside.name.replace(".a.", ".b."))
        killed.write_bytes(b"half")
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
