"""What fits: shapes and dtypes of every kernel's arguments, one line a kernel, and the check that holds a call to it.

The facade checks arrays as it is handed them, and gives its errors in the words of the caller. A plan knows shapes
alone, and its calls may come from anybody's layer; what a backend then does with sizes that do not fit is to write
outside of its arrays. So every step is held to its line here when it is made, once, before there are arrays.

A line names arrays and their axes as the contract's docstrings do, with a dtype where it is not the common one:

    "x (N, k), w (k, m), b (m), y (N, m)"

A lower-case name is a field of the dims `d`, or with a dot of other dims, as in `pool.oh`. N is the batch, `...` any
number of axes, and other capitals any size: each the same wherever it stands. Of a product or sum, all but the result
are known. What else must hold stands behind a semicolon, as an equation. Arrays that are None are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from . import shapes
from .interface import Kernel, Scalar, declaration, roles
from .shapes import Conv2dDims, Pool2dDims, Shape

BATCH = "N"

_BY_CHANNEL = "x (..., C), gamma beta mean var (C)"
_BATCHNORM = "x (N, ..., channels), gamma mean inv_std (channels)"
_POOL = "y (N, oh, ow, c), argmax (N, oh, ow, c) argmax_dtype"
_SIDE_BY_SIDE = "stride_h = kh, stride_w = kw, pad_h = 0, pad_w = 0"
_POOL_SIDE_BY_SIDE = "pool.stride_h = pool.kh, pool.stride_w = pool.kw, pool.pad_h = 0, pool.pad_w = 0"
_BLOCK = f"groups = 1, pool.h = oh, pool.w = ow, pool.c = f, {_POOL_SIDE_BY_SIDE}"

RULES: dict[str, str] = {
    # Contractions
    "linear": "x (N, k), w (k, m), b (m), y (N, m)",
    "linear_backward": "dy (N, m), x dx (N, k), w dw (k, m), db (m)",
    "conv2d": "x (N, h, w, c), w (kh, kw, c / groups, f), b (f), y (N, oh, ow, f)",
    "conv2d_backward": "dy (N, oh, ow, f), x dx (N, h, w, c), w dw (kh, kw, c / groups, f), db (f)",
    # Pooling
    "maxpool2d": f"x (N, h, w, c), {_POOL}",
    "maxpool2d_backward": "dy (N, oh, ow, c), argmax (N, oh, ow, c) argmax_dtype, dx (N, h, w, c)",
    "avgpool2d": "x (N, h, w, c), y (N, oh, ow, c)",
    "avgpool2d_backward": "dy (N, oh, ow, c), dx (N, h, w, c)",
    # Normalisation
    "batchnorm": f"{_BATCHNORM}, beta var (channels), y (N, ..., channels)",
    "batchnorm_backward": f"{_BATCHNORM}, dgamma dbeta (channels), dy dx (N, ..., channels)",
    "batchnorm_inference": f"{_BY_CHANNEL}, y (..., C)",
    "batchnorm_inference_backward": ("dy x dx (N, ..., channels), gamma mean var dgamma dbeta (channels)"),
    "meannorm": "x y (N, ..., channels), beta mean (channels)",
    "meannorm_backward": "dy dx (N, ..., channels), dbeta (channels)",
    "meannorm_inference": "x y (..., C), beta mean (C)",
    "meannorm_inference_backward": "dy dx (N, ..., channels), dbeta (channels)",
    "ema_update": "running value (...)",
    # Activations
    "relu": "x y (...)",
    "relu_backward": "dy x y dx (...)",
    "leaky_relu": "x y (...)",
    "leaky_relu_backward": "dy x y dx (...)",
    "elu": "x y (...)",
    "elu_backward": "dy x y dx (...)",
    "gelu": "x y (...)",
    "gelu_backward": "dy x y dx (...)",
    "silu": "x y (...)",
    "silu_backward": "dy x y dx (...)",
    "sigmoid": "x y (...)",
    "sigmoid_backward": "dy x y dx (...)",
    "tanh": "x y (...)",
    "tanh_backward": "dy x y dx (...)",
    "softplus": "x y (...)",
    "softplus_backward": "dy x y dx (...)",
    "dropout": "x y (...), mask (...) bool",
    "dropout_backward": "dy dx (...), mask (...) bool",
    # Outputs and losses
    "softmax": "x y (..., C)",
    "softmax_backward": "dy x y dx (..., C)",
    "log_softmax": "x y (..., C)",
    "log_softmax_backward": "dy x y dx (..., C)",
    "softmax_cross_entropy": "logits dlogits (N, channels), labels (N) int64, loss (); positions = 1",
    "mse": "prediction target dprediction (N, ..., channels), loss ()",
    # Joining branches
    "add": "a b y (...)",
    "add_backward": "dy da db (...)",
    "concat": "a (..., A), b (..., B), y (..., A + B)",
    "concat_backward": "da (..., A), db (..., B), dy (..., A + B)",
    # Augmentation
    "uniform": "indices (N) int64, u (N, ...)",
    "smooth2d": "x y (N, h, w, c), weights (R)",
    "warp": "x y (N, h, w, c), matrix (N, 2, 3), field (N, h, w, 2)",
    # Optimizers
    "sgd": "p g v (...)",
    "rmsprop": "p g v (...)",
    "adam": "p g m v (...)",
    # Fused: `packed` is as large as its backend likes, which an executor looks at
    "batchnorm_relu_maxpool2d": (
        f"x (N, h, w, c), gamma beta mean inv_std var (c), peak (N, oh, ow, c), {_POOL}; {_SIDE_BY_SIDE}"
    ),
    "batchnorm_relu_maxpool2d_backward": (
        "dy peak (N, oh, ow, c), argmax (N, oh, ow, c) argmax_dtype, x dx (N, h, w, c), "
        f"gamma beta mean inv_std dgamma dbeta (c); {_SIDE_BY_SIDE}"
    ),
    "conv2d_batchnorm_relu_maxpool2d": (
        "x (N, h, w, c), w (kh, kw, c, f), b gamma beta mean inv_std var (f), z (N, oh, ow, f), "
        f"peak y (N, pool.oh, pool.ow, f), argmax (N, pool.oh, pool.ow, f) pool.argmax_dtype; {_BLOCK}"
    ),
    "conv2d_batchnorm_relu_maxpool2d_backward": (
        "dy peak (N, pool.oh, pool.ow, f), argmax (N, pool.oh, pool.ow, f) pool.argmax_dtype, x dx (N, h, w, c), "
        f"w dw (kh, kw, c, f), z (N, oh, ow, f), gamma beta mean inv_std db dgamma dbeta (f); {_BLOCK}"
    ),
    "linear_relu": "x (N, k), w (k, m), b (m), y (N, m)",
    "linear_relu_backward": "dy y (N, m), x dx (N, k), w dw (k, m), db (m)",
    "conv2d_fold": "w (kh, kw, c, f), b gamma beta mean var bias (f), packed (P); groups = 1",
    "conv2d_folded": f"x (N, h, w, c), packed (P), bias (f), y (N, pool.oh, pool.ow, f); {_BLOCK}",
    "linear_fold": "w (k, m), b bias (m), packed (P)",
    "linear_folded": "x (N, k), packed (P), bias (m), y (N, m)",
}
"""The rule of every kernel of `interface.Backend` and `interface.Fused`."""


class Axes(NamedTuple):
    """The axes of one array, and its dtype as a word; "" for the common one."""

    sizes: tuple[str, ...]
    dtype: str


class Rule(NamedTuple):
    """Axes by array, some more than once, and equations."""

    arrays: tuple[tuple[str, Axes], ...]
    equations: tuple[tuple[str, str], ...]


_ENTRY = re.compile(r"((?:\w+ )+)\(([^()]*)\)(?: ([\w.]+))?")
_DTYPES = {"int64": np.dtype(np.int64), "bool": np.dtype(np.bool_), "": None}


@cache
def parsed(line: str) -> Rule:
    """A line as a rule; ValueError for one that is none."""
    entries, _, equations = line.partition(";")
    arrays = []
    for entry in re.split(r",\s*(?![^()]*\))", entries):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise ValueError(f"a rule is {line!r}: {entry.strip()!r} is no 'name (axis, axis)'")
        axes = Axes(tuple(axis.strip() for axis in match[2].split(",") if axis.strip()), match[3] or "")
        arrays += [(name, axes) for name in match[1].split()]
    pairs = [equation.split("=") for equation in equations.split(",") if equation.strip()]
    return Rule(tuple(arrays), tuple((left.strip(), right.strip()) for left, right in pairs))


@cache
def rule(kernel: str | Kernel) -> Rule | None:
    """A kernel's rule; None for one written elsewhere that declares none. KeyError where a line is missing here."""
    if isinstance(kernel, Kernel):
        return parsed(kernel.shapes) if kernel.shapes else None
    return parsed(RULES[kernel])


