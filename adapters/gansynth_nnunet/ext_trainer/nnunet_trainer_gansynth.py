"""Module in which nnU-Net finds ``nnUNetTrainerGANSynth``, and any ``<Variant>GANSynth``."""

from typing import Any

from gansynth_nnunet.trainer import nnUNetTrainerGANSynth

__all__ = ["nnUNetTrainerGANSynth"]


def __getattr__(name: str) -> type[Any]:
    from gansynth_nnunet.trainer import composed

    return composed(name)
