"""Keras 3 on TensorFlow, through train_on_batch and predict_on_batch."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from ..networks import EPS, KERNEL, RHO, Case, Peer


def prepare(case: Case) -> Peer:
    """Variants: graph (jit_compile off) and jit_compile (XLA)."""
    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    network, rate = case.network, case.network.learning_rate
    layers: list[keras.Layer] = [keras.Input(case.x.shape[2:])]
    for filters in network.filters:
        layers += [
            keras.layers.Conv2D(filters, KERNEL),
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
        ]
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(units, activation="relu") for units in network.units]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    weights = iter((*case.weights.convolutions, *case.weights.linear))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            layer.kernel.assign(next(weights))

    model.compile(
        optimizer={
            "adam": lambda: keras.optimizers.Adam(rate, epsilon=EPS),
            "rmsprop": lambda: keras.optimizers.RMSprop(rate, rho=RHO, epsilon=EPS),
            "sgd": lambda: keras.optimizers.SGD(rate),
        }[network.optimizer](),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=case.variant == "jit_compile",
    )
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    notes = () if network.optimizer != "rmsprop" else ("Keras adds RMSProp's eps under the root; the others after it",)
    if case.task == "infer":
        return Peer(lambda x, y: np.asarray(model.predict_on_batch(x)), versions)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        # Keras reports a running mean over the batches since the last reset.
        model.reset_metrics()
        return float(model.train_on_batch(x, y))

    return Peer(step, versions, notes)
