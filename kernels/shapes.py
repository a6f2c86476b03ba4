"""Sizes: the output-size formula, the dims tuples, and every shape and dtype error.

A dims tuple holds the geometry of one call without its batch size, so that one tuple serves every batch.
Functions named after a kernel check shapes and return its dims; shapes may carry the symbol ``"N"`` in
place of a batch size, which is how a plan is checked before any batch exists.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Sequence
from math import gcd
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int | str, ...]
Pair = int | tuple[int, int]
Borders = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right)): places around an image."""
Padding = int | tuple[int, int] | Borders | str
"""Equal borders as an int or an (h, w) pair, any borders, or one of `SAME`."""

SAME = ("same", "same_lower")
"""Borders that make ⌈size / stride⌉ windows; an odd place lies at the end, or at the beginning with "same_lower"."""

LARGEST = 2**31 - 1
"""Sizes are at most this, so that no place, nor any sum of places, leaves 64 bits."""

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class LinearDims(NamedTuple):
    """k inputs to m outputs."""

    k: int
    m: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample's forward pass."""
        return self.k * self.m


class Conv2dDims(NamedTuple):
    """Geometry of one image's convolution: (h, w, c) through (kh, kw, c / groups, f) to (oh, ow, f).

    pad_h and pad_w are above and to the left; what lies below and to the right follows from oh and ow. A transposed
    convolution, from (oh, ow, f) to (h, w, c), has the geometry of the convolution whose gradient by x it is.
    """

    h: int
    w: int
    c: int
    kh: int
    kw: int
    f: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    oh: int
    ow: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass, those with padding zeros not counted."""
        taps_h = _real_taps(self.h, self.oh, self.kh, self.stride_h, self.pad_h, self.dilation_h)
        taps_w = _real_taps(self.w, self.ow, self.kw, self.stride_w, self.pad_w, self.dilation_w)
        return taps_h * taps_w * (self.c // self.groups) * self.f


class Pool2dDims(NamedTuple):
    """Geometry of one image's pooling: (h, w, c) by windows of (kh, kw) to (oh, ow, c).

    pad_h and pad_w are above and to the left, end_h and end_w below and to the right. Windows may reach beyond these.
    """

    h: int
    w: int
    c: int
    kh: int
    kw: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    end_h: int
    end_w: int
    dilation_h: int
    dilation_w: int
    oh: int
    ow: int

    @property
    def inside(self) -> bool:
        """Whether every window lies inside the image."""
        end_h = (self.oh - 1) * self.stride_h + reach(self.kh, self.dilation_h) - self.pad_h
        end_w = (self.ow - 1) * self.stride_w + reach(self.kw, self.dilation_w) - self.pad_w
        return self.pad_h == self.pad_w == 0 and end_h <= self.h and end_w <= self.w

    @property
    def argmax_dtype(self) -> np.dtype:
        """Smallest type that numbers the positions of a window."""
        places = self.kh * self.kw
        return np.dtype(np.uint8 if places <= 2**8 else np.int32 if places <= 2**31 else np.int64)


class ChannelDims(NamedTuple):
    """A sample of `positions` places with `channels` values each; the last axis is the channels."""

    positions: int
    channels: int


class ImageDims(NamedTuple):
    """An image of h by w pixels with c channels."""

    h: int
    w: int
    c: int


class BroadcastDims(NamedTuple):
    """A sample of `size` elements, over which other arrays are repeated."""

    size: int


class FlatDims(NamedTuple):
    """A vector of `size` elements."""

    size: int


class AxisDims(NamedTuple):
    """A sample seen from one axis of `size`: as many places `before` it, and elements `after` it."""

    before: int
    size: int
    after: int


class SliceDims(NamedTuple):
    """`AxisDims`, and as many places of the axis as are `kept`: from `start` on, `step` apart."""

    before: int
    size: int
    after: int
    start: int
    step: int
    kept: int


class GroupDims(NamedTuple):
    """A sample of `positions` places with `channels` values each, of `groups` groups."""

    positions: int
    channels: int
    groups: int


class Pad2dDims(NamedTuple):
    """An image (h, w, c) to one of (oh, ow, c), in which it begins at (top, left)."""

    h: int
    w: int
    c: int
    top: int
    left: int
    oh: int
    ow: int


class Upsample2dDims(NamedTuple):
    """An image (h, w, c) whose every pixel becomes factor_h by factor_w."""

    h: int
    w: int
    c: int
    factor_h: int
    factor_w: int


MAX_AXES = 8
"""Axes of an array that is broadcast or transposed."""

PAD_MODES = ("constant", "reflect", "edge")


def reach(kernel: int, dilation: int) -> int:
    """Places from a window's first to its last, both counted: dilation (kernel - 1) + 1."""
    return dilation * (kernel - 1) + 1


