"""Unmodified YOLO detectors, trained in a child process with samples mixed in on the fly.

The data set's record does not hold the size that images are read in, and hashes are of the files'
pixels. So a generator of any size can be compared with the held-out images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import yaml
from pydantic import Field

from gansynth import (
    AugmentRequest,
    Boxes,
    DataSetExport,
    DetectedBoxes,
    Detections,
    Framework,
    FrameworkOptions,
    ImageDetections,
    Job,
    PictureSource,
    PredictJob,
    TrueBoxes,
    UsageFault,
    disk_errors,
    read_detections,
    read_settings,
    write_detections,
    yolo_lines,
)
from gansynth.data.picture_files import picture_header
from gansynth.metrics.detection.measures import summary
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import counting
from gansynth.runtime.yaml_text import parse_yaml
from gansynth_yolo.detectors import (
    DETECTORS,
    KEPT_CONFIDENCE,
    MOST_FOUND,
    NMS_IOU,
    DetectorJob,
    detector,
)
from gansynth_yolo.intake import YoloIntake
from gansynth_yolo.mirror import check_path, mirror, mirrored
from gansynth_yolo.source import YoloImage, YoloSource

MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolo11n.yaml"}
MIRROR = "data"
"""Folder in the output with links to the user's images and labels, read by the detector."""
SHOWN_CONFIDENCE = 0.25
"""Least confidence of predicted boxes, the usual one of YOLO."""
WEIGHTS = "detector"  # folder in the output for the detector's own files


class YoloSettings(FrameworkOptions):
    """Settings of ``--target yolo``."""

    detector: Literal["libreyolo", "ultralytics"] = Field(
        "libreyolo", description="which library trains: libreyolo (MIT) or ultralytics (AGPL-3.0)"
    )
    model: str | None = Field(
        None,
        description="model of the library: libreyolo has yolox-n (default), yolo9-t and so on; "
        "ultralytics a .yaml (yolo11n.yaml); or an existing .pt file: nothing is downloaded",
    )
    epochs: int = Field(100, ge=1, description="passes through the real images")
    imgsz: int = Field(
        640,
        ge=32,
        multiple_of=32,
        description="side in pixels to which images are resized, a multiple of 32",
    )
    batch: int = Field(16, ge=1, le=65536, description="images of a training step")
    workers: int = Field(
        2, ge=0, description="processes that load images; 0 loads in the training process"
    )
    cache: Literal["off", "ram"] = Field(
        "off", description="ram: keep decoded real images in memory"
    )


