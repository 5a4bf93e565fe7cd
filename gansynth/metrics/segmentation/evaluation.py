"""Segmentation metrics of held-out cases, by case and by subject, for all target frameworks.

The predicted label maps beside the true ones; their evaluation; the metrics file of a training;
measures at each of some thresholds, and the threshold of equal false alarms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import mask_of
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource, SlicePosition
from gansynth.core.volumes import read_volume
from gansynth.data.grid import mismatches, whole_labels
from gansynth.metrics.segmentation.measures import (
    AT_ALARMS,
    BY_SIZE,
    DICE_AT_ALARMS,
    FOREGROUND,
    LESIONS,
    OF_SIZES,
    SEGMENTATION,
    SIZES,
    MeasureOptions,
    Regions,
    cost_words,
    dice,
    measure_case,
)
from gansynth.runtime.errors import DataFault

# -- predictions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelMaps:
    """Both label maps of a case, (D, H, W) or (H, W), axes in any order, and their spacing."""

    predicted: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """One held-out case after a training; ``file``: None without a file of its label map.

    ``read`` reads both label maps, or raises ``DataFault`` if they cannot be compared. ``unit``:
    of the spacing, ``mm`` or ``px``. ``position``: of a 2D case. ``levels`` reads how many of
    ``THRESHOLDS`` the foreground's probability exceeds, on the grid
    of the label maps; None where the host kept no probabilities.
    """

    subject: str
    file: Path | None
    read: Callable[[], LabelMaps] = field(repr=False)
    unit: str = "mm"
    position: SlicePosition | None = None
    levels: Callable[[], npt.NDArray[Any]] | None = field(default=None, repr=False)

    @classmethod
    def of_volumes(
        cls, source: CaseSource, files: Mapping[str, tuple[Path, Path]], hint: str
    ) -> dict[str, Prediction]:
        """Pair predicted and true volumes, on their own grid; DataFault: a file is missing."""
        for case, pair in files.items():
            for kind, file in zip(("predicted", "true"), pair, strict=True):
                if not file.is_file():
                    raise DataFault(
                        "metrics.label-map-missing",
                        f"{file}: missing, expected the {kind} label map of case {case!r}; {hint}",
                    )
        return {
            case: cls(source.header(case).subject, predicted, _nifti(predicted, truth))
            for case, (predicted, truth) in files.items()
        }

    def with_levels(self, file: Path, read: Callable[[Path], LabelArray]) -> Prediction:
        """Add the levels that a file of levels or probabilities tells, if it is there."""
        return replace(self, levels=partial(read, file)) if file.is_file() else self

    @staticmethod
    def levels_of(probabilities: FloatArray, foreground: Sequence[int]) -> LabelArray:
        """Return how many of ``THRESHOLDS`` the foreground exceeds, int16 (D, H, W) or (H, W).

        Its probability is that of its likeliest label against the likeliest other one, so that
        above 0.5 the label map has a label.

        Args:
            probabilities: (K, D, H, W) or (K, H, W), by channel; independent ones if all are
                foreground.
            foreground: channels of labels above background.
        """
        others = [k for k in range(len(probabilities)) if k not in set(foreground)]
        best = probabilities[list(foreground)].max(0)
        rest = probabilities[others].max(0) if others else 1 - best
        levels = np.zeros(best.shape, np.int16)
        for threshold in THRESHOLDS:
            levels += best > rest * np.float32(threshold / (1 - threshold))
        return levels


def _nifti(predicted: Path, truth: Path) -> Callable[[], LabelMaps]:
    def read() -> LabelMaps:
        guess, true = read_volume(predicted), read_volume(truth)
        for problem in mismatches(predicted, guess, truth, true):
            raise DataFault("metrics.prediction-grid-differs", problem)
        spacing = np.linalg.norm(true.affine[:3, :3], axis=0).tolist()  # along the files' own axes
        ours, theirs = whole_labels(predicted, guess.array), whole_labels(truth, true.array)
        return LabelMaps(ours, theirs, tuple(spacing))

    return read


def of_slices(source: CaseSource, files: Mapping[str, Path], hint: str) -> dict[str, Prediction]:
    """Predictions beside cases' own arrays, on the grid of their files; DataFault: one is missing.

    Those of slices are PNG files.
    """
    for case, file in files.items():
        if not file.is_file():
            raise DataFault(
                "metrics.predicted-label-map-missing",
                f"{file}: missing, expected the predicted label map of case {case!r}; {hint}",
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
                raise DataFault(
                    "metrics.case-without-label-map",
                    f"{source.name}: case {case!r} has no label map, expected one",
                )
            return LabelMaps(read_labels(file), truth, spacing)

        return Prediction(source.header(case).subject, file, read, source.unit, own.position)

    return {case: prediction(case, file) for case, file in files.items()}


# -- an evaluation ---------------------------------------------------------------------------------


Values = dict[str, float | None]  # `dice/WT` -> its value; None for none
DETAILS = frozenset(
    ("per_subject", "per_case", "voxels", "regions", "rule", "predictions", "without_labels")
)
# counted over all slices
TOGETHER = ("dice", "lesion_sensitivity", "lesion_precision", "false_positives")
PER_SLICE = ("false_alarms", "false_positive_volume")  # a slice is a case
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
        document: dict[str, Any] = dict(_by_measure(self.means()))
        document |= {
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
        return document

    def _undefined(self, region: str) -> dict[str, int]:
        each = [(of[region]["truth"], of[region]["predicted"]) for of in self.voxels.values()]
        missed = [truth for truth, predicted in each if truth > 0 and not predicted]
        return {"no_truth": [truth for truth, _ in each].count(0), "not_predicted": len(missed)}


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """The means over subjects of an evaluation's document, without details."""
    return {key: value for key, value in document.items() if key not in DETAILS}


