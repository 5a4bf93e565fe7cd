"""Styles of the two networks: which layers they are made of, as a paper has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gansynth.nn.networks.blocks import Activation, Blocks, Down, Narrow, Norm, Skip, Up


class Layers(BaseModel):
    """Layers of both networks; ``d_``: the discriminator's. See ``UNetStyle``.

    ``max_width``: most generator features of any level. ``noise``: at every level; without it and
    without dropout there is one sample for a condition. ``dropout``: of the coarse decoder levels,
    also when sampling. ``texture_head``: a discriminator head for texture, five voxels.
    """

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
    max_width: Annotated[int, Field(ge=4, le=16384)] = 256
    noise: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    d_norm: Norm = "none"
    d_down: Down = "strided"
    d_activation: Activation = "leaky_relu"
    d_stem: bool = True
    d_double: bool = False
    texture_head: bool = True


STYLES: Mapping[str, Layers] = {
    "own": Layers(),
    # Isola et al. 2017, as Shin et al. 2018 use it: convolutions four wide, the PatchGAN.
    "pix2pix": Layers(
        down="strided4",
        up="transposed",
        g_stem=False,
        g_head=False,
        skip="concat",
        max_width=512,
        noise=False,
        dropout=0.5,
        d_norm="instance",
        d_down="strided4",
        d_stem=False,
        texture_head=False,
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
        max_width=128,
        noise=False,
        d_stem=False,
        texture_head=False,
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
        max_width=512,
        noise=False,
        d_norm="instance",
        d_down="maxpool",
        d_activation="relu",
        d_double=True,
        texture_head=False,
    ),
}


def layers_of(style: str | Layers, *, spectral_norm: bool) -> Layers:
    """Return the layers of a style; a named one is normed in both networks or in neither."""
    if isinstance(style, Layers):
        return style
    layers = STYLES[style]
    return layers if spectral_norm else layers.model_copy(update={"g_spectral_norm": False})


def as_named_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of an earlier run by today's names; others stay as they are.

    There was an option for each of the layers, with or without a ``style``, and ``beta1``,
    ``beta2``, ``alternate``, ``l1_mask``, ``body`` and ``body_of``.
    """
    named = dict(values)
    own = {key: named.pop(key) for key in Layers.model_fields if key in named}
    if own:
        normed = bool(named.get("spectral_norm", True))
        base = layers_of(_style(named.get("style", "own")), spectral_norm=normed)
        layers = Layers.model_validate({**base.model_dump(), **own})
        equal = [name for name in STYLES if layers_of(name, spectral_norm=normed) == layers]
        named["style"] = equal[0] if equal else layers
    if not named.keys().isdisjoint({"beta1", "beta2"}):
        named["betas"] = named.pop("beta1", 0.5), named.pop("beta2", 0.999)
    if named.pop("alternate", False):
        named["n_critic"] = "alternate"
    if named.pop("l1_mask", "none") == "foreground":
        named["l1_lowpass"] = "foreground"
    body, channel = named.pop("body", False), named.pop("body_of", "")
    if body:
        named["context"] = f"body:{channel}" if channel else "body"
    return named


def _style(value: Any) -> str | Layers:
    return value if isinstance(value, str) and value in STYLES else Layers.model_validate(value)
