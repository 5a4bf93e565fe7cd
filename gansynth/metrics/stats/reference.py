"""Student's t with estimated degrees of freedom, for a mean over few repetitions.

Satterthwaite 1946, "An approximate distribution of estimates of variance components". With three
draws its error rate is 0.1 to 7.5 % instead of 5 %. Two constants correct it, found by integrating
over mean squares on a grid of true variances (docs/statistics.md):

- ``FLOOR``: only the part of a mean square above the residual's adds uncertainty.
- ``CAUTION``: a mean square of few degrees of freedom may be small by chance.
"""

from __future__ import annotations

import numpy as np

from gansynth.metrics.stats.anova import MeanSquares
from gansynth.metrics.stats.runs import Floats

FLOOR = 0.85
CAUTION, CAUTION_POWER = 0.45, 2.5
MOST = 1e6  # degrees of freedom that count as infinite
LEAST_P = 1e-12  # smallest p


def degrees(squares: MeanSquares, level: float | Floats) -> Floats:
    """Degrees of freedom (...) of the standard error, for a two-sided test at a level (...)."""
    cross, total = squares.cross, squares.total
    safe = np.where(total > 0, total, 1.0)
    spread = np.zeros_like(safe)
    for square, count in ((squares.run, squares.runs - 1), (squares.case, squares.cases - 1)):
        if count:
            whole = np.maximum(square, cross)
            others = 1 - (whole - cross / 2) / safe
            doubt = 1 + CAUTION / level / count**CAUTION_POWER * others
            spread = spread + (whole**2 - FLOOR * cross**2) * doubt / count
    both = (squares.runs - 1) * (squares.cases - 1)
    if both:
        spread = spread + cross**2 / both
    return np.clip(safe**2 / np.where(spread > 0, spread, safe**2), 1.0, MOST)


def p_of(t: Floats, squares: MeanSquares) -> Floats:
    """Two-sided p of t values (...): the smallest level at which a test rejects."""
    from scipy.special import stdtr

    size = np.abs(t)
    low, high = np.full(np.shape(t), np.log(LEAST_P)), np.zeros(np.shape(t))
    for _ in range(36):
        middle = (low + high) / 2
        level = np.exp(middle)
        rejects = 2 * stdtr(degrees(squares, level), -size) <= level
        low, high = np.where(rejects, low, middle), np.where(rejects, middle, high)
    return np.exp(high)


def quantile(squares: MeanSquares, level: float) -> Floats:
    """Critical value (...): |t| exceeds it with probability ``level``."""
    from scipy.special import stdtrit

    return np.asarray(-stdtrit(degrees(squares, level), level / 2))
