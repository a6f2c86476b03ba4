"""Networks of other programs in the commands: what they take for pixels, and what they answer."""

from __future__ import annotations

from collections.abc import Callable

import data
from models.graph import Graph, accuracy
from models.layers import Softmax

RANGES = {"0..1": (0.0, 255.0), "0..255": (0.0, 1.0), "-1..1": (127.5, 127.5)}
"""What pixels from 0 to 255 become, as (mean, std) in pixel units."""

TRIED = 500
"""Training images by which a range is chosen where neither file nor user says."""


def set_pixels(network: Graph, ours: bool, pixels: str | None, training: Callable[[], data.Split] | None = None) -> str:
    """Have a network take uint8 pixels as told; or, where it has no normalisation and nobody says, as it seems.

    With a training split it is the range that reads most of its images, without it is 0..1. A file of `ours` says what
    it was trained on, and is left as it is where it says nothing. Returns what was assumed, "" where nothing was.
    Raises ValueError for a text that is neither a range nor MEAN,STD, and where `training` finds no images: nothing is
    chosen by those that are to be judged.
    """
    if pixels is not None:
        network.normalisation = _normalisation(pixels)
        return ""
    if network.normalisation is not None or ours:
        return ""
    network.normalisation = RANGES["0..1"]
    if training is None or len(network.output_shape) != 2:
        return "0..1"
    try:
        images, labels = (array[:TRIED] for array in training())
    except data.DataNotFoundError:
        raise ValueError(
            "the model's file does not say what pixels it takes, and there are no training images to tell by; "
            f"--pixels says it: {', '.join(RANGES)} or MEAN,STD"
        ) from None
    images = images.reshape(len(images), *network.input_shape)
    reached = {}
    for name, normalisation in RANGES.items():
        network.normalisation = normalisation
        reached[name] = accuracy(network.predict(images), labels)
    best = max(reached, key=lambda name: reached[name])
    network.normalisation = RANGES[best]
    return f"{best}, which reads {reached[best]:.3f} of {len(images)} training images"


def _normalisation(pixels: str) -> tuple[float, float]:
    if pixels in RANGES:
        return RANGES[pixels]
    try:
        mean, std = (float(part) for part in pixels.split(","))
    except ValueError:
        raise ValueError(f"--pixels is {pixels!r}, expected {', '.join(RANGES)} or MEAN,STD of pixels") from None
    return mean, std


def logits(network: Graph) -> Graph:
    """The network without the Softmax that it may end in, which the loss has of its own."""
    last = next(node for node in network.nodes if node.name == network.output)
    return network.until(last.inputs[0]) if isinstance(last.layer, Softmax) and last.inputs != ("input",) else network
