"""How close the Numba kernels come to the machine's limit, measured alternately with their baselines.

Run: python -m benchmarks.shares [--repetitions N]

Contractions on one thread against the peak of multiply-adds and against NumPy; linear layers against OpenBLAS's own
sgemm; memory-bound kernels on all threads against a copy of the same bytes; a training step on one thread and on
all. Every line is the median over repetitions of a ratio taken within one repetition, so that the machine's drifting
speed cancels. Useful operations only: no padding zeros, no recomputed rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import threadpoolctl

import kernels
from kernels import limits, memory, shapes
from models import Adam, Trainer, build
from twinkernels.bench.timing import mean as seconds

Call = Callable[[], object]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    """A float32 array on a cache line."""
    array = memory.empty(shape, np.float32)
    array[...] = RNG.standard_normal(shape)
    return array


def conv2d(backend: str, x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> dict[str, tuple[Call, int]]:
    """{direction: (call, FLOPs)}. dX is the backward with dx less the one without, so it has no call of its own."""
    k = kernels.get(backend)
    d = shapes.conv2d(x, w, None, **options)
    images, weights, y = normal(*x), normal(*w), normal(x[0], d.oh, d.ow, d.f)
    dx, dw, bias = normal(*x), normal(*w), normal(d.f)
    scratch = memory.empty(max(k.scratch_size(name, d, x[0]) for name in ("conv2d", "conv2d_backward")), np.float32)
    forward, backward = k.function("conv2d"), k.function("conv2d_backward")
    flops = 2 * d.macs * x[0]
    return {
        "forward": (lambda: forward(images, weights, bias, d, scratch, y), flops),
        "dW": (lambda: backward(y, images, weights, d, scratch, None, dw, None), flops),
        "dX and dW": (lambda: backward(y, images, weights, d, scratch, dx, dw, None), 2 * flops),
    }


def linear(backend: str, n: int, inputs: int, outputs: int) -> dict[str, tuple[Call, int]]:
    """As `conv2d`."""
    k = kernels.get(backend)
    d = shapes.LinearDims(inputs, outputs)
    x, w, y = normal(n, inputs), normal(inputs, outputs), normal(n, outputs)
    dx, dw, bias = normal(n, inputs), normal(inputs, outputs), normal(outputs)
    scratch = memory.empty(max(k.scratch_size(name, d, n) for name in ("linear", "linear_backward")), np.float32)
    forward, backward = k.function("linear"), k.function("linear_backward")
    flops = 2 * d.macs * n
    return {
        "forward": (lambda: forward(x, w, bias, d, scratch, y), flops),
        "dW": (lambda: backward(y, x, w, d, scratch, None, dw, None), flops),
        "dX and dW": (lambda: backward(y, x, w, d, scratch, dx, dw, None), 2 * flops),
    }


def sgemm(n: int, inputs: int, outputs: int) -> dict[str, Call]:
    """The three products of a linear layer, by OpenBLAS through NumPy."""
    x, w, y = normal(n, inputs), normal(inputs, outputs), normal(n, outputs)
    dx, dw = normal(n, inputs), normal(inputs, outputs)
    return {
        "forward": lambda: np.matmul(x, w, out=y),
        "dW": lambda: np.matmul(x.T, y, out=dw),
        "dX": lambda: np.matmul(y, w.T, out=dx),
    }


CONVOLUTIONS = {
    "cnn-bn conv1, 5x5, 1 to 16, 28x28": ((128, 28, 28, 1), (5, 5, 1, 16), {}),
    "cnn-bn conv2, 5x5, 16 to 32, 12x12": ((128, 12, 12, 16), (5, 5, 16, 32), {}),
    "3x3, 64 to 64, 28x28": ((16, 28, 28, 64), (3, 3, 64, 64), {"padding": 1}),
    "3x3, 64 to 64, 14x14": ((32, 14, 14, 64), (3, 3, 64, 64), {"padding": 1}),
    "3x3, 128 to 128, 28x28": ((16, 28, 28, 128), (3, 3, 128, 128), {"padding": 1}),
    "3x3, 128 to 128, 14x14": ((32, 14, 14, 128), (3, 3, 128, 128), {"padding": 1}),
    "1x1, 64 to 128, 28x28": ((16, 28, 28, 64), (1, 1, 64, 128), {}),
    "3x3 stride 2, 64 to 128, 28x28": ((16, 28, 28, 64), (3, 3, 64, 128), {"padding": 1, "stride": 2}),
    "7x7 stride 2, 3 to 64, 56x56": ((16, 56, 56, 3), (7, 7, 3, 64), {"padding": 3, "stride": 2}),
    "3x3 depthwise, 64, 28x28": ((16, 28, 28, 64), (3, 3, 1, 64), {"padding": 1, "groups": 64}),
}


def contractions(repetitions: int) -> None:
    """One thread: GFLOP/s, share of the peak, speed-up over NumPy."""
    kernels.set_threads(1)
    print(f"\none thread, float32{'':38} GFLOP/s   share of peak   times NumPy")
    for name, (x, w, options) in CONVOLUTIONS.items():
        ours, theirs = conv2d("numba", x, w, **options), conv2d("numpy", x, w, **options)
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(repetitions):
            peak = limits.peak(np.float32, 1, repetitions=1)
            fast = {direction: seconds(call) for direction, (call, _) in ours.items()}
            slow = {direction: seconds(call, 0) for direction, (call, _) in theirs.items()}
            for times in (fast, slow):
                both = times.pop("dX and dW")
                if x[3] > 1:  # the first layer of a network needs no dX
                    times["dX"] = both - times["dW"]
            for direction, spent in fast.items():
                rate = ours["forward"][1] / spent
                rows.setdefault(direction, []).append((rate / 1e9, rate / peak, slow[direction] / spent))
        for direction, figures in rows.items():
            rate, share, ratio = (median(column) for column in zip(*figures, strict=True))
            print(f"{name:36} {direction:9} {rate:17.1f} {share:13.1%} {ratio:13.1f}")


def against_sgemm(repetitions: int) -> None:
    """One thread: linear kernels as a share of OpenBLAS's speed."""
    kernels.set_threads(1)
    print(f"\none thread, float32{'':38} GFLOP/s   share of OpenBLAS sgemm")
    for n, inputs, outputs in ((128, 784, 512), (64, 784, 512), (512, 784, 512)):
        ours, theirs = linear("numba", n, inputs, outputs), sgemm(n, inputs, outputs)
        rows: dict[str, list[tuple[float, float]]] = {}
        for _ in range(repetitions):
            fast = {direction: seconds(call) for direction, (call, _) in ours.items()}
            fast["dX"] = fast.pop("dX and dW") - fast["dW"]
            with threadpoolctl.threadpool_limits(1):
                slow = {direction: seconds(call) for direction, call in theirs.items()}
            for direction, spent in fast.items():
                rows.setdefault(direction, []).append((ours["forward"][1] / spent / 1e9, slow[direction] / spent))
        for direction, figures in rows.items():
            rate, ratio = (median(column) for column in zip(*figures, strict=True))
            print(f"linear {inputs} to {outputs}, batch {n:3}{'':11} {direction:9} {rate:17.1f} {ratio:13.1%}")


