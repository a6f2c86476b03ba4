"""Any number of threads gives the same bits, and neither Python's threads nor forks break the kernels."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kernels
import models
from benchmarks.suite.cases import CASES, Case
from benchmarks.suite.common import record
from models import Adam, Trainer

from ..support.conformance import MODULES, execute
from ..support.every import every
from ..support.processes import BRIEF, run

SMALL = [case for case in CASES if "bench" not in case.tags]
THREADS = (1, 2, 3, 2 * (os.cpu_count() or 1) + 1)
CAN_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def missing(layer: str) -> str:
    """Why Numba has not this threading layer here; empty if it has."""
    try:
        importlib.import_module(f"numba.np.ufunc.{'workqueue' if layer == 'workqueue' else layer + 'pool'}")
    except ImportError as error:
        return f"Numba has no threading layer {layer} here: {error}"
    return ""


LAYERS = [
    pytest.param(layer, marks=pytest.mark.skipif(bool(missing(layer)), reason=missing(layer)))
    for layer in ("workqueue", "omp", "tbb")
]


@pytest.fixture
def restored() -> Iterator[None]:
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


# The number of threads -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("kernel", kernels.kernel_names())
def test_small_cases_give_the_same_bits(kernel: str) -> None:
    every((case for case in SMALL if case.kernel == kernel), gives_the_same_bits)


def gives_the_same_bits(case: Case) -> None:
    call = record(case, np.float32)
    kernels.set_threads(THREADS[0])
    first = execute(MODULES["numba"], call)
    for threads in THREADS[1:]:
        kernels.set_threads(threads)
        for name, value in execute(MODULES["numba"], call).items():
            assert value.tobytes() == first[name].tobytes(), f"{name} with {threads} threads"


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_gives_the_same_bits(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 33, 28, 28, 1)).astype(dtype)
    labels = rng.integers(0, 10, (5, 33))
    seen = set()
    for threads in THREADS:
        kernels.set_threads(threads)
        model = models.build("cnn-bn", "numba", dtype=dtype)
        trainer = Trainer(model, Adam(1e-2), batch_size=33)
        losses = [trainer.step(*batch) for batch in zip(x, labels, strict=True)]
        weights = b"".join(value.tobytes() for value in model.parameters().values())
        seen.add((tuple(losses), weights, model.predict(x[0]).tobytes()))
    assert len(seen) == 1


IN_USE = """
import numba, numpy as np
def threads_in_use():
    x = np.ones(100_000, np.float32)
    assert kernels.get("numba").relu(x).sum() == x.size
    return numba.get_num_threads()
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param("kernels.set_threads(1); kernels.get('numba')", 1, id="before loading, one"),
        pytest.param("kernels.set_threads(3); kernels.get('numba')", 3, id="before loading, three"),
        pytest.param("kernels.get('numba'); kernels.set_threads(1)", 1, id="after loading, one"),
        pytest.param("kernels.get('numba'); kernels.set_threads(3)", 3, id="after loading, three"),
        pytest.param("threads_in_use(); kernels.set_threads(1)", 1, id="after use"),
        pytest.param("kernels.set_threads(6); threads_in_use(); kernels.set_threads(2)", 2, id="down again"),
        pytest.param("kernels.set_threads(1); kernels.set_threads(2)", 2, id="the last word counts"),
    ],
)
def test_the_number_asked_for_is_used(program: str, expected: int) -> None:
    said = run(f"import kernels{IN_USE}\n{program}\nprint(kernels.get_threads(), threads_in_use())")
    assert said == [f"{expected} {expected}"]


def test_every_python_thread_uses_that_number() -> None:
    program = f"""
import kernels, threading
{IN_USE}
seen = []
kernels.get("numba")
kernels.set_threads(1)
for _ in range(2):
    thread = threading.Thread(target=lambda: seen.append(threads_in_use()))
    thread.start()
    thread.join()
    kernels.set_threads(2)
print(seen, threads_in_use())
"""
    assert run(program) == ["[1, 2] 2"]


