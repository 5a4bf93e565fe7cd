"""The trainer's configuration: a JSON file of the adapter, or environment variables.

nnU-Net's command line passes nothing on to a trainer, so the environment has to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from gansynth.bank.training_bank import PATIENCE, read_patience
from gansynth.core.adapter import HostOptions
from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import read_settings, refuse_unaugmented
from gansynth.runtime.serialise import Document
from gansynth.sampling.request_parsing import read_request, split_asked
from gansynth_nnunet.class_locations import location_keys


def _class_name(text: str) -> str:
    if not text.isidentifier():
        raise ValueError("expected a name like nnUNetTrainerDA5")
    return text


class TrainerSettings(HostOptions):
    """Attributes of nnU-Net's trainer that may be set."""

    num_epochs: int | None = Field(None, ge=1, description="epochs to train (nnU-Net: 1000)")
    num_iterations_per_epoch: int | None = Field(
        None, ge=1, description="training steps an epoch (nnU-Net: 250)"
    )
    num_val_iterations_per_epoch: int | None = Field(
        None, ge=1, description="validation batches an epoch (nnU-Net: 50)"
    )
    save_every: int | None = Field(
        None,
        ge=1,
        description="write checkpoint_latest.pth every so many epochs (10; nnU-Net: 50)",
    )
    oversample_foreground_percent: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of a batch whose crops must hold foreground, from 0 to 1 (nnU-Net: "
        "0.33)",
    )
    initial_lr: float | None = Field(
        None, ge=0, le=10, description="learning rate at the start (nnU-Net: 0.01)"
    )
    weight_decay: float | None = Field(
        None, ge=0, description="weight decay of the optimiser (nnU-Net: 3e-5)"
    )
    elastic: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of samples that nnU-Net's spatial transform also deforms elastically, "
        "from 0 to 1 (nnU-Net: 0)",
    )

    @property
    def attributes(self) -> dict[str, int | float]:
        """Return those that are set."""
        return self.model_dump(include=set(TrainerSettings.model_fields), exclude_none=True)


class NnunetSettings(TrainerSettings):
    """``gansynth augment --target nnunet --set``."""

    place: ClassVar[str] = "results"

    trainer: Annotated[str, AfterValidator(_class_name)] = Field(
        "nnUNetTrainer", description="nnU-Net's trainer to extend, e.g. nnUNetTrainerDA5"
    )
    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+4,ET:4; "
        "training does not change",
    )
    results: Path | None = Field(
        None,
        description="folder of nnU-Net's results, as -o; by default GENERATOR_R-S_SCHEDULE in "
        "nnUNet_results",
    )


VARIABLES = (
    *("GENERATOR", "BANK", "RATIO", "SCHEDULE", "FROZEN", "BANK_SIZE", "REUSE", "REFRESH"),
    *("OVERHEAD", "SCRATCH", "EDITS", "SEED", "DEVICE", "RESTARTS", "STRICT", "KEEP_GOING"),
    *("BOXES", "CONDITIONS", "CONDITIONS_READ", "PREVALENCE", "LESIONS", "WEIGHTS", "FILTER"),
    *("USUAL_AUGMENTATION", "AUGMENT_SYNTHETIC", "SET", "SUBJECTS", "PATIENCE"),
)
"""Variables, each after ``GANSYNTH_``; ``gansynth augment`` reads only the last."""

HOW_TO = (
    "set GANSYNTH_GENERATOR=runs/g0 and GANSYNTH_RATIO=1:1 (and, if you like, "
    "GANSYNTH_SET=num_epochs=100, GANSYNTH_FROZEN=1, GANSYNTH_BANK_SIZE=64), "
    "or start it by: gansynth augment --target nnunet --data nnunet:ID --generator runs/g0 "
    "--ratio 1:1"
)


