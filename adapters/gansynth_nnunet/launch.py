"""nnU-Net's own command ``nnUNetv2_train``, and its trainers by name; nnU-Net is not changed."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import (
    FAULTS,
    EnvironmentFault,
    GansynthError,
    UsageFault,
    did_you_mean,
)

SUFFIX = "GANSynth"  # suffix of gansynth's trainers, behind the name of the extended variant
TRAINER = f"nnUNetTrainer{SUFFIX}"
EXT_TRAINER = Path(__file__).parent / "ext_trainer"  # the folder for `nnUNet_extTrainer`


class OptionParser(argparse.ArgumentParser):
    """Raises a typed fault where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        """Refuse the options."""
        options = "-pretrained_weights -num_gpus -device --npz --val --val_best"
        raise UsageFault(
            f"nnU-Net options: {message}; expected some of: {options} --disable_checkpointing"
        )


def parse_options(options: Sequence[str]) -> argparse.Namespace:
    """Check those options of ``nnUNetv2_train`` that a user may pass on, before anything starts."""
    if "--c" in options:
        raise UsageFault("-- --c: the same command goes on by itself; leave --c out")
    parser = OptionParser(prog="nnU-Net options", add_help=False, allow_abbrev=False)
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
        if fault := fault_of_rank(str(error)):
            raise fault from error
        if "workers are no longer alive" in str(error):
            raise EnvironmentFault(
                "nnU-Net: a process that loads its cases ended; gansynth_launch.log has its "
                "message, if it was not killed, as when memory runs out. Free some, or set "
                "nnUNet_n_proc_DA=2; then the same command goes on from the last checkpoint"
            ) from error
        raise


def fault_of_rank(text: str) -> GansynthError | None:
    """Return the typed fault of a dead rank, from the traceback that torch reports, or None."""
    lines = re.findall(r"^gansynth\.runtime\.errors\.(\w+): (.+)$", text, re.MULTILINE)
    kinds = {fault.__name__: fault for fault in FAULTS.values()}
    return kinds[lines[-1][0]](lines[-1][1]) if lines and lines[-1][0] in kinds else None


def with_ext_trainer(environ: dict[str, str]) -> dict[str, str]:
    """Return an environment with gansynth's folder among nnU-Net's external trainers."""
    folders = [str(EXT_TRAINER)]
    folders += [f for f in environ.get("nnUNet_extTrainer", "").split(os.pathsep) if f]
    return {**environ, "nnUNet_extTrainer": os.pathsep.join(dict.fromkeys(folders))}


# -- trainers by name ------------------------------------------------------------------------------


def find_variant(name: str) -> type[Any]:
    """Return nnU-Net's own trainer of this name, or one in the user's ``nnUNet_extTrainer``.

    Raises:
        UsageFault: there is none.
    """
    found = look_up(name)
    if found is None:
        raise UsageFault(
            f"trainer {name}: nnU-Net has none of that name, nor have the folders in "
            "nnUNet_extTrainer; expected for example nnUNetTrainerDA5."
            f"{did_you_mean(name, _names())}"
        )
    return found


def check_trainer(name: str) -> None:
    """Refuse the name of a trainer that cannot be composed, before anything starts."""
    base = name.removesuffix(SUFFIX)
    if look_up(base) is None and look_up(name) is None:  # the user may have composed it
        find_variant(base)


def look_up(name: str) -> type[Any] | None:
    """Let nnU-Net find a trainer outside of gansynth's folder."""
    torchvision_compat.apply()
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    variable = "nnUNet_extTrainer"
    before = os.environ.get(variable, "")
    folders = [folder for folder in before.split(os.pathsep) if folder]
    os.environ[variable] = os.pathsep.join(f for f in folders if Path(f) != EXT_TRAINER)
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
        os.environ[variable] = before
    return found


def _names() -> list[str]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    names, left = [nnUNetTrainer.__name__], [nnUNetTrainer]
    while left:
        below = left.pop().__subclasses__()
        names += [each.__name__ for each in below if not each.__name__.endswith(SUFFIX)]
        left += below
    return names
