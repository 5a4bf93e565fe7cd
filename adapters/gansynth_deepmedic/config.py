"""Options of a training: settings, and arguments after ``--``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import read_settings, refuse_unaugmented
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.program import CHECKOUT, ProgramSettings


class DeepMedicSettings(ProgramSettings):
    """``gansynth augment --target deepmedic --set``."""

    place: ClassVar[str] = "output"

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
    output: str | None = Field(
        None,
        description="folder for the results, as -o (runs/deepmedic/NAME_GENERATOR_R-S_SCHEDULE)",
    )


_NUMBERS = {
    key: str(TrainConfig.model_fields[key].alias)
    for key in ("epochs", "subepochs", "cases", "segments", "batch", "processes")
}
"""Setting -> key of ``trainConfig.cfg``."""
RUNS = Path("runs") / "deepmedic"
AUGMENTATION = ("augm_img_prms_tr", "augm_sample_prms_tr", "reflectImagesPerAxis", "performIntAugm")
"""Keys that augment training cases or segments, also those of earlier versions."""
_VALUED = ("-model", "-load", "-dev")
_KNOWN = ("-train", "-test", *_VALUED, "-resetopt")
NO_CHECKOUT = (
    "no checkout or output is given, expected one of: --export DIR, a data set for stock "
    "DeepMedic; --deepmedic CHECKOUT, your own DeepMedic trained on the fly; or, without one, its "
    "network in torch: --target segmenter --network deepmedic"
)


def trains(
    settings: Mapping[str, str], options: Sequence[str], environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether a checkout is named; without one, a data set is written."""
    if "deepmedic" in settings or (options and environ.get(CHECKOUT)):
        return True
    if options:
        raise UsageFault(
            f"-- {options[0]}: is for DeepMedic's own command line, and no checkout of it is "
            f"named; expected --deepmedic FOLDER, or {CHECKOUT} to be set. To write a data set "
            "for DeepMedic, or to train its network in torch (--target segmenter --network "
            "deepmedic), leave out what follows --"
        )
    return False


@dataclass(frozen=True)
class DeepMedicChoices:
    """The user's choices for a training."""

    options: DeepMedicSettings  # as typed
    model: Path  # the network's configuration
    arguments: tuple[str, ...]  # of the program, without ``-model``; paths are absolute
    device: str  # ``-dev`` of the program

    @classmethod
    def read(
        cls, settings: Mapping[str, str], options: Sequence[str], model: Path | None = None
    ) -> DeepMedicChoices:
        """Check and convert ``--set`` values and arguments after ``--``."""
        read = read_settings(DeepMedicSettings, settings, "deepmedic")
        if not trains(settings, options):
            raise UsageFault(NO_CHECKOUT)
        named, arguments = _run_options(options)
        if "-model" in named and read.model not in (None, named["-model"]):
            raise UsageFault(
                f"-- -model {named['-model']} and --set model={read.model}: expected one "
                "of them; leave the other out"
            )
        model = absolute(named.get("-model") or read.model) or model
        if model is None:
            raise UsageFault(
                "--set model: DeepMedic has no network of its own, expected its configuration: "
                "-- -model modelConfig.cfg"
            )
        return cls(read, model, arguments, named["-dev"])

    @property
    def changed(self) -> dict[str, Any]:
        """Keys of ``trainConfig.cfg`` that the options replace."""
        values = {name: getattr(self.options, key) for key, name in _NUMBERS.items()}
        if self.options.affine is not None:
            values["augm_img_prms_tr"] = {"affine": {"prob": self.options.affine}}
        return {name: value for name, value in values.items() if value is not None}

    def asked(self, config: TrainConfig) -> TrainConfig:
        """Return a configuration with the numbers of this training."""
        changed = self.changed
        fields = {key: changed[name] for key, name in _NUMBERS.items() if name in changed}
        return config.model_copy(update={"values": {**config.values, **changed}, **fields})

    def values(self, config: TrainConfig, output: Path, *, augmented: bool) -> dict[str, Any]:
        """Return the keys of ``train.cfg`` that differ from the user's file."""
        refuse_unaugmented({"affine": self.options.affine}, ["affine"], usual=augmented)
        off = [] if augmented else [key for key in AUGMENTATION if config.values.get(key)]
        return {**self.changed, "folderForOutput": str(output), **dict.fromkeys(off)}

    @property
    def gpus(self) -> tuple[int, ...]:
        """CUDA devices that the training occupies."""
        match = re.fullmatch(r"cuda(\d*)", self.device)
        return () if match is None else (int(match[1] or 0),)


# -- the program's own options ---------------------------------------------------------------------


def _run_options(options: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read arguments for ``deepMedicRun``, whose names may be shortened, as argparse does.

    Returns:
        Values of ``-model``, ``-load`` and ``-dev``, and all arguments but ``-model``.
    """
    values: dict[str, str] = {}
    arguments: list[str] = []
    left = iter(options)
    for text in left:
        name, equals, value = text.partition("=")
        known = [option for option in _KNOWN if len(name) > 1 and option.startswith(name)]
        name = known[0] if len(known) == 1 or known[:2] == ["-train", "-test"] else name
        if name in ("-train", "-test"):
            why = "--data sets the training data" if name == "-train" else "augment only trains"
            raise UsageFault(f"-- {text}: {why}; leave it out, and test afterwards by DeepMedic")
        if name not in _VALUED:
            arguments.append(text if equals else name)
            continue
        value = value if equals else next(left, "")
        if not value or name in values:
            typed = f"{name} {value}".strip()
            raise UsageFault(f"-- {typed}: expected a value after it, once")
        values[name] = value
    if "-load" in values:
        arguments = ["-load", str(Path(values["-load"]).absolute()), *arguments]
    device = values.setdefault("-dev", "cpu")
    if not re.fullmatch(r"cpu|cuda\d*", device):
        raise UsageFault(f"-- -dev {device}: expected cpu, cuda, or cuda0 and so on")
    return values, ("-dev", device, *arguments)


def absolute(text: str | None) -> Path | None:
    """Return the absolute path of a typed one."""
    return None if text is None else Path(os.path.abspath(os.path.expanduser(text)))
