"""The predicted label map of each held-out case, with the true one beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.core.schema import LabelArray
from gansynth.core.source import CaseSource
from gansynth.data.pairs import mismatches, whole_labels
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_nifti


def of_volumes(
    source: CaseSource, files: Mapping[str, tuple[Path, Path]], hint: str
) -> dict[str, Prediction]:
    """Predictions in NIfTI files, on their own grid, in mm; DataFault: a file is missing."""
    for case, pair in files.items():
        for kind, file in zip(("predicted", "true"), pair, strict=True):
            if not file.is_file():
                raise DataFault(
                    f"{file}: missing, expected the {kind} label map of case {case!r}; {hint}"
                )
    return {
        case: Prediction(source.header(case).subject, predicted, _nifti(predicted, truth))
        for case, (predicted, truth) in files.items()
    }


def _nifti(predicted: Path, truth: Path) -> Callable[[], LabelMaps]:
    def read() -> LabelMaps:
        guess, true = read_nifti(predicted), read_nifti(truth)
        for problem in mismatches(predicted, guess, truth, true):
            raise DataFault(problem)
        spacing = np.linalg.norm(true.affine[:3, :3], axis=0).tolist()  # along the files' own axes
        ours, theirs = whole_labels(predicted, guess.array), whole_labels(truth, true.array)
        return LabelMaps(ours, theirs, tuple(spacing))

    return read


def of_slices(source: CaseSource, files: Mapping[str, Path], hint: str) -> dict[str, Prediction]:
    """Predictions in PNG files, on the pixels of the cases' files; DataFault: one is missing."""
    for case, file in files.items():
        if not file.is_file():
            raise DataFault(
                f"{file}: missing, expected the predicted label map of case {case!r}; {hint}"
            )

    def prediction(case: str, file: Path) -> Prediction:
        own = source.files(case)
        assert own is not None
        assert own.arrays is not None
        assert own.read is not None
        arrays, read_labels, spacing = own.arrays, own.read, own.spacing

        def read() -> LabelMaps:
            _, truth = arrays()
            if truth is None:
                raise DataFault(f"{source.name}: case {case!r} has no label map, expected one")
            return LabelMaps(read_labels(file), truth, spacing)

        return Prediction(source.header(case).subject, file, read, source.unit, own.position)

    return {case: prediction(case, file) for case, file in files.items()}


def with_levels(
    predictions: Mapping[str, Prediction],
    files: Mapping[str, Path],
    read: Callable[[Path], LabelArray],
) -> dict[str, Prediction]:
    """Add the levels of those cases whose file of levels or probabilities is there."""
    return {
        case: replace(prediction, levels=partial(read, files[case]))
        if files[case].is_file()
        else prediction
        for case, prediction in predictions.items()
    }
