"""Evaluation of a host on the real held-out cases, and its prediction files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.core.volumes import read_volume
from gansynth.data.case_writer import write_prediction
from gansynth.data.grid import whole_labels
from gansynth.data.picture_files import read_picture
from gansynth.metrics.segmentation.evaluation import (
    LabelMaps,
    Prediction,
    measure_counted,
    of_slices,
)
from gansynth.metrics.segmentation.measures import Regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json

METRICS = "metrics.json"
PREDICTIONS, LEVELS = "predictions", "levels"
WAY_OUT = "train it again, to its end"


def evaluate_held_out(
    source: CaseSource,
    regions: Regions,
    predict: Callable[[FloatArray], Sequence[LabelArray]],
    folder: Path | None,
    say: Callable[[str], None] = lambda line: None,
    *,
    count: Callable[[str, int, int], None] = lambda unit, done, total: None,
    levels: Path | None = None,
) -> dict[str, Any]:
    """Predict every real held-out case, and compare it with its label map if there is one.

    Args:
        regions: for Dice and HD95.
        predict: image of a case as ``source.load`` has it -> labels int16 of its shape, and if
            ``levels`` are asked for, those of the foreground: see ``levels_of``.
        folder: for label maps; None to write none.
        count: called with what is done, of how many.
        levels: for levels; None to write none.

    Returns:
        The document of ``Evaluation.document``, with ``predictions`` (case -> file, or None if none
        was written) and ``without_labels``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if folder is None else folder
        predictions: dict[str, Prediction] = {}
        written: dict[str, str | None] = {}
        without_labels: list[str] = []
        total = len(source.held_out_ids)
        for number, case_id in enumerate(source.held_out_ids):
            count("predict held-out case", number, total)
            case = source.load(case_id)
            labels, *foreground_levels = predict(case.image)
            if labels.shape != case.image.shape[1:]:
                raise DataFault(
                    "hosts.prediction-shape-differs",
                    f"case {case_id!r}: the prediction has shape {labels.shape}, expected "
                    f"{case.image.shape[1:]}, as the image",
                )
            if levels is not None:
                write_prediction(source, case_id, foreground_levels[0], levels, numbers={})
            file = write_prediction(source, case_id, labels, home)
            written[case_id] = None if file is None else file.relative_to(home).as_posix()
            if case.labels is None:
                without_labels.append(case_id)
            elif file is not None:
                predictions |= predictions_of(source, {case_id: file})
            else:  # a case without a file of its own is measured as it was loaded
                array = Path(scratch) / f"{number}.npy"
                np.save(array, labels)
                subject = source.header(case_id).subject
                read = partial(_on_grid, source, case_id, array)
                predictions[case_id] = Prediction(subject, None, read, source.unit)
        count("predict held-out case", total, total)
        if folder is not None and None in written.values():
            say(f"{source.name}: its cases have no files, so their label maps are not written")
        document = measure_counted(predictions, regions, source.schema.ignore, count)
    document |= {
        "predictions": written if folder is not None else {},
        "without_labels": without_labels,
    }
    return document


def _on_grid(source: CaseSource, case_id: str, prediction: Path) -> LabelMaps:
    """Read the label maps of a case without files, on the grid of ``source.load``.

    ``prediction``: file of NumPy with the predicted one.
    """
    truth = source.load(case_id).labels
    assert truth is not None, "``evaluate_held_out`` has left out cases without labels"
    return LabelMaps(np.load(prediction), truth, source.header(case_id).spacing)


def refuse_unmeasurable(source: CaseSource, *, saved: bool) -> None:
    """Reject a source whose predictions could not be measured after a training.

    ``saved``: whether the training writes them.
    """
    files = source.files(source.held_out_ids[0]) if source.held_out_ids else None
    if files is None or files.shape is None:
        why = (
            f"{source.name}: its cases have no files of their own, expected volumes or pictures: "
            "nifti:, msd:, pictures:, slices:"
        )
    elif not files.own_labels:
        why = (
            f"--read between={source.request.read['between']}: label maps differ from those of the "
            "files, expected files with every slice"
        )
    elif not saved:
        why = f"{source.name}: label maps are not saved, expected --set save_predictions=yes"
    else:
        return
    raise UsageFault(
        "hosts.held-out-predictions-not-measurable", f"{why}. Only its own {METRICS} is written"
    )


def prediction_files(source: CaseSource, folder: Path) -> dict[str, Prediction]:
    """Return held-out case -> predicted and true label map, without unlabelled cases.

    Both are on the grid of the case's own file, even if the source resamples.
    """
    refuse_unmeasurable(source, saved=True)
    document = read_json(folder / METRICS, hint=WAY_OUT)
    refuse_unmeasurable(source, saved=bool(document.get("predictions")))
    without_labels = set(document.get("without_labels", ()))
    files = {
        case: file
        for case, file in document["predictions"].items()
        if file is not None and case not in without_labels
    }
    predicted = {case: folder / PREDICTIONS / file for case, file in files.items()}
    found = predictions_of(source, predicted)
    return {
        case: each.with_levels(folder / LEVELS / files[case], _read_levels)
        for case, each in found.items()
    }


def _read_levels(file: Path) -> LabelArray:
    if file.suffix == ".png":
        return read_picture(file, "mask").astype(np.int16)
    return whole_labels(file, read_volume(file).array)


def predictions_of(source: CaseSource, files: Mapping[str, Path]) -> dict[str, Prediction]:
    """Pair the label maps that ``write_prediction`` wrote with the true ones."""
    if source.schema.ndim == 2:
        return of_slices(source, files, WAY_OUT)
    pairs, joined = {}, {}
    for case, file in files.items():
        own = source.files(case)
        if own is not None and own.truth is not None:
            pairs[case] = file, own.truth
        elif own is not None and own.arrays is not None:  # made of several files of labels
            joined[case] = file
    return Prediction.of_volumes(source, pairs, WAY_OUT) | of_slices(source, joined, WAY_OUT)
