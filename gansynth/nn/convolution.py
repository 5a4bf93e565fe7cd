"""A convolution with a fast gradient of its gradient, for gradient penalties.

torch computes a weight's share in it as a convolution by a kernel as large as the image, which took
30 of the 50 ms of a step of ``cpggan`` at 128 x 128 on an H200. It is a weight's usual gradient,
of other inputs: StyleGAN2-ADA's code does the same (Karras et al. 2020, arXiv:2006.06676).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gansynth.runtime.devices import autocast_dtype

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of a convolution's input, weight and bias; None where nobody asks for it."""
_asked = {"input alone": False}


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    """Convolve (B, C, ...) by a weight (features, C, ...) with stride 1."""
    half = autocast_dtype(x.device.type)
    if half is not None:
        x, weight = x.to(half), weight.to(half)
        bias = None if bias is None else bias.to(half)
    features: Tensor = _Convolution.apply(x, weight, bias, list(padding))  # type: ignore[no-untyped-call]
    return features


@contextmanager
def input_gradients_alone() -> Iterator[None]:
    """Compute no gradients of weights meanwhile: the penalty's own gradient is of the image."""
    before = _asked["input alone"]
    _asked["input alone"] = True
    try:
        yield
    finally:
        _asked["input alone"] = before


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _forward(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        asked = [*ctx.needs_input_grad[:3]]
        if _asked["input alone"]:
            asked[1:] = False, False
        found: Gradients = _Gradients.apply(  # type: ignore[no-untyped-call]
            gradient, x, weight, ctx.padding, asked
        )
        return *found, None


class _Gradients(torch.autograd.Function):
    """The gradients of a convolution, and theirs; without that of the bias, which is a sum."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        padding: list[int],
        asked: list[bool],
    ) -> Gradients:
        ctx.save_for_backward(gradient, x, weight)
        ctx.padding = padding
        ctx.set_materialize_grads(False)
        return _backward(gradient, x, weight, padding, asked)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_input: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        gradient, x, weight = ctx.saved_tensors
        padding = ctx.padding
        parts: list[Tensor] = []
        for_x = for_weight = None
        if of_input is not None:
            parts.append(_forward(of_input, weight, None, padding))
            only_weight = [False, True, False]
            for_weight = _backward(gradient, of_input, weight, padding, only_weight)[1]
        if of_weight is not None:
            parts.append(_forward(x, of_weight, None, padding))
            only_x = [True, False, False]
            for_x = _backward(gradient, x, of_weight, padding, only_x)[0]
        if of_bias is not None:
            parts.append(of_bias.view(-1, *[1] * (x.ndim - 2)).expand_as(gradient))
        for_gradient = sum(parts[1:], parts[0]) if parts else None
        return for_gradient, for_x, for_weight, None, None


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    ones, zeros = [1] * len(padding), [0] * len(padding)
    features: Tensor = torch.ops.aten.convolution(
        x, weight, bias, ones, padding, ones, False, zeros, 1
    )
    return features


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    padding: list[int],
    asked: list[bool],
) -> Gradients:
    ones, zeros = [1] * len(padding), [0] * len(padding)
    found: Gradients = torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], ones, padding, ones, False, zeros, 1, asked
    )
    return found
