"""Settings of an nnU-Net training, and the one file that tells them to its trainer.

nnU-Net's command line passes nothing on to a trainer, so the environment names the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from gansynth.bank.training_bank import PATIENCE, read_patience
from gansynth.core.adapter import HostOptions
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import refuse_unaugmented

FILE = "GANSYNTH_CONFIG"
"""Variable with the path of a ``TrainerConfig``."""
HOW_TO = (
    "set GANSYNTH_GENERATOR=runs/g0 and GANSYNTH_RATIO=1:1, or for all other options "
    f"{FILE}=mix.json, which gansynth augment --target nnunet --dry-run --settings-file mix.json "
    "writes; or start it by: gansynth augment --target nnunet --generator runs/g0 --ratio 1:1"
)


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

    trainer: str = Field(
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
    settings_file: Path | None = Field(
        None,
        description="with --dry-run: write these settings to a file, for nnU-Net's own command",
    )


as_document = PlainSerializer(lambda value: value.to_json())


def _mix_config(value: Any) -> MixConfig:
    if isinstance(value, MixConfig):
        return value
    return MixConfig.from_json({"run": None, "schedule": "constant", "size": "64", **value})


def _case(value: Any) -> CaseRecord:
    return value if isinstance(value, CaseRecord) else CaseRecord.from_json(value)


class TrainerConfig(BaseModel):
    """How synthetic samples enter one nnU-Net training.

    Attributes:
        mix_config: as JSON a run's folder (``run``) or a ``bank``, a ``ratio``, and further keys.
        settings: attributes of the trainer.
        options: those of nnU-Net's command line that change the result.
        subjects: CSV or regular expression that gives each case's subject; None takes the
            generator's own.
        patience: seconds that a phase without real cases waits for a sample.
        held_out: records of held-out cases that the starting process has just read; if empty, the
            trainer reads the cases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    mix_config: Annotated[MixConfig, PlainValidator(_mix_config), as_document]
    settings: TrainerSettings = TrainerSettings()
    options: Mapping[str, Any] = {}
    subjects: str | None = None
    patience: float = Field(PATIENCE, ge=0)
    held_out: tuple[Annotated[CaseRecord, PlainValidator(_case), as_document], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        usual = self.mix_config.usual_augmentation
        refuse_unaugmented(self.settings.attributes, ["elastic"], usual=usual)
        return self

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> TrainerConfig | None:
        """Read the file that the environment names, or the two variables of the shortest case.

        Returns None if nothing is set; inference needs nothing.

        Raises:
            UsageFault: names the file or variable, and the key.
        """
        if path := environ.get(FILE):
            try:
                return cls.model_validate(json.loads(Path(path).read_text("utf-8")))
            except ValidationError as error:
                first = error.errors()[0]
                why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            except UsageFault as error:
                why = str(error)
            except (OSError, ValueError, KeyError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
            raise UsageFault(
                f"{FILE}={path}: {why}; expected the file that gansynth augment --target nnunet "
                "--dry-run --settings-file writes"
            )
        generator, ratio = (environ.get(f"GANSYNTH_{key}", "") for key in ("GENERATOR", "RATIO"))
        if not generator and not ratio:
            return None
        if not ratio or not (generator or Ratio.parse(ratio).p == 0):
            lacking = "GANSYNTH_GENERATOR" if ratio else "GANSYNTH_RATIO"
            raise UsageFault(f"{lacking} is not set; {HOW_TO}")
        run = RunFolder(Path(generator).absolute()) if generator else None
        return cls(mix_config=MixConfig(run, Ratio.parse(ratio)), patience=read_patience(environ))