def output_size(
    size: int, kernel: int, stride: int, border: tuple[int, int], dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Number of windows along one axis: floor((size + both borders - reach) / stride) + 1.

    ceil_mode: rounded up, less a window that would begin beyond the image. The rule is PyTorch's.
    """
    left = size + sum(border) - reach(kernel, dilation)
    if not ceil_mode:
        return left // stride + 1
    windows = -(-left // stride) + 1
    return windows - ((windows - 1) * stride >= size + border[0])


def sides(kernel: str, value: Padding, words: Sequence[str] = SAME) -> Borders | str:
    """Borders from an int, an (h, w) pair or borders, each at least 0; one of the words as it is."""
    if isinstance(value, str) and value in words:
        return value
    axes = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    ends = [tuple(axis) if isinstance(axis, Sequence) else (axis, axis) for axis in axes]
    alike = len({isinstance(axis, Sequence) for axis in axes}) == 1
    if len(ends) != 2 or not alike or not all(len(e) == 2 and all(_is_size(v, 0) for v in e) for e in ends):
        quoted = "".join(f' or "{word}"' for word in words)
        raise ValueError(
            f"{kernel}: padding is {value!r}, expected an int, an (h, w) pair or ((top, bottom), (left, right)), "
            f"each >= 0 and <= {LARGEST}{quoted}"
        )
    (top, bottom), (left, right) = ends
    return (int(top), int(bottom)), (int(left), int(right))


def borders(
    kernel: str, value: Padding, size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> Borders:
    """The borders that a padding makes around an image of `size`, for windows that reach so far."""
    given = sides(kernel, value)
    if not isinstance(given, str):
        return given
    found = []
    for length, reached, step in zip(size, window, stride, strict=True):
        total = max(0, (-(-length // step) - 1) * step + reached - length)
        less, more = total // 2, total - total // 2
        found.append((less, more) if given == "same" else (more, less))
    return found[0], found[1]


def _shown(borders: Borders) -> str:
    """Borders in print, equal ones as an (h, w) pair."""
    (top, bottom), (left, right) = borders
    return str((top, left) if top == bottom and left == right else borders)


def _real_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pairs (output, tap) along one axis that meet a real input rather than padding."""
    starts = np.arange(out)[:, None] * stride - padding
    taps = np.arange(kernel)[None, :] * dilation
    return int(np.count_nonzero((starts + taps >= 0) & (starts + taps < size)))


def pair(kernel: str, name: str, value: Pair, minimum: int) -> tuple[int, int]:
    """An (h, w) pair from an int or a pair of ints, each at least `minimum`."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(_is_size(v, minimum) for v in values):
        raise ValueError(
            f"{kernel}: {name} is {value!r}, expected an int or an (h, w) pair, each >= {minimum} and <= {LARGEST}"
        )
    return int(values[0]), int(values[1])


def _is_size(value: Any, minimum: int) -> bool:
    return _is_int(value) and minimum <= value <= LARGEST


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def integer(kernel: str, name: str, value: int, minimum: int) -> int:
    """`value` as an int of at least `minimum`."""
    if not _is_int(value) or value < minimum:
        raise ValueError(f"{kernel}: {name} is {value!r}, expected an int >= {minimum}")
    return int(value)


def sizes(kernel: str, name: str, value: Sequence[int]) -> tuple[int, ...]:
    """`value` as one size or more, each at least 1."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise ValueError(f"{kernel}: {name} is {value!r}, expected a tuple of sizes")
    return tuple(integer(kernel, f"{name}[{at}]", size, 1) for at, size in enumerate(value))


def counter(kernel: str, name: str, value: int) -> int:
    """`value`, an int of at least 0, as a kernel's counters take it: its last 64 bits."""
    return integer(kernel, name, value, 0) % (1 << 64)


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's, in tuples and lists as well; anything else as it is."""
    if isinstance(value, np.floating):
        return float(value)  # item() of a longdouble gives a longdouble
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def flag(kernel: str, name: str, value: bool) -> bool:
    """`value` as a bool; a number is none."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{kernel}: {name} is {value!r}, expected True or False")
    return bool(value)


def word(kernel: str, name: str, value: str, words: Sequence[str]) -> str:
    """`value`, one of these words."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{kernel}: {name} is {value!r}, expected one of {', '.join(words)}")
    return value


