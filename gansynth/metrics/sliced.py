"""Sliced Wasserstein distance of patches at several scales: is the texture the real one?

Karras et al. 2018 (PGGAN, arXiv:1710.10196, sec. 5): 7 x 7 patches of a Laplacian pyramid, each
channel in its deviations, are projected on random directions; on each the 1-Wasserstein distance is
the mean difference of what is sorted. Volumes are looked at in slices across their axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.metrics.comparison import Halved, Image
from gansynth.metrics.estimate import Better, Floats, Indices
from gansynth.metrics.features import pictures
from gansynth.metrics.sides import Sides

PATCH, PATCHES, DIRECTIONS = 7, 24, 64
"""Edge of a patch, patches of a slice, and directions."""
SMALLEST = 16
"""Least edge in pixels of a level."""


class Projected:
    """Patches on random directions.

    Args:
        levels: name of a level -> float32 (N, patches, DIRECTIONS).
    """

    def __init__(self, levels: Mapping[str, Floats]) -> None:
        self.levels = dict(levels)

    def __getitem__(self, index: Indices) -> Projected:
        return Projected({name: rows[index] for name, rows in self.levels.items()})


class SlicedWasserstein(Halved):
    """``sliced-wasserstein``: by level, fine to coarse, and their mean."""

    title = "Sliced Wasserstein distance (SWD)"

    def prepare(self, images: Sequence[Image], sides: Sides) -> Projected:
        """Patches of every slice, in deviations of the real ones', projected."""
        real = sides.once("real patches", lambda: self._patches(sides.real, sides))
        mine = real if images is sides.real else self._patches(images, sides)
        channels = len(sides.schema.channels)
        return Projected(
            {
                name: _projected(rows, real[name], channels, sides.seed)
                for name, rows in mine.items()
            }
        )

    def _patches(self, images: Sequence[Image], sides: Sides) -> dict[str, Tensor]:
        """Name of a level -> float32 (N, patches, C * PATCH * PATCH)."""
        levels: dict[str, list[Tensor]] = {}
        for axis, plane in enumerate(pictures([i.image for i in images], sides.window)):
            rng = np.random.default_rng((sides.seed, axis))
            for level, picture in enumerate(pyramid(plane.flatten(0, 1))):
                rows = cut_patches(picture, rng).reshape(len(images), -1, plane.shape[2] * PATCH**2)
                levels.setdefault(f"level {level + 1}", []).append(rows)
        # An axis too short for a level is looked at on the others.
        return {name: torch.cat(rows, 1) for name, rows in levels.items()}

    def compare(self, one: Projected, other: Projected, sides: Sides) -> Mapping[str, float]:
        """Distances by level."""
        found = {
            name: sliced_wasserstein(_flat(rows), _flat(other.levels[name]))
            for name, rows in one.levels.items()
        }
        return {"mean": float(np.mean(list(found.values()))), **found}

    def told(self, name: str) -> tuple[str, Better]:
        """At which scale."""
        scale = {"mean": "mean of all levels", "level 1": "level 1, the finest"}.get(name, name)
        return f"distance of 7 x 7 patches of a Laplacian pyramid, in deviations; {scale}", "lower"


def pyramid(pictures: Tensor) -> list[Tensor]:
    """Laplacian pyramid of pictures (N, C, H, W): differences of scales, and the coarsest picture.

    Scales are halved while both edges stay at or above ``SMALLEST``.
    """
    levels = []
    while min(pictures.shape[-2:]) >= 2 * SMALLEST:
        small = F.avg_pool2d(pictures, 2)
        large = F.interpolate(small, pictures.shape[-2:], mode="bilinear", align_corners=False)
        levels.append(pictures - large)
        pictures = small
    return [*levels, pictures]


def cut_patches(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Patches at random places of pictures (N, C, H, W), repeated at their edges if too small.

    Returns:
        (N, PATCHES, C * PATCH * PATCH).
    """
    short = [max(0, PATCH - n) for n in pictures.shape[-2:]]
    wide = F.pad(pictures, (0, short[1], 0, short[0]), mode="replicate") if any(short) else pictures
    views = wide.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    rows = torch.arange(len(views))[:, None].expand(-1, PATCHES)
    tops, lefts = (
        torch.from_numpy(rng.integers(n, size=(len(views), PATCHES))) for n in views.shape[2:4]
    )
    return views[rows, :, tops, lefts].flatten(2)


def _projected(rows: Tensor, real: Tensor, channels: int, seed: int) -> Floats:
    """Patches (N, P, C * PATCH * PATCH) on random directions, in deviations of real ones."""
    shaped = real.reshape(-1, channels, PATCH**2)
    mean, deviation = (f((0, 2), keepdim=True) for f in (shaped.mean, shaped.std))
    unit = (rows.reshape(-1, channels, PATCH**2) - mean) / deviation.clamp(min=1e-6)
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(channels * PATCH**2, DIRECTIONS, generator=rng)
    directions /= directions.norm(dim=0)
    on = (unit.flatten(1) @ directions).reshape(*rows.shape[:2], DIRECTIONS)
    return on.double().numpy()


def sliced_wasserstein(one: Floats, other: Floats) -> float:
    """Mean over directions of the 1-Wasserstein distance of projections (N, D) and (N, D)."""
    return float(np.abs(np.sort(one, axis=0) - np.sort(other, axis=0)).mean())


def _flat(rows: Floats) -> Floats:
    return rows.reshape(-1, rows.shape[-1])


sliced_metric = SlicedWasserstein()
