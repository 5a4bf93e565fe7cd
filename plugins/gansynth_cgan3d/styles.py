"""Styles of the two networks: which layers they are made of, as a paper has them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from gansynth.nn.networks.blocks import Activation, Blocks, Down, Norm
from gansynth.nn.networks.resize import Up
from gansynth.nn.networks.unet import Narrow, Skip


class Layers(BaseModel):
    """Layers of both networks; ``d_``: the discriminator's. See ``UNetStyle``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: Norm = "instance"
    down: Down = "strided"
    up: Up = "trilinear"
    blocks: Blocks = "plain"
    double: bool = False
    activation: Activation = "leaky_relu"
    g_stem: bool = True
    g_head: bool = True
    skip: Skip = "add"
    narrow: Narrow = "before"
    g_spectral_norm: bool = False
    d_norm: Norm = "none"
    d_down: Down = "strided"
    d_activation: Activation = "leaky_relu"
    d_stem: bool = True
    d_double: bool = False


STYLES: Mapping[str, Layers] = {
    "own": Layers(),
    # Isola et al. 2017, as Shin et al. 2018 use it: convolutions four wide, the PatchGAN.
    "pix2pix": Layers(
        down="strided4",
        up="transposed",
        g_stem=False,
        g_head=False,
        skip="concat",
        d_norm="instance",
        d_down="strided4",
        d_stem=False,
    ),
    # Sun et al. 2020, figs. 3 and 4.
    "mmgan": Layers(
        down="maxpool",
        up="cubic",
        double=True,
        g_head=False,
        skip="concat",
        narrow="after",
        g_spectral_norm=True,
        d_stem=False,
    ),
    # Cicek et al. 2016, beside this package's discriminator.
    "unet3d": Layers(
        down="maxpool",
        up="transposed",
        double=True,
        activation="relu",
        g_head=False,
        skip="concat",
    ),
    # Doncenco 2022, figs. 5 and 6: the discriminator is the encoder of the same.
    "doncenco": Layers(
        down="maxpool",
        up="nearest",
        double=True,
        activation="relu",
        g_head=False,
        skip="concat",
        narrow="none",
        g_spectral_norm=True,
        d_norm="instance",
        d_down="maxpool",
        d_activation="relu",
        d_double=True,
    ),
}
