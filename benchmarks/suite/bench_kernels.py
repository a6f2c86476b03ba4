"""Kernels: time of a call, its error, and its time beside NumPy's. Allocation and validation are not in the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asv_runner.benchmarks.mark import SkipNotImplemented

import kernels
import models
from twinkernels.bench import timing
from twinkernels.bench.asv import Timed as Timed
from twinkernels.bench.errors import accuracy

from . import cases, common

BACKENDS = kernels.names()
BENCH = [case.id for case in cases.select(tag="bench")]
FLOAT64 = [
    id
    for id in BENCH
    if id.split("/")[1] in ("mlp-512-hidden-b128", "cnn-bn-conv2-b128", "cnn-bn-norm2-b128", "mlp-512")
    and not id.startswith("meannorm")
]
FORWARD = ("linear", "conv2d", "maxpool2d", "batchnorm", "relu", "softmax_cross_entropy", "sgd", "rmsprop", "adam")
ZOO = {kernel + suffix for kernel in FORWARD for suffix in ("", "_backward")}
RATIOS = [id for id in BENCH if id.split("/")[0] in ZOO]

# asv forks each measurement from a process that has this module.
common.load()
timing.settle()


def setup_cache() -> None:
    """What asv does once before a commit's kernels; without it, each is compiled by the benchmark that comes first."""
    common.compile_ahead([*((id, "float32") for id in BENCH), *((id, "float64") for id in FLOAT64)])


setup_cache.timeout = 900  # type: ignore[attr-defined]


def ready(backend: str, case: str | None = None, network: str | None = None) -> None:
    """Pin the threads; what cannot be loaded here, or came with a later commit, is left out, with the reason."""
    if network is not None and network not in models.NETWORKS:
        raise SkipNotImplemented(f"this commit has no network {network}")
    if case is not None and not hasattr(kernels.Kernels, method := cases.get(case).method or cases.get(case).kernel):
        raise SkipNotImplemented(f"this commit has no kernel {method}")
    try:
        kernels.get(backend)
    except ImportError as error:
        raise SkipNotImplemented(f"the {backend} backend cannot be loaded: {error}") from error
    timing.settle()


class Kernel(Timed):
    """Every size of the zoo in float32."""

    params = (BACKENDS, BENCH, ["float32"])
    param_names = ("backend", "case", "dtype")
    version = "2"
    timeout = 300

    def prepare(self, backend: str, case: str, dtype: str) -> Callable[[], Any]:
        ready(backend, case)
        self.call = common.prepare(case, backend, dtype)
        return self.call

    def time_kernel(self, backend: str, case: str, dtype: str) -> None:
        self.call()


class KernelFloat64(Kernel):
    """A few of them in float64."""

    params = (BACKENDS, FLOAT64, ["float64"])


class KernelError:
    """Error of a kernel in units of NumPy's own, an ulp added to both; see `kernels.accuracy`."""

    params = (["numba"], BENCH, ["float32"])
    param_names = ("backend", "case", "dtype")
    version = "2"
    timeout = 300
    unit = "times NumPy's"

    def setup(self, backend: str, case: str, dtype: str) -> None:
        ready(backend, case)

    def track_error(self, backend: str, case: str, dtype: str) -> float:
        call = common.record(cases.get(case), dtype)
        found = accuracy(call, kernels.get(backend), kernels.get("numpy"))
        assert found.share <= 1.0, f"{case} on {backend} is wrong: {found}"
        return found.relative


class KernelRatio:
    """Time of the Numba kernel over NumPy's, measured alternately in one process: the machine's speed cancels."""

    params = (["numba"], RATIOS, ["float32"])
    param_names = ("backend", "case", "dtype")
    version = "1"
    timeout = 300
    unit = "times NumPy's"

    def setup(self, backend: str, case: str, dtype: str) -> None:
        ready(backend, case)
        calls = {name: common.prepare(case, name, dtype) for name in ("numpy", backend)}
        self.samplers = {name: timing.Sampler(call) for name, call in calls.items()}

    def track_time_ratio(self, backend: str, case: str, dtype: str) -> float:
        seconds = timing.sample(self.samplers, 9)
        return timing.ratio(seconds[backend], seconds["numpy"]).median
