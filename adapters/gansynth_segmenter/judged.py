"""Where a segmenter leaves what it predicts of the held-out cases, and the truth beside it."""

from __future__ import annotations

from pathlib import Path

from gansynth.errors import UsageFault
from gansynth.integrity import read_json
from gansynth.measures.files import refuse_missing
from gansynth.sources.base import CaseSource
from gansynth.sources.volumes import VolumeSource

WAY_OUT = "train it again, to its end"


def judged_files(source: CaseSource, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Held-out case -> its predicted and its true label map; cases without labels are left out.

    Both are on the grid of the case's own files, also where the source resamples.

    Args:
        source: the cases.
        folder: that the training wrote.

    Raises:
        UsageFault: its cases are of no NIfTI file, their label maps are drawn between slices, or
            nothing was kept (``save_predictions=no``).
        DataFault: it has not come to its end, or lacks a file.
    """
    from gansynth_segmenter.judging import PREDICTIONS
    from gansynth_segmenter.session import METRICS

    own = f"only the Dice of {folder / METRICS} is there"
    if not isinstance(source, VolumeSource):
        raise UsageFault(
            f"{source.name}: its cases are of no NIfTI file, expected volumes to measure label "
            f"maps in mm: nifti:, msd:, nnunet-raw:; {own}"
        )
    if source.options.between is not None:
        raise UsageFault(
            f"--read between={source.options.between}: label maps are not those of their files, "
            f"expected files that have every slice; {own}"
        )
    document = read_json(folder / METRICS, way_out=WAY_OUT)
    if not document.get("predictions"):
        raise UsageFault(
            f"{folder}: no label maps were kept, expected --set save_predictions=yes; {own}"
        )
    found = {}
    for case in source.held_out_ids:
        truth = source.entry(case).labels
        if truth is not None:
            file = document["predictions"].get(case) or f"{case}.nii.gz"
            found[case] = folder / PREDICTIONS / file, truth
    refuse_missing(found, WAY_OUT)
    return found
