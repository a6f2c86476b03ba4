"""Training shared by processes: two ranks of one thread beside one process of two, ours and PyTorch's.

`python -m benchmarks.peers.ranks` runs each in processes of its own, one after the other, round after round, on the
same cores, and keeps benchmarks/results/ranks.json; `python -m benchmarks.pages` makes a section of RESULTS.md of it. A
run's figure is the median of its epochs after the first; a ratio is that of a round, and the median over rounds counts.
PyTorch trains by DistributedDataParallel over gloo, which is what it has for CPUs, on batches that are at hand as
tensors; ours gathers its batches from a data set.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from kernels.threads import available_cores
from models import Adam, Callback, Epoch, RMSProp, Trainer
from models.communicator import Communicator, Sum
from models.zoo import build

from ..kept import Run, told, write
from ..text import digits, number, span, table
from ..text import times as times_as_fast
from .__main__ import machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "ranks.json"
STEPS, EPOCHS = 40, 20
OPTIMIZERS = {"cnn-bn": Adam(1e-3), "mlp-512": RMSProp(1e-3)}
TITLES = {
    "one process": "one process of {cores} threads",
    "ranks": "{cores} ranks of one thread, shared memory",
    "ranks over TCP": "{cores} ranks of one thread, TCP on the loopback device",
    "PyTorch": "PyTorch, one process of {cores} threads",
    "PyTorch DDP": "PyTorch's DistributedDataParallel over gloo, {cores} processes of one thread",
}
HOW = tuple(TITLES)
TCP = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self", "MPIR_CVAR_CH4_NETMOD": "ucx"}
"""What has MPICH send over the loopback device between processes of one machine."""


def data_set(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (STEPS * batch, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, STEPS * batch)


def ours(network: str, batch: int, threads: int, shards: int | None, communicator: Communicator) -> list[float]:
    """Seconds a step, of each epoch but the first two."""
    kernels.set_threads(threads)
    x, y = data_set(batch)
    trainer = Trainer(
        build(network, "numba", 0),
        OPTIMIZERS[network],
        batch_size=batch,
        shards=shards,
        communicator=communicator,
        on_nonfinite="ignore",
    )

    class Clock(Callback):
        def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
            stamps.append(time.perf_counter())

    stamps = [time.perf_counter()]
    trainer.fit(x, y, epochs=EPOCHS, callbacks=[Clock()])
    return [seconds / STEPS for seconds in np.diff(stamps)[2:].tolist()]


def theirs(network: str, batch: int, threads: int, rank: int, size: int, port: int) -> list[float]:
    """PyTorch's, with every rank's part of the batch."""
    import torch
    from torch import nn

    from .networks import NETWORKS, initial_weights
    from .workers import pytorch

    torch.set_num_threads(threads)
    chosen = NETWORKS[network]
    model: Any = pytorch.network(chosen, initial_weights(chosen))
    if size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
        model = nn.parallel.DistributedDataParallel(model)
    update = pytorch.optimizer(chosen, model.parameters(), fused=True)
    loss_function = nn.CrossEntropyLoss()
    x, y = data_set(batch)
    images = torch.from_numpy((x.reshape(STEPS, batch, 1, 28, 28)[:, rank::size] / np.float32(255)).astype(np.float32))
    labels = torch.from_numpy(y.reshape(STEPS, batch)[:, rank::size].copy())

    def epoch() -> None:
        for image, label in zip(images, labels, strict=True):
            update.zero_grad(set_to_none=True)
            loss = loss_function(model(image), label)
            loss.backward()
            update.step()
            loss.item()

    epoch()
    found = []
    for _ in range(EPOCHS // 4):
        if size > 1:
            torch.distributed.barrier()
        start = time.perf_counter()
        epoch()
        found.append((time.perf_counter() - start) / STEPS)
    if size > 1:
        torch.distributed.destroy_process_group()
    return found


def sums(communicator: Any) -> dict[int, list[float]]:
    """Microseconds to add up vectors of so many bytes: in our order, and in MPI's."""
    from mpi4py import MPI

    ours, found = Communicator(communicator), {}
    node = {rank: (rank, rank + 1) for rank in range(ours.size)}
    owners = {node[rank]: rank for rank in node}
    for size in (8, 1024, 8192, 73_728, 1 << 18, 1_628_160, 1 << 23):
        own, out = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)

        def fixed(own: np.ndarray = own, out: np.ndarray = out) -> None:
            Sum(ours, {node[ours.rank]: own}, owners, ours.size, out).finish()

        def free(own: np.ndarray = own, out: np.ndarray = out) -> None:
            communicator.Allreduce(own, out, MPI.SUM)

        times: dict[Any, list[float]] = {fixed: [], free: []}
        for _ in range(100):
            for function, each in times.items():
                communicator.Barrier()
                start = time.perf_counter()
                function()
                each.append(1e6 * (time.perf_counter() - start))
        found[size] = [statistics.median(each) for each in times.values()]
    return found


