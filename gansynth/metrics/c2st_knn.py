"""The metric ``c2st-knn``: k nearest neighbours tell synthetic from real by features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gansynth.metrics.c2st import C2ST, Bools, Judged
from gansynth.metrics.comparison import Image
from gansynth.metrics.estimate import Floats, Indices
from gansynth.metrics.features import Looked
from gansynth.metrics.sides import Sides


class NearestC2ST(C2ST):
    """Each image is judged by those of others that lie nearest to it.

    It is called synthetic if more of its k nearest are than of all it could have had: leaving an
    image out leaves fewer of its own kind, which would make it wrong too often.
    """

    title = "Two-sample test, nearest neighbours (C2ST)"
    said = "k nearest neighbours by features of the trained network"
    rounds = 10

    def judged(
        self, images: Sequence[Image], synthetic: Bools, owners: Sequence[str], sides: Sides
    ) -> Judged:
        """By features of the trained network."""
        return judged_by_neighbours(self._rows(images, sides), synthetic, owners)

    def _rows(self, images: Sequence[Image], sides: Sides) -> Floats:
        """Features of images of either side, each of which is looked at once."""
        features = sides.features
        mine = _whole(features.of(sides.samples, "trained"), sides.samples)
        real = _whole(features.of(sides.real, "trained"), sides.real)
        known = mine | real
        return np.stack([known[id(image)] for image in images])


def _whole(looked: Looked, images: Sequence[Image]) -> dict[int, Floats]:
    return dict(zip(map(id, images), looked.whole, strict=True))


def judged_by_neighbours(rows: Floats, synthetic: Bools, owners: Sequence[str]) -> Judged:
    """What neighbours say.

    Args:
        rows: features (N, K).
        synthetic: (N,).
        owners: whose each is; k is the root of how many others there are (Lopez-Paz & Oquab 2017,
            sec. 3), and odd.
    """
    from scipy.spatial.distance import cdist

    whose = np.unique(np.array(owners), return_inverse=True)[1]
    others = whose[:, None] != whose[None]
    apart = np.where(others, cdist(rows, rows), np.inf)
    count = int(min(np.sqrt(len(rows)), others.sum(1).min()))
    count = max(1, count - (count + 1) % 2)
    near: Indices = np.argsort(apart, axis=1)[:, :count]
    shares = others / np.maximum(others.sum(1, keepdims=True), 1)

    def says(sides: Bools) -> Floats:
        return np.asarray(sides[near].mean(1) - shares @ sides)

    return Judged(synthetic, says, owners)


nearest_c2st = NearestC2ST()
