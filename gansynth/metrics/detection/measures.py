"""Detection metrics: sensitivity, FROC and average precision, with intervals over patients.

They are sums over COCO's ``evalImgs`` (``match``). A resample is a weight of each patient; arms
share resamples, so that differences are paired. COCO's own accumulation gives the same numbers, one
resample at a time and some 20 times slower, so numpy accumulates here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.metrics.detection.matching import (
    COCO_IOUS,
    CONFIDENCE,
    FEW_PATIENTS,
    IOUS,
    MISS,
    Flags,
    Interval,
    MatchedDetections,
    counted,
    estimate,
    everyone,
    interval,
    known,
    match,
    over_resamples,
    ratio,
    resamples,
)
from gansynth.metrics.detection.record import Array, Detections
from gansynth.metrics.detection.volumes import LesionVolumes, places

MAP_IOU = 0.5
COCO_MOST = 100  # detections of an image and class that count in COCO's mAP
COCO_RECALLS = np.linspace(0, 1, 101)
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per slice of the FROC score, as in the LUNA16 challenge (there per scan). The
score is the mean."""
DRAWN = np.geomspace(1 / 32, 64, 133)
"""False positives per slice at which a curve is stored for plots."""
TINY = 1e-9


# -- measures of resamples -----------------------------------------------------------------------


def sensitivity(
    found: MatchedDetections,
    iou: float,
    weights: Array,
    confidence: float = CONFIDENCE,
    label: int | None = None,
) -> Array:
    """Share (B,) of lesions, of all or a class, hit at a confidence; nan without lesions."""
    chosen = np.ones(len(found.true_labels), bool) if label is None else found.true_labels == label
    sure = (found.hits[iou] != MISS) & (found.scores >= confidence)
    sure[sure] = chosen[found.hits[iou][sure]]
    return ratio(
        found.weighted(found.owner[sure], weights),
        found.weighted(found.true_owner[chosen], weights),
    )


def false_positives(
    found: MatchedDetections,
    iou: float,
    weights: Array,
    confidence: float = CONFIDENCE,
    label: int | None = None,
) -> Array:
    """False positives per slice (B,), of all or a class, at a confidence."""
    sure = (found.hits[iou] == MISS) & (found.scores >= confidence)
    if label is not None:
        sure &= found.labels == label
    return ratio(found.weighted(found.owner[sure], weights), found.weighted(found.subject, weights))


@dataclass(frozen=True)
class FrocCurves:
    """FROC curves of B resamples, J points each, rising, float64 (B, J); nan without lesions."""

    fps: Array
    sensitivity: Array

    @property
    def end(self) -> Array:
        """(B,): false positives per slice at which a curve ends."""
        return self.fps[:, -1]

    def at(self, fps: Array | Sequence[float] | float) -> Array:
        """Sensitivity (B, G) at (G,) or (B, G) false positives per slice, constant past the end."""
        rates = np.atleast_1d(np.asarray(fps, float))
        rates = np.broadcast_to(rates, (len(self.fps), rates.shape[-1]))
        return np.stack(
            [np.interp(*row) for row in zip(rates, self.fps, self.sensitivity, strict=True)]
        )


def froc(found: MatchedDetections, iou: float, weights: Array) -> FrocCurves:
    """Sensitivity against false positives per slice, classes pooled, for weights (B, P).

    A curve has a point for every distinct confidence. It starts at (0, 0), is linear between
    points, and is constant after the last detection.
    """
    order = np.argsort(-found.scores, kind="stable")
    hit, owner = found.hits[iou][order] != MISS, found.owner[order]
    # Detections of equal score are one group. Only groups that hit something raise the curve.
    # Groups between two of them, or after the last, are one step to the right.
    group = np.cumsum(np.diff(found.scores[order], prepend=np.inf) != 0)
    rising = np.unique(group[hit])
    before = np.searchsorted(rising, group)
    step = 1 + 2 * before + (np.append(rising, -1)[before] == group)
    count = 2 * len(rising) + 2  # with the start
    true = np.cumsum(counted(step[hit], owner[hit], count, weights), axis=1)
    false = np.cumsum(counted(step[~hit], owner[~hit], count, weights), axis=1)
    lesions = found.weighted(found.true_owner, weights)[:, None]
    slices = found.weighted(found.subject, weights)[:, None]
    return FrocCurves(false / slices, ratio(true, np.broadcast_to(lesions, true.shape)))


