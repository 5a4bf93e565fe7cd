"""Filter ``faithful``: a sample shows what its label map says.

A small segmenter, trained on real training cases, must find a sample's labels. Its Dice on real
cases of other subjects sets the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from gansynth.core.filter import (
    Filter,
    FilterOptions,
    FilterRequest,
    FilterResult,
    FilterTrainingData,
)
from gansynth.core.schema import LabelArray, Sample, Schema
from gansynth.sampling.filters.fitted import drawn, labelled

if TYPE_CHECKING:
    from gansynth.metrics.faithfulness import EvaluationSegmenter

WEIGHTS = "segmenter.safetensors"
WEAK = 0.5  # mean Dice on real cases below which the segmenter is unreliable


class FaithfulOptions(FilterOptions):
    """Training of the segmenter, and the Dice that samples need."""

    quantile: float = Field(
        0.05, ge=0, lt=1, description="share of real crops that would be rejected at factor 1"
    )
    factor: float = Field(
        0.8, gt=0, description="least Dice, as a multiple of that of real crops at the quantile"
    )
    least_voxels: int = Field(
        16, ge=1, description="voxels of a class below which it is not checked"
    )
    crops: int = Field(64, ge=1, description="real crops that the threshold is set by")
    steps: int = Field(400, ge=1, description="training steps of the segmenter")
    batch_size: int = Field(2, ge=1, le=65536, description="crops of a training step")
    width: int = Field(8, ge=1, le=4096, description="features of the segmenter at full resolution")
    levels: int = Field(4, ge=1, le=16, description="resolutions of the segmenter")
    seed: int = Field(0, ge=0, description="seeds weights, crops and augmentation")


class FaithfulFilter(Filter):
    """Reject samples in which a segmenter does not find their labels.

    A sample's Dice is the mean over the classes in its label map. It is not checked if all classes
    are smaller than ``least_voxels``.
    """

    name = "faithful"
    Options = FaithfulOptions
    options: FaithfulOptions
    _segmenter: EvaluationSegmenter
    _classes: Sequence[int]
    _least: float

    def learn(self, learning: FilterTrainingData, folder: Path) -> Mapping[str, Any]:
        """Train the segmenter, and evaluate it on real cases of other subjects."""
        import torch

        from gansynth.metrics.faithfulness import (
            Crops,
            EvaluationSegmenterOptions,
            train_segmenter,
        )

        labelled(self.name, learning)  # refuses cases without label maps
        segmenter_options = EvaluationSegmenterOptions(
            steps=self.options.steps,
            batch_size=self.options.batch_size,
            width=self.options.width,
            levels=self.options.levels,
            seed=self.options.seed,
        )
        segmenter = train_segmenter(
            Crops(learning.train_ids, learning.crops.cut, learning.schema, segmenter_options.seed),
            learning.schema,
            learning.size,
            segmenter_options,
            device=torch.device(learning.device),
            reporter=learning.reporter,
        )
        segmenter.save(folder / WEIGHTS)
        self._segmenter, self._classes = segmenter, learning.schema.foreground
        real = self._dice_of_real_crops(learning)
        if not real or np.mean(real) < WEAK:
            self._warn_of_weak_segmenter(learning, real)
        quantile = float(np.quantile(real, self.options.quantile)) if real else 0.0
        return {
            "least": round(quantile * self.options.factor, 4),
            "real": {
                "crops": len(real),
                "cases": len(set(learning.calibration_ids)),
                "quantile": round(quantile, 4),
                "mean": round(float(np.mean(real)), 4) if real else None,
            },
            "own_crops": not set(learning.train_ids).isdisjoint(learning.calibration_ids),
            "size": list(learning.size),
            "segmenter": asdict(segmenter_options),
        }

    def _dice_of_real_crops(self, learning: FilterTrainingData) -> list[float]:
        """Return the Dice of crops of other subjects, without those of small classes only."""
        scores = []
        ids, count = learning.calibration_ids, self.options.crops
        for case in drawn(learning, ids, count, self.options.seed):
            assert case.labels is not None, "cases without labels are refused by ``learn``"
            dice = self._dice(self._segmenter.predict(case.image), case.labels)
            if dice is not None:
                scores.append(dice)
        return scores

    def _warn_of_weak_segmenter(self, learning: FilterTrainingData, real: list[float]) -> None:
        result = "no class large enough to judge"
        if real:
            result = f"a mean Dice of {np.mean(real):.2f}"
        learning.reporter.warn(
            f"filter {self.name}: on real cases of other subjects its segmenter reaches "
            f"{result}, expected at least {WEAK:g}: it rejects little. Train it longer: "
            f"--filter {self.name}:steps={4 * self.options.steps}"
        )

    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        import torch

        from gansynth.metrics.faithfulness import EvaluationSegmenterOptions, load_segmenter

        self._segmenter = load_segmenter(
            folder / WEIGHTS,
            schema,
            state["size"],
            EvaluationSegmenterOptions(**state["segmenter"]),
            torch.device(device),
        )
        self._classes, self._least = schema.foreground, float(state["least"])

    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        if sample.labels is None:
            return FilterResult()
        dice = self._dice(self._segmenter.predict(sample.image), sample.labels)
        if dice is None or dice >= self._least:
            return FilterResult(found=dice)
        return FilterResult(
            f"too low a Dice of its labels with what a segmenter finds: {dice:.2f}, expected at "
            f"least {self._least:.2f}",
            dice,
        )

    def _dice(self, predicted: LabelArray, truth: LabelArray) -> float | None:
        """Return the mean Dice over the classes that are large enough; None if none is."""
        from gansynth.metrics.faithfulness import mean_dice

        least = self.options.least_voxels
        checked = [value for value in self._classes if (truth == value).sum() >= least]
        return mean_dice(predicted, truth, checked) if checked else None
