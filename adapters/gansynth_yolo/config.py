"""Options of a detector's training: settings, and arguments after ``--``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gansynth.bank.training_bank import PATIENCE
from gansynth.core.adapter import HostOptions
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.hosts.launch import device_of
from gansynth.hosts.record import epochs_done
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings
from gansynth.runtime.serialise import Document
from gansynth.runtime.yaml_text import parse_yaml
from gansynth_yolo.detectors import DetectorJob

if TYPE_CHECKING:
    from gansynth_yolo.source import YoloSource

MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolo11n.yaml"}
RUNS = Path("runs") / "yolo"
MIRROR = "data"
"""Folder in the output with links to the user's images and labels, read by the detector."""
WEIGHTS = "detector"  # folder in the output for the detector's own files


class YoloSettings(HostOptions):
    """``gansynth augment --target yolo --set``."""

    place: ClassVar[str] = "output"

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
        640, ge=32, description="side in pixels to which images are resized, a multiple of 32"
    )
    batch: int = Field(16, ge=1, le=65536, description="images of a training step")
    workers: int = Field(
        2, ge=0, description="processes that load images; 0 loads in the training process"
    )
    cache: Literal["off", "ram"] = Field(
        "off", description="ram: keep decoded real images in memory"
    )
    device: Device = Field(
        "auto", description="training device: auto, cpu, cuda or cuda:N; --device is the producer's"
    )
    output: str | None = Field(
        None, description="folder for its results (runs/yolo/NAME_GENERATOR_R-S_SCHEDULE)"
    )


class YoloChoices(YoloSettings):
    """The user's settings, with a model and with ``options``, the detector's own."""

    model: str = MODELS["libreyolo"]
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, settings: Mapping[str, str], options: Sequence[str]) -> YoloChoices:
        """Check and convert ``--set`` values and arguments after ``--``."""
        read = dict(read_settings(YoloSettings, settings, "yolo"))
        read["model"] = read["model"] or MODELS[read["detector"]]
        return cls(**read, options=parse_options(options))

    def to_json(self) -> dict[str, Any]:
        """See ``Document``."""
        return self.model_dump()

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> YoloChoices:
        """See ``Document``."""
        return cls.model_validate(doc)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Parse the detector's own ``KEY=VALUE`` options as YAML."""
    import yaml

    parsed: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageFault(
                f"-- {text}: expected options of the detector as KEY=VALUE, for example mosaic=0.5"
            )
        if key in parsed:
            raise UsageFault(f"-- {text}: {key} is given twice, expected once")
        try:
            parsed[key] = parse_yaml(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed


# -- on its way to the child -----------------------------------------------------------------------


@dataclass(frozen=True)
class YoloConfig(Document):
    """Configuration of one detector's training."""

    mix_config: MixConfig
    choices: YoloChoices
    request: Mapping[str, Any]  # the source that was checked, a `SourceRequest` as JSON
    output: Path
    patience: float = PATIENCE  # seconds that a phase without real images waits for a sample
    held_out: tuple[CaseRecord, ...] = ()  # records of held-out cases that have been read already

    @classmethod
    def read(cls, path: Path) -> YoloConfig:
        """Read a file that ``to_json`` wrote."""
        doc = read_json(path)
        try:
            return cls.from_json(doc)
        except (KeyError, TypeError, ValueError) as error:
            wrong = ": ".join(line.strip() for line in str(error).splitlines()[:3])
            raise IntegrityFault(
                f"{path}: {type(error).__name__}: {wrong}; expected the file that gansynth augment "
                "writes; start anew"
            ) from error

    def job(self, source: YoloSource) -> DetectorJob:
        """Return the detector's job on a data set; its mirror need not exist yet."""
        choices = self.choices
        return DetectorJob(
            data=self.output / MIRROR / "data.yaml",
            names=source.file.names,
            channels=1 if source.options.colour == "grey" else source.file.channels,
            device=device_of(choices.device),
            seed=self.mix_config.seed,
            output=self.output / WEIGHTS,
            augment=self.mix_config.usual_augmentation,
            resume=epochs_done(self.output) > 0,
            **choices.model_dump(exclude={"detector", "device", "output"}),
        )
