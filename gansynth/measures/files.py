"""Cases measured as a host's files have them: on their own grid, in their own mm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import numpy as np

from gansynth.errors import DataFault
from gansynth.integrity import read_nifti
from gansynth.measures.regions import Regions
from gansynth.measures.segmentation import Options, measure_case
from gansynth.sources.pairs import mismatches, whole_labels


def measure_files(
    predicted: Path, truth: Path, regions: Regions, **options: Unpack[Options]
) -> dict[str, float | None]:
    """Measure a label map in a NIfTI file against the true one.

    Args:
        predicted: of one case.
        truth: of the same grid.
        regions: see ``gansynth.measures.regions.with_labels``.
        options: as ``measure_case``.

    Raises:
        DataFault: a file is missing, damaged, or no label map; or their grids differ.
        EnvironmentFault: a file may not be read.
        UsageFault: an option that cannot be.
    """
    found, own = read_nifti(predicted), read_nifti(truth)
    for problem in mismatches(predicted, found, truth, own):
        raise DataFault(problem)
    spacing = np.linalg.norm(own.affine[:3, :3], axis=0).tolist()  # along the files' own axes
    ours, theirs = whole_labels(predicted, found.array), whole_labels(truth, own.array)
    return measure_case(ours, theirs, spacing, regions, **options)


def measure_predictions(
    judged: Mapping[str, tuple[Path, Path]], regions: Regions, **options: Unpack[Options]
) -> dict[str, dict[str, float | None]]:
    """Measure every case of a finished training.

    Args:
        judged: case -> its predicted and its true label map; see ``Adapter.judged``.
        regions: see ``gansynth.measures.regions.with_labels``.
        options: as ``measure_case``.

    Returns:
        Case -> key -> value.

    Raises:
        DataFault, EnvironmentFault, UsageFault: as ``measure_files``.
    """
    return {case: measure_files(*pair, regions, **options) for case, pair in judged.items()}


def refuse_missing(judged: Mapping[str, tuple[Path, Path]], way_out: str) -> None:
    """Refuse a training whose label maps are not all there, before any is read.

    Raises:
        DataFault: naming the first file that is missing.
    """
    for case, pair in judged.items():
        for what, file in zip(("predicted", "true"), pair, strict=True):
            if not file.is_file():
                raise DataFault(
                    f"{file}: missing, expected the {what} label map of case {case!r}; {way_out}"
                )
