"""Checkpoints of a running fit, from which it goes on with the same bits as if it had never ended.

A checkpoint is one safetensors file: weights, running statistics, optimizer state and what callbacks keep as tensors;
the fit's options, counters and sums as JSON metadata. No state of a random generator is among them, since the order of
samples, dropout and learning rates are functions of seed, epoch and step.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import data
import kernels
from data.files import expanded, remove_parts, sync_folder
from kernels import shapes

from .callbacks import Callback
from .encoding import ModelFormatError, encode, harmless, printable
from .history import MAX_COUNT, MAX_EPOCHS, Epoch, History, Progress
from .plan import state_name
from .saving import DTYPES, describe, storable, write

if TYPE_CHECKING:
    import logging

    from .schedules import Schedule
    from .trainer import Trainer

FORMAT = "twinkernels-run-1"
_NAME = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,})\.safetensors")
MAX_HEADER = 1 << 24
"""Bytes of a checkpoint beside its arrays: enough for the history of MAX_EPOCHS, 335 bytes each at most."""

Part = bytes | memoryview


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a fit is kept: files step-00001234.safetensors in a folder, which is made when needed.

    One is written at the end of every epoch and, within an epoch, after every `every_steps` batches and once
    `every_seconds` have passed since the last; None leaves that out. `keep` is how many of the newest stay. Files of
    any other name, such as a copy called step-00001234-good.safetensors, are neither read nor removed.
    """

    folder: Path | str
    every_steps: int | None = None
    every_seconds: float | None = 60.0
    keep: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", expanded(self.folder, "Checkpoints: folder"))
        shapes.integer("Checkpoints", "keep", self.keep, 1)
        if self.every_steps is not None:
            shapes.integer("Checkpoints", "every_steps", self.every_steps, 1)
        if self.every_seconds is not None:
            shapes.number("Checkpoints", "every_seconds", self.every_seconds, 0.0)

    def files(self) -> list[Path]:
        """The checkpoints that are there, newest first: files with the names that a fit gives, to the letter."""
        entries = Path(self.folder).glob("step-*.safetensors")
        found = (path for path in entries if _NAME.fullmatch(path.name) and not path.is_dir())
        return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)


class State(NamedTuple):
    """All that changes during a fit: arrays, and numbers as JSON."""

    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]


