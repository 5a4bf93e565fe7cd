"""How a U-Net is built: the choices that papers make differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gansynth.nn.networks.blocks import Activation, Blocks, Down, Norm
from gansynth.nn.networks.resize import Up

Skip = Literal["add", "concat"]
Narrow = Literal["before", "after", "none"]


@dataclass(frozen=True)
class UNetStyle:
    """How a U-Net is built.

    Attributes:
        norm: normalisation after each convolution but the first and the last two.
        double: one convolution more per level; of residual levels, one block.
        skip: ``add`` to the decoder's features what the encoder had at that level, or ``concat``.
        narrow: where the decoder's features become as few as the finer level's: ``before`` they are
            enlarged (1 wide, cheap), ``after`` (3 wide, as MM-GAN does), or ``none``: not until
            they lie beside the skip's (as the 3D U-Net has it; needs ``concat``).
        stem: begin and end at full resolution; False strides in at once and ends in a transposed
            convolution, as pix2pix does: cheaper, and blind to grain.
        dropout: share of the features dropped in the coarsest levels of the decoder, when sampling
            too (pix2pix's only noise).
        checkpointing: keep each level's inputs only, and compute the rest anew when it is needed.
    """

    norm: Norm = "instance"
    down: Down = "strided"
    up: Up = "trilinear"
    blocks: Blocks = "plain"
    double: bool = False
    activation: Activation = "leaky_relu"
    skip: Skip = "add"
    narrow: Narrow = "before"
    head: bool = True
    stem: bool = True
    spectral: bool = False
    noise: bool = True
    dropout: float = 0.0
    checkpointing: bool = False


PLAIN = UNetStyle()
