"""Inference from answers: exact intervals, several raters, agreement, power.

One rater's accuracy has Clopper and Pearson's interval (1934), which is never too narrow. It is
wider than necessary here, because equal numbers of each kind are shown. The variance of two
binomials of different shares is below that of one with their mean.

Several raters see the same images, so their answers to one image are not independent. Their common
accuracy has Korn and Graubard's interval (1998, "Confidence intervals for proportions with small
expected number of positive counts estimated from survey data"). It is Clopper and Pearson's for the
effective number of answers. That number follows from the variance of the mean over images. It
includes raters if other raters are meant (Cameron, Gelbach and Miller 2011, two-way clustering). It
never exceeds the number of answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
POWER = 0.8
LEAST_RATERS = 3  # fewest raters for an inference about other raters
Floats = npt.NDArray[np.float64]
Answers = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Proportion:
    """A share with its exact interval."""

    value: float | None  # correct / answers; None without answers
    low: float  # of the 95 % interval
    high: float  # likewise
    p: float  # two-sided, of the hypothesis that the true share is a half
    worth: float


def proportion_of(correct: float, answers: float) -> Proportion:
    """A share of independent answers; numbers need not be whole (Korn and Graubard)."""
    from scipy.special import betainc, betaincinv

    if answers <= 0:
        return Proportion(None, 0.0, 1.0, 1.0, 0.0)
    wrong, tail = answers - correct, (1 - CONFIDENCE) / 2
    low = float(betaincinv(correct, wrong + 1, tail)) if correct > 0 else 0.0
    high = float(betaincinv(correct + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    fewer = min(correct, wrong)  # two-sided: P(at most so few) of a fair coin, doubled
    p = min(1.0, 2 * float(betainc(answers - fewer, fewer + 1, 0.5)))
    return Proportion(correct / answers, low, high, p, answers)


def pooled_proportion(correct: Answers, *, others: bool = False) -> Proportion:
    """The common share of several raters who answered the same images.

    Args:
        correct: bool (raters, images).
        others: whether it generalises to other raters; it always does to other images.
    """
    from scipy.stats import t

    raters, images = correct.shape
    value, cells = float(correct.mean()), correct.size
    freedom = min(raters, images) - 1 if others else images - 1
    if freedom < 1:
        return proportion_of(value, 1)
    away: Floats = correct.astype(np.float64) - value
    simple = value * (1 - value) / cells
    if simple == 0:  # all equal: all answers to an image, or of a rater, count as one
        worth = float(min(raters, images) if others else images)
    else:
        spread = _variance(away, others)
        stretched = (t.ppf((1 + CONFIDENCE) / 2, cells - 1) / _t(freedom)) ** 2
        worth = cells * min(1.0, simple / spread if spread > 0 else 1.0) * float(stretched)
    share = proportion_of(value * worth, worth)
    return Proportion(value, share.low, share.high, share.p, worth)


def _variance(away: Floats, others: bool) -> float:
    """Variance of the mean, over images and, with ``others``, raters."""
    raters, images = away.shape
    of_images = (away.sum(axis=0) ** 2).sum() * images / (images - 1)
    if not others:
        return float(of_images / away.size**2)
    of_raters = (away.sum(axis=1) ** 2).sum() * raters / (raters - 1)
    both = of_images + of_raters - (away**2).sum()
    return float(max(both, of_images, of_raters) / away.size**2)


def _t(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def fleiss_kappa(counts: npt.ArrayLike) -> float | None:
    """Agreement beyond chance of several raters (Fleiss 1971); None if all answers are equal.

    Args:
        counts: (items, categories), how many raters chose which; each item has as many raters.
    """
    table = np.asarray(counts, np.float64)
    raters = table[0].sum()
    chance = float(((table.sum(axis=0) / table.sum()) ** 2).sum())
    if raters < 2 or chance == 1:
        return None
    agreed = ((table**2).sum(axis=1) - raters) / (raters * (raters - 1))
    return (float(agreed.mean()) - chance) / (1 - chance)


def cohen_kappa(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Agreement beyond chance of two raters' answers (Cohen 1960); None if all are equal."""
    from sklearn.metrics import cohen_kappa_score

    answers = np.array([first, second])
    return None if (answers == answers[0, 0]).all() else float(cohen_kappa_score(*answers))


@cache
def power_of(answers: int, truth: float) -> float:
    """Power of a test of so many answers, with a true accuracy, against a half at 5 %."""
    from scipy.stats import binom

    counts = np.arange(answers + 1)
    fewer = np.minimum(counts, answers - counts)
    significant = 2 * binom.cdf(fewer, answers, 0.5) <= 1 - CONFIDENCE
    return float(binom.pmf(counts, answers, truth)[significant].sum())


@cache
def detectable(answers: int) -> float | None:
    """The smallest accuracy above a half, in whole per cent, detected with 80 % power."""
    for percent in range(51, 101):
        if power_of(answers, percent / 100) >= POWER:
            return percent / 100
    return None


def median(values: Sequence[float | None]) -> float | None:
    """Median of the known values."""
    defined = [value for value in values if value is not None]
    return float(np.median(defined)) if defined else None
