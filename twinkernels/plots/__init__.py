"""Pictures: of a training, a network and its answers, a data set, a training step's time and a study.

Every function returns a `matplotlib.figure.Figure` of its own, so a notebook shows it and `figure.savefig(path)` keeps
it. They need matplotlib, which is loaded when the first picture is drawn: pip install 'twinkernels[plots]'.

Colours tell apart for every kind of colour vision, and lines are labelled where they end.
"""

from ..classify import confusion_matrix, mistakes
from .answers import confusion, predictions
from .contestants import contestants
from .dataset import class_counts, mean_images, samples
from .networks import convolution, first_linear, network, until, weights
from .speed import layer_times, step_times
from .study import factors, learning_rates
from .style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, SKY, STYLE, WIDTH, YELLOW, figure_class
from .training import curves, learning_rate, rate_finder

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "INK",
    "MUTED",
    "ORANGE",
    "PAPER",
    "PURPLE",
    "SKY",
    "STYLE",
    "WIDTH",
    "YELLOW",
    "class_counts",
    "confusion",
    "confusion_matrix",
    "contestants",
    "convolution",
    "curves",
    "factors",
    "figure_class",
    "first_linear",
    "layer_times",
    "learning_rate",
    "learning_rates",
    "mean_images",
    "mistakes",
    "network",
    "predictions",
    "rate_finder",
    "samples",
    "step_times",
    "until",
    "weights",
]
