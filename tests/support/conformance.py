"""One generic comparison of backends: the same fill-level call on each, every array argument compared.

`benchmarks.suite.common.record` turns a case of the table into the call that a backend receives. `execute` makes that
call on a backend with outputs and scratch poisoned, surrounds every array with guards, and checks that nothing was
written outside the outputs. `assert_close` compares the results.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

import kernels
from benchmarks.suite.common import Call
from kernels.interface import Backend, roles

from . import naive

Results = dict[str, np.ndarray]

GUARD = 32
"""Elements before and after every array that a kernel must leave alone."""

POISONS = (np.nan, 1e30)
"""What outputs and scratch hold on entry: a NaN shows in every sum, a number where NaN is the right answer."""

MODULES = {"naive": naive, **{name: kernels.get(name).backend for name in kernels.names()}}


def optional_outputs(kernel: str) -> list[str]:
    """The outputs that a caller may refuse by passing None."""
    hints = get_type_hints(getattr(Backend, kernel), include_extras=True)
    return [
        name
        for name, role in roles(kernel).items()
        if role == "output" and get_origin(hints[name]) is Union and type(None) in get_args(hints[name])
    ]


class _Guarded:
    """An array between two guards; `shift` moves it off every alignment but that of its elements."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, shift: int) -> None:
        size = int(np.prod(shape))
        self._whole = np.full(size + 2 * GUARD + shift, _sentinel(dtype), dtype)
        self._before = GUARD + shift
        self._after = self._before + size
        self.array = self._whole[self._before : self._after].reshape(shape)

    def intact(self) -> bool:
        guards = np.concatenate([self._whole[: self._before], self._whole[self._after :]])
        return bool(np.all(guards == _sentinel(self._whole.dtype)))


def _sentinel(dtype: np.dtype) -> Any:
    return True if dtype == np.bool_ else 113


def execute(backend: Any, call: Call, poison: float = np.nan, shift: int = 0, omit: tuple[str, ...] = ()) -> Results:
    """Call the backend on copies and return every array it may write to.

    Asserts that inputs are unchanged bit for bit and that nothing was written beside any array. Outputs in
    `omit` are passed as None.
    """
    arguments: dict[str, Any] = {}
    guarded: dict[str, _Guarded] = {}
    inputs = call.arrays("input")
    first = next(iter({**inputs, **call.arrays("in place")}.values()))
    for name, role in roles(call.kernel).items():
        value = call.arguments[name]
        if role == "attribute" or value is None or name in omit:
            arguments[name] = None if name in omit else value
            continue
        shape = value.shape
        if role == "scratch":
            size = getattr(backend, f"{call.kernel}_scratch")(call.arguments["d"], len(first))
            shape = (size,)
        guarded[name] = _Guarded(shape, value.dtype, shift)
        arguments[name] = guarded[name].array
        if role in ("input", "in place"):
            arguments[name][...] = value
        else:
            arguments[name][...] = poison if value.dtype.kind == "f" else _sentinel(value.dtype)
    with np.errstate(invalid="ignore"):
        returned = getattr(backend, call.kernel)(*arguments.values())
    assert returned is None, f"{call.kernel} returned {type(returned).__name__}"
    for name, guard in guarded.items():
        assert guard.intact(), f"{call.kernel} wrote outside {name}"
    for name, before in inputs.items():
        assert arguments[name].tobytes() == before.tobytes(), f"{call.kernel} wrote to its input {name}"
    written = call.arrays("output", "in place")
    return {name: arguments[name] for name in written if name not in omit}


# Budgets -------------------------------------------------------------------------------------------------------

_ELEMENTWISE_MODULES = ("activation", "combine", "optim")


def is_elementwise(kernel: str) -> bool:
    """Whether each output element depends on one element of each array: then each has a budget of its own."""
    module = getattr(MODULES["numpy"], kernel).__module__.rsplit(".", 1)[-1]
    return (module in _ELEMENTWISE_MODULES and "softmax" not in kernel) or kernel == "ema_update"


