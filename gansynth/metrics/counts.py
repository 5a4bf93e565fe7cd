"""The metric ``counts``: how many lesions a picture has, and how many pictures have any.

A lesion is a connected component of the foreground, of any size, or a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gansynth.data.connected_components import LabelComponents
from gansynth.metrics.comparison import Comparison, Image, SplitHalfMetric
from gansynth.metrics.estimate import LEVEL, Better, Estimate, Floats
from gansynth.runtime.errors import DataFault

SHARE, MEAN = "share", "mean"
NAMES = {SHARE: "pictures with a {}", MEAN: "{}s per picture"}
WHAT = {SHARE: "share of pictures with any {}", MEAN: "mean number of {}s in a picture"}
LESION, PART = "lesion", "labelled part"
"""What is counted: lesions, or parts of label maps that no real picture lacks, such as organs."""


class CountMetric(SplitHalfMetric):
    """Share of pictures with a lesion, and mean number of lesions, beside real subjects'."""

    title = "Number of lesions"
    least = 4

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Floats:
        """Lesions of each image: (N,). DataFault: images without label maps and boxes."""
        every: list[Image] = [*comparison.samples, *comparison.real]
        if all(image.labels is not None for image in every):
            values = comparison.schema.foreground
            masks = (np.isin(image.labels, values) for image in images)
            return np.array([len(LabelComponents.of(mask).sizes) for mask in masks], np.float64)
        if all(image.boxes is not None for image in every):
            return np.array([len(image.boxes.labels) for image in images if image.boxes], float)
        raise DataFault(
            "counts: samples or real cases have neither label maps nor boxes, expected either in "
            "all of them; leave it out"
        )

    def compare(
        self, prepared: Floats, real: Floats, comparison: Comparison
    ) -> Mapping[str, float]:
        """Share and mean; the real ones are beside them in ``Estimate.real``."""
        return {SHARE: float((prepared > 0).mean()), MEAN: float(prepared.mean())}

    def told(self, name: str) -> tuple[str, Better]:
        """What it is; the target is the value of real subjects."""
        return WHAT[name], "real"

    def bounds(self, name: str) -> tuple[float, float]:
        """Shares end at 1."""
        return (0.0, 1.0) if name == SHARE else super().bounds(name)

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """The share first. Shares of 0 and 1 have exact intervals (Clopper & Pearson 1934)."""
        counts, real = self.prepared(comparison)
        organs = all(image.labels is not None for image in comparison.real) and (real > 0).all()
        word = PART if organs else LESION
        found = []
        for figure in super().figures(comparison):
            if figure.name == SHARE:
                people = len(set(comparison.people))
                own = _exact(figure.value, len(counts)) or (figure.low, figure.high)
                theirs = _exact(figure.real, people) or (figure.real_low, figure.real_high)
                figure = replace(
                    figure, low=own[0], high=own[1], real_low=theirs[0], real_high=theirs[1]
                )
            name, what = (texts[figure.name].format(word) for texts in (NAMES, WHAT))
            found.append(replace(figure, name=name, what=what, title=f"Number of {word}s"))
        return found


def _exact(share: float | None, number: int) -> tuple[float, float] | None:
    """95 % interval of a share of 0 or 1 of a number; none for others."""
    edge = (LEVEL / 2) ** (1 / number)
    return {0.0: (0.0, 1 - edge), 1.0: (edge, 1.0)}.get(share if share is not None else -1.0)


counts_metric = CountMetric()
