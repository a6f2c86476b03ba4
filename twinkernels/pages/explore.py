"""Explore: a data set as one self-contained page, with samples, class counts and mean images."""

from __future__ import annotations

import numpy as np

import data
from data import Dataset
from models.plan import table

from .. import plots
from . import html as page


def summary(dataset: Dataset) -> str:
    """A table: how many images of each class either split holds, their size, and their pixels' statistics."""
    splits = dataset._asdict()
    rows = [("class", *splits)]
    for label in np.unique(np.concatenate([split.labels for split in dataset])):
        name = str(label) if dataset.classes is None else dataset.classes[label]
        rows.append((name, *(f"{np.count_nonzero(split.labels == label):,}" for split in dataset)))
    rows.append(("all", *(f"{len(split.labels):,}" for split in dataset)))
    rows.append(("size", *(" x ".join(map(str, split.images.shape[1:])) for split in dataset)))
    figures = [data.statistics(split) for split in dataset]
    rows.append(("mean", *(f"{mean:.2f}" for mean, _ in figures)))
    rows.append(("std", *(f"{std:.2f}" for _, std in figures)))
    return table(rows, right=(1, 2))


def explore(dataset: Dataset, name: str) -> str:
    """The page."""
    train, test = dataset
    mean, std = data.statistics(train)
    classes = len(np.unique(np.concatenate([train.labels, test.labels])))
    facts = {
        "training images": f"{len(train.labels):,}",
        "test images": f"{len(test.labels):,}",
        "classes": f"{classes}",
        "pixels": " × ".join(map(str, train.images.shape[1:3])),
        "mean and standard deviation of a pixel": f"{mean:.1f} ± {std:.1f}",
    }
    sections = [
        page.section(
            "Samples",
            page.picture(plots.samples(*train), "The first training images of each class."),
        ),
        page.section(
            "Classes",
            page.panels(
                [plots.class_counts({"training": train.labels}), plots.class_counts({"test": test.labels})],
                "Images of each class. The dashed line is where all classes would have the same number.",
                least=320,
            ),
        ),
        page.section(
            "Means",
            page.picture(
                plots.mean_images(*train),
                "The mean of each class's training images, and the standard deviation of each pixel within the class, "
                "on one scale: strong where its images differ.",
            ),
        ),
    ]
    return page.page(name, "A data set of small images, as training sees it.", facts, sections)
