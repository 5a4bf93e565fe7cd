"""Pictures of the worst cases: the host's outlines over the image, with the true ones.

They are images of people, kept in the user's own report only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.benchmark.report.overlays import Overlay, Worst, overlay_png, worst_cases
from gansynth.benchmark.study import JOBS, Study
from gansynth.benchmark.worker import PREDICTIONS
from gansynth.errors import GansynthError
from gansynth.integrity import read_nifti
from gansynth.schema import FloatArray, LabelArray
from gansynth.sources.base import CaseSource


def overlays_of(document: Mapping[str, Any], study: Study, most: int = 6) -> list[Overlay]:
    """Pictures of the cases that a report should show; fewer where files are not at hand."""
    runs = {(r["arm"], r["n"], r["draw"], r["seed"]): r for r in document["runs"]}
    found = []
    for worst in worst_cases(document, most):
        run = runs[worst.arm, worst.n, worst.draw, worst.seed]
        name = run.get("predictions", {}).get(worst.case)
        if name is None or run["key"] is None:
            continue
        file = study.folder / JOBS / run["key"] / PREDICTIONS / name
        shown = _shown(study.source, worst.case, file)
        if shown is not None:
            found.append(_overlay(worst, overlay_png(*shown)))
    return found


def _overlay(worst: Worst, png: bytes) -> Overlay:
    return Overlay(
        case=worst.case,
        subject=worst.subject,
        arm=worst.arm,
        n=worst.n,
        draw=worst.draw,
        seed=worst.seed,
        measure=worst.measure,
        value=worst.value,
        caption="",
        png=png,
    )


def _shown(
    source: CaseSource, case: str, file: Path
) -> tuple[FloatArray, LabelArray, LabelArray] | None:
    """Image, truth and prediction of a case on one grid; None if that cannot be had."""
    try:
        if source.request.kind == "nnunet":
            return _raw(source, case, file)
        loaded = source.load(case)
        if loaded.labels is None:
            return None
        return loaded.image, loaded.labels, source.predicted(case, file)
    except GansynthError:
        return None


def _raw(source: Any, case: str, file: Path) -> tuple[FloatArray, LabelArray, LabelArray] | None:
    """The same of nnU-Net's raw files, as predictions are on their grid."""
    import numpy as np

    folder = source.root.raw / source.dataset / "imagesTr"
    images = sorted(folder.glob(f"{case}_0*"))
    truth = source.root.preprocessed / source.dataset / "gt_segmentations" / file.name
    if not images or not truth.is_file() or not file.is_file():
        return None
    arrays = [read_nifti(path).array for path in (images[0], truth, file)]
    image, labels, predicted = (np.ascontiguousarray(array.T) for array in arrays)
    return image[None].astype(np.float32), labels.astype(np.int16), predicted.astype(np.int16)
