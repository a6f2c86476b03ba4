"""This package, through the interface that its users have: `Trainer.step` and `model.predict`."""

from __future__ import annotations

import platform
from importlib import metadata

import kernels
import models

from ..networks import EPS, KERNEL, RHO, Case, Network, Peer


def layers(network: Network) -> list[models.Layer]:
    """The network in our layers."""
    blocks: list[models.Layer] = []
    for filters in network.filters:
        blocks += [models.Conv2d(filters, KERNEL), models.BatchNorm(), models.ReLU(), models.MaxPool2d(2)]
    blocks.append(models.Flatten())
    for units in network.units:
        blocks += [models.Linear(units), models.ReLU()]
    return [*blocks, models.Linear(10)]


def optimizer(network: Network) -> models.Optimizer:
    """The network's optimizer."""
    rate = network.learning_rate
    return {
        "adam": models.Adam(rate, eps=EPS),
        "rmsprop": models.RMSProp(rate, rho=RHO, eps=EPS),
        "sgd": models.SGD(rate),
    }[network.optimizer]


def prepare(case: Case) -> Peer:
    """`variant` is the backend, and the precision if that is not float32."""
    kernels.set_threads(case.threads)
    backend, *others = case.variant.split()
    precision = others[0] if others else "float32"
    model = models.Sequential(layers(case.network), case.x.shape[2:], backend=backend, precision=precision)
    weights = iter((*case.weights.convolutions, *case.weights.linear))
    model.set_parameters({name: next(weights) for name in model.parameters() if name.endswith(".w")})
    versions = {name: metadata.version(name) for name in ("numpy", "numba")}
    versions["python"] = platform.python_version()
    notes = (f"contractions in {precision}",) if others else ()
    if case.task == "infer":
        return Peer(lambda x, y: model.predict(x), versions, notes, comparable=not others)
    trainer = models.Trainer(model, optimizer(case.network), batch_size=case.batch_size, precision=precision)
    return Peer(trainer.step, versions, notes, comparable=not others)
