"""How far a lesion stands out from what is around it, in spreads (deviations) of that tissue.

Another person's tissue may hide a lesion that was seen in its own case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.conditions.location_prior import (
    PLANES,
    TAIL,
    learning_cases,
    native_case,
    some,
    whole_body,
)
from gansynth.core.case_pool import CasePool
from gansynth.core.geometry import Matrix, mask_of
from gansynth.core.schema import FloatArray, LabelArray, Mask, Schema
from gansynth.data.connected_components import parts
from gansynth.imaging.lesion_grain import LEAST_VOXELS, ring_around


@dataclass(frozen=True)
class LesionContrasts:
    """Contrasts of training lesions: the largest of each case, or of some slices of each."""

    direction: Matrix  # float64 (C,), their mean, of length 1: a channel's sign and weight
    least: float  # that nearly all have along it

    @classmethod
    def learn(cls, case_pool: CasePool, classes: Sequence[int]) -> LesionContrasts | None:
        """Learn from training cases, once for each pool; None if no lesion can be measured."""
        chosen = tuple(sorted(classes))
        return case_pool.learnt(f"contrasts of {chosen}", lambda pool: _learnt(pool, chosen))

    def faint(self, image: FloatArray, lesion: LabelArray, body: Mask, schema: Schema) -> str:
        """Return why a lesion is too faint; empty if it is not, or is too small to tell.

        Args:
            image: float32 (C, D, H, W) or (C, H, W), with the lesion in it.
            lesion: int16 (D, H, W) or (H, W), the lesion alone.
            body: bool, the same shape.
        """
        found = contrast(image, lesion, body & (lesion == 0), schema)
        along = math.inf if found is None else float((found * self.direction).sum())
        if along >= self.least:
            return ""
        return (
            "a lesion is too faint in an unlabelled scan, expected a contrast of at least "
            f"{self.least:.2f} spreads of the tissue around it, as nearly all training lesions "
            f"have, found {along:.2f}"
        )


def contrast(image: FloatArray, lesion: LabelArray, free: Mask, schema: Schema) -> Matrix | None:
    """Return the contrast (C,) of the largest part of a lesion; None if it cannot be measured.

    ``free``: bool, tissue without lesions.
    """
    found = parts(lesion, schema, least=LEAST_VOXELS)
    if not found:
        return None
    box, near = ring_around(found[0])
    ring = near & free[box]
    if ring.sum() < LEAST_VOXELS:
        return None
    local = image[(slice(None), *box)]
    inside = local[:, found[0].whole()[box] > 0].mean(axis=1)
    around = local[:, ring].astype(np.float64)
    return np.asarray((inside - around.mean(axis=1)) / np.maximum(around.std(axis=1), 1e-6))


def _learnt(case_pool: CasePool, classes: tuple[int, ...]) -> LesionContrasts | None:
    rows = [row for row in _measured(case_pool, classes) if row is not None]
    if not rows:
        return None
    mean = np.mean(rows, axis=0)
    direction = mean / max(math.hypot(*mean), 1e-6)
    along = (np.array(rows) * direction).sum(axis=1)
    return LesionContrasts(direction, float(np.quantile(along, TAIL)))


def _measured(case_pool: CasePool, classes: tuple[int, ...]) -> Iterator[Matrix | None]:
    schema = case_pool.schema
    for case_id in learning_cases(case_pool):
        labels = case_pool.label_map(case_id)
        lesions = np.where(mask_of(labels, classes), labels, np.int16(0))
        if not lesions.any():
            continue
        image = native_case(case_pool, case_id).image
        free = whole_body(case_pool, case_id, windowed=True) & (lesions == 0)
        if case_pool.space.grid == "slice":
            for plane in some(np.flatnonzero(lesions.any(axis=(1, 2))).tolist(), PLANES):
                yield contrast(image[:, plane], lesions[plane], free[plane], schema)
        else:
            yield contrast(image, lesions, free, schema)
