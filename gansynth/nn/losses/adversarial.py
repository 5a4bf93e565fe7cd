"""What the two players of a GAN minimise.

Logits come as one tensor (B, ...) per discriminator head, without a sigmoid; a head's logits are
averaged, then the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Heads = Sequence[Tensor]
"""Logits (B, ...), one tensor per discriminator head."""


def nonsaturating_discriminator(real: Heads, fake: Heads) -> Tensor:
    """-log D(x) - log(1 - D(G(z))): Goodfellow et al. 2014 (arXiv:1406.2661, eq. 1)."""
    return _heads(lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), real, fake)


def nonsaturating_generator(fake: Heads) -> Tensor:
    """-log D(G(z)), whose gradient lasts: Goodfellow et al. 2014 (arXiv:1406.2661, sec. 3)."""
    return _heads(lambda f: F.softplus(-f).mean(), fake)


def lsgan_discriminator(real: Heads, fake: Heads) -> Tensor:
    """Least squares, 1 and 0, with a half: Mao et al. 2017 (arXiv:1611.04076, eq. 9)."""
    return _heads(
        lambda r, f: 0.5 * ((r - 1).square().mean() + f.square().mean()),
        real,
        fake,
    )


def lsgan_generator(fake: Heads) -> Tensor:
    """Least squares towards "real": Mao et al. 2017 (arXiv:1611.04076, eq. 9), without its half."""
    return _heads(lambda f: (f - 1).square().mean(), fake)


def hinge_discriminator(real: Heads, fake: Heads) -> Tensor:
    """Hinge: Lim & Ye 2017 (arXiv:1705.02894); Miyato et al. 2018 (arXiv:1802.05957, eq. 16)."""
    return _heads(lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), real, fake)


def hinge_generator(fake: Heads) -> Tensor:
    """The hinge's generator, -D(G(z)): Miyato et al. 2018 (arXiv:1802.05957, eq. 17)."""
    return _heads(lambda f: -f.mean(), fake)


def wgan_critic(real: Heads, fake: Heads) -> Tensor:
    """Minus the estimated Wasserstein distance: Arjovsky et al. 2017 (arXiv:1701.07875, eq. 3).

    It means something only while the critic is Lipschitz: ``clip_weights``, ``gradient_penalty``.
    """
    return _heads(lambda r, f: f.mean() - r.mean(), real, fake)


def wgan_generator(fake: Heads) -> Tensor:
    """Minus the critic's value: Arjovsky et al. 2017 (arXiv:1701.07875, algorithm 1)."""
    return _heads(lambda f: -f.mean(), fake)


@dataclass(frozen=True)
class Adversarial:
    """The losses of both players.

    ``midpoint``: logit halfway between what it calls real and synthetic; None where the origin
    means nothing.
    """

    discriminator: Callable[[Heads, Heads], Tensor]
    generator: Callable[[Heads], Tensor]
    midpoint: float | None


AdversarialName = Literal["nonsaturating", "lsgan", "hinge", "wgan"]
"""For a plugin's option; the keys of ``ADVERSARIAL``."""

ADVERSARIAL: Mapping[AdversarialName, Adversarial] = {
    "nonsaturating": Adversarial(nonsaturating_discriminator, nonsaturating_generator, 0.0),
    "lsgan": Adversarial(lsgan_discriminator, lsgan_generator, 0.5),
    "hinge": Adversarial(hinge_discriminator, hinge_generator, 0.0),
    "wgan": Adversarial(wgan_critic, wgan_generator, None),
}


def _heads(loss: Callable[..., Tensor], *players: Heads) -> Tensor:
    """Mean over heads of a loss of one head's logits in full precision."""
    return torch.stack(
        [loss(*(logits.float() for logits in head)) for head in zip(*players, strict=True)]
    ).mean()
