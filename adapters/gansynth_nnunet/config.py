"""Settings of an nnU-Net training, and the one file that tells them to its trainer.

nnU-Net's command line passes nothing on to a trainer, so the environment names the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from gansynth.core.adapter import HostOptions
from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.launch import ApartTraining
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import read_settings

FILE = "GANSYNTH_CONFIG"
"""Variable with the path of an ``ApartTraining``."""
HOW_TO = (
    "set GANSYNTH_GENERATOR=runs/g0 and GANSYNTH_RATIO=1:1, or for all other options "
    f"{FILE}=mix.json, which gansynth augment --target nnunet --dry-run --settings-file mix.json "
    "writes; or start it by: gansynth augment --target nnunet --generator runs/g0 --ratio 1:1"
)


class NnunetSettings(HostOptions):
    """``gansynth augment --target nnunet --set``; first attributes of nnU-Net's trainer."""

    place: ClassVar[str] = "results"
    seed: ClassVar[None] = None  # nnU-Net's trainings have none

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

    @property
    def attributes(self) -> dict[str, int | float]:
        """Return the attributes of the trainer that are set."""
        others = {"trainer", "regions", "results", "settings_file"}
        return self.model_dump(exclude=others, exclude_none=True)


def from_environment(environ: Mapping[str, str] = os.environ) -> ApartTraining | None:
    """Read the file that the environment names, or the two variables of the shortest case.

    Returns None if nothing is set; inference needs nothing.

    Raises:
        UsageFault: names the file or variable, and the key.
    """
    if path := environ.get(FILE):
        try:
            training = ApartTraining.from_json(json.loads(Path(path).read_text("utf-8")))
            read_settings(NnunetSettings, training.request.set, "nnunet")
        except UsageFault as error:
            why = str(error)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
        else:
            return training
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
    request = AugmentRequest(target="nnunet", ratio=ratio, generator=generator or None)
    return ApartTraining(request)
