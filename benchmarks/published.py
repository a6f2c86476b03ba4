"""Networks that everybody knows, read from ONNX files and served: Numba beside ONNX Runtime, turn by turn.

    python -m benchmarks.published --json FILE

The files are the light networks of the `onnx` package's own tests, whose weights are drawn here: He's deviation for
products, batch-norm's statistics near 0 and 1. Each contestant has a process of its own, which sleeps while the others
run; a ratio is the median over the rounds of ONNX Runtime's seconds over ours. It wants onnx and onnxruntime, which has
all of its optimisations and as many threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from twinkernels.bench import timing

from .contest import Contestant
from .peers.worker import peak_bytes

NETWORKS = ("resnet50", "vgg19", "squeezenet", "densenet121", "inception_v2", "shufflenet")
BATCHES = (1, 8)
SIZE = (3, 224, 224)


# The files -------------------------------------------------------------------------------------------------------


def write(network: str, path: Path) -> None:
    """A light network with drawn weights, without its softmax, and with a batch of any size."""
    import onnx
    from onnx import numpy_helper

    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{network}.onnx"
    model = onnx.load(light)
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    drawn = {node.output[0]: node for node in graph.node if node.op_type == "ConstantOfShape"}
    roles = {name: (node.op_type, at) for node in graph.node for at, name in enumerate(node.input)}
    roles |= {n.input[0]: roles[n.output[0]] for n in graph.node if n.op_type == "Unsqueeze" and n.output[0] in roles}
    for name, node in drawn.items():
        shape = tuple(int(size) for size in shapes[node.input[0]])
        graph.initializer.append(numpy_helper.from_array(_weights(rng, shape, *roles[name]), name))
        graph.node.remove(node)
    sizes = {node.input[0] for node in drawn.values()}
    for listed in (graph.initializer, graph.input):
        kept = [item for item in listed if item.name not in sizes]
        del listed[:]
        listed.extend(kept)
    if graph.node[-1].op_type == "Softmax":  # of drawn weights it makes ones and zeros, whatever comes before
        graph.node[-2].output[0] = graph.node[-1].output[0]
        graph.node.remove(graph.node[-1])
    weights = {tensor.name for tensor in graph.initializer}
    for value in (*(value for value in graph.input if value.name not in weights), *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for node in graph.node:  # a flattening to the batch that the file was written for
        if node.op_type == "Reshape" and node.input[1] in shapes:
            target = shapes[node.input[1]].copy()
            target[0] = 0  # as many as there are
            (tensor,) = (t for t in graph.initializer if t.name == node.input[1])
            tensor.CopyFrom(numpy_helper.from_array(target, tensor.name))
    del graph.value_info[:]
    onnx.save(model, path)


def _weights(rng: np.random.Generator, shape: tuple[int, ...], operator: str, at: int) -> np.ndarray:
    if operator == "Mul" or (operator == "BatchNormalization" and at in (1, 4)):  # scale and variance
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) < 2:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    drawn: np.ndarray = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return drawn


# The contestants -------------------------------------------------------------------------------------------------


def onnx_runtime(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """ONNX Runtime with all that it has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(x: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run(None, {name: x})[0]
        return answer

    return predict


def ours(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The Numba backend, given NHWC as its models take it."""
    import models

    kernels.set_threads(threads)
    model = models.load(path, "numba", max_bytes=path.stat().st_size)
    return lambda x: model.predict(x)


CONTESTANTS = {"onnxruntime": onnx_runtime, "numba": ours}


def prepare(contestant: str, path: Path, threads: int) -> Callable[[int], Any]:
    """Load the file. A batch's size is answered with the seconds of a call, -size with the answer itself, 0 with the
    most memory in bytes that the process has had."""
    predict = CONTESTANTS[contestant](path, threads)
    images: dict[int, np.ndarray] = {}

    def answer(asked: int) -> Any:
        if asked == 0:
            return peak_bytes()
        n = abs(asked)
        if n not in images:
            x = np.random.default_rng(n).standard_normal((n, *SIZE), np.float32)
            images[n] = x if contestant == "onnxruntime" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            predict(images[n])
        predict(images[n])  # back from the other's turn
        began = time.perf_counter()
        answer = predict(images[n])
        seconds = time.perf_counter() - began
        return answer.reshape(n, -1) if asked < 0 else seconds

    return answer


def race(network: str, batches: Sequence[int], rounds: int, threads: int) -> list[dict[str, Any]]:
    """The seconds of each contestant on each batch, their ratio, and how far the answers are apart."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{network}.onnx"
        write(network, path)
        contestants = {name: Contestant(prepare, name, path, threads) for name in CONTESTANTS}
        try:
            found = []
            for n in batches:
                answers = {name: one.ask(-n) for name, one in contestants.items()}
                truth = answers["onnxruntime"]
                apart = float(np.abs(answers["numba"] - truth).max() / np.abs(truth).max())
                seconds: dict[str, list[float]] = {name: [] for name in contestants}
                for _ in range(rounds):
                    for name, one in contestants.items():
                        seconds[name].append(one.ask(n))
                ratios = [a / b for a, b in zip(seconds["onnxruntime"], seconds["numba"], strict=True)]
                found.append(
                    {
                        "network": network,
                        "batch": n,
                        **{f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()},
                        **{f"{name}_load_seconds": one.prepare_seconds for name, one in contestants.items()},
                        "ratio": statistics.median(ratios),
                        "apart": apart,
                    }
                )
            peaks = {f"{name}_peak_bytes": one.ask(0) for name, one in contestants.items()}
            return [row | peaks for row in found]
        finally:
            for one in contestants.values():
                one.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race as a command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.published", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="N")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (15)")
    parser.add_argument("--threads", type=int, default=timing.THREADS, help="of every contestant (2, or 1 on one core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    given = parser.parse_args(arguments)
    print(
        f"{'network':14}{'batch':>6}{'ONNX Runtime ms':>17}{'Numba ms':>10}{'ratio':>7}{'apart':>10}{'load s':>8}"
        f"{'peak MB, theirs':>17}{'ours':>6}",
        flush=True,
    )
    found = []
    for network in given.networks:
        for row in race(network, given.batches, given.rounds, given.threads):
            found.append(row)
            times = f"{1e3 * row['onnxruntime_seconds']:17.1f}{1e3 * row['numba_seconds']:10.1f}{row['ratio']:7.2f}"
            peaks = f"{1e-6 * row['onnxruntime_peak_bytes']:17.0f}{1e-6 * row['numba_peak_bytes']:6.0f}"
            load = f"{row['numba_load_seconds']:8.1f}"
            print(f"{network:14}{row['batch']:6}{times}{row['apart']:10.1e}{load}{peaks}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
