"""Simulated people in two dimensions, each with several pictures: alike within, unlike between."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from gansynth.core.schema import Boxes, Case, FloatArray, Sample, Schema
from gansynth.metrics.comparison import Comparison, Effort

SCHEMA = Schema(
    ("one", "two"), {"background": 0, "bright": 1}, (1.0, 1.0), "HW", box_classes=("core",)
)
BOXES = Boxes(np.array([[8, 8, 20, 20]], np.float32), np.array([0], np.int64))
LITTLE = Effort(splits=16, features=8, classifier=20, judge=20)


def people(count: int, seed: int, per_person: int = 2) -> list[Case]:
    cases = []
    for person in range(count):
        rng = np.random.default_rng((seed, person))
        anatomy = 20 * gaussian_filter(rng.standard_normal((32, 32)), 4)
        for number in range(per_person):
            first = anatomy + 6 * gaussian_filter(rng.standard_normal((32, 32)), 2)
            first = first + 0.5 * rng.standard_normal((32, 32))
            second = 0.5 * first + 0.3 * rng.standard_normal((32, 32))
            image = np.stack([first, second]).astype(np.float32)
            labels = (first > 3).astype(np.int16)
            name = f"{seed}-{person}"
            cases.append(Case(f"{name}-{number}", name, image, labels, BOXES))
    return cases


def changed(cases: Sequence[Case], change: Callable[[FloatArray], FloatArray]) -> list[Sample]:
    return [Sample(change(case.image), case.labels, case.boxes) for case in cases]


def same(image: FloatArray) -> FloatArray:
    return image


def noise(image: FloatArray) -> FloatArray:
    rng = np.random.default_rng(int(abs(image.sum())))
    drawn = image.std() * rng.standard_normal(image.shape) + image.mean()
    return np.asarray(drawn, np.float32)


def comparison(samples: Sequence[Sample], real: Sequence[Case], **more: object) -> Comparison:
    """Beside real people; samples are of nobody unless it is said."""
    return Comparison(samples, real, SCHEMA, effort=LITTLE, device="cpu", **more)  # type: ignore[arg-type]
