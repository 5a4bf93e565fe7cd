"""Instance normalisation and leaky ReLU in one function that stores its output only.

Both are invertible, so the input is computed from the output (Rota Bulo et al. 2018, "In-place
activated batch norm", sec. 3). Activations are held once instead of twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VECTOR = 16
STEEPEST = 8.0
"""Most shift per scale of a channel: beyond it the input cannot be recovered precisely."""


def norm_leaky_relu(x: Tensor, norm: nn.Module, slope: float) -> Tensor:
    """Normalise (B, C, ...) and apply a leaky ReLU; stores less for ``InstanceNorm``."""
    if _lean(x, norm):
        made: Tensor = _NormLeakyReLU.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, norm.eps, slope
        )
        return made
    if torch.is_grad_enabled() and isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d):
        # As ``norm`` itself, but for the view that it ends with: autograd would copy it before the
        # ReLU overwrites it.
        samples, channels = x.shape[:2]
        flat = x.reshape(1, samples * channels, *x.shape[2:])
        scale, shift = [None if t is None else t.repeat(samples) for t in (norm.weight, norm.bias)]
        normal = F.batch_norm(flat, None, None, scale, shift, True, 0.0, norm.eps)
        return F.leaky_relu(normal, slope, inplace=True).view(x.shape)
    return F.leaky_relu(norm(x), slope, inplace=True)


def _lean(x: Tensor, norm: nn.Module) -> bool:
    """Return whether the lean version is possible and useful; only on the CPU.

    Without gradients it stores nothing either way, but leaves channels where they lie.
    """
    on_cpu = x.device.type == "cpu" and type(x) is Tensor
    if not on_cpu or (torch.is_grad_enabled() and not x.requires_grad):
        return False
    if "forward" in vars(norm):  # replaced: it has the statistics of a volume's other tiles
        return False
    if not isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d) or norm.weight is None:
        return False
    # The kernels for channels-last arrays need whole vectors of channels.
    if not x.is_contiguous() and x.shape[1] % VECTOR:
        return False
    return bool((norm.bias.abs() <= STEEPEST * norm.weight.abs()).all())


class _NormLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float
    ) -> Tensor:
        made, rstd = torch.empty_like(x), []
        # For one sample this is batch normalisation, whose kernels take channels-last arrays;
        # instance normalisation would copy them there and back.
        for sample, out in zip(torch.split(x, 1), torch.split(made, 1), strict=True):
            normal, _, deviation = torch.native_batch_norm(
                sample, weight, bias, None, None, True, 0.0, eps
            )
            torch.ops.aten.leaky_relu.out(normal, slope, out=out)
            rstd.append(deviation)
        ctx.save_for_backward(made, weight, bias, *rstd)
        ctx.eps, ctx.slope = eps, slope
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        made, weight, bias, *rstd = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradient, made, ctx.slope, True)
        gradients = []
        for part, of, deviation in zip(
            torch.split(gradient, 1), torch.split(made, 1), rstd, strict=True
        ):
            affine = F.leaky_relu(of, 1 / ctx.slope)  # scale * normalised + shift
            # normalised = (affine - shift) / scale: for the kernel, a mean of ``shift`` and a
            # deviation of ``scale``. It multiplies by 1 / scale, but rstd * scale is needed.
            factor = deviation * weight * weight
            gradients.append(
                torch.ops.aten.native_batch_norm_backward(
                    part, affine, factor, None, None, bias, 1 / weight, True, ctx.eps, [True] * 3
                )
            )
        images, scales, shifts = zip(*gradients, strict=True)
        image = images[0] if len(images) == 1 else torch.cat(images)
        return image, torch.stack(scales).sum(0), torch.stack(shifts).sum(0), None, None
