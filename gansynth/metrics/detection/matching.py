"""COCO's matching of detections with true boxes, and resamples of patients.

``pycocotools`` matches: in each image detections are taken by descending score, and each hits the
free lesion of its class with the largest overlap (intersection over union), if that suffices. Other
detections are false positives. One matching is valid for every confidence and every resample.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gansynth.metrics.detection.record import (
    Array,
    Detections,
    ImageDetections,
    Numbers,
    coco_document,
)

Flags = npt.NDArray[np.bool_]
IOUS = (0.5, 0.25)
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
CONFIDENCE = 0.001  # the paper's 0.1 %
MISS = -1  # marks a false positive in ``hits``
FEW_PATIENTS = 10  # fewest patients for a reliable interval
AT_ONCE = 250  # resamples computed at once, to bound memory


@dataclass(frozen=True)
class MatchedDetections:
    """COCO's ``evalImgs`` in flat arrays: N detections, T true boxes, I images, P patients."""

    names: tuple[str, ...]  # of classes
    subjects: tuple[str, ...]  # names of the patients, by number
    subject: Numbers  # (I,): number of each image's patient
    boxes: Array  # (N, 4): x1, y1, x2, y2 in pixels
    scores: Array  # (N,)
    labels: Numbers  # (N,): class numbers
    image: Numbers  # (N,): number of each detection's image, rising
    rank: Numbers  # (N,): place by score among those of the same image and class
    true_boxes: Array  # (T, 4)
    true_labels: Numbers  # (T,)
    true_image: Numbers  # (T,), rising
    hits: Mapping[float, Numbers]  # overlap -> (N,): the true box that a detection hits, or MISS

    @property
    def owner(self) -> Numbers:
        """(N,): number of each detection's patient."""
        return self.subject[self.image]

    @property
    def true_owner(self) -> Numbers:
        """(T,): number of each true box's patient."""
        return self.subject[self.true_image]

    def weighted(self, owners: Numbers, weights: Array) -> Array:
        """Number of entries of given patients under weights (B, P): (B,)."""
        total: Array = weights @ np.bincount(owners, minlength=len(self.subjects))
        return total


def match(
    detections: Detections, ious: Sequence[float] = IOUS, *, by_class: bool = True
) -> MatchedDetections:
    """Match at overlaps above 0, and at COCO's; a volume or image replaces an unknown patient."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    document = coco_document(detections)
    boxes, true = document["detections"], document["annotations"]
    if not by_class:
        document["categories"] = [{"id": 1, "name": "any class"}]
        for box in (*boxes, *true):
            box["category_id"] = 1
    overlaps = sorted({*ious, *COCO_IOUS})
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = document
        truth.createIndex()
        found.dataset = dict(document, annotations=[])
        if boxes:
            found = truth.loadRes(boxes)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.iouThrs = np.array(overlaps)
        evaluation.params.areaRng = [[0, np.inf]]
        evaluation.params.maxDets = [len(boxes)]
        evaluation.evaluate()
    hits = np.full((len(overlaps), len(boxes)), MISS, np.int64)
    rank = np.zeros(len(boxes), np.int64)
    for image in filter(None, evaluation.evalImgs):
        places = np.array(image["dtIds"], np.int64) - 1
        hits[:, places] = image["dtMatches"] - 1
        rank[places] = np.arange(len(places))
    images, numbers = detections.images, np.arange(len(detections.images))
    patients: dict[tuple[str, str], int] = {}
    subject = [patients.setdefault(_patient(image), len(patients)) for image in images]
    return MatchedDetections(
        tuple(category["name"] for category in document["categories"]),
        tuple(name for _, name in patients),
        np.array(subject, np.int64),
        np.concatenate([i.found.boxes for i in images]).astype(np.float64).reshape(-1, 4),
        np.concatenate([i.found.scores for i in images]).astype(np.float64),
        np.array([box["category_id"] - 1 for box in boxes], np.int64),
        np.repeat(numbers, [len(i.found.boxes) for i in images]),
        rank,
        np.concatenate([i.truth.boxes for i in images]).astype(np.float64).reshape(-1, 4),
        np.array([box["category_id"] - 1 for box in true], np.int64),
        np.repeat(numbers, [len(i.truth.boxes) for i in images]),
        dict(zip(overlaps, hits, strict=True)),
    )


def _patient(image: ImageDetections) -> tuple[str, str]:
    """Kind and name of an image's patient, as far as known."""
    if image.subject is not None:
        return "subject", image.subject
    return ("image", image.id) if image.volume is None else ("volume", image.volume)


# -- resamples of patients -----------------------------------------------------------------------


class Interval(TypedDict):
    """A number of all patients, and the middle 95 % of its resamples; None: undefined."""

    value: float | None
    low: float | None
    high: float | None


def resamples(subjects: int, times: int, rng: np.random.Generator) -> Array:
    """(times, subjects): count of each patient in each resample; rows sum to subjects."""
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=times).astype(np.float64)


def everyone(subjects: int) -> Array:
    """(1, subjects): every patient once."""
    return np.ones((1, subjects))


def over_resamples(measure: Callable[[Array], Array], weights: Array) -> tuple[Array, Array]:
    """A measure (``weights``: (B, P) to (B, ...)) of all patients, and of every resample."""
    parts = [measure(weights[n : n + AT_ONCE]) for n in range(0, len(weights), AT_ONCE)]
    whole = measure(everyone(weights.shape[1]))
    return whole[0], np.concatenate([whole[:0], *parts])


def estimate(measure: Callable[[Array], Array], weights: Array) -> Interval:
    """A number with its interval; ``measure``: weights (B, P) to (B,), nan where undefined."""
    return interval(*over_resamples(measure, weights))


def interval(value: float | Array, resampled: Array) -> Interval:
    """A number and its percentile interval, without undefined resamples."""
    values = resampled[~np.isnan(resampled)]
    low, high = np.quantile(values, (0.025, 0.975)) if len(values) else (np.nan, np.nan)
    return {"value": known(value), "low": known(low), "high": known(high)}


def known(value: float | Array) -> float | None:
    """A number of JSON; None where undefined."""
    return None if np.isnan(value) else float(value)


def ratio(above: Array, below: Array) -> Array:
    """A quotient; nan where the denominator is 0."""
    share: Array = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return share


def counted(rows: Numbers, owners: Numbers, count: int, weights: Array) -> Array:
    """Entries of each of ``count`` rows under weights (B, P) of their patients: (B, count)."""
    table = sparse.csr_array((np.ones(len(rows)), (rows, owners)), (count, weights.shape[1]))
    return np.ascontiguousarray((table @ weights.T).T)