def average_precision(
    found: MatchedDetections, iou: float, weights: Array, *, coco: bool = False
) -> Array:
    """Average precision of K classes under weights (B, P): (B, K); nan without lesions.

    It is the area below precision over recall (Pascal VOC since 2010, Darknet): at an overlap of .5
    the "mAP" of YOLOv3. ``coco``: the mean at recalls 0, .01, ... 1, of the 100 most confident
    detections of an image and class.
    """
    order = np.argsort(-found.scores, kind="stable")
    if coco:
        order = order[found.rank[order] < COCO_MOST]
    areas = []
    for label in range(len(found.names)):
        ranked = order[found.labels[order] == label]
        hits = np.flatnonzero(found.hits[iou][ranked] != MISS)
        owner = found.owner[ranked]
        rows = np.searchsorted(hits, np.arange(len(ranked)))
        counts = np.cumsum(counted(rows, owner, len(hits) + 1, weights), axis=1)[:, :-1]
        true = np.cumsum(weights[:, owner[hits]], axis=1)
        lesions = found.weighted(found.true_owner[found.true_labels == label], weights)
        recall = true / np.maximum(lesions, 1)[:, None]
        precision = true / np.maximum(counts, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        if coco:
            best = np.pad(best, ((0, 0), (0, 1)))  # 0 where a recall is not reached
            at = [np.searchsorted(row, COCO_RECALLS) for row in recall]
            area = np.take_along_axis(best, np.stack(at), axis=1).mean(axis=1)
        else:
            area = (np.diff(recall, axis=1, prepend=0) * best).sum(axis=1)
        areas.append(np.where(lesions > 0, area, np.nan))
    return np.stack(areas, axis=1)


def mean_precision(found: MatchedDetections, weights: Array, *, coco: bool = False) -> Array:
    """Mean over classes with lesions (B,), at an overlap of .5; ``coco``: COCO's mAP .5:.95."""
    ious = COCO_IOUS if coco else (MAP_IOU,)
    areas = np.stack([average_precision(found, iou, weights, coco=coco) for iou in ious])
    there = ~np.isnan(areas)
    return ratio(np.where(there, areas, 0).sum(axis=(0, 2)), there.sum(axis=(0, 2)).astype(float))


def lesion_there(
    found: MatchedDetections, weights: Array, confidence: float
) -> dict[str, Interval]:
    """Whether a slice has a lesion, told by its most confident detection: AUC and both shares."""
    images = len(found.subject)
    surest, lesion = np.zeros(images), np.zeros(images, bool)
    np.maximum.at(surest, found.image, found.scores)
    lesion[found.true_image] = True
    scores, rank = np.unique(surest, return_inverse=True)
    sure = scores >= max(confidence, np.finfo(float).tiny)  # no detection: no lesion

    def counts(part: Flags, w: Array) -> Array:
        return counted(rank[part], found.subject[part], len(scores), w)

    def area(w: Array) -> Array:
        positive, negative = counts(lesion, w), counts(~lesion, w)
        below = negative.cumsum(axis=1) - negative / 2
        return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))

    def share(part: Flags, right: Flags) -> Interval:
        def shares(w: Array) -> Array:
            return ratio(counts(part, w)[:, right].sum(axis=1), counts(part, w).sum(axis=1))

        return estimate(shares, weights)

    return {
        "auc": estimate(area, weights),
        "sensitivity": share(lesion, sure),
        "specificity": share(~lesion, ~sure),
    }


# -- two arms at equal false positives -------------------------------------------------------------


def at_equal_fps(
    held: MatchedDetections,
    compared: MatchedDetections,
    names: tuple[str, str],
    iou: float,
    weights: Array,
    confidence: float = CONFIDENCE,
    unit: str = "patients",
) -> dict[str, Any]:
    """Sensitivity of one arm at the false positives per slice that the other's confidence makes.

    In each resample the compared arm's curve is read there. ``reached``: the compared arm has so
    many; else its highest sensitivity is used. ``ended``: share of resamples in which it does not.
    """

    def values(w: Array) -> Array:
        fps = false_positives(held, iou, w, confidence)
        curves = froc(compared, iou, w)
        mine, theirs = sensitivity(held, iou, w, confidence), curves.at(fps[:, None])[:, 0]
        return np.stack([fps, mine, theirs, theirs - mine, curves.end < fps - TINY], axis=1)

    (fps, mine, theirs, gap, ended), resampled = over_resamples(values, weights)
    comparison: dict[str, Any] = {
        "iou": iou,
        "held": names[0],
        "asked": names[1],
        "reached": not ended,
        "ended": float(resampled[:, 4].mean() if len(resampled) else ended),
        "unit": unit,
        "units": weights.shape[1],
        "resamples": len(weights),
        "fps": known(fps),
        "held_sensitivity": known(mine),
        "asked_sensitivity": known(theirs),
        "difference": interval(gap, resampled[:, 3]),
    }
    comparison["verdict"] = verdict(comparison)
    return comparison


