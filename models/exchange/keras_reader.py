"""Networks from Keras' files: `.keras` (Keras 3) and whole models in `.h5` (Keras 2), without Keras.

Keras is NHWC as we are, so weights keep their order. What differs is turned at this edge: BatchNormalization's momentum
is the weight of the old statistic there and of the new one here, a depthwise kernel is (KH, KW, C, M) there and a
convolution's (KH, KW, 1, C M) in C groups here, and an activation is an argument there and a layer here.

Nothing in a file is executed: a Lambda, or a class that is not Keras' own, is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..encoding import ModelFormatError
from ..graph import Graph
from ..nodes import INPUT
from . import hdf5
from .assembly import Assembly
from .keras_file import entry_of, input_shape, named, opened, takes_pixels
from .keras_layers import Network, reason_against

FAILED = "not a Keras model that can be read"

PIXELS = (0.0, 1.0)
"""The normalisation that leaves pixels as they are."""


def read_keras(path: Path, backend: str | None, max_bytes: int) -> Graph:
    """The network in a `.keras` file or in Keras' `.h5`, whichever it is by content.

    Its output is the file's first, its nodes are called as the file's layers. uint8 images are taken as
    they are where it rescales them itself. Raises ModelFormatError for a file that is no whole model, and
    UnsupportedOperatorError, which is one, for a layer that has no counterpart here: both name the file, and the layer.
    """
    with hdf5.failing_as(path, FAILED):
        if (size := path.stat().st_size) > max_bytes:
            raise ModelFormatError(f"{size} bytes, expected at most {max_bytes}; load(..., max_bytes={size}) takes it")
        with opened(path, max_bytes) as file:
            assembly = Assembly(input_shape(file.model))
            outputs = Network(file, assembly).model(entry_of(file.model), "", (INPUT,), "", True, 0)
            return assembly.graph(outputs[0], backend, PIXELS if takes_pixels(file.model) else None)


@dataclass(frozen=True)
class Survey:
    """What a file tells of its network: who wrote it, each layer by name and class, and why one cannot run here."""

    version: str
    layers: tuple[tuple[str, str, str], ...]


def survey(path: Path, max_bytes: int) -> Survey:
    """The layers in a file, whether they can run here or not. Raises ModelFormatError for a damaged file."""
    with hdf5.failing_as(path, FAILED), opened(path, max_bytes) as file:
        layers = tuple((name, kind, reason_against(kind)) for name, kind in named(file.model))
        return Survey(file.version, layers)
