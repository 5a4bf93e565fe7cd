"""Four real subjects of BRATS 2015 as a DeepMedic data set: two to train on, two to validate on.

Tests that use them are marked ``data``: the subjects lie in ``../shared/data``, or nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deepmedic_sets import MODEL_VALUES, TRAIN_VALUES, Toy, write_config, write_lists

BRATS = Path(__file__).resolve().parents[1] / "../shared/data/brats2015_deepmedic"
TRAIN = ("brats_2013_pat0005_1", "brats_2013_pat0006_1")
VALIDATION = ("brats_2013_pat0003_1", "brats_2013_pat0004_1")
FILES: Mapping[str, str] = {
    "flair": "Flair_subtrMeanDivStd.nii.gz",
    "t1c": "T1c_subtrMeanDivStd.nii.gz",
    "labels": "OTMultiClass.nii.gz",
    "roi": "brainmask.nii.gz",
}
CLASSES = 5
"""Background, necrosis, oedema, non-enhancing and enhancing tumour."""
SHAPE = (155, 240, 240)
"""(D, H, W) of every subject."""


def brats_deepmedic(
    folder: Path,
    *,
    roi: bool = True,
    values: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Toy:
    """Write lists and both configurations; the volumes stay where they are.

    Args:
        folder: made where it is missing.
        roi: list the brain masks as regions of interest.
        values: further or other values of ``trainConfig.cfg``; None leaves a key out.
        model: further or other values of ``modelConfig.cfg``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.cfg").write_text("".join(f"pred_{case}.nii.gz\n" for case in VALIDATION))
    wanted: dict[str, Any] = {
        **TRAIN_VALUES,
        "sessionName": "brats",
        **_lists(folder, "Training", TRAIN, roi),
        "performValidationOnSamplesThroughoutTraining": True,
        "performFullInferenceOnValidationImagesEveryFewEpochs": True,
        **_lists(folder, "Validation", VALIDATION, roi),
        "numberValidationSegmentsLoadedOnGpuPerSubep": 40,
        "batchsize_val_samples": 10,
        "numberOfEpochsBetweenFullInferenceOnValImages": 1,
        "namesForPredictionsPerCaseVal": "./names.cfg",
        **(values or {}),
    }
    network = {**MODEL_VALUES, "numberOfOutputClasses": CLASSES, **(model or {})}
    return Toy(
        folder,
        write_config(folder / "trainConfig.cfg", wanted),
        write_config(folder / "modelConfig.cfg", network),
    )


def _lists(folder: Path, part: str, cases: Sequence[str], roi: bool) -> dict[str, Any]:
    """Write the list files of one part, absolute paths; the keys that name them."""
    return write_lists(
        folder, part, roi, lambda name: [str((BRATS / c / FILES[name]).resolve()) for c in cases]
    )
