"""Settings of an nnU-Net training, nnU-Net's own command, and its trainers by name.

nnU-Net's command line passes nothing on to a trainer, so the environment names a file of settings.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from pydantic import Field

from gansynth import (
    AugmentRequest,
    EnvironmentFault,
    GansynthError,
    HostOptions,
    Ratio,
    UsageFault,
    read_settings,
)
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import did_you_mean
from gansynth_nnunet.workers import WORKERS

SUFFIX = "GANSynth"  # suffix of gansynth's trainers, behind the name of the extended variant
STOCK = "nnUNetTrainer"
TRAINER = f"{STOCK}{SUFFIX}"
EXT_TRAINER = Path(__file__).parent / "ext_trainer"  # the folder for `nnUNet_extTrainer`
EXT_VARIABLE = "nnUNet_extTrainer"
ARGUMENTS = ("plans", "configuration", "fold", "dataset_json", "device")
"""Of a trainer's ``__init__``."""
FILE = "GANSYNTH_CONFIG"
"""Variable with the path of a ``TrainingHandover``."""
HOW_TO = (
    "set GANSYNTH_GENERATOR=runs/g0 and GANSYNTH_RATIO=1:1, or for all other options "
    f"{FILE}=mix.json, which gansynth augment --target nnunet --dry-run --settings-file mix.json "
    "writes; or start it by: gansynth augment --target nnunet --generator runs/g0 --ratio 1:1"
)


class NnunetSettings(HostOptions):
    """``gansynth augment --target nnunet --set``; first attributes of nnU-Net's trainer."""

    output_key: ClassVar[str] = "results"
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
    quick_validation: bool | None = Field(
        None,
        description="predict held-out cases at the end in the training's own process and without "
        "mirroring: for demonstrations (nnU-Net: mirrored, which predicts somewhat better)",
    )
    trainer: str = Field(STOCK, description="nnU-Net's trainer to extend, e.g. nnUNetTrainerDA5")
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


def from_environment(environ: Mapping[str, str] = os.environ) -> TrainingHandover | None:
    """Read the file that the environment names, or the two variables of the shortest case.

    Returns None if nothing is set; inference needs nothing.
    """
    path = environ.get(FILE)
    if path:
        try:
            training = TrainingHandover.from_json(json.loads(Path(path).read_text("utf-8")))
            read_settings(NnunetSettings, training.request.set, "nnunet")
        except UsageFault as error:
            why = str(error)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
        else:
            return training
        raise UsageFault(
            "nnunet.settings-file-refused",
            f"{FILE}={path}: {why}; expected the file that gansynth augment --target nnunet "
            "--dry-run --settings-file writes",
        )
    generator = environ.get("GANSYNTH_GENERATOR", "")
    ratio = environ.get("GANSYNTH_RATIO", "")
    if not generator and not ratio:
        return None
    if not ratio or not (generator or Ratio.parse(ratio).p == 0):
        lacking = "GANSYNTH_GENERATOR" if ratio else "GANSYNTH_RATIO"
        raise UsageFault("nnunet.variable-not-set", f"{lacking} is not set; {HOW_TO}")
    request = AugmentRequest(target="nnunet", ratio=ratio, generator=generator or None)
    return TrainingHandover(request)


# -- nnU-Net's command -----------------------------------------------------------------------------


class _OptionParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse would exit
        options = "-pretrained_weights -num_gpus -device --npz --val --val_best"
        raise UsageFault(
            "nnunet.options-refused",
            f"nnU-Net options: {message}; expected some of: {options} --disable_checkpointing",
        )


