"""Segmentation metrics of one case: overlap, surfaces, lesions. Rules: docs/measures.md.

Surfaces are those of MONAI and of Nikolov et al. (2018, arXiv:1809.04430), counted by voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from math import hypot
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import bounding_box
from gansynth.data.connected_components import LabelComponents
from gansynth.metrics.segmentation.regions import Array, Mask, Regions, scored, without_ignored
from gansynth.metrics.segmentation.table import LEAST, SEGMENTATION, check_asked
from gansynth.runtime.errors import DataFault, UsageFault

Distances = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]
PERCENTILE = 95
ROUNDING = 1e-4
"""Share by which a distance may exceed the tolerance: headers keep spacings as float32."""


class MeasureOptions(TypedDict, total=False):
    """Measurement options; see ``measure_case``."""

    measures: Sequence[str]
    tolerance_mm: float
    overlap: float
    ignore: int | None


def measure_case(
    predicted: Array,
    truth: Array,
    spacing: Sequence[float],
    regions: Regions,
    *,
    measures: Sequence[str] = tuple(SEGMENTATION),
    tolerance_mm: float = 1.0,
    overlap: float = 0.0,
    ignore: int | None = None,
) -> dict[str, float | None]:
    """Measure one case (D, H, W) or (H, W), spacing in mm: ``dice/WT`` and so on.

    ``overlap``: share of a lesion that the other map has to cover; 0 for one voxel. Voxels where
    the truth is ``ignore`` do not count. None where the truth has none of the region
    (``lesion_precision``: the prediction; ``false_alarms``: where the truth has some). For a region
    without prediction, ``hd95`` is the case's diagonal. Raises UsageFault: an invalid value.
    DataFault: maps of different shapes.
    """
    check_asked(measures)
    _check(predicted, truth, spacing, tolerance_mm, overlap)
    # An axis of one voxel has no surface: such a case has fewer dimensions.
    axes = [axis for axis, n in enumerate(truth.shape) if n > 1] or [0]
    mm = tuple(float(spacing[axis]) for axis in axes)
    shape = tuple(truth.shape[axis] for axis in axes)
    diagonal = hypot(*(n * s for n, s in zip(shape, mm, strict=True)))
    predicted, truth = without_ignored(predicted.reshape(shape), truth.reshape(shape), ignore)
    box = _box(predicted, truth, regions)
    predicted, truth = predicted[box], truth[box]
    values: dict[str, float | None] = {}
    for name, labels in regions:
        both = _RegionPair(np.isin(predicted, labels), np.isin(truth, labels), mm)
        numbers = dict(both.measured(measures, tolerance_mm, overlap, diagonal))
        values |= {f"{measure}/{name}": value for measure, value in numbers.items()}
    return values


def _check(
    predicted: Array, truth: Array, spacing: Sequence[float], tolerance: float, overlap: float
) -> None:
    if predicted.shape != truth.shape:
        raise DataFault(
            f"predicted labels have shape {predicted.shape}, true ones {truth.shape}, expected "
            "equal; predict on the grid of the truth"
        )
    if len(spacing) != truth.ndim or not all(0 < s < np.inf for s in spacing):
        raise UsageFault(
            f"spacing {tuple(spacing)}: expected {truth.ndim} positive numbers of mm, one for each "
            "axis of the label maps"
        )
    if not 0 <= tolerance < np.inf:
        raise UsageFault(f"tolerance_mm {tolerance}: expected a distance in mm, 0 or more")
    if not 0 <= overlap <= 1:
        raise UsageFault(f"overlap {overlap}: expected a share of a lesion's voxels from 0 to 1")


def _box(predicted: Array, truth: Array, regions: Regions) -> tuple[slice, ...]:
    """Bounding box of all regions in either map; the rest changes no metric."""
    labels = sorted({value for _, values in regions for value in values})
    there = np.isin(predicted, labels) | np.isin(truth, labels)
    return bounding_box(there) if there.any() else (slice(0, 1),) * there.ndim


class _RegionPair:
    """One region in both maps."""

    def __init__(self, predicted: Mask, truth: Mask, spacing: Sequence[float]) -> None:
        self.predicted, self.truth, self.spacing = predicted, truth, spacing
        self.there, self.predicted_any = bool(truth.any()), bool(predicted.any())

    def measured(
        self, measures: Sequence[str], tolerance: float, overlap: float, diagonal: float
    ) -> Iterator[tuple[str, float | None]]:
        """Yield name and value of each measure in order."""
        predicted = cache(lambda: _lesions(self.predicted, self.truth, overlap))
        values: dict[str, Callable[[], float | None]] = {
            "dice": lambda: scored(self.predicted, self.truth)["dice"],
            "hd95": lambda: self.hd95(diagonal) if self.there else None,
            "nsd": lambda: self.nsd(tolerance) if self.there else None,
            "lesion_sensitivity": lambda: _share(_lesions(self.truth, self.predicted, overlap)),
            "lesion_precision": lambda: _share(predicted()),
            "false_alarms": lambda: (
                None if self.there else float(max(predicted()[0], default=0) >= LEAST)
            ),
            "false_positive_volume": lambda: float(predicted()[0][~predicted()[1]].sum()),
            "false_positives": lambda: float((~predicted()[1]).sum()),
        }
        yield from ((name, values[name]()) for name in measures)

    @cached_property
    def distances(self) -> tuple[Distances, Distances]:
        """Distances in mm of surface voxels: prediction to truth, and truth to prediction."""
        from scipy.spatial import KDTree

        ours, theirs = _surface(self.predicted, self.spacing), _surface(self.truth, self.spacing)
        to_truth, to_prediction = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
        return np.asarray(to_truth), np.asarray(to_prediction)

    def hd95(self, diagonal: float) -> float:
        """The larger of both directions' percentiles."""
        if not self.predicted_any:
            return diagonal
        return max(float(np.percentile(distances, PERCENTILE)) for distances in self.distances)

    def nsd(self, tolerance: float) -> float:
        """Share of all surface voxels within the tolerance of the other surface."""
        if not self.predicted_any:
            return 0.0
        near = [distances <= tolerance * (1 + ROUNDING) for distances in self.distances]
        return float(np.concatenate(near).mean())


def _surface(mask: Mask, spacing: Sequence[float]) -> Distances:
    """Positions (N, axes) in mm of voxels with a face neighbour outside the mask."""
    from scipy.ndimage import binary_erosion

    places = np.argwhere(mask & ~binary_erosion(mask))
    return np.asarray(places * np.array(spacing), np.float64)


def _lesions(lesions: Mask, mask: Mask, overlap: float) -> tuple[Sizes, Mask]:
    """Voxels of a mask's connected components, and whether another mask covers them."""
    parts = LabelComponents.of(lesions)
    covered = np.bincount(parts.numbered[mask], minlength=len(parts.sizes) + 1)[parts.numbers]
    return parts.sizes, (covered > 0) & (covered >= overlap * parts.sizes)


def _share(lesions: tuple[Sizes, Mask]) -> float | None:
    return float(lesions[1].mean()) if lesions[1].size else None
