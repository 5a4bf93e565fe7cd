"""How far synthetic images are from real ones: voxel by voxel, or in some network's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(fake: Tensor, real: Tensor, *, lowpass: int = 1, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference: Isola et al. 2017 (pix2pix, arXiv:1611.07004, eq. 3).

    ``lowpass``: edge in voxels of an averaging window, which leaves the grain to the adversarial
    term. ``weight``: (B, 1, ...) in [0, 1]; 0 leaves a voxel out.
    """
    difference = fake.float() - real.float()
    if weight is not None:
        difference = difference * weight
    if lowpass > 1:
        pool = F.avg_pool3d if fake.ndim == 5 else F.avg_pool2d
        difference = pool(difference, lowpass, stride=lowpass, ceil_mode=True)
    return difference.abs().mean()


def masked_l1(fake: Tensor, real: Tensor, mask: Tensor, *, lowpass: int = 1) -> Tensor:
    """Mean absolute difference inside a mask (B, 1, ...): of each sample, then over samples.

    A lesion counts alike whatever its size; a sample whose mask is empty counts 0.
    """
    inside = mask.float()
    difference = (fake.float() - real.float()) * inside
    if lowpass > 1:
        pool = F.avg_pool3d if fake.ndim == 5 else F.avg_pool2d
        difference = pool(difference, lowpass, stride=lowpass, ceil_mode=True)
        inside = pool(inside, lowpass, stride=lowpass, ceil_mode=True)
    difference = difference.abs().mean(1, keepdim=True)
    volume = inside.flatten(1).sum(1)
    return (difference.flatten(1).sum(1) / volume.clamp_min(1e-6)).mean()


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """L1 of discriminator features: Wang et al. 2018 (pix2pixHD, arXiv:1711.11585, eq. 4)."""
    return torch.stack(
        [F.l1_loss(f.float(), r.detach().float()) for r, f in zip(real, fake, strict=True)]
    ).mean()


def perceptual(
    features: Callable[[Tensor], Sequence[Tensor]],
    fake: Tensor,
    real: Tensor,
    *,
    weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """L1 between features of synthetic and real images in a network of the data's own domain.

    Johnson et al. 2016 (arXiv:1603.08155, eq. 2), with an L1 as in pix2pixHD. The network must have
    been trained on the fold's training cases and nothing else, be frozen, and not mix samples.
    ``weights``: of each layer; None averages. ``mask``: bool (B, 1, ...), where both are to look
    alike; of coarser features those that see nothing else within their voxels.
    """
    with torch.no_grad():
        expected = features(real.detach())
    pairs = zip(expected, features(fake), strict=True)
    if mask is None:
        terms = [F.l1_loss(f.float(), r.float()) for r, f in pairs]
    else:
        terms = [masked_l1(f, r, _shrunk(mask, f.shape[2:])) for r, f in pairs]
    if weights is None:
        return torch.stack(terms).mean()
    return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()


def _shrunk(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (B, 1, ...) at a coarser size: voxels of which no part is left out."""
    pool = F.adaptive_max_pool3d if mask.ndim == 5 else F.adaptive_max_pool2d
    return 1 - pool((~mask).float(), tuple(size))
