"""The command on several ranks: one speaks and keeps the run, and an error on any of them ends all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data
import models
from data import strokes
from twinkernels import cli, runs

from ..support import ranks
from ..support.processes import ROOT

needs_mpi = pytest.mark.skipif(bool(ranks.missing()), reason=ranks.missing())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("digits")
    for prefix, (x, y) in zip(("train", "t10k"), strokes.load(train=400, test=50), strict=True):
        data.write_idx(folder / f"{prefix}-images-idx3-ubyte", x[..., 0])
        data.write_idx(folder / f"{prefix}-labels-idx1-ubyte", y)
    return str(folder)


@pytest.fixture
def base(digits: str) -> list[str]:
    return ["twinkernels", "train", "mlp-512", "--backend", "numpy", "--data", digits, "--batch-size", "32"]


@pytest.fixture
def begin() -> Iterator[Any]:
    """Start ranks; those that a failing test leaves are ended."""
    begun: list[Any] = []

    def start(*given: Any, **options: Any) -> Any:
        begun.append(ranks.start(*given, **options))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def our_lines(errors: list[str]) -> list[str]:
    return [line for line in errors if line.startswith("twinkernels:")]


def wait_for(path: Path, process: Any) -> None:
    end = time.monotonic() + 60
    while not any(path.glob("checkpoints/*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, within a moment; one that nobody has asked for its status has."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def run(program: str, *arguments: object) -> None:
    """The command to its end, in this process, which has loaded all of it."""
    assert program == "twinkernels"
    with pytest.raises(SystemExit) as end:
        cli.main(list(map(str, arguments)))
    assert end.value.code == 0


@needs_mpi
def test_ranks_train_and_one_speaks(base: list[str], begin: Any, tmp_path: Path) -> None:
    status, out, errors = ranks.ended(begin(2, *base, "--epochs", 2, "--out", tmp_path / "two", "--threads", 1))
    assert (status, errors) == (0, [])
    assert out[0] == "407,050 parameters, numpy backend, 26 steps of 32 images in 2 shards, 2 ranks of 1 thread"
    assert [line.split()[0] for line in out] == ["407,050", "epoch", "epoch", "test", "kept", "test"]
    run(*base, "--epochs", 2, "--out", tmp_path / "one", "--shards", 2)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert models[0] == models[1]
    status, out, errors = ranks.ended(begin(2, "twinkernels", "train", "--resume", tmp_path / "one"))
    assert (status, errors, out[0]) == (0, [], f"{tmp_path}/one has ended, nothing to resume")


@needs_mpi
def test_killed_and_resumed_by_others(base: list[str], begin: Any, tmp_path: Path) -> None:
    """By one process, after a kill and after Ctrl-C: no rank is left, and the bits are those of the undisturbed run."""
    long = [*base, "--epochs", 8, "--checkpoint-steps", 3, "--shards", 3]
    killed = begin(3, *long, "--out", tmp_path / "run")
    wait_for(tmp_path / "run", killed)
    pids = ranks.workers(killed)
    assert len(pids) == 3
    os.kill(pids[1], signal.SIGKILL)
    assert ranks.ended(killed)[0] != 0
    interrupted = begin(2, *long, "--resume", tmp_path / "run")
    assert interrupted.stdout.readline()
    assert interrupted.stdout.readline().startswith("going on after")
    pids += ranks.workers(interrupted)
    time.sleep(0.05)
    interrupted.send_signal(signal.SIGINT)
    status, out, errors = ranks.ended(interrupted)
    assert status != 0
    assert our_lines(errors) == [
        f"twinkernels: interrupted; twinkernels train --resume {tmp_path}/run goes on with it"
    ], (out, errors)
    assert all(map(is_gone, pids))
    run(*long, "--resume", tmp_path / "run")
    run(*base, "--epochs", 8, "--shards", 3, "--out", tmp_path / "whole")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert models[0] == models[1]


@needs_mpi
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], ["--seed", "1"], "train: seed is None on rank 0 and 1 on rank 1, expected the same on all ranks"),
        (["--out", "{digits}"], ["--out", "{digits}"], "{digits} exists already; expected a new folder for the run"),
        (["--shards", "1"], ["--shards", "1"], "Trainer: 2 ranks for 1 shards, expected at most as many"),
        (["--lr", "1e30"], ["--lr", "1e30"], "training: loss is nan at step"),
    ],
)
def test_a_mistake_is_one_line(
    base: list[str], begin: Any, digits: str, first: list[str], second: list[str], words: str
) -> None:
    each = [[*base, *(option.format(digits=digits) for option in options)] for options in (first, second)]
    status, _, errors = ranks.ended(begin(2, several=each))
    assert (status, len(errors)) == (2, 1)
    assert errors[0].startswith("twinkernels: " + words.format(digits=digits))


@needs_mpi
def test_data_that_one_rank_lacks(base: list[str], begin: Any, digits: str, tmp_path: Path) -> None:
    """$TWINKERNELS_DATA may lead elsewhere on another machine."""
    base = [*base, "--data", "mnist"]
    program = (
        "import os, sys; os.environ['TWINKERNELS_DATA'] = folder = sys.argv.pop(1)\n"
        "from mpi4py import MPI; MPI.Get_processor_name = lambda: folder\n"
        "from twinkernels import cli; cli.main()"
    )
    each = [["-c", program, folder, *base[1:]] for folder in (digits, str(tmp_path))]
    status, _, errors = ranks.ended(begin(2, several=each))
    assert (status, len(errors)) == (2, 1), errors
    assert errors[0].startswith(f"twinkernels: $TWINKERNELS_DATA: {tmp_path} holds no data")


READING = """
import gc, sys
import data
from data import folder
from mpi4py import MPI
from models import Communicator

