"""Options of a training: settings, and arguments after ``--``."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import Field

from gansynth.hosts.host import FrameworkOptions
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.option_kinds import Device
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.program import CHECKOUT, ProgramSettings


class DeepMedicSettings(ProgramSettings, FrameworkOptions):
    """``gansynth augment --target deepmedic --set``."""

    device: Device = Field("cpu", description="training device, as -dev: cpu, cuda or cuda:N")
    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+3+4,TC:1+3+4",
    )
    model: str | None = Field(None, description="modelConfig.cfg of the network")
    epochs: int | None = Field(None, ge=1, description="epochs to train (numberOfEpochs)")
    subepochs: int | None = Field(
        None, ge=1, description="subepochs of an epoch (numberOfSubepochs)"
    )
    cases: int | None = Field(
        None, ge=1, description="cases of a subepoch (numOfCasesLoadedPerSubepoch)"
    )
    segments: int | None = Field(
        None, ge=1, description="segments of a subepoch (numberTrainingSegmentsLoadedOnGpuPerSubep)"
    )
    batch: int | None = Field(
        None, ge=1, le=65536, description="segments of a training step (batchsize_train)"
    )
    processes: int | None = Field(
        None,
        ge=-1,
        description="processes that sample segments; -1 for none (num_processes_sampling)",
    )
    affine: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability that a training case is rotated (up to 45 degrees) and zoomed "
        "(up to 10 %); replaces augm_img_prms_tr",
    )

    def changed(self) -> dict[str, Any]:
        """Keys of ``trainConfig.cfg`` that the settings replace."""
        values = {name: getattr(self, key) for key, name in _NUMBERS.items()}
        if self.affine is not None:
            values["augm_img_prms_tr"] = {"affine": {"prob": self.affine}}
        return {name: value for name, value in values.items() if value is not None}

    def asked(self, config: TrainConfig) -> TrainConfig:
        """Return a configuration with the numbers of this training."""
        changed = self.changed()
        fields = {key: changed[name] for key, name in _NUMBERS.items() if name in changed}
        return config.model_copy(update={"values": {**config.values, **changed}, **fields})


_NUMBERS = {
    key: str(TrainConfig.model_fields[key].alias)
    for key in ("epochs", "subepochs", "cases", "segments", "batch", "processes")
}
"""Setting -> key of ``trainConfig.cfg``."""
AUGMENTATION = ("augm_img_prms_tr", "augm_sample_prms_tr", "reflectImagesPerAxis", "performIntAugm")
"""Keys that augment training cases or segments, also those of earlier versions."""


def program_options(options: Sequence[str]) -> dict[str, Any]:
    """Read arguments for ``deepMedicRun``, with absolute paths; names may be shortened."""
    parser = _Arguments(add_help=False)
    for name in ("-model", "-load", "-dev", "-train", "-test"):
        parser.add_argument(name)
    parser.add_argument("-resetopt", action="store_true")
    found = {name: value for name, value in vars(parser.parse_args(options)).items() if value}
    for name, why in (
        ("train", "--data sets the training data"),
        ("test", "augment only trains"),
    ):
        if name in found:
            raise UsageFault(f"-- -{name}: {why}; leave it out, and test afterwards by DeepMedic")
    if not re.fullmatch(r"cpu|cuda\d*", found.get("dev", "cpu")):
        raise UsageFault(f"-- -dev {found['dev']}: expected cpu, cuda, or cuda0 and so on")
    return {n: absolute(v) if n in ("model", "load") else v for n, v in found.items()}


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        raise UsageFault(f"-- {text}; expected options of deepMedicRun, such as -dev cuda0")


def refuse_without_checkout(checkout: str | None, own: Sequence[str]) -> None:
    """Refuse a training where no checkout is named."""
    if checkout is not None or (own and os.environ.get(CHECKOUT)):
        return
    if own:
        raise UsageFault(
            f"-- -{own[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "for DeepMedic, or to train its network in torch (--target segmenter --network "
            "deepmedic), leave out what follows --"
        )
    raise UsageFault(
        "no checkout or output is given, expected one of: --export DIR, a data set for stock "
        "DeepMedic; --deepmedic CHECKOUT, your own DeepMedic trained on the fly; or, without one, "
        "its network in torch: --target segmenter --network deepmedic"
    )


def absolute(text: str) -> str:
    """Return the absolute path of a typed one."""
    return os.path.abspath(os.path.expanduser(text))
