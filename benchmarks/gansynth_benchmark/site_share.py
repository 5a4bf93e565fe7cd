"""What share of the gap between sites an arm closes.

0 is the control, trained at other sites; 1 is an arm trained on as many labelled subjects of the
site that is evaluated. The interval holds the shares s at which arm - (1 - s) control - s target
does not differ from 0 (Fieller 1954), by the test of ``compare``: over training subsets and test
subjects alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gansynth.metrics.statistics import LEVEL, REPETITIONS, MeanSquares, RunValues
from gansynth.runtime.serialise import Document
from gansynth_benchmark.worth import shared_tables

LOWEST, HIGHEST, STEPS = -4.0, 5.0, 1801  # shares that are tried


@dataclass(frozen=True)
class ShareOfGap(Document):
    """How much of the gap an arm closes."""

    share: float | None  # None where no gap is shown
    low: float | None  # lower confidence limit; None: none within reach
    high: float | None
    gap: float | None  # target's labels - control, in units of the measure
    gap_p: float | None  # two-sided p of the hypothesis that this is 0; None: too few runs
    reason: str | None  # why there is no share, or no limit


def share_of_gap(
    arm: RunValues,
    control: RunValues,
    target: RunValues,
    *,
    better: str = "higher",
) -> ShareOfGap:
    """Return the share of the gap between control and target that an arm closes."""
    each, _ = shared_tables([arm, control, target])
    ours, source, best = np.stack(each) if better == "higher" else -np.stack(each)
    if not ours.size:
        return ShareOfGap(None, None, None, None, None, "no run and subject that all three have")
    gap = float((best - source).mean())
    if len(ours) < REPETITIONS or ours.shape[1] < 2:
        return ShareOfGap(None, None, None, gap, None, "too few runs or test subjects")
    gap_p = float(MeanSquares.of(best - source).p())
    if gap <= 0 or gap_p > LEVEL:
        reason = "that labels of the target help is not shown: there may be no gap to close"
        return ShareOfGap(None, None, None, gap, gap_p, reason)
    shares = np.linspace(LOWEST, HIGHEST, STEPS)
    along = source + shares[:, None, None] * (best - source)
    squares = MeanSquares.of(ours - along)
    alike = shares[np.abs(squares.mean) <= squares.reach(LEVEL)]
    share = float((ours - source).mean() / gap)
    low, high = (float(alike[0]), float(alike[-1])) if alike.size else (share, share)
    ends = (None if low <= LOWEST else low, None if high >= HIGHEST else high)
    missing = "the gap is hardly shown, so that a limit is missing" if None in ends else None
    return ShareOfGap(share, *ends, gap, gap_p, missing)
