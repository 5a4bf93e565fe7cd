"""DeepMedic's sampling maps: the allowed centres of segments of each category.

DeepMedic derives a map for each category from labels and region of interest. It leaves out centres
too near the border of the (padded) volume, and picks random voxels of each map. It fails on a case
without a centre in any sampled category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.check import centre_range
from gansynth_deepmedic.configs import FORE_BACKGROUND, PER_CLASS, UNIFORM, WHOLE, category_masks

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import ModelConfig, TrainConfig, Triple

Allowed = npt.NDArray[np.int16]
"""(X, Y, Z), 0 where no segment may be centred: a region of interest, or a part of it."""
USUAL_OUTPUT, USUAL_SEGMENT = 21, 37
"""Voxels along an axis of output and segment of DeepMedic's example network. They define the border
if the network is unknown.
"""
_MOST = 4  # an assumed border is at most this fraction (a quarter) of an axis at each end


@dataclass(frozen=True)
class SamplingMaps:
    """Sampling of segments in a training."""

    kind: int  # typeOfSamplingForTraining
    categories: int  # how many there are
    sampled: tuple[bool, ...]  # whether segments are sampled from each category
    pad: bool  # padInputImagesBool
    segment: Triple | None = None  # voxels (x, y, z) of a segment; None if unknown
    # voxels padded to a volume, both sides together
    padding: Triple = (0, 0, 0)

    @classmethod
    def of(
        cls, config: TrainConfig, labels: Sequence[int], model: ModelConfig | None = None
    ) -> SamplingMaps:
        """Return the sampling of a configuration.

        Args:
            config: the training's.
            labels: values of label maps, which give the number of classes if it is unknown.
            model: the network's configuration; None if it is unknown.
        """
        proportions = config.proportions
        if config.sampling == PER_CLASS:
            count = max(labels, default=1) + 1
            if proportions is not None:
                count = len(proportions)
            if model is not None:
                count = model.classes
        else:
            count = 2 if config.sampling == FORE_BACKGROUND else 1
            proportions = proportions if config.sampling == FORE_BACKGROUND else None
        shares = (1.0,) * count if proportions is None else proportions
        sampled = tuple(share > 0 for share in shares)
        if model is None:
            return cls(config.sampling, count, sampled, config.pad)
        padding = model.unpredicted if config.pad else (0, 0, 0)
        return cls(config.sampling, count, sampled, config.pad, model.segment, padding)

    def maps(
        self, labels: npt.NDArray[np.int16], allowed: Allowed | None
    ) -> list[npt.NDArray[np.int16]]:
        """Return the map of each category, as DeepMedic derives it.

        Args:
            labels: (X, Y, Z).
            allowed: region of interest, or the allowed part of it; None for everywhere.
        """
        allowed = np.ones(labels.shape, np.int16) if allowed is None else allowed
        if self.kind in (UNIFORM, WHOLE):
            return [allowed]
        masks = category_masks(self.kind, labels, self.categories)
        return [(mask & (allowed > 0)).astype(np.int16) for mask in masks]

    def centres(
        self, labels: npt.NDArray[np.int16], allowed: Allowed | None
    ) -> npt.NDArray[np.bool_]:
        """Return the allowed centres of segments, bool (X, Y, Z), without those near the border."""
        maps = self.maps(labels, allowed)
        centres = np.zeros(labels.shape, np.bool_)
        inner = self._inner(labels.shape)
        for category, sampled in zip(maps, self.sampled, strict=False):
            if sampled:
                centres[inner] |= category[inner] > 0
        return centres

    def largest(self, centres: npt.NDArray[np.bool_]) -> int:
        """Return the largest output (unpadded: segment) with a possible centre, in voxels."""
        if not centres.any():
            return 0
        depth = np.full((1, 1, 1), np.iinfo(np.int32).max)
        for axis, n in enumerate(centres.shape):
            along = np.minimum(np.arange(n), np.arange(n)[::-1])
            depth = np.minimum(depth, along.reshape([-1 if a == axis else 1 for a in range(3)]))
        return 2 * int(depth[centres].max()) + 1

    def _inner(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """Return the voxels that are far enough from the border of the padded volume."""
        if self.segment is not None:
            return centre_range(shape, self.segment, self.padding)
        usual = ((USUAL_OUTPUT if self.pad else USUAL_SEGMENT) - 1) // 2
        borders = [min(usual, n // _MOST) for n in shape]
        return tuple(slice(border, n - border) for border, n in zip(borders, shape, strict=True))
