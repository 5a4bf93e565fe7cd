"""Average precision of one class, and its mean over classes and overlaps.

Detections are ranked over all images by descending score. Precision at a recall is the best of any
higher recall. ``ALL_POINTS`` is the area below that curve (Pascal VOC since 2010, Darknet): at an
overlap of .5 the "mAP" of YOLOv3. ``COCO`` is the mean at the recalls 0, .01, ... 1. Over
``COCO_IOUS`` with ``COCO_MOST`` detections it is COCO's mAP. A class without lesions has none
(nan).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from gansynth.metrics.detection.matching import MISS, Flags, PooledDetections, match
from gansynth.metrics.detection.record import Array, Numbers
from gansynth.metrics.detection.resampling import counted, everyone, ratio

Rule = Literal["all points", "COCO"]
ALL_POINTS: Rule = "all points"
COCO: Rule = "COCO"
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_MOST = 100
RECALLS = np.linspace(0, 1, 101)


class Precision:
    """Average precision, precomputed for many resamples.

    ``hits``: (Q, N) from ``match``. ``most``: detections of an image and class that count; None for
    all.
    """

    def __init__(
        self,
        pool: PooledDetections,
        hits: Numbers,
        *,
        rule: Rule = ALL_POINTS,
        most: int | None = None,
    ) -> None:
        order = pool.falling if most is None else pool.falling[surest(pool, most)[pool.falling]]
        self.rule = rule
        self.classes = [
            _ranked(pool, hits, order[pool.labels[order] == label], label)
            for label in range(len(pool.names))
        ]

    def __call__(self, weights: Array) -> Array:
        """Weights (B, P) to float64 (B, Q, K); nan for a class without lesions."""
        return np.stack([self._of_class(ranked, weights) for ranked in self.classes], axis=2)

    def mean(self, weights: Array) -> Array:
        """Weights (B, P) to the mean over overlaps and classes, (B,)."""
        return mean_over(self(weights))

    def _of_class(self, ranked: _Ranked, weights: Array) -> Array:
        lesions = weights @ ranked.lesions
        counts = np.ascontiguousarray(np.asarray(ranked.down_to @ weights.T).T)
        np.cumsum(counts, axis=1, out=counts)
        return np.stack(
            [
                _area(
                    np.cumsum(weights[:, ranked.owner[hit]], axis=1),
                    counts[:, hit],
                    lesions,
                    self.rule,
                )
                for hit in ranked.hit
            ],
            axis=1,
        )


def average_precision(
    pool: PooledDetections, hits: Numbers, *, rule: Rule = ALL_POINTS, most: int | None = None
) -> Array:
    """Average precision of every class at every overlap, (Q, K), as ``Precision`` has it."""
    precision: Array = Precision(pool, hits, rule=rule, most=most)(everyone(len(pool.subjects)))[0]
    return precision


def mean_over(precisions: Array) -> Array:
    """Mean over overlaps and classes: (B, Q, K) to (B,); classes without lesions do not count."""
    there = ~np.isnan(precisions)
    total = np.where(there, precisions, 0).sum(axis=(1, 2))
    return ratio(total, there.sum(axis=(1, 2)).astype(np.float64))


def coco_map(pool: PooledDetections) -> Precision:
    """COCO's mAP at [.5:.95] of resamples, by its ``mean``."""
    return Precision(pool, match(pool, COCO_IOUS), rule=COCO, most=COCO_MOST)


def surest(pool: PooledDetections, most: int) -> Flags:
    """Whether a detection is among the ``most`` confident of its image and class: bool (N,)."""
    order = np.lexsort((np.arange(len(pool.scores)), -pool.scores, pool.labels, pool.image))
    group = pool.image[order] * len(pool.names) + pool.labels[order]
    first = np.searchsorted(group, group)
    among = np.zeros(len(order), bool)
    among[order] = np.arange(len(order)) - first < most
    return among


@dataclass(frozen=True)
class _Ranked:
    """Detections of one class by descending score: the ranks at which something is hit."""

    hit: Flags
    owner: Numbers
    down_to: sparse.csr_array
    lesions: Array


def _ranked(pool: PooledDetections, hits: Numbers, order: Numbers, label: int) -> _Ranked:
    hit = hits[:, order] != MISS
    rows = np.flatnonzero(hit.any(axis=0))
    row = np.searchsorted(rows, np.arange(len(order)))
    inside = row < len(rows)
    owner = pool.owner[order]
    return _Ranked(
        hit[:, rows],
        owner[rows],
        counted(row[inside], owner[inside], (len(rows), len(pool.subjects))),
        pool.per_subject(pool.true_owner[pool.true_labels == label]),
    )


def _area(true: Array, ranked: Array, lesions: Array, rule: Rule) -> Array:
    """Area below precision over recall, (B,)."""
    if not true.shape[1]:
        return np.where(lesions > 0, 0.0, np.nan)
    recall = true / np.maximum(lesions, 1)[:, None]
    precision = true / np.maximum(ranked, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if rule == ALL_POINTS:
        area = (np.diff(recall, axis=1, prepend=0) * best).sum(axis=1)
    else:
        area = np.array([_sampled(r, b) for r, b in zip(recall, best, strict=True)])
    return np.where(lesions > 0, area, np.nan)


def _sampled(recall: Sequence[float] | Array, best: Array) -> float:
    """Mean of the precisions at COCO's recalls; 0 where a recall is not reached."""
    at = np.searchsorted(recall, RECALLS)
    return float(best[at[at < len(best)]].sum() / len(RECALLS))
