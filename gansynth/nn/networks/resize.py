"""Upsampling of feature maps: nearest, linear, cubic, in 2D and 3D, whole or by windows.

One matrix per axis gives exact cubic interpolation in 3D, which torch lacks, and windows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.networks.spectral import spectral_norm

Array = npt.NDArray[np.float64]
Up = Literal["nearest", "trilinear", "cubic", "transposed"]
Interpolation = Literal["nearest", "trilinear", "cubic"]

KEYS = -0.75  # free parameter of the cubic kernel (Keys 1981), as in torch's bicubic


def enlarge(
    x: Tensor, size: Sequence[int], mode: Interpolation, kept: dict[Any, Tensor] | None = None
) -> Tensor:
    """Upsample (B, C, ...) to a spatial size; corners are not aligned.

    ``kept``: a network's own cubic weights, so that each is brought to its device once.
    """
    if mode == "cubic":
        kept = {} if kept is None else kept
        axes = [(n, m, x.device) for n, m in zip(x.shape[2:], size, strict=True)]
        for n, m, device in axes:
            if n != m and (n, m, device) not in kept:
                kept[n, m, device] = matrix(mode, n, m).to(device)
        return interpolate(x, [kept.get(axis) for axis in axes])
    named = "bilinear" if mode == "trilinear" and x.ndim == 4 else mode
    # Autocast would make it fp32, and the features beside it too: twice the memory.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=tuple(size), mode=named)


def interpolate(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix (out, in) along each spatial axis of (B, C, ...); None skips an axis."""
    dtype = x.dtype
    # In full precision, as in torch: weights rounded to bf16 are off by up to 0.4 %.
    with torch.autocast(x.device.type, enabled=False):
        for axis, weights in enumerate(matrices, start=2):
            if weights is not None:
                moved = x.float().movedim(axis, -1)
                x = torch.matmul(moved, weights.to(x.device).T).movedim(-1, axis)
    return x.to(dtype).contiguous()


def matrix(mode: Interpolation, coarse: int, fine: int) -> Tensor:
    """Return the interpolation along one axis as float32 (fine, coarse); rows sum to one.

    A fine voxel's centre lies at ``(i + 0.5) * coarse / fine - 0.5``; values beyond the ends are
    those of the last voxel. The result is shared: do not write to it.
    """
    return torch.from_numpy(_weights(mode, coarse, fine))


@lru_cache(maxsize=64)
def _weights(mode: Interpolation, coarse: int, fine: int) -> npt.NDArray[np.float32]:
    """Return an array; a tensor in the cache could be one of a compiler's, without numbers."""
    weights = np.zeros((fine, coarse))
    rows = np.arange(fine)
    if mode == "nearest":
        weights[rows, (rows * coarse) // fine] = 1
        return weights.astype(np.float32)
    place = (rows + 0.5) * coarse / fine - 0.5
    if mode == "trilinear":
        place = place.clip(min=0)
    first = np.floor(place).astype(np.int64)
    for offset, weight in _taps(mode, place - first):
        columns = (first + offset).clip(0, coarse - 1)
        np.add.at(weights, (rows, columns), weight)
    return weights.astype(np.float32)


def _taps(mode: Interpolation, t: Array) -> list[tuple[int, Array]]:
    """Return offset from the voxel before, and weight, of each tap; ``t`` in [0, 1)."""
    if mode == "trilinear":
        return [(0, 1 - t), (1, t)]

    def near(d: Array) -> Array:
        return ((KEYS + 2) * d - (KEYS + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((KEYS * d - 5 * KEYS) * d + 8 * KEYS) * d - 4 * KEYS

    return [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


class TransposedConv(nn.Module):
    """A transposed convolution with a stride (Isola et al. 2017: kernel 4)."""

    def __init__(
        self, ndim: int, cin: int, cout: int, stride: tuple[int, ...], *, spectral: bool = False
    ) -> None:
        super().__init__()
        layer: Any = nn.ConvTranspose3d if ndim == 3 else nn.ConvTranspose2d
        # The stride divides the kernel, so every output voxel gets equally many terms.
        kernel = tuple(4 if s > 1 else 3 for s in stride)
        built: nn.Module = layer(cin, cout, kernel, stride, padding=1)
        self.conv = spectral_norm(built) if spectral else built

    def forward(self, x: Tensor) -> Tensor:
        """Upsample (B, C, ...) by ``stride``."""
        features: Tensor = self.conv(x)
        return features
