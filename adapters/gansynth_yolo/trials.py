"""What benchmarks ask of YOLO detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from gansynth import Detections, Mix, TrainingResult, Trials, UsageFault, read_detections
from gansynth.metrics.detection.measures import summary


class YoloTrials(Trials):
    """Trainings of a detector that are compared."""

    def settings_for_steps(
        self,
        source: Any,
        steps: int,
        mixes: Sequence[Mix],
        settings: Mapping[str, str],
        cases: int,
    ) -> list[dict[str, str]]:
        """Return the epochs of each mix that come nearest to the steps."""
        batch = int(settings.get("batch", "16"))
        each = [max(1, ratio.places(cases) // batch) for ratio, _ in mixes]
        return [{"epochs": str(max(1, round(steps / steps_each)))} for steps_each in each]

    def without_selection(
        self, options: Sequence[str], settings: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return options that evaluate LibreYOLO's last weights: no validation while it trains."""
        if settings.get("detector") == "ultralytics":
            raise UsageFault(
                "yolo.detector-selects-on-evaluation",
                "host.detector: ultralytics selects weights on the images of the evaluation, "
                "expected a detector that does not: libreyolo",
            )
        intervals = [option for option in options if option.startswith("eval_interval=")]
        if intervals not in ([], ["eval_interval=0"]):
            raise UsageFault(
                "yolo.interval-selects-on-evaluation",
                f"host.options: {intervals[0]} selects weights on the images of the evaluation, "
                "expected eval_interval=0; leave it out",
            )
        return tuple(options) if intervals else (*options, "eval_interval=0")

    def strong_augmentation(
        self, settings: Mapping[str, str]
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return permanent mosaics, mixup and wider geometry as options of the detector."""
        words = "degrees=20 translate=0.2 shear=5 "
        if settings.get("detector") == "ultralytics":
            words += "close_mosaic=0 mixup=0.5 flipud=0.5"
        else:
            words += "no_aug_epochs=0 mosaic_prob=1 mixup_prob=0.5"
        return {}, tuple(words.split())

    def scores(self, folder: Path) -> dict[str, Any]:
        """Return steps and figures, on test images if there are any."""
        steps = 0
        for session in TrainingResult.sessions_in(folder):
            batch = session["settings"]["batch"]
            for epoch in session["per_epoch"]:
                steps += ceil((epoch["places_real"] + epoch["places_synthetic"]) / batch)
        split = "test" if (folder / Detections.file_of("test")).is_file() else "val"
        figures = summary(read_detections(folder / Detections.file_of(split)))
        return {"steps": steps, "judged_on": split, "figures": figures, "per_case": {}}
