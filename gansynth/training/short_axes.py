"""Full precision for convolutions along short axes on a CPU, where bfloat16's gradients are wrong.

oneDNN (with torch 2.13, on CPUs with AVX-512 BF16) adds memory that nobody wrote to the gradient
of a weight where an axis is shorter than the kernel: NaN in some runs, random numbers in others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *TRANSPOSED)


@contextmanager
def exact_on_short_axes(nets: Iterable[nn.Module]) -> Iterator[None]:
    """Let convolutions leave autocast on a CPU where an axis is shorter than their kernel."""
    layers = [m for net in nets for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    hooks = [layer.register_forward_pre_hook(_leave_autocast) for layer in layers]
    hooks += [layer.register_forward_hook(_return, always_call=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _leave_autocast(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    layer.left = torch.is_autocast_enabled("cpu") and _is_short(layer, inputs[0])
    if not layer.left:
        return None
    torch.set_autocast_enabled("cpu", False)
    return (inputs[0].float(), *inputs[1:])


def _return(layer: Any, *_: object) -> None:
    if layer.left:
        torch.set_autocast_enabled("cpu", True)


def _is_short(layer: Any, x: Tensor) -> bool:
    if x.device.type != "cpu":
        return False
    edges, transposed = x.shape[2:], isinstance(layer, TRANSPOSED)
    if transposed:  # a convolution of its result has the same gradient
        along = zip(edges, layer.stride, layer.padding, strict=True)
        return any((n - 1) * stride < 2 * padding for n, stride, padding in along)
    axes = zip(edges, layer.kernel_size, layer.dilation, strict=True)
    return any(n <= dilation * (kernel - 1) for n, kernel, dilation in axes)
