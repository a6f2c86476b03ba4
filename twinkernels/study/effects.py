"""Effects: what each level of a factor does to the accuracy, and its spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .factors import Factor, Level
from .trials import Outcome, Trial

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Effect(NamedTuple):
    """What a level does, over the seeds that are done with it.

    rates: the learning rate of each seed, chosen by the mean accuracy of the other seeds, so that no figure has picked
    itself. accuracies: with them. differences: the accuracies less those of the factor's first level, seed by seed:
    both train on the same images, in the same order.
    """

    factor: str
    level: str
    is_reference: bool
    tried: tuple[float, ...]
    rates: tuple[float, ...]
    accuracies: tuple[float, ...]
    differences: tuple[float, ...]
    diverged: int

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval of the mean difference, by Student's t; infinite for one seed."""
        return interval(self.differences)

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval leaves out zero."""
        mean = statistics.fmean(self.differences)
        return "unclear" if abs(mean) <= self.interval else "better" if mean > 0 else "worse"

    @property
    def at_edge(self) -> bool:
        """Whether the rate chosen most often is the lowest or the highest tried: the best may lie beyond."""
        return len(self.tried) > 1 and statistics.mode(self.rates) in (self.tried[0], self.tried[-1])


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean, t s / √n by Student's t; infinite for one value."""
    if len(values) < 2:
        return math.inf
    quantile = _STUDENT[len(values) - 2] if len(values) - 2 < len(_STUDENT) else 2.0
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def effects(factors: Sequence[Factor], outcomes: Mapping[Trial, Outcome]) -> list[Effect]:
    """The effect of every level that has a seed with all its trials done, as the level it is compared with has."""
    found = []
    for factor in factors:
        reference: dict[int, tuple[float, float]] = {}
        for name, level in factor.levels.items():
            chosen = _chosen(level, outcomes)
            reference = reference or chosen
            seeds = sorted(chosen.keys() & reference.keys())
            if seeds:
                at = [chosen[seed] for seed in seeds]
                ran = [Trial(level.setup, rate, seed) for seed, (rate, _) in zip(seeds, at, strict=True)]
                found.append(
                    Effect(
                        factor.name,
                        name,
                        chosen is reference,
                        level.rates,
                        tuple(rate for rate, _ in at),
                        tuple(accuracy for _, accuracy in at),
                        tuple(chosen[seed][1] - reference[seed][1] for seed in seeds),
                        sum(outcomes[trial].diverged for trial in ran),
                    )
                )
    return found


def _chosen(level: Level, outcomes: Mapping[Trial, Outcome]) -> dict[int, tuple[float, float]]:
    """By seed the learning rate that the other seeds choose, and the accuracy with it. The lower of two equals."""
    by_seed: dict[int, dict[float, float]] = {}
    for (setup, rate, seed), outcome in outcomes.items():
        if setup == level.setup and rate in level.rates:
            by_seed.setdefault(seed, {})[rate] = outcome.accuracy
    done = {seed: rates for seed, rates in by_seed.items() if len(rates) == len(level.rates)}
    chosen = {}
    for seed, own in done.items():
        others = [rates for other, rates in done.items() if other != seed] or [own]
        rate = max(level.rates, key=lambda rate: statistics.fmean(rates[rate] for rates in others))
        chosen[seed] = rate, own[rate]
    return chosen
