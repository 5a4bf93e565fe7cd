"""Lesion detection metrics from detected and true boxes.

``measure_arms(read_arms([...]), DetectionMeasures(resamples=2000))`` is the whole comparison. For
one number: ``found = match(read_detections(file))``, then for example ``froc(found, 0.5, weights)``
with the weights of patients: ``everyone(len(found.subjects))``, or those of ``resamples``.
"""

from gansynth.metrics.detection.matching import (
    MISS,
    MatchedDetections,
    estimate,
    everyone,
    match,
    resamples,
)
from gansynth.metrics.detection.measures import (
    DetectionMeasures,
    at_equal_fps,
    average_precision,
    false_positives,
    froc,
    mean_precision,
    measure_arms,
    sensitivity,
)
from gansynth.metrics.detection.record import (
    DetectedBoxes,
    Detections,
    ImageDetections,
    TrueBoxes,
    coco_document,
    read_arms,
    read_detections,
    write_detections,
)
from gansynth.metrics.detection.volumes import LesionVolumes, places

__all__ = [
    "MISS",
    "DetectedBoxes",
    "DetectionMeasures",
    "Detections",
    "ImageDetections",
    "LesionVolumes",
    "MatchedDetections",
    "TrueBoxes",
    "at_equal_fps",
    "average_precision",
    "coco_document",
    "estimate",
    "everyone",
    "false_positives",
    "froc",
    "match",
    "mean_precision",
    "measure_arms",
    "places",
    "read_arms",
    "read_detections",
    "resamples",
    "sensitivity",
    "write_detections",
]
