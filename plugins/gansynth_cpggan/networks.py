"""Networks of ``cpggan``: they grow from 4 x 4 voxels and see boxes at every resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth import UsageFault
from gansynth_cpggan.progressive import (
    EqualisedConv2d,
    EqualisedLinear,
    faded,
    fades,
    half,
    leaky,
    minibatch_deviation,
    pixel_norm,
    twice,
)

FIRST = 4  # initial edge of both networks, in voxels
PYRAMID = (1, 2, 4)
"""Bins along each axis of spatial pyramid pooling (He et al. 2014, arXiv:1406.4729)."""


@dataclass(frozen=True)
class GrowthSchedule:
    """Edges (4, 8, ...) and features of both networks, from coarse to fine."""

    edges: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, size: Sequence[int], width: int, most: int) -> GrowthSchedule:
        """Return the growth to a size with ``width`` features; UsageFault: no power of 2."""
        edge = size[0] if size else 0
        if len(size) != 2 or size[0] != size[1] or edge < FIRST or edge & (edge - 1):
            actual = " x ".join(map(str, size)) or "none of its own"
            raise UsageFault(
                "cpggan.size-not-power-of-two",
                f"cpggan: image size is {actual}; "
                "expected 64 x 64, 128 x 128, 256 x 256 or another power of 2. Resize pictures or "
                "slices: --read size=128x128",
            )
        edges = [FIRST << level for level in range((edge // FIRST).bit_length())]
        widths = [min(most, width * edge // each) for each in edges]
        return cls(tuple(edges), tuple(widths))


class ProgressiveGenerator(nn.Module):
    """The generator, of latents and box maps: Karras et al. 2018, table 2, with maps."""

    grown: Tensor

    def __init__(
        self, growth: GrowthSchedule, latent: int, kinds: int, channels: int, classes: int
    ) -> None:
        super().__init__()
        self.growth, self.kinds = growth, kinds
        w = growth.widths
        # A gain of 1/4, as Karras et al. use for this layer.
        self.first = EqualisedLinear(latent + kinds, w[0] * FIRST**2, math.sqrt(2) / 4)
        self.begin = EqualisedConv2d(w[0] + classes, w[0], 3)
        # Layers are made kind by kind: their order is that of random numbers.
        enter = [EqualisedConv2d(cin + classes, cout, 3) for cin, cout in pairwise(w)]
        refine = [EqualisedConv2d(cout, cout, 3) for cout in w[1:]]
        image = [EqualisedConv2d(cin, channels, 1, gain=1) for cin in w]
        self.enter, self.refine = nn.ModuleList(enter), nn.ModuleList(refine)
        self.image = nn.ModuleList(image)
        # A float, so that it is averaged with the weights.
        self.register_buffer("grown", torch.zeros(()))

    def forward(
        self,
        latents: Tensor,
        maps: Tensor,
        level: int,
        alpha: float | Tensor,
        kinds: Tensor | None = None,
    ) -> Tensor:
        """Return images (B, channels, edge, edge), unbounded.

        ``latents``: (B, numbers). ``maps``: (B, classes, edge, edge), of the level's edge.
        ``alpha``: fade-in, 0 to 1, a number or a tensor (). ``kinds``: int64 (B,) classes.
        """
        scales = pyramid(maps, level)
        latents = pixel_norm(latents)
        if kinds is not None:
            latents = torch.cat((latents, F.one_hot(kinds, self.kinds).to(latents)), 1)
        x = self.first(latents).unflatten(1, (-1, FIRST, FIRST))
        x = _unit(self.begin(_with(_unit(x), scales[0])))
        coarse: Tensor | None = None
        for i in range(level):
            if i == level - 1 and fades(alpha):
                coarse = twice(self.image[i](x))
            x = _unit(self.enter[i](_with(twice(x), scales[i + 1])))
            x = _unit(self.refine[i](x))
        image: Tensor = self.image[level](x)
        return image if coarse is None else faded(coarse, image, alpha)


class ProgressiveDiscriminator(nn.Module):
    """The critic, of images with box maps: Karras et al. 2018, table 2, with maps.

    Classes enter by projection (Miyato & Koyama 2018, arXiv:1802.05637, eq. 4).
    """

    def __init__(
        self, growth: GrowthSchedule, kinds: int, channels: int, classes: int, spp: bool
    ) -> None:
        super().__init__()
        self.growth, self.channels, self.spp = growth, channels, spp
        w = growth.widths
        image = [EqualisedConv2d(channels + classes, c, 1) for c in w]
        refine = [EqualisedConv2d(c + classes, c, 3) for c in w[1:]]
        leave = [EqualisedConv2d(cin, cout, 3) for cout, cin in pairwise(w)]
        self.image, self.refine = nn.ModuleList(image), nn.ModuleList(refine)
        self.leave = nn.ModuleList(leave)
        self.end = EqualisedConv2d(w[0] + 1 + classes, w[0], 3)
        bins = sum(n * n for n in PYRAMID) if spp else FIRST**2
        self.dense = EqualisedLinear(w[0] * bins, w[0])
        self.head = EqualisedLinear(w[0], 1, gain=1)
        # An embedding of the kinds; its name is a key of stored weights.
        self.class_embedding = nn.Embedding(kinds, w[0]) if kinds else None

    def forward(
        self,
        pair: Tensor,
        level: int,
        alpha: float | Tensor,
        group: int,
        kinds: Tensor | None = None,
    ) -> Tensor:
        """Return values (B, 1) of pairs (B, channels + classes, edge, edge) at a level."""
        scales = pyramid(pair[:, self.channels :], level)
        x = leaky(self.image[level](pair))
        for i in reversed(range(level)):
            x = leaky(self.refine[i](_with(x, scales[i + 1])))
            x = half(leaky(self.leave[i](x)))
            if i == level - 1 and fades(alpha):
                x = faded(leaky(self.image[i](half(pair))).to(x.dtype), x, alpha)
        x = leaky(self.end(_with(minibatch_deviation(x, group), scales[0])))
        features = leaky(self.dense(spatial_pyramid(x) if self.spp else x.flatten(1)))
        value: Tensor = self.head(features)
        if self.class_embedding is not None:
            assert kinds is not None, "observe() checks that each case has a class"
            value = value + (self.class_embedding(kinds) * features).sum(1, keepdim=True)
        return value


def pyramid(maps: Tensor, level: int) -> list[Tensor]:
    """Return maps of every resolution up to a level's, coarse to fine."""
    levels = [maps]
    for _ in range(level):
        levels.append(half(levels[-1]))
    return levels[::-1]


def spatial_pyramid(x: Tensor) -> Tensor:
    """Max-pool features in 1, 2 x 2 and 4 x 4 bins: (B, C, H, W) -> (B, 21 C)."""
    return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in PYRAMID], 1)


def _with(x: Tensor, maps: Tensor) -> Tensor:
    """Concatenate features and maps, maps scaled to the features' total magnitude."""
    loud = math.sqrt(x.shape[1] / maps.shape[1])
    return torch.cat((x, (loud * maps).to(x.dtype)), 1)


def _unit(x: Tensor) -> Tensor:
    return pixel_norm(leaky(x))
