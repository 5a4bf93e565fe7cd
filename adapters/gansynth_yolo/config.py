"""What a detector's training is told: ``--set``, ``--detector``, and what follows ``--``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.supply import PATIENCE
from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord
from gansynth.hosts.launch import device_of
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.serialise import Document
from gansynth_yolo.detectors import DETECTORS, DetectorJob

if TYPE_CHECKING:
    from gansynth_yolo.source import YoloSource

SETTINGS: Mapping[str, str] = {
    "detector": "Which library trains, as --detector: libreyolo (default) or ultralytics.",
    "model": "Which of its models (libreyolo: yolox-n, ultralytics: yolo11n.yaml).",
    "epochs": "How often every real image is seen (100).",
    "imgsz": "Side in pixels that images are brought to (640).",
    "batch": "Images of a training step (16).",
    "workers": "Processes that load images (2); 0 loads in the training's own.",
    "cache": "Keep decoded real images in memory: ram, or off (default).",
    "device": "Where the detector trains: auto (default), cpu, cuda, cuda:1.",
    "output": "Folder for its results (runs/yolo/NAME_R-S).",
    "resume": "yes goes on with the training in that folder.",
}
"""Keys of ``--set`` -> one sentence."""
MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolo11n.yaml"}
_NUMBERS = {"epochs": (100, 1), "imgsz": (640, 32), "batch": (16, 1), "workers": (2, 0)}
"""Key -> default, least."""
RUNS = Path("runs") / "yolo"
MIRROR = "data"
"""Folder in the output with links to the user's images and labels, which the detector reads."""
WEIGHTS = "detector"
"""Folder in the output for what the detector itself writes."""


@dataclass(frozen=True)
class Choices:
    """What the user says about the detector.

    Attributes:
        epochs: how often every real image is seen.
        imgsz: side in pixels.
        cache: ``off`` or ``ram``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        output: folder for results; None for the usual one.
    """

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
        detector = _one_of(settings, "detector", tuple(DETECTORS))
        own = parse_options(options)
        resume = _one_of(settings, "resume", ("no", "yes")) == "yes"
        if "resume" in own:
            resume = bool(own.pop("resume"))
        return cls(
            detector=detector,
            model=settings.get("model", MODELS[detector]),
            **{key: _number(settings, key) for key in _NUMBERS},
            cache=_one_of(settings, "cache", ("off", "ram")),
            device=_device(settings.get("device", "auto")),
            output=settings.get("output"),
            resume=resume,
            options=own,
        )


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs of the detector's own; values as YAML has them. ``resume`` alone is yes.

    Raises:
        UsageFault: something else, naming it, or a key twice.
    """
    import yaml

    found: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if key == "resume" and not equals:
            value = "true"
        elif not equals or not key.isidentifier():
            raise UsageFault(
                f"-- {text}: expected options of the detector as KEY=VALUE, for example "
                "mosaic=0.5, or resume"
            )
        if key in found:
            raise UsageFault(f"-- {text}: {key} is given twice, expected once")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[key] = value
    return found


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


# -- reading values --------------------------------------------------------------------------------


def _one_of(settings: Mapping[str, str], key: str, known: Sequence[str]) -> str:
    """One of some words, the first by default."""
    value = settings.get(key, known[0])
    if value not in known:
        option = "--detector " if key == "detector" else f"--set {key}="
        raise UsageFault(f"{option}{value}: expected {' or '.join(known)}")
    return value


def _number(settings: Mapping[str, str], key: str) -> int:
    usual, least = _NUMBERS[key]
    text = settings.get(key, str(usual))
    if not text.isdecimal() or int(text) < least:
        raise UsageFault(f"--set {key}={text}: expected a whole number of at least {least}")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise UsageFault(f"--set device={text}: expected auto, cpu, cuda or cuda:N")
    return text
