"""Tiled inference: volumes of any size, tile by tile, without boundary artefacts.

A tile with a halo equals that part of the whole volume, with two exceptions. Coarse levels are held
as a whole and computed a tile at a time. Normalisation over a volume first gathers mean and
variance over all tiles. The result is that of the whole volume but for rounding. Memory is about a
third, at the cost of one more pass per normalisation of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from gansynth.nn.networks.resize import TransposedConv, interpolate, matrix
from gansynth.nn.networks.unet import UNetGenerator

Window = tuple[slice, ...]  # half-open, one slice per spatial axis, each with a start and a stop
ConditionAt = Callable[[Window], Tensor]  # window -> condition channels (B, K, ...) of that window


@dataclass(frozen=True)
class Tile:
    """A tile of a grid; the cores of all tiles cover the grid, each voxel once."""

    core: Window
    outer: Window

    @property
    def inner(self) -> Window:
        """Return the core, relative to the start of ``outer``."""
        sides = []
        for core, outer in zip(self.core, self.outer, strict=True):
            sides.append(slice(core.start - outer.start, core.stop - outer.start))
        return tuple(sides)


def cut(x: Tensor, window: Window) -> Tensor:
    """Cut a window of (B, C, ...)."""
    index: Any = (..., *window)
    return x[index]


def tiles(size: Sequence[int], edge: int, halo: int) -> Iterator[Tile]:
    """Yield tiles of a grid with cores of ``edge``, smaller at the far ends, and a halo."""
    for corner in product(*(range(0, n, edge) for n in size)):
        core, outer = [], []
        for first, n in zip(corner, size, strict=True):
            last = min(first + edge, n)
            core.append(slice(first, last))
            outer.append(slice(max(first - halo, 0), min(last + halo, n)))
        yield Tile(tuple(core), tuple(outer))


def tiled(draw: Callable[[Window], Tensor], size: Sequence[int], edge: int, halo: int) -> Tensor:
    """Compute ``draw`` on a whole grid, (B, C, ...), a tile at a time.

    ``draw``: window -> (B, C, ...), correct from ``halo`` voxels inside the window's faces.
    """
    whole: Tensor | None = None
    for tile in tiles(size, edge, halo):
        drawn = draw(tile.outer)
        if whole is None:
            whole = drawn.new_empty((*drawn.shape[:2], *size))
        cut(whole, tile.core).copy_(cut(drawn, tile.inner))
    assert whole is not None, "a grid has at least one voxel"
    return whole


@torch.no_grad()
def draw_tiled(
    net: UNetGenerator,
    condition: ConditionAt,
    size: Sequence[int],
    latents: Sequence[Tensor],
    edge: int,
) -> Tensor:
    """Return the image of a whole volume by a network in evaluation mode, in tiles.

    ``latents``: (B, channels, ...) for each of ``net.latent_shapes(size)``, whole volume.
    Returns (B, out_channels, ...), equal to the network on the whole volume but for rounding.
    """
    with shared_norms(net):
        return _TiledUNet(net, condition, size, latents, edge).draw()


class _TiledUNet:
    def __init__(
        self,
        net: UNetGenerator,
        condition: ConditionAt,
        size: Sequence[int],
        latents: Sequence[Tensor],
        edge: int,
    ) -> None:
        self.net, self.condition, self.latents, self.edge = net, condition, latents, edge
        self.size, self.shapes = tuple(size), net.level_shapes(size)
        self.encoded: dict[int, Tensor] = {}  # features of the levels below the finest
        self.decoded = torch.empty(0)

    def draw(self) -> Tensor:
        net, deepest = self.net, len(self.net.strides)
        self._settle(partial(self._skip, 0), 0, net.encoder(0))
        for i in range(deepest):
            below = net.encoder(i) if i == 0 else []
            self.encoded[i + 1] = self._whole(
                partial(self._descend, i), i + 1, net.encoder(i + 1), below
            )
        last = net.last
        if not deepest:
            finest = self._whole(
                lambda w: self._finish(self._bottom(w), w), 0, net.bottom_parts, last
            )
            return self._painted(finest)
        self.decoded = self._whole(self._bottom, deepest, net.bottom_parts)
        for i in range(deepest - 1, 0, -1):
            del self.encoded[i + 1]
            self.decoded = self._whole(partial(self._ascend, i), i, net.decoder(i))
        self.encoded.clear()
        around = [*net.encoder(0), *last]
        finest = self._whole(
            lambda w: self._finish(self._ascend(0, w), w), 0, net.decoder(0), around
        )
        return self._painted(finest)

    # -- a window of each level ------------------------------------------------------------------

    def _skip(self, i: int, window: Window) -> Tensor:
        if i in self.encoded:
            return cut(self.encoded[i], window)
        if self.net.outer is not None:
            window = _finer(window, self.net.outer, self.size)
        return self.net.enter(self.condition(window))

    def _descend(self, i: int, window: Window) -> Tensor:
        """Return a window of level ``i + 1``."""
        finer = _finer(window, self.net.strides[i], self.shapes[i])
        return self.net.descend(i, self._skip(i, finer))

    def _bottom(self, window: Window) -> Tensor:
        deepest = len(self.net.strides)
        return self.net.bottom(self._skip(deepest, window), *self._noise(deepest, window))

    def _ascend(self, i: int, window: Window) -> Tensor:
        x = self.net.join(self._widen(i, window), self._skip(i, window))
        return self.net.refine(i, x, self._noise(i, window))

    def _finish(self, x: Tensor, window: Window) -> Tensor:
        """Return a window of the image, or of its features if their resolution differs."""
        last = self.net.finish if self.net.outer is None else self.net.prepare
        return last(x, *self._noise(None, window))

    def _painted(self, finest: Tensor) -> Tensor:
        """Return the image from the results of ``_finish``."""
        outer = self.net.outer
        if outer is None:
            return finest

        def draw(window: Window) -> Tensor:
            source = _coarser(window, outer, finest.shape[2:])
            painted = self.net.paint(cut(finest, source))
            sides = []
            for wanted, coarse, by in zip(window, source, outer, strict=True):
                first = coarse.start * by
                sides.append(slice(wanted.start - first, wanted.stop - first))
            return cut(painted, tuple(sides))

        return tiled(draw, self.size, self.edge, 0)

    def _noise(self, level: int | None, window: Window) -> list[Tensor]:
        level_latents = self.net.latents_of(level, self.latents)
        return [cut(latent, window) for latent in level_latents]

    def _widen(self, i: int, window: Window) -> Tensor:
        """Return a window of ``net.widen`` of the decoder's level ``i + 1``."""
        narrow, mode = self.net.narrow[i], self.net.style.up
        strides, coarse = self.net.strides[i], self.shapes[i + 1]
        source = _coarser(window, strides, coarse)
        after = self.net.style.narrow == "after" and mode != "transposed"
        x: Tensor = cut(self.decoded, source) if after else narrow(cut(self.decoded, source))
        if mode == "transposed":
            starts = [
                w.start - c.start * s for w, c, s in zip(window, source, strides, strict=True)
            ]
            places = zip(window, starts, strict=True)
            return cut(x, tuple(slice(b, b + w.stop - w.start) for w, b in places))
        axes = zip(window, source, coarse, self.shapes[i], strict=True)
        x = interpolate(x, [matrix(mode, n, m)[w, c] for w, c, n, m in axes])
        return narrow(x) if after else x

    # -- all windows of a level ------------------------------------------------------------------

    def _whole(
        self,
        draw: Callable[[Window], Tensor],
        level: int,
        modules: Sequence[nn.Module],
        around: Sequence[nn.Module] = (),
    ) -> Tensor:
        """Compute a level with normalisations in ``modules``; ``around`` adds to its halo."""
        halo = _reach([*modules, *around])
        self._settle(draw, level, modules, halo)
        return tiled(draw, self.shapes[level], self.edge, halo)

    def _settle(
        self,
        draw: Callable[[Window], Tensor],
        level: int,
        modules: Sequence[nn.Module],
        halo: int | None = None,
    ) -> None:
        """Fix the statistics of the normalisations in ``modules``, in order of execution."""
        halo = _reach(modules) if halo is None else halo
        for norm in whole_norms(modules):
            for tile in tiles(self.shapes[level], self.edge, halo):
                norm.forward.inner = tile.inner
                try:
                    draw(tile.outer)
                except TileCounted:
                    continue
                raise AssertionError("a normalisation was not reached")
            norm.forward.settle()


