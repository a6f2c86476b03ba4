"""scikit-learn's MLPClassifier, one partial_fit a step."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from ..networks import EPS, Case, Peer


def prepare(case: Case) -> Peer:
    network = case.network
    notes = []
    if network.optimizer == "rmsprop":
        notes.append("scikit-learn has no RMSProp; its Adam stands in")
    model = MLPClassifier(
        network.units,
        solver="sgd" if network.optimizer == "sgd" else "adam",
        learning_rate_init=network.learning_rate,
        momentum=0.0,
        nesterovs_momentum=False,
        alpha=0.0,
        epsilon=EPS,
        batch_size=case.batch_size,
        shuffle=False,
    )
    classes = np.arange(10)
    flat = case.x.reshape(*case.x.shape[:2], -1)
    model.partial_fit(flat[0], case.y[0], classes=classes)  # the only way to have the arrays made
    for ours, theirs in zip(case.weights.linear, model.coefs_, strict=True):
        theirs[...] = ours
    for bias in model.intercepts_:
        bias[...] = 0
    versions = {"scikit-learn": sklearn.__version__}
    if case.task == "infer":
        notes.append("probabilities, not logits: predict_proba")
        return Peer(lambda x, y: model.predict_proba(x.reshape(len(x), -1)), versions, tuple(notes), comparable=False)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        model.partial_fit(x.reshape(len(x), -1), y)
        return float(model.loss_)

    return Peer(step, versions, tuple(notes), comparable=network.optimizer == "sgd")
