"""The noise that samples are drawn from, and the way between two points of it."""

from __future__ import annotations

import torch
from torch import Tensor


def of_seed(rng: torch.Generator, numbers: int) -> Tensor:
    """The next latent (numbers,) of a generator on the CPU: a seed is the same on every device."""
    return torch.randn(numbers, generator=rng)


def between(first: Tensor, last: Tensor, share: float) -> Tensor:
    """A latent on the way from one to another, along the great circle between their directions.

    The painter heeds a latent's direction alone.

    Args:
        first: (numbers,); what share 0 gives, to the bit.
        last: likewise, share 1.
        share: of the way, 0 to 1.
    """
    if share in (0.0, 1.0):
        return last if share else first
    a, b = (v.double() / v.double().norm() for v in (first, last))
    angle = torch.acos((a @ b).clamp(-1, 1))
    if angle.sin() < 1e-6:  # the same direction, or the opposite one: there is no arc
        return torch.lerp(first, last, share)
    arc = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    found: Tensor = (arc / angle.sin()).float()
    return found
