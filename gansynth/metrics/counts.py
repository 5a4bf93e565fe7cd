"""The metric ``counts``: how many lesions an image has, and how many images have any.

A lesion is a connected component of the foreground, of any size, or a box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gansynth.core.schema import Schema
from gansynth.data.connected_components import LabelComponents
from gansynth.metrics.comparison import Comparison, Image, Metric, Quantity
from gansynth.metrics.estimate import LEVEL, Estimate, Floats
from gansynth.runtime.errors import DataFault

SHARE, MEAN = "share", "mean"
NAMES = {SHARE: "images with a {}", MEAN: "{}s per image"}
WHAT = {SHARE: "share of images with any {}", MEAN: "mean number of {}s in an image"}
LESION, PART = "lesion", "labelled part"
"""What is counted: lesions, or parts of label maps that no real image lacks, such as organs."""


class CountMetric(Metric):
    """Share of images with a lesion, and mean number of lesions, beside real subjects'."""

    name = "counts"
    title = "Number of lesions"

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Floats:
        """Lesions of each image: (N,). DataFault: images without label maps and boxes."""
        every: list[Image] = [*comparison.samples, *comparison.real]
        if all(image.labels is not None for image in every):
            values, maps = comparison.schema.foreground, (image.labels for image in images)
            masks = [np.isin(labels, values) for labels in maps if labels is not None]
            return np.array([len(LabelComponents.of(mask).sizes) for mask in masks], np.float64)
        if all(image.boxes is not None for image in every):
            return np.array([len(image.boxes.labels) for image in images if image.boxes], float)
        raise DataFault(
            "counts: samples or real cases have neither label maps nor boxes, expected either in "
            "all of them; leave it out"
        )

    def compute(self, samples: Floats, real: Floats, schema: Schema) -> Mapping[str, float]:
        """Share and mean; the real ones are beside them in ``Estimate.real``."""
        return {SHARE: float((samples > 0).mean()), MEAN: float(samples.mean())}

    def told(self, name: str) -> Quantity:
        """Shares end at 1."""
        return Quantity(WHAT[name], "real", 0.0, 1.0 if name == SHARE else math.inf)

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """The share first. Shares of 0 and 1 have exact intervals (Clopper & Pearson 1934)."""
        counts, real = self.prepared(comparison)
        organs = all(image.labels is not None for image in comparison.real) and (real > 0).all()
        word = PART if organs else LESION
        every = [self.compute(side, real, comparison.schema) for side in (counts, real)]
        found = []
        for figure in super().figures(comparison):
            # Halves give the intervals; the numbers themselves are those of all images.
            value, theirs = (numbers[figure.name] for numbers in every)
            figure = replace(figure, value=value, real=theirs, difference=value - theirs)
            if figure.name == SHARE and value in EXACT:
                low, high = _exact(value, len(counts))
                figure = replace(figure, low=low, high=high)
            if figure.name == SHARE and theirs in EXACT:
                low, high = _exact(theirs, len(set(comparison.people)))
                figure = replace(figure, real_low=low, real_high=high)
            name, what = (texts[figure.name].format(word) for texts in (NAMES, WHAT))
            found.append(replace(figure, name=name, what=what, title=f"Number of {word}s"))
        return found


EXACT = (0.0, 1.0)


def _exact(share: float, number: int) -> tuple[float, float]:
    """95 % interval of a share of 0 or 1 of a number."""
    edge = (LEVEL / 2) ** (1 / number)
    return (edge, 1.0) if share else (0.0, 1 - edge)
