"""Linear layers beside the BLAS that NumPy brings: Numba's kernels and NumPy's matmul, turn by turn.

    python -m benchmarks.linear --level x86-64-v3 --json FILE

Each contestant has a process of its own, asleep while the other runs. A turn is the median of the calls of some tens of
milliseconds; a ratio is the median over the rounds of OpenBLAS's seconds over ours. Both get arrays to write to.
--level compiles ours for that level and gives OpenBLAS the kernels of a processor that has no more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kernels
from kernels import shapes
from twinkernels.bench import timing

from .contest import Contestant


class Layer(NamedTuple):
    """A linear layer on a batch: (n, k) times (k, m)."""

    n: int
    k: int
    m: int


LAYERS = (
    *(Layer(n, 784, 512) for n in (1, 8, 64, 128, 512)),
    *(Layer(128, k, m) for k, m in ((512, 10), (784, 256), (256, 128))),
    *(Layer(*sizes) for sizes in ((37, 301, 203), (256, 1024, 1024), (512, 2048, 1024), (64, 9216, 128))),
)
DIRECTIONS = ("forward", "backward")
BLAS_OF = {"x86-64-v3": "Haswell", "x86-64-v4": "SkylakeX"}


class Turn(NamedTuple):
    """What a contestant is asked to time."""

    layer: Layer
    direction: str
    seconds: float


class Arrays:
    """Inputs and outputs of a layer, in float32."""

    def __init__(self, layer: Layer) -> None:
        draw = np.random.default_rng(0)
        n, k, m = layer
        self.x, self.w, self.b, self.dy = (draw.normal(size=s).astype("f4") for s in ((n, k), (k, m), (m,), (n, m)))
        self.y, self.dx, self.dw, self.db = (np.empty(s, "f4") for s in ((n, m), (n, k), (k, m), (m,)))


def blas(arrays: Arrays) -> dict[str, Callable[[], object]]:
    """NumPy's calls."""
    a = arrays

    def forward() -> None:
        np.matmul(a.x, a.w, out=a.y)
        np.add(a.y, a.b, out=a.y)

    def backward() -> None:
        np.matmul(a.dy, a.w.T, out=a.dx)
        np.matmul(a.x.T, a.dy, out=a.dw)
        np.sum(a.dy, axis=0, out=a.db)

    return {"forward": forward, "backward": backward}


def numba(arrays: Arrays) -> dict[str, Callable[[], object]]:
    """The kernels as a model's executor calls them."""
    a = arrays
    k = kernels.get("numba")
    d = shapes.linear(a.x.shape, a.w.shape, a.b.shape)
    backend: Any = k.backend
    scratch = {
        name: np.empty(max(1, k.scratch_size(name, d, len(a.x))), "f4") for name in ("linear", "linear_backward")
    }
    return {
        "forward": lambda: backend.linear(a.x, a.w, a.b, d, scratch["linear"], a.y),
        "backward": lambda: backend.linear_backward(a.dy, a.x, a.w, d, scratch["linear_backward"], a.dx, a.dw, a.db),
    }


CONTESTANTS = {"blas": blas, "numba": numba}


def prepare(contestant: str, threads: int) -> Callable[[Turn | None], Any]:
    """A `Turn` is answered with the median seconds of a call, None with the kernels that OpenBLAS runs."""
    made: dict[Layer, dict[str, Callable[[], object]]] = {}
    kernels.set_threads(threads)

    def answer(turn: Turn | None) -> Any:
        if turn is None:
            import threadpoolctl

            return [pool["architecture"] for pool in threadpoolctl.threadpool_info() if "architecture" in pool]
        if turn.layer not in made:
            made[turn.layer] = CONTESTANTS[contestant](Arrays(turn.layer))
        call = made[turn.layer][turn.direction]
        for _ in range(3):
            call()
        taken: list[float] = []
        end = time.perf_counter() + turn.seconds
        while time.perf_counter() < end or len(taken) < 5:
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it as a command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.linear", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", metavar="NxKxM", help="sizes (those of the table)")
    parser.add_argument("--level", choices=BLAS_OF, help="compile for, and give OpenBLAS, no more than this level")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant (7)")
    parser.add_argument("--threads", type=int, default=timing.THREADS, help="of both (2, or 1 on one core)")
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn (0.05)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    given = parser.parse_args(arguments)
    layers = [Layer(*map(int, text.split("x"))) for text in given.layers] if given.layers else LAYERS
    environment: dict[str, str | None] = {
        "OPENBLAS_CORETYPE": BLAS_OF.get(given.level),
        "OPENBLAS_L2_SIZE": None,
        "OPENBLAS_NUM_THREADS": str(given.threads),
    }
    if given.level:
        environment |= {"NUMBA_CPU_NAME": given.level, "NUMBA_CPU_FEATURES": ""}
    both = {name: Contestant(prepare, name, given.threads, environment=environment) for name in CONTESTANTS}
    try:
        found = race(both, layers, given.rounds, given.seconds)
    finally:
        for one in both.values():
            one.close()
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def race(both: dict[str, Contestant], layers: Sequence[Layer], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The table, printed line by line."""
    found: list[dict[str, Any]] = []
    print(f"OpenBLAS runs {both['blas'].ask(None)}")
    print(f"{'layer':>18}  {'':9}{'blas µs':>9}{'numba µs':>9}{'GFLOP/s':>9}{'ratio':>7}  interval")
    for layer in layers:
        for direction in DIRECTIONS:
            turn = Turn(layer, direction, seconds)
            taken: dict[str, list[float]] = {name: [] for name in both}
            for _ in range(rounds):
                for name, one in both.items():
                    taken[name].append(one.ask(turn))
            ratios = sorted(a / b for a, b in zip(taken["blas"], taken["numba"], strict=True))
            row: dict[str, Any] = {
                "layer": list(layer),
                "direction": direction,
                **{f"{name}_seconds": statistics.median(times) for name, times in taken.items()},
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
            found.append(row)
            flops = 2 * layer.n * layer.k * layer.m * (1 if direction == "forward" else 2)
            print(
                f"{'x'.join(map(str, layer)):>18}  {direction:9}{1e6 * row['blas_seconds']:9.1f}"
                f"{1e6 * row['numba_seconds']:9.1f}{1e-9 * flops / row['numba_seconds']:9.0f}{row['ratio']:7.2f}"
                f"  {ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}",
                flush=True,
            )
    ratios = [float(row["ratio"]) for row in found]
    below = sum(ratio < 1 for ratio in ratios)
    mean = statistics.geometric_mean(ratios)
    print(f"lowest {min(ratios):.2f}, geometric mean {mean:.2f}, {below} of {len(ratios)} below 1")
    return found


if __name__ == "__main__":
    sys.exit(main())
