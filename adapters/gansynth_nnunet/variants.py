"""nnU-Net's other trainers with synthetic samples: ``nnUNetTrainerDA5`` + ``GANSynth``, and so on.

nnU-Net looks a trainer up by name in the modules of ``nnUNet_extTrainer``. The module there passes
unknown names to ``shim``, which composes the variant. The classes belong to this module, so that
they can be pickled.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_nnunet.launch import EXT_TRAINER, SUFFIX, TRAINER

_composed: dict[str, type[Any]] = {}


def with_suffix(variant: str) -> str:
    """Return the name of a variant with synthetic samples; an existing suffix stays."""
    return variant if variant.endswith(SUFFIX) else variant + SUFFIX


def check(trainer: str) -> None:
    """Refuse the name of a trainer that cannot be composed, before anything starts.

    Raises:
        UsageFault: see ``find``.
    """
    ours = trainer == TRAINER or _in_own_folders(trainer) is not None
    if not ours:
        find(trainer.removesuffix(SUFFIX))


def find(variant: str) -> type[Any]:
    """Return nnU-Net's own trainer of this name, or one in the user's ``nnUNet_extTrainer``."""
    torchvision_compat.apply()
    trainer_class = _in_nnunet(variant) or _in_own_folders(variant)
    if trainer_class is None:
        raise UsageFault(
            f"trainer {variant}: nnU-Net has none of that name, nor have the folders in "
            "nnUNet_extTrainer; expected for example nnUNetTrainerDA5."
            f"{did_you_mean(variant, _known())}"
        )
    _refuse(variant, trainer_class)
    return trainer_class


def compose(variant: type[Any]) -> type[Any]:
    """Return a trainer with synthetic samples that extends a variant."""
    from gansynth_nnunet.trainer import GANSynthMixin

    name = with_suffix(variant.__name__)
    if name not in _composed or not issubclass(_composed[name], variant):
        body = {"__module__": __name__, "__doc__": f"``{variant.__name__}`` with synthetic samples"}
        _composed[name] = type(name, (GANSynthMixin, variant), body)
    return _composed[name]


def shim(name: str) -> type[Any]:
    """Return the composed trainer of this name; for the ``__getattr__`` of modules.

    Raises:
        AttributeError: not a name of gansynth's, or the user has defined a class of that name.
        UsageFault: see ``find``.
    """
    base = name.removesuffix(SUFFIX)
    if base in ("", name) or (name != TRAINER and _in_own_folders(name) is not None):
        raise AttributeError(name)
    return compose(find(base))


def __getattr__(name: str) -> type[Any]:
    if name.startswith("_"):
        raise AttributeError(name)
    return _composed[name] if name in _composed else shim(name)


def _in_nnunet(name: str) -> type[Any] | None:
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    home = nnunetv2.__path__[0]
    trainers = os.path.join(home, "training", "nnUNetTrainer")
    package = "nnunetv2.training.nnUNetTrainer"
    trainer_class: type[Any] | None = recursive_find_python_class(trainers, name, package, home)
    return trainer_class


def _in_own_folders(name: str) -> type[Any] | None:
    """Return a class of this name from the user's own folders, or None."""
    from nnunetv2.paths import nnUNet_extTrainer
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    for folder in (nnUNet_extTrainer.get() or "").split(os.pathsep):
        if not folder.strip() or not os.path.isdir(folder) or Path(folder) == EXT_TRAINER:
            continue
        trainer_class: type[Any] | None = recursive_find_python_class(
            folder, name, None, base_folder=folder, cleanup_imports_from_base_folder=True
        )
        if trainer_class is not None:
            return trainer_class
    return None


def _known() -> list[str]:
    """Return names of imported trainers; the search for one imports all."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    names, left = [nnUNetTrainer.__name__], [nnUNetTrainer]
    while left:
        below = left.pop().__subclasses__()
        names += [c.__name__ for c in below if not c.__name__.endswith(SUFFIX)]
        left += below
    return names


def _refuse(name: str, trainer_class: type[Any]) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from gansynth_nnunet.trainer import GANSynthMixin

    if not (isinstance(trainer_class, type) and issubclass(trainer_class, nnUNetTrainer)):
        raise UsageFault(f"trainer {name}: no nnU-Net trainer, expected one like nnUNetTrainerDA5")
    if issubclass(trainer_class, GANSynthMixin):
        raise UsageFault(f"trainer {name}: mixes synthetic samples already; use it by its own name")
    if not trainer_class.get_dataloaders.__code__.co_names:
        raise UsageFault(
            f"trainer {name}: its get_dataloaders loads no case, so there is nothing to mix "
            "synthetic samples into; expected a variant that trains on the data set"
        )