def parse_options(options: Sequence[str]) -> argparse.Namespace:
    """Check those options of ``nnUNetv2_train`` that a user may pass on, before anything starts."""
    if "--c" in options:
        raise UsageFault(
            "nnunet.continue-option-given",
            "-- --c: the same command resumes by itself; leave --c out",
        )
    parser = _OptionParser(prog="nnU-Net options", add_help=False, allow_abbrev=False)
    parser.add_argument("-pretrained_weights", default=None)
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("-device", default="auto", choices=("auto", "cuda", "cpu", "mps"))
    for flag in ("--npz", "--val", "--val_best", "--disable_checkpointing"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(list(options))


def run(arguments: Sequence[str]) -> None:
    """Train, or validate with ``--val``, by nnU-Net's own command."""
    torchvision_compat.apply()
    from nnunetv2.run.run_training import run_training_entry
    from torch.multiprocessing.spawn import ProcessRaisedException

    sys.argv = ["nnUNetv2_train", *arguments]
    try:
        run_training_entry()
    except (RuntimeError, ProcessRaisedException) as error:
        fault = GansynthError.traced(str(error))  # of a rank that died
        if fault:
            raise fault from error
        if "workers are no longer alive" in str(error):
            raise EnvironmentFault(
                "nnunet.loading-process-ended",
                "nnU-Net: a process that loads its cases ended; gansynth_launch.log has its "
                "message, if it was not killed, as when memory runs out. Free some, or set "
                f"{WORKERS}=2; then the same command resumes from the last checkpoint",
            ) from error
        raise


# -- trainers by name ------------------------------------------------------------------------------


def ships(name: str) -> bool:
    """Return whether nnU-Net defines a trainer of this name; its files are read, not imported."""
    nnunet = find_spec("nnunetv2")
    assert nnunet is not None, "gansynth requires it"
    trainers = Path(str(nnunet.origin)).parent / "training" / STOCK
    texts = [file.read_text("utf-8") for file in trainers.rglob("*.py")]
    return any(f"\nclass {name}(" in text for text in texts)


def plain_name(trainer: str) -> str:
    """Return the name of the trainer that gansynth's extends."""
    return trainer.removesuffix(SUFFIX)


def check_trainer(name: str) -> None:
    """Refuse (UsageFault) a trainer that is not there, or that nnU-Net cannot start."""
    variant = plain_name(name)
    if ships(variant):
        return  # nnU-Net takes seconds to import, which only its process needs
    if look_up(variant + SUFFIX) is None:  # users may compose one
        find_variant(variant)


def find_variant(name: str) -> type[Any]:
    """Return nnU-Net's own trainer of this name, or one in the user's ``nnUNet_extTrainer``."""
    found = look_up(name)
    if found is None:
        named = os.environ.get(EXT_VARIABLE)
        folders = f"the folders of {EXT_VARIABLE}, {named}" if named else f"{EXT_VARIABLE}, not set"
        raise UsageFault(
            "nnunet.trainer-unknown",
            f"trainer {name}: nnU-Net has none of that name, nor has one been found by {folders}; "
            f"expected for example nnUNetTrainerDA5.{did_you_mean(name, _names())} Of your own, "
            f"name the folder of its module: export {EXT_VARIABLE}=FOLDER",
        )
    others = [name for name in inspect.signature(found).parameters if name not in ARGUMENTS]
    if others:
        raise UsageFault(
            "nnunet.trainer-of-old-version",
            f"trainer {name}: its __init__ takes {', '.join(others)}, expected only "
            f"{', '.join(ARGUMENTS)}: nnU-Net 2.6 and later would end in KeyError {others[0]!r}, "
            "for it looks each one up among its own; take it out",
        )
    return found


def look_up(name: str) -> type[Any] | None:
    """Let nnU-Net find a trainer outside of gansynth's folder."""
    torchvision_compat.apply()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    before = os.environ.get(EXT_VARIABLE, "")
    folders = [folder for folder in before.split(os.pathsep) if folder]
    others = [folder for folder in folders if Path(folder) != EXT_TRAINER]
    os.environ[EXT_VARIABLE] = os.pathsep.join(others)
    try:
        with redirect_stdout(io.StringIO()):
            found: type[Any] = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if "Could not find requested" not in str(error):
            raise
        return None
    except (AssertionError, TypeError):  # it is no trainer
        return None
    finally:
        os.environ[EXT_VARIABLE] = before
    return found


def _names() -> list[str]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    names, left = [nnUNetTrainer.__name__], [nnUNetTrainer]
    while left:
        below = left.pop().__subclasses__()
        names += [each.__name__ for each in below if not each.__name__.endswith(SUFFIX)]
        left += below
    return names
