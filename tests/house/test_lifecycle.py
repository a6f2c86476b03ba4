"""Threads that predict, interrupts in parallel regions, and an interpreter that ends while a thread trains.

Two trainings at once, forks and worker processes stand in test_numba_threads.py, a cache that several processes fill in
test_numba_cache.py.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import models
from benchmarks import soak
from kernels import Kernels
from models import SGD, Trainer

from ..numba.test_threads import LAYERS, WORK
from ..support.processes import Process, run

SIZES = (1, 3, 40, 7, 600, 2, 17, 1)  # a larger batch makes the model change its buffers under the others


def test_many_threads_may_predict_at_once_on_one_model(k: Kernels) -> None:
    model = models.build("mlp-512", k.name)
    requests = [np.random.default_rng(seed).random((n, 28, 28, 1), np.float32) for seed, n in enumerate(SIZES)]
    expected = [model.predict(x).tobytes() for x in requests]
    fresh = model.to(k.name)  # whose buffers are made by whichever thread comes first
    with ThreadPoolExecutor(2 * len(requests)) as pool:
        answers = list(pool.map(lambda x: fresh.predict(x).tobytes(), requests * 6))
    assert answers == expected * 6


def test_a_thread_may_predict_while_another_trains_the_same_model(k: Kernels) -> None:
    """Its answers are of some moment's weights; the training is what it would have been alone."""
    rng = np.random.default_rng(0)
    x, labels = rng.random((4, 32, 28, 28, 1), np.float32), rng.integers(0, 10, (4, 32))

    def train(model: models.Graph) -> list[float]:
        trainer = Trainer(model, SGD(0.1), batch_size=32)
        return [trainer.step(*batch) for batch in zip(x, labels, strict=True)]

    alone = train(models.build("mlp-512", k.name))
    model = models.build("mlp-512", k.name)
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(train, model)
        while not training.done():
            assert np.isfinite(model.predict(x[0])).all()
        assert training.result() == alone


PREDICT = f"""
{WORK}
model = models.build("cnn-bn", "numba")
requests = [draw(n, 28, 28, 1, seed=n) for n in {SIZES}]
with ThreadPoolExecutor(16) as pool:
    together = list(pool.map(lambda x: model.predict(x).tobytes(), requests * 3))
print(layer(), together == [model.predict(x).tobytes() for x in requests] * 3)
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_many_threads_may_predict_on_any_threading_layer(layer: str) -> None:
    assert run(PREDICT, NUMBA_THREADING_LAYER=layer) == [f"{layer} True"]


INTERRUPTED = f"""
{WORK}
import random, signal

signal.signal(signal.SIGINT, signal.default_int_handler)
expected, losses = work(0), train(0)
model = models.build("cnn-bn", "numba")
trainer = Trainer(model, Adam(1e-2), batch_size=32)
x, labels = draw(32, 28, 28, 1), np.arange(32) % 10
trainer.step(x, labels)
model.predict(x)
chance, caught, right = random.Random(0), 0, 0
for _ in range(30):
    interrupt = threading.Timer(chance.uniform(0.001, 0.03), os.kill, [os.getpid(), signal.SIGINT])
    try:
        interrupt.start()
        while True:
            work(0)
            trainer.step(x, labels)
            model.predict(x)
    except KeyboardInterrupt:
        caught += 1
    interrupt.join()
    right += work(0) == expected
trainer.step(x, labels)
print(layer(), caught, right, train(0) == losses, model.predict(x).shape)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT within a process")
@pytest.mark.parametrize("layer", LAYERS)
def test_an_interrupt_anywhere_in_a_training_leaves_everything_usable(layer: str) -> None:
    assert run(INTERRUPTED, NUMBA_THREADING_LAYER=layer) == [f"{layer} 30 30 True (32, 10)"]


EXIT = f"""
{WORK}
started = threading.Event()

def forever():
    trainer = Trainer(models.build("cnn-bn", "numba"), Adam(1e-2), batch_size=32)
    while True:
        trainer.step(draw(32, 28, 28, 1), np.arange(32) % 10)
        started.set()

for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
started.wait()
print(layer())
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_the_interpreter_may_end_while_threads_train(layer: str) -> None:
    for _ in range(2):
        assert Process(EXIT, NUMBA_THREADING_LAYER=layer).result() == ([layer], "")


EXIT_WHILE_COMPILING = f"""
{WORK}
from numba.core import event

compiling = threading.Event()

class Listener(event.Listener):
    def on_start(self, occurrence):
        compiling.set()

    def on_end(self, occurrence):
        pass

event.register("numba:compile", Listener())
threading.Thread(target=train, args=[0], daemon=True).start()
print(compiling.wait(60))
"""


def test_the_interpreter_may_end_while_a_thread_compiles(tmp_path: os.PathLike[str]) -> None:
    out, errors = Process(EXIT_WHILE_COMPILING, NUMBA_CACHE_DIR=tmp_path).result()
    assert (out, errors) == (["True"], "")


def test_a_turn_of_the_soak_trains_and_predicts(k: Kernels) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert soak.turn("mlp-512", k.name, 0, pool) == (10, sum(soak.REQUESTS))


def test_a_soak_notices_what_grows() -> None:
    flat = [(float(second), 100.0 + second % 3) for second in range(100)]
    assert not soak.grows(flat)
    assert soak.grows([(second, size + second / 5) for second, size in flat])
    assert not soak.grows([(second, size + 50 * (second > 10)) for second, size in flat])  # still getting warm
