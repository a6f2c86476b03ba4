"""Runs: a recipe carried out, kept in a folder, resumed and read again.

A run's folder holds config.json, history.jsonl (a line an epoch), checkpoints and, at the end, model.safetensors. While
it is trained in it holds a file `.lock` as well, by which it has one owner; a process that is killed leaves the file,
and lets go of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
import kernels
from data.files import expanded, is_part, regular, remove_parts, sync_folder, write_atomically
from data.splits import Pair, as_dataset
from kernels import shapes
from models import losses, optimizers, schedules
from models import precision as precisions
from models.callbacks import Callback, checked
from models.checkpoints import Checkpoints, versions
from models.communicator import Communicator
from models.encoding import ModelFormatError, construct, encode, harmless, printable
from models.graph import DEFAULT_BACKEND, Evaluation, Graph
from models.history import MAX_EPOCHS, Epoch, History
from models.loading import load
from models.losses import Loss
from models.optimizers import Optimizer
from models.schedules import Schedule
from models.trainer import Trainer
from models.zoo import build

from . import recipes
from .locks import HeldError, Lock, check_free
from .recipes import Recipe

_log = logging.getLogger("twinkernels")

CONFIG, HISTORY, MODEL = "config.json", "history.jsonl", "model.safetensors"
LOCK = ".lock"
WAIT = 1.0  # seconds for a lock: others hold one for a moment, to see whether it is held
MAX_CONFIG = 1 << 20  # bytes
MAX_RECORD = 1 << 10  # bytes of a line of history.jsonl
MAX_HISTORY = 1 << 24  # bytes

KNOWN = {
    cls.__name__: cls
    for module in (losses, optimizers, schedules)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, (Loss, Optimizer, Schedule))
} | {"Augment": data.Augment}


Source = str | os.PathLike[str] | data.Dataset | tuple[Pair, Pair]
"""What `run` takes for its data."""


class Outcome(NamedTuple):
    """What a training leaves: the model, the record of its epochs, and its figures on the test images."""

    model: Graph
    history: History
    test: Evaluation


def run(
    recipe: str | Recipe,
    source: Source = "strokes",
    *,
    backend: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    validation: float | None = None,
    out: str | os.PathLike[str] | None = None,
    checkpoint_steps: int | None = None,
    checkpoint_seconds: float | None = 60.0,
    callbacks: Sequence[Callback] = (),
    shards: int | None = None,
    communicator: Any = None,
    sync_batchnorm: bool = False,
    precision: str | None = None,
) -> Outcome:
    """Train by a recipe, and evaluate on the test images once, after the last epoch.

    recipe: a name in `recipes.RECIPES`, or a Recipe of your own. source: what `data.load` takes, a loaded Dataset, or
    the pairs ((images, labels), (images, labels)) of one, training first.
    epochs or iterations, batch_size, learning_rate and validation: in place of the recipe's; its schedule stretches
    over the new length.
    out: a new folder, which then holds config.json, history.jsonl (a line an epoch), checkpoints and, at the end,
    model.safetensors. checkpoint_steps, checkpoint_seconds: how often within an epoch, see `Checkpoints`.
    precision: in which the model is trained and evaluated, "float32" unless told, or "bfloat16".
    shards, communicator, sync_batchnorm: of the trainer; of several ranks, which all call this alike, the first
    keeps the run.

    Raises ValueError for an unknown name and for data that does not fit the network, FileExistsError where `out`
    is there already, BlockingIOError where another process trains in it, and what `data.load` raises; all of it before
    training begins. Raises FileNotFoundError where `out` is moved or deleted meanwhile.
    """
    source = as_source(source)
    shared = communicator if isinstance(communicator, Communicator) else Communicator(communicator)
    chosen = recipes.get(recipe) if isinstance(recipe, str) else recipe
    options = Options(
        _changed(chosen, epochs, iterations, batch_size, learning_rate, validation),
        data=source_name(source),
        backend=DEFAULT_BACKEND if backend is None else backend,
        seed=seed,
        threads=kernels.get_threads(),
        checkpoint_steps=checkpoint_steps,
        checkpoint_seconds=checkpoint_seconds,
        shards=shared.size if shards is None else shards,
        sync_batchnorm=sync_batchnorm,
        precision="float32" if precision is None else precision,
    )
    build(options.recipe.network, options.backend, seed)  # a name that is none is answered before the data is read
    with contextlib.ExitStack() as held:
        kept = None
        if out is not None:
            kept = RunFolder(expanded(out), options, keeps=shared.rank == 0)
            held.enter_context(kept)
        return _train(options, source, callbacks, kept, shared)


def resume(
    path: str | os.PathLike[str],
    source: Source | None = None,
    *,
    recipe: str | Recipe | None = None,
    callbacks: Sequence[Callback] = (),
    communicator: Any = None,
    **given: Any,
) -> Outcome:
    """Go on with a run that `run(..., out=path)` began: it ends with the bits it would have had.

    On as many threads, unless the run is one in shards: that goes on with any number of threads and ranks.

    A run without a checkpoint starts over; of one that has ended, the model, history and test figures are given.
    source: the data set, where the run was handed a loaded one. callbacks: those of the run. recipe, given: options of
    `run`, and `threads`, that must be the run's own; None stands for any.

    Raises FileNotFoundError where there is no run, and where it is moved or deleted meanwhile, ValueError for options
    that differ from the run's, ModelFormatError for damaged files, BlockingIOError where another process trains in it.
    """
    path, source = expanded(path), None if source is None else as_source(source)
    shared = communicator if isinstance(communicator, Communicator) else Communicator(communicator)
    if not shared.first(lambda: (path / CONFIG).is_file()):
        return _begin(path, source, recipe, callbacks, given, shared)
    options = shared.first(lambda: read_options(path))
    if source is not None and not isinstance(source, data.Dataset):
        given = given | {"data": source_name(source)}
    threads = given.pop("threads", None) if options.shards > 1 else options.threads
    config = options.encoded() | {"learning_rate": options.recipe.optimizer.learning_rate}
    if isinstance(recipe, Recipe):
        if recipe != options.recipe:
            raise ValueError(f"{path}: recipe of this run is {options.recipe}, {recipe} was asked for")
        recipe = recipe.name
    for name, value in (given | {"recipe": recipe}).items():
        if value is not None and value != config[name]:
            raise ValueError(f"{path}: {name} of this run is {config[name]!r}, {value!r} was asked for")
    if source is None and options.data is None:
        raise ValueError(f"{path}: the run was handed its data; pass it as source")
    source = options.data if source is None else source
    assert source is not None
    with _threads(threads or kernels.get_threads()), contextlib.ExitStack() as held:
        if not shared.first((path / MODEL).is_file):
            folder = held.enter_context(RunFolder(path, options, resume=True, keeps=shared.rank == 0))
            folder.take()
            if not shared.first((path / MODEL).is_file):  # another may just have ended it
                return _train(options, source, callbacks, folder, shared)
        return shared.first(lambda: _ended(path, options, source))


def _ended(path: Path, options: Options, source: str | os.PathLike[str] | data.Dataset) -> Outcome:
    """What a run that has ended came to."""
    model = load(path / MODEL, options.backend, precision=options.precision)
    _, test = source if isinstance(source, data.Dataset) else data.load(source, on_disk=True)
    return Outcome(model, read_history(path), model.evaluate(test.images, test.labels))


def as_source(source: Source) -> str | os.PathLike[str] | data.Dataset:
    """The data with pairs made a Dataset. Raises TypeError or ValueError for what is none."""
    return as_dataset("source", source) if isinstance(source, tuple | list) else source


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    """As many threads as that; those of before at the end."""
    before = kernels.get_threads()
    kernels.set_threads(n)
    try:
        yield
    finally:
        kernels.set_threads(before)


def _begin(
    path: Path,
    source: Any,
    recipe: str | Recipe | None,
    callbacks: Sequence[Callback],
    given: dict[str, Any],
    communicator: Communicator,
) -> Outcome:
    """A run that ended before its configuration was written."""
    if not communicator.first(lambda: _is_free(path, missing=False)):
        raise FileNotFoundError(f"{path}: no run there, it has no {CONFIG}")
    if recipe is None:
        raise ValueError(f"{path}: the run had not begun; expected its recipe, to start it")
    options = {name: value for name, value in given.items() if value is not None}
    with _threads(options.pop("threads", kernels.get_threads())):
        source = "strokes" if source is None else source
        return run(recipe, source, out=path, callbacks=callbacks, communicator=communicator, **options)


def _model(options: Options, dataset: data.Dataset) -> Graph:
    """The recipe's network, made for the images and classes of a set that names its classes."""
    network, backend, seed, precision = options.recipe.network, options.backend, options.seed, options.precision
    if dataset.classes is None:
        return build(network, backend, seed, precision=precision)
    shape = dataset.train.images.shape[1:]
    model = build(network, backend, seed, input_shape=shape, classes=len(dataset.classes), precision=precision)
    model.classes = dataset.classes
    return model


