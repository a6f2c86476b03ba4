"""The command `twinkernels`: every subcommand with its options, each a thin call of what the program's parts offer."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import typer

import data
import kernels
from data.convert import FORMS
from data.files import expanded, write_atomically
from data.images import pictures_in
from models.checkpoints import versions
from models.encoding import harmless
from models.exchange.formats import SAFETENSORS, kind_of
from models.loading import load
from models.nonfinite import NonFiniteError

from . import (
    __version__,
    foreign,
    inputs,
    plots,
    precompile,
    profile,
    ranks,
    recipes,
    runs,
    start,
    streams,
    study,
    terminal,
)
from .classify import name_of, probabilities
from .pages import explore, report
from .pages.html import check_target
from .study import page
from .study.places import load_optuna
from .study.runner import SEEDS
from .study.storage import DEFAULTS

if TYPE_CHECKING:
    from models.communicator import Communicator
    from models.graph import Graph

    from .bench.declare import Case

BROKEN_PIPE = 141
"""The status where nobody reads standard output any more, as a shell counts a program that this ends: 128 + SIGPIPE."""

app = typer.Typer(
    name="twinkernels",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)

# What several commands take, in the same words ---------------------------------------------------------------

Model = Annotated[
    Path,
    typer.Argument(
        parser=expanded, metavar="MODEL", help="A model.safetensors, an .onnx file, or the folder of a run."
    ),
]
Pixels = Annotated[
    str | None,
    typer.Option(
        metavar="0..255|0..1|-1..1|MEAN,STD",
        help="What a network of another program takes for pixels. If left out: as its file says, or else 0..1; "
        "evaluate tells by the data's training images.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="strokes|mnist|PATH",
        help="A name, a published set's file or folder, or your pictures. If left out: the run's or the study's, "
        "strokes for a new one.",
        show_default=False,
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="numba|numpy",
        help="Whose kernels compute. If left out: the run's or the study's, numba for a new one.",
        show_default=False,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="float32|bfloat16",
        help="Of the numbers that linear layers and convolutions multiply. If left out: the run's, float32 for a new "
        "one.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads that compute. If left out: all cores; one for draw.", show_default=False),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all that is drawn at random.", show_default="0")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training images.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)]
Page = Annotated[
    Path | None, typer.Option(parser=expanded, metavar="PAGE", help="Where the page goes.", show_default=False)
]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"twinkernels {__version__}")
        raise typer.Exit


@app.callback()
def twinkernels(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Neural networks for small images, every kernel in NumPy and in Numba."""


@app.command("list")
def list_recipes() -> None:
    """Show the recipes that train knows: what each answers to, its floor, and what it reached on each backend."""
    headings, rows = recipes.table()
    terminal.print_table(headings, rows, wrapped=("network", "training", "published"))


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A name that `twinkernels list` shows.", show_default=False)
    ] = None,
    backend: Backend = None,
    precision: Precision = None,
    source: Data = None,
    epochs: Epochs = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps, instead of epochs.", show_default=False)
    ] = None,
    batch_size: BatchSize = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", metavar="RATE", help="The optimizer's learning rate.", show_default=False),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Of the training images, held out and read after each epoch.", show_default=False
        ),
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="RUN", help="New folder to keep the run in.", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
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
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Parts of a batch, which decide the result whoever computes them. If left out: the run's, or the "
            "number of ranks that mpiexec starts.",
            show_default=False,
        ),
    ] = None,
    sync_batchnorm: Annotated[
        bool | None,
        typer.Option(
            "--sync-batchnorm/--no-sync-batchnorm",
            help="Whether batch-norm takes the statistics of the whole batch instead of each shard's, which is slower. "
            "If left out: the run's, no for a new one.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds after which a rank that does not answer ends the others.")
    ] = 300.0,
) -> None:
    """Train by a recipe; print the accuracy on the test images.

    mpiexec -n 2 twinkernels train ... has two processes share the work.
    """
    given: dict[str, Any] = {
        "recipe": recipe,
        "backend": backend,
        "precision": precision,
        "seed": seed,
        "epochs": epochs,
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "validation": validation,
        "checkpoint_steps": checkpoint_steps,
        "checkpoint_seconds": checkpoint_seconds,
        "shards": shards,
        "sync_batchnorm": sync_batchnorm,
    }
    with ranks.joined(time_limit) as communicator:
        _train(given, source, threads, out, resume, communicator)


