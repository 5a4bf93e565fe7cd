"""LibreYOLO's detectors as a ``Detector``.

LibreYOLO (MIT) is imported when a job is checked. It has colour inputs only. Grey files and grey
samples become three equal channels.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth_yolo.detectors import (
    KEPT,
    MOST_FOUND,
    NMS_IOU,
    DetectedImage,
    DetectorJob,
    TrainingWatch,
)
from gansynth_yolo.libraries import best_of, check_cuda, check_size, one_line
from gansynth_yolo.libre_options import (
    FAMILIES,
    check_version,
    engine,
    find_model,
    settings,
    silent_stdout,
)

if TYPE_CHECKING:
    from gansynth_yolo.mixed import EpochSlots


COPY = "last.copy.pt"  # of the last epoch's weights, beside them


class LibreDetector:
    """LibreYOLO (MIT): YOLOX and YOLOv9."""

    name = "libreyolo"

    def check(self, job: DetectorJob) -> None:
        """See ``Detector.check``; LibreYOLO is imported."""
        check_version()
        check_size(job.imgsz)
        settings(job)
        _check_device(job.device)

    def train(self, job: DetectorJob, slots: EpochSlots, watch: TrainingWatch) -> Path:
        """Train, and return the weights of the epoch that LibreYOLO rates best."""
        values = settings(job)
        weights = job.output.absolute() / "weights"
        last = weights / "last.pt"
        resume = job.resume and last.is_file()
        if resume and _restored(last) >= job.epochs:
            return best_of(weights)
        begin = last if resume else find_model(job.model)[2]
        # The second draws new weights, those that a model was opened with included.
        values |= {"resume": resume} if begin else {"pretrained": False}
        with silent_stdout():
            from gansynth_yolo.libre_dataset import mixed_training

            with one_line("libreyolo"), mixed_training(slots, watch):
                callbacks = _TrainingCallbacks(slots, watch, last)
                _open(job, begin).train(**values, callbacks=callbacks)
        return best_of(weights)

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedImage]:
        """Detect objects in image files, read as in training."""
        with silent_stdout():
            # Opened anew: after a training that was never validated a model is still in training
            # mode, where its head gives tensors of two axes that LibreYOLO cannot decode.
            model = _open(job, weights)
            model.model.eval()
            return [
                _found(
                    model.predict(
                        _read(path),
                        conf=KEPT,
                        iou=NMS_IOU,
                        max_det=MOST_FOUND,
                        imgsz=job.imgsz,
                        color_format="bgr",
                    )
                )
                for path in images
            ]


def epochs_done(weights: Path) -> int:
    """Return the epochs done when these weights were written."""
    engine()
    from libreyolo.utils.serialization import load_untrusted_torch_file

    try:
        return int(load_untrusted_torch_file(weights)["epoch"]) + 1
    except Exception as error:  # torch raises anything for a damaged file
        raise TrainingFault(
            f"{weights}: cannot be resumed ({type(error).__name__}), expected weights that "
            "libreyolo wrote; remove the folder to begin anew"
        ) from error


def _restored(last: Path) -> int:
    """Return the epochs done; weights that LibreYOLO was killed over are replaced by their copy."""
    try:
        return epochs_done(last)
    except TrainingFault:
        if not last.with_name(COPY).is_file():
            raise
    shutil.copyfile(last.with_name(COPY), last)
    return epochs_done(last)


class _TrainingCallbacks:
    """LibreYOLO's callbacks: report to the watch, and synchronise slots with epochs."""

    def __init__(self, slots: EpochSlots, watch: TrainingWatch, last: Path) -> None:
        self._slots, self._watch, self._last = slots, watch, last

    def on_train_start(self, event: Any) -> None:
        self._slots.rewind(event.start_epoch - 1)  # LibreYOLO counts them from 1

    def on_train_epoch_end(self, event: Any) -> None:
        self._slots.rewind(event.epoch)
        if self._last.is_file():  # LibreYOLO writes the next ones over it, which a kill may meet
            write_bytes_atomic(self._last.with_name(COPY), self._last.read_bytes())
        numbers: Mapping[str, float] = {
            "train/loss": event.train_loss,
            **{f"train/{name}": value for name, value in event.train_loss_items.items()},
            **event.val_metrics,
        }
        metrics = {name: float(value) for name, value in numbers.items()}
        self._watch.epoch(event.epoch, {k: v for k, v in metrics.items() if math.isfinite(v)})


def _open(job: DetectorJob, weights: Path | None) -> Any:
    family, size, _ = find_model(job.model)
    model = getattr(engine(), FAMILIES[family][0])
    return model(
        None if weights is None else str(weights),
        size=size,
        nb_classes=len(job.names),
        device=job.device,
    )


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise UsageFault(f"--set device={name}: expected cpu, cuda, or one CUDA device as cuda:1")
    check_cuda(name, int(number or 0))


def _read(path: Path) -> Any:
    """Read an image as in training: uint8 (H, W, 3), BGR, the upper 8 bits of 16."""
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise TrainingFault(f"{path}: not an image that LibreYOLO can read, expected one")
    return image


def _found(result: Any) -> DetectedImage:
    boxes = result.boxes
    scores = np.asarray(boxes.conf.cpu(), np.float32)
    order = np.argsort(-scores, kind="stable")
    return DetectedImage(
        np.asarray(boxes.xyxy.cpu(), np.float32).reshape(-1, 4)[order],
        scores[order],
        np.asarray(boxes.cls.cpu(), np.int64)[order],
    )
