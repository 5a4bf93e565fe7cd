"""Filter ``range``: intensities of each label lie in the range of training cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.core.case_pool import body_of
from gansynth.core.filter import (
    Filter,
    FilterOptions,
    FilterRequest,
    FilterResult,
    FilterTrainingData,
)
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Sample, Schema
from gansynth.sampling.filters.fitted import drawn

Numbers = npt.NDArray[np.float64]
ENDS = (0.01, 0.99)  # quantiles that represent the extremes, since single voxels are unreliable
FLAT = 0.05  # least deviation, as a share of the whole image's: flat labels have none
FEW_CROPS = 2  # crops with a label below which it is not checked
STATISTICS = ("lowest", "mean", "highest")
BODY = "the body"  # name of all voxels of a case without labels


class RangeOptions(FilterOptions):
    """How far intensities may exceed the range of training cases."""

    quantile: float = Field(
        0.05, gt=0, lt=1, description="share of real crops that would be rejected at tolerance 0"
    )
    tolerance: float = Field(
        0.5, ge=0, description="how far samples may exceed that, in deviations of the label"
    )
    least_voxels: int = Field(16, ge=1, description="voxels below which a label is not checked")
    crops: int = Field(64, ge=2, description="real crops that are measured")
    seed: int = Field(0, ge=0, description="draws crops")


class RangeFilter(Filter):
    """Reject samples too bright, too dark or of another mean, label by label and in the body.

    The range of a label and channel is that of the mean and the extremes (quantiles 0.01 and 0.99)
    of training crops. The excess of crops of *other* subjects, in deviations, sets the limit for
    samples.
    """

    name = "range"
    Options = RangeOptions
    options: RangeOptions
    _known: Mapping[str, Mapping[str, Any]]
    _most: float
    _schema: Schema

    def learn(self, learning: FilterTrainingData, folder: Path) -> Mapping[str, Any]:
        """Measure training crops, and how far others exceed their range."""
        self._schema = learning.schema
        rows: dict[str, list[Numbers]] = {}
        spreads: dict[str, list[Numbers]] = {}
        for case in drawn(learning, learning.train_ids, self.options.crops, self.options.seed):
            for name, values in self._regions(case.image, case.labels):
                rows.setdefault(name, []).append(_statistics(values))
                floor = FLAT * case.image.std(axis=tuple(range(1, case.image.ndim)))
                spreads.setdefault(name, []).append(np.maximum(values.std(axis=1), floor))
        limits = {}
        for name, statistics in rows.items():
            if len(statistics) < FEW_CROPS:
                continue
            stacked = np.stack(statistics)
            limits[name] = {
                "low": np.round(stacked.min(axis=0), 4).tolist(),
                "high": np.round(stacked.max(axis=0), 4).tolist(),
                "deviation": np.round(np.median(np.stack(spreads[name]), axis=0), 6).tolist(),
            }
        self._known = limits
        beyond = [
            self._worst(case.image, case.labels)[0]
            for case in drawn(
                learning, learning.calibration_ids, self.options.crops, self.options.seed + 1
            )
        ]
        most = float(np.quantile(beyond, 1 - self.options.quantile))
        return {"labels": limits, "most": round(max(most, 0.0) + self.options.tolerance, 4)}

    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        self._known, self._most = state["labels"], float(state["most"])
        self._schema = schema

    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        beyond, where = self._worst(sample.image, sample.labels)
        if not np.isfinite(beyond) or beyond > self._most:
            return FilterResult(
                f"{where} beyond training cases: {beyond:.2f} deviations, expected at most "
                f"{self._most:.2f}",
                beyond if np.isfinite(beyond) else None,
            )
        return FilterResult(found=beyond)

    def _worst(self, image: FloatArray, labels: LabelArray | None) -> tuple[float, str]:
        """Return the largest excess in deviations, and where it is; 0 for none."""
        worst, where = 0.0, ""
        for name, values in self._regions(image, labels):
            limits = self._known.get(name)
            if limits is None:
                continue
            low, high = np.array(limits["low"]), np.array(limits["high"])
            deviation = np.maximum(np.array(limits["deviation"]), 1e-6)[:, None]
            statistics = _statistics(values)
            over = np.maximum(low - statistics, statistics - high) / deviation
            over = np.where(np.isnan(over), np.inf, over)
            channel, which = np.unravel_index(int(over.argmax()), over.shape)
            if over[channel, which] > worst:
                worst = float(over[channel, which])
                channel_name = self._schema.channels[int(channel)]
                where = f"{STATISTICS[int(which)]} intensity of {name} in {channel_name}"
        return worst, where

    def _regions(self, image: FloatArray, labels: LabelArray | None) -> list[tuple[str, Numbers]]:
        """Return values (C, N) of each label; of background, or without labels, inside the body."""
        body = body_of(Case("", "", np.nan_to_num(image), labels))
        if labels is None:
            return [(BODY, np.asarray(image[:, body], np.float64))]
        regions = []
        for name, value in self._schema.labels.items():
            if value in (OUTSIDE, self._schema.ignore):
                continue
            mask = labels == value
            mask = mask & body if value == 0 else mask
            if mask.sum() >= self.options.least_voxels:
                regions.append((f"label {name!r}", np.asarray(image[:, mask], np.float64)))
        return regions


def _statistics(values: Numbers) -> Numbers:
    """Return lower end, mean and upper end of values (C, N): (C, 3)."""
    low, high = np.quantile(values, ENDS, axis=1)
    return np.stack([low, values.mean(axis=1), high], axis=1)