def reduction_length(call: Call) -> int:
    """The number of terms in the longest sum of the call."""
    arguments, d = call.arguments, call.arguments.get("d")
    sizes = [array.shape for array in call.arrays("input").values()]
    n = sizes[0][0] if sizes and sizes[0] else 1
    match call.kernel:
        case "linear":
            return d.k
        case "linear_backward":
            return max(d.k, d.m, n)
        case "conv2d":
            return d.kh * d.kw * d.c // d.groups
        case "conv2d_backward":
            return max(n * d.oh * d.ow, d.kh * d.kw * d.f // d.groups)
        case "softmax_cross_entropy":
            return n * d.channels
        case "mse":
            return arguments["prediction"].size
        case "smooth2d":
            return (2 * len(arguments["weights"]) - 1) ** 2
        case "warp":
            return 4
    if d is not None and "pool" in call.kernel:
        return d.kh * d.kw
    if d is not None:
        return n * d.positions
    return sizes[0][-1] if "softmax" in call.kernel else 1


def scales(call: Call, name: str, truth: np.ndarray) -> np.ndarray:
    """The size against which rounding of the output `name` is measured.

    Elementwise kernels: of each element, the largest among itself and the inputs at its place. Others: the
    largest finite value of the output; or of the same-shaped inputs where the result is what is left of them.
    """
    same_shape = {
        input: np.nan_to_num(np.abs(array.astype(np.float64)), nan=0.0, posinf=0.0)
        for input, array in call.arrays("input", "in place").items()
        if array.dtype.kind == "f" and array.shape == truth.shape
    }
    own = np.where(np.isfinite(truth), np.abs(truth), 0.0)
    if is_elementwise(call.kernel):
        return np.maximum.reduce([own, *same_shape.values()])
    scale = own.max()
    if any(word in call.kernel for word in ("norm", "softmax")):
        cancelling = ("dy",) if call.kernel.endswith("_backward") else ("x",)
        scale = max([scale, *(array.max() for input, array in same_shape.items() if input in cancelling)])
    if call.kernel == "softmax_cross_entropy" and name == "loss":
        scale = max(scale, np.nan_to_num(np.abs(call.arguments["logits"]), nan=0.0, posinf=0.0).max())
    return np.full(truth.shape, scale)


def _errors(got: np.ndarray, truth: np.ndarray, where: str) -> np.ndarray:
    """|got − truth|, after checking that NaN and infinities are where the truth has them."""
    with np.errstate(over="ignore"):
        rounded = truth.astype(got.dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite], err_msg=f"{where}: NaN or infinity")
    assert np.isfinite(got[finite]).all(), f"{where}: NaN or infinity where the truth is finite, or left unwritten"
    return np.where(finite, np.abs(np.where(finite, got, 0.0) - np.where(finite, truth, 0.0)), 0.0)


class Closeness(NamedTuple):
    """An output's error and its budget, element by element, in the output's own unit and in ulp of its scale."""

    error: np.ndarray
    budget: np.ndarray
    ulp: np.ndarray


def closeness(
    call: Call, got: Results, truth: Results, ulps: float, baseline: Results | None = None
) -> dict[str, Closeness]:
    """Of every output of floats; the budget is `ulps` √(reduction length) ulp, plus 4 times the baseline's error.

    Integer and bool outputs must be equal, NaN and infinities in their places: asserted here.
    """
    assert got.keys() == truth.keys()
    found = {}
    for name, value in got.items():
        where = f"{call.kernel}: {name}"
        expected = truth[name]
        assert value.shape == expected.shape
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(value, expected, err_msg=where)
            continue
        information = np.finfo(value.dtype)
        error = _errors(value, expected, where)
        ulp = information.eps * scales(call, name, expected)
        budget = ulps * np.sqrt(reduction_length(call)) * ulp + float(information.tiny)
        if baseline is not None:
            own = _errors(baseline[name], expected, where)
            budget = budget + 4.0 * (own if is_elementwise(call.kernel) else own.max())
        found[name] = Closeness(error, budget, np.maximum(ulp, float(information.smallest_subnormal)))
    return found


def assert_close(call: Call, got: Results, truth: Results, ulps: float, baseline: Results | None = None) -> None:
    """Every output within the budget of `closeness`."""
    for name, (error, budget, _) in closeness(call, got, truth, ulps, baseline).items():
        excess = np.max(error - budget)
        assert excess <= 0.0, f"{call.kernel}: {name}: error {error.max():.3g}, {excess:.3g} beyond its budget"
