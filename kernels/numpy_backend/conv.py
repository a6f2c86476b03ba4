"""Convolution as one matrix product over columns (im2col), and the taps of a window, which pooling shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..interface import Input, Output, Scratch
from ..shapes import Conv2dDims, Pool2dDims
from .linear import sum_rows

__all__ = ["conv2d", "conv2d_backward", "conv2d_backward_scratch", "conv2d_scratch"]

Slices = tuple[slice, slice, slice]


def conv2d_scratch(d: Conv2dDims, n: int) -> int:
    """A padded copy of x, then the columns. Depthwise, one tap's share of y."""
    if _depthwise(d):
        return n * d.oh * d.ow * d.c
    padded = n * (d.h + 2 * d.pad_h) * (d.w + 2 * d.pad_w) * d.c if d.pad_h or d.pad_w else 0
    return padded + n * d.oh * d.ow * d.kh * d.kw * d.c


def conv2d(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
    if _depthwise(d):
        share = scratch[: y.size].reshape(y.shape)
        y.fill(0)
        for i, j, outputs, inputs in taps(d, d.dilation_h, d.dilation_w):
            np.multiply(x[inputs], w[i, j, 0], out=share[outputs])
            y[outputs] += share[outputs]
    else:
        np.matmul(_columns(x, d, scratch), _by_group(w, d), out=_by_group(y, d))
    if b is not None:
        y += b


def conv2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    """dx reuses the columns' place for one tap's share of it."""
    return conv2d_scratch(d, n)


def conv2d_backward(
    dy: Input,
    x: Input,
    w: Input,
    d: Conv2dDims,
    scratch: Scratch,
    dx: Output | None,
    dw: Output,
    db: Output | None,
) -> None:
    if db is not None:
        sum_rows(dy, db)
    places = dy.shape[:3]
    share = scratch[: dy.size // d.f * d.c].reshape(*places, d.c)
    if _depthwise(d):
        for i, j, outputs, inputs in taps(d, d.dilation_h, d.dilation_w):
            share.fill(0)
            np.multiply(x[inputs], dy[outputs], out=share[outputs])
            sum_rows(share, dw[i, j, 0])
    else:
        np.matmul(_columns(x, d, scratch).swapaxes(1, 2), _by_group(dy, d), out=_by_group(dw, d))
    if dx is not None:
        # Tap by tap, the additions run over ow · c contiguous numbers and stay in cache. All of dy wᵀ at once
        # would leave them in runs of c: four times slower for 16 channels.
        dx.fill(0)
        for i, j, outputs, inputs in taps(d, d.dilation_h, d.dilation_w):
            if _depthwise(d):
                np.multiply(dy, w[i, j, 0], out=share)
            else:
                np.matmul(_by_group(dy, d), _by_group(w[i, j], d).swapaxes(1, 2), out=_by_group(share, d))
            dx[inputs] += share[outputs]


def taps(
    d: Conv2dDims | Pool2dDims, dilation_h: int = 1, dilation_w: int = 1
) -> Iterator[tuple[int, int, Slices, Slices]]:
    """(i, j, outputs, inputs) of every tap of a window, in row-major order.

    The outputs whose tap (i, j) lies on a real pixel, and those pixels: `x[inputs]` pairs with `y[outputs]`.
    """
    for i in range(d.kh):
        rows_out, rows_in = _meet(i * dilation_h - d.pad_h, d.stride_h, d.h, d.oh)
        for j in range(d.kw):
            columns_out, columns_in = _meet(j * dilation_w - d.pad_w, d.stride_w, d.w, d.ow)
            yield i, j, (slice(None), rows_out, columns_out), (slice(None), rows_in, columns_in)


def _meet(shift: int, stride: int, size: int, out: int) -> tuple[slice, slice]:
    """All p in [0, out) with p · stride + shift in [0, size), and those numbers."""
    first = max(0, -(shift // stride))
    end = min(out, (size - 1 - shift) // stride + 1)
    if end <= first:
        return slice(0, 0), slice(0, 0)
    return slice(first, end), slice(first * stride + shift, (end - 1) * stride + shift + 1, stride)


def _depthwise(d: Conv2dDims) -> bool:
    """One filter a channel: c tiny matrix products are slower than a multiply-add for each tap."""
    return 1 < d.groups == d.c == d.f


def _by_group(a: np.ndarray, d: Conv2dDims) -> np.ndarray:
    """(groups, rows, channels of a group): a view of an array whose last axis holds all groups' channels."""
    return a.reshape(-1, d.groups, a.shape[-1] // d.groups).swapaxes(0, 1)


def _columns(x: np.ndarray, d: Conv2dDims, scratch: np.ndarray) -> np.ndarray:
    """(groups, places, taps · channels of a group): a row for every window, in the order of the weights.

    In memory a row is contiguous, copied in runs of kw · c numbers. One-channel images would make them runs
    of kw alone, so there the places are contiguous instead: runs of ow, three times faster for 5x5 windows.
    """
    n = len(x)
    if d.pad_h or d.pad_w:
        shape = (n, d.h + 2 * d.pad_h, d.w + 2 * d.pad_w, d.c)
        size = int(np.prod(shape))
        padded, scratch = scratch[:size].reshape(shape), scratch[size:]
        padded.fill(0)
        padded[:, d.pad_h : d.pad_h + d.h, d.pad_w : d.pad_w + d.w] = x
        x = padded
    span = (d.dilation_h * (d.kh - 1) + 1, d.dilation_w * (d.kw - 1) + 1)
    windows = sliding_window_view(x.reshape(*x.shape[:3], d.groups, -1), span, axis=(1, 2))
    windows = windows[:, :: d.stride_h, :: d.stride_w, :, :, :: d.dilation_h, :: d.dilation_w]
    places, rows = n * d.oh * d.ow, d.kh * d.kw * (d.c // d.groups)
    if d.c == 1:
        windows = windows.transpose(3, 5, 6, 4, 0, 1, 2)
        return _contiguous(windows, scratch).reshape(1, rows, places).swapaxes(1, 2)
    windows = windows.transpose(3, 0, 1, 2, 5, 6, 4)
    return _contiguous(windows, scratch).reshape(d.groups, places, rows)


def _contiguous(a: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """a itself where it is contiguous, as the columns of a 1x1 convolution are, else a copy in scratch."""
    if a.flags.c_contiguous:
        return a
    copy = scratch[: a.size].reshape(a.shape)
    np.copyto(copy, a)
    return copy
