"""How far a result is from the truth, in which unit, and how far it may be: one measure for whoever compares backends.

An error is |result − truth|. For float32 the truth is what the definition computes from the same numbers in float64;
for float64 it is a computation in another order, and rounds as well. An error's unit, ulp, is the spacing of numbers at
the output's size: see `scales`. With e for the definition's own error and n for the terms in the longest sum of the
call, a twin in float32 may be off by BASELINES e + ULPS (1 + √n) ulp, and one in float64 by ULPS (1 + √n) ulp. The
bound on a sum's error grows like n, but the error itself like √n, since roundings are nearly independent (Higham,
*Accuracy and Stability of Numerical Algorithms*). Whole numbers and truth values are equal or wrong, and NaN and
infinities stand where the truth has them or are wrong.

>>> import numpy as np
>>> import kernels
>>> x = np.array([0.1, 2.5], np.float32)
>>> call = Call("tanh", {"x": x, "y": np.empty_like(x)})
>>> k = kernels.get("numpy")
>>> found = closeness(call, call.results(k), call.in_float64().results(k))["y"]
>>> found.share <= 1.0
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from . import memory
from .interface import Kernel, roles

if TYPE_CHECKING:
    from .ops import Kernels

Results = dict[str, np.ndarray]

BASELINES = 4.0
"""How many times the definition's own error a twin in float32 may have."""

ULPS = {"float32": 2.0, "float64": 8.0}
"""Of rounding, for the result and, times √n, for n terms in its longest sum. In float64 the truth rounds as well."""

SENTINEL = 113
"""What whole numbers hold before a kernel writes them."""


# Calls -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A kernel and the arguments that a backend receives, by parameter name and in the call's order."""

    kernel: str | Kernel
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel if isinstance(self.kernel, str) else self.kernel.name

    def arrays(self, *wanted: str) -> Results:
        """The arguments of these roles that are there."""
        return {
            name: self.arguments[name]
            for name, role in roles(self.kernel).items()
            if role in wanted and self.arguments[name] is not None
        }

    @property
    def bytes(self) -> int:
        """Bytes of all arrays but scratch, each counted once a direction."""
        read, written = self.arrays("input", "in place"), self.arrays("output", "in place")
        return sum(array.nbytes for array in [*read.values(), *written.values()])

    def fresh(
        self,
        k: Kernels,
        allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray] = memory.empty,
        poison: float = np.nan,
        omit: Collection[str] = (),
    ) -> dict[str, Any]:
        """The arguments on arrays of their own, as `allocate(shape, dtype)` makes them.

        What the kernel reads is copied. Outputs and scratch hold `poison`, or SENTINEL if they are no floats; scratch
        has the size that k asks for. Outputs in `omit` are None.
        """
        arguments = dict(self.arguments)
        first = next(iter({**self.arrays("input"), **self.arrays("in place")}.values()))
        for name, role in roles(self.kernel).items():
            value = arguments[name]
            if name in omit:
                arguments[name] = None
            elif role != "attribute" and value is not None:
                size = (k.scratch_size(self.kernel, arguments["d"], len(first)),) if role == "scratch" else value.shape
                arguments[name] = allocate(size, value.dtype)
                if role in ("input", "in place"):
                    arguments[name][...] = value
                else:
                    arguments[name].fill(poison if value.dtype.kind == "f" else SENTINEL)
        return arguments

    def bind(self, k: Kernels) -> tuple[Callable[[], Any], Results]:
        """The call on arrays of its own, allocated and touched, and those of them that it writes."""
        arguments = self.fresh(k)
        function, values = k.function(self.kernel), list(arguments.values())
        return lambda: function(*values), {name: arguments[name] for name in self.arrays("output", "in place")}

    def results(self, k: Kernels) -> Results:
        """What the call writes when it is made once."""
        run, written = self.bind(k)
        with np.errstate(invalid="ignore"):
            run()
        return written

    def in_float64(self) -> Call:
        """The same call with every float32 array in float64: its results are the truth for float32."""

        def widen(value: Any, role: str) -> Any:
            if not isinstance(value, np.ndarray) or value.dtype != np.float32:
                return value
            # What an output holds before the call may be anything, and no number to convert.
            return value.astype(np.float64) if role in ("input", "in place") else np.empty(value.shape)

        names = roles(self.kernel)
        return Call(self.kernel, {name: widen(value, names[name]) for name, value in self.arguments.items()})


