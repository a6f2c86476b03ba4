"""The asv suite: its configuration is read, its parameters are names, its benchmarks refuse wrong kernels."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kernels
import models
from benchmarks import growth, rewrites
from benchmarks.suite import cases, common
from kernels import Kernels
from kernels.accuracy import closeness
from kernels.interface import roles
from twinkernels.bench import errors, timing

from ..support.every import every
from ..support.processes import BRIEF

SUITE = Path(__file__).parents[2] / "benchmarks" / "suite"
NUMPY = kernels.get("numpy")

# Loads the suite as asv does, as a top-level package, in a process of its own since it pins and binds threads; at a
# commit with one network more.
LIST = """
import importlib, inspect, json, sys
import models
sys.path.insert(0, sys.argv[1])
models.NETWORKS = {"another": None, **models.NETWORKS}
found = []

def cached(item):
    setup = getattr(item, "setup_cache", None)
    return "" if setup is None else f"{setup.__name__} {setup.__code__.co_firstlineno}"

for module in sys.argv[2:]:
    for name, item in vars(importlib.import_module(f"suite.{module}")).items():
        if inspect.isclass(item) and item.__module__ == f"suite.{module}":
            for method, function in inspect.getmembers(item, callable):
                if method.split("_")[0] in ("time", "timeraw", "track", "peakmem", "mem"):
                    found.append([f"{module}.{name}.{method}", item.params, item.param_names, vars(item).get("version"),
                                  getattr(item, "version", None), cached(item)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def benchmarks() -> list[Any]:
    pytest.importorskip("asv_runner", reason="the asv suite needs the extra bench")
    modules = [path.stem for path in sorted(SUITE.glob("bench_*.py"))]
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + LIST, str(SUITE.parent), *modules],
        cwd=SUITE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


# asv calls setup before each call.
SAMPLES = """
import contextlib, importlib, inspect, sys
sys.path.insert(0, sys.argv[1])
from twinkernels.bench import timing
states = []

@contextlib.contextmanager
def undisturbed(call):
    call()
    states.append("begun")
    yield
    states.append("over")

timing.undisturbed = undisturbed
timed = []
for module in sys.argv[2:]:
    for name, item in vars(importlib.import_module(f"suite.{module}")).items():
        own = inspect.isclass(item) and item.__module__ == f"suite.{module}"
        methods = [method for method in dir(item) if method.startswith("time_")] if own else []
        if methods:
            timed.append(name)
            benchmark, params = item(), [values[0] for values in item.params]
            for method in methods:
                for _ in range(2):
                    benchmark.setup(*params)
                    getattr(benchmark, method)(*params)
            assert states == ["begun"], (name, states)
            benchmark.setup(*[values[-1] for values in item.params])
            assert states.count("begun") == 2, (name, states)
            benchmark = None
            states.clear()
print(sorted(timed))
"""


def test_what_asv_times_is_prepared_once_and_then_undisturbed() -> None:
    pytest.importorskip("asv_runner", reason="the asv suite needs the extra bench")
    arguments = [str(SUITE.parent), *(path.stem for path in sorted(SUITE.glob("bench_*.py")))]
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + SAMPLES, *arguments],
        cwd=SUITE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "['Kernel', 'KernelFloat64', 'Step']"


# A backend whose relu leaves NaN in the middle.
NAN = """
import sys, types
import numpy as np
import kernels
sys.path.insert(0, sys.argv[1])
definition, get = kernels.get("numpy"), kernels.get

def relu(x, y):
    definition.function("relu")(x, y)
    y.flat[y.size // 2] = np.nan

names = {name: getattr(definition.backend, name) for name in dir(definition.backend) if not name.startswith("_")}
wrong = kernels.Kernels("numba", types.SimpleNamespace(**names | {"relu": relu}))
kernels.get = lambda name: wrong if name == "numba" else get(name)
from suite import bench_kernels
case = next(id for id in bench_kernels.BENCH if id.startswith("relu/"))
error, time, ratio = bench_kernels.KernelError(), bench_kernels.Kernel(), bench_kernels.KernelRatio()
for benchmark in error.track_error, time.setup, ratio.setup:
    try:
        benchmark("numba", case, "float32")
    except AssertionError as error:
        print(error)
"""


