"""How well a detector finds lesions, measured from what it found and what is there.

No detection library is needed. The whole comparison of some trainings, with intervals:

    from gansynth.metrics.detection import Asked, measure_arms, read_arms

    document = measure_arms(read_arms(["runs/real", "runs/both"]), Asked(resamples=2000))

One number at a time:

    from gansynth.metrics.detection import average_precision, froc, match, pooled, sensitivity

    from gansynth.metrics.detection import read_detections

    pool = pooled(read_detections("runs/real/gansynth_detections.json"))
    hits = match(pool, (0.5, 0.25))                     # a row of hits for each overlap
    average_precision(pool, hits)                       # (overlaps, classes)
    froc(pool, hits[0]).at([1, 4])                      # sensitivity at 1 and 4 FPs per slice
    sensitivity(pool, hits[0], confidence=0.001)

Under weights of patients the same numbers are those of a resample: see
``gansynth.metrics.detection.resampling``.
"""

from gansynth.metrics.detection.arms import read_arms
from gansynth.metrics.detection.equal_fps import Arm, AtEqualFps, at_equal_fps
from gansynth.metrics.detection.free_response import Froc, false_positives, froc, sensitivity
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