@cache
def versions() -> dict[str, str]:
    """What bits depend on beside the machine: looked for once, as that takes as long as a small checkpoint."""
    from importlib.metadata import PackageNotFoundError, version  # with e-mail and sockets, a tenth of our import

    found = {}
    for name in ("twinkernels", "numpy", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            found[name] = "none"
    return found


_EARLIER = {
    "last_batch": "keep",
    "learning_rates": None,
    "average": None,
    "accumulate": 1,
    "shards": 1,
    "sync_batchnorm": False,
}
"""Options that files of earlier versions do not state."""


def fit_options(
    trainer: Trainer,
    callbacks: Sequence[Callback],
    schedule: Schedule,
    augment: data.Augment | None,
    total: int,
    last_batch: str,
    arrays: Sequence[np.ndarray | data.DiskArray],
) -> dict[str, Any]:
    """All that a fit's result follows from, as JSON; of the arrays trained on and evaluated a digest."""
    model = trainer.model
    options = {
        "data": _digest(_contents(arrays)),
        "backend": model.backend,
        "model": describe(model),
        "optimizer": encode(trainer.optimizer),
        "loss": encode(trainer.loss),
        "schedule": encode(schedule),
        "augment": encode(augment),
        "batch_size": trainer.batch_size,
        "steps": total,
        "on_nonfinite": trainer.on_nonfinite,
        "learning_rates": trainer.learning_rates,
        "average": trainer.average,
        "accumulate": trainer.accumulate,
        "last_batch": last_batch,
        "shards": trainer.shards,
        "sync_batchnorm": trainer.sync_batchnorm,
        "precision": trainer.precision,
        "precision in validation": model.precision,
        "callbacks": [type(callback).__name__ for callback in _stateful(callbacks)],
    }
    # Read back through JSON, so that it compares equal to what a file holds.
    found: dict[str, Any] = json.loads(json.dumps(options))
    return found


class Checkpointer:
    """Writes and reads the checkpoints of one fit; of several ranks the first does, for all."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        trainer: Trainer,
        callbacks: Sequence[Callback],
        options: Mapping[str, Any],
        per_epoch: int,
        total: int,
        resume: bool,
    ) -> None:
        """options: the fit's. Raises FileExistsError unless the folder is free or resumed."""
        self._keeps = trainer.communicator.rank == 0
        self._folder, self._checkpoints = Path(checkpoints.folder), checkpoints
        if (epochs := -(-total // per_epoch)) > MAX_EPOCHS:
            raise ValueError(f"Trainer.fit: {epochs} epochs, expected at most {MAX_EPOCHS} with checkpoints")
        if self._keeps and not resume and checkpoints.files():
            raise FileExistsError(f"{self._folder} holds the checkpoints of a fit; expected a new folder, or resume")
        self._begun = False
        self._trainer = trainer
        self._callbacks = callbacks
        self._total, self._per_epoch = total, per_epoch
        self._options = options
        self._written = time.monotonic()

    # Writing -----------------------------------------------------------------------------------------------

    def offer(self) -> None:
        """Write if it is time, within an epoch."""
        steps, seconds = self._checkpoints.every_steps, self._checkpoints.every_seconds
        due = steps is not None and self._trainer.progress.done % steps == 0
        if due or (seconds is not None and time.monotonic() - self._written >= seconds):
            self.write()

    def due_in(self) -> int:
        """How many batches may run before the next `offer`, as far as their number decides."""
        steps = self._checkpoints.every_steps
        return sys.maxsize if steps is None else steps - self._trainer.progress.done % steps

    def write(self) -> None:
        """Write the fit's state, and remove the checkpoints that are too many.

        Raises NonFiniteError instead of writing a bad one; OSError, also where the folder that was written to is gone:
        it is not made twice.
        """
        if not self._keeps:
            return
        self._trainer.refuse_nonfinite()
        if not self._begun:  # no sooner: a fit that another forestalls in this folder must not have touched it
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True)
                sync_folder(self._folder.parent)
            remove_parts(self._folder)
            self._begun = True
        state = self._state()
        contents = {
            "format": FORMAT,
            "options": self._options,
            "numbers": state.numbers,
            "arrays": _digest(_named(state.arrays)),
            "versions": versions(),
            "threads": kernels.get_threads(),
        }
        text = json.dumps(contents)
        metadata = {"twinkernels": text, "digest": _digest([text.encode()])}
        path = self._folder / f"step-{self._trainer.progress.done:08}.safetensors"
        write(path, state.arrays, metadata)
        files = self._checkpoints.files()
        if path not in files:
            raise FileNotFoundError(
                f"{path} was removed as soon as it was written: is another fit kept in this folder?"
            )
        at = files.index(path)
        for other in [*files[:at], *files[at + self._checkpoints.keep :]]:  # later ones were passed over as damaged
            other.unlink(missing_ok=True)
        self._written = time.monotonic()

    def _state(self) -> State:
        trainer = self._trainer
        model = trainer.model
        arrays = {f"model/{name}": view for name, view in (model.parameters() | model.statistics()).items()}
        arrays |= self._optimizer_state()
        kept: dict[str, dict[str, Any]] = {}
        for i, callback in enumerate(_stateful(self._callbacks)):
            state = callback.state()
            arrays |= {f"callback {i}/{k}": v for k, v in state.items() if isinstance(v, np.ndarray)}
            kept[str(i)] = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
        counters = {name: getattr(trainer, name) for name in _counters(trainer)}
        progress = dataclasses.asdict(trainer.progress) | {
            "history": [vars(e) for e in trainer.progress.history.epochs]
        }
        return State(storable(arrays), counters | {"progress": progress, "callbacks": kept})

    def _optimizer_state(self) -> dict[str, np.ndarray]:
        """The optimizer's arrays by parameter, writable."""
        state, layout = self._trainer.state, self._trainer.model.parameter_layout
        return {
            f"{state_name(name)}/{parameter}": view
            for name, flat in state.items()
            for parameter, view in layout.views(flat).items()
        }

    # Reading -----------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Put the fit where its newest readable checkpoint is; leave it at its start if there is none.

        Raises ValueError for a checkpoint of another fit, ModelFormatError if there are some and none is readable.
        """
        state = self._trainer.communicator.first(self._newest)
        if state is not None:
            self._apply(state)

    def _newest(self) -> State | None:
        files = self._checkpoints.files()
        for path in files:
            try:
                return self._read(path)
            except ModelFormatError as error:
                _logger().warning("%s; trying the one before", harmless(str(error)))
        if files:
            raise ModelFormatError(f"{self._folder}: none of its {len(files)} checkpoints is readable")
        return None

    def _read(self, path: Path) -> State:
        """A checkpoint's state, all of it checked against the fit's own before it is read."""
        from safetensors import SafetensorError, safe_open

        expected = self._state()
        largest = MAX_HEADER + sum(array.nbytes for array in expected.arrays.values())
        try:
            if not path.is_file() or path.stat().st_size > largest:
                raise ModelFormatError(f"expected a file of at most {largest} bytes")
            with safe_open(path, framework="numpy") as file:
                contents = _contents_of(file.metadata())
                self._compare(path, contents["options"])
                _check_arrays({name: file.get_slice(name) for name in file.keys()}, expected.arrays)  # noqa: SIM118
                arrays = {name: file.get_tensor(name) for name in expected.arrays}
            if _digest(_named(arrays)) != contents["arrays"]:
                raise ModelFormatError("its arrays are not those that were written")
            numbers = contents["numbers"]
            _check_form(numbers, expected.numbers, "numbers")
            self._check_counts(numbers)
            self._warn(path, contents)
        except _OtherFit:
            raise
        except (SafetensorError, OSError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise ModelFormatError(f"{path}: not a readable checkpoint ({printable(error)})") from error
        return State(arrays, numbers)

    def _compare(self, path: Path, options: Any) -> None:
        dtype = self._trainer.model.dtype.name
        earlier = _EARLIER | {"precision": dtype, "precision in validation": dtype}
        for name, now in self._options.items():
            if (then := (earlier | options)[name]) == now:
                continue
            if name == "data":
                raise _OtherFit(f"{path}: was trained on other data")
            raise _OtherFit(f"{path}: {name} was {_short(then)}, is {_short(now)} now")

    def _check_counts(self, numbers: dict[str, Any]) -> None:
        progress = numbers["progress"]
        for part in numbers, progress:
            for name, value in part.items():
                if isinstance(value, int) and not 0 <= value <= MAX_COUNT:
                    raise ModelFormatError(f"{name} is {value}, expected at least 0 and at most {MAX_COUNT}")
        position, done = progress["position"], progress["done"]
        if not position <= done <= self._total or position >= self._per_epoch:
            raise ModelFormatError(f"batch {position} of an epoch, {done} of {self._total} in all")
        if progress["samples"] > position * self._trainer.batch_size or progress["skipped"] > position:
            raise ModelFormatError(
                f"{progress['samples']} samples and {progress['skipped']} skipped in {position} batches"
            )
        for epoch in progress["history"]:
            Epoch.checked(epoch)

    def _warn(self, path: Path, contents: dict[str, Any]) -> None:
        now = versions() | {"threads": kernels.get_threads()}
        then = contents["versions"] | {"threads": contents["threads"]}
        if self._trainer.model.backend != "numpy" or self._trainer.sharded is not None:
            then |= {"threads": now["threads"]}  # NumPy's sums alone depend on them
        changed = [f"{name} {_short(then.get(name))} (now {now[name]})" for name in now if then.get(name) != now[name]]
        if changed:
            _logger().warning(
                "%s: written with %s: results may differ by rounding", harmless(str(path)), ", ".join(changed)
            )

    def _apply(self, state: State) -> None:
        trainer, numbers = self._trainer, state.numbers
        model = {name.removeprefix("model/"): a for name, a in state.arrays.items() if name.startswith("model/")}
        trainer.model.set_parameters(model)
        for name, array in self._optimizer_state().items():
            array[...] = state.arrays[name]
        for name in _counters(trainer):
            setattr(trainer, name, numbers[name])
        history = History([Epoch(**epoch) for epoch in numbers["progress"]["history"]])
        trainer.progress = Progress(**(numbers["progress"] | {"history": history}))
        stateful = _stateful(self._callbacks)
        for callback in self._callbacks:
            kept: dict[str, Any] = {}
            if callback in stateful:
                i = stateful.index(callback)
                arrays = {n.removeprefix(f"callback {i}/"): a for n, a in state.arrays.items()}
                kept = numbers["callbacks"][str(i)] | {k: arrays[k] for k in callback.state() if k in arrays}
            callback.restore(kept)


class _OtherFit(ValueError):
    """A sound checkpoint that belongs to a fit with other options."""


def _counters(trainer: Trainer) -> tuple[str, ...]:
    return ("steps", "epochs", "skipped", "stop", *(("gathered",) if trainer.accumulate > 1 else ()))


def _stateful(callbacks: Sequence[Callback]) -> list[Callback]:
    return [callback for callback in callbacks if type(callback).state is not Callback.state]


def _contents_of(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    held = metadata or {}
    text = held.get("twinkernels", "")
    if not text or held.get("digest") != _digest([text.encode()]):
        raise ModelFormatError("no state of a fit in its metadata, or a damaged one")
    contents = json.loads(text)
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise ModelFormatError(f"format is not {FORMAT}")
    return contents


def _check_arrays(held: Mapping[str, Any], expected: Mapping[str, np.ndarray]) -> None:
    """Raise ModelFormatError unless the file holds the arrays that this fit has."""
    if odd := sorted(held.keys() ^ expected.keys()):
        raise ModelFormatError(f"arrays are not those of the fit: {', '.join(odd[:5])}")
    for name, array in expected.items():
        shape, dtype = tuple(held[name].get_shape()), DTYPES.get(held[name].get_dtype())
        if shape != array.shape or dtype != array.dtype:
            raise ModelFormatError(f"{name} is {shape} {held[name].get_dtype()}, expected {array.shape} {array.dtype}")


def _check_form(value: Any, expected: Any, name: str) -> None:
    """Raise ModelFormatError unless both have the same keys, and values of the same types."""
    if isinstance(expected, dict):
        if not isinstance(value, dict) or value.keys() != expected.keys():
            raise ModelFormatError(f"{name} has other keys than {', '.join(expected)}")
        for key, item in expected.items():
            _check_form(value[key], item, key)
    elif type(value) is not type(expected):
        raise ModelFormatError(f"{name} is {_short(value)}, expected a {type(expected).__name__}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _named(arrays: Mapping[str, np.ndarray]) -> Iterator[Part]:
    for name in sorted(arrays):
        yield name.encode()
        yield from _contents([arrays[name]])


def _contents(arrays: Sequence[np.ndarray | data.DiskArray]) -> Iterator[Part]:
    for array in arrays:
        if isinstance(array, data.DiskArray):
            yield array.fingerprint()
            continue
        yield f"{array.dtype} {array.shape}".encode()
        yield np.ascontiguousarray(array).data


def _logger() -> logging.Logger:
    import logging  # here, as hardly a run warns

    return logging.getLogger("twinkernels")


def _digest(parts: Iterable[Part]) -> str:
    import hashlib  # here, as it loads OpenSSL

    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