def _train(
    given: dict[str, Any],
    source: str | None,
    threads: int | None,
    out: Path | None,
    resume: Path | None,
    communicator: Communicator,
) -> None:
    """What `train` does on one rank; the first one speaks."""
    ranks.agree(communicator, given | {"source": source, "out": out, "resume": resume} | versions())
    if out is not None and resume is not None and out.absolute() != resume.absolute():
        raise ValueError(f"--out {out} and --resume {resume} name two runs, expected one")
    if source is None:
        kept = resume  # for those who look into the folder on rank 0 alone
        source = "strokes" if kept is None else communicator.first(lambda: runs.own_data(kept))
    speaks = communicator.rank == 0
    with contextlib.closing(terminal.TrainingProgress(source, shown=speaks)) as progress:
        callbacks = [progress] if speaks else []
        if communicator.size > 1 and (warning := ranks.share_cores(communicator, threads)) and speaks:
            _complain(warning)
        if resume is not None:
            with _interruptible(resume):
                outcome = runs.resume(
                    resume, source, threads=threads, callbacks=callbacks, communicator=communicator, **given
                )
            if speaks and not progress.began:
                terminal.say(f"{resume} has ended, nothing to resume")
            out = resume
        else:
            if given["recipe"] is None:
                raise ValueError("Missing argument 'RECIPE': a name that `twinkernels list` shows")
            if communicator.size == 1:
                _set_threads(threads)
            options = {name: value for name, value in given.items() if value is not None}
            with _interruptible(out):
                outcome = runs.run(
                    options.pop("recipe"), source, out=out, callbacks=callbacks, communicator=communicator, **options
                )
    if not speaks:
        return
    terminal.say(f"test loss {outcome.test.loss:.4f} on {source}")
    terminal.say(f"kept in {out}" if out else "model not kept: --out RUN keeps it")
    print(f"test accuracy {outcome.test.accuracy:.4f}")


