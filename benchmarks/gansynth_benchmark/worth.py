"""A gain in units of real cases: how many more of them would have had the same effect?

The learning curve of real cases alone is linear in log N between the means at its sizes. An arm at
size n is worth N* - n cases, where the curve reaches its mean at N*. The interval holds the sizes
at which the arm does not differ from the curve (Fieller 1954), by the test of ``compare``. Nothing
is extrapolated: a limit beyond the curve is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from gansynth.metrics.statistics import EXACT, REPETITIONS, Floats, MeanSquares, RunValues
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

MAX_SIZE_RATIO = 2.5
"""Beyond this ratio of neighbouring sizes the curve bends too much for a straight line."""
STEPS = 512  # sizes at which arm and curve are compared; limits are interpolated between them


@dataclass(frozen=True)
class WorthInCases(Document):
    """The value of an arm in real cases."""

    n: int
    cases: float | None  # number of additional cases; None where the curve cannot tell
    low: float | None  # lower confidence limit; None: the curve starts too late
    high: float | None  # upper confidence limit; None: the curve ends too early
    reason: str | None  # why `cases` or a limit is None or doubtful; None: no reason
    # `above` or `below` where the arm's mean is beyond the curve. `low` or `high` then still holds
    # what the curve can tell.
    beyond: Literal["above", "below"] | None
    smallest: int
    largest: int  # size at which it ends
    rise: float | None  # improvement from its start to its end, in units of the measure
    rise_p: float | None  # two-sided p of the hypothesis that this is 0; None: too few runs
    repetitions: int
    subjects: int
    dropped: int


def worth(
    curve: Mapping[int, RunValues],
    arm: RunValues,
    n: int,
    *,
    better: Literal["higher", "lower"] = "higher",
    confidence: float = 0.95,
) -> WorthInCases:
    """Value of an arm in extra real cases, by a curve: number of cases -> one measure."""
    _check(curve, n, better, confidence)
    sizes = sorted(curve)
    each, dropped = shared_tables([arm] + [curve[size] for size in sizes])
    tables = np.stack(each) if better == "higher" else -np.stack(each)
    fit = _LearningCurve(np.array(sizes), tables[1:], tables[0], 1 - confidence)
    empty = not tables.size
    rise = None if empty else float(tables[-1].mean() - tables[1].mean())
    rise_p = None if empty else fit.rise_p()
    size, beyond = (None, None) if empty else fit.reached()
    low, high = (None, None) if rise is None or rise <= 0 else fit.limits()
    return WorthInCases(
        n=n,
        cases=_beyond(n, size),
        low=_beyond(n, low),
        high=_beyond(n, high),
        reason=_reason(sizes, rise, rise_p, beyond, (low, high), confidence),
        beyond=beyond,
        smallest=sizes[0],
        largest=sizes[-1],
        rise=rise,
        rise_p=rise_p,
        repetitions=tables.shape[1],
        subjects=tables.shape[2],
        dropped=dropped,
    )


@dataclass(frozen=True)
class _LearningCurve:
    """Tables (sizes, repetitions, subjects) of the curve and (repetitions, subjects) of the arm."""

    sizes: Floats
    tables: Floats
    arm: Floats
    level: float

    def reached(self) -> tuple[float | None, Literal["above", "below"] | None]:
        """The size at which the curve, made monotone, reaches the arm's mean."""
        heights, goal = _monotone(self.tables.mean(axis=(1, 2))), float(self.arm.mean())
        if heights[0] >= heights[-1]:
            return None, None
        for end in heights[[0, -1]]:
            goal = float(end) if np.isclose(goal, end, rtol=EXACT, atol=0) else goal
        if not heights[0] <= goal <= heights[-1]:
            return None, "below" if goal < heights[0] else "above"
        logs = np.log(self.sizes)
        rises = [(a, b) for a, b in pairwise(range(len(logs))) if heights[b] > heights[a]]
        [(a, b), *_] = [(a, b) for a, b in rises if goal <= heights[b]]
        share = (goal - heights[a]) / (heights[b] - heights[a])
        return float(np.exp(logs[a] + max(share, 0.0) * (logs[b] - logs[a]))), None

    def limits(self) -> tuple[float | None, float | None]:
        """Smallest and largest size at which the arm does not differ; None: no such limit."""
        if len(self.arm) < REPETITIONS or self.arm.shape[1] < 2:
            return None, None
        knots = np.log(self.sizes)
        logs = np.linspace(knots[0], knots[-1], STEPS)
        over = self._over(logs)
        inside = np.flatnonzero(np.abs(over) <= 1)
        if not inside.size:
            if over[-1] > 1:
                return float(self.sizes[-1]), None
            if over[0] < -1:
                return None, float(self.sizes[0])
            inside = np.flatnonzero(over[:-1] * over[1:] < 0)
        first, last = inside[0], inside[-1]
        before, after = slice(first - 1, first + 1), slice(last, last + 2)
        low = None if first == 0 else _crossing(logs[before], over[before], 1)
        high = None if last == STEPS - 1 else _crossing(logs[after], over[after], -1)
        return low, high

    def rise_p(self) -> float | None:
        """Two-sided p of the hypothesis that the curve's end equals its start."""
        if len(self.arm) < REPETITIONS or self.arm.shape[1] < 2:
            return None
        difference = self.tables[-1] - self.tables[0]
        return float(MeanSquares.of(difference, np.abs(self.tables).max()).p())

    def _over(self, logs: Floats) -> Floats:
        """Arm - curve at sizes, over the significant difference: beyond +-1 it is significant."""
        knots, units = np.log(self.sizes), np.eye(len(self.sizes))
        weights = np.stack([np.interp(logs, knots, unit) for unit in units], axis=-1)
        squares = MeanSquares.of(self.arm - np.tensordot(weights, self.tables, 1))
        least = EXACT * np.abs(self.tables).max()
        return np.asarray(squares.mean / np.maximum(squares.reach(self.level), least))


