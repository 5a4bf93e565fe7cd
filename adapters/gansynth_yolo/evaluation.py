"""Evaluation of a trained detector on real held-out images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gansynth.metrics.detection.record import FILE as DETECTIONS
from gansynth.metrics.detection.record import (
    DetectedBoxes,
    Detections,
    ImageDetections,
    TrueBoxes,
    write_detections,
)
from gansynth_yolo import detectors
from gansynth_yolo.detectors import Detector, DetectorJob
from gansynth_yolo.images import YoloImage
from gansynth_yolo.mirror import mirrored
from gansynth_yolo.source import YoloSource

SPLITS: Mapping[str, str] = {"test": DETECTIONS.replace(".json", "_test.json"), "val": DETECTIONS}
"""Split -> file of its detections."""


def write_found(
    output: Path, source: YoloSource, chosen: Detector, job: DetectorJob, weights: Path
) -> None:
    """Write the detections in all validation and test images of the job's mirror.

    Raises:
        DataFault: an invalid box or score.
        EnvironmentFault: the disk refuses.
    """
    about = {"weights": str(weights.relative_to(output)), "model": job.model}
    for split, file in SPLITS.items():
        if source.images[split]:
            images = tuple(_look(source, split, chosen, job, weights))
            limits = (detectors.NMS_IOU, split, detectors.KEPT, detectors.MOST_FOUND)
            found = Detections(chosen.name, tuple(job.names), images, *limits, about)
            write_detections(output / file, found)


def _look(
    source: YoloSource, split: str, chosen: Detector, job: DetectorJob, weights: Path
) -> Iterator[ImageDetections]:
    paths = mirrored(source, job.data.parent, split)
    detections = chosen.predict(job, weights, list(paths.values()))
    for case, boxes in zip(paths, detections, strict=True):
        volume, number = source.place(case)
        yield ImageDetections(
            case,
            source.header(case).subject,
            source.image(case).shape,
            true_boxes(source.image(case)),
            DetectedBoxes(boxes.boxes.astype(float), boxes.scores.astype(float), boxes.labels),
            volume,
            number,
        )


def true_boxes(image: YoloImage) -> TrueBoxes:
    """Return the boxes of a label file within the image: x1, y1, x2, y2 in pixels."""
    boxes = image.boxes[:, [1, 0, 3, 2]].astype(np.float64)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return TrueBoxes(boxes[inside], image.rows[inside, 0].astype(np.int64))
