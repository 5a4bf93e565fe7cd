"""Where a DeepMedic training leaves what it predicts of validation cases, and their truth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.prediction import Prediction
from gansynth.hosts.record import FILE, read_sessions
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_deepmedic.configs import Listed
from gansynth_deepmedic.source import DeepMedicSource

SUFFIXES = "suffixForSegmAndProbsDictVal"
WAY_OUT = "train it again, to its end"


def refuse_unmeasurable(source: DeepMedicSource, settings: Mapping[str, str]) -> None:
    """Refuse a training that would leave no segmentations of validation cases to measure.

    Raises:
        UsageFault: it would not.
    """
    config = source.config
    if settings.get("engine") != "torch":
        if not config.predictions or not config.values.get("saveSegmentationVal", True):
            raise UsageFault(
                f"{config.path}: keeps no segmentations of validation cases, expected "
                "namesForPredictionsPerCaseVal, and not saveSegmentationVal = False"
            )
        return
    default = "yes" if config.values.get("saveSegmentationVal", True) else "no"
    if settings.get("save_predictions", default) == "no":
        raise UsageFault(
            f"{source.name}: no segmentations are kept, expected --set save_predictions=yes"
        )


def judged_files(source: DeepMedicSource, folder: Path) -> dict[str, Prediction]:
    """Validation case -> its predicted and its true label map; cases without truth are left out.

    The torch engine's are those of the training's end. The real program's are of the last epoch
    that it validated whole volumes after: ``numberOfEpochsBetweenFullInferenceOnValImages``.

    Raises:
        UsageFault: no training is there, nothing is validated, or no segmentation was kept.
        DataFault: it has not come to its end, or lacks a file.
    """
    sessions = read_sessions(folder / FILE)
    if not sessions:
        raise UsageFault(
            f"{folder}: has no {FILE}, expected a folder that gansynth augment --target deepmedic "
            "wrote"
        )
    torch = sessions[-1].get("engine") == "torch"
    predicted = dict(_of_engine(folder) if torch else _of_program(source, folder))
    found = {}
    for case in source.held_out_ids:
        listed = source.listed(case)
        if listed.labels is None:
            continue
        image = _first(listed)
        if image not in predicted:
            raise DataFault(f"{folder}: says nothing of case {case!r}, expected it; {WAY_OUT}")
        found[case] = predicted[image], listed.labels
    if not found:
        raise UsageFault(
            f"{source.config.path}: validates on no case with labels, expected some to measure; "
            "list them in gtLabelsValidation"
        )
    return of_volumes(source, found, WAY_OUT)


def _of_engine(folder: Path) -> Iterator[tuple[str, Path]]:
    """First image of a case, and its segmentation by the torch engine."""
    from gansynth_deepmedic.engine.infer import PREDICTIONS
    from gansynth_deepmedic.engine.train import VALIDATION

    cases: list[Mapping[str, Any]] = read_json(folder / VALIDATION, way_out=WAY_OUT)["cases"]
    for case in cases:
        if "prediction" not in case:
            raise UsageFault(
                f"{folder}: no segmentations were kept, expected --set save_predictions=yes; only "
                f"the Dice of {folder / VALIDATION} is there"
            )
        yield os.path.realpath(case["image"]), folder / PREDICTIONS / case["prediction"]


def _of_program(source: DeepMedicSource, folder: Path) -> Iterator[tuple[str, Path]]:
    """First image of a case, and its segmentation by DeepMedic, named as its ``io.py`` does."""
    config = source.config
    refuse_unmeasurable(source, {"engine": "deepmedic"})
    suffix = (config.values.get(SUFFIXES) or {"segm": "Segm"})["segm"]
    home = folder / "predictions" / config.session / "predictions"
    for listed, name in zip(config.validation, config.predictions, strict=True):
        stem = name.removesuffix(".nii.gz").removesuffix(".nii")
        yield _first(listed), home / f"{stem}_{suffix}.nii.gz"


def _first(listed: Listed) -> str:
    """The first image that a case has; the engine names cases by it."""
    return os.path.realpath(next(file for file in listed.channels if file is not None))
