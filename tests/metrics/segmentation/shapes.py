"""Small label maps, and how one region of them is measured."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from gansynth.core.schema import LabelArray
from gansynth.metrics.segmentation import Regions, measure_case

ONE: Regions = (("x", (1,)),)


def blobs(rng: np.random.Generator, shape: Sequence[int]) -> LabelArray:
    """Some blobs of label 1, also at the map's edge."""
    field = gaussian_filter(rng.normal(size=shape), 1.5)
    return np.asarray(field > 0.6 * field.std(), np.int16)


def marked(shape: tuple[int, ...], *places: Any) -> LabelArray:
    labels = np.zeros(shape, np.int16)
    for place in places:
        labels[place] = 1
    return labels


def line(columns: Iterable[int], row: int = 1) -> LabelArray:
    """(4, 40): pixels of one row, all of them surface."""
    return marked((4, 40), (row, list(columns)))


def measured(
    predicted: LabelArray, truth: LabelArray, spacing: Sequence[float], **options: Any
) -> dict[str, float | None]:
    """Measures of label 1, by their names."""
    found = measure_case(predicted, truth, spacing, ONE, **options)
    return {key.removesuffix("/x"): value for key, value in found.items()}
