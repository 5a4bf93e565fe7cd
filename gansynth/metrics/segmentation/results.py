"""The metrics file of every training: a JSON document, its headline, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.prediction import Prediction
from gansynth.core.source import CaseSource
from gansynth.metrics.segmentation.evaluation import evaluate, headline
from gansynth.metrics.segmentation.regions import FOREGROUND, Regions, read_regions, with_labels
from gansynth.metrics.segmentation.table import LESIONS, cost_words
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic

FILE = "gansynth_metrics.json"
"""In the output folder of target frameworks that write their own metrics, e.g. nnU-Net."""


def asked_regions(text: str, source: CaseSource) -> Regions:
    """The foreground, each label, and the requested regions; UsageFault if they do not fit."""
    labels = source.schema.foreground
    return with_labels(read_regions(text, labels), labels)


def account_of(
    judged: Callable[[Path], Mapping[str, Prediction]],
    source: CaseSource,
    folder: Path,
    regions: Regions,
) -> tuple[dict[str, Any], str]:
    """Measure the predictions in a host's output folder, and write ``FILE`` there.

    Returns the headline, and the reason if there is none. Raises EnvironmentFault: disk errors.
    """
    try:
        document = evaluate(judged(folder), regions, ignore=source.schema.ignore).document()
    except (UsageFault, DataFault) as fault:
        return {}, f"no Dice and HD95 of gansynth's own measures: {fault}"
    write_json_atomic(folder / FILE, document)
    return headline(document), ""


def lines_of(
    metrics: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> Iterator[tuple[str, ...]]:
    """Rows of a table of a headline, no two alike; nothing for metrics of another kind."""
    if not isinstance(metrics.get("hd95"), Mapping):
        return
    heads = ("Dice", "HD95", "sensitivity", "precision", "alarms", "FP voxels")
    rows: dict[tuple[str, ...], None] = {("region", *heads, "no truth", "missed"): None}
    for name in metrics["dice"]:
        values = [metrics.get(measure, {}).get(name) for measure in ("dice", "hd95", *LESIONS)]
        counts = (str(metrics["undefined"][name][key]) for key in ("no_truth", "not_predicted"))
        shown = (_shown(v, d) for v, d in zip(values, (3, 2, 3, 3, 3, 1), strict=True))
        rows[(names or {}).get(name, name), *shown, *counts] = None
    yield from rows


def compared(arm: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, Any]:
    """Differences arm - control of the foreground of two headlines, and a sentence on them.

    Empty for metrics of another kind.
    """
    changes: dict[str, float | None] = {}
    for name in ("dice", "hd95", *LESIONS):
        if all(isinstance(metrics.get(name), Mapping) for metrics in (arm, control)):
            ours, theirs = arm[name][FOREGROUND], control[name][FOREGROUND]
            changes[name] = None if None in (ours, theirs) else ours - theirs
    told = cost_words({name: None if v is None else (v, None) for name, v in changes.items()})
    sentence = f"with samples: {told}; one pair has no interval"
    return {"difference": changes, "sentence": sentence} if changes else {}


def said_of(metrics: Mapping[str, Any]) -> str:
    """Describe the table in a sentence."""
    images = "volumes" if metrics["distances"] == "volumes" else "slices"
    return (
        f"means over {metrics['subjects']} real held-out subject(s) of {metrics['cases']} case(s), "
        f"HD95 within {images}, in {metrics['unit']}; sensitivity and precision are of lesions, "
        "alarms of cases without one; no truth and missed are numbers of cases:"
    )


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
