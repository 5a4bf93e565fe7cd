"""Filter ``novel``: a sample is not memorised, that is, no copy of a training case.

What counts as a copy depends on the condition:

- A whole image is compared with the real case of its label map, at the same place. It is also
  compared with the nearest crops of a few training cases (``gansynth.metrics.nearest``). The
  unit of distance is the usual distance of real crops from the nearest crop of another subject.
- If a lesion was put into a real image, only the lesion is checked, since all around it is real. It
  must differ from the background in its place. Unless edited, it must also be no copy of its
  donor's lesion. A pasted lesion is a copy by design, and only edits make it new.
- If boxes were filled in a real image, nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from gansynth.core.filter import (
    Filter,
    FilterOptions,
    FilterRequest,
    FilterResult,
    FilterTrainingData,
)
from gansynth.core.geometry import Mask
from gansynth.core.schema import FloatArray, Sample, Schema
from gansynth.metrics.nearest import NearestSearch, SearchQuery
from gansynth.sampling.filters.fitted import drawn

UNCHANGED = 0.1
"""Standard deviations by which a lesion must differ from the background in its place."""
GIVEN = 1e-4  # standard deviations below which a channel counts as given, not generated


class NovelOptions(FilterOptions):
    """What counts as a copy."""

    ratio: float = Field(
        0.5, gt=0, description="least distance from a training case, in usual distances"
    )
    correlation: float = Field(
        0.95, gt=0, le=1, description="most correlation of an unedited lesion with its donor's"
    )
    search: int = Field(
        8, ge=0, description="training cases in which the nearest crop is searched, per sample"
    )
    crops: int = Field(24, ge=2, description="real crops that define the usual distance")
    seed: int = Field(0, ge=0, description="seeds crops and cases")


class NovelFilter(Filter):
    """Reject copies of training cases; see the module's description."""

    name = "novel"
    Options = NovelOptions
    options: NovelOptions
    _usual: float | None
    _scale: FloatArray

    def learn(self, learning: FilterTrainingData, folder: Path) -> Mapping[str, Any]:
        """Measure how far real crops lie from the nearest ones of other subjects."""
        cases = learning.cases
        ids = sorted({*learning.train_ids, *learning.calibration_ids})
        rng = np.random.default_rng(self.options.seed)
        numbers = rng.permutation(len(ids))[: max(2, 2 * self.options.search)].tolist()
        searched_ids = sorted(ids[n] for n in numbers)
        people = {i: cases.subject(i) for i in searched_ids}
        search = NearestSearch(people, learning.crops.space, learning.size, cases)
        crops = list(drawn(learning, searched_ids, self.options.crops, self.options.seed))
        search.learn_scale([case.image for case in crops])
        queries = [SearchQuery(c.image / search.scale, people[c.id]) for c in crops]
        with learning.reporter.task(len(searched_ids), "distances of real cases") as bar:
            distances = [d for d, _, _ in search.run(queries, bar.advance) if np.isfinite(d)]
        usual = float(np.median(distances)) if distances else 0.0
        return {
            "usual": round(usual, 6) or None,
            "scale": search.scale.ravel().tolist(),
            "crops": len(distances),
            "size": list(learning.size),
        }

    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        """Load the usual distance."""
        self._usual = None if state["usual"] is None else float(state["usual"])
        self._scale = np.array(state["scale"], np.float32).reshape(-1, *[1] * schema.ndim)

    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        """Compare a sample with the cases that it could be a copy of."""
        condition = request.condition
        if condition.lesion is not None and condition.background is not None:
            new = np.asarray(condition.lesion > 0)
            if condition.labels is not None:  # without a lesion there is nothing new to judge
                new &= condition.labels > 0
            return self._lesion(sample, new, request) if new.any() else FilterResult()
        if condition.background is not None or self._usual is None:
            return FilterResult()
        to_base = self._own(sample, request)
        if to_base is not None and to_base < self.options.ratio:
            case = condition.provenance.get("case", "?")
            return self._copy("its own case", to_base, f"case {case}")
        searched = None if condition.given is not None else self._nearest(sample, request)
        if searched is not None and searched[0] < self.options.ratio:
            return self._copy("a training case", searched[0], f"case {searched[1]}")
        ratios = [r for r in (to_base, searched[0] if searched else None) if r is not None]
        return FilterResult(found=min(ratios) if ratios else None)

    def _copy(self, original: str, ratio: float, where: str) -> FilterResult:
        return FilterResult(
            f"a copy of {original}, expected at least {self.options.ratio:g} of the usual distance "
            f"between real cases, found {ratio:.2f} from {where}",
            ratio,
        )

    def _own(self, sample: Sample, request: FilterRequest) -> float | None:
        """Return the relative distance from the case of its condition; None if there is none."""
        if request.base is None or self._usual is None:
            return None
        base = request.base().image
        if base.shape != sample.image.shape:
            return None
        scaled = ((sample.image - base) / self._scale).astype(np.float64)
        apart = np.sqrt((scaled**2).reshape(len(scaled), -1).mean(axis=1))
        new = apart[apart > GIVEN]
        return float(np.sqrt((new**2).mean())) / self._usual if new.size else 0.0

    def _nearest(self, sample: Sample, request: FilterRequest) -> tuple[float, str] | None:
        """Return the relative distance from the nearest of some training cases, and its id."""
        case_pool, usual = request.case_pool, self._usual
        if not self.options.search or not case_pool.ids or usual is None:
            return None
        index = int(request.condition.provenance.get("index", 0))
        order = np.random.default_rng((self.options.seed, index)).permutation(len(case_pool.ids))
        searched_ids = sorted(case_pool.ids[n] for n in order[: self.options.search].tolist())
        people = {i: case_pool.cases.subject(i) for i in searched_ids}
        search = NearestSearch(people, case_pool.space, sample.image.shape[1:], case_pool.cases)
        search.scale = self._scale
        distance, case, _ = search.run([SearchQuery(sample.image / self._scale)], lambda: None)[0]
        return (distance / usual, case) if np.isfinite(distance) else None

    def _lesion(self, sample: Sample, new: Mask, request: FilterRequest) -> FilterResult:
        condition = request.condition
        assert condition.background is not None, "checked by ``judge``"
        apart = (sample.image - condition.background) / self._scale
        distance = float(np.sqrt((apart[:, new] ** 2).mean()))
        if distance < UNCHANGED:
            return FilterResult(
                "a lesion like its background, expected one that differs by at least "
                f"{UNCHANGED:g} deviations, found {distance:.2f}",
                distance,
            )
        if condition.donor is None:
            return FilterResult()
        alike = _correlation(sample.image[:, new], condition.donor[:, new])
        edits = {step["edit"] for step in condition.provenance.get("edits", ())}
        edited = not edits <= {"identity"}
        if alike > self.options.correlation and not edited:
            return FilterResult(
                "a copy of its donor's lesion, expected a correlation of at most "
                f"{self.options.correlation:g}, or edits of it (--edit), found {alike:.2f}",
                alike,
            )
        return FilterResult(found=alike)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    correlations = []
    for a, b in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        correlations.append(
            float((a * b).sum() / scale) if scale > 1e-9 else float(np.allclose(a, b))
        )
    return float(np.mean(correlations))
