"""Spectral normalisation (Miyato et al. 2018) with fixed singular vectors.

torch iterates the vectors in every forward pass of training. A repeated pass needs the same
vectors. Averaged weights need vectors of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

SETTLING = 10
"""Power iterations that adapt averaged vectors to the averaged weights."""


def spectral_parts(net: nn.Module) -> list[Any]:
    """Return the parametrisations of a network with singular vectors (``_u``, ``_v``)."""
    return [m for m in net.modules() if hasattr(m, "_u") and hasattr(m, "_v")]


def vectors(parts: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    """Return copies of the singular vectors, in order."""
    return [(part._u.clone(), part._v.clone()) for part in parts]


@contextmanager
def held(parts: Sequence[Any], at: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
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
        _iterate(net, parts)
        yield


@torch.no_grad()
def _iterate(net: nn.Module, parts: Sequence[Any]) -> None:
    for part in parts:
        part.training = True
    for module in net.modules():
        if parametrize.is_parametrized(module, "weight"):
            for _ in range(SETTLING):
                _ = module.weight  # each read is one power iteration
    for part in parts:
        part.training = False
