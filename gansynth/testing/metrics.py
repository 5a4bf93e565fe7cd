"""``check_metric``: conformance checks of a metric, on toy cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import get_args

import numpy as np

from gansynth.core.conformance import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.core.schema import Case, FloatArray, Sample
from gansynth.metrics.comparison import (
    Better,
    Comparison,
    Effort,
    Metric,
    Quantity,
    guard_metric,
)
from gansynth.testing.toy import ToySource

IMAGES = 16  # of a side, unless the metric needs more
LITTLE = Effort(splits=4, features=8, classifier=20, judge=20)
BETTER = get_args(Better)
CHECKS = ("same_numbers_twice", "images_untouched", "tells_samples_apart", "says_what_they_are")


def check_metric(cls: type[Metric], *, ndim: Sequence[int] = (3, 2)) -> ConformanceReport:
    """Measure samples of toy cases beside other toy cases, for each number of axes.

    The cases have labels, and boxes if the metric needs them.
    """
    report = ConformanceReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        trial = _MetricTrial(cls, axes)
        if report.run(f"{axes}d: gives named numbers", trial.gives_numbers):
            for name in (*CHECKS, "evaluates"):
                report.run(f"{axes}d: {name.replace('_', ' ')}", getattr(trial, name))
    return report


class _MetricTrial:
    def __init__(self, cls: type[Metric], axes: int) -> None:
        self.cls, boxed = cls, "boxes" in cls.needs
        self.schema = ToySource(axes, boxes=boxed).schema
        people = self._people(axes, boxed)
        number = max(IMAGES, cls.least)
        self.real = list(islice(people, number))
        others = self.real if "pairs" in cls.needs else list(islice(people, number))
        grain = np.random.default_rng(0)
        self.samples = [
            Sample(_noisy(case.image, 0.1, grain), case.labels, case.boxes) for case in others
        ]
        self.before = [(each.image.copy(), np.array(each.labels)) for each in self.images]

    @property
    def images(self) -> list[Case | Sample]:
        return [*self.samples, *self.real]

    @staticmethod
    def _people(axes: int, boxed: bool) -> Iterator[Case]:
        for seed in count():
            source = ToySource(axes, seed, boxes=boxed)
            for case in map(source.load, (*source.train_ids, *source.held_out_ids)):
                name = f"{seed}-{case.id}"
                yield replace(case, id=name, subject=name)

    def compared(self, samples: Sequence[Sample]) -> Comparison:
        return Comparison(samples, self.real, self.schema, effort=LITTLE, device="cpu")

    def measured(self, samples: Sequence[Sample]) -> Mapping[str, float | None]:
        """As an evaluation computes them, with networks that are hardly trained."""
        metric = self.cls()
        metric.check_needs(samples, self.real)
        with guard_metric(metric.name, len(samples)):
            found = metric.compute(*metric.prepared(self.compared(samples)), self.schema)
            numbers = {str(name): float(value) for name, value in found.items()}
        return {name: value if np.isfinite(value) else None for name, value in numbers.items()}

    def gives_numbers(self) -> None:
        found = self.measured(self.samples)
        if all(value is None for value in found.values()):
            raise CheckFailed(f"gives {found}, expected a finite number with a name, at least")

    def same_numbers_twice(self) -> None:
        if self.measured(self.samples) != self.measured(self.samples):
            raise CheckFailed("gives other numbers the second time; seed what is random")

    def images_untouched(self) -> None:
        for each, (image, labels) in zip(self.images, self.before, strict=True):
            if (each.image != image).any() or (np.array(each.labels) != labels).any():
                raise CheckFailed("changes images or labels, expected them as they were")

    def tells_samples_apart(self) -> None:
        """Noise without any blob must have other numbers."""
        rng = np.random.default_rng(1)
        bare = [
            Sample(_noisy(s.image, 3.0, rng), np.minimum(np.array(s.labels), 0), s.boxes)
            for s in self.samples
        ]
        if self.measured(bare) == self.measured(self.samples):
            raise CheckFailed("gives noise without a label the same numbers, expected others")

    def says_what_they_are(self) -> None:
        for name in self.measured(self.samples):
            quantity = self.cls().quantity(name)
            if (
                not isinstance(quantity, Quantity)
                or not quantity.what
                or quantity.better not in BETTER
            ):
                raise CheckFailed(
                    f"quantity({name!r}) returns {quantity!r}, expected a Quantity in words"
                )

    def evaluates(self) -> None:
        """As ``gansynth evaluate`` does, beside other real subjects."""
        if "pairs" in self.cls.needs:
            raise CheckSkipped("needs pairs, which an evaluation has none of")
        self.cls().figures(self.compared(self.samples))


def _noisy(image: FloatArray, deviation: float, rng: np.random.Generator) -> FloatArray:
    """Add noise, but not outside the body, which is constant."""
    noise = deviation * rng.standard_normal(image.shape)
    return np.asarray(np.where(image == 0, image, image + noise), np.float32)
