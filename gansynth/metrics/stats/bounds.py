"""Intervals of means that have bounds, such as a Dice between 0 and 1 or a distance above 0.

A symmetric interval of few runs reaches beyond what is possible. So it is formed on a scale without
ends and taken back: by the logit between two bounds, by the logarithm above one, with the standard
error of the delta method (Korn & Graubard 1998, Survey Methodology 24:193, for proportions). Of
many runs it is nearly the symmetric one; of too few it is the whole range, or there is none.
"""

from __future__ import annotations

import math

Ends = tuple[float | None, float | None]

ANY = (-math.inf, math.inf)
FAR = 20.0
"""Times the mean, above a bound: an upper limit beyond that says nothing."""
STEEP = 700.0
"""Scores beyond are as good as a bound, and overflow."""


def within(middle: float, low: float, high: float, bounds: tuple[float, float]) -> Ends:
    """The ends of an interval, brought within bounds.

    ``high``: upper end likewise. ``bounds``: least and most that a mean can be; infinite for none.
    Returns both ends; of a mean on a bound, where all values agree, that bound. None for both if
    they say nothing.
    """
    least, most = bounds
    if not math.isfinite(least):
        return low, high
    if not least < middle < most:
        return (low, high) if least <= low and high <= most else (None, None)
    above = middle - least
    if math.isinf(most):
        scores = [(end - middle) / above for end in (low, high)]
        if scores[1] > math.log(FAR):
            return None, None
        return least + above * math.exp(scores[0]), least + above * math.exp(scores[1])
    share = above / (most - least)
    score, slope = math.log(share / (1 - share)), 1 / (above * (1 - share))
    scores = [score + slope * (end - middle) for end in (low, high)]
    ends = [least + (most - least) / (1 + math.exp(min(-x, STEEP))) for x in scores]
    return ends[0], ends[1]
