"""Losses that generator plugins share: adversarial, penalties of a discriminator, differences.

Each is a scalar float32 mean over samples, without a weight.
"""

from gansynth.nn.losses.adversarial import (
    ADVERSARIAL,
    Adversarial,
    AdversarialName,
    hinge_discriminator,
    hinge_generator,
    lsgan_discriminator,
    lsgan_generator,
    nonsaturating_discriminator,
    nonsaturating_generator,
    wgan_critic,
    wgan_generator,
)
from gansynth.nn.losses.differences import feature_matching, l1, masked_l1, perceptual
from gansynth.nn.losses.penalties import clip_weights, drift, gradient_penalty, r1

__all__ = [
    "ADVERSARIAL",
    "Adversarial",
    "AdversarialName",
    "clip_weights",
    "drift",
    "feature_matching",
    "gradient_penalty",
    "hinge_discriminator",
    "hinge_generator",
    "l1",
    "lsgan_discriminator",
    "lsgan_generator",
    "masked_l1",
    "nonsaturating_discriminator",
    "nonsaturating_generator",
    "perceptual",
    "r1",
    "wgan_critic",
    "wgan_generator",
]
