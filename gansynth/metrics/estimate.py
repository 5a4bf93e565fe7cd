"""A figure of an evaluation: a value with its interval, and the value of real subjects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.metrics.statistics import ANY, within
from gansynth.runtime.errors import DataFault

Better = Literal["lower", "higher", "real", "half"]
"""The target: low, high, the value of real subjects, or chance (0.5)."""
Finding = Literal["like real", "unlike real", "unclear"]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

LEVEL = 0.05  # share of intervals that may miss the true value
FEW = 16  # images a side; with fewer, a figure that finds no difference cannot tell


@dataclass(frozen=True)
class Estimate:
    """The value of a metric for samples, with other real subjects as the scale.

    Attributes: ``low``, ``high``: 95 % interval of ``value``, None if unknown. ``real``: the same
    for other real subjects; 95 % of such comparisons lie from ``real_low`` to ``real_high``.
    ``difference``: ``value - real``, or None for a test with ``p``. ``splits``: number of splits of
    the real subjects that are averaged.
    """

    metric: str
    name: str
    title: str
    what: str
    better: Better
    value: float | None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    images: int = 0
    splits: int = 0
    note: str = ""

    @property
    def finding(self) -> Finding:
        """Whether the figure distinguishes samples from real subjects.

        ``unlike real``: the value is beyond those of real subjects, and the interval of the
        difference excludes zero. A test is so if p is below 0.05. ``unclear``: the value alone is
        beyond, there are fewer than ``FEW`` images, or that interval is wider than twice the range
        of real subjects.
        """
        few = self.images < FEW
        if self.p is not None:
            return "unlike real" if self.p < LEVEL else "unclear" if few else "like real"
        if self.value is None or self.real_low is None or self.real_high is None:
            return "unclear"
        low, high = self.real_low, self.real_high
        beyond = {
            "lower": self.value > high,
            "higher": self.value < low,
            "real": not low <= self.value <= high,
            "half": abs(self.value - 0.5) > max(abs(low - 0.5), abs(high - 0.5)),
        }[self.better]
        start, end = self.difference_low, self.difference_high
        if start is None or end is None:
            return "unclear"
        if not beyond:
            return "unclear" if few or end - start > 2 * (high - low) else "like real"
        return "unclear" if start <= 0 <= end else "unlike real"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; non-finite numbers are null."""
        document = {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**document, "finding": self.finding}


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def numbered(owners: Sequence[str]) -> Indices:
    """Number of each image's owner: int64 (N,)."""
    return np.unique(np.array(owners), return_inverse=True)[1]


def drawn_anew(owner: Indices, rng: np.random.Generator) -> Indices:
    """Weight of each image (N,) when subjects are resampled with replacement."""
    people = int(owner.max()) + 1
    return np.bincount(rng.integers(people, size=people), minlength=people)[owner]


def median_estimate(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Range of the middle 95 % of values."""
    low, high = np.percentile(values, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return float(low), float(high)


@dataclass(frozen=True)
class HalfComparison:
    """Samples, real subjects in their place, and the subjects both are compared with."""

    samples: Indices
    control: Indices
    real: Indices


def halves(
    drawn_of: Sequence[str], people: Sequence[str], count: int, rng: np.random.Generator
) -> Iterator[HalfComparison]:
    """Split real subjects in two halves repeatedly, each with half of the samples.

    ``drawn_of``: the subject of each sample. Raises DataFault: fewer than two subjects, or fewer
    than four samples.
    """
    if len(set(people)) < 2 or len(drawn_of) < 4:
        raise DataFault(
            f"{len(set(people))} real subjects and {len(drawn_of)} samples, expected at least 2 "
            "and 4: intervals and the real scale need halves of each; generate more with -n, or "
            "use more cases"
        )
    for _ in range(count):
        first, second = _dealt(people, rng)
        chosen, _ = _dealt(drawn_of, rng)
        size = min(len(first), len(second), len(chosen))
        yield HalfComparison(*(np.sort(side[:size]) for side in (chosen, first, second)))


def _dealt(owners: Sequence[str], rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Indices of two halves that share no owner, each in random order."""
    names = np.array(owners)
    distinct, owner = np.unique(names, return_inverse=True)
    order = rng.permutation(len(distinct))
    rank = np.empty(len(distinct), np.int64)
    rank[order] = np.arange(len(distinct))
    counts = np.bincount(owner)[order]
    ends = np.cumsum(counts)
    first = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    first = min(max(1, first), max(1, len(distinct) - 1))
    inside = rank[owner] < first
    if inside.all():  # one owner alone
        inside = rng.permutation(len(owners)) < len(owners) // 2
    numbers = np.arange(len(owners))
    return rng.permutation(numbers[inside]), rng.permutation(numbers[~inside])


def summarised(
    values: Sequence[Mapping[str, float]],
    reals: Sequence[Mapping[str, float]],
    people: int,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, dict[str, float | None]]:
    """Means over splits, with intervals: name -> numbers of ``Estimate``.

    Intervals are by the delete-half jackknife (Shao & Wu 1989, Ann. Stat. 17:1176): values of
    splits vary about their mean as the mean about the truth. Student's t is for few subjects.
    """
    from scipy.stats import t

    reach = float(t.ppf(1 - LEVEL / 2, max(1, people - 1)))
    summary: dict[str, dict[str, float | None]] = {}
    for name in values[0]:
        mine = np.array([v.get(name, np.nan) for v in values], np.float64)
        real = np.array([r.get(name, np.nan) for r in reals], np.float64)
        apart = mine - real
        numbers = {
            **_about(mine, reach, "value", "low", "high", bounds[name]),
            **_about(apart, reach, "difference", "difference_low", "difference_high", ANY),
        }
        finite = real[np.isfinite(real)]
        if finite.size:
            low, high = median_estimate(finite)
            numbers |= {"real": float(finite.mean()), "real_low": low, "real_high": high}
        summary[name] = numbers
    return summary


def _about(
    values: Floats, reach: float, mean: str, low: str, high: str, bounds: tuple[float, float]
) -> dict[str, float | None]:
    """Mean and interval of the finite values, by their names; None where there are none."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return dict.fromkeys((mean, low, high), None)
    value, away = float(finite.mean()), reach * float(finite.std(ddof=1))
    ends = within(value, value - away, value + away, bounds)
    return {mean: value, low: ends[0], high: ends[1]}
