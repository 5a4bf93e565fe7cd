"""A network's weights in half precision: cast all at once, where autocast casts them one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

KINDS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
"""Layers whose weights autocast casts. Weights that are computed anew (spectral norm) are none."""


@contextmanager
def cast_at_once(nets: Iterable[nn.Module]) -> Iterator[None]:
    """Let networks cast their weights at once in each pass with autocast; the numbers are equal."""
    hooks = []
    for net in nets:
        cast = _Halves(net)
        hooks += [
            net.register_forward_pre_hook(cast.put_in),
            net.register_forward_hook(cast.take_out, always_call=True),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
        return None, *(None if g is None else next(whole) for g in gradients)


def _cast(tensors: Iterable[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    sources = list(tensors)
    made = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in sources)
    torch._foreach_copy_(made, sources)
    return made
