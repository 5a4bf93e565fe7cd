"""What the trainer is told: by a JSON file from the adapter, or by plain environment variables.

nnU-Net's command line passes nothing on to a trainer, so the environment is the way in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gansynth.errors import UsageFault
from gansynth.lineage import CaseRecord
from gansynth.ratio import Ratio

SETTINGS: Mapping[str, tuple[type[int] | type[float], str]] = {
    "num_epochs": (int, "Epochs to train (nnU-Net: 1000)."),
    "num_iterations_per_epoch": (int, "Training steps an epoch (nnU-Net: 250)."),
    "num_val_iterations_per_epoch": (int, "Validation batches an epoch (nnU-Net: 50)."),
    "save_every": (int, "Write checkpoint_latest.pth every so many epochs (nnU-Net: 50)."),
    "oversample_foreground_percent": (
        float,
        "Share of a batch whose crops must hold foreground, 0 to 1 (nnU-Net: 0.33).",
    ),
    "initial_lr": (float, "Learning rate at the start (nnU-Net: 0.01)."),
    "weight_decay": (float, "Weight decay of the optimiser (nnU-Net: 3e-5)."),
}
"""Trainer attributes that may be set -> their type and one sentence."""

HOW_TO = (
    "set GANSYNTH_GENERATOR=runs/g0 and GANSYNTH_RATIO=1:1 (and, if you like, "
    "GANSYNTH_SET=num_epochs=100, GANSYNTH_FROZEN=1, GANSYNTH_BANK_SAMPLES=64), "
    "or start it by: gansynth augment --target nnunet --data nnunet:ID --generator runs/g0 "
    "--ratio 1:1"
)


def parse_settings(given: Mapping[str, str], where: str = "--set") -> dict[str, int | float]:
    """Check and convert settings.

    Raises:
        UsageFault: naming the unknown key, or the value that is no such number.
    """
    out: dict[str, int | float] = {}
    for key, text in given.items():
        if key not in SETTINGS:
            raise UsageFault(f"{where} {key}={text}: unknown key, expected one of {_known()}")
        kind = SETTINGS[key][0]
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        low = 1 if kind is int else 0
        high = 1.0 if key == "oversample_foreground_percent" else float("inf")
        if not low <= value <= high or value == float("inf"):
            what = (
                "a whole number of at least 1" if kind is int else "a number that is not negative"
            )
            what = "a number from 0 to 1" if high == 1.0 else what
            raise UsageFault(f"{where} {key}={text}: expected {what}")
        out[key] = value
    return out


def _known() -> str:
    return ", ".join(SETTINGS)


@dataclass(frozen=True)
class MixConfig:
    """How synthetic samples enter one nnU-Net training.

    Attributes:
        ratio: real:synthetic.
        generator: folder of the generator's run; None if an existing bank is given.
        bank: folder of an existing bank; None makes one from the generator.
        frozen: fill a bank of ``bank_samples`` once, then draw from it only.
        bank_samples: samples the bank holds.
        edits: condition edits by name; empty takes the run's own.
        seed: seeds conditions, latents, and the choice of slots.
        device: where the producer runs.
        strict: stop at the first missing synthetic sample.
        settings: attributes of the trainer to set.
        subjects: CSV or regular expression naming the person of each case; None takes the
            generator's own.
        held_out: records of held-out cases already read, so that they are not read twice.
    """

    ratio: Ratio
    generator: Path | None = None
    bank: Path | None = None
    frozen: bool = False
    bank_samples: int = 64
    edits: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    strict: bool = False
    settings: Mapping[str, int | float] = field(default_factory=dict)
    subjects: str | None = None
    held_out: tuple[CaseRecord, ...] = ()

    FILE: ClassVar[str] = "GANSYNTH_CONFIG"

    def __post_init__(self) -> None:
        if self.ratio.p > 0 and self.generator is None and self.bank is None:
            raise UsageFault(f"ratio {self.ratio} asks for synthetic samples of nothing: {HOW_TO}")
        if self.bank_samples < 1:
            raise UsageFault(f"bank samples: {self.bank_samples}, expected at least 1")

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back."""
        doc = asdict(self)
        doc["ratio"] = str(self.ratio)
        doc["generator"] = None if self.generator is None else str(self.generator)
        doc["bank"] = None if self.bank is None else str(self.bank)
        return doc

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> MixConfig:
        """Read what ``to_json`` wrote."""
        fields = dict(doc)
        fields["ratio"] = Ratio.parse(doc["ratio"])
        for key in ("generator", "bank"):
            fields[key] = None if doc[key] is None else Path(doc[key])
        fields["edits"] = tuple(doc["edits"])
        fields["held_out"] = tuple(CaseRecord(**record) for record in doc["held_out"])
        return cls(**fields)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> MixConfig | None:
        """What the environment says; None if it says nothing (inference needs no mixing).

        Raises:
            UsageFault: naming the variable that is missing or wrong, and both ways to do it right.
        """
        if environ.get(cls.FILE):
            return cls._from_file(Path(environ[cls.FILE]))
        names = ("GENERATOR", "BANK", "RATIO")
        said = {name: environ.get(f"GANSYNTH_{name}", "") for name in names}
        if not any(said.values()):
            return None
        if not said["RATIO"]:
            raise UsageFault(f"GANSYNTH_RATIO is not set, expected for example 1:1; {HOW_TO}")
        return cls(
            ratio=Ratio.parse(said["RATIO"]),
            generator=Path(said["GENERATOR"]).absolute() if said["GENERATOR"] else None,
            bank=Path(said["BANK"]).absolute() if said["BANK"] else None,
            frozen=_flag(environ, "GANSYNTH_FROZEN"),
            bank_samples=_number(environ, "GANSYNTH_BANK_SAMPLES", 64),
            seed=_number(environ, "GANSYNTH_SEED", 0),
            device=environ.get("GANSYNTH_DEVICE", "auto"),
            strict=_flag(environ, "GANSYNTH_STRICT"),
            settings=parse_settings(_pairs(environ.get("GANSYNTH_SET", "")), "GANSYNTH_SET"),
            subjects=environ.get("GANSYNTH_SUBJECTS") or None,
        )

    @classmethod
    def _from_file(cls, path: Path) -> MixConfig:
        try:
            return cls.from_json(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageFault(
                f"{cls.FILE}={path}: cannot be read ({type(error).__name__}: {error}), expected "
                "the file that gansynth augment writes; unset it, then " + HOW_TO
            ) from error


def _pairs(text: str) -> dict[str, str]:
    """``a=1,b=2`` as a mapping."""
    pairs: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageFault(f"GANSYNTH_SET: {part!r} has no '=', expected key=value,key=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").lower()
    if text not in ("", "0", "1", "false", "true", "no", "yes"):
        raise UsageFault(f"{name}={text}: expected 1 or 0")
    return text in ("1", "true", "yes")


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise UsageFault(f"{name}={text}: expected a whole number") from None