def _train(
    options: Options,
    source: str | os.PathLike[str] | data.Dataset,
    callbacks: Sequence[Callback],
    folder: RunFolder | None,
    communicator: Communicator,
) -> Outcome:
    recipe, watching = options.recipe, checked("run", callbacks)
    if options.shards == 1:
        kernels.set_threads(options.threads)  # BLAS's too, since its sums depend on them
    if isinstance(source, data.Dataset):
        dataset = source
    else:
        dataset = communicator.shared(lambda: data.load(source, on_disk=True))
    if dataset.note and communicator.rank == 0:
        _log.warning("%s", harmless(dataset.note))
    train, test = dataset
    model = _model(options, dataset)
    model.check_images(test.images, "test images")
    recipe.loss.check(test.labels, len(test.images), model.output_shape)
    validation = None
    held_out = round(recipe.validation * len(train.labels))
    if recipe.validation and not held_out:
        raise ValueError(
            f"run: validation is {recipe.validation:g} of {len(train.labels)} training images, which is none; expected "
            f"at least {1 / len(train.labels):.2g}, or 0"
        )
    if held_out:
        train, validation = communicator.shared(lambda: data.split(dataset.train, held_out, options.seed))

    trainer = Trainer(
        model,
        recipe.optimizer,
        recipe.loss,
        recipe.batch_size,
        recipe.schedule,
        shards=options.shards,
        communicator=communicator,
        sync_batchnorm=options.sync_batchnorm,
    )
    history = trainer.fit(
        train.images,
        train.labels,
        epochs=recipe.epochs,
        iterations=recipe.iterations,
        validation=validation,
        callbacks=[*watching, *([folder] if folder else [])],
        augment=recipe.augment,
        checkpoints=folder.checkpoints if folder else None,
        resume=folder is not None and folder.resume,
    )
    outcome = Outcome(model, history, model.evaluate(test.images, test.labels))
    if folder:
        folder.check_in_place()
    return outcome


