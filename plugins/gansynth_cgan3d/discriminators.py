"""Discriminators: one of the whole crop, one of a window around the lesion.

Iizuka et al. 2017 (ACM Transactions on Graphics 36(4), sec. 3.3). Here each is a PatchGAN with its
own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gansynth_cgan3d.lesion import centroid

Pair = tuple[Tensor, Tensor]  # a generated or real image and its condition


@dataclass(frozen=True)
class Discriminator:
    """One discriminator and its ``view`` of a pair: image (B, C, ...), condition (B, K, ...)."""

    name: str
    prefix: str
    weight: float
    net: nn.Module
    view: Callable[[Pair], Pair]

    def __call__(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits per head, and features, of pairs that ``view`` has cut."""
        outputs: tuple[list[Tensor], list[Tensor]] = self.net(torch.cat((image, condition), 1))
        return outputs


def whole(pair: Pair) -> Pair:
    """Return the pair unchanged: the view of the global discriminator."""
    return pair


@dataclass(frozen=True)
class LesionWindow:
    """A window of ``edge`` voxels around the lesion in ``channels`` of the condition."""

    channels: tuple[int, ...]
    edge: int

    def __call__(self, pair: Pair) -> Pair:
        """Return the windows of a pair; a crop without a lesion is cut at its centre."""
        image, condition = pair
        mask = condition[:, list(self.channels)].amax(1, keepdim=True) > 0.5
        size = [min(self.edge, n) for n in image.shape[2:]]
        at = corners(mask, size)
        return windows(image, at, size), windows(condition, at, size)


def corners(mask: Tensor, size: Sequence[int]) -> list[list[int]]:
    """Return first voxels of windows around masks, bool (B, 1, ...), moved into the crop."""
    firsts = []
    for axis, edge in enumerate(size):
        middle = centroid(mask[:, 0], axis)
        first = (middle - (edge - 1) / 2).round().long()
        firsts.append(first.clamp(0, mask.shape[axis + 2] - edge))
    corner: list[list[int]] = torch.stack(firsts, 1).tolist()
    return corner


def windows(x: Tensor, at: Sequence[Sequence[int]], size: Sequence[int]) -> Tensor:
    """Cut a window out of each sample: (B, K, ...) -> (B, K, *size)."""
    cut = []
    for sample, corner in zip(x, at, strict=True):
        box: Any = (slice(None), *(slice(c, c + n) for c, n in zip(corner, size, strict=True)))
        cut.append(sample[box])
    return torch.stack(cut)
