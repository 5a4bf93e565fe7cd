"""Layers by name and number of spatial axes, label encoding, strides by voxel spacing.

Public as a whole: docs/plugin_generators.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.convolution import convolve as convolve
from gansynth.nn.networks.lean_norm import norm_leaky_relu
from gansynth.nn.networks.resize import Up as Up
from gansynth.nn.networks.resize import enlarge as enlarge
from gansynth.nn.networks.spectral import settled as settled
from gansynth.nn.networks.spectral import spectral_norm

ONEDNN_FROM = 20480
MOST_GROWTH = 4  # most growth of the batch; more padding costs more than it saves


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` that avoids torch's slow path; equal but for rounding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, convolve = len(input), super()._conv_forward
        samples = self._enough(input)
        if samples <= batch:
            plain: Tensor = convolve(input, weight, bias)
            return plain
        made: Tensor = convolve(F.pad(input, [*[0] * 9, samples - batch]), weight, bias)
        return made[:batch]

    def _enough(self, x: Tensor) -> int:
        """Return the batch size from which oneDNN is used; 0 where that does not help."""
        slow = (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and max(*self.stride, *self.dilation) == 1
            and 1 < max(self.kernel_size) <= 3
        )
        if not slow:
            return 0
        batch, channels, depth, height = x.shape[:4]
        samples = ONEDNN_FROM // max(1, channels * depth * height) + 1
        return samples if samples <= MOST_GROWTH * batch else 0


Norm = Literal["instance", "batch", "group", "none"]
Activation = Literal["leaky_relu", "relu", "elu", "silu", "gelu"]
Down = Literal["strided", "strided4", "maxpool"]
Blocks = Literal["plain", "residual"]
Skip = Literal["add", "concat"]
Narrow = Literal["before", "after", "none"]

GROUPS = 8  # most groups of a group normalisation; fewer if they do not divide the channels


def conv(
    ndim: int,
    cin: int,
    cout: int,
    kernel: int,
    stride: int | tuple[int, ...] = 1,
    *,
    spectral: bool = False,
) -> nn.Module:
    """Return a convolution in 2D or 3D with "same" padding for odd kernels."""
    layer: Any = Conv3d if ndim == 3 else nn.Conv2d
    built: nn.Module = layer(cin, cout, kernel, stride, padding=kernel // 2)
    return spectral_norm(built) if spectral else built


class PixConv(nn.Module):
    """Convolution of pix2pix (Isola et al. 2017, sec. 6.1) in 2D or 3D: kernel 4, padding 1.

    An axis with a stride has ``ceil(n / stride)`` voxels of ``n`` afterwards. An axis with kernel 4
    and no stride loses one voxel. ``wide``: axes with kernel 4; None: those with a stride.
    """

    def __init__(
        self,
        ndim: int,
        cin: int,
        cout: int,
        stride: tuple[int, ...],
        *,
        wide: Sequence[bool] | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        layer: Any = nn.Conv3d if ndim == 3 else nn.Conv2d
        wide = [s > 1 for s in stride] if wide is None else wide
        self.kernel, self.stride = tuple(4 if w else 3 for w in wide), stride
        built: nn.Module = layer(cin, cout, self.kernel, stride, padding=1)
        self.conv = spectral_norm(built) if spectral else built

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, ...); an axis that is too short or odd is padded at its end."""
        along = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        padding = [max(n % stride, kernel - 2 - n) for n, kernel, stride in along]
        if any(padding):
            x = F.pad(x, [p for extra in reversed(padding) for p in (0, extra)])
        features: Tensor = self.conv(x)
        return features


def channels_last(x: Tensor) -> Tensor:
    """Return a network's input (B, C, ...); on a CPU with channels innermost, as its weights."""
    if x.device.type != "cpu":
        return x
    form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=form)


