"""Does a generator memorise training subjects? Distances to subjects, and membership inference.

Samples are compared with training subjects and as many held-out ones. A near-copy is below half the
usual distance of its nearest training case. It must *also* be much closer to it than to the next
subject, as hardly any real image is. This excludes blurred images, which are close to everybody.
Attacks use distances to samples (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935, full black box), or
the discriminator (LOGAN, Hayes et al. 2019, arXiv:1705.07663), in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.metrics.estimate import LEVEL, Floats, Indices, drawn_anew, median_estimate, numbered

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MARGIN = 0.05  # share of real images whose margin is as small as that of a copy


@dataclass(frozen=True)
class SubjectDistances:
    """Distances (N, subjects) to the nearest case of each subject; infinite for an image's own."""

    distances: Floats
    names: Sequence[str]

    @classmethod
    def of(
        cls, table: Floats, people: Sequence[str], own_people: Sequence[str | None] = ()
    ) -> SubjectDistances:
        """Reduce distances to cases (N, cases); ``own_people``: subjects to ignore."""
        names = sorted(set(people))
        where = {name: n for n, name in enumerate(names)}
        nearest = np.full((len(table), len(names)), np.inf)
        for column, person in zip(table.T, people, strict=True):
            at = where[person]
            nearest[:, at] = np.minimum(nearest[:, at], column)
        for row, mine in enumerate(own_people):
            if mine in where:
                nearest[row, where[mine]] = np.inf
        return cls(nearest, names)

    def nearest(self, people: Indices | None = None) -> Floats:
        """Distance of each image to the nearest of some subjects; of all if None."""
        chosen = self.distances if people is None else self.distances[:, people]
        return np.asarray(chosen.min(axis=1))


def quantiles(distances: Floats) -> list[float | None]:
    """Quantiles at ``QUANTILES``; None if there are no finite values."""
    finite = distances[np.isfinite(distances)]
    if not finite.size:
        return [None] * len(QUANTILES)
    return [round(float(q), 5) for q in np.quantile(finite, QUANTILES)]


def ratio_of_medians(
    mine: Floats, real: Floats, of: Sequence[str], people: Sequence[str], rng: np.random.Generator
) -> dict[str, float | None]:
    """Ratio of the medians of two sets of distances, (N,) and (M,), with a 95 % interval."""
    if not np.isfinite(mine).any() or not np.isfinite(real).any():
        return {"value": None, "low": None, "high": None}
    drawn = [_median(mine, of, rng) / _median(real, people, rng) for _ in range(500)]
    low, high = median_estimate(drawn)
    value = float(np.median(mine) / max(float(np.median(real)), 1e-9))
    return {"value": value, "low": low, "high": high}


def _median(values: Floats, owners: Sequence[str], rng: np.random.Generator) -> float:
    """Bootstrap median of values by owner; never 0."""
    weights = drawn_anew(numbered(owners), rng)
    return max(float(np.median(np.repeat(values, weights))), 1e-9)


@dataclass(frozen=True)
class NearCopies:
    """Near-copies among samples: number -> nearest case, ratio, whether it is the sample's own
    case.

    ``threshold``: largest ratio, halved for the sample's own case. ``margin``: largest quotient of
    the distances to the copied and to the next subject.
    """

    pairs: Mapping[int, tuple[str, float, bool]]
    of: int
    threshold: float
    margin: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; it names training cases."""
        return {
            "count": len(self.pairs),
            "of": self.of,
            "threshold": self.threshold,
            "margin": round(self.margin, 4),
            "pairs": [
                {"sample": sample, "case": case, "ratio": round(ratio, 4), "own": own_case}
                for sample, (case, ratio, own_case) in sorted(self.pairs.items())
            ],
        }


def least_margin(real: Floats) -> float:
    """The margin that all but ``MARGIN`` of real images have, at most 0.9."""
    finite = real[np.isfinite(real)]
    return min(0.9, float(np.quantile(finite, MARGIN))) if finite.size else 0.9


FEWEST = 3  # fewest subjects on each side for which an attack is evaluated


@dataclass(frozen=True)
class MembershipAttack:
    """How well an attack, ``distance`` or ``discriminator``, distinguishes members from others.

    ``auc``: probability that a member scores higher than another subject, with its 95 % interval.
    ``p``: two-sided. Below 0.05 the interval excludes 0.5, and only then: both are one test.
    """

    attack: str
    what: str
    auc: float
    low: float
    high: float
    p: float
    members: int
    others: int

    @property
    def succeeds(self) -> bool:
        """Whether it identifies members better than chance: the interval lies above 0.5."""
        return self.low > 0.5

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        numbers = {k: round(getattr(self, k), 5) for k in ("auc", "low", "high", "p")}
        return {**vars(self), **numbers, "succeeds": self.succeeds}


def attack_by(
    name: str, text: str, members: Sequence[float], others: Sequence[float]
) -> MembershipAttack:
    """Evaluate an attack by its scores, one for each subject; higher means a member."""
    from scipy.special import ndtr
    from scipy.stats import mannwhitneyu

    sizes = len(members), len(others)
    auc = float(mannwhitneyu(members, others).statistic) / (sizes[0] * sizes[1])
    low, high = auc_interval(auc, *sizes)
    p = 2 * float(ndtr(-abs(auc - 0.5) / _auc_error(0.5, *sizes)))
    return MembershipAttack(name, text, auc, low, high, p, *sizes)


def _auc_error(area: float, first: int, second: int) -> float:
    """Standard error of an area (Hanley & McNeil 1982); that of ranks at 0.5."""
    mean_others = (first + second) / 2 - 1
    spread = 1 + mean_others * (1 - area) / (2 - area) + mean_others * area / (1 + area)
    return math.sqrt(area * (1 - area) * spread / (first * second))


def auc_interval(auc: float, first: int, second: int) -> tuple[float, float]:
    """Interval of an AUC, valid for few subjects and at 0 and 1; ``LEVEL`` of them may miss.

    Newcombe 2006 (Stat. Med. 25:559), method 5. It holds the areas within their own standard error
    times the normal quantile.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    away = -float(ndtri(LEVEL / 2))

    def off(area: float) -> float:
        return abs(auc - area) - away * _auc_error(area, first, second)

    def end(bound: float) -> float:
        if auc == bound:
            return bound
        # The error is 0 at both ends. A little inside, it is larger than the distance at one end
        # and smaller at the other.
        near, far = auc + 1e-6 * (bound - auc), bound + 1e-9 * (auc - bound)
        return float(brentq(off, near, far)) if off(near) < 0 < off(far) else bound

    return end(0.0), end(1.0)


def nearest_by_subject(scores: Floats, people: Sequence[str]) -> dict[str, float]:
    """Subject -> the highest score of its cases."""
    best: dict[str, float] = {}
    for score, person in zip(scores.tolist(), people, strict=True):
        best[person] = max(score, best.get(person, -math.inf))
    return best
