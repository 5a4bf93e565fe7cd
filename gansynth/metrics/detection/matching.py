"""Matching of detections with lesions.

In each image detections are taken in descending order of score. Each hits the free lesion of its
class with the largest overlap, if the intersection over union suffices. Otherwise it is a false
positive. COCO matches like this. In Pascal VOC a detection may only hit the lesion with the largest
overlap, free or not. One matching is valid for every confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gansynth.metrics.detection.record import Array, Detections, ImageDetections, Numbers

Flags = npt.NDArray[np.bool_]
MISS = -1  # marks a false positive in `hits`


@dataclass(frozen=True)
class PooledDetections:
    """All images of a detections document in flat arrays: N detections, T lesions, I images."""

    names: tuple[str, ...]
    subjects: tuple[str, ...]  # names of the patients, by number; P of them
    subject: Numbers  # int64 (I,): number of each image's patient
    boxes: Array  # float64 (N, 4): x1, y1, x2, y2 in pixels
    scores: Array  # float64 (N,)
    labels: Numbers  # int64 (N,): class numbers
    image: Numbers  # int64 (N,): number of each detection's image, rising
    true_boxes: Array  # float64 (T, 4)
    true_labels: Numbers  # int64 (T,)
    true_image: Numbers  # int64 (T,), rising

    @property
    def images(self) -> int:
        """Number of evaluated images, including those without lesions."""
        return len(self.subject)

    @cached_property
    def falling(self) -> Numbers:
        """int64 (N,): detections in descending order of score; ties keep their order."""
        return np.argsort(-self.scores, kind="stable")

    @cached_property
    def owner(self) -> Numbers:
        """int64 (N,): number of each detection's patient."""
        return self.subject[self.image]

    @cached_property
    def true_owner(self) -> Numbers:
        """int64 (T,): number of each lesion's patient."""
        return self.subject[self.true_image]

    def per_subject(self, owners: Numbers) -> Array:
        """float64 (P,): number of entries of each patient."""
        return np.bincount(owners, minlength=len(self.subjects)).astype(np.float64)


def pool_detections(detections: Detections, *, by_class: bool = True) -> PooledDetections:
    """Pool a document's images; a volume or image replaces an unknown patient."""
    images = detections.images
    numbers: dict[tuple[str, str], int] = {}
    subject = [numbers.setdefault(_patient(image), len(numbers)) for image in images]
    counts = np.arange(len(images))
    pool = PooledDetections(
        detections.names,
        tuple(name for _, name in numbers),
        np.array(subject, np.int64),
        np.concatenate([s.found.boxes for s in images]).astype(np.float64).reshape(-1, 4),
        np.concatenate([s.found.scores for s in images]).astype(np.float64),
        np.concatenate([s.found.labels for s in images]).astype(np.int64),
        np.repeat(counts, [len(s.found.boxes) for s in images]),
        np.concatenate([s.truth.boxes for s in images]).astype(np.float64).reshape(-1, 4),
        np.concatenate([s.truth.labels for s in images]).astype(np.int64),
        np.repeat(counts, [len(s.truth.boxes) for s in images]),
    )
    if by_class:
        return pool
    labels, true_labels = np.zeros_like(pool.labels), np.zeros_like(pool.true_labels)
    return replace(pool, names=("any class",), labels=labels, true_labels=true_labels)


def _patient(image: ImageDetections) -> tuple[str, str]:
    """Kind and name of an image's patient, as far as known."""
    names = {"subject": image.subject, "volume": image.volume, "image": image.id}
    return next((kind, name) for kind, name in names.items() if name is not None)


def intersections(a: Array, b: Array) -> Array:
    """Intersection areas of boxes (N, 4) and boxes (M, 4), (N, M) in pixels."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared: Array = np.clip(high - low, 0, None).prod(axis=2)
    return shared


def areas(boxes: Array) -> Array:
    """Areas of boxes (N, 4), (N,) in pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes (N, 4) and boxes (M, 4): (N, M); 0 for two of no area."""
    shared = intersections(a, b)
    union = areas(a)[:, None] + areas(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match(pool: PooledDetections, ious: Sequence[float]) -> Numbers:
    """Match detections with lesions at overlaps above 0: int64 (len(ious), N), or ``MISS``."""
    hits = np.full((len(ious), len(pool.scores)), MISS, np.int64)
    for detections, true in _by_image(pool):
        overlap = overlaps(pool.boxes[detections], pool.true_boxes[true])
        overlap[pool.labels[detections][:, None] != pool.true_labels[true][None]] = 0
        near = np.flatnonzero(overlap.max(axis=1) >= min(ious))
        near = near[np.argsort(-pool.scores[detections][near], kind="stable")]
        rows = overlap[near].tolist()
        for row, iou in enumerate(ious):
            for place, lesion in zip(near, _greedy(rows, iou), strict=True):
                if lesion != MISS:
                    hits[row, detections.start + place] = true.start + lesion
    return hits


def _by_image(pool: PooledDetections) -> Iterator[tuple[slice, slice]]:
    """Slices of the detections and the lesions of each image that has both."""
    edges = np.arange(pool.images + 1)
    detections = np.searchsorted(pool.image, edges)
    true = np.searchsorted(pool.true_image, edges)
    for image in np.flatnonzero((np.diff(detections) > 0) & (np.diff(true) > 0)):
        yield (
            slice(int(detections[image]), int(detections[image + 1])),
            slice(int(true[image]), int(true[image + 1])),
        )


def _greedy(overlap: Sequence[Sequence[float]], iou: float) -> Iterator[int]:
    """The lesion each detection hits, by descending score; of ties the last, as in COCO."""
    least = min(iou, 1 - 1e-10)
    taken: set[int] = set()
    for row in overlap:
        best, chosen = least, MISS
        for lesion, shared in enumerate(row):
            if shared >= best and lesion not in taken:
                best, chosen = shared, lesion
        if chosen != MISS:
            taken.add(chosen)
        yield chosen
