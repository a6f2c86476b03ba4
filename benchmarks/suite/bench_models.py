"""Models: a training step, inference, and how far the backends drift apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import data
import models
from data import strokes
from twinkernels.bench import timing
from twinkernels.bench.asv import Timed

from .bench_kernels import BACKENDS, ready

NETWORKS = ["mlp-meannorm", "mlp-nobias", "mlp-512", "mlp-rmsprop", "cnn-bn", "cnn-record"]
"""Written out: asv asks for parameters by their number, whichever commit it measures."""
BATCHES = ["1", "64", "512"]
LAYERS = {
    "linear": (models.Linear(3), (32,)),
    "conv2d": (models.Conv2d(3, 3, padding=1), (4, 4, 2)),
    "maxpool2d": (models.MaxPool2d(2), (4, 4, 2)),
    "batchnorm": (models.BatchNorm(), (4, 4, 2)),
    "meannorm": (models.MeanNorm(), (4, 4, 2)),
    "gelu": (models.GELU(), (4, 4, 2)),
}


def _images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 28, 28, 1), np.float32), rng.integers(0, 10, batch)


class Step(Timed):
    """A training step and an inference of each network; the first results are held against NumPy's."""

    params = (BACKENDS, NETWORKS, BATCHES)
    param_names = ("backend", "network", "batch")
    version = "2"
    timeout = 300

    def prepare(self, backend: str, network: str, batch: str) -> Callable[[], Any]:
        ready(backend, network=network)
        self.x, self.y = _images(int(batch))
        definition = models.build(network, "numpy")
        self.model = definition.to(backend)
        expected, found = definition.predict(self.x), self.model.predict(self.x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        # So small a rate leaves the weights, and with them the work, as they are.
        self.trainer = models.Trainer(self.model, models.Adam(1e-9), batch_size=int(batch))
        loss = models.Trainer(definition, models.Adam(1e-9), batch_size=int(batch)).step(self.x, self.y)
        np.testing.assert_allclose(self.trainer.step(self.x, self.y), loss, rtol=1e-5)
        return lambda: self.trainer.step(self.x, self.y)

    def time_training_step(self, backend: str, network: str, batch: str) -> None:
        self.trainer.step(self.x, self.y)

    def time_inference(self, backend: str, network: str, batch: str) -> None:
        self.model.predict(self.x)


class StepRatio:
    """Time of a training step on Numba over NumPy's, measured alternately in one process."""

    params = (["numba"], NETWORKS, ["64"])
    param_names = ("backend", "network", "batch")
    version = "1"
    timeout = 300
    unit = "times NumPy's"

    def setup(self, backend: str, network: str, batch: str) -> None:
        ready(backend, network=network)
        x, y = _images(int(batch))
        self.samplers = {}
        for name in ("numpy", backend):
            trainer = models.Trainer(models.build(network, name), models.Adam(1e-9), batch_size=int(batch))
            self.samplers[name] = timing.Sampler(partial(trainer.step, x, y))

    def track_time_ratio(self, backend: str, network: str, batch: str) -> float:
        seconds = timing.sample(self.samplers, 9)
        return timing.ratio(seconds[backend], seconds["numpy"]).median


class Gradients:
    """Largest error of a layer's gradients against central differences in float64."""

    params = (BACKENDS, list(LAYERS))
    param_names = ("backend", "layer")
    version = "1"
    timeout = 300
    unit = "relative error"

    def setup(self, backend: str, layer: str) -> None:
        ready(backend)

    def track_gradient_error(self, backend: str, layer: str) -> float:
        checked, shape = LAYERS[layer]
        return models.gradcheck(checked, input_shape=shape, backend=backend).error


class Drift:
    """Largest relative distance between the backends' parameters after 100 steps from the same start."""

    params = (["numba"], NETWORKS)
    param_names = ("backend", "network")
    version = "1"
    timeout = 300
    unit = "relative to the largest parameter"

    def setup(self, backend: str, network: str) -> None:
        ready(backend, network=network)

    def track_drift_after_100_steps(self, backend: str, network: str) -> float:
        x, y = _images(1600)
        after = []
        for name in ("numpy", backend):
            trainer = models.Trainer(models.build(network, name), models.SGD(0.01), batch_size=16)
            trainer.fit(x, y, iterations=100)
            after.append(np.concatenate([array.ravel() for array in trainer.model.parameters().values()]))
        drift = float(np.abs(after[0] - after[1]).max() / np.abs(after[0]).max())
        assert math.isfinite(drift), f"{network} on {backend}: parameters that are no numbers"
        return drift


class Learning:
    """Test error in per cent after a fixed short training on drawn digits: 100 steps of 64."""

    params = (BACKENDS, ["mlp-512", "cnn-bn"])
    param_names = ("backend", "network")
    version = "1"
    timeout = 600
    unit = "% wrong"

    def setup_cache(self) -> tuple[data.Split, data.Split]:
        train, test = strokes.load(3200, 1000)
        return data.Split(*train), data.Split(*test)

    def setup(self, digits: tuple[data.Split, data.Split], backend: str, network: str) -> None:
        ready(backend)

    def track_test_error(self, digits: tuple[data.Split, data.Split], backend: str, network: str) -> float:
        train, test = digits
        model = models.build(network, backend)
        trainer = models.Trainer(model, models.Adam(2e-3), batch_size=64, schedule=models.OneCycle())
        trainer.fit(train.images, train.labels, iterations=100)
        return 100.0 * (1.0 - model.evaluate(test.images, test.labels).accuracy)
