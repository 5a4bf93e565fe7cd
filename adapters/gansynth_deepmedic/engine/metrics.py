"""Dice of labels and of regions on one case, and its mean over cases. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.errors import UsageFault

FOREGROUND = "foreground"
"""Region of all labels but 0; DeepMedic reports it as class 0."""
Regions = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and the labels that each is the union of."""


def read_regions(text: str, classes: int) -> Regions:
    """Read ``WT:1+2+3+4,TC:1+3+4``.

    Raises:
        UsageFault: it is not like that, a name comes twice, or a label is no class.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, labels = (word.strip() for word in part.partition(":"))
        numbers = [label.strip() for label in labels.split("+")]
        if not name or name == FOREGROUND or name.isdigit() or name in regions:
            raise UsageFault(
                f"--set regions={text}: {part!r} has the name {name!r}; expected names of your "
                f"own, each once, and neither {FOREGROUND!r} nor a number"
            )
        if not all(n.isdigit() and 0 < int(n) < classes for n in numbers):
            raise UsageFault(
                f"--set regions={text}: {part!r} has the labels {labels!r}; expected numbers from "
                f"1 to {classes - 1} with + between them, as in WT:1+2"
            )
        regions[name] = tuple(sorted({int(n) for n in numbers}))
    return tuple(regions.items())


def with_labels(regions: Regions, classes: int) -> Regions:
    """All that Dice is reported of: the foreground, every label by its number, then regions."""
    labels = range(1, classes)
    own = tuple((str(label), (label,)) for label in labels)
    return ((FOREGROUND, tuple(labels)), *own, *regions)


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
    found: dict[str, dict[str, float]] = {}
    for name, labels in regions:
        ours, theirs = np.isin(predicted, labels), np.isin(truth, labels)
        both, sizes = int((ours & theirs).sum()), (int(theirs.sum()), int(ours.sum()))
        score = 2 * both / sum(sizes) if sizes[0] else math.nan
        found[name] = {"dice": score, "truth": sizes[0], "predicted": sizes[1], "both": both}
    return found


def mean_dice(cases: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Mean of every region over the cases that have one; NaN where none has."""
    means: dict[str, float] = {}
    for name in cases[0] if cases else ():
        scores = [case[name]["dice"] for case in cases if not math.isnan(case[name]["dice"])]
        means[name] = sum(scores) / len(scores) if scores else math.nan
    return means


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
