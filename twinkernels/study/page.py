"""What a study has come to, as a table, a page of Markdown, and pictures."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import write_atomically

from .. import plots
from .effects import Effect
from .factors import FACTORS, Setup
from .runner import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADINGS = ("factor", "level", "learning rate", "accuracy, %", "difference, points", "which is", "published")

_METHOD = """\
One part of a training is changed at a time, and the accuracy compared with the baseline's. The baseline is `cnn-bn`:
two blocks of 5x5 convolution, batch-norm, ReLU and max-pool; He's initialisation, Adam, a one-cycle schedule, no weight
decay, no augmentation, no smoothing. Every training takes {epochs} of {images:,} images in batches of
{batch_size}, on the {backend} backend. Data: {data}. Accuracy is that on a sixth of the training images, which is set
aside; no test image has a say.

Each line stands for {seeds}. A seed decides what is set aside, the images trained on, the first weights and the
order, the same for all levels, so that differences are taken seed by seed. *Accuracy* is the mean and standard
deviation over seeds, *difference* the mean difference from the factor's first level and half its 95 % interval
(Student's t); a level is better or worse where that leaves out zero.

Every level has the learning rate that suits it, out of five: a seed's rate is the one with which the other seeds are
best. † marks a choice at the end of what was tried; the best may lie beyond. *Published* is what the program that
`cnn-bn` answers to reported. Its smoothing was in the loss alone and not in the gradient, which trains as none does;
its augmentation flipped digits.
"""

_CAPTIONS = {
    "factors": "Error by level: a dot for each seed, a bar at the mean; blue: better than the first, orange: worse",
    "rates": "Error of each optimizer by learning rate: mean and range over seeds",
}


def rows(found: Sequence[Effect]) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each level; a factor's name stands in its first."""
    cells: list[tuple[str, ...]] = []
    for effect in found:
        several = len(effect.accuracies) > 1
        accuracy = f"{100 * statistics.fmean(effect.accuracies):.2f}"
        difference = f"{100 * statistics.fmean(effect.differences):+.2f}".replace("-", "−")
        if several:
            accuracy += f" ± {100 * statistics.stdev(effect.accuracies):.2f}"
            difference += f" ± {100 * effect.interval:.2f}"
        verdict = effect.verdict
        if effect.is_reference:
            difference, verdict = "", "compared with"
        if effect.diverged:
            verdict += f"; diverged {effect.diverged} of {len(effect.rates)} times"
        low, high = min(effect.rates), max(effect.rates)
        rate = (f"{low:g}" if low == high else f"{low:g} to {high:g}") + (" †" if effect.at_edge else "")
        first, published = (effect.factor, FACTORS[effect.factor].published) if effect.is_reference else ("", "")
        cells.append((first, effect.level, rate, accuracy, difference, verdict, published))
    return cells


def markdown(findings: Findings, pictures: Mapping[str, str]) -> str:
    """The findings as a page of Markdown. pictures: their files by what they show."""
    counts = sorted({len(effect.accuracies) for effect in findings.effects})
    seeds = f"{' or '.join(map(str, counts)) or 'no'} seed{'' if counts == [1] else 's'}"
    epochs = findings.options["epochs"]
    options = {**findings.options, "epochs": f"{epochs} epoch{'' if epochs == 1 else 's'}"}
    lines = ["# What each factor does", ""]
    lines += ["Written by `twinkernels study`, with its pictures.", ""]
    if len(findings.outcomes) < findings.total:
        lines += [f"**Not complete**: {len(findings.outcomes):,} of {findings.total:,} trainings.", ""]
    lines += [_METHOD.format(**options, seeds=seeds)]
    lines += [f"![{_CAPTIONS[name]}]({file})\n" for name, file in pictures.items() if name == "factors"]
    lines += ["| " + " | ".join(HEADINGS) + " |", "| --- | --- | --- | ---: | ---: | --- | --- |"]
    for first, *others in rows(findings.effects):
        lines.append("| " + " | ".join([f"**{first}**" if first else "", *others]) + " |")
    lines += [f"\n![{_CAPTIONS[name]}]({file})" for name, file in pictures.items() if name != "factors"]
    return "\n".join(lines) + "\n"


def pictures(findings: Findings) -> dict[str, Figure]:
    """Figures by what they show: the factors, and the optimizers' learning rates where these were a factor."""
    levels: dict[str, dict[str, list[float]]] = {}
    for effect in findings.effects:
        levels.setdefault(effect.factor, {})[effect.level] = [1 - accuracy for accuracy in effect.accuracies]
    differing = {(effect.factor, effect.level) for effect in findings.effects if effect.verdict != "unclear"}
    drawn = {"factors": plots.factors(levels, differing)} if levels else {}
    curves = {}
    for factor in findings.factors:
        if factor.name == "optimizer":
            for name, level in factor.levels.items():
                points = {rate: _errors(findings, level.setup, rate) for rate in level.rates}
                if all(points.values()):
                    curves[name] = points
    if curves:
        drawn["rates"] = plots.learning_rates(curves)
    return drawn


def _errors(findings: Findings, setup: Setup, rate: float) -> list[float]:
    return [1 - outcome.accuracy for trial, outcome in findings.outcomes.items() if trial[:2] == (setup, rate)]


def write(findings: Findings, folder: Path) -> Path:
    """Write study.md and its pictures, study-factors.png and study-rates.png, into a folder; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, figure in pictures(findings).items():
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
        files[name] = f"study-{name}.png"
        write_atomically(folder / files[name], content.getvalue())
    page = folder / "study.md"
    write_atomically(page, markdown(findings, files).encode())
    return page
