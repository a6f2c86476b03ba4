"""The command `twinkernels`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import data as datasets
import kernels
from models.callbacks import Callback
from models.encoding import harmless
from models.loading import load
from models.nonfinite import NonFiniteError
from models.schedules import Schedule

from . import profile, progress, recipes, study
from .classify import probabilities
from .pages import explore, report

if TYPE_CHECKING:
    from models.graph import Graph
    from models.history import Epoch
    from models.trainer import Trainer

app = typer.Typer(
    name="twinkernels",
    help="Neural networks for small images, every kernel in NumPy and in Numba.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors, or the folder of a run.")]
Backend = Annotated[str | None, typer.Option(metavar="numba|numpy", help="Whose kernels compute.", show_default=False)]
Data = Annotated[str, typer.Option(metavar="strokes|mnist|PATH", help="Data: a name, or a folder of IDX or CSV files.")]
TestData = Annotated[
    str,
    typer.Option(
        metavar="strokes|mnist|PATH",
        help="As for train; or a CSV or IDX file, or a folder with a folder of pictures for each label.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that compute; all cores if left out.", show_default=False)
]


@app.command("list")
def list_recipes() -> None:
    """Show the recipes that train knows: what each answers to, its floor, and what it reached on each backend."""
    from rich.console import Console
    from rich.table import Table

    reached = recipes.figures()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "network", "training", "published", "floor", *kernels.names()):
        table.add_column(heading, no_wrap=heading not in ("network", "training", "published"))
    for recipe in recipes.RECIPES.values():
        optimizer = f"{type(recipe.optimizer).__name__} {recipe.optimizer.learning_rate:g}"
        schedule = "constant" if type(recipe.schedule) is Schedule else type(recipe.schedule).__name__
        training = f"{optimizer}, {schedule}, batch {recipe.batch_size}, {recipe.length}"
        ours = [f"{share:.4f}" if (share := reached.get(recipe.name, {}).get(b)) else "–" for b in kernels.names()]
        table.add_row(recipe.name, recipe.description, training, recipe.published, f"{recipe.floor:g}", *ours)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A name that `twinkernels list` shows.", show_default=False)
    ] = None,
    backend: Backend = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="strokes|mnist|PATH",
            help="Data: a name, or a folder of IDX or CSV files.",
            show_default="strokes",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps, instead of epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Of the training images, held out and read after each epoch.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of first weights, order and dropout.", show_default="0")
    ] = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="New folder to keep the run in.", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run, to the same bits; other options may repeat its own.",
            show_default=False,
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints within an epoch.", show_default=False)
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds between checkpoints within an epoch.", show_default="60")
    ] = None,
) -> None:
    """Train by a recipe; print the accuracy on the test images."""
    given: dict[str, Any] = {
        "recipe": recipe,
        "backend": backend,
        "seed": seed,
        "epochs": epochs,
        "iterations": iterations,
        "batch_size": batch_size,
        "validation": validation,
        "checkpoint_steps": checkpoint_steps,
        "checkpoint_seconds": checkpoint_seconds,
    }
    with contextlib.closing(_Report()) as report:
        if resume is not None:
            if out is not None and out.absolute() != resume.absolute():
                raise ValueError(f"--out {out} and --resume {resume} name two runs, expected one")
            outcome = recipes.resume(resume, data, threads=threads, callbacks=[report], **given)
            if not report.began:
                print(f"{resume} has ended, nothing to resume")
            out = resume
        else:
            if recipe is None:
                raise ValueError("Missing argument 'RECIPE': a name that `twinkernels list` shows")
            _set_threads(threads)
            options = {name: value for name, value in given.items() if value is not None}
            outcome = recipes.run(
                options.pop("recipe"), "strokes" if data is None else data, out=out, callbacks=[report], **options
            )
    print(f"kept in {out}" if out else "model not kept: --out RUN keeps it")
    print(f"test accuracy {outcome.test.accuracy:.4f}")


@app.command()
def evaluate(model: Model, backend: Backend = None, data: TestData = "strokes", threads: Threads = None) -> None:
    """Print a model's loss and accuracy on the test images, or on labelled images of your own."""
    _set_threads(threads)
    network = _load(model, backend)
    loss, accuracy = network.evaluate(*datasets.load_test(data, *_image_size(network)))
    print(f"test loss {loss:.4f}")
    print(f"test accuracy {accuracy:.4f}")


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG, IDX or CSV files, or folders of pictures.")
    ],
    backend: Backend = None,
    threads: Threads = None,
) -> None:
    """Print a line for each image: file, digit, probability; tabs between."""
    _set_threads(threads)
    network = _load(model, backend)
    read = [datasets.read_images(path, *_image_size(network)) for path in images]
    for names, pixels in read:
        for name, row in zip(names, probabilities(network, pixels), strict=True):
            print(name, row.argmax(), f"{row.max():.4f}", sep="\t")