@cache
def _hints(kernel: str | Kernel) -> dict[str, Any]:
    return get_type_hints(declaration(kernel))


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def check(kernel: str | Kernel, arguments: Mapping[str, Any]) -> None:
    """Raise unless a call fits.

    arguments: by parameter name, without scratch: for an array anything with a `shape`, whose batch may be "N", and a
    `dtype`, None for the common one; None, dims and numbers as they are.

    Raises ValueError for shapes, dims and numbers, TypeError for kinds and dtypes; each message is one line that begins
    with the kernel and the parameter.
    """
    name = kernel if isinstance(kernel, str) else kernel.name
    _check_kinds(kernel, name, arguments)
    found = rule(kernel)
    if found is None:
        return
    known = _Sizes(name, arguments)
    for parameter, axes in found.arrays:
        array = arguments.get(parameter)
        if array is not None:
            known.hold(parameter, array, axes)
    for left, right in found.equations:
        one, other = known.value(left), known.value(right)
        if one != other:
            raise ValueError(f"kernel {name}: {left} is {one}, expected {other}, as {right} says")


def _check_kinds(kernel: str | Kernel, name: str, arguments: Mapping[str, Any]) -> None:
    hints, of_contract = _hints(kernel), isinstance(kernel, str)
    for parameter, role in roles(kernel).items():
        if role == "scratch":
            continue
        value, options = arguments[parameter], _options(hints.get(parameter, Any))
        if value is None:
            if type(None) not in options and hints.get(parameter, Any) is not Any:
                raise TypeError(f"kernel {name}: {parameter} is None, expected {_noun(role, options)}")
        elif role == "attribute" and of_contract:
            _check_attribute(name, parameter, value, options[0])


