"""Segmentations that DeepMedic itself has made of the validation cases."""

from __future__ import annotations

import os
from pathlib import Path

from gansynth.core.prediction import Prediction
from gansynth.hosts.record import FILE, read_sessions
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.source import DeepMedicSource

WAY_OUT = "train it again, to its end"


def refuse_unmeasurable(source: DeepMedicSource) -> None:
    """Reject a training that would save no segmentations of validation cases."""
    config = source.config
    if not config.predictions or not config.values.get("saveSegmentationVal", True):
        raise UsageFault(
            f"{config.path}: saves no segmentations of validation cases, expected "
            "namesForPredictionsPerCaseVal, and not saveSegmentationVal = False"
        )


def prediction_files(source: DeepMedicSource, folder: Path) -> dict[str, Prediction]:
    """Return validation case -> predicted and true label map, without unlabelled cases.

    DeepMedic writes them after epochs with validation of whole volumes
    (``numberOfEpochsBetweenFullInferenceOnValImages``), named as in its ``io.py``.
    """
    if not read_sessions(folder / FILE):
        raise UsageFault(
            f"{folder}: has no {FILE}, expected a folder that gansynth augment --target deepmedic "
            "wrote"
        )
    config = source.config
    refuse_unmeasurable(source)
    suffix = (config.values.get("suffixForSegmAndProbsDictVal") or {"segm": "Segm"})["segm"]
    home = folder / "predictions" / config.session / "predictions"
    predicted = {}
    for listed, name in zip(config.validation, config.predictions, strict=True):
        stem = name.removesuffix(".nii.gz").removesuffix(".nii")
        predicted[_first(listed.channels)] = home / f"{stem}_{suffix}.nii.gz"
    pairs = {}
    for case in source.held_out_ids:
        listed = source.listed(case)
        image = _first(listed.channels)
        if image not in predicted:
            raise DataFault(f"{folder}: lacks case {case!r}, expected it; {WAY_OUT}")
        pairs[case] = predicted[image], listed.labels
    if not pairs:
        raise UsageFault(
            f"{source.config.path}: has no validation case with labels, expected some; "
            "list them in gtLabelsValidation"
        )
    return of_volumes(source, pairs, WAY_OUT)


def _first(channels: tuple[Path | None, ...]) -> str:
    return os.path.realpath(next(file for file in channels if file is not None))
