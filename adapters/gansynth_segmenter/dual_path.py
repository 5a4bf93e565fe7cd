"""DeepMedic's network: one path at full resolution, and further ones of larger context.

Kamnitsas et al. 2017, Medical Image Analysis 36:61-78: a path has eight convolutions of 3 x 3 x 3
without padding, and two layers of 1 x 1 x 1 join all paths. Residual connections are those of
Kamnitsas et al. 2016 (BrainLes), and blocks have the order of He et al. 2016: normalisation, PReLU,
dropout, convolution. The input is one crop, of which each path takes every ``factor``-th voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.hosts.mixing.segments import segment_margin, segment_parts

FEATURES = (1, 1, 4 / 3, 4 / 3, 4 / 3, 4 / 3, 5 / 3, 5 / 3)
"""Features of the convolutions of a path, as multiples of the first one's."""
RESIDUAL = (4, 6, 8)
"""Convolutions, from 1, to whose output the input of the one before is added."""
RECEPTIVE = 1 + 2 * len(FEATURES)
HEAD = 5
"""Features of the joined layers, as a multiple too."""


class Pathway(nn.Module):
    """Blocks with residual connections over two of them; missing channels count as zeros."""

    def __init__(self, blocks: Sequence[nn.Module], residual: Sequence[int]) -> None:
        super().__init__()
        self.blocks, self.residual = nn.ModuleList(blocks), frozenset(residual)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, D, H, W) to (B, C', D', H', W')."""
        before = x
        for number, block in enumerate(self.blocks, 1):
            out: Tensor = block(x)
            if number in self.residual:
                cut = (before.shape[2] - out.shape[2]) // 2
                inner = [slice(cut, n - cut) for n in before.shape[2:]]
                earlier = before[(slice(None), slice(out.shape[1]), *inner)]
                out = out + F.pad(earlier, (*[0] * 6, 0, out.shape[1] - earlier.shape[1]))
            before, x = x, out
        return x


class DualPath(nn.Module):
    """The network from one crop to the logits of its middle.

    Args:
        channels: of the image.
        labels: classes of the output.
        width: features of the first convolution; 30 as published.
        factors: subsampling factor of each path beside the one at full resolution.
    """

    def __init__(
        self, channels: int, labels: int, width: int = 30, factors: Sequence[int] = (3,)
    ) -> None:
        super().__init__()
        self.factors = tuple(factors)
        features = [channels] + [round(width * times) for times in FEATURES]
        self.paths = nn.ModuleList([_path(features) for _ in (1, *factors)])
        joined, wide = features[-1] * len(self.paths), HEAD * width
        head = [
            _block(joined, wide, 1),
            _block(wide, wide, 1, dropout=0.5),
            _block(wide, labels, 1, dropout=0.5, bias=True),
        ]
        self.head = Pathway(head, residual=[2])

    @property
    def margin(self) -> int:
        """Voxels at each side of a crop that are seen, but not predicted."""
        return segment_margin(RECEPTIVE, self.factors)

    def latent_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Take no noise."""
        return []

    def forward(self, x: Tensor, latents: Sequence[Tensor] = ()) -> Tensor:
        """Return logits (B, labels, D - 2 margin, ...) of a crop (B, C, D, H, W)."""
        return self.joined(segment_parts(x, RECEPTIVE, self.factors))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the logits of segments (B, C, D, H, W) and their subsampled contexts."""
        features: list[Tensor] = []
        for path, part, factor in zip(self.paths, parts, (1, *self.factors), strict=True):
            found = path(part)
            for axis in (2, 3, 4) if features else ():
                found = found.repeat_interleave(factor, axis)
                found = found.narrow(axis, 0, features[0].shape[axis])
            features.append(found)
        logits: Tensor = self.head(torch.cat(features, 1))
        return logits


def _path(features: Sequence[int]) -> Pathway:
    layers: list[nn.Module] = [_initial(nn.Conv3d(features[0], features[1], 3))]
    for cin, cout in pairwise(features[1:]):
        layers.append(_block(cin, cout, 3))
    return Pathway(layers, RESIDUAL)


def _block(
    before: int, after: int, kernel: int, dropout: float = 0, bias: bool = False
) -> nn.Module:
    convolution = _initial(nn.Conv3d(before, after, kernel, bias=bias))
    return nn.Sequential(
        nn.BatchNorm3d(before), nn.PReLU(before, init=0.01), nn.Dropout(dropout), convolution
    )


def _initial(convolution: nn.Conv3d) -> nn.Conv3d:
    nn.init.kaiming_normal_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
