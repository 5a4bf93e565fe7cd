"""Which labels are organs, and not lesions: what generators that insert lesions must know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gansynth.core.geometry import Matrix, centroid, mask_of
from gansynth.core.source import CaseSource, WrappedSource
from gansynth.data.slices import SliceSource

CASES, FEWEST = 16, 4  # most training cases that are read, and fewest that can tell
PRESENT = 0.9  # least share of the cases that show an organ
SIZES = 4.0  # most that the 90 % quantile of an organ's voxels may be of the 10 % quantile
CENTRE_DEVIATION = 0.06
"""Largest deviation of an organ's centre, in edges of the image, mean of the axes."""


def organ_labels(source: CaseSource) -> tuple[str, ...]:
    """Return the names of the labels that look like organs: of one size, and in one place.

    Nearly every case has an organ, about as large, at about the same place of the image. A lesion
    that is alone in its image, such as a glioma, also has one component, but another size and place
    in every case. The volumes of slices are looked at; pictures of single slices tell nothing.
    """
    while isinstance(source, SliceSource | WrappedSource):
        source = source.inner if isinstance(source, SliceSource) else source.base
    ids, schema = source.train_ids, source.schema
    if len(ids) < FEWEST or not schema.foreground:
        return ()
    chosen = evenly_chosen(ids)
    seen: dict[int, list[tuple[float, ...]]] = {value: [] for value in schema.foreground}
    for labels in map(source.labels_of, chosen):
        for value in schema.foreground:
            mask = np.asarray(False) if labels is None else mask_of(labels, (value,))
            if mask.any():
                centre = np.divide(centroid(mask), mask.shape)
                seen[value].append((float(mask.sum()), *centre.tolist()))
    least = max(FEWEST, PRESENT * len(chosen))
    organs = []
    for name, value in schema.labels.items():
        if len(seen.get(value, ())) >= least and _alike(np.array(seen[value])):
            organs.append(name)
    return tuple(organs)


def evenly_chosen(ids: Sequence[str], most: int = CASES) -> list[str]:
    """Return ``most`` cases at equal distances, or all if there are fewer."""
    numbers = np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(int)
    return [ids[number] for number in numbers]


def _alike(rows: Matrix) -> bool:
    """Return whether voxels and centre, (N, 1 + axes), differ as little as an organ's."""
    low, high = np.quantile(rows[:, 0], (0.1, 0.9))
    return bool(high <= SIZES * low and rows[:, 1:].std(axis=0, ddof=1).mean() <= CENTRE_DEVIATION)
