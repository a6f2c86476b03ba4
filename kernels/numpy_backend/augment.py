"""Augmentation: random numbers that belong to a sample, a smoothing filter, and a warp of images."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output, Scratch
from ..shapes import ImageDims
from .activation import draw, stream

__all__ = ["smooth2d", "smooth2d_scratch", "uniform", "warp", "warp_scratch"]


def uniform(indices: Input, seed: int, step: int, u: Output) -> None:
    sample = draw(stream(seed, step), indices.astype(np.uint64))
    random = draw(sample[:, None], np.arange(u[0].size, dtype=np.uint64))
    random >>= np.uint64(32)
    np.multiply(random.astype(np.uint32).view(np.int32).reshape(u.shape), 2.0**-31, out=u)


def smooth2d_scratch(d: ImageDims, n: int) -> int:
    return n * d.h * d.w * d.c


def smooth2d(x: Input, weights: Input, d: ImageDims, scratch: Scratch, y: Output) -> None:
    columns = scratch.reshape(x.shape)
    _smooth(x.swapaxes(0, 1), weights, columns.swapaxes(0, 1))
    _smooth(columns.swapaxes(0, 2), weights, y.swapaxes(0, 2))


def _smooth(x: np.ndarray, weights: np.ndarray, y: np.ndarray) -> None:
    """Filter along the first axis."""
    np.multiply(x, weights[0], out=y)
    for t in range(1, min(len(weights), len(x))):
        y[t:] += weights[t] * x[:-t]
        y[:-t] += weights[t] * x[t:]


def warp_scratch(d: ImageDims, n: int) -> int:
    return n * (d.h + 3) * (d.w + 3) * d.c


def warp(x: Input, matrix: Input, field: Input | None, fill: float, d: ImageDims, scratch: Scratch, y: Output) -> None:
    h0, w0 = (d.h - 1) / 2, (d.w - 1) / 2
    h, w = np.indices((d.h, d.w))
    output = np.stack([h - h0, w - w0, np.ones_like(h)], axis=-1)
    place = (h0, w0) + output @ matrix[:, None].astype(np.float64).swapaxes(2, 3)
    if field is not None:
        place += field
    np.clip(place, -1, (d.h, d.w), out=place)  # beyond, all is fill
    corner = np.floor(place)
    a, b = np.moveaxis((place - corner).astype(x.dtype), -1, 0)[..., None]
    padded = scratch.reshape(len(x), d.h + 3, d.w + 3, d.c)
    padded.fill(fill)
    padded[:, 1:-2, 1:-2] = x
    sample = np.arange(len(x))[:, None, None]
    i, j = np.moveaxis(np.nan_to_num(corner).astype(np.intp), -1, 0) + 1
    above = (1 - b) * padded[sample, i, j] + b * padded[sample, i, j + 1]
    below = (1 - b) * padded[sample, i + 1, j] + b * padded[sample, i + 1, j + 1]
    np.add((1 - a) * above, a * below, out=y)
