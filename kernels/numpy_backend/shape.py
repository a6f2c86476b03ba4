"""Joining, cutting and moving: numbers change their places and nothing else."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output
from ..shapes import Pad2dDims, SliceDims, Upsample2dDims

__all__ = [
    "concat",
    "concat_backward",
    "pad2d",
    "pad2d_backward",
    "slice",
    "slice_backward",
    "transpose",
    "upsample2d",
    "upsample2d_backward",
]


def concat(a: Input, b: Input, third: Input | None, fourth: Input | None, y: Output) -> None:
    np.concatenate([part for part in (a, b, third, fourth) if part is not None], axis=-1, out=y)


def concat_backward(dy: Input, da: Output, db: Output) -> None:
    channels = da.shape[-1]
    np.copyto(da, dy[..., :channels])
    np.copyto(db, dy[..., channels:])


def slice(x: Input, d: SliceDims, y: Output) -> None:
    np.take(x.reshape(len(x), d.before, d.size, d.after), _places(d), 2, y.reshape(len(x), d.before, d.kept, d.after))


def slice_backward(dy: Input, d: SliceDims, dx: Output) -> None:
    dx.fill(0)
    places = dx.reshape(len(dx), d.before, d.size, d.after)
    places[:, :, _places(d)] = dy.reshape(len(dx), d.before, d.kept, d.after)


def _places(d: SliceDims) -> np.ndarray:
    return np.arange(d.kept) * d.step + d.start


def transpose(x: Input, axes: tuple[int, ...], y: Output) -> None:
    np.copyto(y, x.transpose(axes))


def pad2d(x: Input, d: Pad2dDims, mode: str, value: float, y: Output) -> None:
    rows, columns = _sources(d.oh, d.top, d.h, mode), _sources(d.ow, d.left, d.w, mode)
    np.take(x[:, np.maximum(rows, 0)], np.maximum(columns, 0), axis=2, out=y)
    y[:, rows < 0] = value
    y[:, :, columns < 0] = value


def pad2d_backward(dy: Input, d: Pad2dDims, mode: str, dx: Output) -> None:
    rows, columns = _sources(d.oh, d.top, d.h, mode), _sources(d.ow, d.left, d.w, mode)
    by_row = np.zeros((len(dy), d.h, d.ow, d.c), dy.dtype)
    for p in np.flatnonzero(rows >= 0):
        by_row[:, rows[p]] += dy[:, p]
    dx.fill(0)
    for q in np.flatnonzero(columns >= 0):
        dx[:, :, columns[q]] += by_row[:, :, q]


def _sources(out: int, before: int, size: int, mode: str) -> np.ndarray:
    """For each place of an axis, where in x it comes from; −1 for nowhere."""
    places = np.arange(out) - before
    if mode == "edge":
        places = np.clip(places, 0, size - 1)
    if mode == "reflect":
        places = size - 1 - np.abs(size - 1 - np.abs(places))
    return np.where((places >= 0) & (places < size), places, -1)


def upsample2d(x: Input, d: Upsample2dDims, y: Output) -> None:
    copies = y.reshape(len(x), d.h, d.factor_h, d.w, d.factor_w, d.c)
    np.copyto(copies, x[:, :, None, :, None])


def upsample2d_backward(dy: Input, d: Upsample2dDims, dx: Output) -> None:
    np.sum(dy.reshape(len(dy), d.h, d.factor_h, d.w, d.factor_w, d.c), axis=(2, 4), out=dx)