def verdict(comparison: Mapping[str, Any]) -> str:
    """One sentence of ``at_equal_fps`` that claims no more than the interval allows."""
    held, asked, unit = comparison["held"], comparison["asked"], comparison["unit"]
    units, reached = comparison["units"], comparison["reached"]
    gap, low, high = [comparison["difference"][key] for key in ("value", "low", "high")]
    if gap is None:
        return f"{asked} and {held}: there is nothing to compare."
    text = (
        f"At {comparison['fps']:.2f} false positives per slice, {asked} finds "
        f"{comparison['asked_sensitivity']:.3f} of the boxes and {held} "
        f"{comparison['held_sensitivity']:.3f}"
    )
    if not reached:
        text += f" ({asked} does not make so many: this is the most it finds)"
    text += f": {gap:+.3f}"
    if low is None:
        return f"{text}; without resamples, this says nothing of other {unit}."
    text += f" (95 % interval {low:+.3f} to {high:+.3f})"
    if units < FEW_PATIENTS:
        return f"{text}; {units} {unit} are too few for a verdict."
    if low <= 0 <= high:
        return f"{text}: no difference shown."
    if not reached and gap < 0:
        return f"{text}; not at equal numbers, so no verdict."
    winner, loser = (asked, held) if gap > 0 else (held, asked)
    return (
        f"{text}: {winner} finds more than {loser} in {unit} like these {units}, for "
        "these two trainings."
    )


# -- all of it as one document -------------------------------------------------------------------


@dataclass(frozen=True)
class DetectionMeasures:
    """Measurement options: least overlaps, confidence, resamples of patients (0: no intervals).

    ``by_class``: a detection hits lesions of its own class only. ``boxes``: number of boxes of a
    lesion of a volume that must be hit.
    """

    ious: tuple[float, ...] = IOUS
    confidence: float = CONFIDENCE
    resamples: int = 2000
    seed: int = 0
    by_class: bool = True
    boxes: int = 1


def summary(detections: Detections) -> dict[str, Any]:
    """mAP, sensitivity and false positives per slice of one training at a confidence of 0.1 %."""
    document = measure_arms({"this": detections}, DetectionMeasures(resamples=0))
    (arm,) = document["arms"]
    figures = {
        "slices": document["slices"],
        "lesions": document["lesions"],
        "map_50": arm["map"]["value"],
        "map_50_95": arm["map_coco"]["value"],
        "has_lesion_auc": arm["has_lesion"]["auc"]["value"],
    }
    for iou, measured in arm["at"].items():
        at = f"{100 * float(iou):.0f}"
        figures[f"sensitivity_{at}"] = measured["sensitivity"]["value"]
        figures[f"fp_per_slice_{at}"] = measured["fps_per_slice"]["value"]
    return figures


