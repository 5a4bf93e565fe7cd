"""Half precision in training, by hooks: how weights are cast, and where layers stay out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *TRANSPOSED)
KINDS = (*CONVOLUTIONS, nn.Linear)
"""Layers whose weights autocast casts. Weights that are computed anew (spectral norm) are none."""


@contextmanager
def _hooked(
    hooks: Iterable[tuple[nn.Module, Callable[..., Any], Callable[..., Any]]],
) -> Iterator[None]:
    """Call functions before and after each pass of modules, also of one that fails."""
    with ExitStack() as stack:
        for module, before, after in hooks:
            stack.enter_context(module.register_forward_pre_hook(before))
            stack.enter_context(module.register_forward_hook(after, always_call=True))
        yield


# -- short axes ------------------------------------------------------------------------------------


def exact_on_short_axes(nets: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Let convolutions leave autocast on a CPU where an axis is shorter than their kernel.

    There, oneDNN's gradients in bfloat16 are wrong (with torch 2.13, on CPUs with AVX-512 BF16). It
    adds memory that nobody wrote to the gradient of a weight: NaN in some runs, random numbers in
    others.
    """
    layers = [m for net in nets for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    return _hooked([(layer, _leave_autocast, _return) for layer in layers])


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


# -- weights ---------------------------------------------------------------------------------------


def cast_at_once(nets: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Let networks cast all weights at once in each pass with autocast, which casts one by one.

    The numbers are equal.
    """
    casts = [(net, _Halves(net)) for net in nets]
    return _hooked([(net, cast.put_in, cast.take_out) for net, cast in casts])


class _Halves:
    def __init__(self, net: nn.Module) -> None:
        layers = [module for module in net.modules() if isinstance(module, KINDS)]
        self.places = [
            (layer, k) for layer in layers for k, v in layer._parameters.items() if v is not None
        ]
        self.whole: list[Any] = []

    def put_in(self, *_: object) -> None:
        self.whole = [layer._parameters[key] for layer, key in self.places]
        kind = self.whole[0].device.type if self.whole else "cpu"
        if self.whole and torch.is_autocast_enabled(kind):
            self._fill(_Cast.apply(torch.get_autocast_dtype(kind), *self.whole))  # type: ignore[no-untyped-call]

    def take_out(self, *_: object) -> None:
        self._fill(self.whole)

    def _fill(self, weights: Iterable[Any]) -> None:
        for (layer, key), weight in zip(self.places, weights, strict=True):
            layer._parameters[key] = weight


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, half: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _cast(weights, half)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        whole = iter(_cast([g for g in gradients if g is not None], torch.float32))
        return None, *[None if g is None else next(whole) for g in gradients]


def _cast(tensors: Iterable[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    sources = list(tensors)
    made = tuple([torch.empty_like(tensor, dtype=dtype) for tensor in sources])
    torch._foreach_copy_(made, sources)
    return made
