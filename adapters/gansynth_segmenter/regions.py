"""Dice of labels and of regions on one case, and its mean over cases. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gansynth.errors import UsageFault
from gansynth.schema import LabelArray, Schema

FOREGROUND = "foreground"
"""Region of all labels above background."""
Regions = tuple[tuple[str, tuple[int, ...]], ...]
"""Names, and the label values that each is the union of."""
Scores = Mapping[str, Mapping[str, Any]]
"""Region -> ``dice`` (None for none), and numbers of voxels ``truth``, ``predicted``, ``both``."""
RULE = (
    "Dice = 2 both / (truth + predicted), in voxels of the whole case as its source reads it. What "
    "the truth of a case has none of has no Dice there (null), whatever was predicted, and the "
    "mean is over the cases that have one; 'absent' counts those without, and in how many of them "
    "something was predicted all the same"
)


def read_regions(text: str, schema: Schema) -> Regions:
    """Read ``WT:1+2+4,TC:1+4,ET:4``.

    Raises:
        UsageFault: it is not like that, a name comes twice, or a value is no foreground label.
    """
    regions: dict[str, tuple[int, ...]] = {}
    known = set(schema.foreground)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, labels = (word.strip() for word in part.partition(":"))
        if not name or name == FOREGROUND or name.isdigit() or name in regions:
            raise UsageFault(
                f"--set regions={text}: {part!r} has the name {name!r}; expected names of your "
                f"own, each once, and neither {FOREGROUND!r} nor a number"
            )
        numbers = [label.strip() for label in labels.split("+")]
        if not all(n.isdecimal() and int(n) in known for n in numbers):
            raise UsageFault(
                f"--set regions={text}: {part!r} has the labels {labels!r}; expected values among "
                f"{', '.join(map(str, sorted(known)))} with + between them, as in WT:1+2"
            )
        regions[name] = tuple(sorted({int(n) for n in numbers}))
    return tuple(regions.items())


def with_labels(regions: Regions, schema: Schema) -> Regions:
    """All that Dice is reported of: the foreground, every label by its value, then regions."""
    own = tuple((str(value), (value,)) for value in schema.foreground)
    return ((FOREGROUND, schema.foreground), *own, *regions)


def dice(
    predicted: LabelArray, truth: LabelArray, regions: Regions, ignore: int | None = None
) -> dict[str, dict[str, Any]]:
    """Dice of every region on one case; see ``RULE``.

    Args:
        predicted: (D, H, W) or (H, W).
        truth: likewise.
        regions: see ``with_labels``.
        ignore: value of the truth where nothing counts; None for none.
    """
    if ignore is not None:
        predicted = np.where(truth == ignore, 0, predicted).astype(np.int16)
        truth = np.where(truth == ignore, 0, truth).astype(np.int16)
    found: dict[str, dict[str, Any]] = {}
    for name, labels in regions:
        ours, theirs = np.isin(predicted, labels), np.isin(truth, labels)
        both, sizes = int((ours & theirs).sum()), (int(theirs.sum()), int(ours.sum()))
        score = 2 * both / sum(sizes) if sizes[0] else None
        found[name] = {"dice": score, "truth": sizes[0], "predicted": sizes[1], "both": both}
    return found


def mean_dice(cases: Sequence[Scores]) -> dict[str, float | None]:
    """Mean of every region over the cases that have one; None where none has."""
    means: dict[str, float | None] = {}
    for name in cases[0] if cases else ():
        scores = [case[name]["dice"] for case in cases if case[name]["dice"] is not None]
        means[name] = sum(scores) / len(scores) if scores else None
    return means


def absent(cases: Sequence[Scores]) -> dict[str, dict[str, int]]:
    """Of every region that some cases have none of: how many, and where it was predicted."""
    counts: dict[str, dict[str, int]] = {}
    for name in cases[0] if cases else ():
        without = [case[name] for case in cases if case[name]["dice"] is None]
        if without:
            wrong = sum(one["predicted"] > 0 for one in without)
            counts[name] = {"cases": len(without), "predicted_all_the_same": wrong}
    return counts


def report(named: Mapping[str, Scores], regions: Regions) -> dict[str, Any]:
    """A JSON document of cases by name: means, ``per_case``, ``voxels``, ``absent``, the rule."""
    cases = list(named.values())
    return {
        "dice": mean_dice(cases),
        "per_case": {
            case: {name: one["dice"] for name, one in scores.items()}
            for case, scores in named.items()
        },
        "voxels": {
            case: {
                name: {key: one[key] for key in ("truth", "predicted", "both")}
                for name, one in scores.items()
            }
            for case, scores in named.items()
        },
        "absent": absent(cases),
        "regions": {name: list(labels) for name, labels in regions},
        "rule": RULE,
    }
