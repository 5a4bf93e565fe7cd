"""What keeps a discriminator smooth or small; logits and heads are averaged per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Logits = Tensor | Sequence[Tensor]
"""What a discriminator answers: (B, ...), or one such tensor per head."""


def gradient_penalty(
    critic: Callable[[Tensor], Logits], real: Tensor, fake: Tensor, eps: Tensor
) -> Tensor:
    """Mean squared distance from 1 of the critic's gradient norm between real and synthetic.

    Gulrajani et al. 2017 (WGAN-GP, arXiv:1704.00028, eq. 3), without its weight (10 there), in
    float32 even under autocast. The critic must not mix samples. ``eps``: share of the real image
    (B, 1, ...), drawn by the caller, ``step.rand(1, 1, 1)`` in 2D.
    """
    with torch.autocast(real.device.type, enabled=False):
        mixed = torch.lerp(fake.detach().float(), real.detach().float(), eps).requires_grad_()
        (gradient,) = torch.autograd.grad(_values(critic(mixed)).sum(), mixed, create_graph=True)
        norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norm - 1).square().mean()


def r1(images: Tensor, logits: Logits) -> Tensor:
    """Half the mean squared gradient norm at real images, |∇D(x)|² / 2.

    Mescheder et al. 2018 (arXiv:1801.04406, eq. 9), without its weight γ. Under fp16, compute the
    logits with autocast off. ``images``: (B, C, ...), that require a gradient.
    """
    (gradient,) = torch.autograd.grad(_values(logits).sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def drift(real: Logits) -> Tensor:
    """Mean square of a critic's values of real samples: Karras et al. 2018, app. A.1 (0.001)."""
    heads = [real] if isinstance(real, Tensor) else real
    return torch.stack([head.float().square().mean() for head in heads]).mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clip a critic's parameters, not its buffers, to [-limit, limit] in place.

    Arjovsky et al. 2017 (WGAN, arXiv:1701.07875, algorithm 1; limit 0.01): for a ``Phase``'s
    ``after``.
    """
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


def _values(logits: Logits) -> Tensor:
    """A sample's value (B,): the mean over its logits, then over heads."""
    heads = [logits] if isinstance(logits, Tensor) else logits
    return torch.stack([h.float().reshape(len(h), -1).mean(1) for h in heads]).mean(0)
