"""Architecture: a model without its arrays and without a backend; what is lowered, saved, cut and rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kernels import shapes

from .nodes import MAX_NAME, Node

MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Architecture:
    """What a model is made from, on whatever backend.

    nodes: each behind those that it reads, as `nodes.ordered` gives them.
    output: the name of the node whose output is the model's.
    input_shape: the shape of one sample.
    dtype: float32 or float64.
    seed: of the initial weights, dropout and shuffling.
    normalisation: (mean, std) in pixel units, by which uint8 images are normalised; None if there is none.
    classes: the names of the classes that a classifier's outputs stand for, or None.
    altered: of a model that was read from an ONNX file the nodes whose arrays are not those of the file's program, but
        computed from them or numbered otherwise; None for any other model.
    """

    nodes: tuple[Node, ...]
    output: str
    input_shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.float32)
    seed: int = 0
    normalisation: tuple[float, float] | None = None
    classes: tuple[str, ...] | None = None
    altered: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _class_names(self.classes))
        object.__setattr__(self, "seed", shapes.integer("model", "seed", self.seed, 0))
        if self.dtype not in shapes.FLOAT_DTYPES:
            raise TypeError(f"model: dtype is {self.dtype}, expected float32 or float64")
        try:
            given = () if isinstance(self.input_shape, str | bytes) else tuple(self.input_shape)
        except TypeError:
            given = ()
        if not given and not isinstance(self.input_shape, tuple):
            raise TypeError(
                f"model: input_shape is {self.input_shape!r}, expected the sizes of one sample, such as (28, 28, 1)"
            )
        sizes = tuple(shapes.integer("model", "input_shape", size, 1) for size in given)
        object.__setattr__(self, "input_shape", sizes)
        if self.altered is not None:
            names = {node.name for node in self.nodes}
            object.__setattr__(self, "altered", tuple(name for name in self.altered if name in names))
        if self.normalisation is not None:
            try:
                mean, std = self.normalisation
            except (TypeError, ValueError):
                raise TypeError(f"model: normalisation is {self.normalisation!r}, expected (mean, std)") from None
            mean = shapes.number("normalisation", "mean", mean)
            std = shapes.number("normalisation", "std", std, 0.0, above=True)
            object.__setattr__(self, "normalisation", (mean, std))

    def until(self, name: str) -> Architecture:
        """The part that leads to a node, whose output becomes the model's; ValueError for an unknown name."""
        if not isinstance(name, str) or name not in (node.name for node in self.nodes):
            raise ValueError(f"until: {name!r} is no node; expected one of {', '.join(n.name for n in self.nodes)}")
        wanted = {name}
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted.update(node.inputs)
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.name in wanted),
            output=name,
            classes=self.classes if name == self.output else None,
        )


def _class_names(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(given) if isinstance(given, list | tuple) else ()
    if not 1 <= len(names) <= MAX_CLASSES or not all(isinstance(n, str) and len(n) <= MAX_NAME for n in names):
        raise ValueError(
            f"model: classes is {str(given)[:100]!r}, expected 1 to {MAX_CLASSES} names of at most {MAX_NAME} "
            "characters"
        )
    return names
