"""Contrast of lesions by class, learnt from training boxes, to reject samples with less.

Han et al. 2019 (3.3) removed images with unclear tumours by eye; this measures them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.core.body_mask import Mask, organ_mask, share_inside
from gansynth.core.schema import Boxes, Case, FloatArray
from gansynth.data.lesion_rims import Numbers, contrasts
from gansynth.runtime.serialise import from_json, to_json

SHARE = 0.05  # share of training boxes that would be rejected
FEW = 20  # least number of boxes of a class for a limit
ONE_WAY = 0.9  # share of boxes of one sign above which a class counts as always brighter, or darker
TOLD_APART = 0.6
"""Least share of pairs in which a lesion's box has more contrast than one without a lesion."""
PLACES = 20  # places that are tried for a box without a lesion


@dataclass(frozen=True)
class ClassContrast:
    """The contrast of one class of boxes.

    ``sign``: 1 if lesions are brighter than their rims, -1 if darker, 0 if either. ``least``:
    contrast that all but 5 % of the training boxes have; ``usual``: their median. ``told_apart``:
    share of pairs in which a training box has more contrast than one elsewhere in the body (area
    under the ROC curve).
    """

    boxes: int
    channel: int
    sign: int
    least: float
    usual: float
    told_apart: float | None

    @property
    def judged(self) -> bool:
        """Whether samples are checked by this class."""
        enough = self.boxes >= FEW
        return enough and (self.told_apart is None or self.told_apart >= TOLD_APART)

    def of(self, rows: Numbers) -> Numbers:
        """Return contrasts (N, C) as this class counts them: (N,), higher is clearer."""
        values = rows[:, self.channel]
        return np.abs(values) if self.sign == 0 else self.sign * values


@dataclass(frozen=True)
class LesionContrast:
    """The least contrast of each class of boxes, for ``reject_reason``; None without boxes.

    A class is not checked if it has fewer than 20 training boxes, or if its boxes hardly differ
    from other places in the body.
    """

    classes: Mapping[str, ClassContrast | None]

    @classmethod
    def fit(
        cls, cases: Iterable[Case], names: Sequence[str], *, rng: np.random.Generator | None = None
    ) -> LesionContrast:
        """Learn from training cases; ``rng`` draws places without a lesion (else seed 0)."""
        rng = np.random.default_rng(0) if rng is None else rng
        lesions: dict[int, list[Numbers]] = {}
        elsewhere: dict[int, list[Numbers]] = {}
        for case in cases:
            if case.boxes is None or not len(case.boxes.labels):
                continue
            body = organ_mask(case.image)
            apart = moved_elsewhere(case.boxes, body, rng)
            for boxes, by_label in ((case.boxes, lesions), (apart, elsewhere)):
                rows = contrasts(case.image, boxes, body=body)
                for label, row in zip(boxes.labels.tolist(), rows, strict=True):
                    if np.isfinite(row).all():
                        by_label.setdefault(label, []).append(row)
        return cls(
            {
                name: class_contrast(lesions[number], elsewhere.get(number, []))
                if number in lesions
                else None
                for number, name in enumerate(names)
            }
        )

    def reject_reason(self, image: FloatArray, boxes: Boxes | None) -> str:
        """Return why a sample (C, ...) is rejected; empty if it is not."""
        if boxes is None or not len(boxes.labels):
            return ""
        rows, names = contrasts(image, boxes), list(self.classes)
        for row, label in enumerate(boxes.labels.tolist()):
            contrast = self.classes[names[label]] if 0 <= label < len(names) else None
            if contrast is None or not contrast.judged:
                continue
            value = float(contrast.of(rows[row : row + 1])[0])
            if value < contrast.least:  # a box without a rim has none, NaN, and is not judged
                way = {1: ", brighter than its rim", -1: ", darker than its rim", 0: ""}[
                    contrast.sign
                ]
                return (
                    f"too little lesion contrast in a box of class {names[label]}: {value:.2f} in "
                    f"box {row + 1}, expected at least {contrast.least:.2f}{way}"
                )
        return ""

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back: numbers and names of classes."""
        return dict(to_json(self.classes))

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> LesionContrast:
        """Read what ``to_json`` wrote."""
        return cls(from_json(Mapping[str, ClassContrast | None], doc))


def class_contrast(lesions: Sequence[Numbers], elsewhere: Sequence[Numbers]) -> ClassContrast:
    """Fit the contrast of a class to rows (C,) of its boxes, and of boxes elsewhere."""
    rows, others = np.stack(lesions), np.stack(elsewhere) if elsewhere else None
    best: ClassContrast | None = None
    for channel in range(rows.shape[1]):
        above = float((rows[:, channel] > 0).mean())
        sign = 1 if above >= ONE_WAY else -1 if above <= 1 - ONE_WAY else 0
        tried = ClassContrast(len(rows), channel, sign, 0.0, 0.0, None)
        values = tried.of(rows)
        apart = None if others is None else told_apart(values, tried.of(others))
        least, usual = (np.floor(np.quantile(values, (SHARE, 0.5)) * 1e4) / 1e4).tolist()
        contrast = ClassContrast(len(rows), channel, sign, least, usual, apart)
        if best is None or _rank(contrast) > _rank(best):
            best = contrast
    assert best is not None, "images have channels"
    return best


def _rank(contrast: ClassContrast) -> tuple[float, float]:
    return contrast.told_apart or 0.0, contrast.usual


def told_apart(values: Numbers, others: Numbers) -> float:
    """Share of pairs in which one of ``values`` is larger (area under the ROC curve)."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return round(float((below + upto).mean() / 2 / len(others)), 4)


def moved_elsewhere(boxes: Boxes, body: Mask, rng: np.random.Generator) -> Boxes:
    """Draw boxes of the same sizes and classes elsewhere in the body, with 20 tries each."""
    axes = body.ndim
    voxels = np.argwhere(body)
    rows, labels = [], []
    for row, label in zip(boxes.coords, boxes.labels.tolist(), strict=True):
        side = row[axes:] - row[:axes]
        for _ in range(PLACES):
            middle = voxels[int(rng.integers(len(voxels)))] + 0.5
            low, high = middle - side / 2, middle + side / 2
            if _free(low, high, boxes, body):
                rows.append(np.concatenate([low, high]))
                labels.append(label)
                break
    coords = np.array(rows, np.float32).reshape(-1, 2 * axes)
    return Boxes(coords, np.array(labels, np.int16))


def _free(low: Numbers, high: Numbers, boxes: Boxes, body: Mask) -> bool:
    """Whether a box lies in the image, mostly in the body, and hardly in any of the boxes."""
    axes = body.ndim
    if (low < 0).any() or (high > np.array(body.shape)).any():
        return False
    if share_inside(body, np.concatenate([low, high])) < 0.8:
        return False
    shared = np.minimum(high, boxes.coords[:, axes:]) - np.maximum(low, boxes.coords[:, :axes])
    return bool((np.maximum(shared, 0).prod(axis=1) <= 0.1 * (high - low).prod()).all())
