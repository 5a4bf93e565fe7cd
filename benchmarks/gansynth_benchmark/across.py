"""Several data sets together: the mean effect, and what a new set of their kind may expect.

Random effects: each set has its own true effect. Their spread is estimated by Paule and Mandel
1982, the interval of the mean is that of Hartung and Knapp 2001 and Sidik and Jonkman 2002, never
narrower than without their correction, and the prediction interval that of Higgins, Thompson and
Spiegelhalter 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gansynth.metrics.statistics import LEVEL, Floats

SETS = 5  # of fewer, a prediction says little more than the range of what is possible
STEPS = 200  # halvings of the range of the spread


@dataclass(frozen=True)
class ExpectedEffect:
    """The effect over sets. None where there are too few: of an interval, or a prediction.

    Attributes:
        mean: of the true effects of such sets; None without a set.
        low, high, p: 95 % interval of the mean, and p of a mean of 0.
        spread: standard deviation of the sets' true effects.
        next_low, next_high: where the effect on a further set lies, 95 %.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    spread: float | None
    next_low: float | None
    next_high: float | None

    def to_json(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)


def expected_effect(
    effects: Sequence[float], errors: Sequence[float], most: float = math.inf
) -> ExpectedEffect:
    """Return the effect over sets of which each has an effect and its standard error.

    Two sets give an interval, ``SETS`` a prediction. Both end at an effect of ``most``, the largest
    one that is possible, of either sign.
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(effects, np.float64)
    variances = np.square(np.maximum(errors, 1e-12))
    count = len(values)
    if count < 2:
        mean = float(values[0]) if count else None
        return ExpectedEffect(mean, None, None, None, None, None, None)
    between = _between(values, variances)
    weights = 1 / (variances + between)
    mean = float((weights * values).sum() / weights.sum())
    excess = float((weights * (values - mean) ** 2).sum() / (count - 1))
    error = math.sqrt(max(excess, 1.0) / weights.sum())
    reach = float(-stdtrit(count - 1, LEVEL / 2)) * error
    p = float(2 * stdtr(count - 1, -abs(mean) / error))
    next_low = next_high = None
    if count >= SETS:
        farther = float(-stdtrit(count - 2, LEVEL / 2)) * math.sqrt(between + error**2)
        next_low, next_high = max(mean - farther, -most), min(mean + farther, most)
    low, high = max(mean - reach, -most), min(mean + reach, most)
    return ExpectedEffect(mean, low, high, p, math.sqrt(between), next_low, next_high)


def _between(values: Floats, variances: Floats) -> float:
    """Variance of the sets' true effects: with it, the weighted squares are as many as expected."""

    def squares(between: float) -> float:
        weights = 1 / (variances + between)
        mean = (weights * values).sum() / weights.sum()
        return float((weights * (values - mean) ** 2).sum())

    expected = len(values) - 1
    if squares(0.0) <= expected:
        return 0.0
    low, high = 0.0, float(np.square(np.ptp(values))) + float(variances.max())
    while squares(high) > expected:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        if squares(middle) > expected:
            low = middle
        else:
            high = middle
    return (low + high) / 2