def number(
    kernel: str,
    name: str,
    value: float,
    minimum: float = -np.inf,
    below: float = np.inf,
    *,
    above: bool = False,
    most: float = np.inf,
    infinite: bool = False,
) -> float:
    """`value` as a finite float in [minimum, below), or in (minimum, below) with `above`; and at most `most`.

    With `infinite` it may be any number or infinity.
    """
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    # isfinite fails on ints of any length, and float32 on the comparison with float64's largest.
    finite = real and (abs(value) <= sys.float_info.max if isinstance(value, int) else bool(np.isfinite(value)))
    if infinite:
        if not finite and not (isinstance(value, (float, np.floating)) and abs(value) == np.inf):
            raise ValueError(f"{kernel}: {name} is {value!r}, expected a number or an infinity")
        return float(value)
    if not finite or not (minimum < value if above else minimum <= value) or value >= below or value > most:
        low = "" if minimum == -np.inf else f" {'>' if above else '>='} {minimum:g}"
        end = f" <= {most:g}" if most < np.inf else f" < {below:g}" if below < np.inf else ""
        high = f"{' and' if low and end else ''}{end}"
        raise ValueError(f"{kernel}: {name} is {value!r}, expected a finite number{low}{high}")
    return float(value)


def arrays(kernel: str, **named: object) -> np.dtype:
    """Check that the arguments are C-contiguous float arrays of one dtype with no empty axis; return the dtype.

    Raises TypeError for what is no array or has another dtype, ValueError for strides, alignment and empty axes.
    """
    first = ""
    dtype = np.dtype(np.float32)
    for name, value in named.items():
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{kernel}: {name} is a {type(value).__name__}, expected a numpy array")
        if value.dtype not in FLOAT_DTYPES or not value.dtype.isnative:
            raise TypeError(f"{kernel}: {name} has dtype {value.dtype}, expected float32 or float64")
        if first and value.dtype != dtype:
            raise TypeError(f"{kernel}: {name} has dtype {value.dtype}, {first} has {dtype}; expected one dtype")
        if not first:
            first, dtype = name, value.dtype
        if not value.flags.c_contiguous:
            raise ValueError(
                f"{kernel}: {name} is not C-contiguous (shape {value.shape}, strides {value.strides}); "
                f"pass numpy.ascontiguousarray({name})"
            )
        if not value.flags.aligned:
            raise ValueError(f"{kernel}: {name} does not start at a multiple of its elements' size; pass {name}.copy()")
        if value.size == 0:
            what = "an empty batch" if value.ndim and value.shape[0] == 0 else "an empty axis"
            raise ValueError(f"{kernel}: {name} has {what} (shape {value.shape}), expected at least one element")
    return dtype