@app.command()
def evaluate(
    model: Model,
    backend: Backend = None,
    precision: Precision = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="strokes|mnist|PATH",
            help="As for train; or a CSV or IDX file, or a folder with a folder of pictures for each label. If left "
            "out: the run's, strokes for a model that lies in none.",
            show_default=False,
        ),
    ] = None,
    pixels: Pixels = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Also the share of labels among the K likeliest.", show_default=False),
    ] = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Also a table of labels (rows) and answers (columns).")
    ] = False,
    threads: Threads = None,
) -> None:
    """Print a model's loss and accuracy on the test images, or on labelled images of your own."""
    _set_threads(threads)
    network = _load(model, backend, precision)
    source = runs.own_data(model) if source is None else source
    images, labels = inputs.labelled(network, source)
    if takes := foreign.set_pixels(network, _is_ours(model), pixels, lambda: inputs.training(network, source)):
        print(f"pixels taken as {takes}: --pixels says otherwise", file=sys.stderr)
    tested = foreign.logits(network).evaluate(images, labels)
    if confusion:
        names = [name_of(network, label) for label in range(tested.confusion.shape[0])]
        rows = [(name, *map(str, row)) for name, row in zip(names, tested.confusion.tolist(), strict=True)]
        terminal.print_table(("label", *names), rows, right=tuple(names))
    terminal.say(f"test loss {tested.loss:.4f} on {source}")
    if top is not None:
        terminal.say(f"test top-{top} accuracy {tested.top(top):.4f}")
    print(f"test accuracy {tested.accuracy:.4f}")


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            parser=expanded, metavar="IMAGE...", help="PNG, JPEG, IDX or CSV files, or folders of pictures."
        ),
    ],
    backend: Backend = None,
    precision: Precision = None,
    pixels: Pixels = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            metavar="FILE",
            help="Write the answers as Kaggle takes them, ImageId,Label, in place of the lines.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
) -> None:
    """Print a line for each image: file, class, probability; tabs between.

    Of several, those that cannot be read are named on standard error, and the status is 1.
    """
    _set_threads(threads)
    network = _load(model, backend, precision)
    inputs.size(network)
    answers: list[np.ndarray] = []
    if takes := foreign.set_pixels(network, _is_ours(model), pixels):
        print(f"pixels taken as {takes}: --pixels says otherwise", file=sys.stderr)
    bad = False
    for path in images:
        try:
            files = pictures_in(path) if path.is_dir() else [path]
        except OSError as error:
            if len(images) == 1:
                raise
            files, bad = [], _complain(error)
        read = []
        for file in files:
            try:
                read.append(inputs.images(network, file))
            except (data.DataFormatError, OSError) as error:
                if len(images) == len(files) == 1 or submission is not None:
                    raise
                bad = _complain(error)
        if read:
            names = [name for part, _ in read for name in part]
            together = np.concatenate([part for _, part in read])
            shares = probabilities(network, together)
            answers.append(shares.argmax(axis=1))
            if submission is not None:
                continue
            for name, row in zip(names, shares, strict=True):
                terminal.say(name, name_of(network, int(row.argmax())), f"{row.max():.4f}", sep="\t")
    if submission is not None:
        whole = np.concatenate(answers)
        write_atomically(submission, inputs.submission(whole))
        terminal.say(f"{len(whole):,} answers in {submission}")
    if bad:
        raise typer.Exit(1)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(parser=expanded, metavar="FILE", help="A model's file, such as net.onnx.")],
) -> None:
    """Show what a network's file holds, node by node, what of it can run here, and what not and why.

    The status is 1 where not all of it can.
    """
    from models.exchange import inspection

    found = inspection.inspect(runs.model_file(file))
    print("\n".join(found.head))
    if found.rows:
        terminal.print_table(inspection.HEADINGS, found.rows, wrapped=("becomes", "why not"))
    for reason in found.reasons:
        _complain(reason)
    if not found.runs:
        raise typer.Exit(1)


@app.command()
def draw(
    model: Annotated[
        Path | None,
        typer.Argument(
            parser=expanded, metavar="MODEL", help="A model, or a run; the one that ships with it if left out."
        ),
    ] = None,
    backend: Backend = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes any that is free.")] = 8028,
    pixels: Pixels = None,
    threads: Threads = 1,  # one image is little to share
) -> None:
    """Serve a page on which you draw a digit and watch a network read it."""
    try:
        from .draw import server
    except ImportError:
        raise ValueError("draw needs starlette and uvicorn: pip install 'twinkernels[draw]'") from None
    from .draw import SHIPPED, Reader

    _set_threads(threads)
    with server.listen(port) as listener:
        path = runs.model_file(model or SHIPPED)
        network = _load(path, backend)
        if takes := foreign.set_pixels(network, _is_ours(path), pixels):
            print(f"pixels taken as {takes}: --pixels says otherwise", file=sys.stderr)
        reader = Reader(network)
        print(f"http://{server.HOST}:{listener.getsockname()[1]}/ is open for drawing; Ctrl-C ends", flush=True)
        server.build(reader, listener, server.describe(path, reader)).run(sockets=[listener])


