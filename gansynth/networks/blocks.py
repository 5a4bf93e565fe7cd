"""Layers by number of spatial axes, label encoding, strides that respect spacing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def conv(
    ndim: int, cin: int, cout: int, kernel: int, stride: int | tuple[int, ...] = 1
) -> nn.Module:
    """A convolution in 2D or 3D with "same" padding for odd kernels."""
    layer: Any = nn.Conv3d if ndim == 3 else nn.Conv2d
    built: nn.Module = layer(cin, cout, kernel, stride, padding=kernel // 2)
    return built


def instance_norm(ndim: int, channels: int) -> nn.Module:
    """Instance normalisation with a learnt scale and shift, in 2D or 3D."""
    layer = nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d
    return layer(channels, affine=True)


def one_hot(labels: Tensor, values: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """One channel per label value.

    Args:
        labels: integer (B, D, H, W) or (B, H, W).
        values: label values in channel order.
        dtype: of the result.

    Returns:
        (B, len(values), D, H, W) or (B, len(values), H, W).
    """
    return torch.stack([labels == v for v in values], dim=1).to(dtype)


def strides_for(
    size: Sequence[int], spacing: Sequence[float], levels: int
) -> list[tuple[int, ...]]:
    """Strides of the downsamplings between levels, so that voxels become isotropic first.

    An axis is halved only while its voxels are less than twice as long as the shortest and it has
    at least 8 of them.

    Args:
        size: spatial size in voxels.
        spacing: mm per voxel.
        levels: resolutions wanted, at least 1.

    Returns:
        ``levels - 1`` tuples, or fewer where nothing is left to halve.
    """
    extent, mm = list(size), list(spacing)
    strides: list[tuple[int, ...]] = []
    for _ in range(levels - 1):
        finest = (
            min(m for m, n in zip(mm, extent, strict=True) if n >= 8) if max(extent) >= 8 else 0
        )
        stride = tuple(
            2 if n >= 8 and m < 2 * finest else 1 for n, m in zip(extent, mm, strict=True)
        )
        if max(stride) == 1:
            break
        extent = [-(-n // s) for n, s in zip(extent, stride, strict=True)]
        mm = [m * s for m, s in zip(mm, stride, strict=True)]
        strides.append(stride)
    return strides
