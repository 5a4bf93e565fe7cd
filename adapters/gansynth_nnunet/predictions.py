"""nnU-Net's predictions: of held-out cases beside their truth, and as preprocessed arrays."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np

from gansynth.core.prediction import Prediction
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.data.pairs import mismatches, whole_labels
from gansynth.metrics.segmentation.evaluation import levels_of, of_volumes, with_levels
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_nifti
from gansynth_nnunet.dataset import NIFTI, RawSet, raw_cases
from gansynth_nnunet.plans import Preprocessed

VALIDATION, TRUTH = "validation", "gt_segmentations"


def refuse_unmeasurable(source: Preprocessed) -> None:
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


def prediction_files(source: Preprocessed, folder: Path) -> dict[str, Prediction]:
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


def raw_labels(file: Path) -> LabelArray:
    """Read a label map on the raw files' grid: int16 (D, H, W), axes reversed from the file's."""
    return np.ascontiguousarray(whole_labels(file, read_nifti(file).array).T)


def raw_arrays(source: Preprocessed, case_id: str) -> tuple[FloatArray, LabelArray | None]:
    """Read a raw case, image (C, D, H, W) and labels (D, H, W), axes reversed from the file's.

    Raises UsageFault: the raw data set is missing, or not NIfTI.
    """
    raw = _raw(source, case_id)
    arrays = [read_nifti(image).array.T for image in raw.images[case_id]]
    return np.stack(arrays).astype(np.float32), raw_labels(raw.labels[case_id])


def preprocessed_labels(source: Preprocessed, case_id: str, file: Path) -> LabelArray:
    """Preprocess a label map on the raw files' grid like its case: int16 (D, H, W).

    Raises:
        UsageFault: the raw data set is missing, or not NIfTI.
        DataFault: damaged, of another grid, or unknown labels.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw = _raw(source, case_id)
    volume, reference = read_nifti(file), raw.labels[case_id]
    for problem in mismatches(file, volume, reference, read_nifti(reference)):
        raise DataFault(problem)
    values = set(np.unique(whole_labels(file, volume.array)).tolist())
    if values - source.labels.allowed:
        raise DataFault(
            f"{file}: label value(s) {sorted(values - source.labels.allowed)} unknown, expected "
            f"among {sorted(source.labels.allowed)}; predict again with a model of this data set"
        )
    plans = PlansManager(dict(source.plans.doc))
    config = plans.get_configuration(source.configuration)
    with contextlib.redirect_stdout(io.StringIO()):
        preprocessor = config.preprocessor_class(verbose=False)
        images = [str(image) for image in raw.images[case_id]]
        _, labels, _ = preprocessor.run_case(
            images, str(file), plans, config, dict(source.dataset_json)
        )
    preprocessed: LabelArray = labels[0].astype(np.int16)
    return preprocessed


def _raw(source: Preprocessed, case_id: str) -> RawSet:
    raw = raw_cases(source.root.raw / source.dataset)
    if case_id not in raw.labels or raw.ending not in NIFTI:
        raise UsageFault(
            f"{raw.folder}: has no NIfTI files of case {case_id!r}, expected those that "
            f"{source.name} was preprocessed from: predictions are on their grid. Bring them along"
        )
    return raw
