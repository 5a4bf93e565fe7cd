"""Changes that ``gansynth.nn.diff_augment`` makes to samples: random, differentiable, 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

SHIFT, CUT = 1 / 8, 1 / 2
"""Largest translation and edge of the cut-out, as parts of each axis (Zhao et al. 2020)."""


@dataclass(frozen=True)
class Change:
    """A change of the samples that are hit.

    Attributes:
        apply: (samples (B, C, ...), which are hit (B,), uniform numbers (B, n)) -> samples.
        spatial: moves voxels, so the condition must follow.
        per_axis: needs a number for each spatial axis; else one.
    """

    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    spatial: bool = False
    per_axis: bool = False


# -- changes; u is uniform in [0, 1) ---------------------------------------------------------------


def _brightness(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    return torch.where(_along(hit, x), x + _along(u[:, 0] - 0.5, x).to(x.dtype), x)


def _contrast(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    mean = x.mean(tuple(range(1, x.ndim)), keepdim=True)
    return _scaled(x, mean, hit, u[:, 0] + 0.5)


def _saturation(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return _scaled(x, x.mean(1, keepdim=True), hit, 2 * u[:, 0])


def _scaled(x: Tensor, mean: Tensor, hit: Tensor, factor: Tensor) -> Tensor:
    return torch.where(_along(hit, x), (x - mean) * _along(factor, x).to(x.dtype) + mean, x)


def _flip(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    for axis in range(u.shape[1]):
        x = torch.where(_along(hit & (u[:, axis] < 0.5), x), x.flip(2 + axis), x)
    return x


def _rotate90(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    quarters = (4 * u[:, 0]).long()
    x = torch.where(_along(hit & (quarters >= 2), x), x.flip(-2, -1), x)
    if x.shape[-2] != x.shape[-1]:
        return x
    return torch.where(_along(hit & (quarters % 2 == 1), x), x.rot90(1, (-2, -1)), x)


def _translation(x: Tensor, hit: Tensor, u: Tensor, *, edge: bool = False) -> Tensor:
    for axis in range(u.shape[1]):
        size = x.shape[2 + axis]
        most = round(size * SHIFT)
        # In float32 the product can reach its bound.
        shift = (u[:, axis] * (2 * most + 1)).long().clamp(max=2 * most) - most
        source = torch.arange(size, device=x.device) - (shift * hit)[:, None]
        source = _on_axis(source, axis, x)
        x = x.take_along_dim(source.clamp(0, size - 1), 2 + axis)
        if not edge:
            x = x.masked_fill((source < 0) | (source >= size), 0)
    return x


def _cutout(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    inside = _along(hit, x)
    for axis in range(u.shape[1]):
        size = x.shape[2 + axis]
        edge = round(size * CUT)
        first = (u[:, axis] * size).long() - edge // 2
        voxel = torch.arange(size, device=x.device) - first[:, None]
        inside = inside & _on_axis((voxel >= 0) & (voxel < edge), axis, x)
    return x.masked_fill(inside, 0)


def _along(numbers: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to meet samples."""
    return numbers.view(-1, *[1] * (x.ndim - 1))


def _on_axis(numbers: Tensor, axis: int, x: Tensor) -> Tensor:
    """(B, size) -> (B, 1, ..., size, ...), to meet samples along a spatial axis."""
    return numbers.view(len(x), 1, *(-1 if a == axis else 1 for a in range(x.ndim - 2)))


CHANGES: Mapping[str, Change] = {
    "brightness": Change(_brightness),
    "contrast": Change(_contrast),
    "saturation": Change(_saturation),
    "flip": Change(_flip, spatial=True, per_axis=True),
    "rotate90": Change(_rotate90, spatial=True),
    "translation": Change(_translation, spatial=True, per_axis=True),
    "translation_edge": Change(partial(_translation, edge=True), spatial=True, per_axis=True),
    "cutout": Change(_cutout, spatial=True, per_axis=True),
}
