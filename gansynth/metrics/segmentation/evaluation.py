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
from gansynth.metrics.segmentation.table import SEGMENTATION

Values = dict[str, float | None]  # `dice/WT` -> its value; None for none
DETAILS = frozenset(
    ("per_subject", "per_case", "voxels", "regions", "rule", "predictions", "without_labels")
)
LESIONS = ("lesion_sensitivity", "lesion_precision", "false_positives")
RULE = (
    "A subject has the mean of its volumes. Slices of one volume or subject are put together: Dice "
    "and lesions are counted over all of them; distances are those of the volume where all "
    "subjects' slices follow one another without a gap ('distances': volumes), else the mean of "
    "those within each slice (slices). Where the truth has none of a region there is no Dice and "
    "no HD95 (null), whatever was predicted; where nothing of it was predicted, Dice is 0 and HD95 "
    "the diagonal of the image. Means are over the subjects that have a value"
)


@dataclass
class UndefinedCounts:
    """How often HD95 of a region lacks a surface, over volumes (or slices)."""

    images: int = 0
    no_truth: int = 0
    no_truth_predicted: int = 0
    not_predicted: int = 0

    def add(self, truth: int, predicted: int) -> None:
        """Count an image by its numbers of voxels."""
        self.images += 1
        self.no_truth += truth == 0
        self.no_truth_predicted += truth == 0 and predicted > 0
        self.not_predicted += truth > 0 and predicted == 0


@dataclass
class SegmentationEvaluation:
    """Metrics of a training's held-out cases; ``unit`` (``mm``, ``px``) is of distances.

    ``distances``: ``volumes``, or ``slices`` where computed within each, see ``RULE``. ``per_case``
    has each slice's own.
    """

    regions: Regions
    unit: str
    distances: str
    subject_of: dict[str, str] = field(default_factory=dict)
    per_case: dict[str, Values] = field(default_factory=dict)
    per_subject: dict[str, Values] = field(default_factory=dict)
    voxels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    counts: dict[str, UndefinedCounts] = field(default_factory=dict)

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
            "undefined": {name: vars(counts) for name, counts in self.counts.items()},
            "per_subject": {s: _by_measure(values) for s, values in self.per_subject.items()},
            "per_case": {case: _by_measure(values) for case, values in self.per_case.items()},
            "voxels": self.voxels,
            "regions": {name: list(labels) for name, labels in self.regions},
            "rule": RULE,
        }


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
    options = {**MeasureOptions(measures=("dice", "hd95")), **options}
    units = {prediction.unit for prediction in predictions.values()} or {"mm"}
    whole = _without_gaps(predictions.values())
    evaluation = SegmentationEvaluation(
        regions,
        "mm" if units == {"mm"} else "px",
        "volumes" if whole else "slices",
        {case: prediction.subject for case, prediction in predictions.items()},
        counts={name: UndefinedCounts() for name, _ in regions},
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
    """Measure a volume, or slices that belong together, and update the counts."""
    maps = {case: prediction.read() for case, prediction in cases.items()}
    at = next(iter(cases.values())).position
    ignore = options.get("ignore")
    for case, both in maps.items():
        evaluation.per_case[case] = _of_maps(both, evaluation.regions, options)
        evaluation.voxels[case] = _voxels(both, evaluation.regions, ignore)
        if at is None or evaluation.distances == "slices":
            _count(evaluation.counts, evaluation.voxels[case])
    if at is None:
        return evaluation.per_case[next(iter(cases))]
    if evaluation.distances == "slices":
        each = [evaluation.per_case[case] for case in cases]
        return _of_slices(list(maps.values()), each, evaluation.regions, options)
    volume = _stacked(list(maps.values()), at.thickness or 1.0)
    _count(evaluation.counts, _voxels(volume, evaluation.regions, ignore))
    return _of_maps(volume, evaluation.regions, options)


def _of_maps(both: LabelMaps, regions: Regions, options: MeasureOptions) -> Values:
    return measure_case(both.predicted, both.truth, both.spacing, regions, **options)


def _of_slices(
    maps: Sequence[LabelMaps], each: Sequence[Values], regions: Regions, options: MeasureOptions
) -> Values:
    """Slices with gaps: overlaps and lesions over all of them, mean distances within each."""
    measures = options.get("measures", tuple(SEGMENTATION))
    counted = tuple(name for name in measures if name == "dice" or name in LESIONS)
    values = _means(each)
    if counted:
        apart = _stacked(maps, 1.0, apart=True)
        values |= _of_maps(apart, regions, {**options, "measures": counted})
    return values


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


def _count(counts: Mapping[str, UndefinedCounts], voxels: Mapping[str, Mapping[str, int]]) -> None:
    for name, numbers in voxels.items():
        counts[name].add(numbers["truth"], numbers["predicted"])


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
