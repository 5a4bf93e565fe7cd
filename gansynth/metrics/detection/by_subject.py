"""Lesion detection by subject, and pooled over all subjects.

Arms are paired by subject. Sensitivity is read at the threshold with that many false positives per
image over *all* images of the training. The subjects' values, weighted by lesions, average to the
FROC curve of ``gansynth.metrics.detection``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from gansynth.metrics.detection.matching import (
    CONFIDENCE,
    MISS,
    MatchedDetections,
    everyone,
    match,
    ratio,
)
from gansynth.metrics.detection.measures import RATES, TINY, FrocCurves, froc, mean_precision
from gansynth.metrics.detection.measures import false_positives as fps_per_image
from gansynth.metrics.detection.record import Array, Detections
from gansynth.metrics.segmentation.measures import SIZES, of_size
from gansynth.runtime.errors import DataFault, UsageFault

SIZED_AT = 1.0
"""False positives per image at which boxes are judged by their size."""


def measure_detections(
    detections: Detections,
    *,
    iou: float = 0.5,
    false_positives: Sequence[float] = RATES,
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """Measure one training's detections.

    Returns ``per_subject`` (key -> subject -> value), ``pooled``, ``reached`` (whether there are so
    many false positives; else the highest sensitivity is used) and ``asked``. Keys:
    ``sensitivity@FP=1``, ``froc`` (their mean), ``fp_per_image``; pooled also ``map50``; by subject
    also ``OF_SIZES``, by the pixels of boxes, at ``SIZED_AT`` false positives. None without
    lesions. Raises UsageFault: an invalid value. DataFault: a subject shares the name of a
    volume or an image.
    """
    _check(iou, false_positives, confidence)
    found = match(detections, (iou,))
    names, weights = found.subjects, everyone(len(found.subjects))
    if len(set(names)) < len(names):
        raise DataFault(
            "metrics.detections-names-not-distinct",
            f"detections of {detections.detector}: a subject, a volume or an image share a name, "
            "expected distinct names; give the subject of every image",
        )
    whole = froc(found, iou, weights)
    keys = [f"sensitivity@FP={rate:g}" for rate in false_positives]

    def measured(weights: Array) -> Iterator[tuple[str, Array]]:
        fps = np.repeat(whole.fps, len(weights), axis=0)
        sensitivity = FrocCurves(fps, froc(found, iou, weights).sensitivity).at(
            list(false_positives)
        )
        yield from zip(keys, sensitivity.T, strict=True)
        yield "froc", sensitivity.mean(axis=1)
        yield "fp_per_image", fps_per_image(found, iou, weights, confidence)

    together = dict(measured(weights))
    together["map50"] = mean_precision(found, weights)
    ends = float(whole.end[0])
    return {
        "per_subject": {
            key: dict(zip(names, map(_said, values.tolist()), strict=True))
            for key, values in chain(measured(np.eye(len(names))), _by_size(found, iou))
        },
        "pooled": {key: _said(float(values[0])) for key, values in together.items()},
        "reached": {
            key: rate <= ends + TINY for key, rate in zip(keys, false_positives, strict=True)
        },
        "asked": {"iou": iou, "false_positives": [*false_positives], "confidence": confidence},
    }


def _by_size(found: MatchedDetections, iou: float) -> Iterator[tuple[str, Array]]:
    """Yield sensitivity and precision (P,) of the patients for boxes of each size.

    At the confidence down to which there are no more than ``SIZED_AT`` false positives per image.
    """
    hit = found.hits[iou] != MISS
    surest = np.sort(found.scores[~hit])[::-1]
    most = int(SIZED_AT * len(found.subject))
    sure = found.scores > (surest[most] if len(surest) > most else -np.inf)
    there = np.zeros(len(found.true_boxes), bool)
    there[found.hits[iou][sure & hit]] = True
    patients = np.eye(len(found.subjects))
    for size, (least, beyond) in SIZES.items():
        sides = {}
        for name, boxes in (("true", found.true_boxes), ("found", found.boxes)):
            pixels = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).round()
            sides[name] = (pixels >= least) & (pixels < beyond)
        true, mine = sides["true"], sides["found"] & sure
        yield (
            of_size("lesion_sensitivity", size),
            ratio(
                found.weighted(found.true_owner[true & there], patients),
                found.weighted(found.true_owner[true], patients),
            ),
        )
        yield (
            of_size("lesion_precision", size),
            ratio(
                found.weighted(found.owner[mine & hit], patients),
                found.weighted(found.owner[mine], patients),
            ),
        )


def _check(iou: float, rates: Sequence[float], confidence: float) -> None:
    if not 0 < iou <= 1:
        raise UsageFault(
            "metrics.iou-out-of-range", f"iou {iou}: expected an overlap above 0, up to 1"
        )
    if not rates or not all(0 < rate < np.inf for rate in rates):
        raise UsageFault(
            "metrics.false-positives-out-of-range",
            f"false_positives {list(rates)}: expected numbers per image above 0, one at least",
        )
    if not 0 <= confidence <= 1:
        raise UsageFault(
            "metrics.confidence-out-of-range", f"confidence {confidence}: expected a score, 0 to 1"
        )


def _said(value: float) -> float | None:
    return None if np.isnan(value) else value
