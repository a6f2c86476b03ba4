"""Translation: a network of a file becomes one of layers, node by node, whatever the file's format calls them.

Tensors of the file are known arrays, or views of what nodes here put out (`views`). A translated operator asks for its
inputs in the layout that its layer wants, and says how its outputs lie.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kernels.shapes import Shape

from .. import layers
from ..builder import PlanBuilder
from ..encoding import harmless
from ..layers import Layer
from ..lowering import Network, append
from ..nodes import INPUT, MAX_NAME, Node
from ..plan import BATCH as SYMBOL
from ..plan import Value
from .folding import BatchSize, Refusal
from .views import BATCH, STAND_IN, Atom, Axis, View, extent, flat, fresh, refined, regrouped, turned

CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
"""By rank: the file's axes in the order that layers want, where the file has channels first."""


@dataclass
class Made:
    """A node that has been made: its layer, what it reads, its arrays."""

    layer: Layer
    inputs: tuple[str, ...]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    altered: bool = False
    """Whether its arrays are not the file's own, but for images channels last."""


def layer_class(name: str) -> type[Layer]:
    """A class of layers by its name. Raises Refusal where there is none."""
    found = getattr(layers, name, None)
    if found is None:
        raise Refusal(f"needs a layer {name}, which there is not")
    return found  # type: ignore[no-any-return]


