"""nnU-Net's predictions of held-out cases beside their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansynth.core.prediction import Prediction
from gansynth.core.schema import LabelArray
from gansynth.metrics.segmentation.evaluation import levels_of, of_volumes, with_levels
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.dataset import NIFTI
from gansynth_nnunet.source import NnunetSource

VALIDATION, TRUTH = "validation", "gt_segmentations"


def refuse_unmeasurable(source: NnunetSource) -> None:
    """Refuse cases whose predictions could not be measured after a training."""
    ending = str(source.dataset_json["file_ending"])
    if ending not in NIFTI:
        raise UsageFault(
            f"{source.name}: files end in {ending}, expected .nii.gz or .nii to measure label maps "
            "in mm; only nnU-Net's own Dice is there"
        )
    if not source.held_out_ids:
        raise UsageFault(
            f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold with "
            "some to measure, such as 0"
        )


def prediction_files(source: NnunetSource, folder: Path) -> dict[str, Prediction]:
    """Map held-out cases to predicted and true label maps, both on the grid of the raw files."""
    refuse_unmeasurable(source)
    truth, ending = source.plans.folder / TRUTH, str(source.dataset_json["file_ending"])
    files = {
        case: (folder / VALIDATION / f"{case}{ending}", truth / f"{case}{ending}")
        for case in source.held_out_ids
    }
    found = of_volumes(source, files, "let nnU-Net's training come to its end, which validates")
    saved = {case: folder / VALIDATION / f"{case}.npz" for case in found}

    def levels(file: Path) -> LabelArray:
        with np.load(file) as arrays:
            probabilities = arrays["probabilities"]  # (K, D, H, W), a file's axes reversed
        first = 0 if source.labels.regions else 1
        return levels_of(probabilities, range(first, len(probabilities))).T

    return with_levels(found, saved, levels)
