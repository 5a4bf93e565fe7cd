"""Where a segmenter leaves what it predicts of the held-out cases, and the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gansynth.core.prediction import Prediction
from gansynth.core.source import CaseSource
from gansynth.data.flat import FlatSource
from gansynth.data.nifti_source import VolumeSource
from gansynth.metrics.segmentation.predictions import of_slices, of_volumes
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json

PREDICTIONS = "predictions"
METRICS = "metrics.json"
WAY_OUT = "train it again, to its end"


def refuse_unmeasurable(source: CaseSource, *, kept: bool) -> None:
    """Refuse cases whose label maps could not be measured after a training.

    Raises:
        UsageFault: its cases are of no files, their label maps are drawn between slices, or
            nothing is kept (``save_predictions=no``).
    """
    if not isinstance(source, VolumeSource | FlatSource):
        raise UsageFault(
            f"{source.name}: its cases are of no files of their own, expected volumes or pictures "
            f"to measure label maps on: nifti:, msd:, nnunet-raw:, pictures:, slices:; only the "
            f"segmenter's own {METRICS} is there"
        )
    if isinstance(source, VolumeSource) and source.options.between is not None:
        raise UsageFault(
            f"--read between={source.options.between}: label maps are not those of their files, "
            f"expected files that have every slice; only the segmenter's own {METRICS} is there"
        )
    if not kept:
        raise UsageFault(
            f"{source.name}: no label maps are kept, expected --set save_predictions=yes; only the "
            f"segmenter's own {METRICS} is there"
        )


def judged_files(source: CaseSource, folder: Path) -> dict[str, Prediction]:
    """Held-out case -> its predicted and its true label map; cases without labels are left out.

    Both are on the grid of the case's own file, also where the source resamples.

    Raises:
        UsageFault: as ``refuse_unmeasurable``.
        DataFault: it has not come to its end, or lacks a file.
    """
    refuse_unmeasurable(source, kept=True)
    document = read_json(folder / METRICS, way_out=WAY_OUT)
    refuse_unmeasurable(source, kept=bool(document.get("predictions")))
    bare = set(document.get("without_labels", ()))
    return predictions_of(
        source,
        {
            case: folder / PREDICTIONS / file
            for case, file in document["predictions"].items()
            if file is not None and case not in bare
        },
    )


def predictions_of(source: CaseSource, files: Mapping[str, Path]) -> dict[str, Prediction]:
    """Label maps that ``write_prediction`` wrote, each with the case's own beside it.

    Raises:
        DataFault: a file is missing.
    """
    if isinstance(source, FlatSource):
        return of_slices(source, files, WAY_OUT)
    assert isinstance(source, VolumeSource), "no other cases have files"
    pairs = {}
    for case, file in files.items():
        truth = source.entry(case).labels
        if truth is not None:
            pairs[case] = file, truth
    return of_volumes(source, pairs, WAY_OUT)
