"""Training a residual network of CIFAR's size: Numba beside PyTorch, turn by turn.

    python -m benchmarks.residual --json FILE

ResNet-20 (He, Zhang, Ren and Sun 2016) on 32 x 32 images in colour, SGD with momentum 0.9 and a weight decay of 1e-4.
Each contestant has a process of its own, asleep while the others run; a ratio is the median over the rounds of
PyTorch's seconds a step over ours. Both begin with the same weights: the module is read by `models.from_torch`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinkernels.bench import timing

from .contest import Contestant

SIZE, CLASSES = (3, 32, 32), 10
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-4
TORCH = ("eager", "channels_last", "compile")


def network() -> Any:
    """ResNet-20 as a PyTorch module."""
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc, unused-ignore]  # torch need not be there
        def __init__(self, channels: int, filters: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
            self.first_norm = nn.BatchNorm2d(filters)
            self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.second_norm = nn.BatchNorm2d(filters)
            self.short: nn.Module = nn.Identity()
            if stride > 1:
                self.short = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.first_norm(self.first(x)))
            return torch.relu(self.second_norm(self.second(y)) + self.short(x))

    torch.manual_seed(0)
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for filters in (16, 32, 64):
        for i in range(3):
            blocks.append(Block(channels, filters, 2 if i == 0 and filters != channels else 1))
            channels = filters
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, channels, height, width), and labels."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((n, *SIZE), np.float32), draw.integers(0, CLASSES, n)


def pytorch(variant: str, n: int, threads: int) -> Callable[[], float]:
    """A training step of PyTorch's, with its fused optimizer."""
    import torch

    torch.set_num_threads(threads)
    layout = torch.contiguous_format if variant == "eager" else torch.channels_last
    module: Any = network().to(memory_format=layout)
    update = torch.optim.SGD(module.parameters(), RATE, MOMENTUM, weight_decay=DECAY, fused=True)
    images, labels = batch(n)
    x, y = torch.from_numpy(images).contiguous(memory_format=layout), torch.from_numpy(labels)
    forward: Any = lambda: torch.nn.functional.cross_entropy(module(x), y)  # noqa: E731  # what is compiled
    if variant == "compile":
        forward = torch.compile(forward, dynamic=False)

    def step() -> float:
        update.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        update.step()
        return float(loss.item())

    return step


def ours(path: Path, n: int, threads: int) -> Callable[[], float]:
    """`Trainer.step` on Numba."""
    import kernels
    import models

    kernels.set_threads(threads)
    model = models.load(path, "numba")
    trainer = models.Trainer(model, models.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY), batch_size=n)
    images, labels = batch(n)
    x = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return lambda: trainer.step(x, labels)


def prepare(contestant: str, path: Path, n: int, threads: int) -> Callable[[int], list[float]]:
    """Steps are answered with the loss of the first one ever, and the median seconds of so many."""
    step = ours(path, n, threads) if contestant == "numba" else pytorch(contestant, n, threads)
    first = step()

    def answer(steps: int) -> list[float]:
        step()  # back from the others' turns
        taken = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            taken.append(time.perf_counter() - began)
        return [first, statistics.median(taken)]

    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race as a command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.residual", description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="images a step (128)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant (7)")
    parser.add_argument("--steps", type=int, default=5, help="of a turn (5)")
    parser.add_argument("--threads", type=int, default=timing.THREADS, help="of every contestant (2, or 1 on one core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    given = parser.parse_args(arguments)
    import models

    names = ["numba", *(name for name in TORCH if name != "compile" or shutil.which("g++"))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet20.safetensors"
        models.from_torch(network(), batch(2)[0]).save(path)
        settings = path, given.batch_size, given.threads
        contestants = {name: Contestant(prepare, name, *settings) for name in names}
        try:
            seconds: dict[str, list[float]] = {name: [] for name in names}
            losses: dict[str, float] = {}
            for _ in range(given.rounds):
                for name, one in contestants.items():
                    losses[name], taken = one.ask(given.steps)
                    seconds[name].append(taken)
        finally:
            for one in contestants.values():
                one.close()
    found = {}
    print(f"{'contestant':16}{'ms a step':>10}{'images/s':>10}{'ours is':>9}{'first loss':>12}")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["numba"], strict=True))
        median = statistics.median(seconds[name])
        found[name] = {"seconds": median, "ratio": ratio, "loss": losses[name]}
        print(f"{name:16}{1e3 * median:10.1f}{given.batch_size / median:10.0f}{ratio:8.2f}x{losses[name]:12.5f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