def _changed(
    recipe: Recipe,
    epochs: int | None,
    iterations: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    validation: float | None,
) -> Recipe:
    if epochs is not None or iterations is not None:
        recipe = replace(recipe, epochs=epochs, iterations=iterations)
    if learning_rate is not None:
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=learning_rate))
    if validation is not None:
        recipe = replace(recipe, validation=validation)
    return recipe if batch_size is None else replace(recipe, batch_size=batch_size)


def source_name(source: str | os.PathLike[str] | data.Dataset) -> str | None:
    """What config.json calls the data: a name, or a path that leads there from any folder; None for a loaded one."""
    if isinstance(source, data.Dataset):
        return None
    return str(source) if source in ("strokes", "mnist", "sklearn-digits") else os.path.abspath(expanded(source))


@dataclass(frozen=True)
class Options:
    """What a run's config.json holds: all that its result follows from, and how often it is kept."""

    recipe: Recipe
    data: str | None
    backend: str
    seed: int
    threads: int
    checkpoint_steps: int | None
    checkpoint_seconds: float | None
    versions: Mapping[str, str] = field(default_factory=versions)
    shards: int = 1
    sync_batchnorm: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.data, str | None):
            raise TypeError(f"run: data is {self.data!r}, expected a name or a path")
        if not isinstance(self.backend, str):
            raise TypeError(f"run: backend is {self.backend!r}, expected one of {', '.join(kernels.names())}")
        shapes.integer("run", "seed", self.seed, 0)
        shapes.integer("run", "shards", self.shards, 1)
        if shapes.flag("run", "sync_batchnorm", self.sync_batchnorm) and self.shards == 1:
            raise ValueError("run: sync_batchnorm is True and shards is 1, expected two shards or more")
        precisions.checked("run", self.precision, np.dtype(np.float32))
        Checkpoints(".", self.checkpoint_steps, self.checkpoint_seconds)

    def encoded(self) -> dict[str, Any]:
        """As JSON, the recipe's fields beside the others."""
        recipe = {name: encode(getattr(self.recipe, name)) for name in Recipe.__dataclass_fields__ if name != "name"}
        options = {name: getattr(self, name) for name in Options.__dataclass_fields__}
        return recipe | options | {"recipe": self.recipe.name, "versions": dict(self.versions)}

    @classmethod
    def decoded(cls, config: Any) -> Options:
        """The inverse of `encoded`; LookupError, RecursionError, TypeError or ValueError if it cannot be one."""
        earlier = {"shards": 1, "sync_batchnorm": False, "precision": "float32"}  # all that earlier versions had
        config = earlier | config
        fields = {name: config[name] for name in cls.__dataclass_fields__}
        seed, held = fields.pop("seed"), fields.pop("versions")
        shapes.integer("run", "seed", seed, 0)  # of any length, unlike the other numbers
        if not isinstance(held, dict) or not all(isinstance(version, str) for version in held.values()):
            raise ValueError(f"versions is {held!r}, expected the names of packages with their versions")
        recipe = {name: config[name] for name in Recipe.__dataclass_fields__ if name != "name"}
        fields["recipe"] = {"type": "Recipe", "name": fields["recipe"]} | recipe
        options: Options = construct(cls, fields | {"seed": 0, "versions": None}, KNOWN | {"Recipe": Recipe})
        return replace(options, seed=seed, versions=held)


