"""Losses that generator plugins share: adversarial terms, penalties, differences.

Each is a scalar float32 mean over samples, without a weight. Logits are one tensor (B, ...) per
discriminator head, without a sigmoid. Logits are averaged within a head, then over heads.

Public as a whole: docs/plugin_generators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.convolution import input_gradients_alone

Heads = Sequence[Tensor]  # logits (B, ...), one tensor per discriminator head
SMOOTH = 1.0
"""Voxels added to numerator and denominator of soft Dice, so that absent labels have one too."""


def nonsaturating_discriminator(real: Heads, fake: Heads) -> Tensor:
    """Return -log D(x) - log(1 - D(G(z))): Goodfellow et al. 2014 (arXiv:1406.2661, eq. 1)."""
    return _mean_over_heads(lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), real, fake)


def nonsaturating_generator(fake: Heads) -> Tensor:
    """Return -log D(G(z)): Goodfellow et al. 2014 (arXiv:1406.2661, sec. 3)."""
    return _mean_over_heads(lambda f: F.softplus(-f).mean(), fake)


def lsgan_discriminator(real: Heads, fake: Heads) -> Tensor:
    """Return half the least squares to 1 and 0: Mao et al. 2017 (arXiv:1611.04076, eq. 9)."""
    one, zero = _target(real, 1.0), _target(fake, 0.0)
    return 0.5 * _mean_over_heads(
        lambda r, f: _mean_square(r, one) + _mean_square(f, zero), real, fake
    )


def lsgan_generator(fake: Heads) -> Tensor:
    """Return least squares to "real": Mao et al. 2017 (arXiv:1611.04076, eq. 9), without 1/2."""
    one = _target(fake, 1.0)
    return _mean_over_heads(lambda f: _mean_square(f, one), fake)


def _target(heads: Heads, value: float) -> Tensor:
    return torch.full((), value, device=heads[0].device)


def _mean_square(logits: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(logits, target.expand_as(logits))


def hinge_discriminator(real: Heads, fake: Heads) -> Tensor:
    """Hinge loss: Lim & Ye 2017 (arXiv:1705.02894), Miyato et al. 2018 (1802.05957, eq. 16)."""
    return _mean_over_heads(lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), real, fake)


def hinge_generator(fake: Heads) -> Tensor:
    """Return -D(G(z)), for the hinge loss: Miyato et al. 2018 (arXiv:1802.05957, eq. 17)."""
    return _mean_over_heads(lambda f: -f.mean(), fake)


def wgan_critic(real: Heads, fake: Heads) -> Tensor:
    """Return minus the Wasserstein distance (Arjovsky et al. 2017, arXiv:1701.07875)."""
    return _mean_over_heads(lambda r, f: f.mean() - r.mean(), real, fake)


def wgan_generator(fake: Heads) -> Tensor:
    """Return minus the critic's value: Arjovsky et al. 2017 (arXiv:1701.07875, algorithm 1)."""
    return _mean_over_heads(lambda f: -f.mean(), fake)


@dataclass(frozen=True)
class Adversarial:
    """Losses of both players; ``midpoint``: logit between real and synthetic, if any."""

    discriminator: Callable[[Heads, Heads], Tensor]
    generator: Callable[[Heads], Tensor]
    midpoint: float | None

    @property
    def chance(self) -> float | None:
        """The discriminator's loss if it cannot tell real from synthetic; None: any."""
        if self.midpoint is None:
            return None
        logits = [torch.tensor([self.midpoint])]
        return float(self.discriminator(logits, logits))


AdversarialName = Literal["nonsaturating", "lsgan", "hinge", "wgan"]
"""Keys of ``ADVERSARIAL``, for a plugin's option."""

ADVERSARIAL: Mapping[AdversarialName, Adversarial] = {
    "nonsaturating": Adversarial(nonsaturating_discriminator, nonsaturating_generator, 0.0),
    "lsgan": Adversarial(lsgan_discriminator, lsgan_generator, 0.5),
    "hinge": Adversarial(hinge_discriminator, hinge_generator, 0.0),
    "wgan": Adversarial(wgan_critic, wgan_generator, None),
}


def _mean_over_heads(loss: Callable[..., Tensor], *players: Heads) -> Tensor:
    """Return the mean over heads of a loss of one head, in full precision."""
    of_heads = []
    for head in zip(*players, strict=True):
        of_heads.append(loss(*[logits.float() for logits in head]))
    return torch.stack(of_heads).mean()


Logits = Tensor | Sequence[Tensor]
"""Output of a discriminator: (B, ...), or one such tensor per head."""


