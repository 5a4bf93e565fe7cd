"""Blocks of progressive GANs: Karras et al. 2018 (arXiv:1710.10196)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.networks.blocks import convolve

SLOPE = 0.2  # slope of the leaky ReLU below 0 (their table 2)
SMALL = 1e-8  # keeps roots and quotients of zeros finite


class EqualisedConv2d(nn.Conv2d):
    """A convolution of equal size with an equalised learning rate (their sec. 4.1).

    Weights begin with deviation 1 and are scaled by He's constant when used. ``kernel``: odd.
    ``gain``: deviation of the output over that of the input; sqrt(2) before a ReLU.
    """

    def __init__(self, cin: int, cout: int, kernel: int, gain: float = math.sqrt(2)) -> None:
        super().__init__(cin, cout, kernel, padding=kernel // 2)
        self.scale = gain / math.sqrt(cin * kernel**2)
        _begin(self)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        assert isinstance(self.padding, tuple)
        return convolve(x, self.weight * self.scale, self.bias, self.padding)


class EqualisedLinear(nn.Linear):
    """A dense layer with an equalised learning rate; see ``EqualisedConv2d``."""

    def __init__(self, cin: int, cout: int, gain: float = math.sqrt(2)) -> None:
        super().__init__(cin, cout)
        self.scale = gain / math.sqrt(cin)
        _begin(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, cin) to (B, cout)."""
        return F.linear(x, self.weight * self.scale, self.bias)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale features (B, C, ...) to mean square 1 in each voxel (their sec. 4.2)."""
    scale = (x.float().square().mean(1, keepdim=True) + SMALL).rsqrt()
    return x * scale.to(x.dtype)


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append a channel with the deviation within a group (sec. 3): (B, C, H, W) -> C + 1.

    The deviation over ``group`` samples in a row, averaged over features and voxels.
    """
    groups = x.float().reshape(-1, group, *x.shape[1:])
    deviation = (groups.var(1, unbiased=False) + SMALL).sqrt().flatten(1).mean(1)
    channel = deviation.repeat_interleave(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat((x, channel.to(x.dtype)), 1)


def twice(x: Tensor) -> Tensor:
    """Double height and width of (B, C, H, W): each voxel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def half(x: Tensor) -> Tensor:
    """Halve height and width of (B, C, H, W): means of four voxels."""
    return F.avg_pool2d(x, 2)


def fades(alpha: float | Tensor) -> bool:
    """Whether a new layer still fades in; its share is a tensor on a GPU then."""
    return isinstance(alpha, Tensor) or alpha < 1


def faded(before: Tensor, new: Tensor, alpha: float | Tensor) -> Tensor:
    """Blend features without and with a new layer, (B, C, H, W) each, by the new one's share."""
    share = alpha.to(before.dtype) if isinstance(alpha, Tensor) else alpha
    return torch.lerp(before, new.to(before.dtype), share)


def leaky(x: Tensor) -> Tensor:
    """Apply the activation of both networks."""
    return F.leaky_relu(x, SLOPE)


def _begin(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
