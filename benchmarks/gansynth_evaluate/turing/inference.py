"""Inference from answers: exact intervals, several raters, agreement.

One rater's accuracy has Clopper and Pearson's interval (1934), which is never too narrow. It is
wider than necessary here, because equal numbers of each kind are shown. The variance of two
binomials of different shares is below that of one with their mean.

Several raters see the same images, so their answers to one image are not independent. Their common
accuracy has Korn and Graubard's interval (1998, "Confidence intervals for proportions with small
expected number of positive counts estimated from survey data"). It is Clopper and Pearson's for the
effective number of answers. That number follows from the variance of the mean over images, and
never exceeds the number of answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
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


def pooled_proportion(correct: Answers) -> Proportion:
    """The common share of several raters who answered the same images.

    It generalises to other images, not to other raters. ``correct``: bool (raters, images).
    """
    from scipy.stats import t

    raters, images = correct.shape
    value, cells = float(correct.mean()), correct.size
    if images < 2:
        return proportion_of(value, 1)
    simple = value * (1 - value) / cells
    if simple == 0:  # all equal: all answers to an image count as one
        worth = float(images)
    else:
        of_images = (correct.sum(axis=0) - raters * value) ** 2
        spread = float(of_images.sum()) * images / (images - 1) / cells**2
        tail = (1 + CONFIDENCE) / 2
        stretched = float(t.ppf(tail, cells - 1) / t.ppf(tail, images - 1)) ** 2
        worth = cells * min(1.0, simple / spread if spread > 0 else 1.0) * stretched
    share = proportion_of(value * worth, worth)
    return Proportion(value, share.low, share.high, share.p, worth)


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