class Translation:
    """The network so far.

    batch: the size that the file fixes for its batch axis, None where it leaves it open. whole: the file's tensors have
    no batch axis, and one stands before the axes of each here.
    """

    def __init__(self, input_shape: Shape, batch: int | None = None, whole: bool = False) -> None:
        self.batch = batch
        self.exact = False
        """Whether arrays stay as the file numbers them, but for images channels last: what goes back must be found."""
        self.lead = int(whole)
        """How many axes stand before the file's own."""
        self.made: dict[str, Made] = {}
        self.remaining: Counter[str] = Counter()
        """By node here: how often tensors of the file that view it are still to be read."""
        self._plan = PlanBuilder(training=False)
        self._network = Network({INPUT: Value(INPUT, (SYMBOL, *input_shape))})
        self._arranged: dict[tuple[Any, ...], str] = {}
        self._counts: Counter[str] = Counter()
        self._read: Counter[str] = Counter()

    # Nodes -------------------------------------------------------------------------------------------------

    def shape(self, node: str) -> tuple[int, ...]:
        """The shape of one sample of a node's output."""
        return tuple(int(size) for size in self._network.values[node].shape[1:])

    def add(self, layer: Layer, *inputs: str, name: str, **arrays: np.ndarray) -> str:
        """A new node; its name. Raises Refusal where the layer does not take such inputs or arrays."""
        name = self._free(name)
        node = Node(name, layer, inputs)
        try:
            append(self._plan, self._network, node)
        except (ValueError, TypeError) as error:
            raise Refusal(f"does not fit ({error})") from None
        shapes = [self._network.values[source].shape for source in inputs]
        expected = {**layer.parameters(*shapes), **layer.statistics(*shapes)}
        for key, parameter in expected.items():
            got = arrays[key].shape if key in arrays else None
            if got != tuple(parameter.shape):
                raise Refusal(f"has {key} of shape {got}, expected {tuple(parameter.shape)}")
        if min(self.shape(name), default=1) < 1:
            raise Refusal("makes an empty tensor")
        self.made[name] = Made(layer, inputs, arrays)
        self._read.update(inputs)
        return name

    def _free(self, wanted: str) -> str:
        """A name that a node may have and none has yet."""
        text = harmless(wanted).replace("'", "_").replace("\\", "/").strip("/. ")[: MAX_NAME - 12]
        text = "/".join(part if part not in ("", "..") else "_" for part in text.split("/"))
        if text == INPUT or not text.strip("_/"):
            text = f"{text or 'node'}_"
        taken = self._network.values
        name = text
        while name in taken or f"d{name}" in taken or (name[:1] == "d" and name[1:] in taken):
            self._counts[text] += 1
            name = f"{text}_{self._counts[text] + 1}"
        return name

    def sole(self, node: str) -> bool:
        """Whether what is translated now is all that will ever read a node's output."""
        return node in self.made and self.remaining[node] == 1 and not self._read[node]

    def renumbers(self, axis: Axis, view: View) -> bool:
        """Whether weights over an axis may be renumbered as it lies in memory: any, or if exact a flattened image's."""
        return not self.exact or self.follows(axis, view)

    def follows(self, axis: Axis, view: View) -> bool:
        """Whether an axis lies in memory as the file numbers it, but for a flattened image, which is channels last."""
        if axis == view.memory:
            return True
        shape = self.shape(view.node)
        first = next((at for at in range(len(axis)) if axis[at:] + axis[:at] == view.memory), 0)
        return len(shape) == 3 and extent(axis[:first]) == shape[-1]

    def read(self, node: str) -> int:
        """How many nodes read a node's output."""
        return self._read[node]

    # Layouts -----------------------------------------------------------------------------------------------

    def sizes(self, view: View) -> list[int | BatchSize]:
        """The file's sizes of a tensor's axes."""
        return [self._size(axis) for axis in view.axes]

    def _size(self, axis: Axis) -> int | BatchSize:
        if BATCH not in axis:
            return extent(axis)
        return BatchSize(extent(axis)) if self.batch is None else extent(axis) * self.batch

    def arranged(self, view: View, groups: Sequence[Axis]) -> str:
        """A node whose output is (N, *groups): the same numbers in this order."""
        wanted = flat(groups)
        if len(wanted) != len(view.memory) or set(wanted) != set(view.memory):
            raise Refusal("mixes the batch with other axes")
        shape = tuple(extent(group) for group in groups)
        key = (view.node, view.memory, wanted, shape)
        if key not in self._arranged:
            self._arranged[key] = self._rearranged(view, groups, shape)
        return self._arranged[key]

    def around(self, view: View, axis: Axis) -> list[Axis]:
        """Three axes of a sample, the middle one this axis of the file's, in an order that moves little."""
        memory = view.memory
        at = next((at for at in range(len(memory)) if memory[at : at + len(axis)] == axis), None)
        if at is None or not axis:
            return [tuple(atom for atom in memory if atom not in axis), axis, ()]
        return [memory[:at], axis, memory[at + len(axis) :]]

    def _rearranged(self, view: View, groups: Sequence[Axis], shape: tuple[int, ...]) -> str:
        node = view.node
        runs, order = refined(view, groups)
        if order != list(range(len(runs))):
            node = self.reshaped(node, tuple(runs))
            transpose = layer_class("Transpose")(tuple(at + 1 for at in order))
            node = self.add(transpose, node, name="transpose")
        return self.reshaped(node, shape)

    def reshaped(self, node: str, shape: tuple[int, ...]) -> str:
        """A node's output in another shape."""
        if self.shape(node) == shape:
            return node
        layer = layers.Flatten() if len(shape) == 1 else layer_class("Reshape")(shape)
        return self.add(layer, node, name="flatten" if len(shape) == 1 else "reshape")

    def reshape(self, view: View, sizes: Sequence[int | BatchSize]) -> View:
        """The file's tensor in another shape, without one -1 or 0 left in it."""
        batch = STAND_IN if self.batch is None else self.batch
        numbers = [size.times * batch if isinstance(size, BatchSize) else int(size) for size in sizes]
        total = math.prod(atom.size for atom in view.memory) * batch
        if math.prod(numbers) != total:
            raise Refusal(f"makes {list(sizes)} of a tensor of {self.sizes(view)}")
        found = regrouped(view, numbers, batch)
        if found is None:  # in the file's own order all factors can be split anywhere
            if flat(view.axes)[:1] != (BATCH,):
                raise Refusal("mixes the batch with other axes")
            node = self.arranged(view, [flat(unbatched(view))])
            whole = Atom(math.prod(self.shape(node)))
            found = regrouped(View(node, (whole,), ((BATCH, whole),)), numbers, batch)
        if found is None:
            raise Refusal("mixes the batch with other axes")
        return found

    def orders(self, *views: View) -> tuple[int, ...]:
        """The order of the file's axes in which tensors of one rank lie, or all but the fewest: the batch is first."""
        rank = max(view.rank for view in views)
        candidates = [tuple(range(rank))]
        if rank in CHANNELS_LAST:
            candidates.insert(0, CHANNELS_LAST[rank])
        return min(candidates, key=lambda order: sum(self._cost(view, order) for view in views))

    def _cost(self, view: View, order: Sequence[int]) -> int:
        """What it takes to bring a tensor into an order of the file's axes."""
        groups = self.groups(view, order)
        if flat(groups) != view.memory:
            return 1 + 1000 * len(view.memory)
        return int(self.shape(view.node) != tuple(extent(group) for group in groups))

    def groups(self, view: View, order: Sequence[int]) -> list[Axis]:
        """The axes of a sample in an order of the file's, to which a tensor of lower rank is aligned as in NumPy."""
        axes: list[Axis] = [()] * (len(order) - view.rank) + list(view.axes)
        first, *others = (axes[at] for at in order)
        if first != (BATCH,):
            raise Refusal("does not have the batch on the first axis")
        return others

    def in_order(self, view: View, order: Sequence[int]) -> str:
        """A node whose output has the file's axes in this order, the batch first."""
        return self.arranged(view, self.groups(view, order))

    def image(self, view: View) -> str:
        """A node whose output is (N, H, W, C) of the file's (N, C, H, W); a row of (N, C, L) is one of height 1."""
        self.check_batch()
        return self.map(view)

    def map(self, view: View) -> str:
        """`image` of any tensor of three or four axes, whatever they are."""
        if view.rank == 3:
            batch, channels, length = view.axes
            view = replace(view, axes=(batch, channels, (), length))
        if view.rank != 4:
            raise Refusal(f"has {view.rank - 2} axes of space, expected one or two")
        return self.in_order(view, CHANNELS_LAST[4])

    def check_batch(self) -> None:
        """Raises Refusal where the file's first axis, which an operator takes for the batch, is none here."""
        if self.lead:
            raise Refusal("takes images one by one, where the network works along their axis")

    def as_image(self, node: str, rank: int = 4) -> View:
        """A node's output (N, H, W, C) as the file's (N, C, H, W), or (N, C, L) where H is 1."""
        view = fresh(node, self.shape(node), (0, 3, 1, 2))
        return view if rank == 4 else replace(view, axes=(view.axes[0], view.axes[1], view.axes[3]))

    def operand(self, array: np.ndarray, view: View) -> np.ndarray:
        """A constant that broadcasts over the file's tensor as one that broadcasts over the node's output."""
        if array.ndim > view.rank:
            if any(size != 1 for size in array.shape[: array.ndim - view.rank]):
                raise Refusal(f"has a constant of shape {array.shape} and a tensor of {view.rank} axes")
            array = array.reshape(array.shape[array.ndim - view.rank :])
        array = array.reshape((1,) * (view.rank - array.ndim) + array.shape)
        sizes = self.sizes(view)
        for at, (size, axis) in enumerate(zip(array.shape, view.axes, strict=True)):
            if size != 1 and BATCH in axis:
                raise Refusal("has a constant that differs from sample to sample")
            if size not in (1, sizes[at]):
                raise Refusal(f"has a constant of shape {array.shape} for a tensor of {sizes}")
        return turned(array, unbatched(view), self.own_axes(view))

    def own_axes(self, view: View) -> list[Axis]:
        """The axes of a sample of the node's output, in the view's atoms."""
        own: list[Axis] = []
        rest = list(view.memory)
        for size in self.shape(view.node):
            group: list[Atom] = []
            while rest and math.prod(atom.size for atom in group) < size:
                group.append(rest.pop(0))
            if math.prod(atom.size for atom in group) != size:
                raise Refusal("treats a part of an axis on its own")
            own.append(tuple(group))
        return own

    def signature(self, view: View) -> tuple[Any, ...]:
        """What two tensors have in common whose elements correspond one by one in memory."""
        place = {atom: (at, inner) for at, axis in enumerate(view.axes) for inner, atom in enumerate(axis)}
        lies = tuple((place[atom], atom.size) for atom in view.memory)
        return self.shape(view.node), view.rank, place.get(BATCH), lies


def unbatched(view: View) -> list[Axis]:
    """The axes of a sample."""
    return [tuple(atom for atom in axis if atom is not BATCH) for axis in view.axes]
