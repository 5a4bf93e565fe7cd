"""Does an arm differ from its control, also for other draws, seeds and subjects?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from gansynth.metrics.stats.anova import VarianceComponents, variance
from gansynth.metrics.stats.bounds import ANY, within
from gansynth.metrics.stats.inference import Inference
from gansynth.metrics.stats.runs import Floats, RunValues, paired
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.serialise import Document

NOTHING = "nothing"
LEAST_RESAMPLES = 200
LEVEL = 1 - 0.95  # share of the intervals of means that may miss


@dataclass(frozen=True)
class Interval:
    """A confidence interval; None if there are too few values."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class ArmComparison(Document):
    """An experiment arm and its control: one measure and training size, paired by run and subject.

    None marks what the runs cannot tell: without two test subjects there is no interval.
    """

    difference: float | None  # mean of arm - control; draws weigh the same
    interval: Interval  # of the difference, 95 % by default
    p: float | None  # two-sided, of the hypothesis that the true difference is 0
    df: float | None
    standard_error: float | None
    # what interval, p, mde and equivalence hold for. `draws, seeds, subjects`; with one draw
    # `seeds, subjects`, given its training subjects; with one run `subjects`, given its networks;
    # or `nothing`.
    generalises: str
    wilcoxon_p: float | None
    mde: float | None  # minimum detectable effect, of either sign, at 80 % power by default
    margin: float  # differences within +-margin count as none
    equivalent: bool
    equivalence_p: float | None
    variance: VarianceComponents
    runs: int
    draws: int
    seeds: int
    subjects: int
    dropped: int
    mean_arm: float | None
    mean_control: float | None

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read the document of ``to_json``, ignoring other keys; DataFault: a key is missing."""
        try:
            return super().from_json({field.name: doc[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise DataFault(
                f"comparison: no or wrong {error}, expected what to_json wrote"
            ) from error


def compare(
    arm: RunValues,
    control: RunValues,
    *,
    margin: float,
    confidence: float = 0.95,
    power: float = 0.8,
    resamples: int = 5000,
    seed: int = 0,
) -> ArmComparison:
    """Compare an arm with its control, with the interval of a studentised hierarchical bootstrap.

    p and the two one-sided tests invert it. ``margin``: difference that counts as none, in units of
    the measure. Raises UsageFault: an option out of range.
    """
    _check(confidence, resamples, margin, power)
    pairs = paired(arm, control)
    means = [_mean(each.chosen(pairs.keys, pairs.subjects)) for each in (arm, control)]
    inference = _infer(pairs, 1 - confidence, resamples, seed)
    apart = None if inference is None else float(inference.equivalence(margin))
    return ArmComparison(
        difference=_mean(pairs),
        interval=_interval(inference),
        p=None if inference is None else float(inference.p()),
        df=None if inference is None else float(inference.df),
        standard_error=None if inference is None else float(inference.error),
        generalises=generalises(pairs),
        wilcoxon_p=wilcoxon(pairs.table()),
        mde=None if inference is None else float(inference.detectable(power)),
        margin=margin,
        equivalent=apart is not None and apart <= 1 - confidence,
        equivalence_p=apart,
        variance=variance(pairs),
        runs=len(pairs.draws),
        draws=len(set(pairs.draws)),
        seeds=max((pairs.draws.count(draw) for draw in set(pairs.draws)), default=0),
        subjects=len(pairs.subjects),
        dropped=pairs.dropped,
        mean_arm=means[0],
        mean_control=means[1],
    )


def interval_of_mean(
    runs: RunValues, *, bounds: tuple[float, float] = ANY, resamples: int = 5000
) -> Interval:
    """95 % confidence interval of one arm's mean."""
    whole = runs.complete()
    interval, mean = _interval(_infer(whole, LEVEL, resamples, 0)), _mean(whole)
    if mean is None or interval.low is None or interval.high is None:
        return interval
    return Interval(*within(mean, interval.low, interval.high, bounds))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p corrected for multiple tests (Holm 1979); None does not count. UsageFault: no p."""
    ranked = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    for p, index in ranked:
        if not 0 <= p <= 1:
            raise UsageFault(f"holm: p number {index} is {p}, expected 0 to 1")
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, index) in enumerate(ranked):
        least = max(least, min(1.0, p * (len(ranked) - rank)))
        corrected[index] = least
    return corrected


def wilcoxon(table: Floats) -> float | None:
    """p of the signed-rank test over subjects of a table (runs, subjects); None if empty."""
    if not table.size:
        return None
    differences = table.mean(axis=0)
    if not differences.any():
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(differences).pvalue)


def generalises(runs: RunValues) -> str:
    """What a result on these runs generalises to; see ``ArmComparison``."""
    if len(runs.subjects) < 2 or not runs.draws:
        return NOTHING
    if len(set(runs.draws)) > 1:
        return "draws, seeds, subjects"
    return "seeds, subjects" if len(runs.draws) > 1 else "subjects"


def _infer(runs: RunValues, level: float, resamples: int, seed: int) -> Inference | None:
    if generalises(runs) == NOTHING:
        return None
    return Inference.of(runs.table(), level, resamples, np.random.default_rng(seed))


def _interval(inference: Inference | None) -> Interval:
    return (
        Interval(None, None) if inference is None else Interval(*map(float, inference.interval()))
    )


def _mean(runs: RunValues) -> float | None:
    table = runs.table()
    return float(table.mean()) if table.size else None


def _check(confidence: float, resamples: int, margin: float, power: float) -> None:
    """Raise UsageFault where an option is out of range, NaN included."""
    for name, value in (("confidence", confidence), ("power", power)):
        if not 0.5 <= value < 1:
            raise UsageFault(f"compare: {name} is {value}, expected at least 0.5 and below 1")
    if not 0 < margin < np.inf:
        raise UsageFault(
            f"compare: margin is {margin}, expected above 0, in units of the measure (0.005 is "
            "half a point of Dice)"
        )
    if resamples < LEAST_RESAMPLES:
        raise UsageFault(f"compare: resamples is {resamples}, expected at least {LEAST_RESAMPLES}")
