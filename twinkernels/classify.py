"""From a classifier's output to probabilities, and to what it reads wrongly."""

from __future__ import annotations

import numpy as np

import kernels
from models.graph import Graph
from models.layers import Softmax


def probabilities(model: Graph, x: np.ndarray) -> np.ndarray:
    """The probability of each class for each image, (N, classes): softmax of the model's output.

    The output of a model that ends in Softmax is taken as it is. Raises ValueError for a model whose output is no row
    of classes, or not finite, and what `predict` raises.
    """
    if len(model.output_shape) != 2:
        raise ValueError(f"the model's output is {model.output_shape}, expected (N, classes)")
    output = model.predict(x)
    ends_in_softmax = any(node.name == model.output and isinstance(node.layer, Softmax) for node in model.nodes)
    shares = output if ends_in_softmax else model.kernels.softmax(output)
    if unknown := np.count_nonzero(~np.isfinite(shares).all(axis=1)):
        raise ValueError(f"the model's numbers overflow: its answers to {unknown} of {len(x)} images are not finite")
    return shares


def name_of(model: Graph, label: int) -> str:
    """What a class is called: by the model's own names, or by its number."""
    return str(label) if model.classes is None else model.classes[label]


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probability of each class, (N, classes), by NumPy's kernel: for what is shown, not for what is timed."""
    return kernels.get("numpy").softmax(np.ascontiguousarray(logits))


def mistakes(logits: np.ndarray, labels: np.ndarray, count: int = 24) -> np.ndarray:
    """Indices of the samples that are read wrongly, the least probable truth first; at most `count`."""
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    probable = softmax(logits)[wrong, labels[wrong]]
    return wrong[np.argsort(probable, kind="stable")[:count]]


def confusion_matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row the label, column the answer."""
    counts: np.ndarray = np.bincount(labels.astype(int) * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)
