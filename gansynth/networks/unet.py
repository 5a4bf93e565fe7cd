"""A U-Net that draws images from label maps, with noise at every resolution.

U-Net: Ronneberger et al. 2015; as a generator: Isola et al. 2017. Per-pixel noise with a learnt
scale per channel: Karras et al. 2019 (StyleGAN, sec. 2), which is what gives an image grain that
no label map determines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.networks.blocks import conv, instance_norm


class NoiseInjection(nn.Module):
    """Adds noise with a learnt scale per channel."""

    def __init__(self, ndim: int, channels: int, start: float = 0.2) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, *[1] * ndim), start))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add ``noise`` (B, 1, ...) to ``x`` (B, C, ...)."""
        return x + self.scale.to(x.dtype) * noise.to(x.dtype)


class UNetGenerator(nn.Module):
    """Draws (B, out_channels, ...) from (B, in_channels, ...) conditions; fully convolutional.

    Args:
        ndim: spatial axes, 2 or 3.
        in_channels: channels of the condition (one-hot labels, context).
        out_channels: image channels, drawn jointly.
        width: features at full resolution; doubled per level up to ``max_width``.
        strides: one tuple per downsampling.
        output: ``linear`` or ``tanh``.
        max_width: most features of any level.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        width: int,
        strides: Sequence[tuple[int, ...]],
        output: Literal["linear", "tanh"] = "linear",
        max_width: int = 256,
    ) -> None:
        super().__init__()
        self.ndim = ndim
        self.output = output
        # Linear: copies of voxels would leave stripes of period two in the image.
        self.enlarge = "trilinear" if ndim == 3 else "bilinear"
        widths = [min(width * 2**i, max_width) for i in range(len(strides) + 1)]
        self.stem = conv(ndim, in_channels, width, 3)
        self.down = nn.ModuleList(
            nn.Sequential(
                conv(ndim, widths[i], widths[i + 1], 3, stride),
                instance_norm(ndim, widths[i + 1]),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for i, stride in enumerate(strides)
        )
        self.middle = nn.Sequential(
            conv(ndim, widths[-1], widths[-1], 3),
            instance_norm(ndim, widths[-1]),
            nn.LeakyReLU(0.2, inplace=True),
        )
        # Narrowed before it is enlarged, and added to the skip rather than put beside it: the
        # costly convolution at the finer level sees a third of the channels it would.
        self.narrow = nn.ModuleList(
            conv(ndim, widths[i + 1], widths[i], 1) for i in range(len(strides))
        )
        self.up = nn.ModuleList(conv(ndim, widths[i], widths[i], 3) for i in range(len(strides)))
        self.norm = nn.ModuleList(instance_norm(ndim, widths[i]) for i in range(len(strides)))
        self.noise = nn.ModuleList(NoiseInjection(ndim, w) for w in widths)
        self.head = conv(ndim, width, width, 3)
        self.grain = NoiseInjection(ndim, width)
        self.image = conv(ndim, width, out_channels, 1)

    def noise_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Spatial shapes of the noise: one per level, finest first, one more for the head."""
        shapes = [tuple(size)]
        for block in self.down:
            stride = block[0].stride  # type: ignore[index]
            shapes.append(tuple(-(-n // s) for n, s in zip(shapes[-1], stride, strict=True)))
        return [*shapes, shapes[0]]

    def forward(self, condition: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Draw images.

        Args:
            condition: (B, in_channels, D, H, W) or (B, in_channels, H, W).
            noise: (B, 1, ...) of each of ``noise_shapes``.

        Returns:
            (B, out_channels, ...) of the condition's spatial size.
        """
        x = F.leaky_relu(self.stem(condition), 0.2, inplace=True)
        skips = [x]
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.noise[-1](self.middle(x), noise[len(self.down)])
        for i in reversed(range(len(self.up))):
            x = F.interpolate(self.narrow[i](x), size=skips[i].shape[2:], mode=self.enlarge)
            x = self.up[i](x + skips[i])
            x = F.leaky_relu(self.norm[i](self.noise[i](x, noise[i])), 0.2, inplace=True)
        # Fresh noise once more, one convolution before the image: grain as fine as a voxel.
        x = self.grain(self.head(x), noise[-1])
        x = self.image(F.leaky_relu(x, 0.2, inplace=True)).float()
        return torch.tanh(x) if self.output == "tanh" else x
