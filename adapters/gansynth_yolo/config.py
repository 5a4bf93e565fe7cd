"""What a detector's training is told: ``--set``, ``--detector``, and what follows ``--``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gansynth.bank.supply import PATIENCE
from gansynth.core.adapter import HostOptions, Injection
from gansynth.core.lineage import CaseRecord
from gansynth.hosts.launch import device_of
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings
from gansynth.runtime.serialise import Document
from gansynth_yolo.detectors import DetectorJob

if TYPE_CHECKING:
    from gansynth_yolo.source import YoloSource

MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolo11n.yaml"}
RUNS = Path("runs") / "yolo"
MIRROR = "data"
"""Folder in the output with links to the user's images and labels, which the detector reads."""
WEIGHTS = "detector"
"""Folder in the output for what the detector itself writes."""


class YoloSettings(HostOptions):
    """``gansynth augment --target yolo --set``."""

    flags: ClassVar[Mapping[str, str]] = {"detector": "--detector"}

    detector: Literal["libreyolo", "ultralytics"] = Field(
        "libreyolo", description="which library trains, as --detector"
    )
    model: str | None = Field(
        None,
        description="which of its models: of libreyolo yolox-n (default), yolo9-t and the like; of "
        "ultralytics a .yaml (yolo11n.yaml); or a .pt file that is there: nothing is downloaded",
    )
    epochs: int = Field(100, ge=1, description="how often every real image is seen")
    imgsz: int = Field(
        640, ge=32, description="side in pixels that images are brought to, a multiple of 32"
    )
    batch: int = Field(16, ge=1, description="images of a training step")
    workers: int = Field(
        2, ge=0, description="processes that load images; 0 loads in the training's own"
    )
    cache: Literal["off", "ram"] = Field(
        "off", description="ram: keep decoded real images in memory"
    )
    device: Device = Field(
        "auto",
        description="where the detector trains: auto, cpu, cuda or cuda:N; --device is the "
        "producer's",
    )
    output: str | None = Field(
        None, description="folder for its results, never overwritten (runs/yolo/NAME_R-S)"
    )
    resume: bool = Field(False, description="yes goes on with the training in that folder")


@dataclass(frozen=True)
class Choices:
    """What the user says about the detector; see ``YoloSettings``. ``options``: its own."""

    detector: str = "libreyolo"
    model: str = MODELS["libreyolo"]
    epochs: int = 100
    imgsz: int = 640
    batch: int = 16
    workers: int = 2
    cache: str = "off"
    device: str = "auto"
    output: str | None = None
    resume: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: Mapping[str, str], options: Sequence[str]) -> Choices:
        """Check and convert ``--set`` values and what follows ``--``.

        Raises:
            UsageFault: naming what is wrong.
        """
        read = dict(read_settings(YoloSettings, settings, "yolo"))
        read["model"] = read["model"] or MODELS[read["detector"]]
        extra = parse_options(options)
        if "resume" in extra:
            read["resume"] = bool(extra.pop("resume"))
        return cls(**read, options=extra)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs of the detector's own; values as YAML has them. ``resume`` alone is yes.

    Raises:
        UsageFault: something else, naming it, or a key twice.
    """
    import yaml

    parsed: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if key == "resume" and not equals:
            value = "true"
        elif not equals or not key.isidentifier():
            raise UsageFault(
                f"-- {text}: expected options of the detector as KEY=VALUE, for example "
                "mosaic=0.5, or resume"
            )
        if key in parsed:
            raise UsageFault(f"-- {text}: {key} is given twice, expected once")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed


# -- on its way to the child -----------------------------------------------------------------------


@dataclass(frozen=True)
class YoloConfig(Document):
    """How one detector is trained with samples mixed in.

    Attributes:
        request: the source that was checked, a ``SourceRequest`` as JSON.
        patience: seconds a phase that may draw no real image waits for a sample.
        held_out: records of held-out cases already read, so that they are not read twice.
    """

    injection: Injection
    choices: Choices
    request: Mapping[str, Any]
    output: Path
    patience: float = PATIENCE
    held_out: tuple[CaseRecord, ...] = ()

    @classmethod
    def read(cls, path: Path) -> YoloConfig:
        """Read what ``to_json`` wrote.

        Raises:
            IntegrityFault: it is damaged.
        """
        doc = read_json(path)
        try:
            return cls.from_json(doc)
        except (KeyError, TypeError) as error:
            raise IntegrityFault(
                f"{path}: {type(error).__name__}: {error}; expected the file that gansynth augment "
                "writes; start anew"
            ) from error

    def job(self, source: YoloSource) -> DetectorJob:
        """What the detector is to do with a data set, whose mirror need not be there yet."""
        choices = self.choices
        return DetectorJob(
            data=self.output / MIRROR / "data.yaml",
            names=source.file.names,
            channels=1 if source.options.colour == "grey" else source.file.channels,
            model=choices.model,
            epochs=choices.epochs,
            imgsz=choices.imgsz,
            batch=choices.batch,
            workers=choices.workers,
            cache=choices.cache,
            device=device_of(choices.device),
            seed=self.injection.seed,
            output=self.output / WEIGHTS,
            augment=self.injection.usual_augmentation,
            resume=choices.resume,
            options=dict(choices.options),
        )
