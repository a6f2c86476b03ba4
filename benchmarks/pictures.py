"""How pictures of digits are read: the share that is right by the state of the paper, and what is refused.

Run: python -m benchmarks.pictures [--count N] [--vary]

MNIST's digits on pages, read by the network that comes with the package. The thresholds of `data/frame.py` are chosen
on training digits, which this takes unless told: `--vary` shows what others would do. `--test` reads test digits
instead: for the figures of docs/data.md, once, when all is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence

import numpy as np

import data
import models
from models import Graph
from twinkernels.draw import SHIPPED

frame = importlib.import_module("data.frame")  # the module, which has a function of its name beside it

Digit = np.ndarray
Make = Callable[[Digit, Digit, np.random.Generator], np.ndarray]
"""A picture of a digit, or of two, or of none."""

VALUES = {
    "FAINT": (35, 50, 65),
    "GRAIN": (4, 6, 9),
    "DARKEST": (0.3, 0.4, 0.5),
    "SHADOW": (0.05, 0.1, 0.2),
    "REACH": (4 / 32, 5 / 32, 6 / 32),
    "CONTRAST": (4.0, 4.5, 5.0),
    "SPECK": (1 / 100, 1 / 50, 1 / 25),
    "SMALL": (1 / 12, 1 / 6, 1 / 3),
    "NEAR": (1 / 10, 1 / 5, 2 / 5),
    "HIGH": (0.25, 0.35, 0.45),
    "WIDE": (1.6, 2.0, 2.5),
}


def page(digit: Digit, scale: int = 4, paper: float = 255, ink: float = 0) -> np.ndarray:
    return paper + (ink - paper) * np.kron(digit, np.ones((scale, scale))) / 255


def lined(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
    made = page(digit)
    for side in rng.permutation(4)[: rng.integers(2, 4)]:
        np.rot90(made, int(side))[:3] = 0
    return made


def shaded(darkest: float) -> Make:
    return lambda digit, other, rng: page(digit) * np.linspace(1, darkest / 255, 112)


def shadowed(darkest: float) -> Make:
    def make(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
        made = page(digit)
        np.rot90(made, int(rng.integers(4)))[:, rng.integers(40, 73) :] *= darkest / 255
        return made

    return make


def grained(deviation: float, scale: int = 4) -> Make:
    return lambda digit, other, rng: (made := page(digit, scale, 210, 20)) + rng.normal(0, deviation, made.shape)


def specked(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
    made = page(digit)
    np.rot90(made, int(rng.integers(4)))[1:9, 1:9] = 20
    return made


def filling(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
    """A digit cut out closely, of a pen half as broad again."""
    made = np.pad(tight(digit), 2)
    return page(np.maximum.reduce([np.roll(made, by, (0, 1)) for by in ((0, 0), (0, 1), (1, 0), (1, 1))]), 4, 230, 30)


def beside(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
    """Two digits of one height, a few pixels between them, on a page."""
    return page(np.hstack([tight(digit), np.zeros((20, rng.integers(2, 9)), np.uint8), tight(other)]), 4)


def tight(digit: Digit) -> Digit:
    """A digit of 20 rows, without empty columns beside it."""
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rows_of_20: np.ndarray = np.rint(frame._means(cut.shape[0], 20) @ cut).astype(np.uint8)
    return rows_of_20


def halves(turned: bool) -> Make:
    """Two digits in an even picture of 28 x 28."""

    def make(digit: Digit, other: Digit, rng: np.random.Generator) -> np.ndarray:
        made = np.zeros((28, 28), np.uint8)
        for start, half in (1, digit), (15, other):
            inside = data.frame(half.T if turned else half, 28, 17)[4:24, 3:15]
            made[4:24, start : start + 12] = inside
        return 255.0 - (made.T if turned else made)

    return make


READ: dict[str, Make] = {
    "white": lambda digit, other, rng: page(digit),
    "dark lines along two or three edges": lined,
    "light falling from 255 to 70 across it": shaded(70),
    "a shadow's sharp edge through the digit, down to 170": shadowed(170),
    "a shadow's sharp edge through the digit, down to 120": shadowed(120),
    "grain of deviation 20": grained(20),
    "grain of deviation 30": grained(30),
    "a dark speck of 8 x 8 in a corner": specked,
    "a broad pen, the digit cut out closely": filling,
    "grey paper, 200, at 28 x 28": lambda digit, other, rng: page(digit, 1, 200),
    "grain of deviation 20 at 28 x 28": grained(20, 1),
}
REFUSED: dict[str, Make] = {
    "two digits side by side": beside,
    "two digits side by side in an even 28 x 28": halves(False),
    "two digits one below the other in an even 28 x 28": halves(True),
    "uniform noise, 28 x 28": lambda digit, other, rng: rng.uniform(0, 255, (28, 28)),
    "uniform noise, 112 x 112": lambda digit, other, rng: rng.uniform(0, 255, (112, 112)),
    "uniform noise in squares of 4 x 4": lambda digit, other, rng: np.kron(
        rng.uniform(0, 255, (28, 28)), np.ones((4, 4))
    ),
    "normal noise of deviation 40, 112 x 112": lambda digit, other, rng: rng.normal(128, 40, (112, 112)),
}


def measure(network: Graph, digits: data.Split, makes: dict[str, Make]) -> dict[str, tuple[float, float, float]]:
    """By kind of picture: the shares that are read right and that are refused, and milliseconds a picture."""
    found = {}
    images = digits.images[..., 0]
    for number, (name, make) in enumerate(makes.items()):
        rng = np.random.default_rng(number)
        made = [
            np.rint(make(*pair, rng)).clip(0, 255).astype(np.uint8)
            for pair in zip(images, np.roll(images, 1, axis=0), strict=True)
        ]
        taken, labels = [], []
        began = time.perf_counter()
        for picture, label in zip(made, digits.labels, strict=True):
            try:
                taken.append(frame.taken(picture))
                labels.append(label)
            except ValueError:
                continue
        spent = time.perf_counter() - began
        right = 0
        if taken:
            right = int(np.count_nonzero(network.predict(np.stack(taken)[..., np.newaxis]).argmax(axis=1) == labels))
        found[name] = right / len(made), 1 - len(taken) / len(made), 1e3 * spent / len(made)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="digits; default 1000")
    parser.add_argument("--test", action="store_true", help="test digits instead of training digits")
    parser.add_argument("--vary", action="store_true", help="what other thresholds would do")
    options = parser.parse_args(arguments)
    network = models.load(SHIPPED, "numpy")
    split = data.load("mnist")[options.test]
    digits = data.Split(split.images[: options.count], split.labels[: options.count])
    if not options.vary:
        print(f"as MNIST has them: {network.evaluate(*digits).accuracy:.3f} right")
        for title, makes in ("digits", READ), ("no digit", REFUSED):
            print(f"\n{title:52}  right  refused  ms")
            for name, (right, refused, spent) in measure(network, digits, makes).items():
                print(f"{name:52}  {right:.3f}    {refused:.3f}  {spent:.0f}")
        return
    print("threshold  value   mean share right of digits  refused of what is no digit")
    for name, values in VALUES.items():
        chosen = getattr(frame, name)
        for value in values:
            setattr(frame, name, value)
            digits_right = np.mean([shares[0] for shares in measure(network, digits, READ).values()])
            others_refused = np.mean([shares[1] for shares in measure(network, digits, REFUSED).values()])
            print(
                f"{name:9} {value:6.3g}{'*' if value == chosen else ' '} {digits_right:27.4f} {others_refused:29.4f}",
                flush=True,
            )
        setattr(frame, name, chosen)


if __name__ == "__main__":
    main()
