"""Lesions in three dimensions, from boxes of slices.

True boxes of one class in consecutive slices are one lesion if they share at least ``SHARED`` of
the smaller one's area. It is found if enough of its boxes are hit. False positives are linked by
the same rule and divided by all volumes. Touching lesions are merged; a lesion without a box in one
slice is split in two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gansynth.metrics.detection.matching import (
    CONFIDENCE,
    MISS,
    Flags,
    Interval,
    MatchedDetections,
    estimate,
    ratio,
)
from gansynth.metrics.detection.record import Array, Detections, Numbers

SHARED = 0.5
THIRDS = ("small", "medium", "large")


@dataclass(frozen=True)
class SlicePositions:
    """Where I images lie in V volumes: int64 (I,) volume and slice, (V,) patient of a volume."""

    volume: Numbers
    slice: Numbers
    subject: Numbers


def places(detections: Detections, pool: MatchedDetections) -> SlicePositions | str:
    """Positions of images in volumes, or why they are unknown."""
    images = detections.images
    unknown = [image.volume for image in images].count(None)
    if unknown:
        return f"{unknown} of {len(images)} images do not say of which volume they are a slice"
    names: dict[str, int] = {}
    for image in images:
        names.setdefault(str(image.volume), len(names))
    volume = np.array([names[str(image.volume)] for image in images])
    subject = np.zeros(len(names), np.int64)
    subject[volume] = pool.subject
    return SlicePositions(volume, np.array([int(s.slice or 0) for s in images]), subject)


def intersections(a: Array, b: Array) -> Array:
    """Intersection areas of boxes (N, 4) and boxes (M, 4), (N, M) in pixels."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared: Array = np.clip(high - low, 0, None).prod(axis=2)
    return shared


def areas(boxes: Array) -> Array:
    """Areas of boxes (N, 4), (N,) in pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def linked(boxes: Array, labels: Numbers, volume: Numbers, level: Numbers) -> Numbers:
    """Number of the object that each of N boxes is a part of, by label, volume and slice: (N,)."""
    stacks: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for place, key in enumerate(zip(volume.tolist(), labels.tolist(), level.tolist(), strict=True)):
        stacks[key].append(place)
    pairs = [np.empty((2, 0), np.int64)]
    for (of, label, number), here in stacks.items():
        above = stacks.get((of, label, number + 1))
        if above:
            shared = intersections(boxes[here], boxes[above])
            least = np.minimum(areas(boxes[here])[:, None], areas(boxes[above])[None])
            row, column = np.nonzero((shared > 0) & (shared >= SHARED * least))
            pairs.append(np.stack([np.array(here)[row], np.array(above)[column]]))
    if not len(boxes):
        return np.zeros(0, np.int64)
    first, second = np.concatenate(pairs, axis=1)
    shape = (len(boxes), len(boxes))
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=shape)
    numbers: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers


@dataclass(frozen=True)
class LesionVolumes:
    """Lesions of volumes, and which were found: ``least`` boxes of a lesion must be hit."""

    pool: MatchedDetections
    places: SlicePositions
    hits: Numbers
    confidence: float = CONFIDENCE
    least: int = 1

    @cached_property
    def lesion(self) -> Numbers:
        """(T,): the lesion that each true box is a part of; L of them."""
        pool, at = self.pool, self.pool.true_image
        where = self.places.volume[at], self.places.slice[at]
        return linked(pool.true_boxes, pool.true_labels, *where)

    @cached_property
    def size(self) -> Array:
        """(L,): area of all boxes of each lesion, in pixels."""
        return np.bincount(self.lesion, areas(self.pool.true_boxes)).astype(np.float64)

    @cached_property
    def owner(self) -> Numbers:
        """(L,): number of each lesion's patient."""
        owner = np.zeros(len(self.size), np.int64)
        owner[self.lesion] = self.pool.true_owner
        return owner

    @cached_property
    def third(self) -> Numbers:
        """(L,): 0 for the smallest third of the lesions, 1, 2 for the largest."""
        edges = np.quantile(self.size, (1 / 3, 2 / 3))
        third: Numbers = np.searchsorted(edges, self.size).astype(np.int64)
        return third

    @cached_property
    def found(self) -> Flags:
        """(L,): whether enough boxes of a lesion are hit."""
        sure = (self.hits != MISS) & (self.pool.scores >= self.confidence)
        parts = np.bincount(self.lesion[self.hits[sure]], minlength=len(self.size))
        return parts >= self.least

    @cached_property
    def false(self) -> Numbers:
        """Number of the patient of each linked false positive."""
        pool = self.pool
        wrong = np.flatnonzero((self.hits == MISS) & (pool.scores >= self.confidence))
        at = pool.image[wrong]
        where = self.places.volume[at], self.places.slice[at]
        number = linked(pool.boxes[wrong], pool.labels[wrong], *where)
        return pool.owner[wrong[np.unique(number, return_index=True)[1]]]

    def sensitivity(self, weights: Array, chosen: Flags | None = None) -> Array:
        """Share of lesions found under weights of patients (B, P): (B,)."""
        there = np.ones(len(self.size), bool) if chosen is None else chosen
        detected = self.pool.weighted(self.owner[there & self.found], weights)
        return ratio(detected, self.pool.weighted(self.owner[there], weights))

    def false_positives(self, weights: Array) -> Array:
        """Linked false positives per volume under weights of patients (B, P): (B,)."""
        false = self.pool.weighted(self.false, weights)
        return ratio(false, self.pool.weighted(self.places.subject, weights))

    def thirds(self) -> Iterator[tuple[str, Flags]]:
        """The lesions of each non-empty third of sizes."""
        for number, name in enumerate(THIRDS):
            chosen = self.third == number
            if chosen.any():
                yield name, chosen

    def measure(self, weights: Array) -> dict[str, Any]:
        """All metrics, with intervals over resamples (B, P), in JSON's types."""

        def of(chosen: Flags | None) -> Interval:
            return estimate(lambda w: self.sensitivity(w, chosen), weights)

        return {
            "volumes": len(self.places.subject),
            "lesions": len(self.size),
            "boxes_to_be_hit": self.least,
            "sensitivity": of(None),
            "fps_per_volume": estimate(self.false_positives, weights),
            "by_size": {
                name: {
                    "lesions": int(chosen.sum()),
                    "pixels": _range(self.size[chosen]),
                    "sensitivity": of(chosen),
                }
                for name, chosen in self.thirds()
            }
            if len(self.size)
            else {},
        }


def _range(values: Array) -> Sequence[float]:
    return [float(values.min()), float(values.max())]