rank = MPI.COMM_WORLD.Get_rank()
if sys.argv[2] == "apart":
    MPI.Get_processor_name = lambda: f"machine {rank}"
if sys.argv[2] == "full" and rank == 0:
    import tempfile
    def full(): raise OSError(28, "No space left on device")
    tempfile.TemporaryFile = full
read = []
def counted(path, original=folder.read_idx):
    read.append(path)
    return original(path)
folder.read_idx = counted

def memory():
    gc.collect()
    lines = [line.split() for line in open("/proc/self/smaps_rollup")]
    return sum(1024 * int(line[1]) for line in lines if line[0].startswith("Private_"))

shared = Communicator(MPI.COMM_WORLD)
before = memory()
train, test = shared.shared(lambda: data.load(sys.argv[1]))
total, grown = int(train.images.sum()), memory() - before
share = round(grown / train.images.nbytes)
found = shared.gather((rank, len(read), total, share, train.images.flags.writeable, test.labels.tolist()[:3]))
if rank == 0:
    for each in found:
        print(*each)
"""


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder of compressed files, and the images that they hold: stripes, which compress at once."""
    folder = tmp_path_factory.mktemp("compressed")
    images = np.random.default_rng(0).integers(0, 4, (40_000, 28, 1), np.uint8).repeat(28, axis=2)
    labels = np.arange(40_000) % 10
    for prefix, count in (("train", 40_000), ("t10k", 10)):
        data.write_idx(plain := folder / "plain", images[:count])
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
        plain.unlink()
        data.write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels[:count].astype(np.uint8))
    return folder, images


@needs_mpi
@pytest.mark.parametrize("how", ["together", "apart", "full"])
def test_one_rank_of_a_machine_reads_and_the_others_map_what_it_read(
    how: str, begin: Any, compressed: tuple[Path, np.ndarray]
) -> None:
    """Compressed files, which cannot be mapped themselves; a machine alone, and one without room, read on their own."""
    folder, images = compressed
    status, out, errors = ranks.ended(begin(3, "-c", READING, folder, how))
    assert status == 0, errors
    share, own = int(images.sum()), how != "together"
    expected = [f"{rank} {4 if own or rank == 0 else 0} {share} {int(own)} {own} [0, 1, 2]" for rank in range(3)]
    assert out == expected


@needs_mpi
def test_a_disk_that_is_full_on_the_first_rank(base: list[str], begin: Any, tmp_path: Path) -> None:
    limited = (
        "import resource; from mpi4py import MPI; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from twinkernels import cli; cli.main()"
    )
    each = [["-c", limited, *base[1:], "--out", str(tmp_path / "run")]] * 2
    status, _, errors = ranks.ended(begin(2, several=each))
    assert (status, len(errors)) == (2, 1), errors
    assert "File too large" in errors[0]


