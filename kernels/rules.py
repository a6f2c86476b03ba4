"""What fits: shapes and dtypes of every kernel's arguments, one line a kernel, and the check that holds a call to it.

The facade checks arrays as it is handed them, and gives its errors in the words of the caller. A plan knows shapes
alone, and its calls may come from anybody's layer; what a backend then does with sizes that do not fit is to write
outside of its arrays. So every step is held to its line here when it is made, once, before there are arrays.

A line names arrays and their axes as the contract's docstrings do, with a dtype where it is not the common one:

    "x (N, k), w (k, m), b (m), y (N, m)"

A lower-case name is a field of the dims `d`, or with a dot of other dims, as in `pool.oh`. N is the batch, `...` any
number of axes, and other capitals any size: each the same wherever it stands. Of a product or sum, all but the result
are known. Square brackets hold samples of as many elements, in whatever axes. What else must hold stands behind a
semicolon, as an equation. Arrays that are None are left out. Where axes follow from each other in a way that no line
says, they are `any`, and a function of `BESIDES` says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from . import shapes
from .interface import Kernel, Scalar, declaration, roles
from .shapes import Conv2dDims, GroupDims, Pad2dDims, Pool2dDims, Shape, SliceDims

BATCH = "N"

_BY_CHANNEL = "x (..., C), gamma beta mean var (C)"
_BATCHNORM = "x (N, ..., channels), gamma mean inv_std (channels)"
_POOL = "y (N, oh, ow, c), argmax (N, oh, ow, c) argmax_dtype"
_SIDE_BY_SIDE = (
    "stride_h = kh, stride_w = kw, pad_h = 0, pad_w = 0, end_h = 0, end_w = 0, dilation_h = 1, dilation_w = 1, "
    "oh = h / kh, ow = w / kw"
)
_POOL_SIDE_BY_SIDE = re.sub(r"([a-z]\w*)", r"pool.\1", _SIDE_BY_SIDE)
_POOLED = f"pool.h = oh, pool.w = ow, pool.c = f, {_POOL_SIDE_BY_SIDE}"
_BLOCK = f"groups = 1, {_POOLED}"

RULES: dict[str, str] = {
    # Contractions
    "linear": "x (N, k), w (k, m), b (m), y (N, m)",
    "linear_backward": "dy (N, m), x dx (N, k), w dw (k, m), db (m)",
    "conv2d": "x (N, h, w, c), w (kh, kw, c / groups, f), b (f), y (N, oh, ow, f)",
    "conv2d_backward": "dy (N, oh, ow, f), x dx (N, h, w, c), w dw (kh, kw, c / groups, f), db (f)",
    "convtranspose2d": "x (N, oh, ow, f), w (kh, kw, c / groups, f), b (c), y (N, h, w, c)",
    "convtranspose2d_backward": "dy (N, h, w, c), x dx (N, oh, ow, f), w dw (kh, kw, c / groups, f), db (c)",
    # Pooling
    "maxpool2d": f"x (N, h, w, c), {_POOL}",
    "maxpool2d_backward": "dy (N, oh, ow, c), argmax (N, oh, ow, c) argmax_dtype, dx (N, h, w, c)",
    "avgpool2d": "x (N, h, w, c), y (N, oh, ow, c)",
    "avgpool2d_backward": "dy (N, oh, ow, c), dx (N, h, w, c)",
    # Normalisation
    "batchnorm": f"{_BATCHNORM}, beta var (channels), y (N, ..., channels)",
    "batchnorm_backward": f"{_BATCHNORM}, dgamma dbeta (channels), dy dx (N, ..., channels)",
    "batchnorm_inference": f"{_BY_CHANNEL}, y (..., C)",
    "batchnorm_inference_backward": "dy x dx (N, ..., channels), gamma mean var dgamma dbeta (channels)",
    "meannorm": "x y (N, ..., channels), beta mean (channels)",
    "meannorm_backward": "dy dx (N, ..., channels), dbeta (channels)",
    "meannorm_inference": "x y (..., C), beta mean (C)",
    "meannorm_inference_backward": "dy dx (N, ..., channels), dbeta (channels)",
    "layernorm": "x y gamma beta mean inv_std (any)",
    "layernorm_backward": "dy x dx gamma dgamma dbeta mean inv_std (any)",
    "groupnorm": "x y (N, ..., channels), gamma beta (channels), mean inv_std (N, groups)",
    "groupnorm_backward": "dy x dx (N, ..., channels), gamma dgamma dbeta (channels), mean inv_std (N, groups)",
    "local_response_norm": "x y scale (N, ..., channels)",
    "local_response_norm_backward": "dy x scale dx (N, ..., channels)",
    "ema_update": "running value (...)",
    # Activations, elementwise, any shape
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
    "clip": "x y (...)",
    "clip_backward": "dy x y dx (...)",
    "hard_sigmoid": "x y (...)",
    "hard_sigmoid_backward": "dy x y dx (...)",
    "hard_swish": "x y (...)",
    "hard_swish_backward": "dy x y dx (...)",
    "mish": "x y (...)",
    "mish_backward": "dy x y dx (...)",
    "selu": "x y (...)",
    "selu_backward": "dy x y dx (...)",
    "celu": "x y (...)",
    "celu_backward": "dy x y dx (...)",
    "gelu_tanh": "x y (...)",
    "gelu_tanh_backward": "dy x y dx (...)",
    "softsign": "x y (...)",
    "softsign_backward": "dy x y dx (...)",
    "thresholded_relu": "x y (...)",
    "thresholded_relu_backward": "dy x y dx (...)",
    "prelu": "x y (...), slope (any)",
    "prelu_backward": "dy x dx (any), slope dslope (channels)",
    "dropout": "x y (...), mask (...) bool",
    "dropout_backward": "dy dx (...), mask (...) bool",
    # Functions, elementwise, any shape
    "exp": "x y (...)",
    "exp_backward": "dy x y dx (...)",
    "log": "x y (...)",
    "log_backward": "dy x y dx (...)",
    "sqrt": "x y (...)",
    "sqrt_backward": "dy x y dx (...)",
    "absolute": "x y (...)",
    "absolute_backward": "dy x y dx (...)",
    "negative": "x y (...)",
    "negative_backward": "dy x y dx (...)",
    "reciprocal": "x y (...)",
    "reciprocal_backward": "dy x y dx (...)",
    "power": "x y (...)",
    "power_backward": "dy x y dx (...)",
    "erf": "x y (...)",
    "erf_backward": "dy x y dx (...)",
    "round_to_bfloat16": "x y (...)",
    # Outputs and losses
    "softmax": "x y (..., C)",
    "softmax_backward": "dy x y dx (..., C)",
    "log_softmax": "x y (..., C)",
    "log_softmax_backward": "dy x y dx (..., C)",
    "softmax_cross_entropy": "logits dlogits (N, channels), labels (N) int64, loss (); positions = 1",
    "mse": "prediction target dprediction (N, ..., channels), loss ()",
    "weighted_cross_entropy": ("logits dlogits (N, channels), labels (N) int64, weights (N), loss (); positions = 1"),
    "soft_cross_entropy": "logits target dlogits (N, channels), weights (N), loss (); positions = 1",
    "binary_cross_entropy": "logits target dlogits (N, ..., channels), weights (N), loss ()",
    "huber": "prediction target dprediction (N, ..., channels), weights (N), loss ()",
    "mae": "prediction target dprediction (N, ..., channels), weights (N), loss ()",
    "weighted_mse": "prediction target dprediction (N, ..., channels), weights (N), loss ()",
    # Arithmetic of two arrays
    "add": "a b y (any)",
    "add_backward": "dy da db (any)",
    "subtract": "a b y (any)",
    "subtract_backward": "dy da db (any)",
    "multiply": "a b y (any)",
    "multiply_backward": "dy a b da db (any)",
    "divide": "a b y (any)",
    "divide_backward": "dy a b da db (any)",
    "raise_to_power": "a b y (any)",
    "raise_to_power_backward": "dy a b da db (any)",
    "mean": "x [N, before, size, after], y [N, before, after]",
    "mean_backward": "dy [N, before, after], dx [N, before, size, after]",
    # Joining, cutting and moving
    "concat": "a b third fourth y (any)",
    "concat_backward": "da (..., A), db (..., B), dy (..., A + B)",
    "slice": "x [N, before, size, after], y [N, before, kept, after]",
    "slice_backward": "dy [N, before, kept, after], dx [N, before, size, after]",
    "transpose": "x y (any)",
    "pad2d": "x (N, h, w, c), y (N, oh, ow, c)",
    "pad2d_backward": "dy (N, oh, ow, c), dx (N, h, w, c)",
    "upsample2d": "x (N, h, w, c), y (N, h * factor_h, w * factor_w, c)",
    "upsample2d_backward": "dy (N, h * factor_h, w * factor_w, c), dx (N, h, w, c)",
    # Augmentation
    "uniform": "indices (N) int64, u (N, ...)",
    "smooth2d": "x y (N, h, w, c), weights (R)",
    "warp": "x y (N, h, w, c), matrix (N, 2, 3), field (N, h, w, 2)",
    # Optimizers, in place over flat vectors
    "sgd": "p g v (...)",
    "rmsprop": "p g v (...)",
    "adam": "p g m v (...)",
    "clip_norm": "g (size)",
    # Training
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
    "batchnorm_relu": f"{_BATCHNORM}, beta var (channels), residual y (N, ..., channels)",
    "batchnorm_relu_backward": (
        f"{_BATCHNORM}, beta dgamma dbeta (channels), dy more y dresidual dx (N, ..., channels)"
    ),
    "linear_relu": "x (N, k), w (k, m), b (m), y (N, m)",
    "linear_relu_backward": "dy y (N, m), x dx (N, k), w dw (k, m), db (m)",
    # Inference: what depends on parameters alone is done once, and again when they have changed
    "conv2d_fold": "w (kh, kw, c / groups, f), b gamma beta mean var bias (f), packed (P)",
    "conv2d_folded": (
        "x (N, h, w, c), packed (P), bias (f), residual y (N, pool.oh, pool.ow, f); "
        "pool.h = oh, pool.w = ow, pool.c = f"
    ),
    "maxpool2d_inference": "x (N, h, w, c), y (N, oh, ow, c)",
    "linear_fold": "w (k, m), b bias (m), packed (P)",
    "linear_folded": "x (N, k), packed (P), bias (m), y (N, m)",
    # bfloat16
    "linear_bfloat16": "x (N, k), w (k, m), b (m), y (N, m)",
    "linear_backward_bfloat16": "dy (N, m), x dx (N, k), w dw (k, m)",
    "linear_fold_bfloat16": "w (k, m), b bias (m), packed (P)",
    "linear_folded_bfloat16": "x (N, k), packed (P), bias (m), y (N, m)",
    "conv2d_bfloat16": "x (N, h, w, c), w (kh, kw, c, f), b (f), y (N, oh, ow, f); groups = 1",
    "conv2d_backward_bfloat16": "dy (N, oh, ow, f), x dx (N, h, w, c), w dw (kh, kw, c, f); groups = 1",
    "conv2d_fold_bfloat16": "w (kh, kw, c, f), b gamma beta mean var scale bias (f), packed (P); groups = 1",
    "conv2d_folded_bfloat16": (
        f"x (N, h, w, c), packed (P), scale bias (f), residual y (N, pool.oh, pool.ow, f); groups = 1, {_POOLED}"
    ),
}
"""The rule of every kernel of `interface.Backend` and `interface.Fused`."""


ANY = ("any",)


class Axes(NamedTuple):
    """The axes of one array, and its dtype as a word; "" for the common one. `flat`: elements of a sample count."""

    sizes: tuple[str, ...]
    dtype: str
    flat: bool = False


class Rule(NamedTuple):
    """Axes by array, some more than once, and equations."""

    arrays: tuple[tuple[str, Axes], ...]
    equations: tuple[tuple[str, str], ...]


_ENTRY = re.compile(r"((?:\w+ )+)([(\[])([^()\[\]]*)[)\]](?: ([\w.]+))?")
_DTYPES = {"int64": np.dtype(np.int64), "bool": np.dtype(np.bool_), "": None}


@cache
def parsed(line: str) -> Rule:
    """A line as a rule; ValueError for one that is none."""
    entries, _, equations = line.partition(";")
    arrays = []
    for entry in re.split(r",\s*(?![^()\[\]]*[)\]])", entries):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise ValueError(f"a rule is {line!r}: {entry.strip()!r} is no 'name (axis, axis)'")
        sizes = tuple(axis.strip() for axis in match[3].split(",") if axis.strip())
        axes = Axes(sizes, match[4] or "", match[2] == "[")
        arrays += [(name, axes) for name in match[1].split()]
    pairs = [equation.split("=") for equation in equations.split(",") if equation.strip()]
    return Rule(tuple(arrays), tuple((left.strip(), right.strip()) for left, right in pairs))


@cache
def rule(kernel: str | Kernel) -> Rule | None:
    """A kernel's rule; None for one written elsewhere that declares none. KeyError where a line is missing here."""
    if isinstance(kernel, Kernel):
        return _declared(kernel) if kernel.shapes else None
    return parsed(RULES[kernel])


