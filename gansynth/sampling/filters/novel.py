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
from gansynth.core.schema import FloatArray, Mask, Sample, Schema
from gansynth.metrics.nearest import NearestSearch, SearchQuery
from gansynth.sampling.filters.fitted import drawn

UNCHANGED = 0.1
"""Standard deviations by which a lesion must differ from the background in its place."""
GIVEN = 1e-4  # standard deviations below which a channel counts as given, not generated
CONSTANT = 1e-9  # norm of a lesion's channel about its mean below which it has no correlation


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
        # At least two cases, for a distance needs a crop and a case of another subject.
        numbers = rng.permutation(len(ids))[: max(2, 2 * self.options.search)].tolist()
        searched_ids = sorted(ids[n] for n in numbers)
        subjects = {case_id: cases.subject(case_id) for case_id in searched_ids}
        search = NearestSearch(subjects, learning.crops.space, learning.size, cases)
        crops = list(drawn(learning, searched_ids, self.options.crops, self.options.seed))
        search.learn_scale([case.image for case in crops])
        queries = [SearchQuery(crop.image / search.scale, subjects[crop.id]) for crop in crops]
        with learning.reporter.task(len(searched_ids), "distances of real cases") as bar:
            found = search.run(queries, bar.advance)
        # Infinite where all searched cases are of the crop's own subject.
        distances = [distance for distance, _, _ in found if np.isfinite(distance)]
        usual = float(np.median(distances)) if distances else 0.0
        return {
            "usual": round(usual, 6) or None,
            "scale": search.scale.ravel().tolist(),
            "crops": len(distances),
            "size": list(learning.size),
        }

    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        """Load the usual distance, and the standard deviation of each channel."""
        self._usual = None if state["usual"] is None else float(state["usual"])
        self._scale = np.array(state["scale"], np.float32).reshape(-1, *[1] * schema.ndim)

    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        """Compare a sample with the cases that it could be a copy of."""
        condition = request.condition
        if condition.lesion is not None and condition.background is not None:
            new = np.asarray(condition.lesion > 0)
            if condition.labels is not None:  # without a lesion there is nothing new to judge
                new &= condition.labels > 0
            return self._judge_lesion(sample, new, request) if new.any() else FilterResult()
        if condition.background is not None or self._usual is None:
            return FilterResult()
        return self._judge_whole(sample, request)

    def _judge_whole(self, sample: Sample, request: FilterRequest) -> FilterResult:
        """Compare a whole image with the case of its condition, then with some training cases."""
        condition, ratios = request.condition, list[float]()
        to_own_case = self._distance_from_own_case(sample, request)
        if to_own_case is not None:
            if to_own_case < self.options.ratio:
                case = condition.provenance.get("case", "?")
                return self._rejected_as_copy("its own case", to_own_case, case)
            ratios.append(to_own_case)
        # Given channels are those of a real case, so a search would find that case.
        nearest = None if condition.given is not None else self._nearest_case(sample, request)
        if nearest is not None:
            to_nearest, case = nearest
            if to_nearest < self.options.ratio:
                return self._rejected_as_copy("a training case", to_nearest, case)
            ratios.append(to_nearest)
        return FilterResult(found=min(ratios) if ratios else None)

    def _rejected_as_copy(self, original: str, ratio: float, case: str) -> FilterResult:
        return FilterResult(
            f"a copy of {original}, expected at least {self.options.ratio:g} of the usual distance "
            f"between real cases, found {ratio:.2f} from case {case}",
            ratio,
        )

    def _distance_from_own_case(self, sample: Sample, request: FilterRequest) -> float | None:
        """Return the relative distance from the case of its condition; None if there is none."""
        if request.base is None or self._usual is None:
            return None
        base = request.base().image
        if base.shape != sample.image.shape:
            return None
        scaled = ((sample.image - base) / self._scale).astype(np.float64)
        of_channels = np.sqrt((scaled**2).reshape(len(scaled), -1).mean(axis=1))
        generated = of_channels[of_channels > GIVEN]
        return float(np.sqrt((generated**2).mean())) / self._usual if generated.size else 0.0

    def _nearest_case(self, sample: Sample, request: FilterRequest) -> tuple[float, str] | None:
        """Return the relative distance from the nearest of some training cases, and its id."""
        case_pool, usual = request.case_pool, self._usual
        if not self.options.search or not case_pool.ids or usual is None:
            return None
        index = int(request.condition.provenance.get("index", 0))
        order = np.random.default_rng((self.options.seed, index)).permutation(len(case_pool.ids))
        searched_ids = sorted(case_pool.ids[n] for n in order[: self.options.search].tolist())
        subjects = {case_id: case_pool.cases.subject(case_id) for case_id in searched_ids}
        search = NearestSearch(subjects, case_pool.space, sample.image.shape[1:], case_pool.cases)
        search.scale = self._scale
        distance, case, _ = search.run([SearchQuery(sample.image / self._scale)], lambda: None)[0]
        return (distance / usual, case) if np.isfinite(distance) else None

    def _judge_lesion(self, sample: Sample, new: Mask, request: FilterRequest) -> FilterResult:
        """Compare the voxels of a lesion, bool (D, H, W), with background and donor there."""
        condition = request.condition
        assert condition.background is not None, "checked by ``judge``"
        difference = (sample.image - condition.background) / self._scale
        distance = float(np.sqrt((difference[:, new] ** 2).mean()))
        if distance < UNCHANGED:
            return FilterResult(
                "a lesion like its background, expected one that differs by at least "
                f"{UNCHANGED:g} deviations, found {distance:.2f}",
                distance,
            )
        if condition.donor is None:
            return FilterResult()
        correlation = _correlation(sample.image[:, new], condition.donor[:, new])
        edits = {step["edit"] for step in condition.provenance.get("edits", ())}
        edited = not edits <= {"identity"}
        if correlation > self.options.correlation and not edited:
            return FilterResult(
                "a copy of its donor's lesion, expected a correlation of at most "
                f"{self.options.correlation:g}, or edits of it (--edit), found {correlation:.2f}",
                correlation,
            )
        return FilterResult(found=correlation)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Return the mean correlation over channels of the same voxels of two images, (C, N)."""
    correlations = []
    for a, b in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        if scale > CONSTANT:
            correlations.append(float((a * b).sum() / scale))
        else:  # constant values have no correlation: they are copies if they are equal
            correlations.append(float(np.allclose(a, b)))
    return float(np.mean(correlations))
