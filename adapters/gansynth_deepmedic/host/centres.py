"""Where segments of a synthetic case may be centred: where the case is synthetic.

A sample fills a part of the real case it lies in. DeepMedic draws centres by its sampling type, one
map for each of its categories; here those maps are cut to the part that is synthetic, after padding
and augmentation, by DeepMedic's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = Callable[[Sequence[int], Sequence[int]], npt.NDArray[Any]]
"""Segment and volume, voxels along x, y, z -> where a whole segment fits around a centre."""


class Centres:
    """A sampling type for one synthetic case; what it does not change is the original's.

    The case's part that is synthetic comes where DeepMedic has its maps of weights, for these go
    through padding and augmentation with the case.

    Args:
        segment: voxels of a segment along x, y, z.

    Attributes:
        spread: no category had a centre in the synthetic part, so that the whole case was used.
    """

    def __init__(self, original: Any, mask: Mask, segment: Sequence[int]) -> None:
        self._original, self._mask, self._segment = original, mask, segment
        self.spread = False

    def derive_sampling_maps_per_cat(
        self,
        core: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
        labels: npt.NDArray[Any],
        roi: npt.NDArray[Any] | None,
        shape: Sequence[int],
    ) -> list[npt.NDArray[Any]]:
        """A map (X, Y, Z) for each category of the sampling type.

        Args:
            core: (1, X, Y, Z), 1 where the case is synthetic.
            labels: (X, Y, Z).
            roi: (X, Y, Z); None for everywhere.
            shape: X, Y, Z.
        """
        everywhere = self._original.derive_sampling_maps_per_cat(None, labels, roi, shape)
        inside = core[0] > 0.5
        # int16: DeepMedic multiplies by a mask of int8, in the map's own type.
        maps = [np.asarray((one != 0) & inside, np.int16) for one in everywhere]
        fits = self._mask(self._segment, shape) != 0
        shares = self._original.get_perc_to_sample_per_cat()
        if any(
            share > 0 and (one[fits] != 0).any() for share, one in zip(shares, maps, strict=True)
        ):
            return maps
        self.spread = True
        return list(everywhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def core_as_weights(core: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Where a case is synthetic, in the place of DeepMedic's maps of weights: (1, X, Y, Z)."""
    return core[np.newaxis].astype(np.float32)
