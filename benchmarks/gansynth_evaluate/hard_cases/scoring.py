"""How well a framework found each lesion of its training cases, and where it failed more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gansynth.conditions.lesion_risk import (
    CropFrame,
    Lesion,
    RiskBin,
    RiskFactor,
    RiskModel,
    Span,
    bin_of,
)
from gansynth.core.geometry import Mask, bounding_box, nearest_voxels
from gansynth.core.schema import LabelArray
from gansynth.data.connected_components import LabelComponents, LesionPart, pieces

FOUND = 0.1  # Dice from which a lesion counts as found


@dataclass(frozen=True)
class ScoredLesion:
    """A lesion, and how well a prediction found it."""

    lesion: Lesion
    dice: float  # of the lesion and the voxels of its class predicted there
    recall: float  # share of its voxels predicted as its class

    @property
    def found(self) -> bool:
        """Whether the Dice is at least ``FOUND``."""
        return self.dice >= FOUND


def score_lesions(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    frame: CropFrame,
    *,
    least: int,
) -> list[ScoredLesion]:
    """Evaluate a prediction on every lesion of a case.

    Predicted voxels belong to the nearest lesion of their class, if their connected piece touches
    one. Other pieces are ``false_alarms``.
    """
    scored_lesions: list[ScoredLesion] = []
    for value in values:
        parts = pieces(labels, labels == value, frame.spacing, least=least)
        if not parts:
            continue
        owner = _owners(labels.shape, parts, predicted == value, frame.spacing)
        for number, part in enumerate(parts, 1):
            marked = int(np.count_nonzero(owner == number))
            right = int(np.count_nonzero(predicted[part.box][part.mask] == value))
            dice, recall = 2 * right / (marked + part.voxels), right / part.voxels
            scored_lesions.append(ScoredLesion(Lesion.of(part, value, frame), dice, recall))
    return scored_lesions


def false_alarms(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    spacing: tuple[float, ...],
    *,
    least: int,
) -> list[LesionPart]:
    """Return predicted pieces, of ``least`` voxels or more, that touch no lesion of their class."""
    return [
        part
        for value in values
        for part in pieces(predicted, predicted == value, spacing, least=least)
        if not (labels[part.box][part.mask] == value).any()
    ]


def _owners(
    shape: tuple[int, ...], parts: Sequence[LesionPart], marked: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Number each marked voxel by the lesion it belongs to, from 1; 0 for none."""
    truth = np.zeros(shape, np.int32)
    for number, part in enumerate(parts, 1):
        truth[part.box][part.mask] = number
    pieces = LabelComponents.of(marked)
    touching = np.zeros(len(pieces.numbers) + 1, bool)
    touching[pieces.numbered[truth > 0]] = True
    touching[0] = False
    assigned = touching[pieces.numbered]
    if len(parts) == 1 or not assigned.any():
        return np.where(assigned, np.int32(1), np.int32(0))
    box = bounding_box(assigned | (truth > 0))
    nearest = nearest_voxels(truth[box] > 0, spacing)
    owner = np.zeros(shape, np.int32)
    owner[box] = np.where(assigned[box], truth[box][nearest], np.int32(0))
    return owner


def body_span(body: Mask) -> Span:
    """Return the extent of a body in its case, as shares of the shape."""
    box = bounding_box(body)
    axes = zip(box, body.shape, strict=True)
    return tuple((a.start / n, a.stop / n) for a, n in axes)


# -- relative failure rates of lesions by size, place and class ------------------------------------
# Each factor is the observed failure over the expected one. It is shrunk with a gamma prior of
# mean 1, as in standardised mortality ratios (Clayton and Kaldor 1987, Biometrics 43). The expected
# one of a bin depends on the other factors, so that a class of small lesions does not count twice.
# A bin of few lesions stays near 1.


PRIOR = 2.0  # observed and expected failures that the prior adds to every bin
ROUNDS = 50  # rounds of fitting each factor with the others fixed
SIZES = 4  # largest number of bins of size
A_BIN = 8  # least number of lesions in a bin, if there are so many
PLACES = 3  # largest number of bins of a place along an axis

Numbers = npt.NDArray[np.float64]


def fit_risk(
    scored_lesions: Sequence[ScoredLesion],
    names: Mapping[int, str],
    axes: str,
    bound: float,
    unit: str = "mm",
) -> RiskModel:
    """Fit failure rates to evaluated lesions, at least one.

    ``names``: classes by value. ``axes``: of cases (``DHW``). ``unit``: of diameters.
    """
    lesions = [lesion.lesion for lesion in scored_lesions]
    failed = np.array([1 - lesion.dice for lesion in scored_lesions], np.float64)
    missed = np.array([not lesion.found for lesion in scored_lesions])
    mean = float(failed.mean())
    frames = _frames(lesions, names, axes, unit)
    which = [np.array([bin_of(frame, lesion) for lesion in lesions]) for frame, _ in frames]
    ratios = _ratios(failed, which, [len(titles) for _, titles in frames])
    factors = []
    for (frame, titles), at, ratio in zip(frames, which, ratios, strict=True):
        bins = []
        for number, title in enumerate(titles):
            here = at == number
            count = int(here.sum())
            share = float(failed[here].mean()) if count else 0.0
            bins.append(RiskBin(title, count, int(missed[here].sum()), share, float(ratio[number])))
        factors.append(RiskFactor(frame.name, frame.edges, frame.values, tuple(bins)))
    return RiskModel(mean, bound, tuple(factors))


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
    return tuple(map(float, cuts))


def _titles(cuts: Sequence[float], unit: str) -> list[str]:
    if not cuts:
        return ["any"]
    between = [f"{a:.3g} - {b:.3g}{unit}" for a, b in pairwise(cuts)]
    return [f"below {cuts[0]:.3g}{unit}", *between, f"from {cuts[-1]:.3g}{unit}"]


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