def _finer(window: Window, strides: Sequence[int], size: Sequence[int]) -> Window:
    """Return the window of a grid of ``size`` from which a coarser window is computed."""
    axes = zip(window, strides, size, strict=True)
    return tuple(slice(w.start * s, min(w.stop * s, n)) for w, s, n in axes)


def _coarser(window: Window, strides: Sequence[int], size: Sequence[int]) -> Window:
    """Return the window of a coarser grid of ``size`` from which a finer window is enlarged."""
    # A cubic kernel reaches two coarse voxels to either side.
    axes = zip(window, strides, size, strict=True)
    sides = []
    for wide, stride, n in axes:
        first, last = wide.start // stride - 3, -(-wide.stop // stride) + 3
        sides.append(slice(max(first, 0), min(last, n)))
    return tuple(sides)


def _reach(modules: Iterable[nn.Module]) -> int:
    """Return the receptive field of a chain of modules, in voxels to either side, at most."""
    kernels = [
        max(module.kernel_size) // 2
        for top in modules
        if not isinstance(top, TransposedConv)
        for module in top.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d)
    ]
    return sum(kernels) + 1


class TileCounted(Exception):
    """Ends the pass of a tile whose statistics were gathered."""


class SharedNorm:
    """Replaces a normalisation's ``forward``: gathers and ends the pass until settled."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm
        self.inner: tuple[slice, ...] = ()
        self.count = 0
        self.sums: Tensor | float = 0.0  # of values and their squares, float64 (2, B, groups)
        self.statistics: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Gather statistics of (B, C, ...) and raise ``TileCounted``, or normalise it."""
        groups = getattr(self.norm, "num_groups", x.shape[1])
        if self.statistics is None:
            index: Any = (..., *self.inner)
            core = x[index].double().reshape(len(x), groups, -1)
            self.sums = self.sums + torch.stack((core.sum(2), core.square().sum(2)))
            self.count += core.shape[2]
            raise TileCounted
        mean, scale = self.statistics.repeat_interleave(x.shape[1] // groups, dim=2)
        if self.norm.weight is not None:
            scale = scale * self.norm.weight
        shift = -mean * scale
        if self.norm.bias is not None:
            shift = shift + self.norm.bias
        spatial = [1] * (x.ndim - 2)
        scaled = torch.addcmul(
            shift.view(*shift.shape, *spatial), x.float(), scale.view(*scale.shape, *spatial)
        )
        return scaled.to(x.dtype)

    def settle(self) -> None:
        """Compute the statistics from all gathered tiles."""
        assert isinstance(self.sums, Tensor)
        mean, square = self.sums / self.count
        variance = (square - mean * mean).clamp(min=0)
        self.statistics = torch.stack((mean, (variance + self.norm.eps).rsqrt())).float()


def whole_norms(modules: Iterable[nn.Module]) -> list[Any]:
    """Return the normalisations below modules that use statistics of the volume, in order."""
    return [
        m
        for top in modules
        for m in top.modules()
        if isinstance(m, nn.GroupNorm)
        or (isinstance(m, _InstanceNorm) and not m.track_running_stats)
    ]


@contextmanager
def shared_norms(net: nn.Module) -> Iterator[None]:
    """Let the normalisations of a network share their statistics among tiles."""
    norms = whole_norms([net])
    for norm in norms:
        norm.forward = SharedNorm(norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
