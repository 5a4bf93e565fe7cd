"""What a training of DeepMedic leaves: its segmentations, and the counts of its subepochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth import Prediction, TrainingResult, UsageFault
from gansynth_deepmedic.source import DeepMedicSource

WAY_OUT = "train it again, to its end"


def rounds_of(folder: Path) -> list[Mapping[str, Any]]:
    """Return the counts of each subepoch in the record, when it was last trained on."""
    sessions = TrainingResult.sessions_in(folder)
    rounds = {counts["epoch"]: counts for session in sessions for counts in session["per_epoch"]}
    return list(rounds.values())


def refuse_unsaved(source: DeepMedicSource) -> None:
    """Reject a training that would save no segmentations of validation cases (UsageFault)."""
    config = source.config
    unseen = config.validates_on_samples and not config.validates_on_volumes
    saved = config.values.get("saveSegmentationVal", True)
    if unseen or not (source.held_out_ids and saved):
        raise UsageFault(
            "deepmedic.saves-no-segmentations",
            f"{config.path}: saves no segmentations of validation cases, expected such cases, "
            "validation of whole volumes, and not saveSegmentationVal = False",
        )


def predictions(source: DeepMedicSource, folder: Path) -> Mapping[str, Prediction]:
    """Return the segmentations that DeepMedic has made after its last validation of volumes."""
    if not TrainingResult.sessions_in(folder):
        raise UsageFault(
            "deepmedic.not-an-augment-folder",
            f"{folder}: has no gansynth_session.json, expected a folder that gansynth augment "
            "--target deepmedic wrote",
        )
    refuse_unsaved(source)
    config = source.config
    ending = (config.values.get("suffixForSegmAndProbsDictVal") or {"segm": "Segm"})["segm"]
    home = folder / "predictions" / config.session / "predictions"
    files = {
        case: (home / f"{case}_{ending}.nii.gz", source.entry(case).labels)
        for case in source.held_out_ids
    }
    return Prediction.of_volumes(source, files, WAY_OUT)
