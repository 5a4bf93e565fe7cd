"""Normalise intensities to about zero mean and unit variance: MR by case, CT by training cases.

CT follows nnU-Net (Isensee et al. 2021, Nat. Methods 18:203): clip to the 0.5 and 99.5 percentiles
of the training cases' foreground, subtract their mean, divide by their deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray
from gansynth.data.read_options import Modality
from gansynth.runtime.errors import DataFault
from gansynth.runtime.serialise import Document

PERCENTILES = (0.5, 99.5)
VOXELS = 100_000  # largest number of foreground voxels drawn from a case


@dataclass(frozen=True)
class ChannelNormalisation(Document, later=("low", "high", "mean", "std")):
    """Normalisation of a channel; ``low`` to ``std``, in the file's units, for CT only."""

    modality: Modality
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def __call__(self, channel: npt.NDArray[Any]) -> FloatArray:
        """Normalise one channel (D, H, W); a constant one becomes zeros."""
        values = channel.astype(np.float32)
        if self.modality == "none":
            return values
        std, mean = self.units(values)
        if self.modality == "ct":
            values = np.clip(values, self.low, self.high)
        if std == 0:
            return np.zeros_like(values)
        return np.asarray((values - mean) / std, np.float32)

    def units(self, channel: npt.NDArray[Any]) -> tuple[float, float]:
        """Deviation (0 of a constant channel) and mean: normalised values to the file's."""
        if self.modality == "none":
            return 1.0, 0.0
        if self.modality == "mr":
            body = channel[channel != 0].astype(np.float64)
            mean, std = (float(body.mean()), float(body.std())) if body.size else (0.0, 0.0)
        else:
            assert self.mean is not None
            assert self.std is not None
            mean, std = self.mean, self.std
        return (std if std > 1e-8 * max(1.0, abs(mean)) else 0.0), mean


def by_name(channels: Sequence[str]) -> tuple[Modality, ...]:
    """``ct`` for channels called CT, ``none`` for noNorm (nnU-Net's words), else ``mr``."""
    modalities: dict[str, Modality] = {"ct": "ct", "nonorm": "none"}
    return tuple(modalities.get(name.casefold(), "mr") for name in channels)


def draw_foreground(
    image: npt.NDArray[Any], labels: npt.NDArray[Any], rng: np.random.Generator
) -> FloatArray:
    """Foreground voxels (C, N) of a case, at most ``VOXELS`` of them, drawn without replacement."""
    voxels: FloatArray = image[:, labels > 0].astype(np.float32)
    if voxels.shape[1] > VOXELS:
        voxels = voxels[:, rng.choice(voxels.shape[1], VOXELS, replace=False)]
    return voxels


def ct_intensities(
    where: str, foreground: Iterable[FloatArray], window: tuple[float, float] | None
) -> tuple[ChannelNormalisation, ...]:
    """Fit the normalisation of CT channels.

    ``foreground``: voxels (C, N) of each training case, CT channels only. Raises DataFault: no
    training case has a foreground.
    """
    voxels = np.concatenate(list(foreground), axis=1)
    if not voxels.shape[1]:
        raise DataFault(
            f"{where}: no training case has voxels with a label above 0, expected some to take CT "
            "statistics from; leave intensities as they are: --read modality=none"
        )
    intensities = []
    for channel in voxels:
        low, high = window or np.percentile(channel, PERCENTILES)
        mean, std = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
        intensities.append(
            ChannelNormalisation("ct", *(round(float(v), 4) for v in (low, high, mean, std)))
        )
    return tuple(intensities)
