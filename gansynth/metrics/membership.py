"""Membership inference: can an attacker tell who was trained on from who was not?

*By distance* to samples (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935, full black box), or *by the
discriminator* (LOGAN, Hayes et al. 2019, arXiv:1705.07663), which takes the run's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gansynth.metrics.estimate import LEVEL, Floats

FEWEST = 3
"""People on each side below which an attack is not judged."""


@dataclass(frozen=True)
class Attack:
    """How well an attack, ``distance`` or ``discriminator``, tells members from others.

    ``auc``: chance that a member looks more like one than another person does, with its 95 %
    interval. ``p``: one-sided (Mann & Whitney).
    """

    attack: str
    what: str
    auc: float
    low: float
    high: float
    p: float
    members: int
    others: int

    def to_json(self) -> dict[str, Any]:
        """A JSON document."""
        numbers = {k: round(getattr(self, k), 5) for k in ("auc", "low", "high", "p")}
        return {**vars(self), **numbers}


def attack_by(name: str, what: str, members: Sequence[float], others: Sequence[float]) -> Attack:
    """Judge an attack by its scores, one a person; higher for whom it takes to be a member."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(members, others, alternative="greater")
    auc = float(found.statistic) / (len(members) * len(others))
    low, high = auc_interval(auc, len(members), len(others))
    return Attack(name, what, auc, low, high, float(found.pvalue), len(members), len(others))


def auc_interval(auc: float, first: int, second: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of an AUC that holds for few people, and at 0 and 1; ``level`` of them may miss.

    Newcombe 2006 (Stat. Med. 25:559), method 5: the areas no further away than their own standard
    error (Hanley & McNeil 1982) times the normal quantile.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    away = -float(ndtri(level / 2))
    more = (first + second) / 2 - 1

    def error(area: float) -> float:
        spread = 1 + more * (1 - area) / (2 - area) + more * area / (1 + area)
        return math.sqrt(area * (1 - area) * spread / (first * second))

    def off(area: float) -> float:
        return abs(auc - area) - away * error(area)

    def end(other: float) -> float:
        if auc == other:
            return other
        # At both ends of the way the error is 0; a little inside, it is larger than the distance
        # at the one and smaller at the other.
        near, far = auc + 1e-6 * (other - auc), other + 1e-9 * (auc - other)
        return float(brentq(off, near, far)) if off(near) < 0 < off(far) else other

    return end(0.0), end(1.0)


def by_person(scores: Floats, people: Sequence[str]) -> dict[str, float]:
    """Person -> the highest score of his or her cases."""
    found: dict[str, float] = {}
    for score, person in zip(scores.tolist(), people, strict=True):
        found[person] = max(score, found.get(person, -math.inf))
    return found