def test_asv_measures_nothing_where_one_nan_is_left() -> None:
    pytest.importorskip("asv_runner", reason="the asv suite needs the extra bench")
    done = subprocess.run(
        [sys.executable, "-c", BRIEF + NAN, str(SUITE.parent)],
        cwd=SUITE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [("wrong" in line, "inf times" in line) for line in done.stdout.splitlines()] == [
        (True, False),
        (False, True),
        (False, True),
    ]


def test_memory_is_measured_with_the_kernels_compiled(benchmarks: list[Any]) -> None:
    found = {name: cached for name, *_, cached in benchmarks if "peakmem" in name}
    assert len(found) == 2
    assert len(set(found.values())) == 2, "asv tells setups by their lines"
    assert all(cached.startswith("setup_cache ") for cached in found.values()), found


def test_the_suite_covers_what_it_promises(benchmarks: list[Any]) -> None:
    names = {name.rsplit(".", 1)[-1] for name, *_ in benchmarks}
    assert names == {
        "time_kernel", "time_training_step", "time_inference", "timeraw_import", "timeraw_first_step_cold",
        "timeraw_first_step_warm", "peakmem_training_step", "peakmem_conv2d_backward", "track_error",
        "track_time_ratio", "track_gradient_error", "track_drift_after_100_steps", "track_test_error",
    }  # fmt: skip


def test_parameters_are_strings_and_the_backend_comes_first(benchmarks: list[Any]) -> None:
    for name, params, param_names, _, version, _ in benchmarks:
        assert version, f"{name} has no explicit version"
        assert len(params) == len(param_names), name
        assert all(isinstance(value, str) for values in params for value in values), name
        if "backend" in param_names:
            assert param_names[0] == "backend", name
            assert set(params[0]) <= set(kernels.names()), name
        if "case" in param_names:
            assert {cases.get(id).id for id in params[1]}, name


def test_every_backend_runs_every_bench_case(benchmarks: list[Any]) -> None:
    params = next(params for name, params, *_ in benchmarks if name == "bench_kernels.Kernel.time_kernel")
    assert params == [kernels.names(), [case.id for case in cases.select(tag="bench")], ["float32"]]


def test_networks_are_numbered_alike_at_every_commit(benchmarks: list[Any]) -> None:
    found = [params[param_names.index("network")] for name, params, param_names, *_ in benchmarks if "Step" in name]
    assert len(found) == 3
    assert all(networks == list(models.NETWORKS) for networks in found)


def test_the_configuration_says_what_asv_reads() -> None:
    configuration = json.loads((SUITE.parent / "asv.conf.json").read_text(encoding="utf-8"))
    known = {
        "version", "project", "project_url", "repo", "branches", "dvcs", "environment_type", "pythons",
        "build_command", "install_command", "uninstall_command", "build_cache_size", "matrix", "benchmark_dir",
        "launch_method", "env_dir", "results_dir", "html_dir", "hash_length", "default_benchmark_timeout",
        "regressions_thresholds",
    }  # fmt: skip
    assert set(configuration) == known  # asv takes unknown keys in silence
    assert set(configuration["matrix"]) == {"req", "env_nobuild"}
    assert all("." in version for versions in configuration["matrix"]["req"].values() for version in versions)
    for pattern, threshold in configuration["regressions_thresholds"].items():
        re.compile(pattern)
        assert 0 < threshold <= 1


def test_asv_knows_every_key() -> None:
    config = pytest.importorskip("asv.config", reason="the configuration is asv's, of the extra bench")
    known = set(vars(config.Config())) | {"version", "build_cache_size"}  # the last is read, but has no default
    configuration = json.loads((SUITE.parent / "asv.conf.json").read_text(encoding="utf-8"))
    assert set(configuration) <= known


# Calls and their errors ------------------------------------------------------------------------------------------


def test_a_bound_call_gives_what_the_facade_gives() -> None:
    every(cases.select(tag="small"), gives_what_the_facade_gives)


def gives_what_the_facade_gives(case: cases.Case) -> None:
    results = common.record(case).results(NUMPY)
    returned = case.run(NUMPY)
    if returned is not None:
        values = returned if isinstance(returned, tuple) else (returned,)
        for value, result in zip(values, results.values(), strict=False):
            np.testing.assert_array_equal(value, result)


def test_a_call_runs_on_arrays_of_its_own() -> None:
    call = common.record(cases.get("adam/first-step"))
    before = call.arguments["p"].copy()
    run, written = call.bind(NUMPY)
    run()
    np.testing.assert_array_equal(call.arguments["p"], before)
    assert np.abs(written["p"] - before).max() > 0
    assert set(written) == {name for name, role in roles("adam").items() if role == "in place"}


def test_outputs_start_poisoned() -> None:
    _, written = common.record(cases.get("maxpool2d/small")).bind(NUMPY)
    assert np.isnan(written["y"]).all()
    assert (written["argmax"] == 113).all()


def test_the_definition_is_within_its_budget() -> None:
    every(cases.select(tag="small"), is_within_its_budget)


def is_within_its_budget(case: cases.Case) -> None:
    accuracy = errors.accuracy(common.record(case), NUMPY, NUMPY)
    assert accuracy.share <= 0.25
    assert accuracy.relative == 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_kernel_is_not_timed(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def linear(x: Any, w: Any, b: Any, d: Any, scratch: Any, y: Any) -> None:
        NUMPY.function("linear")(x, w, b, d, scratch, y)
        y *= y.dtype.type(1.0001)

    backend = SimpleNamespace(linear=linear, linear_scratch=NUMPY.backend.linear_scratch)
    wrong = Kernels("wrong", backend)
    get = kernels.get
    monkeypatch.setattr(kernels, "get", lambda name: wrong if name == "wrong" else get(name))
    with pytest.raises(AssertionError, match="times its error budget"):
        common.prepare("linear/small", "wrong", dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_behind_a_case_is_compiled_ahead(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.numba_backend.compiler import ahead

    found: list[Any] = []
    monkeypatch.setattr(ahead, "compile_ahead", found.extend)
    ids = ["conv2d/small", "relu_backward/small", "softmax_cross_entropy/small"]
    common.compile_ahead((id, dtype) for id in ids)
    assert [kernel.__name__ for kernel, _ in found] == ["conv2d", "relu_backward", "_softmax_cross_entropy"]
    for kernel, arguments in found:
        dtypes = {str(a.dtype) for a in arguments if hasattr(a, "dtype")}
        assert {name for name in dtypes if name.startswith("float")} == {dtype}
        kernel.address(arguments)


def test_wrong_indices_have_no_budget() -> None:
    call = common.record(cases.get("maxpool2d/small"))
    truth = call.results(NUMPY)
    wrong = {**truth, "argmax": truth["argmax"] + 1}
    assert {name: found.ulps for name, found in closeness(call, wrong, truth).items()} == {"y": 0.0, "argmax": np.inf}


# Times -----------------------------------------------------------------------------------------------------------


def test_quiet_waits_for_a_busy_thread() -> None:
    import threading
    import time

    stop = time.perf_counter() + 0.2
    worker = threading.Thread(target=lambda: [None for _ in iter(lambda: time.perf_counter() < stop, False)])
    worker.start()
    timing.quiet()
    assert time.perf_counter() >= stop - 0.02
    worker.join()


def test_quiet_gives_up_on_a_thread_that_never_rests() -> None:
    import threading

    stop = threading.Event()
    worker = threading.Thread(target=lambda: [None for _ in iter(lambda: not stop.is_set(), False)])
    worker.start()
    try:
        with pytest.raises(ValueError, match="OMP_WAIT_POLICY"):
            timing.quiet(limit=0.05)
    finally:
        stop.set()
        worker.join()


def test_workers_are_parted_and_then_free() -> None:
    import os
    import threading

    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("threads cannot be bound here, or there is one core")
    allowed, stop = os.sched_getaffinity(0), threading.Event()
    workers = [threading.Thread(target=stop.wait) for _ in range(3)]

    def cores(thread: threading.Thread) -> set[int]:
        assert thread.native_id is not None
        return os.sched_getaffinity(thread.native_id)

    try:
        workers[0].start()
        workers[1].start()
        with timing.parted():
            mine, *theirs = os.sched_getaffinity(0), *(cores(worker) for worker in workers[:2])
            workers[2].start()  # inherits the one core
            inherited = cores(workers[2])
        assert len(mine) == 1
        assert all(len(worker) == 1 and worker != mine for worker in theirs)
        assert inherited == mine
        assert all(cores(worker) == allowed for worker in workers)
        assert os.sched_getaffinity(0) == allowed
    finally:
        stop.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()


def test_a_sample_is_taken_with_the_workers_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    parted = False

    @contextlib.contextmanager
    def part() -> Iterator[None]:
        nonlocal parted
        parted = True
        yield
        parted = False

    monkeypatch.setattr(timing, "parted", part)
    states: list[bool] = []
    sampler = timing.Sampler(lambda: states.append(parted))
    states.clear()
    sampler()
    assert len(states) > sampler.repetitions
    assert all(states)
    assert not parted


def test_a_busy_moment_does_not_decide_how_long_a_sample_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slow = 0.0, 0

    def call() -> None:
        nonlocal now, slow
        now += 2.0**-8 if slow < 3 else 2.0**-14  # exact in sums
        slow += 1

    monkeypatch.setattr(timing, "quiet", lambda: None)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))
    sampler = timing.Sampler(call)
    assert sampler.repetitions == 1
    assert sampler() == 2.0**-14
    assert sampler.repetitions == 17  # of 61 µs, for a millisecond


def test_every_round_asks_every_sampler_in_some_order() -> None:
    asked: list[str] = []

    def sampler(name: str) -> Any:
        return lambda: (asked.append(name), float(len(asked)))[1]

    seconds = timing.sample({"a": sampler("a"), "b": sampler("b")}, rounds=30)
    rounds = [tuple(asked[i : i + 2]) for i in range(0, 60, 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}
    assert sorted([*seconds["a"], *seconds["b"]]) == list(range(1, 61))


def test_the_law_of_growth_is_the_slope_of_the_last_half() -> None:
    points = [growth.Point(size, (size >= 8) * size**2 + 0.5, 7 * size) for size in (1, 2, 4, 8, 16, 32)]
    assert growth.law(points, "bytes") == pytest.approx(1)
    assert growth.law(points, "seconds") == pytest.approx(2, abs=0.01)


def test_only_rewrites_that_change_a_plan_are_left_out_in_turn() -> None:
    model = models.build("cnn-bn", "numba")
    trainer = models.Trainer(model, models.Adam(1e-3), batch_size=4, rewrites=())
    training = ["all", "without pool_first", "without convolution_statistics", "none"]
    assert list(rewrites.choices(trainer.plan, model)) == training
    inference = ["all", "without fold_batchnorm", "without pack_weights", "none"]
    assert list(rewrites.choices(model.plan, model)) == inference
