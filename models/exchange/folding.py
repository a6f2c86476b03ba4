"""Folding: the operators of ONNX over values that a file states, such as shapes; what depends on no image.

A size that is not known before an image comes is a `BatchSize` in an array of objects, which NumPy indexes, joins and
multiplies as it does numbers.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MAX_FOLDED = 1 << 25
"""Numbers that one folded value may hold: 128 MB of float32. A repeated one is held once."""


class Refusal(Exception):
    """Why a node cannot be taken over."""


class BatchSize:
    """A whole multiple of the batch size."""

    __slots__ = ("times",)

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, BatchSize):
            raise Refusal("multiplies the batch size by itself")
        return BatchSize(self.times * _whole(other)) if other != 0 else 0

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, BatchSize):
            if other.times == 0 or self.times % other.times:
                raise Refusal("divides the batch size")
            return self.times // other.times
        divisor = _whole(other)
        if divisor == 0 or self.times % divisor:
            raise Refusal("divides the batch size")
        return BatchSize(self.times // divisor)

    __floordiv__ = __truediv__

    def __rtruediv__(self, other: Any) -> Any:
        raise Refusal("divides by the batch size")

    __rfloordiv__ = __rtruediv__

    def _refused(self, other: Any = None) -> Any:
        raise Refusal("computes with the batch size")

    __add__ = __radd__ = __sub__ = __rsub__ = __neg__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _refused
    __float__ = __int__ = __index__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = _refused

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchSize) and other.times == self.times

    def __hash__(self) -> int:
        return hash(("N", self.times))

    def __repr__(self) -> str:
        return "N" if self.times == 1 else f"{self.times} N"


def _whole(value: Any) -> int:
    if value != int(value):
        raise Refusal("multiplies the batch size by a fraction")
    return int(value)


Attributes = Mapping[str, Any]
Fold = Callable[[Sequence[Any], Attributes, int], Any]

FOLDS: dict[str, Fold] = {}
"""By operator: (inputs, attributes, opset) to an array or a list of arrays. A missing optional input is None."""


def _fold(*names: str) -> Callable[[Fold], Fold]:
    def register(function: Fold) -> Fold:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return register


def fold(name: str, inputs: Sequence[Any], attributes: Attributes, opset: int) -> list[np.ndarray]:
    """The outputs of an operator over known inputs. Raises Refusal where it is none of those here, or cannot be."""
    if name not in FOLDS:
        raise Refusal("is not known over constants alone")
    try:
        with np.errstate(all="ignore"):
            result = FOLDS[name](inputs, attributes, opset)
    except Refusal:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:  # None has no attributes
        raise Refusal(f"its constant inputs do not fit ({error})") from None
    return [np.asarray(each) for each in (result if isinstance(result, list) else [result])]


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape of whole numbers that memory holds."""
    sizes = tuple(operator.index(size) for size in shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_FOLDED:
        raise Refusal(f"makes a constant of shape {sizes}, expected at most {MAX_FOLDED} numbers")
    return sizes


def symbolic(array: np.ndarray) -> bool:
    """Whether an array holds a size that is not known."""
    return array.dtype == object and any(isinstance(each, BatchSize) for each in array.flat)


def integers(array: np.ndarray) -> list[int]:
    """A small array of whole numbers as a list. Raises Refusal for any other."""
    if symbolic(array):
        raise Refusal("depends on the batch size")
    if array.size > 1024 or (array.dtype != object and not np.issubdtype(array.dtype, np.integer)):
        raise Refusal(f"has {array.size} numbers of {array.dtype} where a few integers are expected")
    return [int(each) for each in array.flat]


def sizes(array: np.ndarray) -> list[int | BatchSize]:
    """A shape, which may hold the batch size. Raises Refusal for any other array."""
    return [each if isinstance(each, BatchSize) else integers(np.asarray(each))[0] for each in array.flat]


def _axes(inputs: Sequence[Any], attributes: Attributes, at: int = 1) -> list[int] | None:
    """The attribute `axes`, or the input that later versions have in its place."""
    if "axes" in attributes:
        return [int(axis) for axis in attributes["axes"]]
    return None if len(inputs) <= at or inputs[at] is None else integers(inputs[at])


def _elementwise(function: Callable[..., Any]) -> Fold:
    def folded(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
        bounded(np.broadcast_shapes(*(np.shape(each) for each in inputs)))
        return function(*inputs)

    return folded


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers are divided towards zero."""
    if a.dtype == object or b.dtype == object:
        return np.asarray(np.floor_divide(a.astype(object), b.astype(object)))
    if np.issubdtype(a.dtype, np.integer):
        if not np.all(b):
            raise Refusal("divides integers by zero")
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return np.asarray(a / b)


_PLAIN: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Reciprocal": lambda a: (1 / a).astype(a.dtype),
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
    "Where": np.where,
    "Mod": np.mod,
    "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
    "Sign": np.sign,
    "Round": np.rint,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "Sigmoid": lambda a: (1 / (1 + np.exp(-a))).astype(a.dtype),
    "Relu": lambda a: np.maximum(a, 0),
    "Identity": lambda a: a,
}
for _name, _function in _PLAIN.items():
    FOLDS[_name] = _elementwise(_function)


def _repeats(function: Any) -> Fold:
    return _elementwise(lambda *arrays: functools.reduce(function, arrays))


FOLDS["Sum"], FOLDS["Max"], FOLDS["Min"] = _repeats(np.add), _repeats(np.maximum), _repeats(np.minimum)


@_fold("DequantizeLinear")
def _dequantize(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    quantised, scale, *zero = inputs
    if attributes.get("block_size", 0) or scale.ndim > 1:
        raise Refusal("has a scale for each block of numbers, expected one in all or one along an axis")
    bounded(quantised.shape)
    axis = attributes.get("axis", 1) % max(1, quantised.ndim)
    along = (-1, *(1,) * (quantised.ndim - axis - 1)) if scale.size > 1 else ()
    whole = quantised.astype(np.int64)  # types of few bits would overflow
    if zero and zero[0] is not None:
        whole = whole - zero[0].astype(np.int64).reshape(along)
    return (whole * scale.astype(np.float32).reshape(along)).astype(scale.dtype)


@_fold("Constant")
def _constant(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    for name, dtype in {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }.items():
        if name in attributes:
            return np.asarray(attributes[name], dtype)
    raise Refusal(f"holds no numbers, but {', '.join(sorted(attributes)) or 'nothing'}")


@_fold("ConstantOfShape")
def _constant_of_shape(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    value = np.asarray(attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1:
        raise Refusal(f"repeats {value.size} numbers, expected one")
    sizes = [size if size >= 0 else -1 for size in integers(inputs[0])]
    if -1 in sizes or math.prod(sizes) > 1 << 40:
        raise Refusal(f"makes a constant of shape {tuple(sizes)}")
    return np.broadcast_to(value.reshape(()), sizes)  # one number in memory, however many are asked for


@_fold("Shape")
def _shape(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return sliced_shape(list(inputs[0].shape), attributes)


def sliced_shape(sizes: Sequence[Any], attributes: Attributes) -> np.ndarray:
    """The sizes that the operator Shape gives, from `start` to `end`: an array of int64, or of objects with N."""
    part = list(sizes)[attributes.get("start", 0) : attributes.get("end", len(sizes))]
    if any(isinstance(size, BatchSize) for size in part):
        array = np.empty(len(part), object)
        array[:] = part
        return array
    return np.array(part, np.int64)


@_fold("Size")
def _size(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return np.int64(inputs[0].size)


@_fold("Gather")
def _gather(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    array, at = inputs
    axis = attributes.get("axis", 0)
    bounded((*array.shape[:axis], *at.shape, *array.shape[axis:][1:]) if axis >= 0 else at.shape)
    return np.take(array, np.asarray(at, np.int64), axis=axis)


@_fold("Concat")
def _concat(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    bounded([sum(each.size for each in inputs)])
    return np.concatenate(list(inputs), axis=attributes.get("axis", 1 if opset < 4 else 0))


@_fold("Unsqueeze")
def _unsqueeze(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    axes = _axes(inputs, attributes) or []
    return np.expand_dims(inputs[0], tuple(axes))


@_fold("Squeeze")
def _squeeze(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    axes = _axes(inputs, attributes)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


@_fold("Reshape")
def _reshape(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    array = inputs[0]
    sizes = integers(inputs[1]) if len(inputs) > 1 else list(attributes["shape"])
    if not attributes.get("allowzero", 0):
        sizes = [array.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    bounded([array.size if array.strides and any(array.strides) else 1])  # a repeated number stays one, or is copied
    return array.reshape(sizes)


@_fold("Flatten")
def _flatten(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    axis = attributes.get("axis", 1)
    axis += inputs[0].ndim if axis < 0 else 0
    bounded([inputs[0].size])
    return inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)


@_fold("Transpose")
def _transpose(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return inputs[0].transpose(attributes.get("perm"))


@_fold("Expand")
def _expand(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    shape = np.broadcast_shapes(inputs[0].shape, bounded(integers(inputs[1])))
    return np.broadcast_to(inputs[0], bounded(shape))


@_fold("Tile")
def _tile(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    times = integers(inputs[1])
    bounded([max(0, n) * size for n, size in zip(times, inputs[0].shape, strict=True)])
    return np.tile(inputs[0], times)


@_fold("Range")
def _range(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    start, stop, step = (each.item() for each in inputs)
    bounded([max(0, math.ceil((stop - start) / step))])
    return np.arange(start, stop, step, dtype=inputs[0].dtype)


@_fold("Slice")
def _slice(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return inputs[0][slices(inputs, attributes, inputs[0].shape)]


def slices(inputs: Sequence[Any], attributes: Attributes, shape: Sequence[Any]) -> tuple[slice, ...]:
    """What the operator Slice takes of every axis."""
    if "starts" in attributes:
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
        axes, steps = attributes.get("axes"), None
    else:
        starts, ends = integers(inputs[1]), integers(inputs[2])
        axes = None if len(inputs) < 4 or inputs[3] is None else integers(inputs[3])
        steps = None if len(inputs) < 5 or inputs[4] is None else integers(inputs[4])
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    taken = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Python's own -1 would end before the last element, where ONNX's beyond the first ends with the first.
        stop = None if step < 0 and end < 0 and isinstance(shape[axis], int) and end < -shape[axis] else end
        taken[axis] = slice(start, stop, step)
    return tuple(taken)


@_fold("Split")
def _split(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    array = inputs[0]
    axis = attributes.get("axis", 0)
    parts = attributes.get("split") or (integers(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None)
    if parts is None:
        count = attributes["num_outputs"]
        bounded([count * array.ndim])
        return np.array_split(array, count, axis)
    return np.split(array, np.cumsum(parts)[:-1], axis)


def _reduces(function: Any) -> Fold:
    def folded(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
        return function.reduce(inputs[0], **_reduction(inputs, attributes))

    return folded


FOLDS["ReduceProd"] = _reduces(np.multiply)
FOLDS["ReduceSum"] = _reduces(np.add)
FOLDS["ReduceMax"] = _reduces(np.maximum)
FOLDS["ReduceMin"] = _reduces(np.minimum)


@_fold("ReduceMean")
def _reduce_mean(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return np.mean(inputs[0], **_reduction(inputs, attributes), dtype=np.float64).astype(inputs[0].dtype)


@_fold("ReduceL1")
def _reduce_l1(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return np.sum(np.abs(inputs[0]), **_reduction(inputs, attributes))


@_fold("ReduceSumSquare")
def _reduce_sum_square(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return np.sum(np.square(inputs[0]), **_reduction(inputs, attributes))


@_fold("ReduceL2")
def _reduce_l2(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    return np.sqrt(_reduce_sum_square(inputs, attributes, opset))


def _reduction(inputs: Sequence[Any], attributes: Attributes) -> dict[str, Any]:
    bounded(np.shape(inputs[0]))  # one number that is repeated takes no memory, and all the more time
    axes = _axes(inputs, attributes)
    return {"axis": None if not axes else tuple(axes), "keepdims": bool(attributes.get("keepdims", 1))}


DTYPES = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
"""NumPy's type by ONNX's number of it."""


@_fold("Cast")
def _cast(inputs: Sequence[Any], attributes: Attributes, opset: int) -> Any:
    if attributes["to"] not in DTYPES:
        raise Refusal(f"casts to type {attributes['to']}")
    array, dtype = inputs[0], DTYPES[attributes["to"]]
    if symbolic(array):
        return array
    if array.size > MAX_FOLDED and not any(array.strides):
        return np.broadcast_to(array.flat[0].astype(dtype), array.shape)
    bounded(array.shape)
    return array.astype(dtype)
