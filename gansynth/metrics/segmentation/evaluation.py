"""Segmentation metrics of held-out cases, by case and by subject, for all target frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, Unpack

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.metrics.segmentation.regions import Regions, dice
from gansynth.metrics.segmentation.segmentation import MeasureOptions, measure_case
from gansynth.metrics.segmentation.table import LESIONS, SEGMENTATION

Values = dict[str, float | None]  # `dice/WT` -> its value; None for none
DETAILS = frozenset(
    ("per_subject", "per_case", "voxels", "regions", "rule", "predictions", "without_labels")
)
# counted over all slices
TOGETHER = ("dice", "lesion_sensitivity", "lesion_precision", "false_positives")
APART = ("false_alarms", "false_positive_volume")  # a slice is a case
RULE = (
    "A subject has the mean of its volumes. Slices of one volume or subject are put together: Dice "
    "and lesions are counted over all of them; distances are those of the volume where all "
    "subjects' slices follow one another without a gap ('distances': volumes), else the mean of "
    "those within each slice (slices). For false alarms and their volume each slice is a case. "
    "Where the truth has none of a region there is no Dice and no HD95 (null), whatever was "
    "predicted; where nothing of it was predicted, Dice is 0 and HD95 the diagonal of the image. "
    "Means are over the subjects that have a value"
)


@dataclass
class SegmentationEvaluation:
    """Metrics of a training's held-out cases; ``unit`` (``mm``, ``px``) is of distances.

    ``distances``: ``volumes``, or ``slices`` where computed within each, see ``RULE``. ``per_case``
    has each slice's own.
    """

    regions: Regions
    unit: str
    distances: str
    per_case: dict[str, Values] = field(default_factory=dict)
    per_subject: dict[str, Values] = field(default_factory=dict)
    voxels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def means(self) -> Values:
        """Means over the subjects that have a value; None where none has."""
        return _means(list(self.per_subject.values()))

    def document(self) -> dict[str, Any]:
        """Return everything as a JSON document."""
        return {
            **_by_measure(self.means()),
            "unit": self.unit,
            "distances": self.distances,
            "subjects": len(self.per_subject),
            "cases": len(self.per_case),
            "undefined": {name: self._undefined(name) for name, _ in self.regions},
            "per_subject": {s: _by_measure(values) for s, values in self.per_subject.items()},
            "per_case": {case: _by_measure(values) for case, values in self.per_case.items()},
            "voxels": self.voxels,
            "regions": {name: list(labels) for name, labels in self.regions},
            "rule": RULE,
        }

    def _undefined(self, region: str) -> dict[str, int]:
        each = [(of[region]["truth"], of[region]["predicted"]) for of in self.voxels.values()]
        missed = sum(truth > 0 and not predicted for truth, predicted in each)
        return {"no_truth": sum(not truth for truth, _ in each), "not_predicted": missed}


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """The means over subjects of an evaluation's document, without details."""
    return {key: value for key, value in document.items() if key not in DETAILS}


def evaluate(
    predictions: Mapping[str, Prediction], regions: Regions, **options: Unpack[MeasureOptions]
) -> SegmentationEvaluation:
    """Measure every held-out case of a training; ``options`` as of ``measure_case``.

    Raises DataFault, EnvironmentFault: a file is missing, damaged or on another grid. UsageFault:
    an invalid option.
    """
    options = {**MeasureOptions(measures=("dice", "hd95", *LESIONS)), **options}
    units = {prediction.unit for prediction in predictions.values()} or {"mm"}
    whole = _without_gaps(predictions.values())
    evaluation = SegmentationEvaluation(
        regions,
        "mm" if units == {"mm"} else "px",
        "volumes" if whole else "slices",
    )
    for subject, cases in groupby(
        sorted(predictions.items(), key=lambda item: _place(*item)), lambda item: item[1].subject
    ):
        units_of = [
            _measured(evaluation, dict(group), options) for _, group in groupby(cases, _stack)
        ]
        evaluation.per_subject[subject] = _means(units_of)
    return evaluation


def _place(case: str, prediction: Prediction) -> tuple[str, str, int, str]:
    """Sort key: subject, volume, and number of the slice."""
    at = prediction.position
    if at is None:
        return prediction.subject, case, 0, case
    return prediction.subject, at.stack, -1 if at.index is None else at.index, case


def _stack(item: tuple[str, Prediction]) -> str:
    case, prediction = item
    return case if prediction.position is None else f"slices of {prediction.position.stack}"


def _without_gaps(predictions: Iterable[Prediction]) -> bool:
    """Whether all slices are consecutive within their volumes, at known distances."""
    stacks: dict[tuple[str, str], list[int]] = {}
    for prediction in predictions:
        at = prediction.position
        if at is not None:
            if at.index is None or at.thickness is None:
                return False
            stacks.setdefault((prediction.subject, at.stack), []).append(at.index)
    return all(b - a == 1 for each in stacks.values() for a, b in pairwise(sorted(each)))


def _measured(
    evaluation: SegmentationEvaluation, cases: Mapping[str, Prediction], options: MeasureOptions
) -> Values:
    """Measure a volume, or slices that belong together."""
    maps = {case: prediction.read() for case, prediction in cases.items()}
    at = next(iter(cases.values())).position
    for case, both in maps.items():
        evaluation.per_case[case] = _of_maps(both, evaluation.regions, options)
        evaluation.voxels[case] = _voxels(both, evaluation.regions, options.get("ignore"))
    if at is None:
        return evaluation.per_case[next(iter(cases))]
    gaps = evaluation.distances == "slices"
    together = _stacked(list(maps.values()), 1.0 if gaps else at.thickness or 1.0, apart=gaps)
    names = options.get("measures", tuple(SEGMENTATION))
    counted = [name for name in names if (name in TOGETHER if gaps else name not in APART)]
    return _means([evaluation.per_case[case] for case in cases]) | _of_maps(
        together, evaluation.regions, {**options, "measures": counted}
    )


def _of_maps(both: LabelMaps, regions: Regions, options: MeasureOptions) -> Values:
    return measure_case(both.predicted, both.truth, both.spacing, regions, **options)


def _stacked(maps: Sequence[LabelMaps], thickness: float, apart: bool = False) -> LabelMaps:
    """Slices as a volume (D, H, W), padded with background; ``apart``: none touches another."""
    shape = np.max([both.truth.shape for both in maps], axis=0)
    step = 2 if apart else 1
    volumes = np.zeros((2, step * len(maps), *shape), np.int16)
    for number, both in enumerate(maps):
        rows, columns = both.truth.shape
        volumes[0, step * number, :rows, :columns] = both.predicted
        volumes[1, step * number, :rows, :columns] = both.truth
    return LabelMaps(volumes[0], volumes[1], (thickness, *maps[0].spacing))


def _voxels(both: LabelMaps, regions: Regions, ignore: int | None) -> dict[str, dict[str, int]]:
    scores = dice(both.predicted, both.truth, regions, ignore)
    return {
        name: {key: score[key] for key in ("truth", "predicted", "both")}
        for name, score in scores.items()
    }


def _means(each: Sequence[Mapping[str, float | None]]) -> Values:
    means: Values = {}
    for key in each[0] if each else ():
        values = [value for row in each if (value := row[key]) is not None]
        means[key] = sum(values) / len(values) if values else None
    return means


def _by_measure(values: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    table: dict[str, dict[str, float | None]] = {}
    for key, value in values.items():
        measure, _, region = key.partition("/")
        table.setdefault(measure, {})[region] = value
    return table
