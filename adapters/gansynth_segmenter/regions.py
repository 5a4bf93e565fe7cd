"""Which regions a segmenter's Dice is reported of, and the report; ``gansynth.measures`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gansynth.measures import regions as measured
from gansynth.measures.regions import RULE, Regions, Scores, absent, dice, mean_dice
from gansynth.schema import Schema

__all__ = [
    "RULE",
    "Regions",
    "Scores",
    "absent",
    "dice",
    "mean_dice",
    "read_regions",
    "report",
    "with_labels",
]


def read_regions(text: str, schema: Schema) -> Regions:
    """Read ``WT:1+2+4,TC:1+4,ET:4``.

    Raises:
        UsageFault: it is not like that, a name comes twice, or a value is no foreground label.
    """
    return measured.read_regions(text, schema.foreground)


def with_labels(regions: Regions, schema: Schema) -> Regions:
    """All that Dice is reported of: the foreground, every label by its value, then regions."""
    return measured.with_labels(regions, schema.foreground)


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
