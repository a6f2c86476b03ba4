"""Ranks: the processes that mpiexec has started, which train together and of which one speaks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

import kernels
from kernels.threads import available_cores
from models.communicator import Communicator

LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMIX_RANK", "SLURM_NTASKS"),
)
"""Variables by which starters of MPI's processes tell each its rank, and how many there are."""

_left_over: Communicator | None = None


class Silent(Exception):
    """This rank ends with a status, and another says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def launched() -> tuple[int, int]:
    """Rank and number of ranks of this process; 0 of 1 where no mpiexec has started it."""
    for rank, size in LAUNCHERS:
        found = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(map(str.isdecimal, found)) and int(found[1]) > 1:
            return int(found[0]), int(found[1])
    return 0, 1


@contextlib.contextmanager
def joined(timeout: float) -> Iterator[Communicator]:
    """The communicator of all ranks, one process where mpiexec has started none.

    An error on any of them ends all: the first rank that met one raises it, and the others `Silent`. Raises ValueError
    where mpi4py or an MPI is missing.
    """
    global _left_over
    rank, size = launched()
    if size == 1:
        yield Communicator()
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # no mpi4py, or no MPI that it could load
        if rank:
            raise Silent(2) from None
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({' '.join(str(error).split())})"
        raise ValueError(f"{size} ranks need mpi4py and an MPI: pip install 'twinkernels[mpi]'{reason}") from None
    if MPI.COMM_WORLD.Get_size() != size:
        if rank:
            raise Silent(2)
        library = MPI.Get_library_version().split()[0]
        raise ValueError(f"mpiexec has started {size} ranks, expected that of mpi4py's own MPI, which is {library}")
    communicator = Communicator(MPI.COMM_WORLD, timeout)
    try:
        yield communicator
    except BaseException as error:
        communicator.fail(error)
        speaks, everybody = communicator.verdict()
        if not everybody:
            _left_over = communicator
        if speaks:
            raise
        raise Silent(130 if isinstance(error, KeyboardInterrupt) else 2) from error


_FORWARDED = 0.2  # seconds; mpiexec drops what it has not passed on when it is told to end all ranks


def end(status: int) -> None:
    """After a failure, once all is said: end the ranks that did not hear of it."""
    if status and _left_over is not None:
        sys.stderr.flush()
        time.sleep(_FORWARDED)
        _left_over.abort(status)


def share_cores(communicator: Communicator, threads: int | None) -> str:
    """Set this rank's threads: those asked for, or its part of the cores; what there is to say of too many."""
    if communicator.size == 1:
        if threads is not None:
            kernels.set_threads(threads)
        return ""
    mask = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    found = communicator.gather((communicator.host, mask, available_cores()))
    here = [(other, cores) for host, other, cores in found if host == communicator.host]
    alike = all(other == mask for other, _ in here)
    cores = available_cores() if alike else len({core for other, _ in here for core in other})
    kernels.set_threads(threads or min(kernels.get_threads(), max(1, cores // len(here))))
    wanted = len(here) * kernels.get_threads()
    if wanted <= cores:
        return ""
    each = "" if kernels.get_threads() == 1 else f" of {kernels.get_threads()} threads"
    return f"{len(here)} ranks{each} share {cores} cores: they wait for each other"


def agree(communicator: Communicator, options: Mapping[str, object]) -> None:
    """Raise ValueError where a rank was given other options than the first."""
    communicator.agree("train", {name.replace("_", " "): value for name, value in options.items()})
