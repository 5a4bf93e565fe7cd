"""nnU-Net's trainers by name: its own, and those in the user's ``nnUNet_extTrainer``."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_nnunet.launch import EXT_TRAINER, SUFFIX


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
    """Return names of imported trainers; the search for one imports all."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    names, left = [nnUNetTrainer.__name__], [nnUNetTrainer]
    while left:
        below = left.pop().__subclasses__()
        names += [each.__name__ for each in below if not each.__name__.endswith(SUFFIX)]
        left += below
    return names
