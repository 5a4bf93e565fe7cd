"""nnU-Net's own predictions of training cases, brought to the voxels of its preprocessed cases."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gansynth.core.schema import LabelArray
from gansynth.data.pairs import mismatches, whole_labels
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_nifti
from gansynth_nnunet.check import NIFTI, RawSet, raw_cases

if TYPE_CHECKING:
    from gansynth_nnunet.source import NnunetSource


def preprocessed_labels(source: NnunetSource, case_id: str, file: Path) -> LabelArray:
    """Preprocess a label map exactly as nnU-Net preprocesses the case's own.

    Args:
        source: the preprocessed cases.
        case_id: one of them.
        file: a label map on the grid of its raw files.

    Returns:
        int16 (D, H, W), -1 outside.

    Raises:
        UsageFault: the raw data set is not there, or no NIfTI.
        DataFault: damaged, of another grid, or unknown labels.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw = _raw(source, case_id)
    volume, own = read_nifti(file), raw.labels[case_id]
    for problem in mismatches(file, volume, own, read_nifti(own)):
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
    found: LabelArray = labels[0].astype(np.int16)
    return found


def _raw(source: NnunetSource, case_id: str) -> RawSet:
    raw = raw_cases(source.root.raw / source.dataset)
    if case_id not in raw.labels or raw.ending not in NIFTI:
        raise UsageFault(
            f"{raw.folder}: has no NIfTI files of case {case_id!r}, expected those that "
            f"{source.name} was preprocessed from: predictions are on their grid. Bring them along"
        )
    return raw
