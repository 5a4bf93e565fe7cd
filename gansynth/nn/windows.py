"""Prediction of whole cases by windows of a training's size: ``gansynth.predict_by_windows``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from gansynth.core.resample import crop_pad
from gansynth.core.schema import FloatArray
from gansynth.runtime.devices import place_for

BELL = 0.25  # standard deviation of a window's Gaussian weights, as a share of its edge


def predict_by_windows(
    network: Callable[[Tensor], Tensor],
    image: FloatArray,
    size: Sequence[int],
    *,
    overlap: float = 0.5,
    batch_size: int = 1,
    fill: Sequence[float] | None = None,
    margin: int = 0,
) -> FloatArray:
    """Average a network's outputs over overlapping windows of the training's size.

    So normalisation over a window is the same as in training.

    Args:
        network: windows (B, C, ...) on the CPU -> outputs (B, K, ...), such as probabilities, of
            the windows without their margin.
        image: float32 (C, D, H, W) or (C, H, W), of any shape.
        size: of a window.
        overlap: least share by which windows overlap.
        batch_size: windows at once.
        fill: value of each channel beyond the border, 0 if not given. A smaller case lies in the
            middle of a window, as it does in training.
        margin: voxels at each side of a window that the network sees, but does not predict.

    Returns:
        float32 (K, ...), of the image's shape.
    """
    shape, size = image.shape[1:], [edge - 2 * margin for edge in size]
    corner = [min(0, (n - s) // 2) for n, s in zip(shape, size, strict=True)]
    whole = [max(n, s) for n, s in zip(shape, size, strict=True)]
    values = [0.0] * len(image) if fill is None else fill
    seen, begin = [n + 2 * margin for n in whole], [c - margin for c in corner]
    image = np.stack([crop_pad(c, begin, seen, f) for c, f in zip(image, values, strict=True)])
    total, weights, bell = torch.empty(0), np.zeros(whole, np.float32), _bell(size)
    covering = list(_windows(whole, size, overlap))
    for start in range(0, len(covering), batch_size):
        windows = covering[start : start + batch_size]
        seen_parts = [[slice(s.start, s.stop + 2 * margin) for s in window] for window in windows]
        parts = np.stack([image[(slice(None), *part)] for part in seen_parts])
        outputs = network(torch.from_numpy(parts)).float()
        if not total.numel():
            sums = (outputs.shape[1], *whole)
            place = place_for(4 * prod(sums), outputs.device)
            total, shares = torch.zeros(sums, device=place), torch.from_numpy(bell).to(place)
        for window, output in zip(windows, outputs.to(place), strict=True):
            total[(slice(None), *window)] += output * shares
            weights[window] += bell
    inner = [slice(-c, n - c) for c, n in zip(corner, shape, strict=True)]
    return np.asarray((total.cpu().numpy() / weights)[(slice(None), *inner)], np.float32)


def _windows(
    shape: Sequence[int], size: Sequence[int], overlap: float
) -> Iterator[tuple[slice, ...]]:
    """Yield windows that cover a volume evenly."""
    starts = []
    for n, s in zip(shape, size, strict=True):
        count = ceil((n - s) / max(1, s * (1 - overlap))) + 1
        starts.append([round(i * (n - s) / max(1, count - 1)) for i in range(count)])
    for corner in product(*starts):
        yield tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))


def _bell(size: Sequence[int]) -> FloatArray:
    """Return the Gaussian weights of a window's voxels, all above 0."""
    bell = np.ones(tuple(size), np.float32)
    for axis, n in enumerate(size):
        at = (np.arange(n) - (n - 1) / 2) / (BELL * n)
        shape = [1] * len(size)
        shape[axis] = n
        bell *= np.exp(-0.5 * at**2).reshape(shape).astype(np.float32)
    return np.maximum(bell, 1e-4).astype(np.float32)
