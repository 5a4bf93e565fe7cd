"""Regions of a DeepMedic network's classes, and Dice of segments. Needs numpy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.metrics.segmentation import regions as measured
from gansynth.metrics.segmentation.regions import FOREGROUND, Regions

__all__ = ["FOREGROUND", "Confusion", "Regions", "read_regions", "with_labels"]


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


class Confusion:
    """Counts of labels on segments, summed over batches."""

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
