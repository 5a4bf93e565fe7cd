"""Evaluation of a segmenter on the real held-out cases, and its prediction files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.data.case_writer import write_prediction
from gansynth.data.pairs import whole_labels
from gansynth.data.picture_files import read_picture
from gansynth.metrics.segmentation.evaluation import RULE, evaluate
from gansynth.metrics.segmentation.predictions import of_slices, of_volumes, with_levels
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json, read_nifti
from gansynth_segmenter.record import METRICS

if TYPE_CHECKING:
    from gansynth_segmenter.inference import Segmenter

PREDICTIONS, LEVELS = "predictions", "levels"
WAY_OUT = "train it again, to its end"


def evaluate_held_out(
    segmenter: Segmenter,
    source: CaseSource,
    folder: Path | None,
    say: Callable[[str], None] = lambda line: None,
    *,
    levels: Path | None = None,
) -> dict[str, Any]:
    """Predict every real held-out case, and compare it with its label map if there is one.

    Args:
        folder: for label maps; None to write none.
        levels: for levels of the foreground, see ``levels_of``; None to write none.

    Returns:
        The document of ``Evaluation.document``, with ``predictions`` (case -> file, or None if none
        was written) and ``without_labels``.

    Raises:
        DataFault: a case cannot be read.
        EnvironmentFault: the disk refuses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if folder is None else folder
        predictions: dict[str, Prediction] = {}
        written: dict[str, str | None] = {}
        bare: list[str] = []
        for number, case_id in enumerate(source.held_out_ids):
            case = source.load(case_id)
            if levels is None:
                labels = segmenter.predict(case.image)
            else:
                labels, above = segmenter.predict_levels(case.image)
                write_prediction(source, case_id, above, levels, encode=False)
            file = write_prediction(source, case_id, labels, home)
            written[case_id] = None if file is None else file.relative_to(home).as_posix()
            if case.labels is None:
                bare.append(case_id)
            elif file is not None:
                predictions |= predictions_of(source, {case_id: file})
            else:
                place = Path(scratch) / f"{number}.npy"
                np.save(place, labels)
                predictions[case_id] = _kept(source, case_id, place)
        if folder is not None and None in written.values():
            say(f"{source.name}: its cases have no files, so their label maps are not written")
        document = evaluate(
            predictions, segmenter.regions, ignore=segmenter.schema.ignore
        ).document()
    return {
        **document,
        "predictions": written if folder is not None else {},
        "without_labels": bare,
    }


def _kept(source: CaseSource, case_id: str, place: Path) -> Prediction:
    """Return the prediction of a case without files, on the grid of ``source.load``."""

    def read() -> LabelMaps:
        truth = source.load(case_id).labels
        assert truth is not None, "has been looked at"
        return LabelMaps(np.load(place), truth, source.header(case_id).spacing)

    return Prediction(source.header(case_id).subject, None, read, source.unit)


def evaluate_pairs(
    segmenter: Segmenter, pairs: Iterable[tuple[FloatArray, LabelArray]]
) -> dict[str, Any]:
    """See ``gansynth_segmenter.judge``."""
    predictions: dict[str, Prediction] = {}
    for number, (image, labels) in enumerate(pairs):
        if labels.shape != image.shape[1:]:
            raise DataFault(
                f"pair {number}: labels have shape {labels.shape}, image {image.shape[1:]}, "
                "expected equal"
            )
        maps = LabelMaps(segmenter.predict(image), labels, segmenter.schema.spacing)
        predictions[str(number)] = Prediction(str(number), None, lambda maps=maps: maps)  # type: ignore[misc]
    document = evaluate(predictions, segmenter.regions, ignore=segmenter.schema.ignore).document()
    return {
        **{key: document[key] for key in ("dice", "hd95", "regions")},
        "per_case": list(document["per_case"].values()),
        "rule": RULE,
    }


def refuse_unmeasurable(source: CaseSource, *, saved: bool) -> None:
    """Reject cases whose label maps could not be measured after a training."""
    files = source.files(source.held_out_ids[0]) if source.held_out_ids else None
    if files is None or files.shape is None:
        raise UsageFault(
            f"{source.name}: its cases have no files of their own, expected volumes or pictures: "
            f"nifti:, msd:, nnunet-raw:, pictures:, slices:. Only the segmenter's own {METRICS} "
            "is written"
        )
    if not files.own_labels:
        raise UsageFault(
            f"--read between={source.request.read['between']}: label maps differ from those of the "
            f"files, expected files with every slice. Only the segmenter's own {METRICS} is "
            "written"
        )
    if not saved:
        raise UsageFault(
            f"{source.name}: label maps are not saved, expected --set save_predictions=yes. Only "
            f"the segmenter's own {METRICS} is written"
        )


def prediction_files(source: CaseSource, folder: Path) -> dict[str, Prediction]:
    """Return held-out case -> predicted and true label map, without unlabelled cases.

    Both are on the grid of the case's own file, even if the source resamples.

    Raises:
        UsageFault: as ``refuse_unmeasurable``.
        DataFault: the training has not ended, or a file is missing.
    """
    refuse_unmeasurable(source, saved=True)
    document = read_json(folder / METRICS, hint=WAY_OUT)
    refuse_unmeasurable(source, saved=bool(document.get("predictions")))
    bare = set(document.get("without_labels", ()))
    files = {
        case: file
        for case, file in document["predictions"].items()
        if file is not None and case not in bare
    }
    found = predictions_of(source, {c: folder / PREDICTIONS / file for c, file in files.items()})
    return with_levels(found, {c: folder / LEVELS / files[c] for c in found}, _levels)


def _levels(file: Path) -> LabelArray:
    if file.suffix == ".png":
        return read_picture(file, "mask").astype(np.int16)
    return whole_labels(file, read_nifti(file).array)


def predictions_of(source: CaseSource, files: Mapping[str, Path]) -> dict[str, Prediction]:
    """Pair the label maps that ``write_prediction`` wrote with the true ones."""
    if source.schema.ndim == 2:
        return of_slices(source, files, WAY_OUT)
    pairs = {}
    for case, file in files.items():
        own = source.files(case)
        if own is not None and own.truth is not None:
            pairs[case] = file, own.truth
    return of_volumes(source, pairs, WAY_OUT)
