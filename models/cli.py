"""The command `twinkernels`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer

import data as datasets
import kernels
from data.files import regular

from . import checkpoint, profile, recipes
from .callbacks import Callback
from .schedules import Schedule

if TYPE_CHECKING:
    from .graph import Graph
    from .trainer import Epoch, Trainer

app = typer.Typer(
    name="twinkernels",
    help="Neural networks for small images, every kernel in NumPy and in Numba.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors, or the folder of a run.")]
Backend = Annotated[str | None, typer.Option(metavar="numba|numpy", help="Whose kernels compute.", show_default=False)]
Data = Annotated[str, typer.Option(metavar="strokes|mnist|PATH", help="Data: a name, or a folder of IDX or CSV files.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads that compute; all cores if left out.", show_default=False)
]


@app.command("list")
def list_recipes() -> None:
    """Show the recipes that train knows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "network", "training", "published", "floor"):
        table.add_column(heading, no_wrap=heading == "recipe")
    for recipe in recipes.RECIPES.values():
        optimizer = f"{type(recipe.optimizer).__name__} {recipe.optimizer.learning_rate:g}"
        schedule = "constant" if type(recipe.schedule) is Schedule else type(recipe.schedule).__name__
        training = f"{optimizer}, {schedule}, batch {recipe.batch_size}, {recipe.length}"
        table.add_row(recipe.name, recipe.description, training, recipe.published, f"{recipe.floor:g}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name that `twinkernels list` shows.")],
    backend: Backend = None,
    data: Data = "strokes",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps, instead of epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights, order and dropout.")] = 0,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="New folder to keep the run in.", show_default=False)
    ] = None,
) -> None:
    """Train by a recipe; print the accuracy on the test images."""
    _set_threads(threads)
    with contextlib.closing(_Report()) as report:
        outcome = recipes.run(
            recipe,
            data,
            backend=backend,
            seed=seed,
            epochs=epochs,
            iterations=iterations,
            batch_size=batch_size,
            out=out,
            callbacks=[report],
        )
    print(f"kept in {out}" if out else "model not kept: --out RUN keeps it")
    print(f"test accuracy {outcome.test.accuracy:.4f}")


@app.command()
def evaluate(model: Model, backend: Backend = None, data: Data = "strokes", threads: Threads = None) -> None:
    """Print a model's loss and accuracy on the test images."""
    _set_threads(threads)
    network = _load(model, backend)
    loss, accuracy = network.evaluate(*datasets.load(data).test)
    print(f"test loss {loss:.4f}")
    print(f"test accuracy {accuracy:.4f}")


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="IDX files of images, or PNG, JPEG, ... files.")
    ],
    backend: Backend = None,
    threads: Threads = None,
) -> None:
    """Print a line for each image: file, digit, probability; tabs between."""
    _set_threads(threads)
    network = _load(model, backend)
    for path in images:
        pixels = read_images(path, network.input_shape)
        probabilities = network.kernels.softmax(network.predict(pixels))
        for at, row in enumerate(probabilities):
            name = str(path) if len(pixels) == 1 else f"{path}[{at}]"
            print(name, row.argmax(), f"{row.max():.4f}", sep="\t")


app.command("profile")(profile.command)


def read_images(path: Path, shape: Sequence[int]) -> np.ndarray:
    """The images of a file as (N, H, W, 1) uint8, bright ink on a dark ground, for a model that takes `shape`.

    An IDX file (N, H, W) or (H, W), plain or .gz, is taken as it is. A picture needs Pillow: it is turned to grey, and
    to its negative where its edge is bright (ink on paper). One that is not H x W is framed as MNIST is: the ink
    scaled to fit 5/7 of the frame, its centre of mass in the middle. Raises ValueError for any other file, OSError
    for one that cannot be read.
    """
    if len(shape) != 3 or shape[2] != 1:
        raise ValueError(f"predict: the model takes inputs {tuple(shape)}, expected grey images (H, W, 1)")
    height, width, _ = shape
    with regular(path) as file:
        start = file.read(2)
    if start != b"\0\0" and path.suffix != ".gz":
        return _read_picture(path, height, width)[np.newaxis, ..., np.newaxis]
    pixels = datasets.read_idx(path)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[-2:] != (height, width):
        raise ValueError(f"{path}: holds {pixels.shape} {pixels.dtype}, expected (N, {height}, {width}) uint8")
    return pixels.reshape(-1, height, width, 1)


def _read_picture(path: Path, height: int, width: int) -> np.ndarray:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ValueError(
            f"{path} is no IDX file, and pictures need Pillow: pip install 'twinkernels[images]'"
        ) from None
    pixels = datasets.read_picture(path)
    grey = Image.fromarray(pixels)
    if np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])) > 127:
        grey = ImageOps.invert(grey)
    if grey.size == (width, height):
        return np.asarray(grey)

    box = grey.point([255 * (level > 50) for level in range(256)]).getbbox()
    if box is None:
        raise ValueError(f"{path}: no ink in the picture")
    digit = np.asarray(ImageOps.contain(grey.crop(box), (width * 5 // 7, height * 5 // 7)))
    frame = np.zeros((height, width), np.uint8)
    top, left = (
        min(
            max(round(room / 2 - np.average(np.arange(size) + 0.5, weights=digit.sum(1 - axis, dtype=float))), 0),
            room - size,
        )
        for axis, (room, size) in enumerate(zip(frame.shape, digit.shape, strict=True))
    )
    frame[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return frame


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        kernels.set_threads(threads)


def _load(path: Path, backend: str | None) -> Graph:
    if backend is not None:
        kernels.get(backend)  # so that a mistake here is not blamed on the file
    return checkpoint.load(path / "model.safetensors" if path.is_dir() else path, backend)


class _Report(Callback):
    """Prints a line an epoch, and shows a bar on standard error where that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file or a pipe stays there
        )

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()

    def on_fit_begin(self, trainer: Trainer, total_steps: int) -> None:
        model = trainer.model
        count = sum(array.size for array in model.parameters().values())
        print(f"{count:,} parameters, {model.backend} backend, {total_steps:,} steps of {trainer.batch_size} images")
        self._task = self._progress.add_task("training", total=total_steps)
        self._progress.start()  # no sooner: loading data may show a bar of its own

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self._progress.update(self._task, advance=1)

    def on_epoch_end(self, trainer: Trainer, epoch: Epoch) -> None:
        line = f"epoch {epoch.epoch:3}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
        if epoch.validation_accuracy is not None:
            line += f"  validation {epoch.validation_accuracy:.4f}"
        print(f"{line}  {epoch.seconds:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, or 2 after a user's mistake and 130 after Ctrl-C, each with one line on stderr.

    The library answers a mistake with a ValueError or an OSError that names it, so these are the user's here.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    message = ""
    try:
        status = app(given or ["--help"], prog_name="twinkernels", standalone_mode=False) or 0
    except typer.TyperException as error:
        status, message = 2, error.format_message()
    except OSError as error:
        status, message = 2, f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except ValueError as error:
        status, message = 2, str(error)
    except KeyboardInterrupt:
        status = 130
    if status == 130:
        message = "interrupted"
    if message:
        print("twinkernels:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)
