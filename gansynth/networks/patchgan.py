"""A PatchGAN that sees image and label, and judges grain as well as layout.

PatchGAN: Isola et al. 2017. Its first convolution runs at full resolution, and what the second
makes of it has a head of its own that sees five voxels: a discriminator that strides at once is
blind above half resolution, and samples then come out smooth. Spectral normalisation: Miyato et
al. 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gansynth.networks.blocks import conv


class PatchDiscriminator(nn.Module):
    """Judges (B, in_channels, ...) pairs patch by patch, once per head.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: image channels plus condition channels.
        width: features of the full-resolution layer; doubled per downsampling.
        strides: one tuple per downsampling.
        spectral: normalise every convolution by its spectral norm.
        texture_head: judge grain (five voxels at a time) besides layout at the coarsest.
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
    ) -> None:
        super().__init__()

        def layer(
            cin: int, cout: int, stride: int | tuple[int, ...] = 1, kernel: int = 3
        ) -> nn.Module:
            built = conv(ndim, cin, cout, kernel, stride)
            return spectral_norm(built) if spectral else built

        widths = [width * 2**i for i in range(len(strides) + 1)]
        self.stem = layer(in_channels, width)
        self.down = nn.ModuleList(
            layer(widths[i], widths[i + 1], stride) for i, stride in enumerate(strides)
        )
        self.layout = layer(widths[-1], 1)
        # Pointwise: a convolution with one output channel costs a CPU as much as one with eight.
        self.texture = layer(widths[min(1, len(strides))], 1, kernel=1) if texture_head else None

    def forward(self, pair: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Judge pairs.

        Args:
            pair: image and condition channels (B, in_channels, D, H, W) or (B, in_channels, H, W).

        Returns:
            Logits per head, each (B, 1, ...), and the features of every layer.
        """
        x = F.leaky_relu(self.stem(pair), 0.2, inplace=True)
        features = [x]
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2, inplace=True)
            features.append(x)
        logits = [self.layout(x)]
        if self.texture is not None:
            logits.append(self.texture(features[min(1, len(features) - 1)]))
        return logits, features
