"""`twinkernels check`: each mistake is found by the check that is for it, and nothing is found where there is none."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

import kernels
from kernels import InPlace, Input, Output
from twinkernels.bench import FileError, Twins, checks, twins
from twinkernels.bench.checks import Checked
from twinkernels.bench.declare import Case
from twinkernels.bench.draw import Draw

Function = Callable[..., Any]


def cases(kernel: Twins, build: Callable[[Draw], Any], **options: Any) -> list[Case]:
    kernel.name = kernel.name or "k"
    options["takes"] = (*kernel.takes, *options.pop("takes", ()))
    return [Case(kernel, "case", build, **options)]


def found(kernel: Twins, build: Callable[[Draw], Any], **options: Any) -> dict[str, Checked]:
    return {checked.contestant: checked for checked in checks.check(cases(kernel, build, **options))}


def faults(kernel: Twins, build: Callable[[Draw], Any], **options: Any) -> set[str]:
    *_, last = found(kernel, build, **options).values()
    return {fault.check for fault in last.faults}


def matrix(draw: Draw) -> dict[str, np.ndarray]:
    return {"x": draw.normal(40, 30)}


def filled(draw: Draw) -> dict[str, np.ndarray]:
    return {"x": draw.normal(40, 30), "y": draw.empty(40, 30)}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def relu_fill(x: np.ndarray, y: np.ndarray) -> None:
    np.maximum(x, 0, out=y)


# Right -----------------------------------------------------------------------------------------------------------


def test_a_right_twin_is_right() -> None:
    twin = twins(numpy=relu, other=lambda x: x * (x > 0), takes="denormals ties empty one views readonly")
    shown = found(twin, matrix)
    assert [checked.faults for checked in shown.values()] == [(), ()]
    assert [checked.title for checked in shown.values()] == ["k/case numpy float32", "k/case other float32"]


def test_arguments_of_every_kind() -> None:
    def definition(x: np.ndarray, mask: np.ndarray, labels: np.ndarray, shape: tuple[int, int], *, scale: float) -> Any:
        assert shape == x.shape
        return np.where(mask, x * scale, 0), labels + 1, mask.sum()

    def build(draw: Draw) -> dict[str, Any]:
        x = draw.normal(6, 5)
        return {"shape": x.shape, "x": x, "mask": draw.booleans(6, 5), "labels": draw.labels(6, 3), "scale": 2.0}

    twin = twins(numpy=definition, other=functools.partial(definition))
    assert faults(twin, build, dtypes=("float64", "float32")) == set()
    wrong = twins(numpy=definition, other=lambda *a, **b: (*definition(*a, **b)[:2], np.int64(3)))
    assert faults(wrong, build) == {"agreement"}


def test_arrays_in_place_start_anew_at_every_call() -> None:
    def step(p: np.ndarray, g: np.ndarray) -> None:
        p -= np.float32(0.5) * g

    def build(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        return draw.normal(50), draw.normal(50)

    def late(p: np.ndarray, g: np.ndarray) -> None:
        p[1:] -= np.float32(0.5) * g[1:]

    assert faults(twins(numpy=step, other=step, in_place="p"), build) == set()
    assert faults(twins(numpy=step, other=late, in_place="p"), build) == {"agreement"}


def test_annotations_say_what_is_filled() -> None:
    def definition(p: InPlace, x: Input, y: Output) -> None:
        np.add(p, x, out=y)
        p += 1

    def build(draw: Draw) -> tuple[np.ndarray, ...]:
        return draw.normal(9), draw.normal(9), draw.empty(9)

    assert faults(twins(numpy=definition, other=definition), build) == set()


def test_what_lies_as_fortran_does_stays_so() -> None:
    seen = []

    def definition(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        seen.append((x.flags.f_contiguous and not x.flags.c_contiguous, z.strides[-1] // z.itemsize))
        return x + z

    def build(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        return draw.normal(7, 5).T, draw.normal(5, 14)[:, ::2]

    assert faults(twins(numpy=definition, other=definition), build) == set()
    assert (True, 2) in seen


@pytest.mark.parametrize(
    ("right_up_to", "expected"), [(1, {"agreement"}), (5, set())], ids=["made small", "cut to one"]
)
def test_arrays_without_gaps_have_none_where_they_are_cut(right_up_to: int, expected: set[str]) -> None:
    seen = set()

    def other(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        if x.shape != (7, 5):
            seen.add((x.flags.c_contiguous, z.flags.f_contiguous))
        return (x + z) * np.float32(1 if x.shape[1] <= right_up_to else 1.0001)

    def build(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        return draw.normal(7, 5), draw.normal(5, 7).T

    assert faults(twins(numpy=lambda x, z: x + z, other=other, takes="one"), build) == expected
    assert seen == {(True, True)}


def test_a_contestant_that_is_not_installed_is_left_out() -> None:
    shown = found(twins(numpy=relu, torch="no_such_package:relu"), matrix)
    assert "no_such_package" in shown["torch"].missing
    assert shown["torch"].faults == ()


# Wrong -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_ten_thousandth_is_found_and_made_small(dtype: str) -> None:
    twin = twins(numpy=relu, other=lambda x: relu(x) * x.dtype.type(1.0001))
    shown = found(twin, matrix, dtypes=(dtype,))["other"]
    (fault,) = shown.faults
    assert fault.check == "agreement"
    assert "by the definition" in fault.text
    assert "smallest input: x (1, 1)" in fault.text
    if dtype == "float32":
        assert "839 ulp" in fault.text
        assert shown.share > 100


def test_small_elements_count_where_each_is_measured_at_its_own_size() -> None:
    def off(x: np.ndarray) -> np.ndarray:
        y = relu(x)
        y[y < 0.1] *= np.float32(1.00001)
        return y

    assert faults(twins(numpy=relu, other=off), matrix) == set()
    assert faults(twins(numpy=relu, other=off, elementwise=True), matrix) == {"agreement"}
    assert faults(twins(numpy=relu, other=off, elementwise=True, ulps=200), matrix) == set()


def test_a_naive_sum_of_large_numbers_is_found() -> None:
    def naive(x: np.ndarray) -> np.ndarray:
        return np.cumsum(x)[-1:]

    def build(draw: Draw) -> dict[str, np.ndarray]:
        return {"x": draw.normal(300_000, mean=1000.0)}

    assert faults(twins(numpy=lambda x: x.sum(keepdims=True), other=naive), build) == {"agreement"}
    assert faults(twins(numpy=lambda x: x.sum(keepdims=True), other=naive, terms=10**9), build) == set()


def test_what_is_left_unwritten_is_found() -> None:
    def partial(x: np.ndarray, y: np.ndarray) -> None:
        y[:-1] = relu(x[:-1])

    def added(x: np.ndarray, y: np.ndarray) -> None:
        y += relu(x)

    for wrong in partial, added:
        assert "outputs" in faults(twins(numpy=relu_fill, other=wrong, outputs="y"), filled)


def test_an_array_of_its_own_that_is_left_unwritten_is_found() -> None:
    def partial(x: np.ndarray) -> np.ndarray:
        y = np.empty_like(x)
        y[:-1] = relu(x[:-1])
        return y

    if checks.arrays.mallopt() is None:
        pytest.skip("new memory cannot be filled with garbage with this C library")
    shown = found(twins(numpy=relu, other=partial), matrix)["other"]
    text = next(fault.text for fault in shown.faults if fault.check == "outputs")
    assert text == "result[39, 0] is unwritten, or made of memory that nobody wrote; 30 of 1,200 elements"


def test_a_nan_that_is_right_does_not_hide_an_unwritten_one() -> None:
    def build(draw: Draw) -> dict[str, np.ndarray]:
        return {"x": np.full((2, 2), np.nan, np.float32), "y": draw.empty(2, 2)}

    assert faults(twins(numpy=relu_fill, other=lambda x, y: None, outputs="y"), build) == {"outputs"}


def test_a_changed_input_is_found() -> None:
    def changes(x: np.ndarray) -> np.ndarray:
        np.maximum(x, 0, out=x)
        return x

    shown = found(twins(numpy=relu, other=changes), matrix)["other"]
    (fault,) = shown.faults
    assert fault.check == "inputs"
    assert fault.text.startswith("k wrote to its input x: [0, 1] was -0.13")
    assert faults(twins(numpy=changes, other=relu), matrix) == set()
    assert {fault.check for fault in found(twins(numpy=changes), matrix)["numpy"].faults} == {"inputs"}


def test_writing_outside_is_found() -> None:
    def outside(x: np.ndarray, y: np.ndarray) -> None:
        relu_fill(x, y)
        np.lib.stride_tricks.as_strided(y, (41, 30))[40, 29] = 0  # a whole row away

    assert faults(twins(numpy=relu_fill, other=outside, outputs="y"), filled) == {"bounds"}


def test_another_dtype_or_shape_is_found() -> None:
    assert faults(twins(numpy=relu, other=lambda x: relu(x).astype(np.float64)), matrix) == {"types"}
    assert faults(twins(numpy=relu, other=lambda x: relu(x)[:, :5]), matrix) == {"types"}


def test_bits_that_change_are_found() -> None:
    counter = itertools.count()

    def drifts(x: np.ndarray) -> np.ndarray:
        y = relu(x)
        y[0, 0] = np.float32(1 + next(counter) * 1e-7) * y[0, 0]
        return y

    def threaded(x: np.ndarray) -> np.ndarray:
        y = relu(x)
        y[0, 0] = np.float32(1 + kernels.get_threads() * 1e-7) * y[0, 0]
        return y

    assert faults(twins(numpy=relu, other=drifts), matrix) == {"bits"}
    kernels.set_threads(1)
    (fault,) = found(twins(numpy=relu, other=threaded), matrix)["other"].faults
    assert fault.text.startswith("2 threads give other bits: result[0, 0]")
    assert kernels.get_threads() == 1
    assert faults(twins(numpy=relu, other=threaded, same_bits=False), matrix) == set()


@numba.njit(parallel=True, cache=True)
def race(x):  # type: ignore[no-untyped-def]
    y = np.zeros(x.shape[1], x.dtype)
    for i in numba.prange(x.shape[0]):
        for j in range(x.shape[1]):
            y[j] += x[i, j]
    return y


@numba.njit(fastmath=True, cache=True)
def fast(x):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for i in range(x.size):
        y.flat[i] = np.float32(0) if np.isnan(x.flat[i]) else x.flat[i]
    return y


@numba.njit(cache=True)
def creeping(x):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for i in range(x.size):
        y.flat[i] = 0.1 * x.flat[i]
    return y


COMPILED = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="Numba compiles nothing here")


@COMPILED
def test_a_race_is_found(new_memory: None) -> None:
    def build(draw: Draw) -> dict[str, np.ndarray]:
        return {"x": draw.normal(30_000, 64)}

    assert faults(twins(numpy=lambda x: x.sum(axis=0), numba=race), build) & {"bits", "agreement"}


@COMPILED
def test_fastmath_that_loses_nan_is_found_where_the_file_takes_nan() -> None:
    def definition(x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), np.float32(0), x)

    assert faults(twins(numpy=definition, numba=fast), matrix) == set()
    assert faults(twins(numpy=definition, numba=fast, takes="nan"), matrix) == {"takes"}


@COMPILED
@pytest.mark.parametrize("where", ["compiled just now", "from Numba's cache"])
def test_float64_that_creeps_in_is_found(where: str) -> None:
    def definition(x: np.ndarray) -> np.ndarray:
        return x * 0.1

    creeps = creeping if where == "from Numba's cache" else numba.njit(creeping.py_func)
    (fault,) = found(twins(numpy=definition, numba=creeps), matrix)["numba"].faults
    assert fault.check == "float64"
    assert faults(twins(numpy=definition, numba=creeps, float64=True), matrix) == set()


@pytest.mark.parametrize(
    ("takes", "definition", "wrong"),
    [
        ("nan", relu, lambda x: np.where(x > 0, x, np.float32(0))),
        ("inf", lambda x: x - x, lambda x: np.zeros_like(x)),
        ("zeros", lambda x: -x, lambda x: 0 - x),
        ("denormals", lambda x: x * 1, lambda x: np.where(np.abs(x) < 1e-38, np.float32(0), x)),
        ("ties", lambda x: x.argmax(1), lambda x: x.shape[1] - 1 - x[:, ::-1].argmax(1)),
        ("empty", lambda x: x.sum(0), lambda x: x.sum(0) if len(x) else np.ones(x.shape[1], x.dtype)),
        ("one", lambda x: x.sum(0), lambda x: x.sum(0) if len(x) > 1 else np.zeros(x.shape[1], x.dtype)),
        ("views", lambda x: x * 1, lambda x: np.lib.stride_tricks.as_strided(x, x.shape, (120, 4)).copy()),
        ("readonly", relu, lambda x: np.maximum(x, 0, out=x) * 1),
    ],
)
def test_what_the_file_says_that_it_takes_is_tried(takes: str, definition: Function, wrong: Function) -> None:
    kernel = twins(numpy=definition, other=wrong, elementwise=True, takes=takes)
    assert "takes" in faults(kernel, matrix)
    assert faults(twins(numpy=definition, other=definition, elementwise=True, takes=takes), matrix) == set()


def test_numbers_are_results_as_arrays_are() -> None:
    def definition(x: np.ndarray) -> tuple[np.float32, int]:
        return x.sum(), int(x.argmax())

    def off(x: np.ndarray) -> tuple[np.float32, int]:
        return x.sum() * np.float32(1.0001), int(x.argmax())

    assert faults(twins(numpy=definition, other=definition), matrix) == set()
    (fault,) = found(twins(numpy=definition, other=off), matrix)["other"].faults
    assert fault.text.startswith("result[0] is ")


def test_a_twin_that_leans_on_alignment_is_found() -> None:
    def aligned(x: np.ndarray) -> np.ndarray:
        return relu(x) * np.float32(1 + x.ctypes.data % 64)

    (fault,) = found(twins(numpy=relu, other=aligned), matrix)["other"].faults
    assert fault.text.startswith("with arrays off alignment result[")


def test_a_twin_that_raises_later_is_a_fault() -> None:
    calls = itertools.count()

    def tired(x: np.ndarray) -> np.ndarray:
        if next(calls) > 2:
            raise RuntimeError("no more")
        return relu(x)

    (fault,) = found(twins(numpy=relu, other=tired), matrix)["other"].faults
    assert fault.text == "raises RuntimeError: no more in a later call"


def test_sizes_are_chosen_and_the_smallest_is_shown() -> None:
    def wrong(x: np.ndarray) -> np.ndarray:
        y = relu(x)
        if x.shape[0] >= 7 and x.shape[1] >= 3:
            y[6, 2] = 5
        return y

    def build(draw: Draw, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {"x": draw.normal(rows, columns)}

    sizes = {"rows": (0, 40), "columns": (0, 30)}
    assert faults(twins(numpy=relu, other=relu), build, sizes=sizes) == set()
    shown = found(twins(numpy=relu, other=wrong), build, sizes=sizes)["other"]
    assert shown.faults[0].text.startswith("rows=7, columns=3: agreement: result[6, 2] is 5.0")


def test_a_twin_that_raises_is_a_fault() -> None:
    def raises(x: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("division by zero")

    (fault,) = found(twins(numpy=relu, other=raises), matrix)["other"].faults
    assert fault.text == "raises ZeroDivisionError: division by zero"


# Files at fault --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            twins(numpy=relu, other=lambda x: (x, x)),
            "k/case: other gives 2 arrays (result[0], result[1]), numpy 1 (result)",
        ),
        (twins(numpy=lambda x: 1 / 0), "k/case: the definition <lambda> raises ZeroDivisionError: division by zero"),
        (twins(numpy=lambda x: None), "k/case: the definition returns nothing and fills nothing: say twins(..., out"),
        (
            twins(numpy=lambda y: y),
            "k/case: <lambda> does not take what the case gives: missing a required argument: 'y'",
        ),
        (twins(numpy=lambda x: "text"), "k/case: result is <U4, expected arrays or numbers"),
        (twins(numpy=relu, outputs="z"), "k/case: twins say that z is filled, but the case has x"),
    ],
)
def test_one_line_names_what_is_wrong_with_a_file(kernel: Twins, message: str) -> None:
    with pytest.raises(FileError) as raised:
        found(kernel, matrix)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
