"""Latents of samples, and interpolation between them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gansynth.core.generator import TrainingStep

Prior = Literal["normal", "uniform"]


def of_step(step: TrainingStep, prior: Prior, numbers: int) -> Tensor:
    """Return the latents (B, numbers) of a training step."""
    return step.randn(numbers) if prior == "normal" else 2 * step.rand(numbers) - 1


def of_seed(rng: torch.Generator, prior: Prior, numbers: int) -> Tensor:
    """Return the next latent (numbers,), made on the CPU: equal for a seed on every device."""
    if prior == "normal":
        return torch.randn(numbers, generator=rng)
    return 2 * torch.rand(numbers, generator=rng) - 1


def between(first: Tensor, last: Tensor, share: float, prior: Prior) -> Tensor:
    """Interpolate between two latents (numbers,); shares 0 and 1 give the ends bit for bit.

    Normal latents use slerp (White 2016, arXiv:1609.04468), uniform latents a straight line.
    """
    if share in (0.0, 1.0):
        return last if share else first
    if prior == "uniform":
        return torch.lerp(first, last, share)
    a, b = first.double(), last.double()
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-6:  # parallel or opposite directions have no unique arc
        return torch.lerp(first, last, share)
    arc = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    return (arc / angle.sin()).float()
