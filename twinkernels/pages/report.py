"""Report: a kept run as one self-contained page, with its curves, its network, its answers and its mistakes."""

from __future__ import annotations

import math

import numpy as np

import data
from models.graph import Evaluation, Graph
from models.layers import Conv2d
from models.losses import SoftmaxCrossEntropy
from models.schedules import Schedule

from .. import plots, profile, recipes
from ..classify import mistakes
from ..runs import Run
from . import html as page

SHOWN = 24


def report(run: Run, source: str | None = None, profiled: bool = True) -> str:
    """The page. source: the data to test on, in place of the run's own. profiled: measure the training step too.

    Raises ValueError where the model is no classifier of these images, and what `data.load` raises.
    """
    model, options = run.model, run.options
    source = options.data if source is None else source
    if source is None:
        raise ValueError(f"{run.path} was trained on arrays given from Python; name the images to test on with --data")
    if len(model.output_shape) != 2:
        raise ValueError(f"report: the model's output is {model.output_shape}, expected (N, classes)")
    images, labels = data.load(source).test
    model.check_images(images, "test images")
    logits = model.predict(images)
    labels = SoftmaxCrossEntropy().check(labels, len(images), model.output_shape)
    answers = logits.argmax(axis=1)
    wrong = int(np.count_nonzero(answers != labels))
    loss = options.recipe.loss.value(
        model.kernels, logits, options.recipe.loss.check(labels, len(images), model.output_shape)
    )
    test = Evaluation(loss, 1 - wrong / len(labels))
    last = run.history.epochs[-1]
    seconds = sum(epoch.seconds for epoch in run.history.epochs)
    facts = {
        "test accuracy": f"{test.accuracy:.2%}",
        f"of {len(labels):,} test images read wrongly": f"{wrong:,}",
        "parameters": f"{sum(array.size for array in model.parameters().values()):,}",
        f"steps of {options.recipe.batch_size} images": f"{last.step:,}",
        "of training": _duration(seconds),
    }
    sections = [
        _training(run, test),
        _network(run),
        _answers(images, logits, labels),
        _inside(model, images[0]),
    ]
    if profiled:
        sections.append(speed(run))
    trained_on = options.data or "arrays given from Python"
    tested = "and tested" if source == options.data else f"on {trained_on} and tested"
    lead = f"Trained {tested} on {source}, with the {options.backend} backend."
    return page.page(f"{options.recipe.name} on {source}", lead, facts, [part for part in sections if part])


def _training(run: Run, test: Evaluation) -> str:
    held_out = any(value is not None for value in run.history.validation_loss)
    parts = [
        "Training: means over an epoch's batches, taken while the weights still changed.",
        "Validation: after each epoch, on images never trained on." if held_out else "",
        "Test, the diamond: in the end. The learning rate is the optimizer's at each step.",
    ]
    size = (3.4, 3.0)
    figures = [plots.curves(run.history, test, [name], size) for name in ("loss", "accuracy")]
    recipe, steps = run.options.recipe, (run.steps_per_epoch, run.total_steps)
    figures.append(plots.learning_rate(recipe.schedule, recipe.optimizer.learning_rate, *steps, size))
    return page.section("Training", page.panels(figures, " ".join(filter(None, parts)), least=280))


def _network(run: Run) -> str:
    options, recipe = run.options, run.options.recipe
    rows: dict[str, object] = {
        "optimizer": recipe.optimizer,
        "schedule": "constant" if type(recipe.schedule) is Schedule else recipe.schedule,
        "loss": recipe.loss,
        "batch size": recipe.batch_size,
        "length": recipe.length,
        "held out": f"{recipe.validation:.0%} of the training images" if recipe.validation else "nothing",
        "seed": options.seed,
        "data": options.data or "given from Python",
        "backend": f"{options.backend}, {options.threads} threads",
        "versions": ", ".join(f"{name} {version}" for name, version in options.versions.items()),
    }
    drawn = page.picture(
        plots.network(run.model), "Each layer with its name, the shape that it gives on, and its parameters.", True
    )
    return page.section("Network", page.beside(drawn, page.table(rows)))


