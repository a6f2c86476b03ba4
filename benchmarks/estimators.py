"""scikit-learn's MLPClassifier and NetworkClassifier side by side on MNIST: accuracy and time of a fit and of a grid.

    python -m benchmarks.estimators [--images 60000] [--grid 6000]

Each runs in a process of its own, one after the other, on the same float32 pixels from 0 to 1 and with its defaults
beside the hidden layer of 512. Times are those of `fit`, the data loaded and kernels compiled before. The grid is six
settings in three folds, in two processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import data

from .text import table

KINDS = ("MLPClassifier", "NetworkClassifier")
TASKS = ("fit", "grid")
RATES = (3e-4, 1e-3, 3e-3)


def estimator(kind: str, **options: Any) -> Any:
    """One of the two, by name."""
    if kind == "MLPClassifier":
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(random_state=0, **options)
    from twinkernels.estimators import NetworkClassifier

    return NetworkClassifier(random_state=0, **options)


def measure(kind: str, task: str, images: int) -> dict[str, float]:
    """Seconds of a fit and what came out on the test images, in this process."""
    from sklearn.model_selection import GridSearchCV

    warnings.simplefilter("ignore")  # that the longest fit was not long enough
    train, test = data.load("mnist")
    x, x_test = (split.images.reshape(len(split.images), -1) / 255 for split in (train, test))
    x, x_test = x[:images].astype("float32"), x_test.astype("float32")
    y = train.labels[:images]
    sizes = "hidden_layer_sizes" if kind == "MLPClassifier" else "network"
    rate = "learning_rate_init" if kind == "MLPClassifier" else "learning_rate"
    own = estimator(kind, **{sizes: (512,)})
    if task == "grid":
        own = GridSearchCV(estimator(kind), {sizes: [(64,), (128,)], rate: list(RATES)}, n_jobs=2, cv=3)
    if kind == "NetworkClassifier":
        estimator(kind, network=(512,), epochs=1).fit(x[:600], y[:600])  # compiles
    began = time.perf_counter()
    own.fit(x, y)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "accuracy": float(own.score(x_test, test.labels))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in processes of their own, and print a table."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.estimators", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000, metavar="N", help="Trained on, of 60,000.")
    parser.add_argument("--grid", type=int, default=6_000, metavar="N", help="Trained on by the grid.")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    count = {"fit": options.images, "grid": options.grid}
    if options.measure:
        kind, task = options.measure
        print(json.dumps(measure(kind, task, count[task])))
        return
    rows = []
    for task in TASKS:
        found = {}
        for kind in KINDS:
            given = ["--images", str(options.images), "--grid", str(options.grid), "--measure", kind, task]
            command = [sys.executable, "-m", "benchmarks.estimators", *given]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[kind] = json.loads(done.stdout.splitlines()[-1])
        ours, theirs = found["NetworkClassifier"], found["MLPClassifier"]
        for kind in KINDS:
            share = found[kind]["seconds"] / theirs["seconds"]
            figures = (f"{found[kind]['accuracy']:.4f}", f"{found[kind]['seconds']:.1f}", f"{share:.3f}")
            rows.append([f"{task}, {count[task]:,} images", kind, *figures])
        print(f"{task}: {ours['seconds'] / theirs['seconds']:.3f} of the time", file=sys.stderr, flush=True)
    print(table(("task", "estimator", "test accuracy", "s", "share"), rows, left=2))


if __name__ == "__main__":
    main()
