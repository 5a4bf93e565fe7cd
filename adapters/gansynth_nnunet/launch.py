"""``python -m gansynth_nnunet.launch DATASET CONFIGURATION FOLD [options of nnUNetv2_train]``.

The process in which nnU-Net trains, started by the adapter. It calls nnU-Net's own
``run_training`` with gansynth's trainer; nnU-Net is not changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from gansynth.hosts.launch import device_of
from gansynth.runtime import torchvision_compat
from gansynth.runtime.child import entry, limit_threads
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.ranks import fault_of_rank

SUFFIX = "GANSynth"  # suffix of gansynth's trainers, behind the name of the extended variant
TRAINER = f"nnUNetTrainer{SUFFIX}"
EXT_TRAINER = Path(__file__).parent / "ext_trainer"  # the folder for `nnUNet_extTrainer`


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nnUNetv2_train`` that may be passed through."""
    parser.add_argument("-pretrained_weights", default=None)
    parser.add_argument("-num_gpus", type=int, default=1)
    parser.add_argument("--npz", action="store_true")
    parser.add_argument("--val", action="store_true")
    parser.add_argument("--val_best", action="store_true")
    parser.add_argument("--disable_checkpointing", action="store_true")
    parser.add_argument("-device", default="auto", choices=("auto", "cuda", "cpu", "mps"))


class OptionParser(argparse.ArgumentParser):
    """Raises a typed fault where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        """Refuse the options."""
        options = "-pretrained_weights -num_gpus -device --npz --val --val_best"
        raise UsageFault(
            f"nnU-Net options: {message}; expected some of: {options} --disable_checkpointing"
        )


def parse_options(options: Sequence[str]) -> argparse.Namespace:
    """Check pass-through options before anything starts."""
    if "--c" in options:
        raise UsageFault("-- --c: the same command goes on by itself; leave --c out")
    parser = OptionParser(prog="nnU-Net options", add_help=False, allow_abbrev=False)
    add_options(parser)
    parsed = parser.parse_args(list(options))
    if parsed.val_best and parsed.disable_checkpointing:
        raise UsageFault(
            "nnU-Net options: --val_best needs checkpoints; no --disable_checkpointing"
        )
    return parsed


def train(arguments: Sequence[str]) -> None:
    """Train, or validate with ``--val``, as ``nnUNetv2_train`` does."""
    parser = OptionParser(prog="gansynth_nnunet.launch", allow_abbrev=False)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("fold")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans")
    parser.add_argument("-tr", dest="trainer", default=TRAINER)
    add_options(parser)
    parser.add_argument("--c", action="store_true")
    parsed = parser.parse_args(list(arguments))

    torchvision_compat.apply()
    import torch
    from nnunetv2.run.run_training import run_training
    from torch.multiprocessing.spawn import ProcessRaisedException

    device = device_of(parsed.device)
    limit_threads(device)
    try:
        run_training(
            parsed.dataset,
            parsed.configuration,
            parsed.fold,
            parsed.trainer,
            parsed.plans,
            None if parsed.c else parsed.pretrained_weights,
            parsed.num_gpus,
            parsed.npz,
            parsed.c,
            parsed.val,
            parsed.disable_checkpointing,
            parsed.val_best,
            device=torch.device(device),
        )
    except ProcessRaisedException as error:  # one of several ranks
        raise fault_of_rank(str(error)) or _fault_of_workers(error) or error from error
    except RuntimeError as error:
        if fault := _fault_of_workers(error):
            raise fault from error
        raise


def _fault_of_workers(error: Exception) -> EnvironmentFault | None:
    """Return the fault of a training whose loader workers died, or None."""
    if "workers are no longer alive" not in str(error):
        return None
    return EnvironmentFault(
        "nnU-Net: a process that loads its cases ended; gansynth_launch.log has its message, "
        "if it was not killed, as when memory runs out. Free some, or set nnUNet_n_proc_DA=2; then "
        "the same command goes on from the last checkpoint"
    )


def with_ext_trainer(environ: dict[str, str]) -> dict[str, str]:
    """Return an environment with gansynth's folder among nnU-Net's external trainers."""
    folders = [str(EXT_TRAINER)]
    folders += [f for f in environ.get("nnUNet_extTrainer", "").split(os.pathsep) if f]
    return {**environ, "nnUNet_extTrainer": os.pathsep.join(dict.fromkeys(folders))}


def main(arguments: Sequence[str]) -> int:
    """Train; return the exit code, with a reason on stderr if it is not 0."""
    NnunetRoot.find().activate()
    os.environ.update(with_ext_trainer(dict(os.environ)))
    return entry(lambda: train(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
