"""The noise that samples are drawn from, and the ways between two points of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gansynth.core.generator import Step

Prior = Literal["normal", "uniform"]


def of_step(step: Step, prior: Prior, numbers: int) -> Tensor:
    """Latents (B, numbers) of a training step."""
    return step.randn(numbers) if prior == "normal" else 2 * step.rand(numbers) - 1


def of_seed(rng: torch.Generator, prior: Prior, numbers: int) -> Tensor:
    """The next latent (numbers,) of a generator on the CPU: a seed is the same on every device."""
    if prior == "normal":
        return torch.randn(numbers, generator=rng)
    return 2 * torch.rand(numbers, generator=rng) - 1


def between(first: Tensor, last: Tensor, share: float, prior: Prior) -> Tensor:
    """A latent between two, (numbers,); shares 0 and 1 give the ends to the bit.

    Normal ones keep to a sphere (White 2016, arXiv:1609.04468); uniform ones take a straight way.
    """
    if share in (0.0, 1.0):
        return last if share else first
    if prior == "uniform":
        return torch.lerp(first, last, share)
    a, b = first.double(), last.double()
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-6:  # the same direction, or the opposite one: there is no arc
        return torch.lerp(first, last, share)
    arc = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    return (arc / angle.sin()).float()