def measure_arms(
    arms: Mapping[str, Detections],
    options: DetectionMeasures | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure arms, and each against the first, in JSON's types; undefined values are None."""
    options = options or DetectionMeasures()
    first, *others = arms
    unit, total = unit_of(arms[first]), len(arms) + len(others)
    found = {
        name: match(detections, options.ious, by_class=options.by_class)
        for name, detections in arms.items()
    }
    whole = found[first]
    weights = resamples(len(whole.subjects), options.resamples, np.random.default_rng(options.seed))
    measured: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    for name, detections in arms.items():
        measured.append(_arm(name, detections, found[name], weights, options))
        progress(len(measured), total)
    for done, name in enumerate(others, 1):
        for iou in options.ious:
            for held, asked in ((first, name), (name, first)):
                matched, at = (found[held], found[asked]), (options.confidence, unit)
                compared.append(at_equal_fps(*matched, (held, asked), iou, weights, *at))
        progress(len(arms) + done, total)
    slices = len(whole.subject)
    return {
        "patients": len(whole.subjects) if unit == "patients" else None,
        "unit": unit,
        "units": len(whole.subjects),
        "slices": slices,
        "slices_without_lesions": slices - len(np.unique(whole.true_image)),
        "lesions": len(whole.true_labels),
        "classes": list(whole.names),
        "split": arms[first].split,
        "confidence": options.confidence,
        "resamples": options.resamples,
        "seed": options.seed,
        "by_class": options.by_class,
        "ious": list(options.ious),
        "arms": measured,
        "equal_fps": compared,
        "warnings": _warnings(arms, options, unit, len(whole.subjects)),
    }


def _arm(
    name: str,
    detections: Detections,
    found: MatchedDetections,
    weights: Array,
    options: DetectionMeasures,
) -> dict[str, Any]:
    def working(iou: float, label: int | None = None) -> dict[str, Interval]:
        at = (options.confidence, label)
        return {
            "sensitivity": estimate(lambda w: sensitivity(found, iou, w, *at), weights),
            "fps_per_slice": estimate(lambda w: false_positives(found, iou, w, *at), weights),
        }

    of_class = average_precision(found, MAP_IOU, everyone(len(found.subjects)))[0]
    return {
        "name": name,
        "detector": detections.detector,
        "iou_nms": detections.iou_nms,
        "about": dict(detections.about),
        "map": estimate(lambda w: mean_precision(found, w), weights),
        "map_coco": estimate(lambda w: mean_precision(found, w, coco=True), weights),
        "has_lesion": lesion_there(found, weights, options.confidence),
        "at": {f"{iou:g}": working(iou) | _curve(found, iou, weights) for iou in options.ious},
        "classes": [
            {
                "name": of,
                "lesions": int((found.true_labels == label).sum()),
                "ap": known(of_class[label]),
                "at": {f"{iou:g}": working(iou, label) for iou in options.ious},
            }
            for label, of in enumerate(found.names)
        ],
        "volumes": _volumes(detections, found, weights, options),
    }


def _curve(found: MatchedDetections, iou: float, weights: Array) -> dict[str, Any]:
    rates = np.array([*RATES, *DRAWN])
    end = float(froc(found, iou, everyone(weights.shape[1])).end[0])
    values, resampled = over_resamples(lambda w: froc(found, iou, w).at(rates), weights)
    score = values[..., : len(RATES)].mean(axis=-1)
    scores = resampled[..., : len(RATES)].mean(axis=-1)
    count = int(np.searchsorted(DRAWN, end, side="right"))
    band = resampled[:, len(RATES) :][:, :count]
    band = band[~np.isnan(band).any(axis=1)]
    edges = np.quantile(band, (0.025, 0.975), axis=0) if len(band) else np.empty((2, 0))
    return {
        "froc_score": interval(score, scores),
        "froc": {
            "rates": list(RATES),
            "sensitivity": [known(value) for value in values[: len(RATES)]],
            "end": end,
        },
        "drawn": {
            "fps": DRAWN[:count].tolist(),
            "sensitivity": [known(value) for value in values[len(RATES) :][:count]],
            "low": edges[0].tolist(),
            "high": edges[1].tolist(),
        },
    }


def _volumes(
    detections: Detections, found: MatchedDetections, weights: Array, options: DetectionMeasures
) -> dict[str, Any]:
    where = places(detections, found)
    if isinstance(where, str):
        return {"unavailable": where}
    return {
        f"{iou:g}": LesionVolumes(
            found, where, found.hits[iou], options.confidence, options.boxes
        ).measure(weights)
        for iou in options.ious
    }


def unit_of(detections: Detections) -> str:
    """Unit of resampling: ``patients``, ``volumes``, ``images``, or ``groups`` of these."""
    units = set()
    for image in detections.images:
        if image.volume is not None:
            units.add("volumes" if image.subject is None else "patients")
        else:
            units.add("images" if image.subject in (None, image.id) else "patients")
    return units.pop() if len(units) == 1 else "groups"


def _warnings(
    arms: Mapping[str, Detections], options: DetectionMeasures, unit: str, units: int
) -> list[str]:
    """Caveats for readers of the numbers."""
    first = next(iter(arms.values()))
    texts = []
    if unit != "patients":
        texts.append(f"patients are not known: intervals are of {unit}, and too narrow")
    if options.resamples and units < FEW_PATIENTS:
        texts.append(f"{units} {unit}: fewer than {FEW_PATIENTS} make no trustworthy interval")
    if first.confidence is not None and options.confidence < first.confidence:
        texts.append(
            f"confidence {options.confidence:g}: detections were kept down to {first.confidence:g} "
            "only, which is what the numbers are at"
        )
    if len(arms) > 1 and first.confidence is not None and options.confidence <= first.confidence:
        texts.append(
            f"detections were kept down to confidence {first.confidence:g} only: no arm can be "
            "asked what it finds with more false positives than it makes there"
        )
    for name, arm in arms.items():
        full = 0
        for image in arm.images:
            shown = int((image.found.scores >= options.confidence).sum())
            full += shown >= (arm.most_found or np.inf)
        if full:
            texts.append(
                f"{name}: {full} image(s) have the {arm.most_found} detections that were kept at "
                "most: there may be more false positives"
            )
    if first.iou_nms is None:
        texts.append("double boxes were not dropped, or it is not known: they are false positives")
    return texts
