"""Convolution as one matrix product over columns (im2col), and the taps of a window, which pooling shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..interface import Input, Output, Scratch
from ..shapes import Conv2dDims, Pool2dDims, reach
from .linear import sum_rows

__all__ = [
    "conv2d",
    "conv2d_backward",
    "conv2d_backward_scratch",
    "conv2d_scratch",
    "convtranspose2d",
    "convtranspose2d_backward",
    "convtranspose2d_backward_scratch",
    "convtranspose2d_scratch",
]

Slices = tuple[slice, slice, slice]


def conv2d_scratch(d: Conv2dDims, n: int) -> int:
    """A padded copy of x, then the columns. Tap by tap, one tap's share of y or x."""
    places = n * d.oh * d.ow
    if _depthwise(d) or not _compact(d):
        return places * d.c
    h, w = _extent(d)
    padded = n * h * w * d.c if _padded(d) else 0
    return padded + places * d.kh * d.kw * d.c


def conv2d(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
    _correlate(x, w, d, scratch, y)
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
    _filter_gradient(dy, x, d, scratch, dw)
    if dx is not None:
        _spread(dy, w, d, scratch, dx)


def convtranspose2d_scratch(d: Conv2dDims, n: int) -> int:
    return conv2d_scratch(d, n)


def convtranspose2d(x: Input, w: Input, b: Input | None, d: Conv2dDims, scratch: Scratch, y: Output) -> None:
    _spread(x, w, d, scratch, y)
    if b is not None:
        y += b


def convtranspose2d_backward_scratch(d: Conv2dDims, n: int) -> int:
    return conv2d_scratch(d, n)


def convtranspose2d_backward(
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
    _filter_gradient(x, dy, d, scratch, dw)
    if dx is not None:
        _correlate(dy, w, d, scratch, dx)


# What both are made of: the convolution that d describes, from x (n, h, w, c) to y (n, oh, ow, f) ------------------


def _correlate(x: np.ndarray, w: np.ndarray, d: Conv2dDims, scratch: np.ndarray, y: np.ndarray) -> None:
    """y = the convolution of x."""
    if not _depthwise(d) and _in_columns(d, w):
        np.matmul(_columns(x, d, scratch), _by_group(w, d), out=_by_group(y, d))
        return
    y.fill(0)
    for i, j, outputs, inputs in taps(d):
        if _depthwise(d):
            share = scratch[: y.size].reshape(y.shape)
            np.multiply(x[inputs], w[i, j, 0], out=share[outputs])
            y[outputs] += share[outputs]
        else:
            products = np.matmul(_by_group(x[inputs], d), _by_group(w[i, j], d))
            y[outputs] += products.swapaxes(0, 1).reshape(y[outputs].shape)


def _filter_gradient(dy: np.ndarray, x: np.ndarray, d: Conv2dDims, scratch: np.ndarray, dw: np.ndarray) -> None:
    """dw = the gradient of the convolution by w."""
    if not _depthwise(d) and _in_columns(d, dy):
        np.matmul(_columns(x, d, scratch).swapaxes(1, 2), _by_group(dy, d), out=_by_group(dw, d))
        return
    dw.fill(0)
    for i, j, outputs, inputs in taps(d):
        if _depthwise(d):
            share = scratch[: dy.size].reshape(dy.shape)
            share.fill(0)
            np.multiply(x[inputs], dy[outputs], out=share[outputs])
            sum_rows(share, dw[i, j, 0])
        else:
            rows = _by_group(x[inputs], d).swapaxes(1, 2)
            np.matmul(rows, _by_group(dy[outputs], d), out=_by_group(dw[i, j], d))


def _spread(dy: np.ndarray, w: np.ndarray, d: Conv2dDims, scratch: np.ndarray, dx: np.ndarray) -> None:
    """dx = the gradient of the convolution by x.

    Tap by tap, the additions run over ow · c contiguous numbers and stay in cache. All of dy wᵀ at once would leave
    them in runs of c: four times slower for 16 channels.
    """
    share = scratch[: dy.size // d.f * d.c].reshape(*dy.shape[:3], d.c)
    dx.fill(0)
    for i, j, outputs, inputs in taps(d):
        if _depthwise(d):
            np.multiply(dy, w[i, j, 0], out=share)
        else:
            np.matmul(_by_group(dy, d), _by_group(w[i, j], d).swapaxes(1, 2), out=_by_group(share, d))
        dx[inputs] += share[outputs]


# Taps --------------------------------------------------------------------------------------------------------------


def taps(d: Conv2dDims | Pool2dDims) -> Iterator[tuple[int, int, Slices, Slices]]:
    """(i, j, outputs, inputs) of every tap of a window that meets a real pixel anywhere, in row-major order.

    The outputs whose tap (i, j) lies on a real pixel, and those pixels: `x[inputs]` pairs with `y[outputs]`.
    """
    columns = list(_axis_taps(d.w, d.ow, d.kw, d.stride_w, d.pad_w, d.dilation_w))
    for i, rows_out, rows_in in _axis_taps(d.h, d.oh, d.kh, d.stride_h, d.pad_h, d.dilation_h):
        for j, columns_out, columns_in in columns:
            yield i, j, (slice(None), rows_out, columns_out), (slice(None), rows_in, columns_in)


def _axis_taps(
    size: int, out: int, kernel: int, stride: int, pad: int, dilation: int
) -> Iterator[tuple[int, slice, slice]]:
    """(tap, outputs, inputs) along one axis."""
    for i in _near(size, out, kernel, stride, pad, dilation):
        outputs, inputs = _meet(i * dilation - pad, stride, size, out)
        if outputs.start < outputs.stop:
            yield i, outputs, inputs


def _near(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> Iterator[int]:
    """The taps to look at: all, or those that some output has in the image, if the window is far larger than that."""
    if kernel <= size + out:
        yield from range(kernel)
        return
    first = 0
    for start in range((out - 1) * stride - pad, -pad - 1, -stride):  # the last window's taps come first
        first = max(first, -(start // dilation))
        end = min(kernel, (size - 1 - start) // dilation + 1)
        yield from range(first, end)
        first = max(first, end)


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


def _in_columns(d: Conv2dDims, factor: np.ndarray) -> bool:
    """Whether columns, which hold zeros for the padding, give the same as the taps inside the image alone.

    They do not where what they are multiplied with is not finite: the padding is no term of a sum.
    """
    return _compact(d) and (not _padded(d) or bool(np.isfinite([factor.min(), factor.max()]).all()))


def _compact(d: Conv2dDims) -> bool:
    """Whether a padded copy of x is no larger than x and columns: that of a far stride or dilation is all padding."""
    h, w = _extent(d)
    return not _padded(d) or (h <= d.h + d.oh * d.kh and w <= d.w + d.ow * d.kw)


def _padded(d: Conv2dDims) -> bool:
    """Whether any window begins before the image or ends after it."""
    return _extent(d) != (d.h, d.w)


def _extent(d: Conv2dDims) -> tuple[int, int]:
    """(h, w) of the image with what windows see around it."""
    end_h = (d.oh - 1) * d.stride_h + reach(d.kh, d.dilation_h)
    end_w = (d.ow - 1) * d.stride_w + reach(d.kw, d.dilation_w)
    return max(d.pad_h + d.h, end_h), max(d.pad_w + d.w, end_w)


def _by_group(a: np.ndarray, d: Conv2dDims) -> np.ndarray:
    """(groups, rows, channels of a group): a view of an array whose last axis holds all groups' channels."""
    return a.reshape(-1, d.groups, a.shape[-1] // d.groups).swapaxes(0, 1)


def _columns(x: np.ndarray, d: Conv2dDims, scratch: np.ndarray) -> np.ndarray:
    """(groups, places, taps · channels of a group): a row for every window, in the order of the weights.

    In memory a row is contiguous, copied in runs of kw · c numbers. One-channel images would make them runs
    of kw alone, so there the places are contiguous instead: runs of ow, three times faster for 5x5 windows.
    """
    n = len(x)
    if _padded(d):
        shape = (n, *_extent(d), d.c)
        size = int(np.prod(shape))
        padded, scratch = scratch[:size].reshape(shape), scratch[size:]
        padded.fill(0)
        padded[:, d.pad_h : d.pad_h + d.h, d.pad_w : d.pad_w + d.w] = x
        x = padded
    reached = reach(d.kh, d.dilation_h), reach(d.kw, d.dilation_w)
    windows = sliding_window_view(x.reshape(*x.shape[:3], d.groups, -1), reached, axis=(1, 2))
    windows = windows[:, :: d.stride_h, :: d.stride_w, :, :, :: d.dilation_h, :: d.dilation_w][:, : d.oh, : d.ow]
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
