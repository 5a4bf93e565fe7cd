"""Usual augmentation: rotation, translation, elastic deformation and mirroring in one warp.

Shin et al. 2018 (table 1) train with and without it, beside random crops. Image (linear) and label
map (nearest) get the same warp. Beyond the border lie the space's padding values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth import FloatArray, LabelArray
from gansynth_segmenter.options import SegmenterOptions

CONTROL = 16  # voxels between the points whose elastic displacements are drawn


@dataclass(frozen=True)
class AugmentationWarp:
    """Ranges of the random warp."""

    rotate: float  # most degrees about each axis
    shift: float  # most shift, as a share of each axis
    elastic: float  # deviation of displacements at control points, voxels
    flip: bool  # mirror the last axis of half of the samples
    spacing: tuple[float, ...]  # mm per voxel; rotations are in mm
    fill: tuple[float, ...]  # value of each channel beyond the border
    pad_label: int  # label beyond the border

    @classmethod
    def of(
        cls,
        options: SegmenterOptions,
        spacing: Sequence[float],
        fill: Sequence[float],
        pad_label: int,
    ) -> AugmentationWarp | None:
        """Return the warp of the settings, or None without augmentation."""
        if not (options.rotate or options.shift or options.elastic or options.flip):
            return None
        how = options.rotate, options.shift, options.elastic, options.flip
        return cls(*how, tuple(spacing), tuple(fill), pad_label)

    def __call__(
        self, image: FloatArray, labels: LabelArray, rng: np.random.Generator
    ) -> tuple[FloatArray, LabelArray]:
        """Warp an image (C, D, H, W) or (C, H, W) and its labels into new arrays."""
        grid = self._grid(labels.shape, rng)
        fill = torch.tensor(self.fill).view(-1, *[1] * labels.ndim)
        moved = _sampled(torch.from_numpy(image) - fill, grid, "bilinear") + fill
        drawn = torch.from_numpy(labels.astype(np.float32))[None] - self.pad_label
        drawn = _sampled(drawn, grid, "nearest")[0] + self.pad_label
        return moved.numpy(), drawn.round().numpy().astype(np.int16)

    def _grid(self, size: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Return the sampling position of each voxel, in voxels: float32 (axes, *size)."""
        axes = len(size)
        middle = np.array([(n - 1) / 2 for n in size])
        turn = rotation(rng.uniform(-self.rotate, self.rotate, 3 if axes == 3 else 1), axes)
        mm = np.array(self.spacing)
        matrix = turn * mm[None, :] / mm[:, None]  # in voxels: out of mm, turned, back
        offset = rng.uniform(-self.shift, self.shift, axes) * np.array(size)
        mirrored = self.flip and rng.random() < 0.5
        at = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
        places = torch.stack(at).float()
        if mirrored:
            places[-1] = -places[-1]
        voxels = torch.einsum("ij,j...->i...", torch.from_numpy(matrix).float(), places)
        voxels = voxels + torch.from_numpy(middle + offset).float().view(-1, *[1] * axes)
        return voxels if not self.elastic else voxels + self._displaced(size, rng)

    def _displaced(self, size: Sequence[int], rng: np.random.Generator) -> Tensor:
        points = [math.ceil(n / CONTROL) + 1 for n in size]
        drawn = rng.normal(0, self.elastic, (1, len(size), *points)).astype(np.float32)
        mode = "trilinear" if len(size) == 3 else "bilinear"
        smooth = F.interpolate(
            torch.from_numpy(drawn), size=tuple(size), mode=mode, align_corners=True
        )
        return smooth[0]


def rotation(degrees: npt.NDArray[np.float64], axes: int) -> npt.NDArray[np.float64]:
    """Return the rotation matrix (axes, axes) about each of three axes in turn, or in the plane."""
    whole = np.eye(axes)
    planes = [(1, 2), (0, 2), (0, 1)] if axes == 3 else [(0, 1)]
    for (first, second), angle in zip(planes, np.deg2rad(degrees), strict=True):
        turn = np.eye(axes)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        whole = whole @ turn
    return whole


def _sampled(x: Tensor, voxels: Tensor, mode: str) -> Tensor:
    """Sample (C, *size) at voxels (axes, *size), 0 beyond the border."""
    sizes = torch.tensor(x.shape[1:], dtype=torch.float32).view(-1, *[1] * (x.ndim - 1))
    unit = (2 * voxels + 1) / sizes - 1
    grid = unit.flip(0).movedim(0, -1)[None]  # grid_sample names axes from the last one on
    return F.grid_sample(x[None].float(), grid, mode, "zeros", align_corners=False)[0]
