"""What keeps a discriminator smooth or small.

A sample's value is the mean over its logits and heads, the same that the adversarial losses
average, so that a penalty speaks of the very function that is being trained.
"""

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

    Gulrajani et al. 2017 (WGAN-GP, arXiv:1704.00028, eq. 3), without its weight (10 there).
    Computed in float32 even under autocast: second derivatives do not survive half precision. The
    critic must not mix samples (no batch normalisation).

    ``real``: images (B, C, ...). ``eps``: share of the real image, uniform in [0, 1), (B, 1, ...):
    ``step.rand(1, 1, 1)`` in 2D, drawn by the caller so that a sample meets the same one however a
    batch is shared out.
    """
    with torch.autocast(real.device.type, enabled=False):
        mixed = torch.lerp(fake.detach().float(), real.detach().float(), eps).requires_grad_()
        (gradient,) = torch.autograd.grad(_values(critic(mixed)).sum(), mixed, create_graph=True)
        norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norm - 1).square().mean()


def r1(images: Tensor, logits: Logits) -> Tensor:
    """Half the mean squared gradient norm at real images, |∇D(x)|² / 2.

    Mescheder et al. 2018 (arXiv:1801.04406, eq. 9), without its weight γ. It grows with the number
    of voxels, as theirs does. Under fp16, compute the logits with autocast off.

    ``images``: real images (B, C, ...) that require a gradient
    (``image.detach().requires_grad_()``).
    """
    (gradient,) = torch.autograd.grad(_values(logits).sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def drift(real: Logits) -> Tensor:
    """Mean square of a critic's values of real samples: keeps their origin from drifting away.

    Karras et al. 2018 (PGGAN, arXiv:1710.10196, appendix A.1), without its weight (0.001 there).
    """
    heads = [real] if isinstance(real, Tensor) else real
    return torch.stack([head.float().square().mean() for head in heads]).mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Clip a critic's parameters, not its buffers, to [-limit, limit] in place.

    Arjovsky et al. 2017 (WGAN, arXiv:1701.07875, algorithm 1; limit 0.01 there): for a ``Phase``'s
    ``after``.
    """
    for parameter in module.parameters():
        parameter.clamp_(-limit, limit)


def _values(logits: Logits) -> Tensor:
    """A sample's value (B,): the mean over its logits, then over heads."""
    heads = [logits] if isinstance(logits, Tensor) else logits
    return torch.stack([h.float().reshape(len(h), -1).mean(1) for h in heads]).mean(0)
