"""Detections and truth to measure, drawn or written by hand."""

from collections.abc import Sequence

import numpy as np

from gansynth.metrics.detection.matching import everyone, match
from gansynth.metrics.detection.record import DetectedBoxes, Detections, ImageDetections, TrueBoxes

SIDE = 64
A, B, ELSEWHERE = (0, 0, 10, 10), (20, 0, 30, 10), (40, 40, 50, 50)


def boxes(*lines: Sequence[float]) -> np.ndarray:
    return np.array(lines, float).reshape(-1, 4)


def seen(
    name: str,
    true: Sequence[Sequence[float]] = (),
    found: Sequence[Sequence[float]] = (),
    scores: Sequence[float] = (),
    *,
    classes: tuple[Sequence[int], Sequence[int]] | None = None,
    subject: str | None = None,
    place: tuple[str, int] | None = None,
) -> ImageDetections:
    """An image; class 0 throughout unless ``classes`` has those of truth and detections."""
    of_truth, of_found = classes or ([0] * len(true), [0] * len(found))
    return ImageDetections(
        name,
        subject,
        (SIDE, SIDE),
        TrueBoxes(boxes(*true), np.array(of_truth, np.int64)),
        DetectedBoxes(boxes(*found), np.array(scores, float), np.array(of_found, np.int64)),
        *(place or (None, None)),
    )


def document(*images: ImageDetections, names: Sequence[str] = ("lesion",), **rest) -> Detections:
    return Detections("toy", tuple(names), images, rest.pop("iou_nms", 0.5), **rest)


def measured(detections: Detections, iou: float = 0.5):
    """Matched detections, and weights that count every patient once."""
    found = match(detections, (iou,))
    return found, everyone(len(found.subjects))


def drawn(
    seed: int,
    images: int = 12,
    *,
    classes: int = 2,
    most: int = 12,
    ties: int | None = None,
    per_subject: int = 3,
) -> Detections:
    """Random images; some without truth or detections. `ties`: so many different scores only."""
    rng = np.random.default_rng(seed)

    def some(n: int) -> np.ndarray:
        low = rng.uniform(0, SIDE - 24, (n, 2))
        high = low + rng.uniform(4, 24, (n, 2))
        return np.concatenate([low, high], axis=1)

    def one(number: int) -> ImageDetections:
        true = some(int(rng.integers(0, 5) * rng.integers(0, 2)))
        near = np.repeat(true, 2, axis=0)
        near = near + rng.uniform(-4, 4, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        found = rng.permutation(np.concatenate([near, some(int(rng.integers(0, most)))]))
        found = found[: 999 if rng.integers(0, 5) else 0]
        scores = rng.random(len(found))
        if ties is not None:
            scores = np.ceil(scores * ties) / ties
        return ImageDetections(
            f"{number:04}",
            f"p{number // per_subject}",
            (SIDE, SIDE),
            TrueBoxes(true, rng.integers(0, classes, len(true))),
            DetectedBoxes(found, scores, rng.integers(0, classes, len(found))),
            f"v{number // per_subject}",
            number % per_subject,
        )

    names = tuple(f"class{k}" for k in range(classes))
    return Detections("toy", names, tuple(map(one, range(images))), 0.5)
