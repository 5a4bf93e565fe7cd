"""A segmenter asked about the real held-out cases, each whole, and what it finds measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.data.written import write_prediction
from gansynth.metrics.segmentation.evaluation import RULE, evaluate
from gansynth.runtime.errors import DataFault
from gansynth_segmenter.inference import Segmenter
from gansynth_segmenter.judged import predictions_of


def judge_held_out(
    segmenter: Segmenter,
    source: CaseSource,
    folder: Path | None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Predict every real held-out case, and compare with its own label map where it has one.

    Returns:
        See ``Evaluation.document``; also ``predictions`` (case -> file, None where none could be
        written) and ``without_labels``.

    Raises:
        DataFault: a case cannot be read.
        EnvironmentFault: the disk refuses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if folder is None else folder
        found: dict[str, Prediction] = {}
        written: dict[str, str | None] = {}
        bare: list[str] = []
        for number, case_id in enumerate(source.held_out_ids):
            case = source.load(case_id)
            labels = segmenter.predict(case.image)
            file = write_prediction(source, case_id, labels, home)
            written[case_id] = None if file is None else file.relative_to(home).as_posix()
            if case.labels is None:
                bare.append(case_id)
            elif file is not None:
                found |= predictions_of(source, {case_id: file})
            else:
                place = Path(scratch) / f"{number}.npy"
                np.save(place, labels)
                found[case_id] = _kept(source, case_id, place)
        if folder is not None and None in written.values():
            say(f"{source.name}: its cases are of no files, so no label maps of them are written")
        document = evaluate(found, segmenter.regions, ignore=segmenter.schema.ignore).document()
    return {
        **document,
        "predictions": written if folder is not None else {},
        "without_labels": bare,
    }


def _kept(source: CaseSource, case_id: str, place: Path) -> Prediction:
    """What is in no file of the user's, on the grid of ``source.load``."""

    def read() -> LabelMaps:
        truth = source.load(case_id).labels
        assert truth is not None, "has been looked at"
        return LabelMaps(np.load(place), truth, source.spacing(case_id))

    return Prediction(source.subject(case_id), None, read, source.unit)


def judge_pairs(
    segmenter: Segmenter, pairs: Iterable[tuple[FloatArray, LabelArray]]
) -> dict[str, Any]:
    """See ``gansynth_segmenter.judge``."""
    found: dict[str, Prediction] = {}
    for number, (image, labels) in enumerate(pairs):
        if labels.shape != image.shape[1:]:
            raise DataFault(
                f"pair {number}: labels have shape {labels.shape}, image {image.shape[1:]}, "
                "expected equal"
            )
        maps = LabelMaps(segmenter.predict(image), labels, segmenter.schema.spacing)
        found[str(number)] = Prediction(str(number), None, lambda maps=maps: maps)  # type: ignore[misc]
    document = evaluate(found, segmenter.regions, ignore=segmenter.schema.ignore).document()
    return {
        **{key: document[key] for key in ("dice", "hd95", "regions")},
        "per_case": list(document["per_case"].values()),
        "rule": RULE,
    }
