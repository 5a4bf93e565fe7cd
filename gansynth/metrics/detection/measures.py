"""All detection metrics of some arms, with intervals over patients, as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gansynth.metrics.detection.free_response import (
    CONFIDENCE,
    RATES,
    FrocArm,
    at_equal_fps,
    false_positives,
    sensitivity,
)
from gansynth.metrics.detection.matching import PooledDetections, match, pool_detections
from gansynth.metrics.detection.precision import Precision, coco_map
from gansynth.metrics.detection.record import Array, Detections, ImageDetections, Numbers
from gansynth.metrics.detection.resampling import (
    FEW,
    BootstrapEstimate,
    chunks,
    counted,
    estimate,
    everyone,
    ratio,
    resamples,
    with_interval,
)
from gansynth.metrics.detection.volumes import LesionVolumes, places

IOUS = (0.5, 0.25)
MAP_IOU = 0.5
DRAWN = np.geomspace(1 / 32, 64, 133)
"""False positives per slice at which a curve is stored for plots."""


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
    pools = {
        name: pool_detections(detections, by_class=options.by_class)
        for name, detections in arms.items()
    }
    hits = {name: match(pool, options.ious) for name, pool in pools.items()}
    pool = next(iter(pools.values()))
    weights = resamples(len(pool.subjects), options.resamples, np.random.default_rng(options.seed))
    first, *others = arms
    total, measured, compared = len(arms) + len(others), [], []
    unit = unit_of(arms[first])
    for name in arms:
        measured.append(_arm(name, arms[name], pools[name], hits[name], weights, options))
        progress(len(measured), total)
    for done, name in enumerate(others, 1):
        for row, iou in enumerate(options.ious):
            control, arm = (
                FrocArm(key, pools[key], hits[key][row], options.confidence)
                for key in (first, name)
            )
            for held, moved in ((control, arm), (arm, control)):
                comparison = at_equal_fps(held, moved, weights, unit)
                compared.append({"iou": iou, **comparison.to_json()})
        progress(len(arms) + done, total)
    return {
        "patients": len(pool.subjects) if unit == "patients" else None,
        "unit": unit,
        "units": len(pool.subjects),
        "slices": pool.images,
        "slices_without_lesions": pool.images - len(np.unique(pool.true_image)),
        "lesions": len(pool.true_labels),
        "classes": list(pool.names),
        "split": next(iter(arms.values())).split,
        **{key: getattr(options, key) for key in ("confidence", "resamples", "seed", "by_class")},
        "ious": list(options.ious),
        "arms": measured,
        "equal_fps": compared,
        "warnings": warnings(arms, options),
    }


def _arm(
    name: str,
    detections: Detections,
    pool: PooledDetections,
    hits: Numbers,
    weights: Array,
    options: DetectionMeasures,
) -> dict[str, Any]:
    precision = Precision(pool, match(pool, (MAP_IOU,)))
    of_class = precision(everyone(len(pool.subjects)))[0, 0]
    return {
        "name": name,
        "detector": detections.detector,
        "iou_nms": detections.iou_nms,
        "about": dict(detections.about),
        "map": estimate(precision.mean, weights).to_json(),
        "map_coco": estimate(coco_map(pool).mean, weights).to_json(),
        "has_lesion": _lesion_there(pool, options.confidence, weights),
        "at": {
            f"{iou:g}": {
                **_working(pool, row, weights, options.confidence),
                **_curve(FrocArm(name, pool, row, options.confidence), weights),
            }
            for iou, row in zip(options.ious, hits, strict=True)
        },
        "classes": [
            {
                "name": of,
                "lesions": int((pool.true_labels == label).sum()),
                "ap": _known(of_class[label]),
                "at": {
                    f"{iou:g}": _working(pool, row, weights, options.confidence, label)
                    for iou, row in zip(options.ious, hits, strict=True)
                },
            }
            for label, of in enumerate(pool.names)
        ],
        "volumes": _volumes(detections, pool, hits, weights, options),
    }


def _lesion_there(
    pool: PooledDetections, confidence: float, weights: Array
) -> dict[str, dict[str, float | None]]:
    """Whether a slice has a lesion, told by its most confident detection: AUC and both shares."""
    surest, ill = np.zeros(pool.images), np.zeros(pool.images, np.bool_)
    np.maximum.at(surest, pool.image, pool.scores)
    ill[pool.true_image] = True
    scores, rank = np.unique(surest, return_inverse=True)
    shape = len(scores), len(pool.subjects)
    with_, without = (counted(rank[part], pool.subject[part], shape) for part in (ill, ~ill))
    told = scores >= max(confidence, np.finfo(float).tiny)  # no detection: no lesion

    def area(w: Array) -> Array:
        positive, negative = with_ @ w.T, without @ w.T
        below = negative.cumsum(0) - negative / 2
        return ratio((positive * below).sum(0), positive.sum(0) * negative.sum(0))

    def share(table: sparse.csr_array, rows: npt.NDArray[np.bool_]) -> BootstrapEstimate:
        return estimate(lambda w: ratio((table @ w.T)[rows].sum(0), (table @ w.T).sum(0)), weights)

    return {
        "auc": estimate(area, weights).to_json(),
        "sensitivity": share(with_, told).to_json(),
        "specificity": share(without, ~told).to_json(),
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _working(
    pool: PooledDetections,
    hits: Numbers,
    weights: Array,
    confidence: float,
    label: int | None = None,
) -> dict[str, Any]:
    options: dict[str, Any] = {"confidence": confidence, "label": label}
    return {
        "sensitivity": estimate(
            lambda w: sensitivity(pool, hits, weights=w, **options), weights
        ).to_json(),
        "fps_per_slice": estimate(
            lambda w: false_positives(pool, hits, weights=w, **options), weights
        ).to_json(),
    }


def _curve(arm: FrocArm, weights: Array) -> dict[str, Any]:
    scores, bands = [], [np.empty((0, len(DRAWN)))]
    for part in chunks(weights):
        curves = arm.curves(part)
        scores.append(curves.score())
        bands.append(curves.at(DRAWN))
    whole = arm.curves(everyone(weights.shape[1]))
    count = int(np.searchsorted(DRAWN, whole.end[0], side="right"))
    band = np.concatenate(bands)[:, :count]
    band = band[~np.isnan(band).any(axis=1)]
    edges = np.quantile(band, (0.025, 0.975), axis=0) if len(band) else np.empty((2, 0))
    return {
        "froc_score": with_interval(float(whole.score()[0]), scores).to_json(),
        "froc": {
            "rates": list(RATES),
            "sensitivity": [_known(v) for v in whole.at(RATES)[0]],
            "end": float(whole.end[0]),
        },
        "drawn": {
            "fps": DRAWN[:count].tolist(),
            "sensitivity": [_known(v) for v in whole.at(DRAWN)[0, :count]],
            "low": edges[0].tolist(),
            "high": edges[1].tolist(),
        },
    }


def _volumes(
    detections: Detections,
    pool: PooledDetections,
    hits: Numbers,
    weights: Array,
    options: DetectionMeasures,
) -> dict[str, Any]:
    where = places(detections, pool)
    if isinstance(where, str):
        return {"unavailable": where}
    return {
        f"{iou:g}": LesionVolumes(pool, where, row, options.confidence, options.boxes).measure(
            weights
        )
        for iou, row in zip(options.ious, hits, strict=True)
    }


def unit_of(detections: Detections) -> str:
    """Unit of resampling: ``patients``, ``volumes``, ``images``, or ``groups`` of these."""
    units = {
        "volumes" if image.subject is None and image.volume is not None
        else "images" if _alone(image) else "patients"
        for image in detections.images
    }  # fmt: skip
    return units.pop() if len(units) == 1 else "groups"


def _alone(image: ImageDetections) -> bool:
    return image.subject in (None, image.id) and image.volume is None


def warnings(arms: Mapping[str, Detections], options: DetectionMeasures) -> list[str]:
    """Caveats for readers of the numbers."""
    first = next(iter(arms.values()))
    texts = []
    unit, units = unit_of(first), len(pool_detections(first).subjects)
    if unit != "patients":
        texts.append(f"patients are not known: intervals are of {unit}, and too narrow")
    if options.resamples and units < FEW:
        texts.append(f"{units} {unit}: fewer than {FEW} make no trustworthy interval")
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
        full = sum(
            int((image.found.scores >= options.confidence).sum()) >= (arm.most_found or np.inf)
            for image in arm.images
        )
        if full:
            texts.append(
                f"{name}: {full} image(s) have the {arm.most_found} detections that were kept at "
                "most: there may be more false positives"
            )
    if first.iou_nms is None:
        texts.append("double boxes were not dropped, or it is not known: they are false positives")
    return texts