def measure_predictions(
    predictions: Mapping[str, Prediction], regions: Regions, **options: Unpack[MeasureOptions]
) -> SegmentationEvaluation:
    """Measure every held-out case of a training; ``options`` as of ``measure_case``.

    Raises DataFault, EnvironmentFault: a file is missing, damaged or on another grid. UsageFault:
    an invalid option.
    """
    options.setdefault("measures", ("dice", "hd95", *LESIONS))
    options.setdefault("by_size", True)
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
    for each in stacks.values():
        first, count = min(each), len(each)
        if sorted(each) != list(range(first, first + count)):
            return False
    return True


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
    together = _stacked(list(maps.values()), 1.0 if gaps else at.thickness or 1.0, gaps=gaps)
    names = options.get("measures", tuple(SEGMENTATION))
    counted = [name for name in names if (name in TOGETHER if gaps else name not in PER_SLICE)]
    counting = options.copy()
    counting["measures"] = counted
    means = _means([evaluation.per_case[case] for case in cases])
    return means | _of_maps(together, evaluation.regions, counting)


def _of_maps(both: LabelMaps, regions: Regions, options: MeasureOptions) -> Values:
    return measure_case(both.predicted, both.truth, both.spacing, regions, **options)


def _stacked(maps: Sequence[LabelMaps], thickness: float, gaps: bool = False) -> LabelMaps:
    """Slices as a volume (D, H, W), padded with background; ``gaps``: none touches another."""
    shape = np.max([both.truth.shape for both in maps], axis=0)
    step = 2 if gaps else 1
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
        column = [row[key] for row in each]
        values = [value for value in column if value is not None]
        means[key] = sum(values) / len(values) if values else None
    return means


