"""Regions of label maps, unions by formula, and their Dice by case. Needs numpy only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import UsageFault

FOREGROUND = "foreground"  # region of all labels above background
Regions = tuple[tuple[str, tuple[int, ...]], ...]
"""Names, and the label values that each is the union of."""
Scores = Mapping[str, Mapping[str, Any]]
"""Region -> ``dice`` (None for none), and numbers of voxels ``truth``, ``predicted``, ``both``."""
Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def read_regions(text: str, labels: Collection[int], *, expected: str = "") -> Regions:
    """Read ``WT:1+2+4,TC:1+4,ET:4``; ``expected``: describes the values in messages.

    Raises UsageFault: a syntax error, a duplicate name, or a value that is not a label.
    """
    parts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, formula = (word.strip() for word in part.partition(":"))
        parts.append((part, name, formula))
    return _regions(parts, labels, f"--set regions={text}", expected)


def regions_of(formulas: Mapping[str, str], labels: Collection[int]) -> Regions:
    """Regions by name and formula, ``{"WT": "1+2+4"}``; as ``read_regions``."""
    parts = ((f"{name}:{formula}", name, formula) for name, formula in formulas.items())
    return _regions(parts, labels, "regions", "")


def _regions(
    parts: Iterable[tuple[str, str, str]], labels: Collection[int], where: str, expected: str
) -> Regions:
    """Regions of (text, name, formula)."""
    regions: dict[str, tuple[int, ...]] = {}
    expected = expected or f"values among {', '.join(map(str, sorted(labels)))}"
    for part, name, formula in parts:
        if not name or name == FOREGROUND or name.isdigit() or name in regions:
            raise UsageFault(
                f"{where}: {part!r} has the name {name!r}; expected names of your own, each once, "
                f"and neither {FOREGROUND!r} nor a number"
            )
        numbers = [label.strip() for label in formula.split("+")]
        if not all(n.isdecimal() and int(n) in labels for n in numbers):
            raise UsageFault(
                f"{where}: {part!r} has the labels {formula!r}; expected {expected} with + between "
                "them, as in WT:1+2"
            )
        regions[name] = tuple(sorted({int(n) for n in numbers}))
    return tuple(regions.items())


def with_labels(regions: Regions, labels: Iterable[int]) -> Regions:
    """All measured regions: the foreground, every label by its value, then regions."""
    values = tuple(labels)
    return ((FOREGROUND, values), *((str(value), (value,)) for value in values), *regions)


def without_ignored(predicted: Array, truth: Array, ignore: int | None) -> tuple[Array, Array]:
    """Set both maps to background where the truth has the ignore label."""
    if ignore is None:
        return predicted, truth
    unknown = truth == ignore
    return np.where(unknown, 0, predicted), np.where(unknown, 0, truth)


def dice(
    predicted: Array, truth: Array, regions: Regions, ignore: int | None = None
) -> dict[str, dict[str, Any]]:
    """Dice of every region on one case, None where the truth has none; without ``ignore``."""
    predicted, truth = without_ignored(predicted, truth, ignore)
    return {
        name: scored(np.isin(predicted, labels), np.isin(truth, labels)) for name, labels in regions
    }


def scored(predicted: Mask, truth: Mask) -> dict[str, Any]:
    """``dice`` of two masks, None where the truth is empty, and numbers of voxels."""
    both, sizes = int((predicted & truth).sum()), (int(truth.sum()), int(predicted.sum()))
    score = 2 * both / sum(sizes) if sizes[0] else None
    return {"dice": score, "truth": sizes[0], "predicted": sizes[1], "both": both}


def mean_dice(cases: Sequence[Scores]) -> dict[str, float | None]:
    """Mean of every region over the cases that have one; None where none has."""
    means: dict[str, float | None] = {}
    for name in cases[0] if cases else ():
        scores = [case[name]["dice"] for case in cases if case[name]["dice"] is not None]
        means[name] = sum(scores) / len(scores) if scores else None
    return means