def _declared(kernel: Kernel) -> Rule:
    found = parsed(kernel.shapes)
    arrays = {name for name, role in roles(kernel).items() if role in ("input", "output", "in place")}
    if odd := sorted(arrays ^ {name for name, _ in found.arrays}):
        raise ValueError(
            f"kernel {kernel.name}: shapes is {kernel.shapes!r}, expected {', '.join(sorted(arrays))}; "
            f"not so {', '.join(odd)}"
        )
    return found


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
    if name in BESIDES and isinstance(kernel, str):
        BESIDES[name](name, known, arguments)


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
    elif get_origin(kind) is tuple:
        right = type(value) is tuple and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    else:
        right = type(value) is kind
    if not right:
        shown = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
        wanted = "ints" if get_origin(kind) is tuple else kind.__name__
        raise TypeError(f"kernel {name}: {parameter} is {shown}, expected {wanted}")
    if hasattr(value, "_fields"):
        for field, size in zip(value._fields, value, strict=True):
            least = _LEAST.get(field.partition("_")[0], 1)
            shapes.integer(f"kernel {name}", f"{parameter}.{field}", size, least)
        _check_dims(name, parameter, value)


@lru_cache(1 << 12)
def _check_dims(name: str, parameter: str, d: Any) -> None:
    """Sizes that a call can have, and a geometry that follows from itself."""
    where = f"kernel {name}"
    if isinstance(d, Conv2dDims):
        filters = (d.kh, d.kw, d.c // d.groups, d.f)
        end_h = (d.oh - 1) * d.stride_h + shapes.reach(d.kh, d.dilation_h) - d.h - d.pad_h
        end_w = (d.ow - 1) * d.stride_w + shapes.reach(d.kw, d.dilation_w) - d.w - d.pad_w
        around = (d.pad_h, max(end_h, 0)), (d.pad_w, max(end_w, 0))
        strides = (d.stride_h, d.stride_w)
        shapes.conv2d(
            (BATCH, d.h, d.w, d.c), filters, None, strides, around, (d.dilation_h, d.dilation_w), d.groups, where
        )
    elif isinstance(d, Pool2dDims):
        window = (d.kh, d.kw), (d.stride_h, d.stride_w), ((d.pad_h, d.end_h), (d.pad_w, d.end_w))
        dilation = d.dilation_h, d.dilation_w
        for ceil_mode in (True, False):
            right = shapes.pool2d((BATCH, d.h, d.w, d.c), *window, where, dilation, ceil_mode)
            if d == right:
                break
        else:
            raise ValueError(
                f"{where}: {parameter}.oh and ow are {(d.oh, d.ow)}, expected {(right.oh, right.ow)}, "
                "as its other sizes have it"
            )
    elif isinstance(d, GroupDims) and d.channels % d.groups:
        raise ValueError(f"{where}: {parameter}.groups is {d.groups}, expected a divisor of {d.channels} channels")
    elif isinstance(d, SliceDims):
        last = d.start + (d.kept - 1) * d.step
        if d.step == 0 or not (0 <= d.start < d.size and 0 <= last < d.size):
            raise ValueError(f"{where}: {parameter} takes places {d.start} to {last} of an axis of {d.size}")


_LEAST = {"pad": 0, "end": 0, "start": 0, "top": -shapes.LARGEST, "left": -shapes.LARGEST, "step": -shapes.LARGEST}
"""The least that a field of dims can be, by what its name begins with; of others 1."""


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
        if axes.sizes == ANY:
            return
        if axes.flat:
            self._hold_elements(parameter, tuple(array.shape), axes)
            return
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
        self.equal(parameter, shape, expected)

    def equal(self, parameter: str, shape: Shape, expected: Shape) -> None:
        """Raise unless an array has the shape that it must have."""
        if tuple(shape) != tuple(expected):
            raise ValueError(
                f"kernel {self._name}: {parameter} has shape {shapes.text(shape)}, "
                f"expected {shapes.text(expected)}: {self._call()}"
            )

    def _hold_elements(self, parameter: str, shape: Shape, axes: Axes) -> None:
        batch, *sizes = (self.value(size) for size in axes.sizes)
        count = math.prod(map(int, sizes))
        if not shape or shape[0] != batch or BATCH in shape[1:] or math.prod(map(int, shape[1:])) != count:
            raise ValueError(
                f"kernel {self._name}: {parameter} has shape {shapes.text(shape)}, "
                f"expected {batch} samples of {count} elements: {self._call()}"
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
            value = {"+": value + other, "*": value * other}.get(sign, value // (other or 1))
        return value

    def _operand(self, name: str) -> int | str:
        if name.isdigit():
            return int(name)
        if name in self._sizes:
            return self._sizes[name]
        if name.isupper():
            return name
        owner, _, field = name.rpartition(".")
        value = getattr(self._arguments.get(owner or "d"), field, None)
        if not isinstance(value, int):
            raise ValueError(f"kernel {self._name}: its shapes name {name!r}, which the call has not")
        return value

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


# What no line says ------------------------------------------------------------------------------------------------


def _broadcast(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """y of the shape that a and b are broadcast to; da of a's shape, db of b's, or of any that is broadcast to dy's."""
    y = "dy" if "dy" in arguments else "y"
    shape = tuple(arguments[y].shape)
    parts = {part: tuple(arguments[part].shape) for part in ("a", "b") if arguments.get(part) is not None}
    if parts:
        known.equal(y, shape, _as_kernel(name, shapes.broadcast, parts["a"], parts["b"]))
    for part in ("a", "b"):
        gradient = arguments.get(f"d{part}")
        if gradient is not None:
            known.equal(f"d{part}", gradient.shape, parts.get(part, tuple(gradient.shape)))
            known.equal(y, shape, _as_kernel(name, shapes.broadcast, tuple(gradient.shape), shape))
    if "d" in arguments and arguments["d"] != shapes.elements(shape):
        raise ValueError(f"kernel {name}: d.size is {arguments['d'].size}, dy has shape {shapes.text(shape)}")


def _concat(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """y of the shape that the parts make side by side."""
    parts = {
        part: tuple(arguments[part].shape) for part in ("a", "b", "third", "fourth") if arguments[part] is not None
    }
    known.equal("y", arguments["y"].shape, shapes.concat(f"kernel {name}", **parts))


def _layernorm(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """gamma of the sizes of x's last axes, mean of its first ones."""
    x, gamma = tuple(arguments["x"].shape), tuple(arguments["gamma"].shape)
    d = shapes.layers(x, gamma, f"kernel {name}")
    if arguments["d"] != d:
        raise ValueError(f"kernel {name}: d is {tuple(arguments['d'])}, expected {tuple(d)}, as x and gamma have it")
    for parameter, expected in (
        *((own, x) for own in ("y", "dy", "dx")),
        *((own, gamma) for own in ("beta", "dgamma", "dbeta")),
        *((statistic, x[: -len(gamma)]) for statistic in ("mean", "inv_std")),
    ):
        if arguments.get(parameter) is not None:
            known.equal(parameter, arguments[parameter].shape, expected)


def _pad2d(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """Dims that the mode allows."""
    d: Pad2dDims = arguments["d"]
    padding = (d.top, d.oh - d.h - d.top), (d.left, d.ow - d.w - d.left)
    shapes.pad2d((BATCH, d.h, d.w, d.c), padding, arguments["mode"], f"kernel {name}")


def _prelu(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """A slope a channel, or one."""
    d = shapes.prelu(tuple(arguments["x"].shape), tuple(arguments["slope"].shape), f"kernel {name}")
    if arguments.get("d", d) != d:
        raise ValueError(f"kernel {name}: d is {tuple(arguments['d'])}, expected {tuple(d)}, as x and slope have it")
    for parameter in ("dy", "dx"):
        if arguments.get(parameter) is not None:
            known.equal(parameter, arguments[parameter].shape, tuple(arguments["x"].shape))


def _response(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """As many channels as there can be."""
    shapes.integer(f"kernel {name}", "size", arguments["size"], 1)


def _folded(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """No windows over groups, or over a sum."""
    d, pool = arguments["d"], arguments["pool"]
    if arguments.get("residual") is not None and pool.kh * pool.kw > 1:
        raise ValueError(f"kernel {name}: pool has windows of {pool.kh} x {pool.kw} over a residual, expected none")
    if d.groups > 1 and pool.kh * pool.kw > 1:
        raise ValueError(
            f"kernel {name}: pool has windows of {pool.kh} x {pool.kw} over {d.groups} groups, expected one"
        )


def _transpose(name: str, known: _Sizes, arguments: Mapping[str, Any]) -> None:
    """y of x's axes in that order."""
    x, axes = tuple(arguments["x"].shape), arguments["axes"]
    if sorted(axes) != list(range(len(x))):
        raise ValueError(f"kernel {name}: axes is {axes}, expected each of 0 to {len(x) - 1} once")
    known.equal("y", arguments["y"].shape, tuple(x[axis] for axis in axes))


def _as_kernel(name: str, function: Callable[..., Shape], *shapes_: Shape) -> Shape:
    return function(*shapes_, f"kernel {name}")


WRITES_PARTS = ("conv2d_folded", "maxpool2d_inference")
"""The kernels whose y may be some of the channels of a larger array, as long as there is no residual."""

Besides = Callable[[str, _Sizes, Mapping[str, Any]], None]

BESIDES: dict[str, Besides] = {
    **{
        f"{kernel}{end}": _broadcast
        for kernel in ("add", "subtract", "multiply", "divide", "raise_to_power")
        for end in ("", "_backward")
    },
    **{
        f"{kernel}{end}": check
        for kernel, check in (
            ("layernorm", _layernorm),
            ("pad2d", _pad2d),
            ("prelu", _prelu),
            ("local_response_norm", _response),
        )
        for end in ("", "_backward")
    },
    "concat": _concat,
    "conv2d_folded": _folded,
    "transpose": _transpose,
}
"""By kernel, what its line leaves to a function: called with the kernel's name, what is known, and the arguments."""
