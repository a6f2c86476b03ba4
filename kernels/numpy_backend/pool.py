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
    counted = 0
    for i, j, outputs, inputs in taps(d):
        passed, counted = i * d.kw + j - counted, i * d.kw + j + 1
        if passed:  # positions that no window has in the image
            argmax += searching * argmax.dtype.type(passed)
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
    ends = (d.h + d.end_h, d.w + d.end_w) if count_include_pad else (d.h, d.w)
    rows = _places(d.oh, d.kh, d.stride_h, d.pad_h, d.dilation_h, ends[0], count_include_pad)
    columns = _places(d.ow, d.kw, d.stride_w, d.pad_w, d.dilation_w, ends[1], count_include_pad)
    divisors = rows[:, None, None] * columns[:, None]
    return np.asarray(d.kh * d.kw if divisors.min() == d.kh * d.kw else divisors, dtype)


def _places(out: int, kernel: int, stride: int, pad: int, dilation: int, end: int, padding: bool) -> np.ndarray:
    """How many places of each window along one axis lie before `end`, and unless `padding` counts not before 0."""
    starts = np.arange(out) * stride - pad
    first = np.zeros_like(starts) if padding else np.maximum(0, -(starts // dilation))
    return np.minimum(kernel, (end - 1 - starts) // dilation + 1) - first