def labels(kernel: str, value: object, rows: int, classes: int, counted: np.ndarray | None = None) -> np.ndarray:
    """`value` as int64 labels of shape (rows,) in [0, classes), those of samples that are not `counted` aside."""
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.integer):
        got = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else f"type {type(value).__name__}"
        raise TypeError(f"{kernel}: labels have {got}, expected an array of integers")
    if value.shape != (rows,):
        raise ValueError(f"{kernel}: labels have shape {value.shape}, expected ({rows},), one label a sample")
    outside = np.flatnonzero(((value < 0) | (value >= classes)) & (True if counted is None else counted))
    if outside.size:
        at = int(outside[0])
        raise ValueError(f"{kernel}: labels[{at}] is {value[at]}, expected 0 to {classes - 1} for {classes} classes")
    return np.ascontiguousarray(value, dtype=np.int64)


def weights(kernel: str, value: np.ndarray, rows: int) -> None:
    """Check the samples' weights (rows,): finite, and none below 0."""
    equal(kernel, "weights", value.shape, (rows,), "one weight a sample")
    unfit = np.flatnonzero(~((value >= 0) & (value < np.inf)))
    if unfit.size:
        at = int(unfit[0])
        raise ValueError(f"{kernel}: weights[{at}] is {value[at]}, expected a finite number of at least 0")


def indices(kernel: str, value: object) -> np.ndarray:
    """`value` as int64 sample indices, each at least 0."""
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.integer):
        got = f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise TypeError(f"{kernel}: indices is {got}, expected an array of integers")
    rank(kernel, "indices", value.shape, 1, "samples")
    if value.size == 0:
        raise ValueError(f"{kernel}: indices has an empty batch (shape {value.shape}), expected at least one element")
    if value.min() < 0:
        at = int(np.argmax(value < 0))
        raise ValueError(f"{kernel}: indices[{at}] is {value[at]}, expected 0 or more")
    return np.ascontiguousarray(value, dtype=np.int64)


def writeable(kernel: str, **named: np.ndarray) -> None:
    """Check that arrays to be updated in place may be written to."""
    for name, array in named.items():
        if not array.flags.writeable:
            raise ValueError(f"{kernel}: {name} is read-only, expected an array to update in place")


def argmax(kernel: str, value: object, shape: Shape, d: Pool2dDims) -> None:
    """Check that `value` is what max-pooling gave: positions inside the window, for every output."""
    got = (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value).__name__
    if got != (d.argmax_dtype, shape) or not value.flags.c_contiguous:  # type: ignore[attr-defined]
        raise ValueError(f"{kernel}: argmax is {got}, expected the {d.argmax_dtype} array {shape} from maxpool2d")
    if int(value.max()) >= d.kh * d.kw or int(value.min()) < 0:  # type: ignore[attr-defined]
        raise ValueError(f"{kernel}: argmax holds positions outside the window of {d.kh} x {d.kw}")
    if not d.inside:
        i, j = np.divmod(value.astype(np.int64), d.kw)  # type: ignore[attr-defined]
        h = np.arange(d.oh)[:, None, None] * d.stride_h - d.pad_h + i * d.dilation_h
        w = np.arange(d.ow)[:, None] * d.stride_w - d.pad_w + j * d.dilation_w
        if h.min() < 0 or h.max() >= d.h or w.min() < 0 or w.max() >= d.w:
            raise ValueError(f"{kernel}: argmax holds positions in the padding")


def mask(kernel: str, value: object, shape: Shape) -> None:
    """Check that `value` is a dropout mask of that shape."""
    got = (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value).__name__
    if got != (np.dtype(np.bool_), shape) or not value.flags.c_contiguous:  # type: ignore[attr-defined]
        raise ValueError(f"{kernel}: mask is {got}, expected the bool array {shape} from dropout")


def rank(kernel: str, name: str, shape: Shape, ndim: int, axes: str) -> None:
    """Check the number of axes."""
    if len(shape) != ndim:
        raise ValueError(f"{kernel}: {name} has shape {text(shape)}, expected {ndim} axes ({axes})")


def last_axis(kernel: str, **named: object) -> None:
    """Check that arrays have the axis that a kernel works along."""
    for name, value in named.items():
        if isinstance(value, np.ndarray) and not value.ndim:
            raise ValueError(f"{kernel}: {name} has shape (), expected at least one axis, the classes'")