def read_options(path: Path) -> Options:
    """The options of the run in a folder; ModelFormatError for a damaged config.json."""
    return parse_options(path / CONFIG, _bounded(path / CONFIG, MAX_CONFIG))


def parse_options(path: Path, content: bytes) -> Options:
    """The options in a config.json of this path and content; ModelFormatError for a damaged one."""
    try:
        config = json.loads(content)
        if not isinstance(config, dict):
            raise TypeError(f"it holds a {type(config).__name__}, expected an object")
        return Options.decoded(config)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: not a readable configuration ({printable(error)})") from error


def read_history(path: Path) -> History:
    """The epochs that a run has kept; ModelFormatError for a damaged history.jsonl."""
    return parse_history(path / HISTORY, _bounded(path / HISTORY, MAX_HISTORY))


def parse_history(path: Path, content: bytes) -> History:
    """The epochs in a history.jsonl of this path and content; ModelFormatError for a damaged one."""
    history = History()
    for number, line in enumerate(content.splitlines(), 1):
        try:
            if number > MAX_EPOCHS or len(line) > MAX_RECORD:
                raise ValueError(f"expected at most {MAX_EPOCHS} lines of at most {MAX_RECORD} bytes")
            record = json.loads(line)
            record |= {name: math.nan for name in ("loss", "accuracy") if record[name] is None}  # NaN is no JSON
            history.epochs.append(Epoch.checked(record))
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise ModelFormatError(f"{path}:{number}: not an epoch's record ({printable(error)})") from error
    return history


def _bounded(path: Path, most: int) -> bytes:
    """A regular file's content; ModelFormatError for any other, and for a longer one."""
    try:
        with regular(path) as file:
            content = file.read(most + 1)
    except data.DataFormatError as error:
        raise ModelFormatError(str(error)) from None
    if len(content) > most:
        raise ModelFormatError(f"{path}: more than {most} bytes")
    return content


def _is_free(path: Path, missing: bool = True) -> bool:
    """Whether a run can begin in a folder: nothing is in it but what a killed process left."""
    if not path.exists():
        return missing
    return path.is_dir() and all(is_part(entry) or entry.name == LOCK for entry in path.iterdir())


@dataclass(frozen=True)
class Run:
    """What the folder of a finished run holds: how it was set up, how it went, and the trained model."""

    path: Path
    options: Options
    history: History
    model: Graph

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.history.epochs[0].step

    @property
    def total_steps(self) -> int:
        """Optimizer steps that the run was set up for; one that stopped early took less."""
        recipe = self.options.recipe
        return recipe.iterations or (recipe.epochs or 0) * self.steps_per_epoch


def read_run(path: Path, backend: str | None = None) -> Run:
    """Read the folder of a finished run; the model on the backend it was trained on unless told.

    Raises ValueError that names the file which is missing or broken, and what `models.load` raises.
    """
    if not path.is_dir():
        raise ValueError(f"no run at {path}; expected the folder that train --out made")
    for name in (CONFIG, HISTORY, MODEL):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no finished run: it lacks {name}{how_to_go_on(path)}")
    options, history = read_options(path), read_history(path)
    if not history.epochs:
        raise ValueError(f"{path} is no finished run: {HISTORY} holds no epoch")
    model = load(path / MODEL, options.backend if backend is None else backend, precision=options.precision)
    return Run(path, options, history, model)


