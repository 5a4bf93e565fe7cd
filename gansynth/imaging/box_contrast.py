"""Contrast between a lesion in a box and its rim; boxes shrunk to their lesions; limits by class.

Contrast is the largest gap between the two distributions of intensities (Kolmogorov and Smirnov),
signed: 0 if both are alike, 1 if all of the box is brighter than all of its rim. It does not depend
on the scale of intensities, and one bright vessel in the rim hardly counts.

Limits by class are learnt from training boxes, to reject samples with less: Han et al. 2019 (3.3)
removed images with unclear tumours by eye; this measures them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import organ_mask, share_inside
from gansynth.core.schema import Boxes, Case, FloatArray, Mask
from gansynth.runtime.serialise import from_json, to_json

Numbers = npt.NDArray[np.float64]

RIM = 0.2  # width of the rim beyond a box on each end, as a share of its side
LEAST_RIM = 1.5  # least width of the rim, in voxels
NOTICED = 0.15
"""Differences below this share of the body's deviation are nothing: noise-free images have many."""
LEAST_HALF_SIDE = 1e-6  # least half side of a box, in voxels
FEW_VOXELS = 4  # least number of voxels for a distribution


def contrasts(image: FloatArray, boxes: Boxes, *, body: Mask | None = None) -> Numbers:
    """Contrast of lesions to their rims: (N, C), -1 (darker) to 1 (brighter); NaN without a rim.

    ``image``: float32 (C, D, H, W) or (C, H, W). ``boxes``: (N, 6) or (N, 4). ``body``: bool, where
    rims may lie; found if None.
    """
    body = organ_mask(image) if body is None else body
    noticed = [NOTICED * spread(channel[body]) for channel in image]
    out = np.full((len(boxes.labels), len(image)), np.nan)
    for row in range(len(boxes.labels)):
        window, inside, rim = regions(boxes, row, body)
        if not rim.any():
            continue
        for number, channel in enumerate(image):
            cut = channel[window]
            out[row, number] = gap(cut[inside], cut[rim], noticed[number])
    return out


def regions(boxes: Boxes, row: int, body: Mask) -> tuple[tuple[slice, ...], Mask, Mask]:
    """Return a window around a box, and bool masks of its lesion and its rim in it.

    The lesion is the ellipsoid that fits into the box. The rim lies around the box, in no other
    box. It is limited to the body, if enough of it lies there.
    """
    axes = body.ndim
    low, high = boxes.coords[row, :axes], boxes.coords[row, axes:]
    reach = np.maximum(RIM * (high - low), LEAST_RIM)
    start = np.clip(np.floor(low - reach), 0, np.array(body.shape) - 1).astype(int)
    stop = np.clip(np.ceil(high + reach), start + 1, body.shape).astype(int)
    window = tuple([slice(a, b) for a, b in zip(start, stop, strict=True)])
    ticks = [np.arange(a, b) for a, b in zip(start, stop, strict=True)]
    at = np.stack(np.meshgrid(*ticks, indexing="ij")) + 0.5
    middle = _column((low + high) / 2, axes)
    half = _column(np.maximum((high - low) / 2, LEAST_HALF_SIDE), axes)
    off = np.abs(at - middle)
    inside = ((off / half) ** 2).sum(axis=0) < 1
    within = (off < half).all(axis=0)
    if inside.sum() < FEW_VOXELS:
        inside = within
    if not inside.any():
        inside = off.sum(axis=0) == off.sum(axis=0).min()
    ring = (off < half + _column(reach, axes)).all(axis=0) & ~within & ~inside
    for rival in range(len(boxes.labels)):
        if rival != row:
            a, b = boxes.coords[rival, :axes], boxes.coords[rival, axes:]
            ring &= ~((at >= _column(a, axes)) & (at < _column(b, axes))).all(axis=0)
    inner = ring & body[window]
    return window, inside, inner if inner.sum() >= FEW_VOXELS else ring


def _column(values: npt.NDArray[np.floating], axes: int) -> Numbers:
    return np.asarray(values, np.float64).reshape(-1, *(1,) * axes)


def spread(values: FloatArray) -> float:
    """A robust standard deviation."""
    low, high = np.percentile(values, (16, 84)) if values.size else (0.0, 0.0)
    return float(high - low) / 2


def gap(inside: FloatArray, rim: FloatArray, noticed: float) -> float:
    """The largest gap between two distributions, signed: above 0 if ``inside`` is brighter."""
    brighter = _ahead(inside, rim + noticed)
    darker = _ahead(-inside, noticed - rim)
    return max(brighter, 0.0) if brighter >= darker else -max(darker, 0.0)


def _ahead(values: FloatArray, others: FloatArray) -> float:
    """How much larger a share of ``others`` than of ``values`` lies at or below any threshold."""
    at = np.sort(others)
    below = np.searchsorted(np.sort(values), at, side="right") / len(values)
    return float((np.arange(1, len(at) + 1) / len(at) - below).max())


