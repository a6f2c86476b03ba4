"""Communicator: processes that train together, over MPI.

Everything is sent from one process to another without waiting, and waited for under a limit: a process that is gone or
a network that hangs ends the others with one line, and so does an error that any of them meets. mpi4py is imported
where a communicator of its own is given, and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from kernels import shapes

T = TypeVar("T")

SMALL = 1 << 18
"""Bytes up to which sums are sent whole to everybody, in one message instead of two."""
_PATIENT = 2000
"""Looks at what is awaited, before the clock and the others' state are looked at as well."""
_LINE = 64  # bytes: arrays of a copy start on a cache line
_ALIGNED = 16  # elements: pieces start on a cache line of float32

_GRADIENTS, _SHARDS, _OBJECT, _STATE = 1, 1 << 14, 1 << 15, 7
"""Tags; those of gradients count upwards by the piece."""


class RankError(ConnectionError):
    """Another process has ended, met an error, or not answered in time."""


class _FollowedError(RankError):
    """Another rank has met an error, which is its to tell."""


class Communicator:
    """Processes that train together, each a rank from 0 to size − 1.

    comm: an mpi4py communicator such as `MPI.COMM_WORLD`, of which a duplicate is used; None is this process alone.
    timeout: seconds for which a rank waits for the others; they may have kernels to compile.

    Once a rank has failed, the communicator is of no more use; another one of the same `comm` is.

    Raises TypeError or ValueError for anything else. Every method that waits raises RankError where another rank has
    failed, or has not answered within `timeout`.
    """

    def __init__(self, comm: Any = None, timeout: float = 300.0) -> None:
        self.timeout = shapes.number("Communicator", "timeout", timeout, 0.0, above=True)
        self.rank, self.size = 0, 1
        self._failed: dict[int, str] = {}
        self._told, self._reason = False, ""
        self._buffers: dict[tuple[Any, int], np.ndarray] = {}
        self.sent = 0
        """Bytes that this rank has sent."""
        if comm is None:
            return
        if not hasattr(comm, "Isend"):
            raise TypeError(f"Communicator: comm is {comm!r}, expected an mpi4py communicator such as MPI.COMM_WORLD")
        from mpi4py import MPI

        self._mpi = MPI
        self._comm, self._state = comm.Dup(), comm.Dup()  # messages of others are never taken for ours
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.host = MPI.Get_processor_name()

    def __repr__(self) -> str:
        return f"<Communicator, rank {self.rank} of {self.size}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Communicator belongs to its process and cannot be copied or pickled")

    @property
    def others(self) -> list[int]:
        """All ranks but this one, the next one first."""
        return [(self.rank + i) % self.size for i in range(1, self.size)]

    # Waiting -----------------------------------------------------------------------------------------------

    def wait(self, requests: Sequence[tuple[int, Any]], what: str) -> None:
        """Until all requests, each with the rank that it hangs on, are done."""
        handles = [request for _, request in requests]
        if not handles:
            return
        looks, end = 0, 0.0
        while not self._mpi.Request.Testall(handles):
            looks += 1
            if looks < _PATIENT:
                os.sched_yield()
                continue
            now = time.monotonic()
            end = end or now + self.timeout
            self._listen()
            if self._failed:
                rank = min(self._failed)
                raise _FollowedError(f"rank {rank} has ended: {self._failed[rank] or 'it waited for others'}")
            if now > end:
                late = sorted({rank for (rank, _), handle in zip(requests, handles, strict=True) if not handle.Test()})
                raise RankError(
                    f"rank{'s' * (len(late) > 1)} {', '.join(map(str, late))} did not answer rank {self.rank} within "
                    f"{self.timeout:g} s ({what}): a process or the network hangs"
                )
            time.sleep(1e-4 if looks < 2 * _PATIENT else 1e-3)

    def send(self, array: np.ndarray, rank: int, tag: int) -> tuple[int, Any]:
        """Begin to send a contiguous array; a request to wait for."""
        self.sent += array.nbytes
        return rank, self._comm.Isend([array, self._mpi.BYTE], rank, tag)

    def receive(self, array: np.ndarray, rank: int, tag: int) -> tuple[int, Any]:
        """Begin to receive a contiguous array; a request to wait for."""
        return rank, self._comm.Irecv([array, self._mpi.BYTE], rank, tag)

    # Failing -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        status = self._mpi.Status()
        while self._state.Iprobe(tag=_STATE, status=status):
            content = bytearray(status.Get_count(self._mpi.BYTE))
            self._state.Recv([content, self._mpi.BYTE], status.Get_source(), _STATE)
            self._failed[status.Get_source()] = content.decode(errors="replace")

    def fail(self, error: BaseException) -> None:
        """Tell all other ranks, once, that this one has failed, and why where that is no other's failure."""
        if self.size == 1 or self._told:
            return
        self._told = True
        self._reason = "" if isinstance(error, _FollowedError) else str(error) or type(error).__name__
        content = np.frombuffer(self._reason.encode()[:1000], np.uint8)
        self._last = [self._state.Isend([content, self._mpi.BYTE], rank, _STATE) for rank in self.others]

    def verdict(self, grace: float = 2.0) -> tuple[bool, bool]:
        """After `fail`: whether this rank is the one to say why, and whether all ranks have failed.

        Waits for the others for `grace` seconds. The first of those that met an error of their own speaks.
        """
        if self.size == 1:
            return True, True
        end = time.monotonic() + grace + 0.2 * self.rank  # of those left over, the first speaks and ends the others
        while len(self._failed) < self.size - 1 and time.monotonic() < end:
            self._listen()
            time.sleep(1e-3)
        everybody = len(self._failed) == self.size - 1
        reasons = self._failed | {self.rank: self._reason}
        speaker = min([rank for rank, reason in reasons.items() if reason] or reasons)
        return speaker == self.rank, everybody

    def abort(self, status: int) -> None:
        """End all ranks at once: for those that no longer listen."""
        if self.size > 1:
            self._mpi.COMM_WORLD.Abort(status)

    # Small things ------------------------------------------------------------------------------------------

    def gather(self, item: T) -> list[T]:
        """What every rank has given, by rank, on all ranks: anything that mpi4py sends."""
        if self.size == 1:
            return [item]
        content = np.frombuffer(self._mpi.pickle.dumps(item), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = content.size
        moving = [self.receive(sizes[rank : rank + 1], rank, _OBJECT) for rank in self.others]
        moving += [self.send(sizes[self.rank : self.rank + 1], rank, _OBJECT) for rank in self.others]
        self.wait(moving, "an agreement")
        received = [np.empty(size, np.uint8) for size in sizes]
        received[self.rank] = content
        moving = [self.receive(received[rank], rank, _OBJECT) for rank in self.others]
        moving += [self.send(content, rank, _OBJECT) for rank in self.others]
        self.wait(moving, "an agreement")
        return [
            item if rank == self.rank else self._mpi.pickle.loads(part.tobytes()) for rank, part in enumerate(received)
        ]

    def first(self, function: Callable[[], T]) -> T:
        """What the function gives on rank 0, where alone it is called, on all ranks; its exception too."""
        if self.size == 1:
            return function()
        found: tuple[Any, BaseException | None] = None, None
        if self.rank == 0:
            try:
                found = function(), None
            except Exception as error:
                found = None, error
        result, raised = self.gather((found[0], _portable(found[1])))[0]
        if raised is not None:
            raise found[1] or raised
        return result  # type: ignore[no-any-return]

    def shared(self, function: Callable[[], T]) -> T:
        """What the function gives, called by one rank of each machine; the arrays in it are one copy for all of them.

        They are mapped, and read-only. Where no copy can be written, or seen by the others, each calls the function.
        """
        hosts = self.gather(self.host) if self.size > 1 else []
        if len(set(hosts)) == len(hosts):
            return function()
        owner = hosts.index(self.host)
        made = [function()] if owner == self.rank else []
        own = _Copy.of(made[0], self._mpi.pickle) if made and hosts.count(self.host) > 1 else None
        place = self.gather(own.place if own else None)[owner]
        found = place.read(self._mpi.pickle) if place else None
        self.gather(found is not None)  # the file goes with its owner's descriptor
        if found is not None:
            return found[0]  # type: ignore[no-any-return]
        return made[0] if made else function()

    def agree(self, where: str, options: Mapping[str, Any]) -> None:
        """Raise ValueError on all ranks if an option has another value on one of them than on rank 0."""
        if self.size == 1:
            return
        everywhere = self.gather({name: repr(value) for name, value in options.items()})
        for rank, found in enumerate(everywhere):
            for name, value in everywhere[0].items():
                if found.get(name) != value:
                    raise ValueError(
                        f"{where}: {name} is {_short(value)} on rank 0 and {_short(found.get(name))} on rank {rank}, "
                        "expected the same on all ranks"
                    )

    # Large things ------------------------------------------------------------------------------------------

    def rows(self, own: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """The ranks' rows below each other: `own` (counts[rank], ...) of each."""
        whole = np.empty((sum(counts), *own.shape[1:]), own.dtype)
        ends = np.cumsum(counts)
        parts = [whole[end - count : end] for end, count in zip(ends, counts, strict=True)]
        parts[self.rank][...] = own
        self.wait(self.spread(parts), "the shards' figures")
        return whole

    def spread(self, parts: Sequence[np.ndarray]) -> list[tuple[int, Any]]:
        """Send this rank's part to all others and receive theirs in its place; requests to wait for."""
        moving = [self.receive(parts[rank], rank, _SHARDS) for rank in self.others if parts[rank].size]
        if parts[self.rank].size:
            moving += [self.send(parts[self.rank], rank, _SHARDS) for rank in self.others]
        return moving

    def buffer(self, name: Any, like: np.ndarray) -> np.ndarray:
        """Memory that stays, for a vector of this length."""
        key = name, like.size
        if key not in self._buffers:
            self._buffers[key] = np.empty_like(like)
        return self._buffers[key]


class _Copy:
    """A file without a name that holds an object's arrays: it ends with the process, however that ends."""

    def __init__(self, file: BinaryIO, place: _Place) -> None:
        self._file, self.place = file, place

    @classmethod
    def of(cls, item: Any, pickler: Any) -> _Copy | None:
        """The object, written; None where there is no room. pickler: mpi4py's."""
        import tempfile

        content, buffers = pickler.dumps_oob(item)
        ranges = []
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the copy is wanted
            for buffer in buffers:
                with memoryview(buffer) as raw:
                    start = -(-file.tell() // _LINE) * _LINE
                    ranges.append((start, raw.nbytes))
                    file.seek(start)
                    file.write(raw)
            file.flush()
            state = os.fstat(file.fileno())
        except OSError:
            return None
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        return cls(file, _Place(path, state.st_dev, state.st_ino, content, ranges))


class _Place(NamedTuple):
    """Where a `_Copy` is to be found, and what is not in the file."""

    path: str
    device: int
    number: int
    content: bytes
    ranges: list[tuple[int, int]]

    def read(self, pickler: Any) -> tuple[Any] | None:
        """The object, its arrays mapped; None where another process's file is not to be seen."""
        import mmap

        try:
            with open(self.path, "rb") as file:
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) != (self.device, self.number):  # of a container with our machine's name
                    return None
                size = state.st_size
                mapped = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")
        except OSError:
            return None
        return (pickler.loads_oob(self.content, [mapped[start : start + size] for start, size in self.ranges]),)


def _portable(error: BaseException | None) -> BaseException | None:
    """The error as another process can have it: of a kind that it has, with the same message."""
    if error is None:
        return None
    for kind in (FileExistsError, FileNotFoundError, BlockingIOError, OSError, ValueError, TypeError):
        if isinstance(error, kind):
            return kind(str(error))
    return RankError(f"rank 0 has ended: {error}")


def _short(text: str | None) -> str:
    return "missing" if text is None else text if len(text) <= 100 else f"{text[:100]}..."


# Sums in a fixed order ------------------------------------------------------------------------------------------


def blocks(count: int, ranks: int) -> list[range]:
    """The shards of each rank: in a row, and as many for one as for another, or one more."""
    return [range(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]


def halves(low: int, high: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the tree divides its shards `low` to `high` − 1."""
    middle = (low + high) // 2
    return (low, middle), (middle, high)


def complete(count: int, block: range) -> list[tuple[int, int]]:
    """The largest subtrees over `count` shards that lie in a block of them: a rank can sum these alone."""

    def within(low: int, high: int) -> list[tuple[int, int]]:
        if high <= block.start or low >= block.stop:
            return []
        if block.start <= low and high <= block.stop:
            return [(low, high)]
        return [node for half in halves(low, high) for node in within(*half)]

    return within(0, count)


def total(
    node: tuple[int, int], parts: Mapping[tuple[int, int], np.ndarray], out: np.ndarray | None = None
) -> np.ndarray | None:
    """The sum over a subtree, of what is there; it overwrites parts, or `out` where that is given.

    An addition in IEEE 754 gives one result, in any order of its two terms: the tree alone decides.
    """
    if node in parts:
        if out is not None and out is not parts[node]:
            out[...] = parts[node]
            return out
        return parts[node]
    if node[1] - node[0] == 1:
        return None
    left, right = (total(half, parts) for half in halves(*node))
    if left is None or right is None:
        found = right if left is None else left
        if found is not None and out is not None:
            out[...] = found
            return out
        return found
    np.add(left, right, out=out if out is not None else left)
    return out if out is not None else left


class Sum:
    """Vectors of the ranks on their way to be one sum on all ranks, in the order of the tree over `count` shards.

    own: this rank's vectors by subtree, owners: the rank of every subtree that has samples. out: where the sum goes,
    which may be a vector of this rank's own. scale: what the sum is multiplied by. Where they are small, vectors go to
    everybody whole. Otherwise each rank sums a piece, of which the others send it theirs, and sends it to all:
    2 (R − 1) / R vectors leave each of R ranks, whatever R is.
    """

    def __init__(
        self,
        communicator: Communicator,
        own: Mapping[tuple[int, int], np.ndarray],
        owners: Mapping[tuple[int, int], int],
        count: int,
        out: np.ndarray,
        tag: int = 0,
        scale: float = 1.0,
    ) -> None:
        c = self._communicator = communicator
        self._count, self._out, self._tag, self._scale = count, out, _GRADIENTS + 2 * tag, scale
        self._parts = dict(own)
        self._moving: list[tuple[int, Any]] = []
        self._whole = c.size == 1 or out.nbytes * len(owners) <= SMALL
        ends = [rank * out.size // c.size // _ALIGNED * _ALIGNED for rank in range(c.size)] + [out.size]
        self._pieces = [slice(0, out.size)] * c.size if self._whole else list(map(slice, ends, ends[1:]))
        mine = self._pieces[c.rank]
        for node, rank in owners.items():
            if rank != c.rank:
                self._parts[node] = c.buffer((node, tag), out[mine])
                self._moving.append(c.receive(self._parts[node], rank, self._tag))
        for rank in c.others:
            self._moving += [c.send(part[self._pieces[rank]], rank, self._tag) for part in own.values()]
        if not self._whole:
            self._parts |= {node: part[mine] for node, part in own.items()}

    def finish(self) -> None:
        """Wait for the others, and write the sum."""
        c, out = self._communicator, self._out
        c.wait(self._moving, "gradients")
        piece = out[self._pieces[c.rank]]
        total((0, self._count), self._parts, piece)
        if self._scale != 1:
            piece *= piece.dtype.type(self._scale)
        if not self._whole:
            moving = [c.receive(out[self._pieces[rank]], rank, self._tag + 1) for rank in c.others]
            moving += [c.send(piece, rank, self._tag + 1) for rank in c.others]
            c.wait(moving, "the sum of gradients")
