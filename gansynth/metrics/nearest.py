"""The nearest real training case of a sample: does a generator copy its training data?

Distances are root mean squares over channels and voxels, each channel in deviations of real cases.
All positions of all training cases are searched on a coarse grid (blocks, at most 16 along an
axis). The twenty nearest cases are compared in full; a copy may be shifted by up to two blocks. The
distance is divided by the usual one, of a real crop to the nearest crop of another subject. A ratio
far below 1 indicates a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.core.schema import Sample
from gansynth.core.space import Placement, Space
from gansynth.metrics.nearest_search import Load, NearestSearch, SearchQuery
from gansynth.runtime.progress import NullReporter, Reporter

REAL = 64  # real crops whose nearest neighbours define the usual distance
COPY = 0.5
"""Median ratio below which samples look like copies. A blurred image that is no copy lies at about
0.7 of the usual distance from any image: it lacks its own half of the variance. For hippocampus
slices held-out real ones have 1.08, copies with a fifth of noise 0.34, blurred ones 0.21."""


@dataclass(frozen=True)
class NearestCase:
    """The nearest case of a sample.

    ``ratio``: to the usual distance. ``margin``: see ``NearestSearch.run``.
    """

    case: str
    placement: Placement
    distance: float
    ratio: float | None
    margin: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return {
            "case": self.case,
            "placement": self.placement.to_json(),
            "distance": round(self.distance, 5),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
        }


@dataclass(frozen=True)
class NearestCases:
    """The nearest training case of each sample; ``usual``: median distance of real crops."""

    near: tuple[NearestCase, ...]
    usual: float | None
    compared: int
    margins: tuple[float, ...] = ()

    @property
    def median_ratio(self) -> float | None:
        """Median of the samples' ratios."""
        ratios = [near.ratio for near in self.near if near.ratio is not None]
        return float(np.median(ratios)) if ratios else None

    @property
    def hint(self) -> str:
        """One line if the samples look like copies, else nothing."""
        median = self.median_ratio
        if median is None or median >= COPY:
            return ""
        return (
            f"samples lie {median:.2f} of the usual distance from their nearest training case "
            f"(expected about 1, at least {COPY}): the generator may be memorising. Look at the "
            "preview grid. More cases, fewer steps or a smaller generator help"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; it names training cases."""
        return {
            "compared": self.compared,
            "usual_distance": self.usual,
            "median_ratio": self.median_ratio,
            "samples": [near.to_json() for near in self.near],
        }


def find_nearest(
    samples: Sequence[Sample],
    people: Mapping[str, str],
    space: Space,
    *,
    load: Load,
    real: int = REAL,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> NearestCases:
    """Find the nearest training case of each sample; each case is read at most twice.

    ``samples``: in the generator's space, all of one shape; at least one. ``people``: the
    training cases' subjects. ``load``: reads a case.
    """
    search = NearestSearch(people, space, samples[0].image.shape[1:], load)
    rng = np.random.default_rng(seed)
    usual_ones = search.draw(real, rng)
    search.learn_scale([query.image for query in usual_ones])
    queries = [SearchQuery(s.image) for s in samples] + usual_ones
    for query in queries:
        query.image = query.image / search.scale
    with (reporter or NullReporter()).task(len(people), "nearest real case") as bar:
        results = search.run(queries, bar.advance)
    usual = _median([d for d, _, _ in results[len(samples) :] if np.isfinite(d)])
    near = tuple(
        NearestCase(case, placement, distance, distance / usual if usual else None, margin)
        for (distance, case, placement), margin in zip(results, search.margins, strict=True)
    )
    return NearestCases(
        near[: len(samples)], usual, search.compared, tuple(search.margins[len(samples) :])
    )


def _median(distances: Sequence[float]) -> float | None:
    middle = float(np.median(distances)) if distances else 0.0
    return middle or None