BRIGHT = 0.9
"""Quantile of the box that counts as its lesion's intensity: the lesion may be a part of it."""
BETWEEN = 0.4  # where the cut lies between the rim's intensity (0) and the lesion's (1)
STRAY = 0.2  # largest share of the rim that lies beyond the cut, if the lesion is to be a clear one
TOGETHER = 0.6  # least share of what lies beyond the cut in the box that one piece holds
LEAST_SIDE = 0.3  # a box is never shrunk below this share of a side, nor below two voxels


def _cut(
    bright: FloatArray, boxes: Boxes, row: int, body: Mask, least: float
) -> tuple[float, npt.NDArray[np.float32]]:
    """How clear a lesion is that is brighter than its rim, 0 to 1, and its box, within its own."""
    from scipy.ndimage import binary_fill_holes, label

    axes, box = body.ndim, boxes.coords[row]
    window, inside, rim = regions(boxes, row, body)
    cut = bright[window]
    if not rim.any():
        return 0.0, box
    around, lesion = np.median(cut[rim]), np.quantile(cut[inside], BRIGHT)
    threshold = around + BETWEEN * (lesion - around)
    stray = float((cut[rim] > threshold).mean())
    if stray > STRAY or lesion - around <= least:
        return 0.0, box
    start = np.array([s.start for s in window])
    low, high = box[:axes] - start, box[axes:] - start
    ends = zip(np.floor(low), np.ceil(high), strict=True)
    part = tuple([slice(int(first), int(last)) for first, last in ends])
    beyond = cut[part] > threshold
    pieces, count = label(binary_fill_holes(beyond))
    # Voxels near the middle count: a piece in a corner of the box is another lesion's.
    sizes = np.bincount(pieces[inside[part]], minlength=count + 1)[1:]
    if not count or sizes.max() < FEW_VOXELS:
        return 0.0, box
    piece = pieces == 1 + int(sizes.argmax())
    together = float((beyond & piece).sum() / beyond.sum())
    at, first = np.argwhere(piece), np.array([s.start for s in part]) + start
    tight = np.concatenate([at.min(axis=0) + first, at.max(axis=0) + 1 + first])
    tight = np.concatenate(
        [np.maximum(tight[:axes], box[:axes]), np.minimum(tight[axes:], box[axes:])]
    )
    sides = box[axes:] - box[:axes]
    shortest = np.maximum(LEAST_SIDE * sides, np.minimum(2, sides))
    if together < TOGETHER or (tight[axes:] - tight[:axes] < shortest).any():
        return 0.0, box
    return together * (1 - stray), tight.astype(np.float32)


SHARE = 0.05  # share of training boxes that would be rejected
FEW_BOXES = 20  # least number of boxes of a class for a limit
ONE_WAY = 0.9  # share of boxes of one sign above which a class counts as always brighter, or darker
LEAST_ROC_AREA = 0.6
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
    def checks_samples(self) -> bool:
        enough = self.boxes >= FEW_BOXES
        return enough and (self.told_apart is None or self.told_apart >= LEAST_ROC_AREA)

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
            moved_boxes = moved_elsewhere(case.boxes, body, rng)
            for boxes, by_label in ((case.boxes, lesions), (moved_boxes, elsewhere)):
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
            if contrast is None or not contrast.checks_samples:
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

    @staticmethod
    def tighten(image: FloatArray, boxes: Boxes) -> tuple[Boxes, list[float]]:
        """Shrink boxes to their lesions; return them, and the share of each that is left.

        The threshold lies between the intensities of the rim and of the box's brightest (or
        darkest) tenth. The largest piece near the middle is the lesion. The clearest cut of all
        channels counts. Without a clear cut the box stays. ``image``, ``boxes``: as in
        ``contrasts``.
        """
        body = organ_mask(image)
        noticed = [NOTICED * spread(channel[body]) for channel in image]
        coords, axes = boxes.coords.copy(), body.ndim
        for row in range(len(boxes.labels)):
            clearest = 0.0
            for channel, least in zip(image, noticed, strict=True):
                for bright in (channel, -channel):
                    clear, tight = _cut(bright, boxes, row, body, least)
                    if clear > clearest:
                        clearest, coords[row] = clear, tight
        sides = [c[:, axes:] - c[:, :axes] for c in (coords, boxes.coords)]
        shares = (sides[0] / sides[1]).astype(float).prod(axis=1)
        return Boxes(coords, boxes.labels), [round(float(share), 4) for share in shares]

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
        area = None if others is None else roc_area(values, tried.of(others))
        least, usual = (np.floor(np.quantile(values, (SHARE, 0.5)) * 1e4) / 1e4).tolist()
        contrast = ClassContrast(len(rows), channel, sign, least, usual, area)
        if best is None or _rank(contrast) > _rank(best):
            best = contrast
    assert best is not None, "images have channels"
    return best


def _rank(contrast: ClassContrast) -> tuple[float, float]:
    return contrast.told_apart or 0.0, contrast.usual


def roc_area(values: Numbers, others: Numbers) -> float:
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
