"""Pictures of a training: loss and accuracy, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.graph import Evaluation
from models.history import History
from models.rates import LearningRates
from models.schedules import Schedule

from .style import BLUE, FAINT, GREEN, ORANGE, WIDTH, blank, picture, ticker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@picture
def curves(
    history: History,
    test: Evaluation | None = None,
    names: Sequence[str] = ("loss", "accuracy"),
    size: tuple[float, float] = (WIDTH, 3.2),
) -> Figure:
    """Loss and accuracy by epoch, on the images trained on and, where there are some, on those held out.

    The training figures are means over an epoch's batches, taken while the weights still change, so the first of
    them are worse than what the epoch ends with. test: what came out on the test images in the end, a diamond.
    names: which of the two to draw. size: inches. Raises ValueError for a history without epochs.
    """
    if not history.epochs:
        raise ValueError("curves: history has no epochs")
    epochs = history.epoch
    figure = blank(*size)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        title = name.capitalize()
        lines = {"training": getattr(history, name)}
        held_out = getattr(history, f"validation_{name}")
        if any(value is not None for value in held_out):
            lines["validation"] = held_out
        if test is not None:
            lines["test"] = [math.nan] * (len(epochs) - 1) + [getattr(test, name)]
        lines = {key: np.array(values, float) for key, values in lines.items()}
        everything = np.concatenate(list(lines.values()))
        everything = everything[np.isfinite(everything)]
        if name == "loss" and everything.size and everything.min() > 0 and everything.max() > 10 * everything.min():
            title += ", logarithmic"
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(ticker().LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(ticker().NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        line = "o-" if len(epochs) <= 30 else "-"
        looks = {"training": (BLUE, line), "validation": (ORANGE, line), "test": (GREEN, "D")}
        for at, (key, values) in enumerate(lines.items()):
            colour, look = looks[key]
            axes.plot(epochs, values, look, color=colour, clip_on=False, zorder=3)
            end = values[np.isfinite(values)][-1:]
            axes.annotate(
                f"{key}\n{end[0]:.4f}" if end.size else key,
                (at / 3, 1),
                (0, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                color=colour,
                va="bottom",
            )
        axes.set_title(title, pad=32)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(ticker().MaxNLocator(integer=True))
        axes.margins(x=0.03 if len(epochs) > 1 else 0.5)
        axes.grid(axis="y")
    return figure


@picture
def learning_rate(
    schedule: Schedule,
    peak: float,
    steps_per_epoch: int,
    total_steps: int,
    size: tuple[float, float] = (WIDTH, 2.0),
) -> Figure:
    """The learning rate of every step: the optimizer's own, `peak`, times the schedule's factor. size: inches."""
    steps = np.unique(np.linspace(0, total_steps - 1, min(total_steps, 1000)).astype(int))
    rates = [peak * schedule(int(step), steps_per_epoch, total_steps) for step in steps]
    figure = blank(*size)
    axes = figure.subplots()
    axes.plot(steps, rates, color=BLUE, solid_capstyle="round")
    axes.fill_between(steps, rates, color=BLUE, alpha=0.12, linewidth=0)
    highest = int(np.argmax(rates))
    axes.annotate(
        f"{rates[highest]:.3g}",
        (steps[highest], rates[highest]),
        (0, 4),
        textcoords="offset points",
        ha="left" if highest == 0 else "center",
        color=BLUE,
    )
    axes.set(title="Learning rate", xlabel="step", ylim=(0, 1.2 * max(rates) or 1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(ticker().MaxNLocator(4 if size[0] < 5 else 8))
    axes.yaxis.set_major_locator(ticker().MaxNLocator(3))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.01)
    axes.grid(axis="y")
    return figure


@picture
def rate_finder(found: LearningRates) -> Figure:
    """What `models.find_learning_rate` has seen: the loss at each rate, its moving average, and the suggestion."""
    figure = blank(WIDTH / 2, 3.2)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, ".", color=FAINT)
    axes.plot(found.rates, found.smoothed, "-", color=BLUE)
    axes.axvline(found.suggestion, color=ORANGE, linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0.9 * found.smoothed.min(), 1.1 * max(found.smoothed[0], found.smoothed.min()))
    axes.set_title(f"Loss by learning rate; {found.suggestion:.2g} is suggested")
    return figure
