"""Lesion detection metrics from detected and true boxes.

``measure_arms(read_arms([...]), Asked(resamples=2000))`` is the whole comparison. For one number:
``pool = pooled(read_detections(file))``, ``hits = match(pool, (0.5, 0.25))``, then for example
``froc(pool, hits[0]).at([1, 4])``. Weights of patients give the same numbers of a resample.
"""

from gansynth.metrics.detection.arms import read_arms
from gansynth.metrics.detection.free_response import (
    Arm,
    AtEqualFps,
    Froc,
    at_equal_fps,
    false_positives,
    froc,
    sensitivity,
)
from gansynth.metrics.detection.matching import MISS, Pool, match, overlaps, pooled
from gansynth.metrics.detection.measuring import Asked, measure_arms
from gansynth.metrics.detection.precision import Precision, average_precision, coco_map
from gansynth.metrics.detection.record import (
    Detections,
    Found,
    Seen,
    Truth,
    read_detections,
    write_detections,
)
from gansynth.metrics.detection.resampling import Estimate, estimate, resamples
from gansynth.metrics.detection.volumes import Lesions, places

__all__ = [
    "MISS",
    "Arm",
    "Asked",
    "AtEqualFps",
    "Detections",
    "Estimate",
    "Found",
    "Froc",
    "Lesions",
    "Pool",
    "Precision",
    "Seen",
    "Truth",
    "at_equal_fps",
    "average_precision",
    "coco_map",
    "estimate",
    "false_positives",
    "froc",
    "match",
    "measure_arms",
    "overlaps",
    "places",
    "pooled",
    "read_arms",
    "read_detections",
    "resamples",
    "sensitivity",
    "write_detections",
]
