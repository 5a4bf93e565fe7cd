"""The metric ``diversity``: are samples as unlike each other as real people are?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.comparison import Halved, Image
from gansynth.metrics.diversity import AT_ONCE, likenesses, windowed
from gansynth.metrics.estimate import Better, Floats, Indices
from gansynth.metrics.ms_ssim import ms_ssim
from gansynth.metrics.sides import Sides

PAIRS = 600
"""Most pairs of a side that are compared; of each half about a quarter of them are left."""


@dataclass(frozen=True)
class Alike:
    """MS-SSIM of pairs of images; NaN where they were not compared.

    Attributes:
        matrix: (N, N), upper triangle.
    """

    matrix: Floats

    def __getitem__(self, index: Indices) -> Alike:
        return Alike(self.matrix[np.ix_(index, index)])

    @property
    def mean(self) -> float:
        """Of the pairs that are left."""
        known = self.matrix[np.isfinite(self.matrix)]
        return float(known.mean()) if known.size else float("nan")


class Diversity(Halved):
    """MS-SSIM of pairs of different people (Odena et al. 2017)."""

    title = "Diversity (MS-SSIM of pairs)"

    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """``likenesses``: of samples and real cases, with errors, and within classes."""
        return likenesses(samples, real, schema)

    def prepare(self, images: Sequence[Image], sides: Sides) -> Alike:
        """Likeness of pairs of images that are not of, or drawn of, one person."""
        of = sides.people if images is sides.real else sides.drawn_of
        whose = np.unique(np.array(of), return_inverse=True)[1]
        stacked = windowed([image.image for image in images], sides.window)
        first, second = np.triu_indices(len(stacked), 1)
        fit = whose[first] != whose[second]
        first, second = first[fit], second[fit]
        if len(first) > PAIRS:
            kept = sides.rng("pairs").choice(len(first), PAIRS, replace=False)
            first, second = first[kept], second[kept]
        matrix = np.full((len(stacked), len(stacked)), np.nan)
        at_once = max(1, AT_ONCE // stacked[0].numel())
        for start in range(0, len(first), at_once):
            a, b = first[start : start + at_once], second[start : start + at_once]
            matrix[a, b] = ms_ssim(stacked[a], stacked[b], 1.0).double().numpy()
        return Alike(matrix)

    def compare(self, one: Alike, other: Alike, sides: Sides) -> Mapping[str, float]:
        """Of the one side alone."""
        return {"ms_ssim": one.mean}

    def bounds(self, name: str) -> tuple[float, float]:
        """From unlike to equal."""
        return 0.0, 1.0

    def told(self, name: str) -> tuple[str, Better]:
        """How alike pairs are."""
        return "mean MS-SSIM of pairs of different people; 1 if all images are the same", "real"


diversity_metric = Diversity()