@app.command()
def draw(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="A model, or a run; the one that ships with it if left out."),
    ] = None,
    backend: Backend = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes any that is free.")] = 8028,
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute; one image is little to share.")] = 1,
) -> None:
    """Serve a page on which you draw a digit and watch a network read it."""
    try:
        from .draw import server
    except ImportError:
        raise ValueError("draw needs starlette and uvicorn: pip install 'twinkernels[draw]'") from None
    from .draw import SHIPPED, Reader

    _set_threads(threads)
    with server.listen(port) as listener:
        path = _model_file(model or SHIPPED)
        reader = Reader(_load(path, backend))
        print(f"http://{server.HOST}:{listener.getsockname()[1]}/ is open for drawing; Ctrl-C ends", flush=True)
        server.build(reader, listener, server.describe(path, reader)).run(sockets=[listener])


app.command("profile")(profile.command)
app.command("report")(report.command)
app.command("explore")(explore.command)
app.command("study")(study.command)


def _image_size(network: Graph) -> tuple[int, int]:
    if len(network.input_shape) != 3 or network.input_shape[2] != 1:
        raise ValueError(f"the model takes inputs {network.input_shape}, expected grey images (H, W, 1)")
    return network.input_shape[0], network.input_shape[1]


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        kernels.set_threads(threads)


def _load(path: Path, backend: str | None) -> Graph:
    if backend is not None:
        kernels.get(backend)  # so that a mistake here is not blamed on the file
    return load(_model_file(path), backend)


def _model_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


class _Report(Callback):
    """Prints a line an epoch, and shows a bar on standard error where that is a terminal."""

    def __init__(self) -> None:
        self.began = False
        self._progress = progress.bar()

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        self.began, self._trainer = True, trainer
        model = trainer.model
        count = sum(array.size for array in model.parameters().values())
        print(f"{count:,} parameters, {model.backend} backend, {total_steps:,} steps of {trainer.batch_size} images")
        self._task = self._progress.add_task("training", total=total_steps)
        self._progress.start()  # no sooner: loading data may show a bar of its own

    def restore(self, state: dict[str, Any]) -> None:
        print(f"going on after {self._trainer.progress.done:,} steps")
        self._progress.update(self._task, completed=self._trainer.progress.done)

    def on_progress(self, trainer: Trainer) -> None:
        self._progress.update(self._task, completed=trainer.progress.done)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        line = f"epoch {epoch.epoch:3}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
        if epoch.validation_accuracy is not None:
            line += f"  validation {epoch.validation_accuracy:.4f}"
        print(f"{line}  {epoch.seconds:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, or 2 after a user's mistake and 130 after Ctrl-C, each with one line on stderr.

    The library answers a mistake with a ValueError or an OSError that names it, so these are the user's here; so
    are a training whose numbers are no longer finite and a size that memory does not hold.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    message = ""
    try:
        status = app(given or ["--help"], prog_name="twinkernels", standalone_mode=False) or 0
    except typer.TyperException as error:
        status, message = 2, error.format_message()
    except OSError as error:
        status, message = 2, f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (ValueError, NonFiniteError, MemoryError) as error:
        status, message = 2, str(error) or "out of memory"
    except KeyboardInterrupt:
        status = 130
    if status == 130:
        message = "interrupted"
    if message:
        print("twinkernels:", harmless(" ".join(message.split())), file=sys.stderr)
    sys.exit(status)