def gradient_penalty(
    critic: Callable[[Tensor], Logits], real: Tensor, fake: Tensor, eps: Tensor
) -> Tensor:
    """Return the gradient penalty: mean (|∇D| - 1)² between real and synthetic images.

    Gulrajani et al. 2017 (WGAN-GP, arXiv:1704.00028, eq. 3), without its weight (10 there), in
    float32 even under autocast. The critic must not mix samples. ``eps``: random share of the real
    image (B, 1, ...), ``step.rand(1, 1, 1)`` in 2D.
    """
    with torch.autocast(real.device.type, enabled=False):
        mixed = torch.lerp(fake.detach().float(), real.detach().float(), eps).requires_grad_()
        value = _value_of_each_sample(critic(mixed)).sum()
        with input_gradients_alone():
            (gradient,) = torch.autograd.grad(value, mixed, create_graph=True)
        norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norm - 1).square().mean()


def drift(real: Logits) -> Tensor:
    """Return the mean square of a critic's real values: Karras et al. 2018, app. A.1 (0.001)."""
    heads = [real] if isinstance(real, Tensor) else real
    return torch.stack([head.float().square().mean() for head in heads]).mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clip a critic's parameters in place: WGAN, arXiv:1701.07875, algorithm 1 (0.01)."""
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


def _value_of_each_sample(logits: Logits) -> Tensor:
    """Return the value of each sample (B,): the mean over its logits, then over heads."""
    heads = [logits] if isinstance(logits, Tensor) else logits
    return torch.stack([h.float().reshape(len(h), -1).mean(1) for h in heads]).mean(0)


def l1(fake: Tensor, real: Tensor, *, lowpass: int = 1, weight: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference: Isola et al. 2017 (pix2pix, arXiv:1611.07004, eq. 3).

    ``lowpass``: edge in voxels of an averaging window, so that texture is left to the adversarial
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
    """Return the mean absolute difference inside a mask (B, 1, ...); 0 for an empty mask."""
    inside = mask.float()
    difference = (fake.float() - real.float()) * inside
    if lowpass > 1:
        pool = F.avg_pool3d if fake.ndim == 5 else F.avg_pool2d
        difference = pool(difference, lowpass, stride=lowpass, ceil_mode=True)
        inside = pool(inside, lowpass, stride=lowpass, ceil_mode=True)
    difference = difference.abs().mean(1, keepdim=True)
    volume = inside.flatten(1).sum(1)
    return (difference.flatten(1).sum(1) / volume.clamp_min(1e-6)).mean()


def soft_dice(predicted: Tensor, target: Tensor) -> Tensor:
    """Return 1 - the mean Dice over labels: Milletari et al. 2016 (arXiv:1606.04797, sec. 3).

    A label counts alike whether it fills a half of the voxels or a hundredth. ``predicted``: label
    probabilities (B, labels, ...), ``target``: one-hot, the same shape.
    """
    axes = (0, *range(2, predicted.ndim))
    both, sizes = (predicted * target).sum(axes), predicted.sum(axes) + target.sum(axes)
    return 1 - ((2 * both + SMOOTH) / (sizes + SMOOTH)).mean()


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the L1 of discriminator features: Wang et al. 2018 (arXiv:1711.11585, eq. 4)."""
    # Differences of half precision have the same signs, in half the memory.
    differences = [f - r.detach() for r, f in zip(real, fake, strict=True)]
    return torch.stack([_mean_absolute(d) for d in differences]).mean()


def _mean_absolute(x: Tensor) -> Tensor:
    """Return the mean absolute value, float32; unlike ``mean``'s, its gradient is ordered as x."""
    size: Tensor = torch.linalg.vector_norm(x, 1, dtype=torch.float32) / x.numel()
    return size


def perceptual(
    features: Callable[[Tensor], Sequence[Tensor]],
    fake: Tensor,
    real: Tensor,
    *,
    weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the perceptual loss: L1 between features of synthetic and real images.

    Johnson et al. 2016 (arXiv:1603.08155, eq. 2), with an L1 as in pix2pixHD. The network must have
    been trained on the fold's training cases only, be frozen, and not mix samples. ``weights``: of
    each layer; None averages. ``mask``: bool (B, 1, ...), where both images are compared. Coarse
    voxels count if they lie in the mask as a whole.
    """
    with torch.no_grad():
        expected = features(real.detach())
    pairs = zip(expected, features(fake), strict=True)
    if mask is None:
        terms = [_mean_absolute(f.float() - r.float()) for r, f in pairs]
    else:
        terms = [masked_l1(f, r, _shrunk_mask(mask, f.shape[2:])) for r, f in pairs]
    if weights is None:
        return torch.stack(terms).mean()
    return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()


def _shrunk_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return a mask (B, 1, ...) at a coarser size: voxels that lie inside as a whole."""
    pool = F.adaptive_max_pool3d if mask.ndim == 5 else F.adaptive_max_pool2d
    return 1 - pool((~mask).float(), tuple(size))
