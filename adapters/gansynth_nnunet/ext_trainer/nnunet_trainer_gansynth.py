"""Where nnU-Net finds ``nnUNetTrainerGANSynth``, and ``<Variant>GANSynth`` of any other trainer."""

from typing import Any

from gansynth_nnunet.trainer import nnUNetTrainerGANSynth

__all__ = ["nnUNetTrainerGANSynth"]


def __getattr__(name: str) -> type[Any]:
    from gansynth_nnunet.variants import shim

    return shim(name)
