"""What the program shows of long work and of tables: lines on standard output, and bars where it is watched."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import kernels
from kernels.compiling import on_compile
from models.callbacks import Callback
from models.encoding import harmless

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from models.history import Epoch
    from models.trainer import Trainer


def bar() -> Progress:
    """A bar on standard error where that is a terminal, and nothing elsewhere; what is printed stays above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # what goes into a file or a pipe stays there
    )


def say(*parts: object, sep: str = " ", flush: bool = False) -> None:
    """Print a line of texts that hold names of the user's: what could steer the terminal is shown as "?"."""
    print(*(harmless(str(part)) for part in parts), sep=sep, flush=flush)


def say_lines(text: str) -> None:
    """As `say`, of a text that has lines."""
    for line in text.split("\n"):
        say(line, flush=True)


def width() -> int | None:
    """Columns of the terminal that standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
) -> None:
    """Aligned columns, those of `right` to the right; those of `wrapped` give way where the terminal is narrow."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading not in wrapped)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@contextlib.contextmanager
def compiling() -> Iterator[list[str]]:
    """A bar for what is compiled within, and a line when it is done; gives the names of what was."""
    names: list[str] = []
    began = time.perf_counter()
    with bar() as shown:
        task = shown.add_task("compiling")

        def tell(name: str, done: int, total: int) -> None:
            names.append(name)
            shown.update(task, description=f"compiling {name}", completed=done, total=total, refresh=True)

        with on_compile(tell):
            yield names
    if names := [name for name in names if name]:
        print(f"{len(names)} functions compiled in {time.perf_counter() - began:.0f} s")


class TrainingProgress(Callback):
    """A line an epoch, which names the data, and a bar for its steps; before them, what is being compiled."""

    def __init__(self, source: str, shown: bool = True) -> None:
        self.began = False
        self._source = source
        self._bar = bar()
        self._compiling: float | None = None
        self._listening = contextlib.ExitStack()
        if shown:
            self._listening.enter_context(on_compile(self._compile))

    def close(self) -> None:
        """Give the terminal back."""
        self._listening.close()
        self._bar.stop()

    def _compile(self, name: str, done: int, total: int) -> None:
        watched = self.began and not self._bar.disable
        if self._compiling is None:
            self._compiling = time.perf_counter()
            if not watched:
                print(f"compiling {total} kernels, once for this machine", flush=True)
        if watched:
            text = f"compiling {name}, {total - done} left" if name else "training"
            self._bar.update(self._task, description=text, refresh=True)
        if not name:
            if not watched:
                print(f"compiled in {time.perf_counter() - self._compiling:.0f} s", flush=True)
            self._compiling = None

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.began, self._trainer = True, trainer
        model = trainer.model
        count = sum(array.size for array in model.parameters().values())
        ranks, threads = trainer.communicator.size, kernels.get_threads()
        shared = f", {ranks} ranks of {threads} thread{'s' * (threads > 1)}" if ranks > 1 else ""
        in_shards = f" in {trainer.shards} shards" if trainer.shards > 1 else ""
        steps = f"{total_steps:,} steps of {trainer.batch_size} images{in_shards}"
        print(f"{count:,} parameters, {model.backend} backend, {steps}{shared}")
        self._task = self._bar.add_task("training", total=total_steps)
        self._bar.start()  # no sooner: loading data may show a bar of its own

    def restore(self, state: dict[str, Any]) -> None:
        print(f"going on after {self._trainer.progress.done:,} steps")
        self._bar.update(self._task, completed=self._trainer.progress.done)

    def on_progress(self, trainer: Trainer) -> None:
        self._bar.update(self._task, completed=trainer.progress.done)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        say(f"{epoch}  {self._source}", flush=True)


class StudyProgress:
    """A line a trial, and a bar for all of them."""

    def __init__(self) -> None:
        self._bar = bar()
        self._task: TaskID | None = None

    def close(self) -> None:
        """Give the terminal back."""
        self._bar.stop()

    def __call__(self, done: int, total: int, line: str | None) -> None:
        if self._task is None:
            self._task = self._bar.add_task("studying", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
        if line is not None:
            print(f"{done:,} of {total:,}  {line}", flush=True)
