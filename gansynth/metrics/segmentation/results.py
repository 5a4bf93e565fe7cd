"""The metrics file of every training: a JSON document, its headline, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.prediction import Prediction
from gansynth.core.source import CaseSource
from gansynth.metrics.segmentation.evaluation import evaluate, headline
from gansynth.metrics.segmentation.regions import Regions, read_regions, with_labels
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
    """Rows of a table of a headline; nothing for metrics of another kind."""
    if not isinstance(metrics.get("hd95"), Mapping):
        return
    unit = metrics["unit"]
    yield "region", "Dice", f"HD95 {unit}", "truth has none", "predicted there", "not predicted"
    for name, overlap in metrics["dice"].items():
        counts = metrics["undefined"][name]
        yield (
            (names or {}).get(name, name),
            _shown(overlap, 3),
            _shown(metrics["hd95"][name], 2),
            *(str(counts[key]) for key in ("no_truth", "no_truth_predicted", "not_predicted")),
        )


def said_of(metrics: Mapping[str, Any]) -> str:
    """Describe the table in a sentence."""
    images = "volumes" if metrics["distances"] == "volumes" else "slices"
    return (
        f"means over {metrics['subjects']} real held-out subject(s) of {metrics['cases']} case(s), "
        f"HD95 within {images}, in {metrics['unit']}; the last columns count {images}:"
    )


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
