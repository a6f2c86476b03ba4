"""Trainings by several ranks, for tests; and `python -m tests.support.ranks --kills 100`, which kills them.

The command trains by one to four ranks of one or two threads; at a random moment a random rank is killed by SIGKILL,
and another number of ranks resumes, until the run ends. Its model must be, byte for byte, the one that a single process
came to that nobody killed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .processes import ROOT

TCP = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self", "MPIR_CVAR_CH4_NETMOD": "ucx"}
"""What has MPICH send over the loopback device between processes of one machine."""

POLITE = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "10"}
"""What has MPICH give its core away sooner while it waits: there are more ranks than cores, and other tests."""

SHARDS = 4


def missing() -> str:
    """Why ranks cannot be started here; nothing where they can."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return "no mpi4py here: pip install 'twinkernels[mpi]'"
    return "" if starter() else "no mpiexec here"


def starter() -> str | None:
    """The mpiexec that belongs to this Python's MPI, else the system's."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.is_file() else shutil.which("mpiexec")


def start(ranks: int, *arguments: object, several: Sequence[Sequence[object]] = (), **environment: str) -> Any:
    """Start `python -m ...` or `python -c ...` on so many ranks, or each of `several` on one; gives the process."""
    command = [str(starter())]
    for i, each in enumerate(several or [arguments]):
        count = 1 if several else ranks
        program = list(map(str, each))
        command += [*([":"] if i else []), "-n", str(count), sys.executable]
        command += program if program[0] == "-c" else ["-m", *program]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | POLITE | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: Any, timeout: float = 120.0) -> tuple[int, list[str], list[str]]:
    """Status, lines of output and lines of errors of what `start` gave; AssertionError for one that goes on."""
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {timeout:g} s") from None
    return process.returncode, out.splitlines(), errors.splitlines()


def workers(process: Any) -> list[int]:
    """The processes of the ranks that mpiexec has started: Python's, below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        children.setdefault(int(rest.split()[1]), []).append(int(name.split()[0]))
    below, found = [process.pid], []
    while below:
        below = [child for parent in below for child in children.get(parent, [])]
        found += below
    return [pid for pid in found if _is_python(pid)]


def _is_python(pid: int) -> bool:
    try:
        return "python" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    except OSError:
        return False


# A training whose bits are compared --------------------------------------------------------------------------------


def train(work: dict[str, Any]) -> str:
    """Train as `work` says; the digest of all that steps change, and of the history."""
    import numpy as np

    import kernels
    import models
    from data import strokes
    from models import communicator as communication
    from models import sharding
    from models.zoo import build

    from .kill import LAYERS

    communicator = None
    if work["ranks"]:
        from mpi4py import MPI

        communicator = MPI.COMM_WORLD
    if small := work.get("small"):  # bytes, as if gradients were large
        sharding.BUCKET, communication.SMALL = small, small
    kernels.set_threads(work["threads"])
    (x, y), _ = strokes.load(train=150, test=10)
    if work["backend"] == "numpy":
        model: models.Graph = models.Sequential(list(LAYERS), (28, 28, 1), "numpy", 3)
    else:  # compiled already where other tests have run
        model = build("cnn-bn", "numba", 3)
    weights = np.linspace(0, 2, len(x)) if work.get("weighs") else None
    loss = models.SoftmaxCrossEntropy(weighted=weights is not None)
    trainer = models.Trainer(
        model,
        models.Adam(1e-2),
        loss,
        batch_size=32,
        schedule=models.OneCycle(),
        shards=SHARDS,
        communicator=communicator,
        **work.get("options", {}),
    )

    class Stop(models.Callback):
        def on_step_end(self, trainer: models.Trainer, loss: float) -> None:
            if trainer.steps == work.get("until"):
                raise InterruptedError("stopped for the test")

    kept = models.Checkpoints(work["folder"], every_steps=2) if "folder" in work else None
    callbacks = [models.EarlyStopping(patience=5), Stop()]
    try:
        history = trainer.fit(
            x,
            y,
            epochs=3,
            validation=(x[:40], y[:40]),
            callbacks=callbacks,
            checkpoints=kept,
            resume=kept is not None,
            sample_weight=weights,
        )
    except InterruptedError:
        return "stopped"
    digest = hashlib.blake2b(digest_size=8)
    for array in trainer.changing().values():
        digest.update(np.ascontiguousarray(array).data)
    losses = [(e.loss, e.accuracy, e.validation_loss, e.validation_accuracy) for e in history.epochs]
    return f"{digest.hexdigest()} {losses}"


# Kills -------------------------------------------------------------------------------------------------------------


def kills(count: int, seed: int) -> None:
    """Kill ranks, resume, and compare, until so many have died."""
    rng, done, runs = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--backend", "numpy", "--shards", SHARDS, "--epochs", 2, "--checkpoint-steps", 25]
        base = ["twinkernels", "train", "mlp-512", *options, "--batch-size", 64]
        begun = time.monotonic()
        whole = subprocess.run(
            [sys.executable, "-m", *map(str, [*base, "--out", folder / "whole"])], cwd=ROOT, check=True
        )
        assert whole.returncode == 0
        length = time.monotonic() - begun
        while done < count:
            run = folder / f"run-{runs}"
            while True:
                ranks = rng.randint(1, SHARDS)
                keep = "--resume" if run.exists() else "--out"
                process = start(ranks, *base, keep, run, "--threads", rng.randint(1, 2))
                try:
                    process.wait(rng.uniform(0.2, 1.2) * length)
                except subprocess.TimeoutExpired:
                    if found := workers(process):
                        os.kill(rng.choice(found), signal.SIGKILL)
                        done += 1
                status, _, errors = ended(process)
                if status == 0:
                    break
                assert not any("Traceback" in line for line in errors), errors
            runs += 1
            same = (run / "model.safetensors").read_bytes() == (folder / "whole/model.safetensors").read_bytes()
            assert same, f"{run} is not the run that was never killed"
            shutil.rmtree(run)
            print(f"{done} kills, {runs} runs", flush=True)
    print(f"{done} kills of ranks, {runs} runs, all resumed to identical bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help="trainings to do, as JSON")
    arguments = parser.parse_args()
    if not arguments.work:
        return kills(arguments.kills, arguments.seed)
    gc.disable()  # see BRIEF in processes.py
    found = [train(work) for work in json.loads(arguments.work)]
    gc.freeze()
    if os.environ.get("PMI_RANK", "0") == "0":
        print(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