def downsampling(
    kind: Down, ndim: int, cin: int, cout: int, stride: tuple[int, ...], *, spectral: bool = False
) -> nn.Module:
    """Return a layer from ``n`` voxels to ``ceil(n / stride)``, from ``cin`` channels to ``cout``.

    ``strided`` has kernel 3, ``strided4`` kernel 4 (Isola et al. 2017), ``maxpool`` is followed by
    a convolution (Cicek et al. 2016).
    """
    if kind == "strided":
        return conv(ndim, cin, cout, 3, stride, spectral=spectral)
    if kind == "strided4":
        return PixConv(ndim, cin, cout, stride, spectral=spectral)
    pool = nn.MaxPool3d if ndim == 3 else nn.MaxPool2d
    return nn.Sequential(
        pool(stride, stride, ceil_mode=True), conv(ndim, cin, cout, 3, spectral=spectral)
    )


def instance_norm(ndim: int, channels: int) -> nn.Module:
    """Return an instance normalisation with a learnt scale and shift, in 2D or 3D."""
    layer = nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d
    return layer(channels, affine=True)


def normalisation(kind: Norm, ndim: int, channels: int) -> nn.Module:
    """Return a normalisation with a learnt scale and shift; ``none`` is the identity."""
    if kind == "instance":
        return instance_norm(ndim, channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    if kind == "batch":
        return nn.BatchNorm3d(channels) if ndim == 3 else nn.BatchNorm2d(channels)
    return nn.Identity()


def activation(kind: Activation) -> nn.Module:
    """Return an activation without parameters; in place where autograd allows it."""
    made: dict[Activation, nn.Module] = {
        "leaky_relu": nn.LeakyReLU(0.2, inplace=True),
        "relu": nn.ReLU(inplace=True),
        "elu": nn.ELU(inplace=True),
        "silu": nn.SiLU(),
        "gelu": nn.GELU(),
    }
    return made[kind]


def activated(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """Normalise and activate (B, C, ...), differentiable once; stores only the result if it can."""
    if isinstance(act, nn.LeakyReLU):
        return norm_leaky_relu(x, norm, act.negative_slope)
    features: Tensor = act(norm(x))
    return features


class ConvLayer(nn.Sequential):
    """A convolution (or downsampling), a normalisation and an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply all three to (B, C, ...)."""
        return activated(self[0](x), self[1], self[2])


class ConvUnit(ConvLayer):
    """Convolution with kernel 3, normalisation, activation; keeps size and channels."""

    def __init__(
        self, ndim: int, channels: int, norm: Norm, act: Activation, *, spectral: bool = False
    ) -> None:
        super().__init__(
            conv(ndim, channels, channels, 3, spectral=spectral),
            normalisation(norm, ndim, channels),
            activation(act),
        )


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut (He et al. 2016, fig. 2)."""

    def __init__(
        self, ndim: int, channels: int, norm: Norm, act: Activation, *, spectral: bool = False
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(ndim, channels, norm, act, spectral=spectral),
            conv(ndim, channels, channels, 3, spectral=spectral),
            normalisation(norm, ndim, channels),
        )
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, C, ...)."""
        features: Tensor = self.act(x + self.body(x))
        return features


def one_hot(labels: Tensor, values: Sequence[int]) -> Tensor:
    """Encode labels, one channel per value: integer (B, ...) -> float32 (B, len(values), ...)."""
    encoded = labels.new_empty((len(labels), len(values), *labels.shape[1:]), dtype=torch.float32)
    for channel, value in enumerate(values):
        torch.eq(labels, value, out=encoded[:, channel])
    return encoded


def strides_for(
    size: Sequence[int], spacing: Sequence[float], levels: int
) -> list[tuple[int, ...]]:
    """Return strides between levels such that voxels become isotropic first.

    An axis is halved if it has at least 8 voxels, less than twice as long as the shortest.
    ``spacing``: mm. Returns ``levels - 1`` tuples, or fewer if no axis can be halved.
    """
    extent, mm = list(size), list(spacing)
    strides: list[tuple[int, ...]] = []
    for _ in range(levels - 1):
        axes = list(zip(extent, mm, strict=True))
        finest = min([m for n, m in axes if n >= 8], default=0)
        stride = tuple([2 if n >= 8 and m < 2 * finest else 1 for n, m in axes])
        if max(stride) == 1:
            break
        extent = shrunk(extent, stride)
        mm = [m * s for m, s in zip(mm, stride, strict=True)]
        strides.append(stride)
    return strides


def shrunk(size: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return the size after one downsampling, ``ceil(n / stride)``."""
    return [-(-n // s) for n, s in zip(size, stride, strict=True)]
