"""Blocks that generator plugins share; every network works in 2D and 3D (``ndim``).

Public as a whole (docs/plugin_generators.md): whole networks, their parts, and the words of their
styles, for a plugin's own networks and options.
"""

from gansynth.nn.convolution import convolve
from gansynth.nn.networks.blocks import (
    Activation,
    Blocks,
    ConvUnit,
    Down,
    Norm,
    activation,
    channels_last,
    conv,
    downsampling,
    normalisation,
)
from gansynth.nn.networks.patchgan import PatchDiscriminator
from gansynth.nn.networks.resize import Up, enlarge
from gansynth.nn.networks.spectral import settled
from gansynth.nn.networks.unet import Narrow, Skip, UNetGenerator, UNetStyle

__all__ = [
    "Activation",
    "Blocks",
    "ConvUnit",
    "Down",
    "Narrow",
    "Norm",
    "PatchDiscriminator",
    "Skip",
    "UNetGenerator",
    "UNetStyle",
    "Up",
    "activation",
    "channels_last",
    "conv",
    "convolve",
    "downsampling",
    "enlarge",
    "normalisation",
    "settled",
]