def memory_bound(repetitions: int, threads: int) -> None:
    """All threads: bytes moved by elementwise kernels as a share of what a copy of as many moves."""
    kernels.set_threads(threads)
    k = kernels.get("numba")
    x, y, dy, dx = (normal(128, 24, 24, 16) for _ in range(4))
    half, argmax = normal(128, 12, 12, 16), memory.zeros((128, 12, 12, 16), np.uint8)
    gamma, beta, mean, inv_std, var = (np.abs(normal(16)) for _ in range(5))
    p, g, m, v = (np.abs(normal(407_050)) for _ in range(4))
    pool = shapes.pool2d(x.shape, 2, None, 0, "maxpool2d")
    d = shapes.channels(x.shape, "batchnorm")
    scratch = memory.empty(
        max(k.scratch_size(name, d, 128) for name in ("batchnorm", "batchnorm_backward")), np.float32
    )
    image, vector = x.nbytes, p.nbytes
    # Batch-norm reads x twice: the statistics must be known before the first output.
    calls: dict[str, tuple[Call, int]] = {
        "relu": (lambda: k.backend.relu(x, y), 2 * image),
        "relu_backward": (lambda: k.backend.relu_backward(dy, x, y, dx), 3 * image),
        "maxpool2d": (lambda: k.backend.maxpool2d(x, pool, half, argmax), image + half.nbytes + argmax.nbytes),
        "maxpool2d_backward": (
            lambda: k.backend.maxpool2d_backward(half, argmax, pool, dx),
            image + half.nbytes + argmax.nbytes,
        ),
        "batchnorm": (
            lambda: k.backend.batchnorm(x, gamma, beta, 1e-5, d, scratch, y, mean, inv_std, var),
            3 * image,
        ),
        "batchnorm_backward": (
            lambda: k.backend.batchnorm_backward(dy, x, gamma, mean, inv_std, d, scratch, dx, beta, var),
            5 * image,
        ),
        "sgd": (lambda: k.backend.sgd(p, g, None, 1e-6, 0.0, False, 0.0, False), 3 * vector),
        "rmsprop": (lambda: k.backend.rmsprop(p, g, v, 1e-6, 0.9, 1e-8, 0.0, False), 5 * vector),
        "adam": (lambda: k.backend.adam(p, g, m, v, 9, 1e-6, 0.9, 0.999, 1e-8, 0.0, False), 7 * vector),
    }
    print(f"\n{threads} threads, memory-bound kernels{'':22} GB/s   share of a copy of the same bytes")
    for name, (call, size) in calls.items():
        figures = []
        for _ in range(repetitions):
            copy = limits.bandwidth(size // 2, threads, repetitions=3)
            rate = size / seconds(call)
            figures.append((rate / 1e9, rate / copy))
        rate, share = (median(column) for column in zip(*figures, strict=True))
        print(f"{name:46} {rate:17.1f} {share:13.1%}")


def scaling(repetitions: int, threads: int) -> None:
    """A training step of cnn-bn on one thread and on all."""
    x, y = normal(128, 28, 28, 1), RNG.integers(0, 10, 128)
    trainer = Trainer(build("cnn-bn", backend="numba"), Adam(1e-3), batch_size=128)
    figures = []
    for _ in range(repetitions):
        spent = []
        for n in (1, threads):
            kernels.set_threads(n)
            seconds(lambda: trainer.step(x, y), 0.3)  # until the threads have found their cores
            spent.append(seconds(lambda: trainer.step(x, y), 0.3))
        figures.append((128 / spent[0], 128 / spent[1], spent[0] / spent[1]))
    one, many, ratio = (median(column) for column in zip(*figures, strict=True))
    print(f"\ncnn-bn step, batch 128: {one:,.0f} images/s on 1 thread, {many:,.0f} on {threads}: {ratio:.2f} times")


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=kernels.get_threads())
    parser.add_argument("parts", nargs="*", default=["contractions", "sgemm", "memory", "scaling"])
    options = parser.parse_args()
    parts = {
        "contractions": lambda: contractions(options.repetitions),
        "sgemm": lambda: against_sgemm(options.repetitions),
        "memory": lambda: memory_bound(options.repetitions, options.threads),
        "scaling": lambda: scaling(options.repetitions, options.threads),
    }
    for part in options.parts:
        parts[part]()


if __name__ == "__main__":
    main()