def _noun(role: str, options: tuple[Any, ...]) -> str:
    return options[0].__name__ if role == "attribute" else "an array"


def _check_attribute(name: str, parameter: str, value: Any, kind: Any) -> None:
    """A number or dims, as the contract annotates it."""
    if isinstance(value, Scalar):
        right = value.type is kind or (value.type, kind) == (int, float)
    elif kind is float:
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif kind is int:
        right = isinstance(value, int) and not isinstance(value, bool)
    else:
        right = type(value) is kind
    if not right:
        shown = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
        raise TypeError(f"kernel {name}: {parameter} is {shown}, expected {kind.__name__}")
    if isinstance(value, tuple):
        _check_dims(name, parameter, value)


@lru_cache(1 << 12)
def _check_dims(name: str, parameter: str, d: Any) -> None:
    """Sizes that a call can have, and a geometry that follows from itself."""
    for field, size in zip(d._fields, d, strict=True):
        least = 0 if field.startswith("pad") else 1
        shapes.integer(f"kernel {name}", f"{parameter}.{field}", size, least)
    expected = d
    if isinstance(d, Conv2dDims):
        filters = (d.kh, d.kw, d.c // d.groups, d.f)
        window = (d.stride_h, d.stride_w), (d.pad_h, d.pad_w), (d.dilation_h, d.dilation_w)
        expected = shapes.conv2d((BATCH, d.h, d.w, d.c), filters, None, *window, d.groups, f"kernel {name}")
    elif isinstance(d, Pool2dDims):
        window = (d.kh, d.kw), (d.stride_h, d.stride_w), (d.pad_h, d.pad_w)
        expected = shapes.pool2d((BATCH, d.h, d.w, d.c), *window, f"kernel {name}")
    for field, size, right in zip(d._fields, d, expected, strict=True):
        if size != right:
            raise ValueError(
                f"kernel {name}: {parameter}.{field} is {size}, expected {right}, as its other sizes have it"
            )


class _Sizes:
    """What is known of a call's sizes while its arrays are looked at one after the other."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._name = name
        self._arguments = arguments
        self._sizes: dict[str, int | str] = {BATCH: BATCH}
        self._between: tuple[int | str, ...] | None = None

    def hold(self, parameter: str, array: Any, axes: Axes) -> None:
        """Hold an array to its axes, and learn what they tell."""
        self._hold_dtype(parameter, array.dtype, self._dtype(axes.dtype))
        shape, given = tuple(array.shape), list(axes.sizes)
        expected: Shape
        if "..." in given:
            at = given.index("...")
            if self._between is None and len(shape) >= len(given) - 1:
                self._learn_between(parameter, shape, shape[at : len(shape) - (len(given) - 1 - at)])
            before = (*self._expected(given[:at], shape), *(self._between or ()))
            expected = before + self._expected(given[at + 1 :], shape[len(before) :])
        else:
            expected = self._expected(given, shape)
        if shape != expected:
            raise ValueError(
                f"kernel {self._name}: {parameter} has shape {shapes.text(shape)}, "
                f"expected {shapes.text(expected)}: {self._call()}"
            )

    def _hold_dtype(self, parameter: str, dtype: np.dtype | None, expected: np.dtype | None) -> None:
        if (dtype is None, dtype) != (expected is None, expected):  # to NumPy, float64 equals None
            got, wanted = ("the model's own" if d is None else str(d) for d in (dtype, expected))
            raise TypeError(f"kernel {self._name}: {parameter} has dtype {got}, expected {wanted}")

    def _learn_between(self, parameter: str, shape: Shape, between: Shape) -> None:
        self._between = between
        positions = getattr(self._arguments.get("d"), "positions", None)
        if positions is None:
            return
        if BATCH in between or math.prod(map(int, between)) != positions:
            raise ValueError(
                f"kernel {self._name}: {parameter} has shape {shapes.text(shape)}, whose places between batch and "
                f"channels are not d.positions, {positions}: {self._call()}"
            )

    def _expected(self, axes: list[str], shape: Shape) -> tuple[int | str, ...]:
        """The sizes that these axes have; a name that is new takes the size that stands at its place."""
        found = []
        for i, axis in enumerate(axes):
            if self._is_new(axis) and i < len(shape):
                self._sizes[axis] = shape[i]
            found.append(axis if self._is_new(axis) else self.value(axis))
        return tuple(found)

    def _is_new(self, axis: str) -> bool:
        return axis.isalpha() and axis.isupper() and axis not in self._sizes

    def value(self, text: str) -> int | str:
        """A number, a name, or two of them with a sign between."""
        first, *rest = text.split()
        value = self._operand(first)
        if rest:
            sign, second = rest
            other = self._operand(second)
            if isinstance(value, str) or isinstance(other, str):
                return text
            value = value + other if sign == "+" else value // other
        return value

    def _operand(self, name: str) -> int | str:
        if name.isdigit():
            return int(name)
        if name in self._sizes:
            return self._sizes[name]
        if name.isupper():
            return name
        owner, _, field = name.rpartition(".")
        return int(getattr(self._arguments[owner or "d"], field))

    def _dtype(self, word: str) -> np.dtype | None:
        """The dtype that a word stands for."""
        if word in _DTYPES:
            return _DTYPES[word]
        owner, _, field = word.rpartition(".")
        dtype: np.dtype = getattr(self._arguments[owner or "d"], field)
        return dtype

    def _call(self) -> str:
        return f"{self._name}({', '.join(self._shown())})"

    def _shown(self) -> Iterator[str]:
        for parameter, value in self._arguments.items():
            if hasattr(value, "shape"):
                yield f"{parameter} {shapes.text(value.shape)}"