def _answers(images: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> str:
    first, classes, answers = slice(0, SHOWN), logits.shape[1], logits.argmax(axis=1)
    bars = "bars are the logits, all on one scale; the percentage is the probability of the answer"
    parts = [
        _read(
            images[first],
            logits[first],
            labels[first],
            f"The first test images: {bars}. The answer's bar is blue, or orange where it is wrong.",
        ),
        page.beside(
            page.picture(
                plots.confusion(labels, answers, classes),
                "What the test images are (rows) and what they are read as (columns). The shades weigh mistakes alone.",
                natural=True,
            ),
            page.table(
                {f"{truth} read as {answer}": f"{count:,}" for truth, answer, count in _commonest(labels, answers)}
            ),
        ),
    ]
    worst = mistakes(logits, labels, SHOWN)
    if worst.size:
        caption = (
            "The worst mistakes, the least probable truth first. Orange is the answer, the other strong bar the truth."
        )
        parts.append(_read(images[worst], logits[worst], labels[worst], caption))
    else:
        parts.append(page.paragraph("Not one test image is read wrongly."))
    return page.section("Answers", *parts)


def _read(images: np.ndarray, logits: np.ndarray, labels: np.ndarray, caption: str) -> str:
    """Predictions in two panels, of which a narrow page shows one below the other."""
    across, span = 3, (float(logits.min()), float(logits.max()))
    half = across * math.ceil(len(images) / 2 / across)
    halves = [slice(0, half), slice(half, None)] if len(images) > half else [slice(None)]
    figures = [plots.predictions(images[part], logits[part], labels[part], across, span) for part in halves]
    return page.panels(figures, caption, least=340)


def _commonest(labels: np.ndarray, answers: np.ndarray, most: int = 12) -> list[tuple[int, int, int]]:
    """The mistakes made most often, as (truth, answer, count)."""
    pairs, counts = np.unique(np.stack([labels, answers])[:, labels != answers], axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[0, at]), int(pairs[1, at]), int(counts[at])) for at in order]


def _inside(model: Graph, image: np.ndarray) -> str:
    signs = "Blue is negative, orange positive"
    parts = []
    for node in model.nodes:
        if isinstance(node.layer, Conv2d):
            caption = (
                f"Convolution {node.name}, {node.layer}: its responses to the first test image, before "
                f"normalisation and activation, and its filters. {signs}."
            )
            parts.append(page.picture(plots.convolution(model, node.name, image), caption))
    if plots.first_linear(model) is not None:
        caption = f"The first layer's weights as images, the units of the largest norms first. {signs}."
        parts.append(page.picture(plots.weights(model), caption))
    return page.section("Inside", *parts) if parts else ""


def speed(run: Run) -> str:
    """Where the time of the run's training step goes, on both backends: measured here and now."""
    name, size = run.options.recipe.name, run.options.recipe.batch_size
    if name not in recipes.RECIPES:
        return page.section(
            "Speed", page.paragraph(f"Not measured: {name} is none of the recipes that come with this package.")
        )
    measured = profile.profile(name, size)
    caption = (
        f"A training step of {size} images by layer, with Numba on {measured.threads} threads of the machine that made "
        f"this page: {measured.whole['numba'] * 1e3:,.1f} ms, with NumPy {measured.whole['numpy'] * 1e3:,.1f} ms. "
        "The mark is how long the machine needs for the layer's arithmetic at its peak, or for copying as many bytes, "
        "whichever is longer. A layer can be faster, above 100 % of this limit, where its arrays are still in a nearer "
        "cache than the copy's. The last column is how much longer NumPy takes."
    )
    return page.section("Speed", page.picture(plots.layer_times(measured), caption))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
