"""Digits as files."""

from __future__ import annotations

from pathlib import Path

import data


def write_folder(path: Path, digits: data.Dataset) -> Path:
    """The folder, made if there is none, with a data set as the four IDX files that `data.load` reads."""
    path.mkdir(exist_ok=True)
    for prefix, split in ("train", digits.train), ("t10k", digits.test):
        data.write_idx(path / f"{prefix}-images-idx3-ubyte", split.images[..., 0])
        data.write_idx(path / f"{prefix}-labels-idx1-ubyte", split.labels)
    return path
