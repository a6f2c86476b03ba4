"""Makes the model that ships with the package: python -m twinkernels.draw.train --out FILE

The recipe cnn-bn over MNIST's training images and as many strokes, for twice its epochs, since other people write
otherwise than MNIST's: trained on MNIST alone it reads 0.960 of strokes' test images, so trained 0.990, and of MNIST's
own no fewer. Those are read once, after the last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

import data
from data import strokes
from models.saving import write

from .. import runs
from .reader import SHIPPED

EPOCHS = 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate on both test sets, and write the file with a sentence that says so."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m twinkernels.draw.train", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"the one that ships is {SHIPPED.name}")
    out = parser.parse_args(arguments).out
    mnist = data.load("mnist")
    count = len(mnist.train.labels)
    images, labels = strokes.generate(count, seed=0)
    both = data.Split(
        np.concatenate([mnist.train.images, images[..., np.newaxis]]), np.concatenate([mnist.train.labels, labels])
    )
    model, _, on_mnist = runs.run("cnn-bn", data.Dataset(both, mnist.test), epochs=EPOCHS)
    on_strokes = model.evaluate(*data.load("strokes").test)
    about = (
        f"Trained on MNIST’s {count:,} training images and {count:,} strokes; "
        f"test accuracy {on_mnist.accuracy:.4f} on MNIST, {on_strokes.accuracy:.4f} on strokes."
    )
    model.save(out)
    with safe_open(out, framework="numpy") as file:
        metadata = file.metadata()
    write(out, load_file(out), metadata | {"about": about})
    print(about)


if __name__ == "__main__":
    main()
