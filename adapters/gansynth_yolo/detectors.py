"""Detectors by name, with one interface for all libraries.

The extra ``yolo`` installs ``libreyolo`` (MIT), the extra ``ultralytics`` installs ``ultralytics``
(AGPL-3.0). Neither is imported before use.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import EnvironmentFault, UsageFault, extra_hint

if TYPE_CHECKING:
    from gansynth_yolo.mixed import EpochSlots

DETECTORS: Mapping[str, tuple[str, str, str]] = {
    "libreyolo": ("gansynth_yolo.libre", "LibreDetector", "yolo"),
    "ultralytics": ("gansynth_yolo.agpl.ultra", "UltralyticsDetector", "ultralytics"),
}
"""Name of detector and package -> our module, its class, the extra that installs it."""

KEPT = 1e-4
"""Least confidence of saved boxes: a tenth of the paper's 0.1 %, at which detectors are compared.
So each detector can be evaluated at the other's false positives.
"""
NMS_IOU = 0.5  # ioU above which the less confident of two boxes is dropped, for every detector
MOST_FOUND = 300  # most boxes saved of one image


@dataclass(frozen=True)
class DetectorJob:
    """One training of a detector."""

    data: Path  # `data.yaml` of the mirror, a folder that the detector may write to
    names: tuple[str, ...]
    channels: int  # of the images, 1 or 3
    model: str
    epochs: int  # how often every real image is seen
    imgsz: int  # side in pixels that images are brought to
    batch: int
    workers: int  # processes that load images; 0 loads in the training's own
    cache: str  # keep decoded real images in memory (`ram`), or not (`off`)
    device: str
    seed: int
    output: Path
    augment: bool = True
    resume: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectedImage:
    """The detections in one image."""

    boxes: npt.NDArray[np.float32]  # float32 (N, 4): x1, y1, x2, y2 in pixels of the image's file
    scores: npt.NDArray[np.float32]  # float32 (N,), 0 to 1, in falling order
    labels: npt.NDArray[np.int64]  # int64 (N,): class numbers


class TrainingWatch(Protocol):
    """Receives the progress of a training."""

    def step(self, begin: float, end: float) -> None:
        """Record a training step from ``begin`` to ``end`` (``time.monotonic``, seconds)."""

    def epoch(self, done: int, metrics: Mapping[str, float]) -> None:
        """Record the number of epochs done, and the detector's metrics of the last one."""


class Detector(Protocol):
    """A detection library, unmodified, whose training data set is mixed by ``EpochSlots``."""

    @property
    def name(self) -> str:
        """Its key in ``DETECTORS``."""

    def check(self, job: DetectorJob) -> None:
        """Reject an invalid job before anything long starts."""

    def train(self, job: DetectorJob, slots: EpochSlots, watch: TrainingWatch) -> Path:
        """Train with ``slots`` as an epoch, validate on real images, and return the best weights.
        TrainingFault: the training failed."""

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedImage]:
        """Detect objects in real images with trained weights.

        Least confidence ``KEPT``, overlap ``NMS_IOU``, at most ``MOST_FOUND`` an image.
        """


def detector(name: str) -> Detector:
    """Return a detector by name, and import its library."""
    if name not in DETECTORS:
        raise UsageFault(f"--detector {name}: unknown, expected one of {', '.join(DETECTORS)}")
    module, kind, extra = DETECTORS[name]
    if importlib.util.find_spec(name) is None:
        raise EnvironmentFault(f"--detector {name}: {name} is not installed; {extra_hint(extra)}")
    return cast(Detector, getattr(importlib.import_module(module), kind)())
