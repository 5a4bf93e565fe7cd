"""How much of the images' variance label maps explain."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray

Rows = npt.NDArray[np.float64]
"""Of one label: count, sum and sum of squares of its voxels, each (C,)."""


def label_share(cases: Iterable[tuple[FloatArray, LabelArray | None]]) -> float:
    """Return the share of the images' variance that lies between labels (eta squared), 0 to 1.

    The mean over channels, 0 for those without variance; NaN without cases.

    Args:
        cases: images (C, D, H, W) or (C, H, W), and labels (D, H, W) or (H, W), -1 outside.
    """
    sums: dict[int, Rows] = {}
    for image, labels in cases:
        assert labels is not None, "every case has labels"
        for value in np.unique(labels[labels != OUTSIDE]).tolist():
            part = image[:, labels == value].astype(np.float64)
            rows = np.array([np.full(len(part), part.shape[1]), part.sum(1), (part**2).sum(1)])
            sums[value] = sums[value] + rows if value in sums else rows
    if not sums:
        return float("nan")
    count, total, squares = np.sum(list(sums.values()), axis=0)
    variance = squares - total**2 / count
    within = squares - np.sum([t**2 / n for n, t, _ in sums.values()], axis=0)
    varies = variance > 1e-9 * squares
    return float(np.mean(np.where(varies, 1 - within / np.where(varies, variance, 1), 0)))
