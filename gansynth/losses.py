"""Losses that generator plugins share. Every function returns a scalar tensor.

Sources: least squares, Mao et al. 2017 (arXiv:1611.04076, eq. 9); feature matching, Wang et al.
2018 (pix2pixHD, arXiv:1711.11585, eq. 4); L1, Isola et al. 2017 (pix2pix, arXiv:1611.07004, eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def lsgan_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least squares with the discriminator's one half, averaged over heads.

    Args:
        real: logits of real pairs, one tensor (B, 1, ...) per head.
        fake: logits of synthetic pairs, likewise.
    """
    terms = [
        0.5 * ((r.float() - 1).square().mean() + f.float().square().mean())
        for r, f in zip(real, fake, strict=True)
    ]
    return _mean(terms)


def lsgan_generator(fake: Sequence[Tensor]) -> Tensor:
    """Least squares towards "real", averaged over heads."""
    return _mean([(f.float() - 1).square().mean() for f in fake])


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """L1 between discriminator features of real and synthetic pairs, averaged over layers."""
    return _mean(
        [F.l1_loss(f.float(), r.detach().float()) for r, f in zip(real, fake, strict=True)]
    )


def l1(fake: Tensor, real: Tensor, *, lowpass: int = 1, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, optionally of low-passed images.

    With a low-pass, the loss speaks for contrast and shading only and leaves the grain, which no
    label map predicts, to the adversarial term.

    Args:
        fake: (B, C, D, H, W) or (B, C, H, W).
        real: likewise.
        lowpass: edge in voxels of the averaging window; 1 compares voxel by voxel.
        weight: (B, 1, ...) weights in [0, 1]; 0 leaves a voxel out.
    """
    difference = fake.float() - real.float()
    if weight is not None:
        difference = difference * weight
    if lowpass > 1:
        pool = F.avg_pool3d if fake.ndim == 5 else F.avg_pool2d
        difference = pool(difference, lowpass, stride=lowpass, ceil_mode=True)
    return difference.abs().mean()


def _mean(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total / len(terms)
