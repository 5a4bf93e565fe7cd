"""Unmodified YOLO detectors, trained in a child process with samples mixed in on the fly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import Adapter, HostArrays
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import ExportRequest, TrainingFolder, TrainingRequest
from gansynth.core.lineage import guard_host
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.epoch_plan import count_places
from gansynth.hosts.launch import train_apart
from gansynth.hosts.record import (
    FILE,
    default_output,
    read_sessions,
    training_folder,
    training_result_of,
)
from gansynth.hosts.sample_source import check_schema
from gansynth.hosts.session import CachedResult, training_in
from gansynth.metrics.detection.measures import summary
from gansynth.metrics.detection.record import read_detections
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth_yolo.config import RUNS, WEIGHTS, YoloChoices, YoloConfig, YoloSettings
from gansynth_yolo.detectors import detector
from gansynth_yolo.evaluation import SPLITS, metrics_of
from gansynth_yolo.guards import SAME, hint, open_sample_source, sample_bytes
from gansynth_yolo.session import COMPARED, describe
from gansynth_yolo.source import YoloSource

SMALLEST = (8, 8)  # least rows and columns of a sample; detectors resize every image
CONFIG = "gansynth_config.json"
ELSEWHERE = "--set output="  # option that names another folder


class YoloAdapter(Adapter):
    """Augments the training of a detector on one YOLO data set and split."""

    name: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    length_option: ClassVar[str] = "epochs"
    Options = YoloSettings
    needs: ClassVar[Literal["labels", "boxes"]] = "boxes"
    any_size: ClassVar[bool] = True
    exports: ClassVar[Literal["nothing", "name", "folder"]] = "folder"

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        if not isinstance(source, YoloSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: detectors train on YOLO "
                "data sets, expected yolo:data.yaml"
            )
        self.host = source
        self._sample_source = CachedResult(
            lambda mix_config: open_sample_source(mix_config, source, self.held_out)
        )

    @property
    def sample_size(self) -> tuple[int, ...]:
        """The least size, because detectors resize every image."""
        return SMALLEST

    def finalise(self, sample: Sample) -> HostArrays:
        """Check the boxes; no arrays are returned beside image and boxes."""
        if sample.boxes is None:
            raise DataFault("sample: no boxes, expected a list of them, which may be empty")
        classes = len(self.schema.box_classes)
        unknown = sorted({int(n) for n in sample.boxes.labels if not 0 <= n < classes})
        if unknown:
            raise DataFault(f"sample: box class {unknown[0]}, expected 0 to {classes - 1}")
        return {}

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """Return samples of the same data set unchanged, whatever size they were read in."""
        guard_host(source.space.host, self.source.space.host)
        check_schema(self.host.file.path, source.schema, self.schema, SAME, hint(self.host))
        return lambda sample: sample

    def validate(self) -> None:
        """Reject fold ``all``, which has no validation images."""
        host = self.host
        if host.request.fold == "all":
            raise UsageFault(
                "--fold all: leaves no image to validate a detector on; expected fold 0, the "
                f"split of {host.file.path}"
            )

    def check(self, request: TrainingRequest) -> None:
        """Check settings, the detector and its options, and the generator or bank."""
        mix_config = request.mix_config
        self.check_ways(mix_config)
        if not mix_config.augment_synthetic:
            raise UsageFault(
                "--augment-synthetic no: detectors augment mosaics, in which real and synthetic "
                "images meet; leave it out, or augment none: --no-host-augmentation"
            )
        config = self._config(request)
        if mix_config.ratio.p > 0:
            self.check_origin(mix_config)
        detector(config.choices.detector).check(config.job(self.host))

    def check_origin(self, mix_config: MixConfig) -> None:
        """Check the generator or bank and the request to it; see ``check``."""
        self._sample_source(mix_config)
        check_drawing(self, mix_config)

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
        if settings.get("detector") == "ultralytics":
            words = "close_mosaic=0 mixup=0.5 degrees=20 translate=0.2 shear=5 flipud=0.5"
        else:
            words = "no_aug_epochs=0 mosaic_prob=1 mixup_prob=0.5 degrees=20 translate=0.2 shear=5"
        return {}, tuple(words.split())

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return the epochs of each mix that come nearest to the steps."""
        batch = int(settings.get("batch", "16"))
        lengths = []
        for ratio, _ in mixes:
            places = count_places(ratio, cases)
            lengths.append({"epochs": str(max(1, round(steps / max(1, places // batch))))})
        return lengths

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train the detector in a child process, and evaluate it on real images."""
        self.validate()
        self.check(request)
        config = self._config(request)
        output = config.output
        with training_in(lambda: self.training_folder(request), option=ELSEWHERE) as folder:
            if not folder.finished:
                if not folder.done:
                    shutil.rmtree(output / WEIGHTS, ignore_errors=True)
                write_json_atomic(output / CONFIG, config.to_json())
                train_apart(
                    *("gansynth_yolo.launch", [str(output / CONFIG)], output),
                    "the detector's training",
                    variables=os.environ,
                    reporter=request.reporter,
                )
            return training_result_of(read_sessions(output / FILE), output, metrics_of(output))

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        """Look into the output folder; see ``Adapter.training_folder``."""
        config, mix_config = self._config(request), request.mix_config
        sample_source = self._sample_source(mix_config) if mix_config.ratio.p > 0 else None
        return training_folder(
            *(config.output, describe(config, sample_source), COMPARED),
            total=config.choices.epochs,
            result=SPLITS["val"],
            option=ELSEWHERE,
        )

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return steps and figures, on test images if there are any."""
        sessions = read_sessions(folder / FILE)
        epochs = [(each["batch"], epoch) for each in sessions for epoch in each["per_epoch"]]
        split = "test" if (folder / SPLITS["test"]).is_file() else "val"
        return {
            "steps": sum(ceil((e["places_real"] + e["places_synthetic"]) / n) for n, e in epochs),
            "judged_on": split,
            "figures": summary(read_detections(folder / SPLITS[split])),
            "per_case": {},
        }

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        """Write a folder that stock detectors train on; see ``Adapter.export``."""
        from gansynth_yolo.export import YoloExport

        if request.content == "mixed":
            self.validate()
        export = YoloExport(self.host, request)
        self.check_origin(request.mix_config)
        return export.run()

    def _config(self, request: TrainingRequest) -> YoloConfig:
        mix_config = request.mix_config
        choices = YoloChoices.read(request.settings, request.options)
        output = default_output(RUNS, self.host.name, mix_config)
        return YoloConfig(
            mix_config=mix_config,
            choices=choices,
            request=self.source.request.to_json(),
            output=output if choices.output is None else Path(choices.output).absolute(),
            patience=read_patience(),
            held_out=self.held_out if mix_config.ratio.p > 0 else (),
        )

    def samples_drawn(self, request: TrainingRequest) -> int:
        """Return the slots of all epochs."""
        epochs = self._config(request).job(self.host).epochs
        return epochs * count_places(request.mix_config.ratio, len(self.source.train_ids))

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Plan the sample bank of a run; see ``Adapter.bank_plan``."""
        return plan_own_bank(self, mix_config, sample_bytes)
