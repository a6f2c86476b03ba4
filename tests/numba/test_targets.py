"""Other processors than this one, and plain Python: the same kernels, the same budgets."""

from __future__ import annotations

import platform
from collections.abc import Iterable

import pytest

from benchmarks.suite.cases import CASES

from ..support.processes import PRELUDE, run

PROGRAM = f"""
{PRELUDE}
import numpy as np
from benchmarks.suite.cases import get
from kernels.numba_backend.compiler.threads import DISABLED
from kernels.numba_backend.tiles.tile import VECTOR_BYTES
from benchmarks.suite.common import record
from tests.support.conformance import MODULES, assert_close, execute

def conforms(id, dtype):
    call = record(get(id), dtype)
    got, truth = execute(MODULES["numba"], call), execute(MODULES["numpy"], call.in_float64())
    if dtype == "float64":  # NumPy's own rounding is part of its truth
        assert_close(call, got, truth)
    else:
        assert_close(call, got, truth, baseline=execute(MODULES["numpy"], call))
"""

SMALL = [case.id for case in CASES if "bench" not in case.tags]
CONTRACTIONS = ("linear", "conv2d")
DTYPES = ("float32", "float64")


def of(*kernels: str) -> list[str]:
    """The small cases of these kernels and of their backward ones."""
    names = {f"{kernel}{suffix}" for kernel in kernels for suffix in ("", "_backward")}
    return [id for id in SMALL if id.split("/")[0] in names]


def conformance(ids: Iterable[str], dtypes: tuple[str, ...] = DTYPES) -> str:
    return f"{PROGRAM}\nfor id in {list(ids)}:\n    for dtype in {dtypes}:\n        conforms(id, dtype)"


# Plain Python --------------------------------------------------------------------------------------------------------


def test_every_kernel_is_plain_python_with_numba_switched_off() -> None:
    regular = [case.id for case in CASES if "small" in case.tags]  # all of them in float64 too are in .ci/targets
    plain = f"""
{conformance(SMALL, ("float32",))}
{conformance(regular, ("float64",)).removeprefix(PROGRAM)}
import gc
print(DISABLED, len(compiled), sum("Dispatcher" in type(o).__name__ for o in gc.get_objects()))
"""
    assert run(plain, NUMBA_DISABLE_JIT=1) == ["True 0 0"]


# Processors ----------------------------------------------------------------------------------------------------------


def missing_features(*features: str) -> list[str]:
    """Those that this processor has not; all of them where it is of another family."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["x86-64"]
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    available = llvm.get_host_cpu_features()
    return [feature for feature in features if not available.get(feature)]


TARGETS = [
    pytest.param(
        name,
        vector_bytes,
        marks=pytest.mark.skipif(bool(missing_features(*needed)), reason=f"this processor cannot run code for {name}"),
        id=name,
    )
    for name, vector_bytes, needed in (("x86-64-v3", 32, ("avx2", "fma")), ("x86-64", 16, ()))
]


def on(target: str, program: str) -> list[str]:
    return run(f"{program}\nprint(VECTOR_BYTES)", NUMBA_CPU_NAME=target, NUMBA_CPU_FEATURES="")


@pytest.mark.parametrize(("target", "vector_bytes"), TARGETS)
def test_simple_kernels_on_another_processor(target: str, vector_bytes: int) -> None:
    assert on(target, conformance(of("relu", "tanh", "dropout", "sgd"), ("float32",))) == [str(vector_bytes)]


@pytest.mark.slow  # compiles for half a minute where the cache is cold
@pytest.mark.parametrize(("target", "vector_bytes"), TARGETS)
def test_contractions_and_norms_on_another_processor(target: str, vector_bytes: int) -> None:
    ids = of(*CONTRACTIONS, "batchnorm", "maxpool2d", "softmax_cross_entropy", "adam")
    assert on(target, conformance(ids)) == [str(vector_bytes)]
