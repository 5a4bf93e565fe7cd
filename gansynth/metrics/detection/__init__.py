"""Lesion detection metrics from detected and true boxes.

``measure_arms(read_arms([...]), DetectionMeasures(resamples=2000))`` is the whole comparison. For
one number: ``pool = pooled(read_detections(file))``, ``hits = match(pool, (0.5, 0.25))``, then for
example ``froc(pool, hits[0]).at([1, 4])``. Weights of patients give the same numbers of a resample.
"""

from gansynth.metrics.detection.arms import read_arms
from gansynth.metrics.detection.free_response import (
    AtEqualFps,
    Froc,
    FrocArm,
    at_equal_fps,
    false_positives,
    froc,
    sensitivity,
)
from gansynth.metrics.detection.matching import (
    MISS,
    PooledDetections,
    match,
    overlaps,
    pool_detections,
)
from gansynth.metrics.detection.measures import DetectionMeasures, measure_arms
from gansynth.metrics.detection.precision import Precision, average_precision, coco_map
from gansynth.metrics.detection.record import (
    DetectedBoxes,
    Detections,
    ImageDetections,
    TrueBoxes,
    read_detections,
    write_detections,
)
from gansynth.metrics.detection.resampling import BootstrapEstimate, estimate, resamples
from gansynth.metrics.detection.volumes import LesionVolumes, places

__all__ = [
    "MISS",
    "AtEqualFps",
    "BootstrapEstimate",
    "DetectedBoxes",
    "DetectionMeasures",
    "Detections",
    "Froc",
    "FrocArm",
    "ImageDetections",
    "LesionVolumes",
    "PooledDetections",
    "Precision",
    "TrueBoxes",
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
    "pool_detections",
    "read_arms",
    "read_detections",
    "resamples",
    "sensitivity",
    "write_detections",
]