@needs_mpi
def test_a_rank_that_hangs_ends_the_others(base: list[str], begin: Any, tmp_path: Path) -> None:
    process = begin(2, *base, "--epochs", 500, "--checkpoint-steps", 5, "--out", tmp_path / "run", "--time-limit", 2)
    wait_for(tmp_path / "run", process)
    hung = ranks.workers(process)[1]
    os.kill(hung, signal.SIGSTOP)
    status, _, errors = ranks.ended(process)
    assert status != 0
    (line,) = our_lines(errors)
    assert "did not answer rank" in line
    assert "within 2 s" in line
    assert is_gone(hung)


@needs_mpi
def test_too_many_ranks_are_told_of(base: list[str], begin: Any) -> None:
    cores = len(os.sched_getaffinity(0))
    status, _, errors = ranks.ended(begin(2, *base, "--iterations", 2, "--threads", cores))
    assert status == 0
    assert (
        errors
        == [f"twinkernels: 2 ranks of {cores} threads share {cores} cores: they wait for each other"][: cores > 1]
    )


def test_a_run_of_an_earlier_version_is_one_of_whole_batches(base: list[str], tmp_path: Path) -> None:
    run(*base, "--iterations", 2, "--shards", 2, "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config.pop("shards"), config.pop("sync_batchnorm")) == (2, False)
    read = runs.parse_options(tmp_path, json.dumps(config).encode())
    assert (read.shards, read.sync_batchnorm) == (1, False)


def test_statistics_of_the_whole_batch_are_a_runs_own(digits: str, tmp_path: Path) -> None:
    """A network without batch-norm has none, and takes the same option: the trainer is handed it."""
    given = {"shards": 2, "epochs": 2, "backend": "numpy", "batch_size": 50}
    seen = []

    class Watch(models.Callback):
        def on_fit_begin(self, trainer: models.Trainer, total_steps: int) -> None:
            seen.append(trainer.sync_batchnorm)

        def on_epoch_end(self, trainer: models.Trainer, epoch: models.Epoch) -> None:
            if len(seen) == 1:
                raise InterruptedError

    run_folder = tmp_path / "run"
    with pytest.raises(InterruptedError):
        runs.run("mlp-512", digits, out=run_folder, callbacks=[Watch()], sync_batchnorm=True, **given)
    with pytest.raises(ValueError, match="sync_batchnorm of this run is True, False was asked for"):
        runs.resume(run_folder, callbacks=[Watch()], sync_batchnorm=False)
    runs.resume(run_folder, callbacks=[Watch()])
    assert seen == [True, True]
    with pytest.raises(ValueError, match="sync_batchnorm is True and shards is 1, expected two shards or more"):
        runs.run("mlp-512", digits, sync_batchnorm=True)


@needs_mpi
def test_ranks_take_the_whole_batchs_statistics(base: list[str], begin: Any, tmp_path: Path) -> None:
    base = [*base, "--sync-batchnorm", "--epochs", "1"]
    assert ranks.ended(begin(2, *base, "--out", tmp_path / "two"))[0] == 0
    run(*base, "--out", tmp_path / "one", "--shards", 2)
    written = [(tmp_path / name / "config.json").read_text() for name in ("one", "two")]
    assert [json.loads(text)["sync_batchnorm"] for text in written] == [True, True]
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert models[0] == models[1]


def test_mpiexec_without_the_extra_is_one_line(base: list[str]) -> None:
    program = "import sys; sys.modules['mpi4py'] = None\nfrom twinkernels import cli; cli.main(sys.argv[1:])"
    for rank, words in enumerate((["twinkernels: 2 ranks need mpi4py and an MPI: pip install 'twinkernels[mpi]'"], [])):
        done = subprocess.run(
            [sys.executable, "-c", program, *base[1:]],
            cwd=ROOT,
            env=os.environ | {"PMI_RANK": str(rank), "PMI_SIZE": "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", words)


def test_one_process_loads_no_mpi(base: list[str]) -> None:
    program = (
        "import sys\nfrom twinkernels import cli\ntry: cli.main(sys.argv[1:])\nfinally: print('mpi4py' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *base[1:], "--iterations", "1", "--shards", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
