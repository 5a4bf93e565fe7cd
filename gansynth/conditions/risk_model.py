"""Relative failure rates of lesions by size, place and class.

Each factor is the observed failure over the expected one. It is shrunk with a gamma prior of mean
1, as in standardised mortality ratios (Clayton and Kaldor 1987, Biometrics 43). The expected one of
a bin depends on the other factors, so that a class of small lesions does not count twice. A bin of
few lesions stays near 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gansynth.conditions.scored_lesions import Lesion, ScoredLesion
from gansynth.runtime.serialise import Document

PRIOR = 2.0  # observed and expected failures that the prior adds to every bin
ROUNDS = 50  # rounds of fitting each factor with the others fixed
SIZES = 4  # largest number of bins of size
A_BIN = 8  # least number of lesions in a bin, if there are so many
PLACES = 3  # largest number of bins of a place along an axis

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RiskBin:
    """Lesions that are alike in one respect."""

    name: str  # `4.2 - 6.1 mm`, `low`, a class
    lesions: int  # number of evaluated lesions
    missed: int  # number of these that were not found
    failure: float  # mean of 1 - Dice; 0 without lesions
    ratio: float  # observed over expected failure, shrunk towards 1


@dataclass(frozen=True)
class RiskFactor:
    """Failure rates by one property of lesions."""

    name: str  # `size`, `class`, `place D`
    edges: tuple[float, ...]  # between bins, of a number; empty for the class
    values: tuple[int, ...]  # of labels, for the class; empty for others
    bins: tuple[RiskBin, ...]  # in order


@dataclass(frozen=True)
class RiskModel(Document):
    """Failure rates of a target framework, the one you train, e.g. nnU-Net."""

    mean_failure: float  # mean of 1 - Dice over all lesions
    bound: float  # largest weight over smallest
    factors: tuple[RiskFactor, ...]  # multiplied to a weight

    def __post_init__(self) -> None:
        for factor in self.factors:
            if len(factor.bins) != (len(factor.values) or len(factor.edges) + 1):
                raise ValueError(f"factor {factor.name}: {len(factor.bins)} bins do not fit it")
            if not all(b.ratio > 0 for b in factor.bins):
                raise ValueError(f"factor {factor.name}: a ratio is not above 0")
        if not self.bound >= 1:
            raise ValueError(f"bound is {self.bound}, expected 1 or more")

    @classmethod
    def fit(
        cls,
        judged: Sequence[ScoredLesion],
        names: Mapping[int, str],
        axes: str,
        bound: float,
        unit: str = "mm",
    ) -> RiskModel:
        """Fit failure rates to evaluated lesions, at least one.

        ``names``: classes by value. ``axes``: of cases (``DHW``). ``unit``: of diameters.
        """
        lesions = [lesion.lesion for lesion in judged]
        failed = np.array([1 - lesion.dice for lesion in judged], np.float64)
        missed = np.array([not lesion.found for lesion in judged])
        mean = float(failed.mean())
        frames = _frames(lesions, names, axes, unit)
        which = [np.array([_bin(frame, lesion) for lesion in lesions]) for frame, _ in frames]
        ratios = _ratios(failed, which, [len(titles) for _, titles in frames])
        factors = []
        for (frame, titles), at, ratio in zip(frames, which, ratios, strict=True):
            bins = []
            for number, title in enumerate(titles):
                here = at == number
                count = int(here.sum())
                share = float(failed[here].mean()) if count else 0.0
                bins.append(
                    RiskBin(title, count, int(missed[here].sum()), share, float(ratio[number]))
                )
            factors.append(RiskFactor(frame.name, frame.edges, frame.values, tuple(bins)))
        return cls(mean, bound, tuple(factors))

    def of(self, lesion: Lesion) -> float:
        """Return the weight of a lesion, 1 on average, within the bound.

        Unknown properties are left out: a place, or the size of a lesion that is cut off.
        """
        product = 1.0
        for factor in self.factors:
            number = _bin(factor, lesion)
            if number >= 0:
                product *= factor.bins[number].ratio
        return self.bounded(product)

    def bounded(self, weight: float) -> float:
        """Return a weight within the bound."""
        most = float(self.bound**0.5)
        return min(max(weight, 1 / most), most)

    def of_all(self, lesions: Sequence[Lesion]) -> float:
        """Return the weight of a label map: the mean over its lesions; 1 without any."""
        return float(np.mean([self.of(lesion) for lesion in lesions])) if lesions else 1.0


def _frames(
    lesions: Sequence[Lesion], names: Mapping[int, str], axes: str, unit: str
) -> list[tuple[RiskFactor, list[str]]]:
    """Return factors without their bins, and the bins' titles."""
    values = tuple(sorted(names))
    cuts = _cuts([lesion.diameter for lesion in lesions], SIZES)
    frames = [
        (RiskFactor("size", cuts, (), ()), _titles(cuts, f" {unit}")),
        (RiskFactor("class", (), values, ()), [names[value] for value in values]),
    ]
    places = [lesion.place for lesion in lesions if lesion.place is not None]
    for axis, along in zip(axes, zip(*places, strict=True), strict=True):
        cuts = _cuts(along, PLACES)
        frames.append((RiskFactor(f"place {axis}", cuts, (), ()), _titles(cuts, "")))
    return frames


def _cuts(numbers: Sequence[float], most: int) -> tuple[float, ...]:
    """Return edges between bins of equally many numbers."""
    count = min(max(len(numbers) // A_BIN, 1), most)
    cuts = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return tuple(float(cut) for cut in cuts)


def _titles(cuts: Sequence[float], unit: str) -> list[str]:
    if not cuts:
        return ["any"]
    between = [f"{a:.3g} - {b:.3g}{unit}" for a, b in pairwise(cuts)]
    return [f"below {cuts[0]:.3g}{unit}", *between, f"from {cuts[-1]:.3g}{unit}"]


def _bin(factor: RiskFactor, lesion: Lesion) -> int:
    """Return the number of a lesion's bin; -1 where unknown."""
    if factor.name == "class":
        return factor.values.index(lesion.label) if lesion.label in factor.values else -1
    if factor.name == "size":
        if lesion.cut_off:
            return -1
        return int(np.searchsorted(factor.edges, lesion.diameter, side="right"))
    axis = "DHW"[-len(lesion.place) :].find(factor.name[-1]) if lesion.place else -1
    if lesion.place is None or axis < 0:
        return -1
    return int(np.searchsorted(factor.edges, lesion.place[axis], side="right"))


def _ratios(
    failed: Numbers, which: Sequence[npt.NDArray[np.int64]], counts: Sequence[int]
) -> list[Numbers]:
    ratios = [np.ones(count) for count in counts]
    mean = failed.mean()
    for _ in range(ROUNDS):
        for number, (at, count) in enumerate(zip(which, counts, strict=True)):
            binned = at >= 0
            others = np.full(len(failed), mean)
            for factor, bins in enumerate(which):
                if factor != number:
                    others *= np.where(bins >= 0, ratios[factor][bins], 1.0)
            observed = np.bincount(at[binned], failed[binned], count)
            expected = np.bincount(at[binned], others[binned], count)
            ratios[number] = (observed + PRIOR) / (expected + PRIOR)
    return ratios
