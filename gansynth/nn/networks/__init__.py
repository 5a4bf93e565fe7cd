"""Blocks that generator plugins share; every network works in 2D and 3D (``ndim``)."""

from gansynth.nn.networks.patchgan import PatchDiscriminator
from gansynth.nn.networks.unet import UNetGenerator, UNetStyle

__all__ = ["PatchDiscriminator", "UNetGenerator", "UNetStyle"]
