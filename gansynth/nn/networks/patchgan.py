"""A PatchGAN discriminator of image and label, for texture as well as layout.

Isola et al. 2017. By default the first convolution runs at full resolution, and a head on the
second sees five voxels: a discriminator that strides at once cannot see fine texture. Spectral
normalisation: Miyato et al. 2018. ``down="strided4", stem=False, texture_head=False`` is that of
pix2pix (sec. 6.1.2). With three strides, its patch is 70 voxels along an axis that all of them
halve. It is 36, 20 or 11 where two, one or none do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from gansynth.nn.networks.blocks import (
    Activation,
    Down,
    Norm,
    PixConv,
    activation,
    channels_last,
    conv,
    downsampling,
)
from gansynth.nn.networks.blocks import normalisation as normalised
from gansynth.nn.networks.recompute import recomputed


class PatchDiscriminator(nn.Module):
    """Classifies pairs (B, in_channels, ...) patch by patch, once per head.

    Args:
        width: features of the first layer; doubled per layer after it.
        strides: one tuple per downsampling.
        texture_head: one more head on texture (five voxels), besides the coarsest layout.
        norm: normalisation after every convolution but the first and the heads.
        down: downsampling; with ``strided4`` the last layers are those of pix2pix.
        stem: begin at full resolution; False strides at once, as in pix2pix.
        double: one more convolution after each layer, as in the encoder of a 3D U-Net.
        checkpointing: keep each layer's inputs only; saves memory with a ``norm``.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        width: int,
        strides: Sequence[tuple[int, ...]],
        *,
        spectral: bool = True,
        texture_head: bool = True,
        norm: Norm = "none",
        act: Activation = "leaky_relu",
        down: Down = "strided",
        stem: bool = True,
        double: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.act = activation(act)
        layer: Callable[..., nn.Module] = partial(conv, ndim, spectral=spectral)
        stem, ending = stem or not strides, down == "strided4"
        widths = [width * 2**i for i in range(len(strides) + stem)]
        # Input of each downsampling: features of the stem, or the pair itself.
        before = widths[:-1] if stem else [in_channels, *widths[:-1]]
        self.stem = layer(in_channels, width, 3) if stem else None
        self.down = nn.ModuleList()
        for cin, cout, stride in zip(before, widths[stem:], strides, strict=True):
            self.down.append(downsampling(down, ndim, cin, cout, stride, spectral=spectral))
        if ending:
            wide = [any(s[axis] > 1 for s in strides) for axis in range(ndim)]
            last = partial(PixConv, ndim, stride=(1,) * ndim, wide=wide, spectral=spectral)
            widths.append(min(2 * widths[-1], 8 * width))
            self.down.append(last(widths[-2], widths[-1]))
            self.layout: nn.Module = last(widths[-1], 1)
        else:
            self.layout = layer(widths[-1], 1, 3)
        # Pointwise: on a CPU, one output channel costs as much as eight.
        self.texture = layer(widths[min(1, len(widths) - 1)], 1, 1) if texture_head else None
        self.norm = nn.ModuleList([normalised(norm, ndim, w) for w in widths[1:]])
        self.more = nn.ModuleList()
        for w in widths:
            if double:
                self.more.append(nn.Sequential(layer(w, w, 3), normalised(norm, ndim, w)))
            else:
                self.more.append(nn.Identity())

    def input_weight(self) -> str:
        """Return the name of the weight with the pair's channels on its axis 1."""
        layers = self.named_modules()
        [first, *_] = [name for name, m in layers if isinstance(m, nn.Conv2d | nn.Conv3d)]
        return f"{first}.weight"

    def forward(self, pair: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Classify pairs (B, in_channels, ...); return logits per head and features per layer."""
        x = channels_last(pair)
        features: list[Tensor] = []
        layers = list(self.down) if self.stem is None else [self.stem, *self.down]
        for layer, norm, second in zip(layers, [nn.Identity(), *self.norm], self.more, strict=True):
            parts = (layer, norm, second)
            if self.checkpointing and self.training:
                x = recomputed(partial(self._layer, *parts), x, modules=parts)
            else:
                x = self._layer(*parts, x)
            features.append(x)
        logits = [self.layout(x)]
        if self.texture is not None:
            logits.append(self.texture(features[min(1, len(features) - 1)]))
        return logits, features

    def _layer(self, layer: nn.Module, norm: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
        features: Tensor = self.act(norm(layer(x)))
        if isinstance(second, nn.Sequential):
            features = self.act(second(features))
        return features