def _beyond(n: int, size: float | None) -> float | None:
    """How many cases more than n; the same on every processor, whose logarithms differ."""
    return None if size is None else round(size - n, 9)


def _crossing(logs: Floats, over: Floats, height: float) -> float:
    """Size between two sizes at which ``over`` takes a value."""
    share = (height - over[0]) / (over[1] - over[0]) if over[0] != over[1] else 0.5
    return float(np.exp(logs[0] + np.clip(share, 0, 1) * (logs[1] - logs[0])))


def _monotone(heights: Floats) -> Floats:
    """Isotonic regression: decreasing neighbours are averaged."""
    from sklearn.isotonic import isotonic_regression

    return np.asarray(isotonic_regression(heights), np.float64)


def shared_tables(runs: Sequence[RunValues]) -> tuple[list[Floats], int]:
    """Return tables of shared repetitions and subjects, and the number of excluded subjects."""
    shared, named = list(runs[0].subjects), set(runs[0].subjects)
    for part in runs[1:]:
        shared = [name for name in shared if name in part.subjects]
        named.update(part.subjects)
    draws, keys = list(dict.fromkeys(runs[0].draws)), list(runs[0].keys)
    for part in runs[1:]:
        draws = [draw for draw in draws if draw in part.draws]
        keys = [key for key in keys if key in part.keys]
    chosen = []
    for part in runs:
        own_keys = [key for draw in draws for key in part.keys if key[0] == draw]
        chosen.append(part.chosen(own_keys if len(draws) > 1 else keys, shared))
    whole = ~np.any([np.isnan(part.values).any(axis=0) for part in chosen], axis=0)
    tables = [part.table()[:, whole] for part in chosen]
    return tables, len(named) - int(whole.sum())


def _reason(
    sizes: Sequence[int],
    rise: float | None,
    rise_p: float | None,
    beyond: str | None,
    limits: tuple[float | None, float | None],
    confidence: float,
) -> str | None:
    ends = f"from N = {sizes[0]} to N = {sizes[-1]}"
    if rise is None:
        return "no run and test subject that all sizes and the arm have"
    if rise <= 0:
        return f"training on real cases alone does not get better {ends}"
    reasons = []
    if beyond == "above":
        reasons.append(f"beyond the curve, which ends at N = {sizes[-1]}")
    elif beyond == "below":
        reasons.append(f"below the curve, which begins at N = {sizes[0]}")
    if rise_p is None:
        return "; ".join([*reasons, "no limits: too few runs or test subjects"])
    if rise_p > 1 - confidence:
        reasons.append(f"that real cases help {ends} is not shown (p = {rise_p:.2g})")
    steps = [b / a for a, b in pairwise(sizes)]
    if max(steps) > MAX_SIZE_RATIO:
        reasons.append("sizes lie far apart, so that more cases come out than it takes")
    low, high = limits
    if low is None and beyond != "below":
        reasons.append(f"no lower limit, the curve begins at N = {sizes[0]}")
    if high is None and beyond != "above":
        reasons.append(f"no upper limit, the curve ends at N = {sizes[-1]}")
    return "; ".join(reasons) or None


def _check(curve: Mapping[int, RunValues], n: int, better: str, confidence: float) -> None:
    if len(curve) < 2:
        raise UsageFault(
            "benchmark.worth-curve-too-short",
            f"worth: a curve of {len(curve)} size(s), expected at least two sizes N",
        )
    for size in (*curve, n):
        if size < 1:
            raise UsageFault(
                "benchmark.worth-size-below-one", f"worth: size is {size}, expected at least 1 case"
            )
    if better not in ("higher", "lower"):
        raise UsageFault(
            "benchmark.worth-better-unknown",
            f"worth: better is {better!r}, expected 'higher' or 'lower'",
        )
    if not 0.5 <= confidence < 1:
        raise UsageFault(
            "benchmark.worth-confidence-out-of-range",
            f"worth: confidence is {confidence}, expected at least 0.5 and below 1",
        )