def equal(kernel: str, name: str, shape: Shape, expected: Shape, why: str = "") -> None:
    """Check a shape against the one that the other arguments demand."""
    if tuple(shape) != tuple(expected):
        reason = f" ({why})" if why else ""
        raise ValueError(f"{kernel}: {name} has shape {text(shape)}, expected {text(expected)}{reason}")


def text(shape: Shape) -> str:
    """A shape in print, the symbolic batch size as a bare N."""
    inner = ", ".join(str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def linear(x: Shape, w: Shape, b: Shape | None, kernel: str = "linear") -> LinearDims:
    """Dims of x (N, K) times w (K, M) plus b (M,)."""
    rank(kernel, "x", x, 2, "samples, inputs")
    rank(kernel, "w", w, 2, "inputs, outputs")
    if x[1] != w[0]:
        raise ValueError(f"{kernel}: w has {w[0]} inputs, x has {x[1]} (x {text(x)}, w {text(w)})")
    if b is not None:
        equal(kernel, "b", b, (w[1],), f"w {text(w)}")
    return LinearDims(int(w[0]), int(w[1]))


def conv2d(
    x: Shape,
    w: Shape,
    b: Shape | None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    kernel: str = "conv2d",
) -> Conv2dDims:
    """Dims of x (N, H, W, C) convolved with w (KH, KW, C / groups, F) plus b (F,)."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    rank(kernel, "w", w, 4, "kernel height, kernel width, channels / groups, filters")
    height, width, channels = (int(size) for size in x[1:])
    kh, kw, group_channels, filters = (int(size) for size in w)
    groups = _groups(kernel, groups, channels, filters)
    sh, sw = pair(kernel, "stride", stride, 1)
    dh, dw = pair(kernel, "dilation", dilation, 1)
    around = borders(kernel, padding, (height, width), (reach(kh, dh), reach(kw, dw)), (sh, sw))
    if group_channels * groups != channels:
        times = f" times {groups} groups" if groups > 1 else ""
        raise ValueError(
            f"{kernel}: w has {group_channels} input channels{times}, x has {channels} (x {text(x)}, w {text(w)})"
        )
    if b is not None:
        equal(kernel, "b", b, (filters,), f"w {text(w)}")
    oh, ow = output_size(height, kh, sh, around[0], dh), output_size(width, kw, sw, around[1], dw)
    if oh < 1 or ow < 1:
        raise ValueError(
            f"{kernel}: w {text(w)} with dilation {(dh, dw)} does not fit into x {text(x)} "
            f"with padding {_shown(around)}"
        )
    (top, _), (left, _) = around
    return Conv2dDims(height, width, channels, kh, kw, filters, sh, sw, top, left, dh, dw, groups, oh, ow)


def convtranspose2d(
    x: Shape,
    w: Shape,
    b: Shape | None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    kernel: str = "convtranspose2d",
) -> Conv2dDims:
    """Dims of the convolution that leads from y (N, OH, OW, M) to x (N, H, W, C) by w (KH, KW, M / groups, C)."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    rank(kernel, "w", w, 4, "kernel height, kernel width, outputs / groups, channels")
    height, width, channels = (int(size) for size in x[1:])
    kh, kw, group_outputs, w_channels = (int(size) for size in w)
    if w_channels != channels:
        raise ValueError(f"{kernel}: w has {w_channels} input channels, x has {channels} (x {text(x)}, w {text(w)})")
    groups = integer(kernel, "groups", groups, 1)
    outputs = group_outputs * groups
    _groups(kernel, groups, channels, outputs)
    stride = pair(kernel, "stride", stride, 1)
    dilation = pair(kernel, "dilation", dilation, 1)
    more = pair(kernel, "output_padding", output_padding, 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(
            f"{kernel}: output_padding is {more}, expected less than stride {stride} or dilation {dilation}"
        )
    if b is not None:
        equal(kernel, "b", b, (outputs,), f"w {text(w)}" + (f", {groups} groups" if groups > 1 else ""))
    around = sides(kernel, padding, ())
    assert not isinstance(around, str)
    oh, ow = (
        (size - 1) * s - sum(border) + reach(k, d) + m
        for size, s, border, k, d, m in zip((height, width), stride, around, (kh, kw), dilation, more, strict=True)
    )
    if oh < 1 or ow < 1:
        raise ValueError(f"{kernel}: padding {_shown(around)} leaves nothing of x {text(x)} by w {text(w)}")
    (top, _), (left, _) = around
    return Conv2dDims(oh, ow, outputs, kh, kw, channels, *stride, top, left, *dilation, groups, height, width)


def _groups(kernel: str, groups: int, channels: int, filters: int) -> int:
    groups = integer(kernel, "groups", groups, 1)
    if channels % groups or filters % groups:
        raise ValueError(
            f"{kernel}: groups is {groups}, expected a divisor of {channels} channels and {filters} filters"
        )
    return groups


def pool2d(
    x: Shape,
    size: Pair,
    stride: Pair | None,
    padding: Padding,
    kernel: str,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Pool2dDims:
    """Dims of pooling x (N, H, W, C); the stride defaults to the window's size."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    kh, kw = pair(kernel, "size", size, 1)
    sh, sw = (kh, kw) if stride is None else pair(kernel, "stride", stride, 1)
    dh, dw = pair(kernel, "dilation", dilation, 1)
    ceil_mode = flag(kernel, "ceil_mode", ceil_mode)
    height, width, channels = (int(s) for s in x[1:])
    window = reach(kh, dh), reach(kw, dw)
    around = borders(kernel, padding, (height, width), window, (sh, sw))
    dilated = f" with dilation {(dh, dw)}" if (dh, dw) != (1, 1) else ""
    if max(around[0]) >= window[0] or max(around[1]) >= window[1]:
        raise ValueError(
            f"{kernel}: padding is {_shown(around)}, expected less than size {(kh, kw)}{dilated}: "
            "a window needs a pixel"
        )
    oh = output_size(height, kh, sh, around[0], dh, ceil_mode)
    ow = output_size(width, kw, sw, around[1], dw, ceil_mode)
    if oh < 1 or ow < 1:
        raise ValueError(
            f"{kernel}: size {(kh, kw)}{dilated} does not fit into x {text(x)} with padding {_shown(around)}"
        )
    (top, bottom), (left, right) = around
    if _misses(height, oh, sh, top, dh) or _misses(width, ow, sw, left, dw):
        raise ValueError(
            f"{kernel}: dilation {(dh, dw)} with padding {_shown(around)} leaves windows of x {text(x)} empty: "
            "a window needs a pixel"
        )
    return Pool2dDims(height, width, channels, kh, kw, sh, sw, top, left, bottom, right, dh, dw, oh, ow)


def _misses(size: int, out: int, stride: int, pad: int, dilation: int) -> bool:
    """Whether a window that begins before the image steps over it."""
    if dilation <= size:
        return False
    before = min(out, -(-pad // stride))
    period = dilation // gcd(dilation, stride)  # after which windows meet the image in the same places again
    return any((p * stride - pad) % dilation >= size for p in range(min(before, period)))


def image(x: Shape, kernel: str) -> ImageDims:
    """Dims of images x (N, H, W, C)."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    return ImageDims(*(int(size) for size in x[1:]))


def channels(x: Shape, kernel: str, name: str = "x") -> ChannelDims:
    """Dims of any array with a batch axis first and a channel axis last."""
    if len(x) < 2:
        raise ValueError(f"{kernel}: {name} has shape {text(x)}, expected a batch axis and a channel axis at least")
    return ChannelDims(int(np.prod([int(size) for size in x[1:-1]], dtype=np.int64)), int(x[-1]))


def prelu(x: Shape, slope: Shape, kernel: str = "prelu") -> ChannelDims:
    """Dims of x (N, ..., C) with slopes (C,) by channel; or with one (1,) for all, as if there were one channel."""
    d = channels(x, kernel)
    if slope == (1,):
        return ChannelDims(d.positions * d.channels, 1)
    equal(kernel, "slope", slope, (d.channels,), f"x {text(x)}; or (1,) for one that all channels share")
    return d


def broadcast(a: Shape, b: Shape, kernel: str) -> Shape:
    """Shape of a and b broadcast against each other, as NumPy has it."""
    ndim = max(len(a), len(b))
    if ndim > MAX_AXES:
        raise ValueError(f"{kernel}: a has shape {text(a)}, b has {text(b)}; expected at most {MAX_AXES} axes")
    sizes: list[int | str] = []
    for left, right in zip((1,) * (ndim - len(a)) + tuple(a), (1,) * (ndim - len(b)) + tuple(b), strict=True):
        if left != right and 1 not in (left, right):
            raise ValueError(
                f"{kernel}: a has shape {text(a)}, b has {text(b)}; expected axes, from the last on, of equal size or 1"
            )
        sizes.append(right if left == 1 else left)
    return tuple(sizes)


def elements(y: Shape) -> BroadcastDims:
    """Dims of a result that other arrays are broadcast to."""
    return BroadcastDims(_product(y[1:]))


def _product(sizes: Shape) -> int:
    return math.prod(int(size) for size in sizes)


def sample_axis(kernel: str, name: str, value: int, ndim: int) -> int:
    """`value` as one of the axes 1 to ndim − 1; negative ones count from the end."""
    if not _is_int(value) or not (1 <= value < ndim or 1 - ndim <= value <= -1):
        raise ValueError(
            f"{kernel}: {name} is {value!r}, expected an axis from 1 to {ndim - 1}, or from {1 - ndim} to -1"
        )
    return int(value) % ndim


def sample_axes(kernel: str, name: str, value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """`value`, one axis or some, as axes from 1 to ndim − 1 in their order, each once."""
    given = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    axes = sorted({sample_axis(kernel, name, axis, ndim) for axis in given})
    if not given or len(axes) < len(given):
        raise ValueError(f"{kernel}: {name} is {value!r}, expected an axis, or some that differ")
    return tuple(axes)


def axis(x: Shape, first: int, last: int) -> AxisDims:
    """Dims of x (N, ...) from its axes first to last."""
    return AxisDims(_product(x[1:first]), _product(x[first : last + 1]), _product(x[last + 1 :]))


def mean(x: Shape, axes: int | Sequence[int], kernel: str = "mean") -> AxisDims:
    """Dims of the mean of x (N, ...) over axes that lie side by side."""
    chosen = sample_axes(kernel, "axes", axes, len(x))
    if chosen[-1] - chosen[0] >= len(chosen):
        raise ValueError(f"{kernel}: axes is {axes!r}, expected axes side by side; take one mean after the other")
    return axis(x, chosen[0], chosen[-1])


def slice(x: Shape, axis_: int, start: int | None, stop: int | None, step: int = 1, kernel: str = "slice") -> SliceDims:
    """Dims of x (N, ...) from start to stop along an axis, with NumPy's rules for what lies beyond and for None."""
    at = sample_axis(kernel, "axis", axis_, len(x))
    slice_bounds(kernel, start, stop, step)
    first, end, step = builtins.slice(start, stop, step).indices(int(x[at]))
    count = len(range(first, end, step))
    if count == 0:
        raise ValueError(f"{kernel}: {start}:{stop}:{step} of axis {at} has no element (x {text(x)})")
    return SliceDims(*axis(x, at, at), first, step, count)


def slice_bounds(kernel: str, start: int | None, stop: int | None, step: int) -> None:
    """Check that these are what a slice is made of."""
    for name, value in (("start", start), ("stop", stop)):
        if value is not None and not _is_int(value):
            raise ValueError(f"{kernel}: {name} is {value!r}, expected an int or None")
    if not _is_int(step) or step == 0:
        raise ValueError(f"{kernel}: step is {step!r}, expected an int but 0")


def permutation(kernel: str, axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    """`axes` as an order of all axes of an array."""
    if ndim == 0:
        raise ValueError(f"{kernel}: x has no axes, expected one at least")
    order = tuple(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else None
    if order is None or not all(_is_int(axis) for axis in order) or sorted(order) != list(range(ndim)):
        raise ValueError(f"{kernel}: axes is {axes!r}, expected the numbers 0 to {ndim - 1}, each once")
    if ndim > MAX_AXES:
        raise ValueError(f"{kernel}: x has {ndim} axes, expected at most {MAX_AXES}")
    return tuple(int(axis) for axis in order)


Sides = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def pad_sides(kernel: str, name: str, value: Sides) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) from an int, an (h, w) pair, or ((top, bottom), (left, right)); negative ones too."""
    pairs = tuple(value) if isinstance(value, Sequence) else (value, value)
    whole = [tuple(side) if isinstance(side, Sequence) else (side, side) for side in pairs]
    if len(whole) != 2 or not all(len(side) == 2 and all(map(_is_int, side)) for side in whole):
        raise ValueError(
            f"{kernel}: {name} is {value!r}, expected an int, an (h, w) pair, or ((top, bottom), (left, right))"
        )
    (top, bottom), (left, right) = whole
    return int(top), int(bottom), int(left), int(right)


def pad_mode(kernel: str, mode: str) -> str:
    """`mode` as one of `PAD_MODES`."""
    return word(kernel, "mode", mode, PAD_MODES)


def pad2d(x: Shape, padding: Sides, mode: str = "constant", kernel: str = "pad2d") -> Pad2dDims:
    """Dims of x (N, H, W, C) with places added, or taken off, around each image."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    top, bottom, left, right = pad_sides(kernel, "padding", padding)
    height, width, channels = (int(size) for size in x[1:])
    pad_mode(kernel, mode)
    oh, ow = height + top + bottom, width + left + right
    for size, out, ends in ((height, oh, (top, bottom)), (width, ow, (left, right))):
        if out < 1 or min(ends) <= -size:
            raise ValueError(f"{kernel}: padding is {padding!r}, which leaves nothing of x {text(x)}")
        if mode == "reflect" and max(ends) >= size:
            raise ValueError(f"{kernel}: padding is {padding!r}, expected less than x's size to reflect ({text(x)})")
    return Pad2dDims(height, width, channels, top, left, oh, ow)


def upsample2d(x: Shape, factor: Pair, kernel: str = "upsample2d") -> Upsample2dDims:
    """Dims of x (N, H, W, C) with every pixel repeated."""
    rank(kernel, "x", x, 4, "samples, height, width, channels")
    height, width, channels = (int(size) for size in x[1:])
    return Upsample2dDims(height, width, channels, *pair(kernel, "factor", factor, 1))


def groups(x: Shape, groups: int, kernel: str) -> GroupDims:
    """Dims of x (N, ..., C) with its channels in groups."""
    d = channels(x, kernel)
    groups = integer(kernel, "groups", groups, 1)
    if d.channels % groups:
        raise ValueError(f"{kernel}: groups is {groups}, expected a divisor of {d.channels} channels (x {text(x)})")
    return GroupDims(d.positions, d.channels, groups)


def layers(x: Shape, normalised: Shape, kernel: str) -> ChannelDims:
    """Dims of x (N, ...) whose last axes, of the sizes `normalised`, are what a position's channels are."""
    count = len(normalised)
    if not 1 <= count < len(x) or tuple(x[-count:]) != tuple(normalised):
        raise ValueError(
            f"{kernel}: gamma has shape {text(normalised)}, expected the sizes of last axes of x {text(x)}"
        )
    return ChannelDims(_product(x[1:-count]), _product(normalised))


def concat(kernel: str, **parts: Shape) -> Shape:
    """Shape of arrays joined along the last axis."""
    (first, a), *others = parts.items()
    for name, part in others:
        if len(a) < 2 or a[:-1] != part[:-1]:
            raise ValueError(
                f"{kernel}: {first} has shape {text(a)}, {name} has {text(part)}; "
                "expected equal shapes but for the last axis"
            )
    return (*a[:-1], sum(int(part[-1]) for part in parts.values()))
