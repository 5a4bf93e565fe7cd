"""Unmodified YOLO detectors, trained in a child process with samples mixed in on the fly.

The data set's record does not hold the size that images are read in, and hashes are of the files'
pixels. So a generator of any size can be compared with the held-out images.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.core.host_commands import ExportRequest, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.hosts.epoch_plan import count_places
from gansynth.hosts.host import Framework, Job
from gansynth.hosts.launch import device_of
from gansynth.hosts.record import FILE, read_sessions
from gansynth.hosts.sample_source import check_schema
from gansynth.metrics.detection.measures import summary
from gansynth.metrics.detection.record import read_detections
from gansynth.runtime.errors import UsageFault
from gansynth_yolo.config import MIRROR, MODELS, WEIGHTS, YoloSettings, parse_options
from gansynth_yolo.detectors import DetectorJob, detector
from gansynth_yolo.evaluation import SPLITS, write_found
from gansynth_yolo.source import YoloSource

LICENCES: Mapping[str, str] = {
    "libreyolo": "MIT",
    "ultralytics": "AGPL-3.0: its terms apply to this training and to the weights it has made",
}
"""Detector -> its licence and the consequences for a training."""


class YoloAdapter(Framework):
    """Augments the training of a detector on one YOLO data set and split."""

    name: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    length_option: ClassVar[str] = "epochs"
    Options = YoloSettings
    needs: ClassVar[Literal["labels", "boxes"]] = "boxes"
    any_size: ClassVar[bool] = True
    apart = True
    result = SPLITS["val"]
    may_change = ("workers", "cache")
    same = ("channels", "box_classes")
    source: YoloSource
    options: YoloSettings

    def __init__(self, source: CaseSource) -> None:
        if not isinstance(source, YoloSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: detectors train on YOLO "
                "data sets, expected yolo:data.yaml"
            )
        super().__init__(source)

    @property
    def sample_size(self) -> tuple[int, ...]:
        """The least size, because detectors resize every image."""
        return 8, 8

    @property
    def packages(self) -> Sequence[str]:  # type: ignore[override]
        """Torch and the detector."""
        return "torch", "torchvision", self.options.detector

    def validate(self) -> None:
        """Reject fold ``all``, which has no validation images."""
        if self.source.request.fold == "all":
            raise UsageFault(
                "--fold all: leaves no image to validate a detector on; expected fold 0, the "
                f"split of {self.source.file.path}"
            )

    def check_ways(self, mix_config: MixConfig) -> None:
        """Refuse samples without augmentation, too."""
        super().check_ways(mix_config)
        if not mix_config.augment_synthetic:
            raise UsageFault(
                "--augment-synthetic no: detectors augment mosaics, in which real and synthetic "
                "images meet; leave it out, or augment none: --no-host-augmentation"
            )

    def check_run(self, run: RunFolder, mix_config: MixConfig) -> None:
        """Refuse edits of boxes, other channels and other classes."""
        edits = mix_config.samples.edits
        if edits and not run.capabilities.from_labels:
            raise UsageFault(
                f"--edit {edits[0]}: {run.manifest['generator']} has boxes as its condition, not "
                "label maps that could be edited; leave --edit out, or see --boxes"
            )
        hint = f"gansynth fit cpggan --data yolo:{self.source.request.where}"
        check_schema(run.folder, run.schema, self.source.schema, self.same, f"Fit again: {hint}")

    # -- the training ----------------------------------------------------------------------------

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        """Read the detector's own options."""
        return parse_options(options)

    @property
    def length(self) -> tuple[int, int]:
        """The options ``epochs`` and ``batch``."""
        return self.options.epochs, self.options.batch

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
            device=device_of(options.device),
            seed=self.seed,
            output=self.output / WEIGHTS,
            augment=self.mix_config.usual_augmentation,
            resume=self.done(self.output) > 0,
            options=self.own,
            **shared,
        )

    def check(self, request: TrainingRequest) -> None:
        """Let the detector look at its job, after leakage and units: it may not be installed."""
        super().check(request)
        training: Any = self.opened(request)
        detector(training.options.detector).check(training.job)

    def describe_training(self) -> Mapping[str, Any]:
        """Name the detector's licence."""
        return {"licence": LICENCES[self.options.detector]}

    def train(self, job: Job) -> None:
        """Train on a mirror of the data set, whose places ``EpochSlots`` fills."""
        from gansynth_yolo.mirror import mirror
        from gansynth_yolo.mixed import EpochSlots

        own = self.job
        if job.first == 0:
            shutil.rmtree(own.output, ignore_errors=True)
        mirror(self.source, own.data.parent, channels=own.channels)
        slots = EpochSlots(job.rounds.plan, job.rounds.real, own.channels, job.first)
        self._weights = detector(self.options.detector).train(own, slots, _Watch(job))

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Write the detections in validation and test images; return figures of the former."""
        chosen = detector(self.options.detector)
        write_found(job.folder, self.source, chosen, self.job, self._weights)
        return summary(read_detections(job.folder / self.result))

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return steps and figures, on test images if there are any."""
        steps = 0
        for session in read_sessions(folder / FILE):
            places = [e["places_real"] + e["places_synthetic"] for e in session["per_epoch"]]
            steps += sum(ceil(count / session["settings"]["batch"]) for count in places)
        split = next(split for split, file in SPLITS.items() if (folder / file).is_file())
        figures = summary(read_detections(folder / SPLITS[split]))
        return {"steps": steps, "judged_on": split, "figures": figures, "per_case": {}}

    # -- benchmarks and exports ------------------------------------------------------------------

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Return options that evaluate LibreYOLO's last weights: no validation while it trains."""
        if settings.get("detector") == "ultralytics":
            raise UsageFault(
                "host.detector: ultralytics selects weights on the images of the evaluation, "
                "expected a detector that does not: libreyolo"
            )
        intervals = [option for option in options if option.startswith("eval_interval=")]
        if intervals not in ([], ["eval_interval=0"]):
            raise UsageFault(
                f"host.options: {intervals[0]} selects weights on the images of the evaluation, "
                "expected eval_interval=0; leave it out"
            )
        return tuple(options) if intervals else (*options, "eval_interval=0")

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return permanent mosaics, mixup and wider geometry as options of the detector."""
        words = "degrees=20 translate=0.2 shear=5 "
        if settings.get("detector") == "ultralytics":
            words += "close_mosaic=0 mixup=0.5 flipud=0.5"
        else:
            words += "no_aug_epochs=0 mosaic_prob=1 mixup_prob=0.5"
        return {}, tuple(words.split())

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return the epochs of each mix that come nearest to the steps."""
        batch = int(settings.get("batch", "16"))
        each = [max(1, count_places(ratio, cases) // batch) for ratio, _ in mixes]
        return [{"epochs": str(max(1, round(steps / steps_each)))} for steps_each in each]

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        """Write a folder that stock detectors train on."""
        from gansynth_yolo.export import YoloExport

        if request.content == "mixed":
            self.validate()
        export = YoloExport(self.source, request)
        self.check_samples(request.mix_config)
        return export.run()


@dataclass
class _Watch:
    """Passes the detector's progress on to the job."""

    job: Job

    def step(self, begin: float, end: float) -> None:
        self.job.took(begin, end)

    def epoch(self, done: int, metrics: Mapping[str, float]) -> None:
        """Select losses and mean average precision from a detector's metrics."""
        short = {key.removesuffix("(B)").removeprefix("metrics/"): n for key, n in metrics.items()}
        worth = {
            key.removeprefix("train/"): value
            for key, value in short.items()
            if key.startswith("train/") or key in ("mAP50", "mAP50-95")
        }
        self.job.round(done, **worth)
