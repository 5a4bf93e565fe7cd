"""Instance and group normalisation over a whole volume of which only tiles are at hand.

Mean and variance are counted tile by tile first, and then used by every tile alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm


class Gathered(Exception):
    """A tile has been counted; there is no need to go on with it."""


class SharedNorm:
    """Stands in for a normalisation's ``forward``: counts and ends the pass until settled."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm
        self.inner: tuple[slice, ...] = ()
        self.count = 0
        self.sums: Tensor | float = 0.0  # of values and their squares, float64 (2, B, groups)
        self.statistics: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Count (B, C, ...) and raise ``Gathered``, or normalise it."""
        groups = getattr(self.norm, "num_groups", x.shape[1])
        if self.statistics is None:
            index: Any = (..., *self.inner)
            core = x[index].double().reshape(len(x), groups, -1)
            self.sums = self.sums + torch.stack((core.sum(2), core.square().sum(2)))
            self.count += core.shape[2]
            raise Gathered
        mean, scale = self.statistics.repeat_interleave(x.shape[1] // groups, dim=2)
        if self.norm.weight is not None:
            scale = scale * self.norm.weight
        shift = -mean * scale
        if self.norm.bias is not None:
            shift = shift + self.norm.bias
        ones = [1] * (x.ndim - 2)
        scaled = torch.addcmul(
            shift.view(*shift.shape, *ones), x.float(), scale.view(*scale.shape, *ones)
        )
        return scaled.to(x.dtype)

    def settle(self) -> None:
        """Take what was counted for all there is."""
        assert isinstance(self.sums, Tensor)
        mean, square = self.sums / self.count
        variance = (square - mean * mean).clamp(min=0)
        self.statistics = torch.stack((mean, (variance + self.norm.eps).rsqrt())).float()


def whole_norms(modules: Iterable[nn.Module]) -> list[Any]:
    """The normalisations below some modules that use statistics of the volume at hand, in order."""
    return [
        m
        for top in modules
        for m in top.modules()
        if isinstance(m, nn.GroupNorm)
        or (isinstance(m, _InstanceNorm) and not m.track_running_stats)
    ]


@contextmanager
def shared_norms(net: nn.Module) -> Iterator[None]:
    """Norms of a network that see whole volumes share their statistics among tiles meanwhile."""
    norms = whole_norms([net])
    for norm in norms:
        norm.forward = SharedNorm(norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