class YoloAdapter(Framework):
    """Augments the training of a detector on one YOLO data set and split."""

    name: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    length_options = ("epochs",)
    Options = YoloSettings
    Intake = YoloIntake
    own_process = True
    result = Detections.file_of("val")
    may_change = ("workers", "cache")
    source: YoloSource
    options: YoloSettings

    @property
    def packages(self) -> Sequence[str]:  # type: ignore[override]
        return "torch", "torchvision", self.options.detector

    @classmethod
    def check_settings(cls, settings: Mapping[str, str]) -> None:
        detector(read_settings(YoloSettings, settings, cls.name).detector)

    def validate(self) -> None:
        """Reject fold ``all``, which has no validation images."""
        if self.source.request.fold == "all" and self.request.content != "synthetic":
            raise UsageFault(
                "yolo.no-images-to-validate-on",
                "--fold all: leaves no image to validate a detector on; expected fold 0, the "
                f"split of {self.source.file.path}",
            )

    def check_ways(self) -> None:
        super().check_ways()
        if not self.request.augment_synthetic:
            raise UsageFault(
                "yolo.mosaics-mix-real-and-synthetic",
                "--augment-synthetic no: detectors augment mosaics, in which real and synthetic "
                "images meet; leave it out, or augment none: --no-host-augmentation",
            )

    def open(self) -> None:
        check_path(self.output, "-o ")

    def check(self) -> None:
        """Let the detector look at its job: it may not be installed."""
        detector(self.options.detector).settings(self.job)

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        parsed: dict[str, Any] = {}
        for text in options:
            key, equals, value = text.partition("=")
            if not equals or not key.isidentifier() or key in parsed:
                raise UsageFault(
                    "yolo.detector-options-not-key-value",
                    f"-- {text}: expected options of the detector as KEY=VALUE, each once, for "
                    "example mosaic=0.5",
                )
            try:
                parsed[key] = parse_yaml(value)
            except yaml.YAMLError:
                parsed[key] = value
        return parsed

    # -- the training ----------------------------------------------------------------------------

    @property
    def length(self) -> tuple[int, int]:
        return self.options.epochs, self.options.batch

    @property
    def loaders(self) -> int:
        return self.options.workers

    @property
    def job(self) -> DetectorJob:
        """The detector's job; its mirror need not exist yet."""
        source, options = self.source, self.options
        shared = options.model_dump(include={"epochs", "imgsz", "batch", "workers", "cache"})
        return DetectorJob(
            data=self.output / MIRROR / "data.yaml",
            names=source.file.names,
            channels=1 if source.options.colour == "grey" else source.file.channels,
            model=options.model or MODELS[options.detector],
            device=self.device_of(options.device),
            seed=self.seed,
            output=self.output / WEIGHTS,
            augment=self.request.host_augmentation,
            resume=self.done(self.output) > 0,
            options=self.own,
            **shared,
        )

    def describe_training(self) -> Mapping[str, Any]:
        return {"licence": DETECTORS[self.options.detector].licence}

    def train(self, job: Job) -> None:
        """Train on a mirror of the data set, whose places ``EpochSlots`` fills."""
        from gansynth_yolo.mixed import EpochSlots

        own = self.job
        if job.first == 0:
            shutil.rmtree(own.output, ignore_errors=True)
        mirror(self.source, own.data.parent, channels=own.channels)
        slots = EpochSlots(job.rounds.plan, job.rounds.real, own.channels, job.first)
        self._weights = detector(self.options.detector).train(own, slots, job)

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Write the detections in test and validation images; return figures of the latter."""
        own, weights = self.job, self._weights
        about = {"weights": str(weights.relative_to(job.folder)), "model": own.model}
        for split in ("test", "val"):
            if self.source.images[split]:
                limits = (NMS_IOU, split, KEPT_CONFIDENCE, MOST_FOUND)
                progress = partial(job.count, f"detect in {split} image")
                images = tuple(self._look(own, weights, split, progress))
                found = Detections(self.options.detector, own.names, images, *limits, about)
                write_detections(job.folder / Detections.file_of(split), found)
        return summary(read_detections(job.folder / self.result))

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        """Write the boxes of each picture as YOLO does, with their confidence behind them."""
        host = cls.reopened(job)
        images = job.opened(host.source.schema.channels, host.source)
        if not isinstance(images, PictureSource):
            raise UsageFault(
                "yolo.predicted-images-not-pictures",
                f"{job.images}: is {images.request.kind}, expected a folder of pictures",
            )
        own = host.job
        weights = job.folder / read_detections(job.folder / cls.result).about["weights"]
        job.begin(target=cls.name, classes=list(own.names), least_confidence=SHOWN_CONFIDENCE)
        cases = list(images.found.pictures.values())
        paths = [picture.image for picture in cases]
        files = []
        with counting(job.reporter, "image") as progress:
            found = detector(host.options.detector).predict(own, weights, paths, progress)
        for picture, boxes in zip(cases, found, strict=True):
            target = job.out / f"{picture.case}.txt"
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            text = yolo_results(boxes, picture_header(picture.image).shape)
            write_bytes_atomic(target, text.encode())
            files.append(target)
        return files

    def _look(
        self, own: DetectorJob, weights: Path, split: str, progress: Callable[[int, int], None]
    ) -> Iterator[ImageDetections]:
        paths = mirrored(self.source, own.data.parent, split)
        images = list(paths.values())
        found = detector(self.options.detector).predict(own, weights, images, progress)
        for case, boxes in zip(paths, found, strict=True):
            image = self.source.image(case)
            yield ImageDetections(
                case,
                self.source.header(case).subject,
                image.shape,
                true_boxes(image),
                boxes,
                *self.source.place(case),
            )

    @classmethod
    def exporter(cls, request: AugmentRequest) -> type[DataSetExport]:
        from gansynth_yolo.export import YoloExport

        return YoloExport


def true_boxes(image: YoloImage) -> TrueBoxes:
    """Return the boxes of a label file within the image: x1, y1, x2, y2 in pixels."""
    boxes = image.boxes.coords[:, [1, 0, 3, 2]].astype(np.float64)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return TrueBoxes(boxes[inside], image.rows[inside, 0].astype(np.int64))


def yolo_results(found: DetectedBoxes, shape: Sequence[int]) -> str:
    """Return lines of class, box as shares of the image (height, width), and confidence."""
    kept = found.scores >= SHOWN_CONFIDENCE
    coords = found.boxes[kept][:, [1, 0, 3, 2]].astype(np.float32)
    boxes = Boxes(coords, found.labels[kept].astype(np.int16))
    lines = yolo_lines(boxes, shape).splitlines()
    scores = found.scores[kept].tolist()
    scored = [f"{line} {score:.6f}\n" for line, score in zip(lines, scores, strict=True)]
    return "".join(scored)
