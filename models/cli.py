"""The command `twinkernels`. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(
    name="twinkernels",
    help="Neural networks on small images, every kernel in NumPy and in Numba.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors, or a run's folder.")]
Backend = Annotated[
    str | None, typer.Option(metavar="numba|numpy", help="Whose kernels compute.", show_default=False)
]
Data = Annotated[
    str, typer.Option(metavar="strokes|mnist|PATH", help="A data set, or a folder of IDX or CSV files.")
]
Threads = Annotated[
    int | None, typer.Option(help="How many threads compute; all cores otherwise.", show_default=False)
]


@app.command("list")
def list_recipes() -> None:
    """Show the recipes that `train` knows."""
    from rich.console import Console
    from rich.table import Table

    from .recipes import RECIPES

    table = Table(
        "recipe", "network", "optimizer", "length", "published", "floor", box=None, header_style="bold"
    )
    for recipe in RECIPES.values():
        table.add_row(
            recipe.name,
            recipe.description,
            recipe.optimizer_text,
            recipe.length,
            recipe.published,
            f"{recipe.floor:g}",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A name that `twinkernels list` shows.")],
    backend: Backend = None,
    data: Data = "strokes",
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Optimizer steps, in place of epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Decides first weights, order and dropout.")] = 0,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A new folder that keeps the run.", show_default=False)
    ] = None,
) -> None:
    """Train a network by a recipe and print its accuracy on the test images."""
    from . import recipes

    set_threads(threads)
    training = recipes.prepare(
        recipe,
        backend=backend,
        data=data,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        seed=seed,
        out=out,
    )
    print(training.describe(), flush=True)
    with step_bar(training.total_steps) as advance:
        result = training.run(on_step=advance, on_epoch=lambda epoch: print(epoch, flush=True))
    print(f"model kept in {training.model_path}" if out else "model not kept; --out RUN keeps it")
    print(f"test accuracy {result.accuracy:.4f}")
