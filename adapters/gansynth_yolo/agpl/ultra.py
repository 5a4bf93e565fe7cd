"""The ultralytics detectors as a ``Detector``.

Licence: AGPL-3.0; see this package's docstring. ultralytics is imported when a job is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.runtime.errors import TrainingFault
from gansynth_yolo.agpl.options import device_name, engine, settings, silent_stdout, version
from gansynth_yolo.detectors import (
    KEPT,
    MOST_FOUND,
    NMS_IOU,
    DetectedImage,
    DetectorJob,
    TrainingWatch,
)
from gansynth_yolo.libraries import best_of, check_cuda, check_size, one_line

if TYPE_CHECKING:
    from gansynth_yolo.mixed import EpochSlots


class UltralyticsDetector:
    """ultralytics (AGPL-3.0)."""

    name = "ultralytics"

    def check(self, job: DetectorJob) -> None:
        """See ``Detector.check``; ultralytics is imported."""
        version()
        check_size(job.imgsz)
        settings(job)
        _check_device(job.device)

    def train(self, job: DetectorJob, slots: EpochSlots, watch: TrainingWatch) -> Path:
        """Train, and return the weights of the epoch that ultralytics rates best."""
        values = settings(job)
        weights = job.output.absolute() / "weights"
        if job.resume and (weights / "last.pt").is_file():
            if _is_finished(weights / "last.pt"):
                return best_of(weights)
            values["resume"] = str(weights / "last.pt")
        with silent_stdout():
            from gansynth_yolo.agpl.trainer import MixedTrainer

            with one_line("ultralytics"):
                MixedTrainer(slots, watch, values).train()
        return best_of(weights)

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedImage]:
        """Detect objects in image files, read as in training."""
        model = engine().YOLO(str(weights))
        detections = []
        with silent_stdout():
            size = max(1, job.batch)
            for first in range(0, len(images), size):
                results = model.predict(
                    [_read(path, job.channels) for path in images[first : first + size]],
                    conf=KEPT,
                    iou=NMS_IOU,
                    max_det=MOST_FOUND,
                    imgsz=job.imgsz,
                    device=device_name(job.device),
                    verbose=False,
                    save=False,
                )
                detections += [_found(result) for result in results]
        return detections


def _is_finished(last: Path) -> bool:
    """Return whether a training has ended; its weights then hold no state to resume from."""
    from ultralytics.utils.patches import torch_load

    return int(torch_load(last, map_location="cpu").get("epoch", -1)) < 0


def _check_device(name: str) -> None:
    if name.startswith("cuda") or name.isdigit():
        check_cuda(name, int(name.rpartition(":")[2]) if name[-1].isdigit() else 0)


def _read(path: Path, channels: int) -> Any:
    """Read an image as in training: uint8 (H, W, C), BGR, the upper 8 bits of 16."""
    import cv2
    from ultralytics.utils.patches import imread

    image = imread(path, cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    if image is None:
        raise TrainingFault(f"{path}: not an image that ultralytics can read, expected one")
    return image


def _found(result: Any) -> DetectedImage:
    boxes = result.boxes.cpu().numpy()
    order = np.argsort(-boxes.conf, kind="stable")
    return DetectedImage(
        boxes.xyxy[order].astype(np.float32),
        boxes.conf[order].astype(np.float32),
        boxes.cls[order].astype(np.int64),
    )
