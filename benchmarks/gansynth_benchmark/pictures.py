"""Pictures of the worst cases: predicted and true outlines over the image.

They are patient images and appear in the user's own report only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.runtime.errors import GansynthError
from gansynth_benchmark.report.overlays import Overlay, overlay_png, worst_cases
from gansynth_benchmark.study import JOBS, BenchmarkStudy
from gansynth_benchmark.worker import PREDICTIONS


def overlays_of(document: Mapping[str, Any], study: BenchmarkStudy, most: int = 6) -> list[Overlay]:
    """Return pictures of the worst cases for a report; cases without files are left out."""
    overlays = []
    for worst in worst_cases(document, most):
        run = worst.run
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
    """Return image, truth and prediction on the grid of a case's files; None if unreadable."""
    try:
        files = source.files(case)
        if files is None or files.arrays is None or files.read is None:
            return None
        image, truth = files.arrays()
        return None if truth is None else (image, truth, files.read(file))
    except GansynthError:
        return None
