"""How time and memory of training grow. Run: python -m benchmarks.growth [--repetitions N] [--picture FILE]

One size grows at a time: batch, width, depth, image, number of samples. Time is the median over repetitions of one
step (of one epoch, for samples); memory is what the trainer holds: buffers, scratch, parameters, gradients, statistics
and optimizer state. The law is the slope of the last half of the curve in logarithms: 1 for linear, 2 for quadratic.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from models import Adam, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential, Trainer
from models.layers import Layer
from models.plan import table

RNG = np.random.default_rng(0)


class Point(NamedTuple):
    """Seconds and bytes at one size."""

    size: int
    seconds: float
    bytes: int


class Axis(NamedTuple):
    """What grows, over which sizes, and what is trained at each: (trainer, samples in a timed call)."""

    title: str
    sizes: tuple[int, ...]
    build: Callable[[int], tuple[Trainer, int]]


def cnn(image: int = 28) -> list[Layer]:
    """cnn-bn for images of any size."""
    blocks = [layer for filters in (16, 32) for layer in (Conv2d(filters, 5), BatchNorm(), ReLU(), MaxPool2d(2))]
    return [*blocks, Flatten(), Linear(10)]


def mlp(width: int, depth: int) -> list[Layer]:
    """Hidden layers of one width."""
    return [Flatten(), *(layer for _ in range(depth) for layer in (Linear(width), ReLU())), Linear(10)]


def trainer(layers: list[Layer], image: int = 28, batch_size: int = 128) -> Trainer:
    """An Adam trainer."""
    return Trainer(Sequential(layers, (image, image, 1)), Adam(1e-3), batch_size=batch_size)


AXES = (
    Axis("batch size, cnn-bn", (8, 16, 32, 64, 128, 256, 512, 1024), lambda n: (trainer(cnn(), batch_size=n), n)),
    Axis("width, two hidden layers", (32, 64, 128, 256, 512, 1024, 2048), lambda n: (trainer(mlp(n, 2)), 128)),
    Axis("depth, hidden layers of 256", (1, 2, 4, 8, 16, 32), lambda n: (trainer(mlp(256, n)), 128)),
    Axis("image side, cnn-bn", (16, 24, 32, 48, 64, 96), lambda n: (trainer(cnn(), n, 64), 64)),
    Axis("samples, an epoch of cnn-bn", (2_000, 4_000, 8_000, 16_000, 32_000, 64_000), lambda n: (trainer(cnn()), n)),
)


def measure(axis: Axis, repetitions: int) -> list[Point]:
    """The curve."""
    points = []
    for size in axis.sizes:
        own, samples = axis.build(size)
        x = RNG.standard_normal((samples, *own.model.input_shape)).astype(np.float32)
        y = RNG.integers(0, 10, samples)
        epoch = samples > own.batch_size
        own.fit(x[: own.batch_size], y[: own.batch_size], epochs=1)
        times = []
        for _ in range(max(3, repetitions // 5) if epoch else repetitions):
            start = time.perf_counter()
            if epoch:
                own.fit(x, y, epochs=1)
            else:
                own.step(x, y)
            times.append(time.perf_counter() - start)
        points.append(Point(size, median(times), own.bytes + (x.nbytes if epoch else 0)))
    return points


def law(points: Sequence[Point], field: str) -> float:
    """The slope of the curve's last half in logarithms."""
    last = points[len(points) // 2 :]
    values = [math.log(getattr(point, field)) for point in last]
    return float(np.polyfit([math.log(point.size) for point in last], values, 1)[0])


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    """The curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, rows = pyplot.subplots(2, len(curves), figsize=(3 * len(curves), 5.2), layout="constrained")
    for column, (title, points) in enumerate(curves.items()):
        sizes = [point.size for point in points]
        for axes, field, scale, unit in ((rows[0], "seconds", 1e3, "ms"), (rows[1], "bytes", 1e-6, "MB")):
            ax = axes[column]
            ax.loglog(sizes, [getattr(point, field) * scale for point in points], "o-", color="#0072b2", markersize=4)
            ax.annotate(f"slope {law(points, field):.2f}", (0.05, 0.88), xycoords="axes fraction")
            ax.set_xticks(sizes[::2], [f"{size:,}" if size < 10_000 else f"{size // 1000}k" for size in sizes[::2]])
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_formatter(ticker.NullFormatter())
                axis.set_minor_locator(ticker.NullLocator())
            ax.grid(True, which="major", alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
            if column == 0:
                ax.set_ylabel(unit)
        what, _, of = title.partition(", ")
        rows[0][column].set_title(f"{what}\n{of}", fontsize=10)
        rows[1][column].set_xlabel(what)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30, help="timed steps a size (30)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves as well")
    given = parser.parse_args(arguments)
    curves = {axis.title: measure(axis, given.repetitions) for axis in AXES}
    for title, points in curves.items():
        rows = [(f"{p.size:,}", f"{p.seconds * 1e3:,.2f}", f"{p.bytes / 1e6:,.1f}") for p in points]
        rows.append(("law", f"{law(points, 'seconds'):.2f}", f"{law(points, 'bytes'):.2f}"))
        print(table([(title, "ms", "MB"), *rows], right=(1, 2)), end="\n\n")
    if given.picture:
        draw(curves, given.picture)


if __name__ == "__main__":
    main()
