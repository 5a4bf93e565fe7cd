"""What benchmarks ask of DeepMedic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gansynth import Framework, Mix, Prediction, TrainingResult, Trials, read_json
from gansynth_deepmedic.results import WAY_OUT, predictions, refuse_unsaved, rounds_of
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import same_segments


class DeepMedicTrials(Trials):
    """Trainings of DeepMedic that are compared."""

    stronger: ClassVar[Mapping[str, str]] = {"affine": "0.5"}

    def settings_for_steps(
        self,
        source: DeepMedicSource,
        steps: int,
        mixes: Sequence[Mix],
        settings: Mapping[str, str],
        cases: int,
    ) -> list[dict[str, str]]:
        """Return epochs, and the least segments of a subepoch that fit all ratios exactly."""
        config = source.config
        segments = int(settings.get("segments", config.segments))
        kinds = [(ratio, schedule.kind == "constant") for ratio, schedule in mixes]
        segments = same_segments(kinds, config.cases, segments, config.batch, real=cases)
        each = int(settings.get("subepochs", config.subepochs)) * (segments // config.batch)
        length = {"segments": str(segments), "epochs": str(max(1, round(steps / each)))}
        return [length for _ in mixes]

    def check_predictions(self, source: DeepMedicSource, settings: Mapping[str, str]) -> None:
        refuse_unsaved(source)

    def predictions(self, source: DeepMedicSource, folder: Path) -> Mapping[str, Prediction]:
        return predictions(source, folder)

    def scores(self, folder: Path) -> dict[str, Any]:
        """Return the steps of a training, and the Dice of every case."""
        batch = TrainingResult.sessions_in(folder)[-1]["batch"]
        steps = 0
        for counts in rounds_of(folder):
            steps += (counts["segments_real"] + counts["segments_synthetic"]) // batch
        measured = read_json(folder / Framework.own_metrics, hint=WAY_OUT)["per_case"]
        return {
            "steps": steps,
            "per_case": {case: scores["dice"] for case, scores in measured.items()},
        }
