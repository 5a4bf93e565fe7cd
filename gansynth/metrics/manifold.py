"""Are samples among the real images, and real images among the samples?

Precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991, eqs. 1 to 3); density and
coverage of Naeem et al. 2020 (arXiv:2002.09797, eqs. 4 and 5), which one outlier does not upset.
Around each image of a side lies a ball that reaches to its k-th nearest neighbour on that side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gansynth.metrics.estimate import Better, Floats
from gansynth.metrics.kernels import Kept, OfFeatures
from gansynth.metrics.sides import Sides

NEAREST = 3
"""k: Kynkäänniemi et al. 2019 take 3; five, as Naeem et al. do, are many of a dozen images."""
NAMES = {
    "precision": "share of samples within the real images' balls",
    "recall": "share of real images within the samples' balls",
    "density": "real images' balls around a sample, over k",
    "coverage": "share of real images with a sample in their ball",
}


def manifold_shares(mine: Floats, real: Floats, nearest: int = NEAREST) -> dict[str, float]:
    """Precision, recall, density and coverage of features (N, K) beside real ones (M, K).

    Args:
        mine: of samples.
        real: of real images.
        nearest: k; both sides have more rows than that.
    """
    from scipy.spatial.distance import cdist

    between = cdist(real, mine)
    around_real, around_mine = _radii(real, nearest), _radii(mine, nearest)
    inside = between <= around_real[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between <= around_mine[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / nearest),
        "coverage": float(inside.any(1).mean()),
    }


def _radii(rows: Floats, nearest: int) -> Floats:
    """Distance of each row to its k-th nearest other one."""
    from scipy.spatial.distance import cdist

    within = cdist(rows, rows)
    return np.asarray(np.partition(within, nearest, axis=1)[:, nearest])


class Manifold(OfFeatures):
    """``manifold``: of images whole, by the trained network."""

    title = "Precision, recall, density, coverage"
    kinds = ("trained",)
    least = 4 * (NEAREST + 1)

    def compare(self, one: Kept, other: Kept, sides: Sides) -> Mapping[str, float]:
        """The four shares."""
        return manifold_shares(one.looked["trained"].whole, other.looked["trained"].whole)

    def bounds(self, name: str) -> tuple[float, float]:
        """All but density are shares."""
        return 0.0, math.inf if name == "density" else 1.0

    def told(self, name: str) -> tuple[str, Better]:
        """What is counted."""
        return f"{NAMES[name]} (k = {NEAREST}; features of the trained network)", "higher"


manifold_metric = Manifold()
