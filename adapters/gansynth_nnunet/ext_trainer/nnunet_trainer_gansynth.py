"""Where nnU-Net finds ``nnUNetTrainerGANSynth``."""

from gansynth_nnunet.trainer import nnUNetTrainerGANSynth

__all__ = ["nnUNetTrainerGANSynth"]
