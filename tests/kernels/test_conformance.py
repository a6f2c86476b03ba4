"""Every case of the table, on every backend, against the scalar oracle and against float64."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

import kernels
from benchmarks.suite.cases import CASES, Case, get, select
from benchmarks.suite.common import record
from kernels import Kernels
from kernels.accuracy import Call, Results
from kernels.interface import roles

from ..support.conformance import MODULES, POISONS, TWINS, assert_close, execute, optional_outputs
from ..support.every import every

BENCH = select(tag="bench")
SMALL = [case for case in CASES if "bench" not in case.tags]

by_kernel = pytest.mark.parametrize("kernel", kernels.kernel_names(), scope="module")
"""The tests of one kernel in a row: they ask for the same calls."""


def small(kernel: str) -> list[Case]:
    return [case for case in SMALL if case.kernel == kernel]


@functools.cache
def oracle(case: Case) -> tuple[Call, Results]:
    """A small case's float64 call and its results by scalar loops; nobody writes to either."""
    call = record(case, np.float64)
    return call, execute(MODULES["naive"], call)


@functools.lru_cache(maxsize=1)  # large cases draw millions of numbers, which are kept for one kernel alone
def calls32(kernel: str) -> Callable[[Case], Call]:
    """What gives the float32 calls of a kernel's cases, each drawn once; nobody writes to them."""
    return functools.cache(functools.partial(record, dtype=np.float32))


def truth32(case: Case) -> tuple[Call, Results, Results]:
    """A case's float32 call, its true results (NumPy on the same numbers in float64) and NumPy's own in float32."""
    call = calls32(case.kernel)(case)
    return call, execute(MODULES["numpy"], call.in_float64()), execute(MODULES["numpy"], call, POISONS[0])


@by_kernel
def test_float64_equals_the_scalar_loops(kernel: str) -> None:
    def check(case: Case) -> None:
        call, truth = oracle(case)

        def equals(k: Kernels) -> None:
            for poison, shift in zip(POISONS, (0, 1), strict=True):
                assert_close(call, execute(k.backend, call, poison, shift), truth)

        every(TWINS, equals)

    every(small(kernel), check)


def within_its_budget(k: Kernels, case: Case, call: Call, truth: Results, numpy32: Results) -> None:
    found = [numpy32 if k.name == "numpy" else execute(k.backend, call, POISONS[0])]
    if "bench" not in case.tags:
        found.append(execute(k.backend, call, POISONS[1], shift=1))
    for got in found:
        assert_close(call, got, truth, None if k.name == "numpy" else numpy32)


@by_kernel
def test_float32_stays_within_its_budget(kernel: str) -> None:
    def check(case: Case) -> None:
        given = truth32(case)
        every(TWINS, lambda k: within_its_budget(k, case, *given))

    every(select(kernel), check)


@pytest.mark.parametrize("kernel", [kernel for kernel in kernels.kernel_names() if optional_outputs(kernel)])
def test_outputs_that_nobody_wants_change_nothing(kernel: str) -> None:
    wanted = optional_outputs(kernel)

    def check(case: Case) -> None:
        call, truth = oracle(case)
        for omit in [*((name,) for name in wanted), tuple(wanted)]:
            rest = {name: value for name, value in truth.items() if name not in omit}
            every(TWINS, lambda k, omit=omit, rest=rest: assert_close(call, execute(k.backend, call, omit=omit), rest))

    every(small(kernel), check)


@pytest.mark.parametrize("backend", [name for name in kernels.names() if name != "numpy"])
@by_kernel
def test_results_do_not_depend_on_the_number_of_threads(kernel: str, backend: str) -> None:
    # NumPy leaves its matrix products to a BLAS, which promises no such thing.
    def check(case: Case) -> None:
        call = calls32(kernel)(case)
        results = []
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            results.append(execute(MODULES[backend], call))
        for other in results[1:]:
            for name, value in results[0].items():
                assert value.tobytes() == other[name].tobytes(), f"{name} depends on the number of threads"

    before = kernels.get_threads()
    try:
        every(select(kernel, "bench"), check)
    finally:
        kernels.set_threads(before)


@by_kernel
def test_every_kernel_has_regular_awkward_and_real_cases(kernel: str) -> None:
    for tag in ("small", "edge", "bench"):
        assert select(kernel, tag), f"{kernel} has no {tag} case"


def test_ids_are_unique_and_begin_with_the_method() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.kernel for case in CASES} == set(kernels.kernel_names())  # by which the tests above go
    for case in CASES:
        assert case.id.startswith(f"{case.method or case.kernel}/")
        assert len(case.tags & {"small", "edge", "bench"}) == len(case.tags) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arguments_are_fresh_and_reproducible(dtype: type) -> None:
    for case in SMALL:
        one, two = case.arguments(dtype), case.arguments(dtype)
        for name, value in one.items():
            if isinstance(value, np.ndarray):
                assert not np.shares_memory(value, two[name])
                assert value.tobytes() == two[name].tobytes(), (case.id, name)
                assert value.dtype == dtype or value.dtype.kind != "f", (case.id, name)


def test_both_dtypes_see_the_same_random_numbers() -> None:
    for case in SMALL:
        arguments32, arguments64 = case.arguments(np.float32), case.arguments(np.float64)
        for name in set(roles(case.kernel)) & set(arguments32) - {"y", "mean", "inv_std", "argmax", "scale"}:
            value = arguments32[name]
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, arguments64[name], err_msg=f"{case.id} {name}")


def test_unknown_case() -> None:
    with pytest.raises(KeyError, match="relu/nonsense"):
        get("relu/nonsense")


def test_flops_of_a_real_layer() -> None:
    # cnn-bn's second convolution: 8 x 8 outputs, 5 x 5 x 16 taps, 32 filters, 2 operations each.
    assert get("conv2d/cnn-bn-conv2-b128").flops == 128 * 2 * 64 * 400 * 32
    assert get("conv2d_backward/cnn-bn-conv2-b128").flops == 2 * 128 * 2 * 64 * 400 * 32
    assert get("linear/mlp-512-hidden-b128").flops == 2 * 128 * 784 * 512
    assert get("relu/small").flops == 0
