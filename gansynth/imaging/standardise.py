"""Intensities of training cases: networks work in standardised units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth.core.schema import FloatArray
from gansynth.runtime.devices import numbers_on


class ChannelStatistics:
    """``mean`` and ``deviation`` (above 0) of each channel, float64 (C,), in the source's units."""

    def __init__(self, channels: int) -> None:
        self.mean: npt.NDArray[np.float64] = np.zeros(channels)
        self.deviation: npt.NDArray[np.float64] = np.ones(channels)
        self._sums = np.zeros((3, channels))
        self._beside: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def add(self, image: FloatArray) -> None:
        """Add a crop (C, ...) to the statistics."""
        values = image.reshape(len(image), -1).astype(np.float64)
        count = np.full(len(values), float(values.shape[1]))
        mean = values.mean(1)
        # Chan et al. 1983: sums of squares of large intensities would lose the small digits.
        n, m, square = self._sums
        total = n + count
        square = square + values.var(1) * count + (mean - m) ** 2 * n * count / total
        self._sums = np.stack((total, m + (mean - m) * count / total, square))
        self.mean = self._sums[1]
        spread = np.sqrt(square / total)
        self.deviation = np.where(spread > 1e-6 * (1e-30 + np.abs(self.mean)), spread, 1.0)
        self._beside.clear()

    def standardised(self, image: Tensor) -> Tensor:
        """(B, C, ...) in the source's units -> of mean 0 and deviation 1, float32."""
        mean, deviation = self.on(image)
        return (image.float() - mean) / deviation

    def restored(self, image: Tensor) -> Tensor:
        """Return standardised values to the source's units."""
        mean, deviation = self.on(image)
        return image * deviation + mean

    def constant(self, values: Sequence[float], like: Tensor) -> Tensor:
        """One constant for each channel (1, C, 1, ...), standardised, on a tensor's device."""
        standard = (np.array(values) - self.mean) / self.deviation
        return _channels(standard, like)

    def on(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (1, C, 1, ...) on an image's device, brought there once."""
        key = image.device, image.ndim
        if key not in self._beside:
            self._beside[key] = _channels(self.mean, image), _channels(self.deviation, image)
        return self._beside[key]

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def load_json(self, document: Mapping[str, Any]) -> None:
        """Read what ``to_json`` wrote."""
        self.mean = np.array(document["mean"], np.float64)
        self.deviation = np.array(document["deviation"], np.float64)
        self._beside.clear()


def _channels(values: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    return numbers_on(like.device, values).view(1, -1, *[1] * (like.ndim - 2))
