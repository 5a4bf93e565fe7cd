"""Detectors by name, with one interface for all libraries, and what these share.

The extra ``yolo`` installs ``libreyolo`` (MIT), the extra ``ultralytics`` installs ``ultralytics``
(AGPL-3.0). Options that break the ratio or a promise are refused here, for the libraries ignore
what they do not know.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

from gansynth import (
    DataFault,
    DetectedBoxes,
    DoctorLine,
    DoctorRequest,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
    UsageFault,
)
from gansynth.hosts.contract.record import version_of
from gansynth.runtime.errors import did_you_mean, extra_hint

if TYPE_CHECKING:
    from gansynth import Job
    from gansynth_yolo.mixed import EpochSlots


class Library(NamedTuple):
    """A detection library: our module, the extra that installs it, its releases."""

    module: str
    extra: str
    releases: str  # supported: `1.6.*`
    licence: str

    def supports(self, version: str) -> bool:
        return f"{version}.".startswith(self.releases[:-1])


AGPL = "AGPL-3.0: its terms apply to software built on it, this training and its weights"
DETECTORS: Mapping[str, Library] = {
    "libreyolo": Library("gansynth_yolo.libre", "yolo", "1.6.*", "MIT"),
    "ultralytics": Library("gansynth_yolo.agpl.ultra", "ultralytics", "8.4.*", AGPL),
}
"""By the name of detector and package."""

KEPT_CONFIDENCE = 1e-4
"""Least confidence of saved boxes: a tenth of the paper's 0.1 %, at which detectors are compared.
So each detector can be evaluated at the other's false positives.
"""
NMS_IOU = 0.5  # ioU above which the less confident of two boxes is dropped, for every detector
ANEW = "remove the folder to start over"
MOST_FOUND = 300  # most boxes saved of one image
OURS: Mapping[str, str] = {
    "epochs": "--set epochs=",
    "imgsz": "--set imgsz=",
    "batch": "--set batch=",
    "workers": "--set workers=",
    "cache": "--set cache=",
    "device": "--set device=",
    "data": "--data",
    "seed": "--seed",
    "resume": "the same command again, which resumes by itself,",
    "project": "--set output=",
    "name": "--set output=",
    "exist_ok": "--set output=",
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
        """Return the options of a training that every library has by one name."""
        keys = ("epochs", "imgsz", "batch", "workers", "seed")
        shared = {key: getattr(self, key) for key in keys}
        shared |= {"data": str(self.data), "cache": self.cache != "off" and self.cache}
        return shared

    def prediction(self) -> dict[str, Any]:
        """Return the options of a prediction that every library has by one name."""
        return {"conf": KEPT_CONFIDENCE, "iou": NMS_IOU, "max_det": MOST_FOUND, "imgsz": self.imgsz}


class Detector(Protocol):
    """A detection library, unmodified, whose training data set is mixed by ``EpochSlots``.

    A module of ours has these functions.
    """

    def settings(self, job: DetectorJob) -> Mapping[str, Any]:
        """Return the library's options for a job; UsageFault, DataFault: an invalid job."""

    def train(self, job: DetectorJob, slots: EpochSlots, session: Job) -> Path:
        """Train on ``slots``, report steps and epochs, return the best weights; TrainingFault."""

    def predict(
        self,
        job: DetectorJob,
        weights: Path,
        images: Sequence[Path],
        progress: Callable[[int, int], None],
    ) -> list[DetectedBoxes]:
        """Detect in real images, from ``KEPT_CONFIDENCE``; ``MOST_FOUND`` an image at most.

        ``progress`` is called with the number of images that are done, and that of all.
        """


def detector(name: str) -> Detector:
    """Return a detector by name, whose library is imported."""
    library, found = DETECTORS[name], version_of(name)
    if not library.supports(found or ""):
        raise EnvironmentFault(
            "yolo.detector-release-not-installed",
            f"--detector {name}: {f'version {found}' if found else 'not installed'}, expected "
            f"{library.releases}: internals differ between releases; {extra_hint(library.extra)}",
        )
    return cast(Detector, importlib.import_module(library.module))


def import_library(name: str) -> Any:
    """Import a library, also with a CPU build of torch."""
    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
    with contextlib.redirect_stdout(sys.stderr):
        return importlib.import_module(name)


def doctor_lines(request: DoctorRequest) -> Iterator[DoctorLine]:
    """Check whether the release of each library is supported, without importing it."""
    for package, library in DETECTORS.items():
        found, cure = version_of(package), extra_hint(library.extra)
        if found and library.supports(found):
            yield DoctorLine("ok", package, f"{found} ({library.licence})")
        else:
            needs = f"{found}, gansynth augment needs {library.releases}"
            text = needs if found else "not installed; only for augmenting YOLO"
            yield DoctorLine("note", package, f"{text} ({library.licence})", cure)


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
            raise UsageFault(
                "yolo.option-set-by-gansynth",
                f"-- {name}={value}: gansynth sets it, give {ours[name]} instead",
            )
        if name in refused and value != refused[name][0]:
            allowed, why = refused[name]
            raise UsageFault(
                "yolo.option-value-refused", f"-- {name}={value}: expected {name}={allowed}: {why}"
            )
        if name not in available:
            meant = did_you_mean(name, available - set(ours) - set(refused))
            raise UsageFault(
                "yolo.option-unknown", f"-- {name}={value}: {library} has no such option.{meant}"
            )
        weights = name in ("pretrained", "distill_model") and isinstance(value, str)
        if weights and not Path(value).is_file():
            raise DataFault(
                "yolo.option-weights-missing",
                f"-- {name}={value}: no such file; weights are not downloaded",
            )


def weights_file(name: str, instead: str) -> Path:
    """Return the weights that a model begins with; DataFault: they would have to be downloaded."""
    path = Path(name).absolute()
    if not path.is_file():
        raise DataFault(
            "yolo.model-weights-missing",
            f"--set model={name}: no such file; weights are not downloaded: name a file that is "
            f"there, or {instead} to train from scratch",
        )
    return path


def found_by(result: Any) -> DetectedBoxes:
    """Return a library's result for one image, the most certain boxes first."""
    boxes = result.boxes
    scores = np.asarray(boxes.conf.cpu(), np.float32)
    order = np.argsort(-scores, kind="stable")
    corners = np.asarray(boxes.xyxy.cpu(), np.float32).reshape(-1, 4)[order]
    classes = np.asarray(boxes.cls.cpu(), np.int64)[order]
    return DetectedBoxes(corners.astype(float), scores[order].astype(float), classes)


def shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return a library's finite losses and mean average precisions, by short names."""
    short = {key.removesuffix("(B)").removeprefix("metrics/"): n for key, n in metrics.items()}
    return {
        key.removeprefix("train/"): float(value)
        for key, value in short.items()
        if math.isfinite(value) and (key.startswith("train/") or key in ("mAP50", "mAP50-95"))
    }


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Convert any error of a library to a TrainingFault of one line; ours keep their kind."""
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        worker = any("Traceback" in line for line in lines)
        text = lines[-1].strip() if worker else " ".join(lines) or type(error).__name__
        text = text.partition("Fault: ")[2] or text
        if isinstance(error, GansynthError):
            raise error.reworded(text) from error
        raise TrainingFault("yolo.detector-failed", f"{name}: {text}") from error