def worker(how: str, network: str, batch: int, cores: int, rank: int, port: int) -> None:
    """One process of a run; the first prints its times."""
    if how == "sums":
        from mpi4py import MPI

        table = sums(MPI.COMM_WORLD)
        if MPI.COMM_WORLD.Get_rank() == 0:
            for size, (fixed, free) in table.items():
                print(f"{size:9,} bytes  in our order {fixed:8.1f} us  in MPI's {free:8.1f} us  {fixed / free:.2f}")
        return
    if how.startswith("PyTorch"):
        size = cores if how == "PyTorch DDP" else 1
        found = theirs(network, batch, cores // size, rank, size, port)
    elif how == "one process":
        found = ours(network, batch, cores, 1, Communicator())
    else:
        from mpi4py import MPI

        rank = MPI.COMM_WORLD.Get_rank()
        found = ours(network, batch, 1, None, Communicator(MPI.COMM_WORLD))
    if rank == 0:
        print(json.dumps(found))


def show_sums(ranks: int, environment: dict[str, str]) -> None:
    """What adding up vectors takes, in our order and in MPI's."""
    command = [sys.executable, "-m", "benchmarks.peers.ranks", "--worker", "sums", "", "0", "0", "0", "0"]
    subprocess.run([mpiexec(), "-n", str(ranks), *command], cwd=ROOT, env=os.environ | environment, check=True)


def mpiexec() -> str:
    """The starter of this Python's own MPI, or the system's."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.is_file() else "mpiexec"


def run(how: str, network: str, batch: int, cores: int) -> float:
    """Microseconds a step."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.peers.ranks", "--worker", how, network, str(batch), str(cores)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (TCP if how == "ranks over TCP" else {})
    count = cores if how == "PyTorch DDP" else 1
    if how.startswith("ranks"):
        command = [mpiexec(), "-n", str(cores), *command]
    started = [
        subprocess.Popen([*command, str(rank), str(port)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in started]
    assert all(process.returncode == 0 for process in started), how
    found: list[float] = json.loads(outputs[0].splitlines()[-1])
    return 1e6 * statistics.median(found)


def read(path: Path) -> Run:
    """What was kept. Raises ValueError for another file."""
    try:
        (kept,) = json.loads(path.read_text(encoding="utf-8"))["runs"]
        times: dict[str, dict[str, list[float]]] = kept["microseconds"]
        if any(len(rounds) != kept["rounds"] for each in times.values() for rounds in each.values()):
            raise ValueError("rounds differ in number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of benchmarks.peers.ranks: {error!r}") from None
    found: Run = kept
    return found


def report(kept: Run) -> str:
    """Where it was measured, and a table a network: what a step takes, and how often that is what another takes."""
    facts = kept["machine"]
    dated = f"{facts['cpu']}, {facts['cores']} cores, {facts['date'][:10]}, load before {facts['load_before'] or 0:.2f}"
    parts = [f"{dated}. Batches of {kept['batch_size']}, {kept['rounds']} rounds."]
    headings = ["ms a step", "speed beside one process", "two ranks are"]
    for network, times in kept["microseconds"].items():
        rows = []
        for how, found in times.items():
            cells = [f"{statistics.median(found) / 1e3:.2f}"]
            for other, over in (("one process", True), ("ranks", False)):
                pairs = zip(times.get(other, ()), found, strict=other in times)
                ratios = [a / b if over else b / a for a, b in pairs] if how != other else []
                cells.append(f"{times_as_fast(statistics.median(ratios))} ({span(ratios, number)})" if ratios else "")
            rows.append([TITLES[how].format(cores=facts["cores"]), *cells])
        parts.append(table([f"`{network}`", *headings], rows))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.ranks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--networks", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--how", nargs="+", default=list(HOW), choices=HOW)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--sums", type=int, metavar="RANKS", help="time the sums of so many ranks, and nothing else")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        how, network, *numbers = given.worker
        worker(how, network, *map(int, numbers))
        return
    if given.sums:
        for name, environment in {"shared memory": {}, "TCP on the loopback device": TCP}.items():
            print(f"{given.sums} ranks, {name}", flush=True)
            show_sums(given.sums, {"PYTHONPATH": str(ROOT)} | environment)
        return
    cores = available_cores()
    about = {"machine": told(machine(cores)), "batch_size": given.batch_size, "rounds": given.rounds}
    measured: dict[str, dict[str, list[float]]] = {}
    for network in given.networks:
        times = measured[network] = {how: [] for how in given.how}
        for _ in range(given.rounds):
            for how in given.how:
                times[how].append(digits(run(how, network, given.batch_size, cores)))
        print(report(about | {"microseconds": {network: times}}), flush=True)
    write(given.out, [about | {"microseconds": measured}])


if __name__ == "__main__":
    main()
