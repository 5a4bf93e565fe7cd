"""Dice of a segmenter on the real held-out cases, each whole and on its own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gansynth.errors import DataFault
from gansynth.schema import FloatArray, LabelArray
from gansynth.sources.base import CaseSource
from gansynth.sources.written import write_prediction
from gansynth_segmenter.inference import Segmenter
from gansynth_segmenter.regions import Scores, dice, report

PREDICTIONS = "predictions"


def judge_held_out(
    segmenter: Segmenter,
    source: CaseSource,
    folder: Path | None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Predict every real held-out case, and compare with its own label map where it has one.

    Args:
        segmenter: trained on the source's training cases.
        source: the cases.
        folder: where label maps are written; None for nowhere.
        say: writes a line for the user.

    Returns:
        See ``regions.report``; also ``predictions`` (case -> file, None where none could be
        written) and ``without_labels``.

    Raises:
        DataFault: a case cannot be read.
        EnvironmentFault: the disk refuses.
    """
    scores: dict[str, Scores] = {}
    written: dict[str, str | None] = {}
    bare: list[str] = []
    for case_id in source.held_out_ids:
        case = source.load(case_id)
        found = segmenter.predict(case.image)
        file = None if folder is None else write_prediction(source, case_id, found, folder)
        written[case_id] = None if file is None else file.name
        if case.labels is None:
            bare.append(case_id)
        else:
            ignore = segmenter.schema.ignore
            scores[case_id] = dice(found, case.labels, segmenter.regions, ignore)
    if folder is not None and None in written.values():
        say(f"{source.name}: its cases are of no NIfTI file, so no label maps of them are written")
    return {
        **report(scores, segmenter.regions),
        "predictions": written if folder is not None else {},
        "without_labels": bare,
    }


def judge_pairs(
    segmenter: Segmenter, pairs: Iterable[tuple[FloatArray, LabelArray]]
) -> dict[str, Any]:
    """See ``gansynth_segmenter.judge``."""
    scores: dict[str, Scores] = {}
    for number, (image, labels) in enumerate(pairs):
        if labels.shape != image.shape[1:]:
            raise DataFault(
                f"pair {number}: labels have shape {labels.shape}, image {image.shape[1:]}, "
                "expected equal"
            )
        found = segmenter.predict(image)
        scores[str(number)] = dice(found, labels, segmenter.regions, segmenter.schema.ignore)
    document = report(scores, segmenter.regions)
    return {
        "dice": document["dice"],
        "per_case": list(document["per_case"].values()),
        "regions": document["regions"],
        "rule": document["rule"],
    }