def own_data(path: Path) -> str:
    """The data of the run in a folder, or of the one that a model's file lies in; strokes where there is no run.

    Raises ValueError for a run that was handed its data, ModelFormatError for a damaged config.json.
    """
    folder = path.parent if path.name == MODEL else path
    if not (folder / CONFIG).is_file():
        return "strokes"
    source = read_options(folder).data
    if source is None:
        raise ValueError(f"{folder}: the run was handed its data; say which with --data")
    return source


def own_precision(path: Path) -> str | None:
    """The precision of the run in a folder, or of the one that a model's file lies in; None where there is no run.

    Raises ModelFormatError for a damaged config.json.
    """
    folder = path.parent if path.name == MODEL else path
    return read_options(folder).precision if (folder / CONFIG).is_file() else None


def how_to_go_on(path: Path) -> str:
    """The end of a message about a run that has begun and not ended; nothing for any other folder."""
    if (path / MODEL).is_file() or not (path / CONFIG).is_file():
        return ""
    return f"; twinkernels train --resume {shlex.quote(str(path))} goes on with it"


def model_file(path: Path) -> Path:
    """The file of a model that is named by itself or by the folder of its run; ValueError for an unfinished run."""
    if not path.is_dir():
        return path
    if hint := how_to_go_on(path):
        raise ValueError(f"{path} is no finished run: it lacks {MODEL}{hint}")
    return path / MODEL


def model_name(path: Path) -> str:
    """What to call the model in a file: the run's folder where it lies in one, or else the file."""
    return path.resolve().parent.name if path.name == MODEL else path.stem


class RunFolder(Callback):
    """Keeps a run in a folder, which is made when training begins; every file appears whole or not at all.

    It is owned from `take` to the end of the `with` block. What ends well removes the lock's file, and what fails
    leaves it: who waits for it in that moment would hold a file that is not there. keeps: whether this process keeps
    it; of several ranks one alone does.
    """

    def __init__(self, path: Path, options: Options, resume: bool = False, keeps: bool = True) -> None:
        self.path = path
        self.resume = resume
        self._keeps = keeps
        self.checkpoints = Checkpoints(path / "checkpoints", options.checkpoint_steps, options.checkpoint_seconds)
        self._options = options
        self._lock: Lock | None = None
        if keeps and not resume:
            self._check_new()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is None:
            return
        ended = (self.path / MODEL).is_file() and self._lock.in_place()
        self._lock.close()
        if ended:
            with contextlib.suppress(OSError):
                self._lock.path.unlink()

    def _check_new(self) -> None:
        if not _is_free(self.path):
            if self._lock is None:
                with self._named():
                    check_free(self.path / LOCK, WAIT)
            raise FileExistsError(
                f"{self.path} exists already; expected a new folder for the run{how_to_go_on(self.path)}"
            )

    def take(self) -> None:
        """Own the folder, until the `with` block ends. Raises BlockingIOError where another process does."""
        if not self._keeps:
            return
        with self._named():
            self._lock = Lock(self.path / LOCK, WAIT, named=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except HeldError as error:
            raise BlockingIOError(f"{self.path}: {error.owner} trains in this folder") from None

    def check_in_place(self) -> None:
        """Raise FileNotFoundError if the folder is no longer the one that was taken."""
        if self._lock is not None and not self._lock.in_place():
            raise FileNotFoundError(f"{self.path}: the run's folder was moved or deleted while it was trained in")

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        if not self._keeps:
            return
        if not self.path.is_dir():
            self.path.mkdir(parents=True, exist_ok=True)
            sync_folder(self.path.parent)
        if not self.resume:
            self.take()
            self._check_new()
        remove_parts(self.path)
        if not self.resume:
            content = json.dumps(self._options.encoded(), indent=2) + "\n"
            write_atomically(self.path / CONFIG, content.encode())

    def on_progress(self, trainer: Trainer) -> None:
        self.check_in_place()

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        if not self._keeps:
            return
        self.check_in_place()
        lines = []
        for record in trainer.progress.history.epochs:
            finite = {k: None if v is None or not math.isfinite(v) else v for k, v in asdict(record).items()}
            lines.append(json.dumps(finite) + "\n")
        write_atomically(self.path / HISTORY, "".join(lines).encode())

    def on_fit_end(self, trainer: Trainer) -> None:
        if not self._keeps:
            return
        self.check_in_place()
        trainer.model.save(self.path / MODEL)
