"""Are lesions visible in the boxes of samples, as clearly as in real cases?

A generator that ignores boxes has as much contrast in the boxes of another sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.body_mask import organ_mask
from gansynth.core.schema import Boxes, Case, FloatArray, Sample, Schema, content_hash
from gansynth.data.lesion_contrast import LesionContrast, Numbers, contrasts, told_apart
from gansynth.metrics.comparison import Metric

SIDED = 10  # real boxes of a class needed to know whether it is brighter or darker than its rim
RESAMPLED = 2000  # bootstrap samples of the interval
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class BoxContrasts:
    """Contrast of one side: of each image in its own boxes, and in another image's."""

    matched: Numbers
    shuffled: Numbers
    told_apart: float

    def numbers(self, side: str, rng: np.random.Generator, of: Sequence[str]) -> dict[str, float]:
        """Return named numbers; the bootstrap interval is over images or subjects."""
        apart = self.matched - self.shuffled
        low, high = _interval(apart, of, rng)
        return {
            f"{side}": float(self.matched.mean()),
            f"{side} shuffled": float(self.shuffled.mean()),
            f"{side} difference": float(apart.mean()),
            f"{side} difference low": low,
            f"{side} difference high": high,
            f"{side} told apart": self.told_apart,
        }


class BoxContrastMetric(Metric):
    """``lesions``: contrast of boxes against their rims, own and shuffled ones."""

    name = "lesions"
    needs = frozenset({"boxes", "pairs"})

    def compute(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Contrast is 0 to 1, or negative where a class has the opposite sign.

        The difference has a 95 % bootstrap interval over images, for real ones over subjects. NaN
        where fewer than two images have boxes.
        """
        rng = np.random.default_rng(0)
        once = {(case.id, content_hash(case.image)): case for case in real}
        contrast = LesionContrast.fit(once.values(), schema.box_classes, rng=rng)
        sides = {
            "samples": [(s.image, s.boxes, str(i)) for i, s in enumerate(samples)],
            "real": [(c.image, c.boxes, c.subject) for c in once.values()],
        }
        numbers: dict[str, float] = {}
        for side, items in sides.items():
            with_boxes = [(i, b, who) for i, b, who in items if b is not None and len(b.labels)]
            pairs = [(image, boxes) for image, boxes, _ in with_boxes]
            result, measured = _look(pairs, contrast, rng)
            numbers |= result.numbers(side, rng, [with_boxes[index][2] for index in measured])
        return numbers


def _look(
    pairs: Sequence[tuple[FloatArray, Boxes]], contrast: LesionContrast, rng: np.random.Generator
) -> tuple[BoxContrasts, list[int]]:
    """Contrast of one side, and the indices of the images in which it could be measured."""
    order = rng.permutation(len(pairs))
    partner = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    rows: list[tuple[Numbers, Numbers]] = []
    measured = []
    for index, (image, boxes) in enumerate(pairs if len(pairs) > 1 else ()):
        body = organ_mask(image)
        both = [
            _values(contrasts(image, listed, body=body), listed, contrast)
            for listed in (boxes, pairs[partner[index]][1])
        ]
        if all(len(values) for values in both):
            rows.append((both[0], both[1]))
            measured.append(index)
    if not rows:
        return BoxContrasts(np.full(1, np.nan), np.full(1, np.nan), float("nan")), []
    matched, shuffled = zip(*rows, strict=True)
    apart = told_apart(np.concatenate(matched), np.concatenate(shuffled))
    means = [np.array([float(values.mean()) for values in side]) for side in (matched, shuffled)]
    return BoxContrasts(means[0], means[1], apart), measured


def _values(measured: Numbers, boxes: Boxes, contrast: LesionContrast) -> Numbers:
    """Signed contrasts (M,) of boxes with a rim, from raw contrasts (N, C)."""
    names, out = list(contrast.classes), []
    for row, label in zip(measured, boxes.labels.tolist(), strict=True):
        of_class = contrast.classes[names[label]] if 0 <= label < len(names) else None
        sided = of_class is not None and of_class.boxes >= SIDED
        out.append(
            of_class.of(row[None])[0] if of_class is not None and sided else np.abs(row).max()
        )
    values = np.array(out, np.float64)
    return values[np.isfinite(values)]


def _interval(values: Numbers, of: Sequence[str], rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean, resampling whole subjects; NaN for fewer than two."""
    people = {who: number for number, who in enumerate(dict.fromkeys(of))}
    if len(people) < 2:
        return float("nan"), float("nan")
    owner = np.array([people[who] for who in of])
    sums = np.bincount(owner, weights=values)
    counts = np.bincount(owner)
    drawn = rng.integers(len(people), size=(RESAMPLED, len(people)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, INTERVAL)
    return float(low), float(high)