# The unit --------------------------------------------------------------------------------------------------------

_CANCELLING = ("norm", "softmax")
"""Kernels whose result is what is left of their inputs."""


def is_elementwise(kernel: str | Kernel) -> bool:
    """Whether each output element depends on one element of each array: then each has a budget of its own.

    Of kernels written elsewhere that is not known, and taken for no.
    """
    return isinstance(kernel, str) and "d" not in roles(kernel) and not any(word in kernel for word in _CANCELLING)


def reduction_length(call: Call) -> int:
    """The number of terms in the longest sum of a call of the contract."""
    arguments = call.arguments
    d: Any = arguments.get("d")
    sizes = [array.shape for array in call.arrays("input").values()]
    n = sizes[0][0] if sizes and sizes[0] else 1
    match call.kernel:
        case "linear":
            length = d.k
        case "linear_backward":
            length = max(d.k, d.m, n)
        case "conv2d" | "conv2d_folded":
            length = d.kh * d.kw * d.c // d.groups
        case "conv2d_backward":
            length = max(n * d.oh * d.ow, d.kh * d.kw * d.f // d.groups)
        case "convtranspose2d":
            length = d.kh * d.kw * d.f // d.groups
        case "convtranspose2d_backward":
            length = max(n * d.h * d.w, d.kh * d.kw * d.c // d.groups)
        case "softmax_cross_entropy" | "weighted_cross_entropy" | "soft_cross_entropy" | "binary_cross_entropy":
            length = arguments["logits"].size
        case "mse" | "weighted_mse" | "huber" | "mae":
            length = arguments["prediction"].size
        case "clip_norm":
            length = d.size
        case "smooth2d":
            length = (2 * len(arguments["weights"]) - 1) ** 2
        case "warp":
            length = 4
        case "mean":
            length = d.size
        case "slice" | "slice_backward" | "pad2d" | "mean_backward" | "upsample2d":
            length = 1
        case "pad2d_backward":
            length = (1 + d.oh // d.h) * (1 + d.ow // d.w)
        case "upsample2d_backward":
            length = d.factor_h * d.factor_w
        case "layernorm" | "layernorm_backward":
            length = max(n * d.positions, d.channels)
        case "groupnorm" | "groupnorm_backward":
            length = max(n * d.positions, d.positions * d.channels // d.groups)
        case "local_response_norm" | "local_response_norm_backward":
            length = arguments["size"]
        case "add_backward" | "subtract_backward" | "multiply_backward" | "divide_backward" | "raise_to_power_backward":
            length = max(arguments["dy"].size // array.size for array in call.arrays("output").values())
        case str(name) if d is not None:
            length = d.kh * d.kw if "pool" in name else n * d.positions
        case name:
            length = sizes[0][-1] if "softmax" in str(name) else 1
    return int(length)


def scales(call: Call, name: str, truth: np.ndarray, cancelling: bool = False) -> np.ndarray:
    """The size against which rounding of the output `name` is measured, element by element.

    Elementwise kernels: of each element, the largest among itself and the inputs at its place. Others: the largest
    finite value of the output; or of the same-shaped inputs where the result is what is left of them. cancelling: this
    output may be so though its kernel's are not in general, as a bias's gradient before a normalisation; it is then
    measured against the first input at least.
    """
    arrays = call.arrays("input", "in place").items()
    inputs = {input: array for input, array in arrays if array.dtype.kind == "f"}
    same_shape = {input: array for input, array in inputs.items() if array.shape == truth.shape}
    if is_elementwise(call.kernel):
        largest: np.ndarray = np.maximum.reduce([_sizes(truth), *map(_sizes, same_shape.values())])
        return largest
    measures = [truth]
    if any(word in call.name for word in _CANCELLING):
        left_of = "dy" if call.name.endswith("_backward") else "x"
        measures += [array for input, array in same_shape.items() if input == left_of]
    if call.name.endswith("cross_entropy") and name == "loss":
        measures.append(inputs["logits"])
    if cancelling:
        measures += list(inputs.values())[:1]
    return np.broadcast_to(max(map(_largest, measures)), truth.shape)


def _sizes(array: np.ndarray) -> np.ndarray:
    """|array| in float64, 0 where it is not finite."""
    sizes = np.abs(array.astype(np.float64))
    finite = np.isfinite(sizes)
    return sizes if finite.all() else np.where(finite, sizes, 0.0)


def _largest(array: np.ndarray) -> np.float64:
    """The maximum of `_sizes`, which is one of two numbers where all are finite."""
    most = max(np.float64(array.max()), -np.float64(array.min()))
    return most if np.isfinite(most) else np.float64(_sizes(array).max())


# Errors and budgets ----------------------------------------------------------------------------------------------


def errors(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|result − truth| element by element.

    Infinity where whole numbers or truth values differ, and where only one of the two is finite, or neither and they
    are not the same. Raises ValueError if the shapes differ.
    """
    if result.shape != truth.shape:
        raise ValueError(f"result has shape {result.shape}, expected the truth's, {truth.shape}")
    if result.dtype.kind != "f":
        return np.where(result == truth, 0.0, np.inf)
    if _all_finite(truth, result.dtype) and _all_finite(result, result.dtype):  # as nearly always, in few passes
        return np.asarray(np.abs(result - truth), np.float64)
    with np.errstate(over="ignore"):
        rounded = np.asarray(truth, result.dtype)
    finite = np.isfinite(rounded) & np.isfinite(result)
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    distance = np.abs(np.where(finite, result, 0.0) - np.where(finite, truth, 0.0))
    return np.where(finite, distance, np.where(same, 0.0, np.inf))


def _all_finite(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether all elements are finite numbers of a dtype: the extremes are."""
    extremes = np.array([array.min(initial=0), array.max(initial=0)])
    with np.errstate(over="ignore"):
        return bool(np.isfinite(extremes.astype(dtype)).all())


def rounding(terms: int, dtype: DTypeLike) -> float:
    """ULPS (1 + √terms), in ulp."""
    return ULPS[np.dtype(dtype).name] * (1.0 + math.sqrt(terms))


def budget(ulp: Any, terms: int, dtype: DTypeLike, baseline: Any = 0.0) -> Any:
    """How large an error may be, in the output's own unit, as `ulp` and the baseline's error are.

    An infinite baseline, which is wrong, excuses nothing.
    """
    excused = BASELINES * np.where(np.isfinite(baseline), baseline, 0.0)
    return excused + rounding(terms, dtype) * ulp + float(np.finfo(dtype).tiny)


def flushed(terms: int, largest: float) -> float:
    """How much of a sum of bfloat16 products a processor may lose that takes factors and sums below the smallest normal
    number for zeros. terms: products in the sum. largest: of the factors' absolute values.
    """
    return terms * float(np.finfo(np.float32).tiny) * (1.0 + largest)


class Closeness(NamedTuple):
    """An output's error, its budget and the unit of both, element by element, in the output's own unit."""

    error: np.ndarray
    budget: np.ndarray
    ulp: np.ndarray

    @property
    def ulps(self) -> float:
        """The largest error in ulp; infinity if anything is wrong that has no size."""
        return float(np.max(self.error / self.ulp, initial=0.0))

    @property
    def share(self) -> float:
        """The largest share that an error takes of its budget; beyond 1 the output is wrong."""
        return float(np.max(self.error / self.budget, initial=0.0))


def closeness(call: Call, results: Results, truth: Results, baseline: Results | None = None) -> dict[str, Closeness]:
    """How close each output is to the truth. baseline: the definition's own results, for calls in float32.

    Raises ValueError if these are not of the same outputs.
    """
    if results.keys() != truth.keys():
        raise ValueError(f"results are of {', '.join(results)}; expected the truth's, {', '.join(truth)}")
    found = {}
    for name, result in results.items():
        error = errors(result, truth[name])
        if result.dtype.kind != "f":
            found[name] = Closeness(error, np.ones(error.shape), np.ones(error.shape))
            continue
        scale = scales(call, name, truth[name])
        own = np.float64(0.0) if baseline is None else errors(baseline[name], truth[name])
        if not is_elementwise(call.kernel):  # one number for all elements: one is computed
            scale, own = scale[(slice(1),) * scale.ndim], own.max()
        ulp = np.finfo(result.dtype).eps * scale
        allowed = budget(ulp, reduction_length(call), result.dtype, own)
        least = np.maximum(ulp, float(np.finfo(result.dtype).smallest_subnormal))
        found[name] = Closeness(error, *(np.broadcast_to(each, error.shape) for each in (allowed, least)))
    return found
