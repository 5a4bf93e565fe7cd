"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957, algorithm 1).

As in the paper, the singular vectors are iterated once per update of a weight: in passes that train
it. torch's own iterates them in every pass of a training, and launches twice as many kernels. A
repeated pass needs the same vectors. Averaged weights need vectors of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gansynth.runtime.devices import autocast_dtype

STARTING = 15  # power iterations of a new weight, as in torch
SETTLING = 10  # power iterations that adapt averaged vectors to the averaged weights


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Divide a layer's weight by its largest singular value."""
    transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
    assert isinstance(layer.weight, Tensor)
    norm = SpectralNorm(layer.weight, axis=int(transposed))
    # On ``meta`` there is nothing to compute, and torch would import its compiler for that.
    bare = layer.weight.is_meta
    return parametrize.register_parametrization(layer, "weight", norm, unsafe=bare)


class SpectralNorm(nn.Module):
    """A weight's division by its largest singular value.

    The buffers ``_u`` and ``_v`` have the names of torch's, so that checkpoints fit both.

    Args:
        weight: of a convolution.
        axis: its output channels.
    """

    def __init__(self, weight: Tensor, axis: int = 0) -> None:
        super().__init__()
        self._u: Tensor
        self._v: Tensor
        self.dim = axis
        matrix = self._matrix(weight.detach())
        for name, length in zip(("_u", "_v"), matrix.shape, strict=True):
            start = matrix.new_empty(length).normal_()
            self.register_buffer(name, F.normalize(start, dim=0))
        if not weight.is_meta:
            self.iterate(weight, STARTING)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight, in the data type that autocast gives a convolution."""
        trains = self.training and torch.is_grad_enabled() and weight.requires_grad
        with torch.no_grad(), _full_precision(weight.device.type):
            if trains:
                u, v, norm = self.iterate(weight)
            else:
                v, (image, norm) = self._v, _image(self._matrix(weight), self._v)
                u = image / norm if weight.requires_grad else image  # for the gradient only
        normalised: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
            weight, u, v, norm, self.dim
        )
        return normalised

    @torch.no_grad()
    def iterate(self, weight: Tensor, times: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Iterate the vectors; return them and the singular value."""
        matrix, u = self._matrix(weight), self._u
        for _ in range(times):
            v = matrix.T @ u
            v = v / torch.linalg.vector_norm(v)
            image, norm = _image(matrix, v)
            u = image / norm
        torch._foreach_copy_([self._u, self._v], [u, v])
        return u, v, norm

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)


def _full_precision(kind: str) -> AbstractContextManager[object]:
    there = torch.amp.is_autocast_available(kind)  # not on ``meta``
    return torch.autocast(kind, enabled=False) if there else nullcontext()


def _image(matrix: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    image = matrix @ v
    return image, torch.linalg.vector_norm(image)


class _Normalised(torch.autograd.Function):
    """W / s with s = |W v|; s has the gradient u v^T, where u = W v / s."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, norm: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(weight, u, v, norm)
        ctx.axis = axis
        half = autocast_dtype(weight.device.type)
        return torch.div(weight, norm, out=torch.empty_like(weight, dtype=half))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, u, v, norm = ctx.saved_tensors
        gradient = gradient / norm.view([1] * gradient.ndim)  # in full precision, as it has axes
        share = torch.dot(gradient.flatten(), weight.flatten()) / norm
        moved = gradient.movedim(ctx.axis, 0)
        made = torch.addr(moved.flatten(1), u * share, v, alpha=-1)
        return made.view(moved.shape).movedim(0, ctx.axis), None, None, None, None


def spectral_parts(net: nn.Module) -> list[SpectralNorm]:
    """Return the normalisations inside a network."""
    return [m for m in net.modules() if isinstance(m, SpectralNorm)]


def vectors(parts: Sequence[SpectralNorm]) -> list[tuple[Tensor, Tensor]]:
    """Return copies of the singular vectors, in order."""
    return [(part._u.clone(), part._v.clone()) for part in parts]


@contextmanager
def held(parts: Sequence[SpectralNorm], at: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Normalise by these fixed vectors; restore the state afterwards."""
    before = [(part._u, part._v, part.training) for part in parts]
    for part, (u, v) in zip(parts, at, strict=True):
        part._u, part._v, part.training = u, v, False
    try:
        yield
    finally:
        for part, (u, v, training) in zip(parts, before, strict=True):
            part._u, part._v, part.training = u, v, training


@contextmanager
def settled(net: nn.Module) -> Iterator[None]:
    """Normalise by the vectors of the current weights; restore the state afterwards."""
    parts = spectral_parts(net)
    # On copies: generating a sample does not change the network.
    with held(parts, vectors(parts)):
        for module in net.modules():
            if parametrize.is_parametrized(module, "weight"):
                weight: Any = module.parametrizations.weight  # type: ignore[union-attr]
                weight[0].iterate(weight.original, SETTLING)
        yield