@app.command("profile")
def profile_step(
    subject: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN|MODEL", help="A recipe's name, the folder of a run, or a model's file.")
    ],
    precision: Precision = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    threads: Threads = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Every column and every step, as where the listing goes into a file.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, metavar="PICTURE", help="Where the picture goes; profile-NAME.png here if left out."
        ),
    ] = None,
    beginning: Annotated[
        bool,
        typer.Option(
            "--start", help="Instead: what a fresh process waits for, without compiled kernels and with them."
        ),
    ] = False,
) -> None:
    """Time a training step kernel by kernel, NumPy against Numba; print it and draw it."""
    _set_threads(threads)
    if beginning:
        print(start.measure(subject, batch_size))
        return
    if out is not None:
        plots.figure_class()  # what was asked for must not fail after the measuring
    measured = profile.profile(subject, batch_size, seed=seed or 0, precision=precision)
    print(measured.listing(None if wide else terminal.width()))
    path = out or Path(f"profile-{measured.name}.png")
    try:
        figure = measured.figure()
    except ValueError as error:
        terminal.say(f"no picture: {error}")
        return
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=path.suffix[1:] or None)
    write_atomically(path, content.getvalue())
    terminal.say(f"picture in {path}")


@app.command("compile")
def compile_kernels(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE|RUN|MODEL]...", help="What will be trained, or read with.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recipes.")] = False,
    pack: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="All recipes, in both dtypes, for processors of this level, such as x86-64-v3: a pack for a wheel.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="FOLDER", help="Where the pack goes: FOLDER/LEVEL.", show_default=False),
    ] = None,
    threads: Threads = None,
) -> None:
    """Compile kernels before anybody waits for them; they are kept for every later start on this machine."""
    if (pack is None) != (out is None):
        raise ValueError("--pack LEVEL and --out FOLDER belong together")
    if bool(subjects) + everything + bool(pack) != 1:
        raise ValueError("compile takes recipes, runs or models, or --all, or --pack LEVEL --out FOLDER")
    _set_threads(threads)
    with terminal.compiling() as told:
        if pack is not None and out is not None:
            count = precompile.write_pack(pack, out)
            terminal.say(f"{count} files in {out / pack}")
            return
        names = list(recipes.RECIPES) if everything else subjects or []
        precompile.compile_recipes(recipes.RECIPES[name] for name in names if name in recipes.RECIPES)
        precompile.compile_models(_load(expanded(name), "numba") for name in names if name not in recipes.RECIPES)
    if not told:
        print("nothing to compile: all kernels are there")


@app.command("report")
def report_run(
    run: Annotated[Path, typer.Argument(parser=expanded, metavar="RUN", help="A folder that train --out made.")],
    source: Data = None,
    backend: Backend = None,
    threads: Threads = None,
    profiled: Annotated[
        bool, typer.Option("--profile/--no-profile", help="Measure the training step by layer, on both backends.")
    ] = True,
    out: Page = None,
) -> None:
    """Show a run as one page: curves, network, answers, mistakes, filters, and where the time goes.

    It goes to RUN/report.html unless told.
    """
    _set_threads(threads)
    kept = runs.read_run(run, backend)
    path = run / "report.html" if out is None else out
    check_target(path)
    write_atomically(path, report.report(kept, source, profiled).encode())
    terminal.say(f"report in {path}")


@app.command("explore")
def explore_data(
    dataset: Annotated[
        str, typer.Argument(metavar="strokes|mnist|PATH", help="A name, or a folder of IDX or CSV files.")
    ],
    out: Page = None,
) -> None:
    """Show a data set: print its figures, and make a page of samples, class counts and mean images.

    It goes to explore-NAME.html in this folder unless told.
    """
    if out is not None:
        check_target(out)
    loaded = data.load(dataset)
    print(explore.summary(loaded))
    name = Path(dataset).resolve().name
    path = out or Path(f"explore-{name}.html")
    try:
        check_target(path)
    except ValueError as error:
        terminal.say(f"no page: {error}")
        return
    write_atomically(path, explore.explore(loaded, name).encode())
    terminal.say(f"page in {path}")


@app.command("convert")
def convert_data(
    source: Annotated[
        str, typer.Argument(metavar="strokes|mnist|PATH", help="A name, or a file or folder that train takes.")
    ],
    target: Annotated[Path, typer.Argument(parser=expanded, metavar="TARGET", help="A new folder, or NAME.npz.")],
    form: Annotated[
        str | None,
        typer.Option("--to", metavar="|".join(FORMS), help="By TARGET's end if left out, or idx.", show_default=False),
    ] = None,
) -> None:
    """Write a data set in another form: IDX, CSV, Keras' .npz, or a folder of PNG for each class."""
    loaded = data.load(source)
    if loaded.note:
        _complain(loaded.note)
    written = data.save(loaded, target, form)
    terminal.say(f"{len(loaded.train.labels):,} and {len(loaded.test.labels):,} images in {written}")