def _by_measure(values: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    table: dict[str, dict[str, float | None]] = {}
    for key, value in values.items():
        measure, _, region = key.partition("/")
        table.setdefault(measure, {})[region] = value
    return table


# -- the metrics file ------------------------------------------------------------------------------


def measure_counted(
    predictions: Mapping[str, Prediction],
    regions: Regions,
    ignore: int | None,
    count: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Return the document of ``measure_predictions``; ``count(unit, done, of)`` while it measures.

    Raises what ``measure_predictions`` does.
    """
    numbers, total = itertools.count(), len(predictions)
    progress = partial(count, "measure held-out case")

    def read(prediction: Prediction) -> LabelMaps:
        progress(min(next(numbers), total), total)
        return prediction.read()

    counted = {case: replace(each, read=partial(read, each)) for case, each in predictions.items()}
    document = measure_predictions(counted, regions, ignore=ignore).document()
    progress(total, total)  # the last is measured, not only read
    return document


def lines_of(
    metrics: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> Iterator[tuple[str, ...]]:
    """Rows of a table of a headline, no two alike; nothing for metrics of another kind."""
    if not isinstance(metrics.get("hd95"), Mapping):
        return
    heads = ("Dice", "HD95", "sensitivity", "precision", "alarms", "FP voxels")
    rows: dict[tuple[str, ...], None] = {("region", *heads, "no truth", "missed"): None}
    for name in metrics["dice"]:
        values = [metrics.get(measure, {}).get(name) for measure in ("dice", "hd95", *LESIONS)]
        counts = [str(metrics["undefined"][name][key]) for key in ("no_truth", "not_predicted")]
        shown = [_shown(v, d) for v, d in zip(values, (3, 2, 3, 3, 3, 1), strict=True)]
        rows[(names or {}).get(name, name), *shown, *counts] = None
    yield from rows


def compared(
    arm: Mapping[str, Any],
    control: Mapping[str, Any],
    at_alarms: float | None = None,
    unequal: str = "",
) -> dict[str, Any]:
    """Differences arm - control of the foreground of two headlines, and a sentence on them.

    Empty for metrics of another kind. ``at_alarms``: that in Dice at equal false alarms;
    ``unequal``: why there is none.
    """
    changes: dict[str, float | None] = {} if at_alarms is None else {"dice@alarms": at_alarms}
    sizes = [key.partition("/")[0] for key in sorted(OF_SIZES)]
    for name in ("dice", "hd95", *LESIONS, *sizes):
        if all(isinstance(metrics.get(name), Mapping) for metrics in (arm, control)):
            ours, theirs = arm[name][FOREGROUND], control[name][FOREGROUND]
            changes[name] = None if None in (ours, theirs) else ours - theirs
    costs = cost_words({name: None if v is None else (v, None) for name, v in changes.items()})
    parts = [f"with samples: {costs}", *_by_size(changes), unequal, "one pair has no interval"]
    sentence = "; ".join(filter(None, parts))
    return {"difference": changes, "sentence": sentence} if changes else {}


def _by_size(changes: Mapping[str, float | None]) -> Iterator[str]:
    """Yield the change in sensitivity for each size of lesions that both had to find."""
    for size in SIZES:
        change = changes.get(f"lesion_sensitivity@{size}")
        if change is not None:
            yield f"{100 * change:+.1f} points of sensitivity for lesions of {size} voxels"


def lines_of_sizes(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows of a table by the size of lesions of a headline; nothing without lesions."""
    rows = []
    for size in SIZES:
        each = [metrics.get(f"{name}@{size}", {}).get(FOREGROUND) for name in BY_SIZE]
        if any(value is not None for value in each):
            rows.append((size, *[_shown(value, 3) for value in each]))
    if rows:
        yield from [("lesions of voxels", "sensitivity", "precision"), *rows]


def said_of(metrics: Mapping[str, Any]) -> str:
    """Describe the table in a sentence."""
    images = "volumes" if metrics["distances"] == "volumes" else "slices"
    return (
        f"means over {metrics['subjects']} real held-out subject(s) of {metrics['cases']} case(s), "
        f"HD95 within {images}, in {metrics['unit']}; sensitivity and precision are of lesions, "
        "alarms of cases without one; no truth and missed are numbers of cases:"
    )


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


# -- thresholds ------------------------------------------------------------------------------------


THRESHOLDS = (
    0.0001,
    0.001,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.95,
    0.98,
    0.99,
    0.999,
    0.9999,
)
"""Of the foreground's probability, dense at the ends, where trained networks have theirs."""
OWN = THRESHOLDS.index(0.5)
"""Number of the host's own threshold: the foreground of its label map."""
APART = 1.5  # times as many false alarms are no longer equal
AGREED = 0.99  # share of the foreground at ``OWN`` that the label map must have; ties may differ


def at_thresholds(
    predictions: Mapping[str, Prediction],
    labels: Sequence[int],
    by: Literal["case", "subject"],
    ignore: int | None = None,
) -> dict[str, dict[str, list[float | None]]]:
    """Measure the foreground, labels of these values, at each of ``THRESHOLDS``.

    Returns ``dice@alarms/foreground`` and so on -> case or subject -> its value at each. Raises
    DataFault: a case has no levels, or others than its label map.
    """
    table: dict[str, dict[str, list[float | None]]] = {}
    maps = {case: _levels(case, each, labels) for case, each in predictions.items()}
    regions = ((FOREGROUND, tuple(labels)),)
    for level in range(len(THRESHOLDS)):
        cut = {
            case: replace(each, read=partial(_cut, maps[case], labels[0], level))
            for case, each in predictions.items()
        }
        evaluation = measure_predictions(
            cut, regions, measures=tuple(AT_ALARMS.values()), ignore=ignore, by_size=False
        )
        units = evaluation.per_case if by == "case" else evaluation.per_subject
        for name, values in units.items():
            for key, value in values.items():
                rows = table.setdefault(key.replace("/", "@alarms/"), {})
                rows.setdefault(name, []).append(value)
    return table


def alarms_of(table: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[float]:
    """Return the false alarms at each threshold of what ``at_thresholds`` returned.

    They are ``false_alarms`` where cases without a lesion are judged, else the voxels of
    ``false_positive_volume``; the mean over cases or subjects.
    """
    for name in ("false_alarms", "false_positive_volume"):
        levels = zip(*table[f"{name}@alarms/foreground"].values(), strict=True)
        known = [[value for value in level if value is not None] for level in levels]
        if all(known):
            break
    return [sum(level) / len(level) for level in known]


class NearestAlarms(NamedTuple):
    """The threshold with as nearly as possible the control's false alarms, and both numbers."""

    level: int  # number of the threshold
    arm: float
    control: float

    @property
    def unequal(self) -> str:
        """In words that, and how far, they are not equal; empty if they are."""
        low, high = sorted((self.arm, self.control))
        if high <= APART * low:
            return ""
        mine, theirs = [f"{n:.0f}" if n >= 10 else f"{n:.2g}" for n in (self.arm, self.control)]
        return f"false alarms could not be made equal ({mine} against {theirs})"


def equal_alarms(alarms: Sequence[float], control: Sequence[float]) -> NearestAlarms:
    """Return the threshold with as many false alarms as the control at ``OWN``.

    Both are means at each of ``THRESHOLDS``. The nearest counts, of several the nearest to ``OWN``.
    A lower threshold counts as raising no fewer, though alarms may grow together.
    """
    both = np.maximum.accumulate(np.array([alarms, control])[:, ::-1], axis=1)[:, ::-1]
    off = np.round(np.abs(both[0] - both[1, OWN]), 9)
    level = min(range(len(off)), key=lambda n: (off[n], abs(n - OWN), -n))
    return NearestAlarms(level, float(both[0, level]), float(both[1, OWN]))


def gain_at_equal_alarms(
    arm: Mapping[str, Prediction],
    control: Mapping[str, Prediction],
    labels: Sequence[int],
    ignore: int | None = None,
) -> tuple[float | None, str]:
    """Return the difference in Dice of the foreground, both with as many alarms as the control.

    Of subjects that have one in both; None without any, or with words where alarms are not equal.
    Raises DataFault as ``at_thresholds``.
    """
    ours, theirs = [at_thresholds(each, labels, "subject", ignore) for each in (arm, control)]
    nearest = equal_alarms(alarms_of(ours), alarms_of(theirs))
    if nearest.unequal:
        return None, nearest.unequal
    differences = []
    for subject, values in ours[DICE_AT_ALARMS].items():
        found, expected = values[nearest.level], theirs[DICE_AT_ALARMS][subject][OWN]
        if found is not None and expected is not None:
            differences.append(found - expected)
    return sum(differences) / len(differences) if differences else None, ""


def _levels(case: str, prediction: Prediction, labels: Sequence[int]) -> LabelMaps:
    """Return levels in place of the predicted labels, whose foreground they must have."""
    if prediction.levels is None:
        raise DataFault(
            "metrics.probabilities-not-kept",
            f"case {case!r}: no probabilities were kept, expected them; train it again",
        )
    both, levels = prediction.read(), prediction.levels().astype(np.uint8)
    own, predicted = levels > OWN, mask_of(both.predicted, labels)
    least = AGREED * max(own.sum(), predicted.sum())
    if own.shape != predicted.shape or (own & predicted).sum() < least:
        raise DataFault(
            "metrics.probabilities-foreground-differs",
            f"case {case!r}: its probabilities have another foreground than its label map, "
            "expected the same grid and axes",
        )
    return replace(both, predicted=levels)


def _cut(both: LabelMaps, label: int, level: int) -> LabelMaps:
    return replace(both, predicted=np.where(both.predicted > level, label, 0))
