"""Lesion detection by subject, and pooled over all subjects.

Arms are paired by subject. Sensitivity is read at the threshold with that many false positives per
image over *all* images of the training. The subjects' values, weighted by lesions, average to the
FROC curve of ``gansynth.metrics.detection``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gansynth.metrics.detection.free_response import CONFIDENCE, RATES, TINY, Froc, FrocCurves
from gansynth.metrics.detection.free_response import false_positives as fps_per_image
from gansynth.metrics.detection.matching import match, pool_detections
from gansynth.metrics.detection.precision import Precision
from gansynth.metrics.detection.record import Array, Detections
from gansynth.metrics.detection.resampling import everyone
from gansynth.runtime.errors import DataFault, UsageFault

MAP_IOU = 0.5


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
    ``sensitivity@FP=1``, ``froc`` (their mean), ``fp_per_image``; pooled also ``map50``. None
    without lesions. Raises UsageFault: an invalid value. DataFault: a subject shares the name of a
    volume or an image.
    """
    _check(iou, false_positives, confidence)
    pool = pool_detections(detections)
    names, weights = pool.subjects, everyone(len(pool.subjects))
    if len(set(names)) < len(names):
        raise DataFault(
            f"detections of {detections.detector}: a subject, a volume or an image share a name, "
            "expected distinct names; give the subject of every image"
        )
    hits, coarse = match(pool, (iou, MAP_IOU))
    curves = Froc(pool, hits)
    whole = curves(weights)
    keys = [f"sensitivity@FP={rate:g}" for rate in false_positives]

    def measured(weights: Array) -> Iterator[tuple[str, Array]]:
        fps = np.repeat(whole.fps, len(weights), axis=0)
        sensitivity = FrocCurves(fps, curves(weights).sensitivity).at(list(false_positives))
        yield from zip(keys, sensitivity.T, strict=True)
        yield "froc", sensitivity.mean(axis=1)
        yield "fp_per_image", fps_per_image(pool, hits, confidence=confidence, weights=weights)

    together = {**dict(measured(weights)), "map50": Precision(pool, coarse[None]).mean(weights)}
    ends = float(whole.end[0])
    return {
        "per_subject": {
            key: dict(zip(names, map(_said, values.tolist()), strict=True))
            for key, values in measured(np.eye(len(names)))
        },
        "pooled": {key: _said(float(values[0])) for key, values in together.items()},
        "reached": {
            key: rate <= ends + TINY for key, rate in zip(keys, false_positives, strict=True)
        },
        "asked": {"iou": iou, "false_positives": [*false_positives], "confidence": confidence},
    }


def _check(iou: float, rates: Sequence[float], confidence: float) -> None:
    if not 0 < iou <= 1:
        raise UsageFault(f"iou {iou}: expected an overlap above 0, up to 1")
    if not rates or not all(0 < rate < np.inf for rate in rates):
        raise UsageFault(
            f"false_positives {list(rates)}: expected numbers per image above 0, one at least"
        )
    if not 0 <= confidence <= 1:
        raise UsageFault(f"confidence {confidence}: expected a score, 0 to 1")


def _said(value: float) -> float | None:
    return None if np.isnan(value) else value
