"""Networks of ``dcgan``: a generator of transposed convolutions, a discriminator of strided ones.

Radford et al. 2016 (DCGAN, arXiv:1511.06434) as Han et al. 2018 changed it: filters four wide, half
the channels, no tanh. Each axis is halved until about four voxels are left. Outputs are cropped to
the image's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.networks.blocks import activation, normalisation
from gansynth_dcgan.options import Norm

BASE = 4  # approximate voxels per axis of the coarsest features
DEVIATION = 0.02  # standard deviation of initial weights (Radford et al. 2016, sec. 3)


@dataclass(frozen=True)
class FeaturePyramid:
    """Sizes and channels of the features, coarsest first; ``size``: of the image, in voxels."""

    size: tuple[int, ...]
    base: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, size: Sequence[int], width: int, most: int) -> FeaturePyramid:
        """Return the pyramid of an image size (voxels per axis, any)."""
        halvings = [max(0, round(math.log2(n / BASE))) for n in size]
        levels = max(1, *halvings)
        strides = []
        for level in range(levels):  # an axis of fewer halvings grows on the finest levels
            stride = [2 if level >= levels - n else 1 for n in halvings]
            strides.append(tuple(stride))
        base = [math.ceil(n / 2**h) for n, h in zip(size, halvings, strict=True)]
        widths = [min(width * 2**i, most) for i in reversed(range(levels))]
        return cls(tuple(size), tuple(base), tuple(strides), tuple(widths))

    @property
    def margins(self) -> list[int]:
        """Voxels by which the pyramid exceeds the size, in the order of ``F.pad``."""
        whole = [n * math.prod(s[axis] for s in self.strides) for axis, n in enumerate(self.base)]
        surplus = [w - n for w, n in zip(whole, self.size, strict=True)]
        return [part for m in reversed(surplus) for part in (m // 2, m - m // 2)]


class DCGANGenerator(nn.Module):
    """The generator: latents in, channels out. ``kinds``: number of kinds; 0 for none."""

    def __init__(
        self, pyramid: FeaturePyramid, numbers: int, kinds: int, channels: int, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.pyramid, self.kinds = pyramid, kinds
        ndim, widths = len(pyramid.size), pyramid.widths
        # No bias where a norm removes it.
        free = norm in ("layer", "none")
        self.first = nn.Linear(numbers + kinds, widths[0] * math.prod(pyramid.base), bias=free)
        self.norms = nn.ModuleList([_norm(norm, ndim, width) for width in widths])
        layer: Any = nn.ConvTranspose3d if ndim == 3 else nn.ConvTranspose2d
        inner = [
            layer(cin, cout, _kernel(stride), stride, 1, bias=free)
            for cin, cout, stride in zip(widths, widths[1:], pyramid.strides, strict=False)
        ]
        stride = pyramid.strides[-1]
        last = layer(widths[-1], channels, _kernel(stride), stride, 1)
        self.layers = nn.ModuleList([*inner, last])
        self.apply(_begin)

    def forward(self, latents: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return (B, channels, *size), unbounded, of latents (B, numbers) and kinds (B,)."""
        if kinds is not None:
            latents = torch.cat((latents, F.one_hot(kinds, self.kinds).to(latents)), 1)
        x = self.first(latents).unflatten(1, (self.pyramid.widths[0], *self.pyramid.base))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = layer(F.relu(norm(x)))
        return F.pad(x, [-margin for margin in self.pyramid.margins])


class DCGANDiscriminator(nn.Module):
    """The discriminator: one value per sample; kinds by projection (Miyato & Koyama 2018)."""

    def __init__(
        self, pyramid: FeaturePyramid, channels: int, kinds: int, norm: Norm, act: str
    ) -> None:
        super().__init__()
        self.pyramid = pyramid
        ndim, widths = len(pyramid.size), pyramid.widths[::-1]
        layer: Any = nn.Conv3d if ndim == 3 else nn.Conv2d
        self.layers = nn.ModuleList()
        cin = channels
        for cout, stride in zip(widths, pyramid.strides[::-1], strict=True):
            # No bias where a norm removes it; the first layer has no norm.
            bias = cin == channels or norm in ("layer", "none")
            self.layers.append(layer(cin, cout, _kernel(stride), stride, 1, bias=bias))
            cin = cout
        self.norms = nn.ModuleList([_norm(norm, ndim, width) for width in widths[1:]])
        self.act = activation("elu" if act == "elu" else "leaky_relu")
        self.head = nn.Linear(widths[-1] * math.prod(pyramid.base), 1)
        # An embedding of the kinds; its name is a key of stored weights.
        self.class_embedding = nn.Embedding(kinds, widths[-1]) if kinds else None
        self.apply(_begin)

    def forward(self, images: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return values (B, 1) of images (B, channels, *size) of ``kinds`` (B,)."""
        x = F.pad(images, self.pyramid.margins)
        for layer, norm in zip(self.layers, (nn.Identity(), *self.norms), strict=True):
            x = self.act(norm(layer(x)))
        value: Tensor = self.head(x.flatten(1))
        if self.class_embedding is not None:
            assert kinds is not None, "each sample has a kind"
            value = value + (self.class_embedding(kinds) * x.flatten(2).mean(2)).sum(
                1, keepdim=True
            )
        return value


def _kernel(stride: Sequence[int]) -> tuple[int, ...]:
    """Return kernels: 4 on strided axes (Han et al. 2018), 3 on the others."""
    return tuple(4 if s > 1 else 3 for s in stride)


def _norm(kind: Norm, ndim: int, channels: int) -> nn.Module:
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return normalisation(kind, ndim, channels)


def _begin(module: nn.Module) -> None:
    """Initialise weights: normal, standard deviation 0.02; a norm's scale around 1."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(weight, nn.Parameter):
        nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, DEVIATION)
    if isinstance(bias, nn.Parameter):
        nn.init.zeros_(bias)
