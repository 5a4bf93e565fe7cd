"""Normalising intensities, as DeepMedic's ``dataManagement/preprocessing.py`` (commit e10ba7c)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.engine.nested import Nested

KEY = "norm_zscore_prms"
_KNOWN = (
    "apply_to_all_channels",
    "apply_per_channel",
    "cutoff_percents",
    "cutoff_times_std",
    "cutoff_below_mean",
)


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and standard deviation 1 within the region of interest, but for what is cut off.

    A channel without any spread there, one that a case lacks say, only loses its mean; DeepMedic
    makes it not-a-number.
    """

    channels: tuple[bool, ...] | None = None  # which ones; None for all
    # percentiles of the region, low and high, beyond which values do not count
    percents: tuple[float, ...] | None = None
    # how many standard deviations below and above the region's mean they do not
    times_std: tuple[float, ...] | None = None
    below_mean: bool = False  # whether values below the mean of the whole image do not

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> ZScore | None:
        """``norm_zscore_prms`` of a configuration; None where nothing is normalised.

        Raises:
            DataFault: naming the key.
        """
        given = Nested.of(path, values, KEY)
        if not given.given:
            return None
        parts = given.table(_KNOWN)
        everything, some = parts["apply_to_all_channels"], parts["apply_per_channel"]
        whole = everything.given and everything.flag()
        if whole and some.given:
            raise some.fault("None where apply_to_all_channels is True")
        wanted = some.flags(channels) if some.given else None
        percents, times, below = (parts[key] for key in _KNOWN[2:])
        found = cls(
            wanted,
            percents.numbers(2, 0, 100) if percents.given else None,
            times.numbers(2, 0) if times.given else None,
            below.given and below.flag(),
        )
        return found if whole or (wanted is not None and any(wanted)) else None

    def apply(
        self, image: npt.NDArray[np.float32], roi: npt.NDArray[np.int16] | None
    ) -> npt.NDArray[np.float32]:
        """An image (C, X, Y, Z), normalised.

        Args:
            roi: (X, Y, Z); None for everywhere.
        """
        inside = np.ones(image.shape[1:], np.bool_) if roi is None else roi > 0
        wanted = (True,) * len(image) if self.channels is None else self.channels
        found = image.copy()
        for channel, taken in zip(found, wanted, strict=True):
            if taken:
                mean, std = self.moments(channel, inside)
                channel -= np.float32(mean)
                channel /= np.float32(std)
        return found

    def moments(
        self, channel: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
    ) -> tuple[float, float]:
        """What a channel (X, Y, Z) is normalised by; a deviation of 1 where it has none."""
        region = (channel[inside] if inside.any() else channel.ravel()).astype(np.float64)
        kept = np.ones(region.shape, np.bool_)
        if self.percents is not None:
            low, high = np.percentile(region, self.percents)
            kept &= (region > low) & (region < high)
        if self.times_std is not None:
            mean, std = region.mean(), region.std()
            low, high = mean - self.times_std[0] * std, mean + self.times_std[1] * std
            kept &= (region > low) & (region < high)
        if self.below_mean:
            kept &= (region > channel.mean(dtype=np.float64)) & (region < channel.max())
        left = region[kept]
        if not left.size or left.std() == 0:
            return float(region.mean()), 1.0
        return float(left.mean()), float(left.std())
