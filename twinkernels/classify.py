"""From a classifier's output to probabilities."""

from __future__ import annotations

import numpy as np

from models.graph import Graph
from models.layers import Softmax


def probabilities(model: Graph, x: np.ndarray) -> np.ndarray:
    """The probability of each class for each image, (N, classes): softmax of the model's output.

    The output of a model that ends in Softmax is taken as it is. Raises ValueError for a model whose output is no row
    of classes, and what `predict` raises.
    """
    if len(model.output_shape) != 2:
        raise ValueError(f"the model's output is {model.output_shape}, expected (N, classes)")
    output = model.predict(x)
    ends_in_softmax = any(node.name == model.output and isinstance(node.layer, Softmax) for node in model.nodes)
    return output if ends_in_softmax else model.kernels.softmax(output)