def test_more_threads_than_numba_was_told_of_work() -> None:
    program = f"import kernels{IN_USE}\nkernels.set_threads(5)\nprint(kernels.get_threads(), threads_in_use() <= 5)"
    assert run(program, NUMBA_NUM_THREADS=1) == ["5 True"]
    later = f"import kernels{IN_USE}\nthreads_in_use()\nkernels.set_threads(1000)\nprint(threads_in_use() <= 1000)"
    assert run(later) == ["True"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_the_default_is_the_cores_that_the_process_may_use() -> None:
    bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert run(f"{bind}\nimport kernels{IN_USE}\nprint(kernels.get_threads(), threads_in_use())") == ["1 1"]


@pytest.mark.parametrize("n", [0, -1, 1.0, True, None, "2"])
def test_nonsense_is_refused_and_changes_nothing(n: object) -> None:
    before = kernels.get_threads()
    with pytest.raises((ValueError, TypeError), match="set_threads: n "):
        kernels.set_threads(n)  # type: ignore[arg-type]
    assert kernels.get_threads() == before


# Python's threads and forks ------------------------------------------------------------------------------------------

WORK = """
import os, sys, threading
import numpy as np
import kernels, models
from concurrent.futures import ThreadPoolExecutor
from models import Adam, Trainer

k = kernels.get("numba")

def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

def work(seed, repeats=1):
    # Large enough for parallel regions, each of a different kind.
    for _ in range(repeats):
        x, w = draw(8, 20, 20, 16, seed=seed), draw(3, 3, 16, 8, seed=seed)
        y = k.conv2d(x, w)
        dx, dw, db = k.conv2d_backward(y, x, w)
        z, mean, inv_std = k.batchnorm(x, np.ones(16, np.float32), np.zeros(16, np.float32))
        pooled, _ = k.maxpool2d(k.relu(z))
        result = b"".join(array.tobytes() for array in (y, dx, dw, db, mean, inv_std, pooled))
    return result

def train(seed):
    trainer = Trainer(models.build("cnn-bn", "numba", seed), Adam(1e-2), batch_size=32)
    x, labels = draw(4, 32, 28, 28, 1, seed=seed), np.arange(4 * 32).reshape(4, 32) % 10
    return [trainer.step(*batch) for batch in zip(x, labels)]

def layer():
    import numba
    return numba.threading_layer()
"""

AT_ONCE = f"""
{WORK}
barrier = threading.Barrier(2)

def at_once(function, seed):
    barrier.wait()
    return function(seed)

def twice(function):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(at_once, [function] * 2, range(2)))

together = [(twice(work), twice(train)) for _ in range(5)]  # the very first calls of the process among them
alone = [work(seed) for seed in range(2)], [train(seed) for seed in range(2)]
print(layer(), all(one == alone for one in together))
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_python_threads_may_call_and_train_at_once(layer: str) -> None:
    assert run(AT_ONCE, NUMBA_THREADING_LAYER=layer) == [f"{layer} True"]


FORK = f"""
{WORK}
def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            right = function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            right = False
        os._exit(0 if right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

FORKS = f"""
{FORK}
print(in_child(lambda: len(work(0)) > 0 and layer() == LAYER), len(work(0)) > 0, layer())

expected, losses = work(0), train(0)

def same():
    # A child without threads runs code of its own, in which the optimizer's rounding may differ.
    return work(0) == expected and np.allclose(train(0), losses, rtol=1e-5, atol=0)

def grandchild():
    return same() and in_child(same) == 0

def threads():
    kernels.set_threads(1)
    kernels.set_threads(3)
    with ThreadPoolExecutor(2) as pool:
        return same() and all(other == expected for other in pool.map(work, [0, 0]))

print(layer(), in_child(same), same(), in_child(grandchild), in_child(threads), same())

stop = threading.Event()
wrong = []

def busy():
    while not stop.is_set():
        if work(0) != expected:
            wrong.append("busy")

thread = threading.Thread(target=busy)
thread.start()
statuses = [in_child(lambda: work(0) == expected) for _ in range(8)]
stop.set()
thread.join()
print(layer(), set(statuses), wrong, work(0) == expected)
"""
"""A fork before first use, forks after it, and forks while another thread is in a kernel; a line of each."""


@functools.cache
def forks(layer: str) -> list[str]:
    """What one process says of them all: it takes longer to load Numba than to fork."""
    return run(FORKS.replace("LAYER", repr(layer)), NUMBA_THREADING_LAYER=layer)


@CAN_FORK
@pytest.mark.parametrize("layer", LAYERS)
def test_a_child_forked_before_first_use_is_a_process_like_any_other(layer: str) -> None:
    assert forks(layer)[0] == f"0 True {layer}"


@CAN_FORK
@pytest.mark.parametrize("layer", LAYERS)
def test_a_forked_child_and_its_parent_go_on(layer: str) -> None:
    assert forks(layer)[1] == f"{layer} 0 True 0 0 True"


@CAN_FORK
@pytest.mark.parametrize("layer", LAYERS)
def test_a_fork_while_another_thread_is_in_a_kernel(layer: str) -> None:
    assert forks(layer)[2:] == [f"{layer} {{0}} [] True"]


FORK_DURING_COMPILATION = f"""
{FORK}
import time
import numba
from numba.core import event

x = draw(100_000)
expected = k.relu(x).tobytes()  # the pool runs
compiling = threading.Event()

class Listener(event.Listener):
    def on_start(self, occurrence):
        compiling.set()
        time.sleep(0.2)  # the fork falls into it

    def on_end(self, occurrence):
        pass

event.register("numba:compile", Listener())
thread = threading.Thread(target=lambda: k.leaky_relu(x))
thread.start()
compiling.wait()
status = in_child(lambda: k.relu(x).tobytes() == expected and k.add(x, x).size == x.size)
thread.join()
print(layer(), status)
"""


@CAN_FORK
@pytest.mark.parametrize("layer", LAYERS)
def test_a_fork_while_another_thread_compiles(layer: str, tmp_path: Path) -> None:
    assert run(FORK_DURING_COMPILATION, NUMBA_THREADING_LAYER=layer, NUMBA_CACHE_DIR=tmp_path) == [f"{layer} 0"]


MULTIPROCESSING = f"""
{WORK}
import multiprocessing

if __name__ == "__main__":
    expected = [work(seed) for seed in range(2)]
    context = multiprocessing.get_context(METHOD)
    with context.Pool(2) as pool:
        print(layer(), pool.map(work, range(2)) == expected)
    print([work(seed) for seed in range(2)] == expected)
"""


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_processes(method: str, layer: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(BRIEF + MULTIPROCESSING.replace("METHOD", repr(method)), encoding="utf-8")
    assert run(program, NUMBA_THREADING_LAYER=layer) == [f"{layer} True", "True"]
