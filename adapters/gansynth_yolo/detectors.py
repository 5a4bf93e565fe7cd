"""Detectors by name, with one interface for all libraries, and what these share.

The extra ``yolo`` installs ``libreyolo`` (MIT), the extra ``ultralytics`` installs ``ultralytics``
(AGPL-3.0). Neither is imported before use. Options that break the ratio or a promise are refused
here, for the libraries ignore what they do not know.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import (
    DataFault,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
    UsageFault,
    did_you_mean,
    extra_hint,
)

if TYPE_CHECKING:
    from gansynth_yolo.mixed import EpochSlots


class Library(NamedTuple):
    """A detection library: our module and class, the extra that installs it, its releases."""

    where: str
    extra: str
    releases: str  # supported: `1.6.*`
    licence: str

    def supports(self, version: str) -> bool:
        """Whether a release is supported."""
        return f"{version}.".startswith(self.releases[:-1])


AGPL = "AGPL-3.0: software built on it and offered to others must be open, too"
DETECTORS: Mapping[str, Library] = {
    "libreyolo": Library("gansynth_yolo.libre:LibreDetector", "yolo", "1.6.*", "MIT"),
    "ultralytics": Library(
        "gansynth_yolo.agpl.ultra:UltralyticsDetector", "ultralytics", "8.4.*", AGPL
    ),
}
"""By the name of detector and package."""

KEPT = 1e-4
"""Least confidence of saved boxes: a tenth of the paper's 0.1 %, at which detectors are compared.
So each detector can be evaluated at the other's false positives.
"""
NMS_IOU = 0.5  # ioU above which the less confident of two boxes is dropped, for every detector
MOST_FOUND = 300  # most boxes saved of one image
STRIDE = 32  # `imgsz` must be a multiple of this, or a detector would change it
OURS: Mapping[str, str] = {
    **{key: f"--set {key}=" for key in ("epochs", "imgsz", "batch", "workers", "cache", "device")},
    "data": "--data",
    "seed": "--seed",
    "resume": "the same command again, which goes on by itself,",
    **dict.fromkeys(("project", "name", "exist_ok"), "--set output="),
}
"""Options of every library that gansynth sets -> the user's option."""
SAME_CLASSES: Mapping[str, tuple[Any, str]] = {
    "single_cls": (False, "samples keep their classes; merge them in the data set instead"),
    "classes": (None, "samples keep their classes; leave some out of the data set instead"),
}
"""Option of every library -> its only allowed value, and why."""


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

    @property
    def weights(self) -> Path:
        """The folder of the weights of every library."""
        return self.output.absolute() / "weights"

    def best(self) -> Path:
        """Return the best weights, or the last ones without validation."""
        best = self.weights / "best.pt"
        return best if best.is_file() else self.weights / "last.pt"

    def settings(self) -> dict[str, Any]:
        """Return the options that every library has by one name."""
        shared = {
            key: getattr(self, key) for key in ("epochs", "imgsz", "batch", "workers", "seed")
        }
        return {**shared, "data": str(self.data), "cache": self.cache != "off" and self.cache}


@dataclass(frozen=True)
class DetectedImage:
    """The detections in one image."""

    boxes: npt.NDArray[np.float32]  # float32 (N, 4): x1, y1, x2, y2 in pixels of the image's file
    scores: npt.NDArray[np.float32]  # float32 (N,), 0 to 1, in falling order
    labels: npt.NDArray[np.int64]  # int64 (N,): class numbers

    @classmethod
    def of(cls, result: Any) -> DetectedImage:
        """Take the boxes of a library's result."""
        boxes = result.boxes
        scores = np.asarray(boxes.conf.cpu(), np.float32)
        order = np.argsort(-scores, kind="stable")
        corners = np.asarray(boxes.xyxy.cpu(), np.float32).reshape(-1, 4)
        return cls(corners[order], scores[order], np.asarray(boxes.cls.cpu(), np.int64)[order])


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
        """Train on ``slots``, validate on real images, return the best weights; TrainingFault."""

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedImage]:
        """Detect in real images: confidence from ``KEPT``, ``MOST_FOUND`` an image at most."""


def detector(name: str) -> Detector:
    """Return a detector by name, and import its library."""
    if name not in DETECTORS:
        raise UsageFault(f"--detector {name}: unknown, expected one of {', '.join(DETECTORS)}")
    library = DETECTORS[name]
    if importlib.util.find_spec(name) is None:
        cure = extra_hint(library.extra)
        raise EnvironmentFault(f"--detector {name}: {name} is not installed; {cure}")
    module, _, kind = library.where.partition(":")
    return cast(Detector, getattr(importlib.import_module(module), kind)())


def import_library(name: str) -> Any:
    """Import a supported release of a library, also with a CPU build of torch."""
    library, installed = DETECTORS[name], importlib.metadata.version(name)
    if not library.supports(installed):
        raise EnvironmentFault(
            f"--detector {name}: version {installed}, expected {library.releases}: the adapter "
            f"depends on internals that differ between releases; {extra_hint(library.extra)}"
        )
    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
    with contextlib.redirect_stdout(sys.stderr):
        return importlib.import_module(name)


def check_job(job: DetectorJob) -> None:
    """Reject a size that a detector would change, and a device that is not there."""
    if job.imgsz % STRIDE:
        near = STRIDE * max(1, round(job.imgsz / STRIDE))
        raise UsageFault(
            f"--set imgsz={job.imgsz}: expected a multiple of {STRIDE}, for example {near}"
        )
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", job.device)
    if found is None:
        raise UsageFault(
            f"--set device={job.device}: expected cpu, cuda, or one CUDA device as cuda:1"
        )
    if job.device == "cpu":
        return
    import torch

    if int(found[1] or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(
            f"--set device={job.device}: torch sees {torch.cuda.device_count()} CUDA devices, "
            "expected one with this number; use --set device=cpu"
        )


def refuse_options(
    options: Mapping[str, Any],
    ours: Mapping[str, str],
    refused: Mapping[str, tuple[Any, str]],
    available: Iterable[str],
    library: str,
) -> None:
    """Reject unknown options of a library, those that gansynth sets, and files that are not there.

    ``ours``: option that gansynth sets -> the user's option; ``refused``: option -> its only
    allowed value, and why.
    """
    available = set(available)
    for name, value in options.items():
        if name in ours:
            raise UsageFault(f"-- {name}={value}: gansynth sets it, give {ours[name]} instead")
        if name in refused and value != refused[name][0]:
            allowed, why = refused[name]
            raise UsageFault(f"-- {name}={value}: expected {name}={allowed}: {why}")
        if name not in available:
            meant = did_you_mean(name, available - set(ours) - set(refused))
            raise UsageFault(f"-- {name}={value}: {library} has no such option.{meant}")
        weights = name in ("pretrained", "distill_model") and isinstance(value, str)
        if weights and not Path(value).is_file():
            raise DataFault(f"-- {name}={value}: no such file; weights are not downloaded")


def finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Return those of a library's metrics that are finite."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Convert any error of a library to a TrainingFault of one line; ours keep their kind."""
    try:
        yield
    except GansynthError as fault:
        raise type(fault)(_last_line(fault)) from fault
    except Exception as error:
        raise TrainingFault(f"{name}: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[-1].strip() if "Traceback" in str(error) else " ".join(lines)
    return text.partition("Fault: ")[2] or text
