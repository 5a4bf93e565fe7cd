"""Blocks that generator plugins share; every network works in 2D and 3D (``ndim``)."""

from gansynth.networks.patchgan import PatchDiscriminator
from gansynth.networks.style import UNetStyle
from gansynth.networks.unet import UNetGenerator

__all__ = ["PatchDiscriminator", "UNetGenerator", "UNetStyle"]
