"""The command `python -m fuzz.redteam`: random models with one slip each, in a layer as its author might have made it.

A slip is a wrong shape, array, dtype, size, number or order in one call that a layer writes into a plan. It has to be
refused when the plan is made, in one line that names the layer. What is not refused is a plan like any other: a
training step and a prediction of it must be what the NumPy backend makes of the same plan, and touch no byte beside its
arrays, which lie between pages that nobody may touch.

Slips run in processes of their own: one that ends otherwise than it should is a finding too. Exit status 1 if there are
findings, each with the number that makes it again: `python -m fuzz.redteam --first NUMBER --slips 1`.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import random
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from kernels import memory
from models import (
    CELU,
    ELU,
    GELU,
    SELU,
    SGD,
    Abs,
    Adam,
    Add,
    Affine,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Divide,
    Dropout,
    Dropout2d,
    Erf,
    Exp,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Graph,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    Mean,
    MeanNorm,
    MeanSquaredError,
    Mish,
    Multiply,
    Negative,
    Pad2d,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    SoftmaxCrossEntropy,
    Softsign,
    Subtract,
    ThresholdedReLU,
    Trainer,
    Transpose,
    Upsample2d,
    Value,
)

BATCH = 5
PER_PROCESS = 500

# Memory between guards ----------------------------------------------------------------------------------------------


def paged(shape: tuple[int, ...] | int, dtype: Any) -> np.ndarray:
    """`memory.empty` whose array ends where a page begins that may be neither read nor written."""
    shape, dtype, page = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype), mmap.PAGESIZE
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = -(-max(size, 1) // page) * page
    pages = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    for guard in (start, start + page + room):
        if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    whole = np.frombuffer(pages, np.uint8)
    whole[page : page + room] = 0xA5
    array: np.ndarray = whole[page + room - size : page + room].view(dtype).reshape(shape)
    return array


class Canaries:
    """`memory.empty` with bytes around every array, which `intact` looks at: for systems without pages to guard."""

    MARGIN, BYTE = 256, 0xA5

    def __init__(self) -> None:
        self._blocks: list[tuple[np.ndarray, int]] = []

    def __call__(self, shape: tuple[int, ...] | int, dtype: Any) -> np.ndarray:
        shape, dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        block = np.full(size + 2 * self.MARGIN, self.BYTE, np.uint8)
        self._blocks.append((block, size))
        array: np.ndarray = block[self.MARGIN : self.MARGIN + size].view(dtype).reshape(shape)
        return array

    def intact(self) -> bool:
        """Whether nothing was written beside the arrays made so far, which are then forgotten."""
        blocks, self._blocks = self._blocks, []
        margins = (np.concatenate([block[: self.MARGIN], block[self.MARGIN + size :]]) for block, size in blocks)
        return all(bool((margin == self.BYTE).all()) for margin in margins)


@contextmanager
def guarded(allocate: Callable[..., np.ndarray]) -> Iterator[None]:
    """Have buffers, parameters and scratch allocated in another way."""
    before = memory.empty
    memory.empty = allocate
    try:
        yield
    finally:
        memory.empty = before


# Slips --------------------------------------------------------------------------------------------------------------


class Slipping:
    """A `PlanBuilder` for a layer, with one slip at one of the layer's uses of it."""

    def __init__(self, plan: Any, chance: random.Random, at: int) -> None:
        self._plan, self._chance, self._left = plan, chance, at
        self.slip = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def _now(self) -> bool:
        self._left -= 1
        return self._left == -1

    def value(self, name: str, shape: Any, dtype: Any = None) -> Any:
        if self._now():
            shape, dtype = self._misshapen(shape, dtype)
        return self._plan.value(name, shape, dtype)

    def like(self, value: Any, name: str = "y", dtype: Any = None) -> Any:
        return self.value(name, value.shape, dtype)

    def view(self, value: Any, shape: Any) -> Any:
        if self._now():
            shape, _ = self._misshapen(shape, None)
        return self._plan.view(value, shape)

    def gradient(self, value: Any) -> Any:
        found = self._plan.gradient(value)
        if found is not None and self._now():
            shape, dtype = self._misshapen(found.shape, found.dtype)
            return Value(found.name, shape, dtype)
        return found

    def call(self, kernel: Any, *arguments: Any) -> None:
        if not self._now():
            self._plan.call(kernel, *arguments)
            return
        changed = self._changed(list(arguments))
        self.slip = f"{kernel}: {self.slip}"
        for given in changed:
            self._plan.call(kernel, *given)

    def _misshapen(self, shape: Any, dtype: Any) -> tuple[Any, Any]:
        chance, sizes = self._chance, list(shape)
        kind = chance.choice(("axis", "axis", "axis", "dropped", "added", "swapped", "batch", "dtype"))
        at = chance.randrange(len(sizes)) if sizes else 0
        if kind == "axis" and sizes:
            size = BATCH if isinstance(sizes[at], str) else sizes[at]
            sizes[at] = chance.choice([size // 2, size + 1, size - 1, 2 * size, size / 2, -size])
        elif kind == "dropped" and sizes:
            del sizes[at]
        elif kind == "added":
            sizes.insert(at, chance.choice([1, 2, "N"]))
        elif kind == "swapped" and len(sizes) > 1:
            other = chance.randrange(len(sizes))
            sizes[at], sizes[other] = sizes[other], sizes[at]
        elif kind == "batch":
            sizes = [BATCH if size == "N" else size for size in sizes]
        else:
            dtype = np.dtype(chance.choice(["float32", "float64", "float16", "int64", "uint8", "bool"]))
        self.slip = f"{kind}, {shape} as {sizes} {dtype}"
        return tuple(sizes), dtype

    def _changed(self, arguments: list[Any]) -> list[list[Any]]:
        """The calls instead of the one with these arguments."""
        chance = self._chance
        values = [i for i, argument in enumerate(arguments) if isinstance(argument, Value)]
        dims = [i for i, argument in enumerate(arguments) if hasattr(argument, "_fields")]
        others = [i for i in range(len(arguments)) if i not in values and i not in dims]
        known = [v for step in self._plan.steps for v in step.arguments if isinstance(v, Value)]
        kind = chance.choice(("swapped", "another", "misshapen", "none", "dims", "dims", "left out", "twice", "number"))
        self.slip = kind
        at = chance.choice(values)
        if kind == "swapped":
            other = chance.choice(values)
            arguments[at], arguments[other] = arguments[other], arguments[at]
        elif kind == "another" and known:
            arguments[at] = chance.choice(known)
        elif kind == "none":
            arguments[chance.randrange(len(arguments))] = None
        elif kind == "dims" and dims:
            arguments[dims[0]] = self._wrong_dims(arguments[dims[0]])
        elif kind == "left out":
            return []
        elif kind == "twice":
            return [arguments, arguments]
        elif kind == "number" and others:
            at = chance.choice(others)
            arguments[at] = chance.choice([arguments[at], "0.5", None, [1], True, 3, 0.25])
        else:
            value = arguments[at]
            arguments[at] = Value(value.name, *self._misshapen(value.shape, value.dtype))
        return [arguments]

    def _wrong_dims(self, d: Any) -> Any:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.choice([tuple(d), None, d[:-1], "d"])
        fields = d._asdict()
        for field in chance.sample(list(fields), 1 + (chance.random() < 0.3)):
            fields[field] = chance.choice([fields[field] + 1, fields[field] - 1, 2 * fields[field], 0, -1, 1.5, 10**10])
        self.slip = f"dims {fields}"
        return type(d)(**fields)


@dataclass(frozen=True)
class Slip(Layer):
    """Another layer as somebody else has written it, with a slip."""

    inner: Layer
    seed: int
    at: int
    told: Any = None

    @property
    def arity(self) -> int:  # type: ignore[override]
        return self.inner.arity

    def parameters(self, *x: Any, **_: Any) -> Any:
        return self.inner.parameters(*x)

    def statistics(self, *x: Any, **_: Any) -> Any:
        return self.inner.statistics(*x)

    def lower(self, plan: Any, p: SimpleNamespace, *x: Any, **_: Any) -> Any:
        chance = random.Random(self.seed)
        slipping: Any = Slipping(plan, chance, self.at)
        self.told.uses.append(slipping)
        lowered = self.inner.lower(slipping, p, *x)
        if self.at != -1:
            return lowered
        y, backward = lowered
        written: Any = backward
        wrong = plan.like(x[0], "wrong")
        kind = chance.choice(("y", "backward", "none", "dy", "many", "other"))
        slipping.slip = f"hands back {kind}"
        match kind:
            case "y":
                return chance.choice([x[0], wrong, None, (y,)]), backward
            case "backward":
                return y, None
            case "none":
                return y, lambda dy: None
            case "dy":
                return y, lambda dy: dy
            case "many":
                return y, lambda dy: (dy,) * 3
        return y, lambda dy: (wrong, written(dy))[0]

    def __str__(self) -> str:
        return f"Slip({self.inner})"


# Models -------------------------------------------------------------------------------------------------------------

_ACTIVATIONS = (
    *(ReLU(), ReLU(), ReLU(), LeakyReLU(0.1), ELU(), GELU(), GELU("tanh"), Sigmoid(), Softmax(), LogSoftmax()),
    *(
        Dropout(0.4),
        SiLU(),
        Clip(-0.5, 0.7),
        HardSigmoid(),
        HardSwish(),
        Mish(),
        SELU(),
        CELU(0.7),
        PReLU(),
        Softsign(),
    ),
    *(ThresholdedReLU(0.3), Exp(), Abs(), Negative(), Erf(), Affine(), LayerNorm()),
)

_NORMS = (BatchNorm(), BatchNorm(), MeanNorm(), LayerNorm(), GroupNorm(2), InstanceNorm(), LocalResponseNorm(3))

_KEPT = (  # what keeps the channels, and no size below what it was
    *(Pad2d(((1, 0), (0, 2))), Pad2d(1, "reflect"), Upsample2d((2, 1)), Softmax(1), Dropout2d(0.4)),
    *(ConvTranspose2d(4, 2, stride=2), ConvTranspose2d(4, 3, groups=2), Affine((1, 4), bias=False), PReLU(shared=True)),
    *(Transpose((2, 1, 3)), Slice(-1, step=-1)),
)

_POOLS = (MaxPool2d(2), AvgPool2d(2), MaxPool2d(2, stride=1), AvgPool2d(2, count_include_pad=False))


def _layers(chance: random.Random) -> Iterator[Layer]:
    """Layers in a row, for images of 8 by 7 with 2 channels, up to three outputs."""
    size: tuple[int, ...] = (8, 7)
    for _ in range(chance.randrange(3)):
        window = chance.randrange(1, min(size) + 1) if min(size) < 4 else chance.randrange(1, 4)
        padding, stride = chance.randrange(2), chance.randrange(1, 3)
        yield Conv2d(4, window, padding=padding, stride=stride, groups=chance.choice([1, 1, 2]))
        size = tuple((n + 2 * padding - window) // stride + 1 for n in size)
        if chance.random() < 0.5:
            yield chance.choice(_NORMS)
        if chance.random() < 0.7:
            yield chance.choice(_ACTIVATIONS)
        if chance.random() < 0.3:
            kept = chance.choice(_KEPT)
            yield kept
            size = (min(size), min(size)) if isinstance(kept, Transpose) else size
        if chance.random() < 0.5 and min(size) > 1:
            yield chance.choice(_POOLS)
            size = tuple(n // 2 for n in size)  # at least
        if min(size) < 2:
            break
    yield chance.choice([Flatten(), Flatten(), GlobalAvgPool2d(), GlobalMaxPool2d(), Mean((1, 2)), Reshape((-1,))])
    for _ in range(chance.randrange(2)):
        yield Linear(6, bias=chance.random() < 0.7)
        yield chance.choice([*_ACTIVATIONS, BatchNorm()])
    yield Linear(3)


def _nodes(chance: random.Random) -> dict[str, tuple[Any, ...]]:
    """The layers as nodes, some of them with a way around."""
    nodes: dict[str, tuple[Any, ...]] = {}
    last = "input"
    for i, layer in enumerate(_layers(chance)):
        nodes[f"n{i}"] = (layer, last)
        last = f"n{i}"
        if chance.random() < 0.15 and not isinstance(layer, Flatten):
            around = chance.choice([Add(), Add(), Concat(), Concat(), Multiply(), Subtract(), Divide()])
            nodes[f"a{i}"], nodes[f"j{i}"] = (Sigmoid(), last), (around, last, f"a{i}")
            last = f"j{i}"
    if not isinstance(nodes[last][0], Linear):
        nodes["last"] = (Linear(3), last)
    return nodes


# One slip -----------------------------------------------------------------------------------------------------------

REFUSED, LEGAL, NONE = "refused", "legal", "no slip"


def outcome(number: int, backend: str, intact: Callable[[], bool] = lambda: True) -> tuple[str, str]:
    """What becomes of a slip: REFUSED, LEGAL or NONE; anything else is a finding. And the slip or the error in words.

    `memory.empty` is `guarded` by whoever calls.
    """
    chance = random.Random(number)
    nodes, told = _nodes(chance), SimpleNamespace(uses=[])
    name = chance.choice(list(nodes))
    layer, *inputs = nodes[name]
    nodes[name] = (Slip(layer, chance.randrange(1 << 30), chance.randrange(-1, 7), told), *inputs)
    loss = chance.choice([SoftmaxCrossEntropy(), SoftmaxCrossEntropy(0.1), MeanSquaredError()])
    optimizer = chance.choice([SGD(0.1), SGD(0.1, momentum=0.9), Adam(1e-3)])

    def trained(backend: str) -> list[np.ndarray]:
        rng = np.random.default_rng(number)
        x = rng.standard_normal((BATCH, 8, 7, 2))
        labels = rng.integers(0, 3, BATCH)
        target = labels if isinstance(loss, SoftmaxCrossEntropy) else rng.standard_normal((BATCH, 3))
        model = Graph(nodes, list(nodes)[-1], (8, 7, 2), backend, seed=number, dtype=np.float64)
        trainer = Trainer(model, optimizer, loss, batch_size=BATCH, on_nonfinite="ignore")
        value = np.array(trainer.step(x, target))
        return [value, *trainer.gradients().values(), model.predict(x[:3])]

    try:
        found = trained(backend)
    except (ValueError, TypeError) as error:
        message = str(error)
        right = message.startswith(f"node {name!r} (") and "\n" not in message
        # What a slip leaves behind may show in the layer after it.
        right = right or (message.startswith(("node ", "plan: ", "value ", "loss ")) and "\n" not in message)
        return (REFUSED if right else "in other words"), message
    slip = "; ".join(dict.fromkeys(use.slip for use in told.uses if use.slip))
    if not intact():
        return "wrote outside", slip
    with np.errstate(all="ignore"):
        expected = trained("numpy") if backend != "numpy" else found
    if not slip:
        return NONE, ""
    # What is left of large terms, as a bias's gradient before a normalisation, is their rounding.
    near = 1e-9 * max(1.0, *(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in expected))
    same = all(np.allclose(a, b, rtol=1e-6, atol=near, equal_nan=True) for a, b in zip(found, expected, strict=True))
    return (LEGAL if same else "other numbers"), slip


def findings(first: int, slips: int, backend: str, guard: str, told: Callable[[int, str, str], None]) -> None:
    """Tell of one slip after the other: its number, what became of it, and words."""
    canaries = Canaries()
    with guarded(paged if guard == "pages" else canaries):
        for number in range(first, first + slips):
            try:
                told(number, *outcome(number, backend, canaries.intact))
            except Exception:
                told(number, "another error", traceback.format_exc(limit=-3))


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m fuzz.redteam", description=__doc__.splitlines()[0])
    parser.add_argument("--slips", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (0)")
    parser.add_argument("--backend", choices=("numba", "numpy"), default="numba", help="what runs them (numba)")
    parser.add_argument(
        "--guard", choices=("pages", "canaries"), default="pages", help="what lies beside an array (pages)"
    )
    parser.add_argument("--here", action="store_true", help="in this process, one line a slip")
    given = parser.parse_args(arguments)
    if given.here:
        findings(given.first, given.slips, given.backend, given.guard, _say)
        return 0
    counts: Counter[str] = Counter()
    at, end = given.first, given.first + given.slips
    while at < end:
        for number, kind, words in _elsewhere(at, min(PER_PROCESS, end - at), given.backend, given.guard):
            counts[kind] += 1
            if kind not in (REFUSED, LEGAL, NONE):
                print(f"slip {number}: {kind}: {words}", flush=True)
            at = number + 1
        print(f"{at - given.first:8,} slips: {_told(counts)}", flush=True)
    return 1 if set(counts) - {REFUSED, LEGAL, NONE} else 0


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def _say(number: int, kind: str, words: str) -> None:
    print(f"{number}\t{kind}\t{words!r}", flush=True)


def _elsewhere(first: int, slips: int, backend: str, guard: str) -> Iterator[tuple[int, str, str]]:
    """The slips in another process, up to the one that ends it."""
    options = ["--here", "--first", first, "--slips", slips, "--backend", backend, "--guard", guard]
    command = [sys.executable, "-m", "fuzz.redteam", *map(str, options)]
    number = first
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text, kind, words = line.rstrip("\n").split("\t", 2)
            number = int(text) + 1
            yield int(text), kind, words
    if number < first + slips:
        yield number, f"ended the process with {process.returncode}", ""


if __name__ == "__main__":
    sys.exit(main())
