"""How much more often than others a host fails at lesions of a size, a place, a class.

One factor for each: what was failed over what was to be expected, with a gamma prior of mean 1, as
standardised mortality ratios are shrunk (Clayton and Kaldor 1987, Biometrics 43). What is expected
of a bin heeds the other factors, so that a class which is always small is not blamed twice. A bin
of few lesions stays near 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gansynth.conditions.failures_lesions import Judged, Lesion
from gansynth.runtime.serialise import Document

PRIOR = 2.0
"""Failures, and expected ones, that every bin is given beforehand."""
ROUNDS = 50
"""Of fitting each factor with the others held."""
SIZES = 4
"""Most bins of size ..."""
A_BIN = 8
"""... and the lesions that each has at least, if there are so many."""
PLACES = 3
"""Most bins of a place, likewise."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Lesions that are alike in one respect.

    Attributes:
        name: ``4.2 - 6.1 mm``, ``low``, a class.
        lesions: how many were judged.
        missed: of these, how many the host did not find.
        failure: mean of 1 - Dice; 0 where there is none.
        ratio: failure over what was to be expected, shrunk towards 1.
    """

    name: str
    lesions: int
    missed: int
    failure: float
    ratio: float


@dataclass(frozen=True)
class Factor:
    """One respect.

    Attributes:
        name: ``size``, ``class``, ``place D``.
        edges: between bins, of a number; empty for the class.
        values: of labels, for the class; empty for others.
        bins: in order.
    """

    name: str
    edges: tuple[float, ...]
    values: tuple[int, ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Risk(Document):
    """What is known of a host's failures.

    Attributes:
        mean_failure: mean of 1 - Dice over all lesions.
        bound: largest weight over smallest.
        factors: multiplied.
    """

    mean_failure: float
    bound: float
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        for one in self.factors:
            if len(one.bins) != (len(one.values) or len(one.edges) + 1):
                raise ValueError(f"factor {one.name}: {len(one.bins)} bins do not fit it")
            if not all(b.ratio > 0 for b in one.bins):
                raise ValueError(f"factor {one.name}: a ratio is not above 0")
        if not self.bound >= 1:
            raise ValueError(f"bound is {self.bound}, expected 1 or more")

    @classmethod
    def fit(
        cls,
        judged: Sequence[Judged],
        names: Mapping[int, str],
        axes: str,
        bound: float,
        unit: str = "mm",
    ) -> Risk:
        """Learn from judged lesions, at least one.

        ``names`` is of classes, by value; ``axes`` of cases (``DHW``), ``unit`` of diameters.
        """
        lesions = [one.lesion for one in judged]
        failed = np.array([1 - one.dice for one in judged], np.float64)
        missed = np.array([not one.found for one in judged])
        mean = float(failed.mean())
        frames = _frames(lesions, names, axes, unit)
        which = [np.array([_bin(frame, one) for one in lesions]) for frame, _ in frames]
        ratios = _ratios(failed, which, [len(titles) for _, titles in frames])
        factors = []
        for (frame, titles), at, ratio in zip(frames, which, ratios, strict=True):
            bins = []
            for number, title in enumerate(titles):
                here = at == number
                count = int(here.sum())
                share = float(failed[here].mean()) if count else 0.0
                bins.append(Bin(title, count, int(missed[here].sum()), share, float(ratio[number])))
            factors.append(Factor(frame.name, frame.edges, frame.values, tuple(bins)))
        return cls(mean, bound, tuple(factors))

    def of(self, lesion: Lesion) -> float:
        """How much more than others a lesion is to be drawn: 1 as all, within the bound.

        What is not known of it is left out: the place, or the size of one that is cut off.
        """
        product = 1.0
        for factor in self.factors:
            number = _bin(factor, lesion)
            if number >= 0:
                product *= factor.bins[number].ratio
        most = float(self.bound**0.5)
        return min(max(product, 1 / most), most)

    def of_all(self, lesions: Sequence[Lesion]) -> float:
        """Of a whole label map: the mean over its lesions; 1 if it has none."""
        return float(np.mean([self.of(one) for one in lesions])) if lesions else 1.0


def _frames(
    lesions: Sequence[Lesion], names: Mapping[int, str], axes: str, unit: str
) -> list[tuple[Factor, list[str]]]:
    """The factors without their bins, and the bins' titles."""
    values = tuple(sorted(names))
    cuts = _cuts([one.diameter for one in lesions], SIZES)
    found = [
        (Factor("size", cuts, (), ()), _titles(cuts, f" {unit}")),
        (Factor("class", (), values, ()), [names[value] for value in values]),
    ]
    places = [one.place for one in lesions if one.place is not None]
    for axis, along in zip(axes, zip(*places, strict=True), strict=True):
        cuts = _cuts(along, PLACES)
        found.append((Factor(f"place {axis}", cuts, (), ()), _titles(cuts, "")))
    return found


def _cuts(numbers: Sequence[float], most: int) -> tuple[float, ...]:
    """Where to cut numbers into bins of as many each."""
    count = min(max(len(numbers) // A_BIN, 1), most)
    cuts = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return tuple(float(cut) for cut in cuts)


def _titles(cuts: Sequence[float], unit: str) -> list[str]:
    if not cuts:
        return ["any"]
    between = [f"{a:.3g} - {b:.3g}{unit}" for a, b in pairwise(cuts)]
    return [f"below {cuts[0]:.3g}{unit}", *between, f"from {cuts[-1]:.3g}{unit}"]


def _bin(factor: Factor, lesion: Lesion) -> int:
    """Number of a lesion's bin; -1 where that is not known."""
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
            known = at >= 0
            others = np.full(len(failed), mean)
            for other, bins in enumerate(which):
                if other != number:
                    others *= np.where(bins >= 0, ratios[other][bins], 1.0)
            seen = np.bincount(at[known], failed[known], count)
            expected = np.bincount(at[known], others[known], count)
            ratios[number] = (seen + PRIOR) / (expected + PRIOR)
    return ratios
