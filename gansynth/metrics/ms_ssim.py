"""Multi-scale structural similarity of pairs of images (Wang et al. 2003), in 2D and 3D.

Of the libraries gansynth needs, none has it (scikit-image's is of one scale). It is 1 for equal
images; of unlike ones, 0 is the least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, fine to coarse: Wang et al. 2003, sec. 3.2."""
WINDOW, SIGMA = 11, 1.5
"""Edge and standard deviation in voxels of the Gaussian window: Wang et al. 2004, sec. III-B."""
K1, K2 = 0.01, 0.03
"""Shares of the data range that keep the quotients finite, ibid."""


def weights_for(size: Sequence[int]) -> tuple[float, ...]:
    """The scales that images of a size have room for, as their weights; the weights sum to 1.

    The last scale is no smaller than the window; the five of the paper need edges of 176 voxels.
    """
    count = 1
    while count < len(WEIGHTS) and min(size) >> count >= WINDOW:
        count += 1
    total = sum(WEIGHTS[:count])
    return tuple(w / total for w in WEIGHTS[:count])


def ms_ssim(
    first: Tensor, second: Tensor, data_range: float, weights: Sequence[float] | None = None
) -> Tensor:
    """MS-SSIM of pairs of images.

    Args:
        first: float32 (B, C, D, H, W) or (B, C, H, W).
        second: the other images of the pairs, of the same shape.
        data_range: highest less lowest intensity that images may have.
        weights: of the scales, fine to coarse; None takes ``weights_for`` the size.

    Returns:
        Float32 (B,), 0 to 1; contrasts are averaged over places and channels.
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    weights = weights_for(first.shape[2:]) if weights is None else weights
    images = torch.stack([first, second]).flatten(1, 2)  # (2, B * C, ...)
    pool = F.avg_pool3d if first.ndim == 5 else F.avg_pool2d
    count, result = len(first), torch.ones(len(first), device=first.device)
    for scale, weight in enumerate(weights):
        x, y = images
        mean_x, mean_y, xx, yy, xy = _smooth(torch.stack([x, y, x * x, y * y, x * y]))
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        likeness = (2 * (xy - product) + c2) / (xx + yy - squares + c2)
        if scale == len(weights) - 1:  # brightness counts at the coarsest scale alone
            likeness = likeness * (2 * product + c1) / (squares + c1)
        # One below zero (an image and its negative) has no fractional power.
        result = result * likeness.reshape(count, -1).mean(1).clamp(min=0) ** weight
        images = pool(images, 2)
    return result


def _smooth(images: Tensor) -> Tensor:
    """Gaussian means of images (N, M, ...) wherever the whole window fits."""
    least = min(images.shape[2:])
    window = min(WINDOW, least - 1 + least % 2)
    places = [math.exp(-0.5 * ((i - window // 2) / SIGMA) ** 2) for i in range(window)]
    # Axis by axis and place by place: measured 6 to 14 times as fast here as torch's convolutions.
    for axis in range(2, images.ndim):
        n = images.shape[axis] - window + 1
        mean = torch.zeros_like(images.narrow(axis, 0, n))
        for index, value in enumerate(places):
            mean.add_(images.narrow(axis, index, n), alpha=value / sum(places))
        images = mean
    return images
