"""Where nnU-Net leaves what it predicts of its held-out cases, and the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.prediction import Prediction
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet.check import NIFTI

if TYPE_CHECKING:
    from gansynth_nnunet.source import NnunetSource

VALIDATION, TRUTH = "validation", "gt_segmentations"


def refuse_unmeasurable(source: NnunetSource) -> None:
    """Refuse cases whose label maps could not be measured after a training.

    Raises:
        UsageFault: no case is held out, or files are no NIfTI.
    """
    ending = str(source.dataset_json["file_ending"])
    if ending not in NIFTI:
        raise UsageFault(
            f"{source.name}: files end in {ending}, expected .nii.gz or .nii to measure label maps "
            "in mm; only nnU-Net's own Dice is there"
        )
    if not source.held_out_ids:
        raise UsageFault(
            f"--fold {source.fold}: {source.name} holds no case out, expected a fold with some to "
            "measure, such as 0"
        )


def judged_files(source: NnunetSource, folder: Path) -> dict[str, Prediction]:
    """Held-out case -> its predicted and its true label map, both on the grid of the raw files.

    Args:
        source: the cases.
        folder: nnU-Net's output folder of a fold.

    Raises:
        UsageFault: as ``refuse_unmeasurable``.
        DataFault: nnU-Net has not validated.
    """
    refuse_unmeasurable(source)
    truth, ending = source.plans.folder / TRUTH, str(source.dataset_json["file_ending"])
    found = {
        case: (folder / VALIDATION / f"{case}{ending}", truth / f"{case}{ending}")
        for case in source.held_out_ids
    }
    return of_volumes(source, found, "let nnU-Net's training come to its end, which validates")