@dataclass(frozen=True)
class TrainerMix(Document):
    """How synthetic samples enter one nnU-Net training."""

    mix_config: MixConfig
    settings: Mapping[str, int | float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # see ``adapter.CHANGING``
    # CSV or regular expression that gives each case's subject; None takes the generator's own
    subjects: str | None = None
    patience: float = PATIENCE  # seconds a phase without real cases waits for a sample
    # records of held-out cases already read, so that they are not read twice
    held_out: tuple[CaseRecord, ...] = ()

    FILE: ClassVar[str] = "GANSYNTH_CONFIG"

    def __post_init__(self) -> None:
        refuse_unaugmented(self.settings, ["elastic"], usual=self.mix_config.usual_augmentation)

    @property
    def generator(self) -> RunFolder | None:
        """The run that generates samples; None without samples or with an existing bank."""
        mixing = self.mix_config.ratio.p > 0 and self.mix_config.bank is None
        return self.mix_config.run if mixing else None

    @property
    def bank(self) -> Path | None:
        """The existing bank to draw from, if any."""
        return self.mix_config.bank if self.mix_config.ratio.p > 0 else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> TrainerMix | None:
        """Read the configuration from the environment; None if unset (inference needs none)."""
        if environ.get(cls.FILE):
            return cls._from_file(Path(environ[cls.FILE]))
        variables = {name: environ.get(f"GANSYNTH_{name}", "") for name in VARIABLES}
        if not any(variables[name] for name in ("GENERATOR", "BANK", "RATIO")):
            return None
        if not variables["RATIO"]:
            raise UsageFault(f"GANSYNTH_RATIO is not set, expected for example 1:1; {HOW_TO}")
        if (
            not (variables["GENERATOR"] or variables["BANK"])
            and Ratio.parse(variables["RATIO"]).p > 0
        ):
            raise UsageFault(
                f"ratio {variables['RATIO']} needs synthetic samples, but none are made: {HOW_TO}"
            )
        return cls(
            mix_config=_mix_config(variables),
            settings=read_settings(
                TrainerSettings, _pairs(variables["SET"]), "nnU-Net's trainer", "GANSYNTH_SET"
            ).attributes,
            subjects=variables["SUBJECTS"] or None,
            patience=read_patience(environ),
        )

    @classmethod
    def _from_file(cls, path: Path) -> TrainerMix:
        try:
            return cls.from_json(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageFault(
                f"{cls.FILE}={path}: cannot be read ({type(error).__name__}: {error}), expected "
                "the file that gansynth augment writes; unset it, then " + HOW_TO
            ) from error


class TrainingInfo:
    """Facts of a training that its trainer knows when it opens its data sets.

    Args:
        trainer: nnU-Net's trainer.
        real: its data set of training cases.
        validation: its data set of held-out cases.
    """

    def __init__(self, trainer: Any, real: Any, validation: Any) -> None:
        import torch

        # Raw intensities may exceed the range of float16; normalised ones do not.
        schemes = trainer.configuration_manager.normalization_schemes
        held_out = () if trainer.fold == "all" else validation.identifiers
        names = trainer.dataset_json.get("channel_names", trainer.dataset_json.get("modality"))
        self.dataset: str = trainer.plans_manager.dataset_name
        self.configuration: str = trainer.configuration_name
        self.plans: str = trainer.plans_manager.plans_name
        self.fold = str(trainer.fold)
        self.train_ids = tuple(str(case) for case in real.identifiers)
        self.held_out_ids = tuple(str(case) for case in held_out)
        self.patch = tuple(int(n) for n in trainer.configuration_manager.patch_size)
        self.channels = len(names)
        self.batch_size = int(trainer.batch_size)
        self.keys = location_keys(trainer.label_manager)
        self.dtype: Literal["float16", "float32"] = (
            "float32" if "NoNormalization" in schemes else "float16"
        )
        self.epoch = int(trainer.current_epoch)
        self.epochs = int(trainer.num_epochs)
        self.batches = int(trainer.num_iterations_per_epoch)
        self.output = Path(trainer.output_folder)
        self.rank = int(trainer.local_rank)
        self.ranks = torch.distributed.get_world_size() if trainer.is_ddp else 1
        self.say: Callable[[str], None] = trainer.print_to_log_file
        self.gpus = tuple(range(self.ranks)) if trainer.device.type == "cuda" else ()

    @property
    def progress(self) -> float:
        """Progress of the training, 0 to 1."""
        return min(1.0, self.epoch / self.epochs)


def _pairs(text: str) -> dict[str, str]:
    """Parse ``a=1,b=2`` into a mapping."""
    pairs: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageFault(f"GANSYNTH_SET: {part!r} has no '=', expected key=value,key=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _mix_config(variables: Mapping[str, str]) -> MixConfig:
    """Return the ``MixConfig`` that ``GANSYNTH_`` variables describe."""
    paths = {
        k: Path(variables[k]).absolute() if variables[k] else None for k in ("GENERATOR", "BANK")
    }
    return MixConfig(
        run=None if paths["GENERATOR"] is None else RunFolder(paths["GENERATOR"]),
        ratio=Ratio.parse(variables["RATIO"]),
        schedule=Schedule.parse(variables["SCHEDULE"] or "constant"),
        frozen=_flag(variables, "FROZEN"),
        size=BankSize.parse(variables["BANK_SIZE"] or "64"),
        pacing=RefreshPolicy.parse(
            variables["REUSE"] or None, variables["REFRESH"] or None, variables["OVERHEAD"] or None
        ),
        bank=paths["BANK"],
        scratch=Path(variables["SCRATCH"]).absolute() if variables["SCRATCH"] else None,
        samples=_request(variables),
        device=variables["DEVICE"] or "auto",
        restarts=_number(variables, "RESTARTS", 5),
        strict=_flag(variables, "STRICT"),
        keep_going=_flag(variables, "KEEP_GOING"),
        usual_augmentation=_flag(variables, "USUAL_AUGMENTATION", True),
        augment_synthetic=_flag(variables, "AUGMENT_SYNTHETIC", True),
    )


def _request(variables: Mapping[str, str]) -> SampleRequest:
    """Return the request of samples."""
    how: list[str] = []
    for part in filter(None, variables["CONDITIONS_READ"].split(",")):
        if "=" in part or not how:
            how.append(part)
        else:  # a value of several, spacing=1,1,1
            how[-1] += f",{part}"
    pairs = dict(part.partition("=")[::2] for part in how)
    return read_request(
        seed=_number(variables, "SEED", 0),
        edit=split_asked(variables["EDITS"]),
        boxes=variables["BOXES"] or None,
        condition_source=variables["CONDITIONS"] or None,
        condition_source_read=pairs,
        prevalence=variables["PREVALENCE"] or None,
        lesions=variables["LESIONS"] or None,
        sampling_weights=variables["WEIGHTS"] or None,
        filter=split_asked(variables["FILTER"]),
    )


def _flag(variables: Mapping[str, str], name: str, default: bool = False) -> bool:
    text = variables[name].lower()
    if text not in ("", "0", "1", "false", "true", "no", "yes"):
        raise UsageFault(f"GANSYNTH_{name}={text}: expected 1 or 0")
    return text in ("1", "true", "yes") if text else default


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables[name]
    try:
        return int(text) if text else default
    except ValueError:
        raise UsageFault(f"GANSYNTH_{name}={text}: expected a whole number") from None