@app.command(
    "study",
    help="Study the factors of a training: each one's effect, and its spread over seeds.\n\n"
    f"A training takes {DEFAULTS['epochs']} epochs of {DEFAULTS['images']:,} images in batches of "
    f"{DEFAULTS['batch_size']} unless told. It ends when all is done. After Ctrl-C or a crash, the same command "
    "goes on; any number of processes may share a storage.",
)
def study_factors(
    source: Data = None,
    backend: Backend = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A factor to study, instead of all; may be repeated.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of every training.")] = SEEDS,
    epochs: Epochs = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images of a training.", show_default=False)] = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    trials: Annotated[
        int | None,
        typer.Option(min=0, help="Trainings after which to end; 0 writes what there is.", show_default=False),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Optuna's: a file in SQLite, or postgresql://, mysql:// or journal:///PATH for many machines; "
            "OUT/study.db if left out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(parser=expanded, metavar="FOLDER", help="For table and pictures.")] = Path(
        "study"
    ),
) -> None:
    load_optuna()
    plots.figure_class()
    _set_threads(threads)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, expected a folder")
    with contextlib.closing(terminal.StudyProgress()) as progress:
        findings = study.run(
            out / "study.db" if storage is None else storage,
            source,
            factors=factor or None,
            seeds=seeds,
            most=trials,
            backend=backend,
            epochs=epochs,
            images=images,
            batch_size=batch_size,
            watch=progress,
        )
    terminal.print_table(page.HEADINGS, page.rows(findings.effects), right=page.HEADINGS[3:5], wrapped=("factor",))
    written = page.write(findings, out)
    terminal.say(f"{len(findings.outcomes):,} of {findings.total:,} trainings; table and pictures in {written}")


File = Annotated[
    Path, typer.Argument(parser=expanded, metavar="FILE", help="A Python file of twins and cases: docs/bench.md.")
]
Cases = Annotated[
    list[str] | None,
    typer.Option("--cases", metavar="TEXT", help="Only cases whose id has this in it.", show_default=False),
]


@app.command("check")
def check_file(
    file: File,
    cases: Cases = None,
    threads: Threads = None,
) -> None:
    """Check kernels of your own: is each twin equal to its definition, in whatever its file says that it takes?

    The status is 1 where one is not.
    """
    from .bench import checks, declare, timing

    chosen = _chosen(declare.read(file), cases)
    if threads is not None:
        timing.set_threads(threads)
    held = failed = missing = 0
    for checked in checks.check(chosen):
        terminal.say_lines(str(checked))
        missing += bool(checked.missing)
        failed += bool(checked.faults)
        held += not (checked.missing or checked.faults)
    print(f"{held} of {held + failed} hold" + (f", {missing} left out" if missing else ""))
    if failed:
        raise typer.Exit(1)


