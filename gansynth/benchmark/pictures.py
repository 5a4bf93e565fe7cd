"""Pictures of the worst cases: predicted and true outlines over the image.

They are patient images and appear in the user's own report only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.benchmark.report.overlays import Overlay, overlay_png, worst_cases
from gansynth.benchmark.study import JOBS, BenchmarkStudy
from gansynth.benchmark.worker import PREDICTIONS
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.files import read_nifti


def overlays_of(document: Mapping[str, Any], study: BenchmarkStudy, most: int = 6) -> list[Overlay]:
    """Return pictures of the worst cases for a report; cases without files are left out."""
    overlays = []
    for worst in worst_cases(document, most):
        run = worst.run.value
        home = study.folder / JOBS / run["key"] / PREDICTIONS
        by_subject = run.get("by") == "subject"
        files = {
            case: home / name
            for case, name in run.get("predictions", {}).items()
            if (document["subjects"][case] if by_subject else case) == worst.case
        }
        each = [_shown(study.source, case, file) for case, file in files.items()]
        parts = [part for part in each if part is not None]
        if parts:
            overlays.append(Overlay(worst, overlay_png(*_together(parts))))
    return overlays


Shown = tuple[FloatArray, LabelArray, LabelArray]
"""Image, truth and prediction of a case on one grid."""


def _together(parts: Sequence[Shown]) -> Shown:
    """Return one part unchanged; stack several slices as (C, D, H, W), padded to the largest."""
    if len(parts) == 1:
        return parts[0]
    shape = np.max([truth.shape for _, truth, _ in parts], axis=0)

    def padded(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        each = [
            np.pad(
                array,
                [(0, 0)] * (array.ndim - 2)
                + [(0, int(n - m)) for n, m in zip(shape, array.shape[-2:], strict=True)],
            )
            for array in arrays
        ]
        return np.stack(each, axis=-3)

    image, truth, predicted = map(padded, zip(*parts, strict=True))
    return image, truth, predicted


def _shown(source: CaseSource, case: str, file: Path) -> Shown | None:
    """Return image, truth and prediction of a case on one grid; None if they cannot be read."""
    try:
        if source.request.kind == "nnunet":
            return _raw(source, case, file)
        loaded = source.load(case)
        if loaded.labels is None:
            return None
        return loaded.image, loaded.labels, source.predicted(case, file)
    except GansynthError:
        return None


def _raw(source: Any, case: str, file: Path) -> Shown | None:
    """Return the same from nnU-Net's raw files, whose grid the predictions have."""
    folder = source.root.raw / source.dataset / "imagesTr"
    images = sorted(folder.glob(f"{case}_0*"))
    truth = source.root.preprocessed / source.dataset / "gt_segmentations" / file.name
    if not images or not truth.is_file() or not file.is_file():
        return None
    arrays = [read_nifti(path).array for path in (images[0], truth, file)]
    image, labels, predicted = (np.ascontiguousarray(array.T) for array in arrays)
    return image[None].astype(np.float32), labels.astype(np.int16), predicted.astype(np.int16)
