"""Pooling, tap by tap: each tap of the window is one strided view of the image."""

from __future__ import annotations

import numpy as np

from ..interface import Input, Output
from ..shapes import Pool2dDims
from .activation import masked
from .conv import taps

__all__ = ["avgpool2d", "avgpool2d_backward", "maxpool2d", "maxpool2d_backward"]


def maxpool2d(x: Input, d: Pool2dDims, y: Output, argmax: Output) -> None:
    y.fill(-np.inf)
    for _, _, outputs, inputs in taps(d):
        np.maximum(y[outputs], x[inputs], out=y[outputs])
    # argmax counts the positions before the first that holds the maximum, or the first NaN if that is NaN.
    nan = np.isnan(np.min(y))
    searching = np.ones(y.shape, bool)
    argmax.fill(0)
    for _, _, outputs, inputs in taps(d):
        missed = x[inputs] != y[outputs]
        if nan:
            missed &= x[inputs] == x[inputs]
        searching[outputs] &= missed
        argmax += searching


def maxpool2d_backward(dy: Input, argmax: Input, d: Pool2dDims, dx: Output) -> None:
    dx.fill(0)
    share = np.empty_like(dy)
    for i, j, outputs, inputs in taps(d):
        masked(dy, argmax == i * d.kw + j, share)
        dx[inputs] += share[outputs]


def avgpool2d(x: Input, d: Pool2dDims, count_include_pad: bool, y: Output) -> None:
    y.fill(0)
    for _, _, outputs, inputs in taps(d):
        y[outputs] += x[inputs]
    y /= _count(d, count_include_pad, y.dtype)


def avgpool2d_backward(dy: Input, d: Pool2dDims, count_include_pad: bool, dx: Output) -> None:
    dx.fill(0)
    share = dy / _count(d, count_include_pad, dy.dtype)
    for _, _, outputs, inputs in taps(d):
        dx[inputs] += share[outputs]


def _count(d: Pool2dDims, count_include_pad: bool, dtype: np.dtype) -> np.ndarray:
    """The divisor of each window: (oh, ow, 1), or () where all are one."""
    if count_include_pad or not (d.pad_h or d.pad_w):
        return np.asarray(d.kh * d.kw, dtype)
    count = np.zeros((1, d.oh, d.ow, 1), dtype)
    for _, _, outputs, _ in taps(d):
        count[outputs] += 1
    divisors: np.ndarray = count[0]
    return divisors