@app.command("bench")
def bench_file(
    file: File,
    cases: Cases = None,
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=9, help="Of a case, each with a sample of every contestant.")] = 30,
    seconds: Annotated[float, typer.Option(min=0, help="That the rounds of a case may take.")] = 5.0,
    seed: Seed = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", parser=expanded, metavar="JSON", help="Keep all figures there.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="PICTURE", help="Draw them: .png or .svg.", show_default=False),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|REV",
            help="Compare with figures that were kept, or with a git revision of the file, timed beside it.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep each twin's speed-up beside FILE as its floor on this kind of CPU.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Race every twin against its floor; the status is 1 where one falls short.")
    ] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Race every twin against itself N times.", show_default=False),
    ] = None,
) -> None:
    """Time kernels of your own side by side: speed-ups with their intervals, shares of the machine's limit, errors.

    The status is 1 where one is wrong, or slower than --against or --gate allow.
    """
    from .bench import declare, running, timing

    if bool(record) + bool(gate) + (calibrate is not None) > 1:
        raise ValueError("--record, --gate and --calibrate are three, expected one of them")
    if (record or gate or calibrate) and (json_file or picture or against):
        raise ValueError("--json, --picture and --against belong to figures, not to --record, --gate or --calibrate")
    if picture is not None:
        plots.figure_class()
    chosen = _chosen([case for case in declare.read(file) if not case.sizes], cases)
    timing.settle(threads or kernels.get_threads())
    if record or gate or calibrate:
        passed = running.race(file, chosen, rounds, record, calibrate)
    else:
        passed = running.show(file, chosen, rounds, seconds, seed or 0, json_file, picture, against)
    if not passed:
        raise typer.Exit(1)


def _chosen(cases: Sequence[Case], texts: Sequence[str] | None) -> list[Case]:
    """Those whose id has one of the texts."""
    chosen = [case for case in cases if not texts or any(text in case.id for text in texts)]
    if not chosen:
        raise ValueError(f"no case has {' or '.join(texts)} in its id" if texts else "no case to be timed")
    return chosen


def _message(error: Exception) -> str:
    """What goes wrong with a file, or with anything else, in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _complain(error: Exception | str) -> bool:
    """Print a line on standard error; True."""
    text = error if isinstance(error, str) else _message(error)
    print("twinkernels:", harmless(" ".join(text.split())), file=sys.stderr)
    return True


@contextlib.contextmanager
def _interruptible(out: Path | None) -> Iterator[None]:
    """Have Ctrl-C say how a run that is kept goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted" + (runs.how_to_go_on(out) if out else "")) from None


def _is_ours(path: Path) -> bool:
    return kind_of(runs.model_file(path)) == SAFETENSORS


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        kernels.set_threads(threads)


def _load(path: Path, backend: str | None, precision: str | None = None) -> Graph:
    """The model of a run or in a file, on any backend; in the run's precision unless told."""
    if backend is not None:
        kernels.get(backend)  # so that a mistake here is not blamed on the file
    file = runs.model_file(path)
    return load(file, backend, precision=runs.own_precision(path) if precision is None else precision)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, or 2 after a user's mistake and 130 after Ctrl-C, each with one line on stderr; 1
    where predict could not read all of its images, not all of what inspect looks at can run, or check or bench found
    something.

    The library answers a mistake with a ValueError or an OSError that names it, so these are the user's here; so
    are a training whose numbers are no longer finite and a size that memory does not hold.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    status, message = _outcome(given or ["--help"])
    try:
        sys.stdout.flush()
    except OSError as error:
        streams.discard()
        status, message = (BROKEN_PIPE, "") if isinstance(error, BrokenPipeError) else (2, _message(error))
    if message:
        with contextlib.suppress(OSError):
            _complain(message)
    ranks.end(status)
    sys.exit(status)


@functools.cache
def _command() -> Any:
    """All commands with their options, which typer takes 50 ms to read from their signatures."""
    return typer.main.get_command(app)


def _outcome(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command; its status, and what is to be said of it."""
    try:
        command = _command()
        # Not by its own `main`, which knows no status but 1 for a broken pipe, and none of our messages for Ctrl-C.
        with command.make_context("twinkernels", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code, ""
    except ranks.Silent as ended:
        return ended.status, ""
    except SystemExit:  # how rich says that nobody reads what it prints
        return BROKEN_PIPE, ""
    except typer.TyperException as error:
        return 2, error.format_message()
    except BrokenPipeError as error:
        return (BROKEN_PIPE, "") if error.filename == streams.STDOUT else (2, _message(error))
    except OSError as error:
        return 2, _message(error)
    except (ValueError, NonFiniteError, MemoryError) as error:
        return 2, str(error) or "out of memory"
    except KeyboardInterrupt as interrupt:
        return 130, str(interrupt) or "interrupted"
    return 0, ""
