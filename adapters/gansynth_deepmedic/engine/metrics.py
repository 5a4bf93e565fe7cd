"""Dice of labels and of regions as DeepMedic reports it, and of segments. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.measures import regions as measured
from gansynth.measures.regions import FOREGROUND, Regions

__all__ = ["FOREGROUND", "Confusion", "Regions", "dice", "mean_dice", "read_regions", "with_labels"]


def read_regions(text: str, classes: int) -> Regions:
    """Read ``WT:1+2+3+4,TC:1+3+4``.

    Raises:
        UsageFault: it is not like that, a name comes twice, or a label is no class.
    """
    expected = f"numbers from 1 to {classes - 1}"
    return measured.read_regions(text, range(1, classes), expected=expected)


def with_labels(regions: Regions, classes: int) -> Regions:
    """All that Dice is reported of: the foreground, every label by its number, then regions."""
    return measured.with_labels(regions, range(1, classes))


def dice(
    predicted: npt.NDArray[Any], truth: npt.NDArray[Any], regions: Regions
) -> dict[str, dict[str, float]]:
    """Dice of every region on one case.

    What is absent from the truth has no Dice, NaN, whatever was predicted; DeepMedic does likewise.
    Numbers of voxels are given too, so that any other rule can be applied afterwards.

    Args:
        predicted: labels (X, Y, Z), those outside of the region of interest 0.
        truth: labels (X, Y, Z), all of them.
        regions: see ``with_labels``.

    Returns:
        For each region ``dice``, and numbers of voxels ``truth``, ``predicted`` and ``both``.
    """
    found = measured.dice(predicted, truth, regions)
    return {name: {**one, "dice": _number(one["dice"])} for name, one in found.items()}


def mean_dice(cases: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Mean of every region over the cases that have one; NaN where none has."""
    known = [{name: {"dice": _said(one["dice"])} for name, one in case.items()} for case in cases]
    return {name: _number(mean) for name, mean in measured.mean_dice(known).items()}


def _said(score: float) -> float | None:
    return None if math.isnan(score) else score


def _number(score: float | None) -> float:
    return math.nan if score is None else score


class Confusion:
    """Counts of labels on segments, summed over batches.

    Args:
        classes: number of them.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, counts: npt.NDArray[np.int64]) -> None:
        """Add the counts of a batch, by true and predicted label."""
        self.counts += counts

    def add_labels(self, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        """Count voxels by their true and predicted label; those without a label do not count."""
        classes, known = len(self.counts), truth >= 0
        pairs = truth[known].astype(np.int64) * classes + predicted[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def accuracy(self) -> float:
        """Share of voxels whose label is right; NaN of none."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else math.nan

    def dice(self) -> dict[str, float]:
        """Dice of every label but 0 over all voxels together; NaN of one that is absent."""
        both, truth = np.diag(self.counts), self.counts.sum(axis=1)
        sizes = truth + self.counts.sum(axis=0)
        return {
            str(label): float(2 * both[label] / sizes[label]) if truth[label] else math.nan
            for label in range(1, len(self.counts))
        }
