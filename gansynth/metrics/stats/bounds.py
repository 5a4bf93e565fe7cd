"""Intervals of bounded means, such as a Dice between 0 and 1 or a distance above 0.

They are formed on an unbounded scale (logit, logarithm) by the delta method, and transformed back
(Korn & Graubard 1998, Survey Methodology 24:193). For many runs they are nearly symmetric.
"""

from __future__ import annotations

import math

Ends = tuple[float | None, float | None]

ANY = (-math.inf, math.inf)
FAR = 20.0  # an upper limit beyond this multiple of the mean, above a bound, is uninformative
STEEP = 700.0  # larger scores overflow; they count as the bound


def within(middle: float, low: float, high: float, bounds: tuple[float, float]) -> Ends:
    """Bring the ends of an interval within bounds (least, most; infinite for none).

    A mean on a bound, where all values agree, has that bound. Both are None if uninformative.
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
