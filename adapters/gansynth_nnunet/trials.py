"""What benchmarks ask of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gansynth import Mix, Prediction, Trials, UsageFault
from gansynth_nnunet.results import predictions, refuse_unmeasurable
from gansynth_nnunet.source import NnunetSource


class NnunetTrials(Trials):
    """Trainings of nnU-Net that are compared."""

    stronger: ClassVar[Mapping[str, str]] = {"trainer": "nnUNetTrainerDA5", "elastic": "0.3"}
    """nnU-Net's own DA5, with the elastic deformation that it leaves out."""

    def settings_for_steps(
        self,
        source: Any,
        steps: int,
        mixes: Sequence[Mix],
        settings: Mapping[str, str],
        cases: int,
    ) -> list[dict[str, str]]:
        # Epochs of as many iterations as set, else of nnU-Net's 250, or of fewer.
        each = int(settings.get("num_iterations_per_epoch", min(steps, 250)))
        epochs, remainder = divmod(steps, each)
        if remainder:
            raise UsageFault(
                "nnunet.steps-not-whole-epochs",
                f"steps {steps}: no whole number of epochs of {each} iterations, expected a "
                "multiple of that, or other num_iterations_per_epoch",
            )
        length = {"num_epochs": str(epochs), "num_iterations_per_epoch": str(each)}
        return [length for _ in mixes]

    def shortened(self, settings: Mapping[str, str], share: float) -> dict[str, str]:
        # Fewer epochs; for less than one, one of fewer iterations.
        epochs = float(settings.get("num_epochs", 1))
        if share * epochs >= 1:
            return super().shortened(settings, share)
        one, key = dict(settings, num_epochs="1"), "num_iterations_per_epoch"
        if key in one:
            one[key] = str(max(1, round(float(one[key]) * share * epochs)))
        return one

    def without_selection(
        self, options: Sequence[str], settings: Mapping[str, str]
    ) -> tuple[str, ...]:
        # nnU-Net keeps its last weights unless its best ones are requested.
        if "--val_best" in options:
            raise UsageFault(
                "nnunet.val-best-selects-on-evaluation",
                "host.options: --val_best chooses weights by the cases of the evaluation, "
                "expected the last ones; leave it out",
            )
        return tuple(options)

    def saving_levels(self) -> tuple[Mapping[str, str], tuple[str, ...]]:
        return {}, ("--npz",)

    def check_predictions(self, source: NnunetSource, settings: Mapping[str, str]) -> None:
        refuse_unmeasurable(source)

    def predictions(self, source: NnunetSource, folder: Path) -> Mapping[str, Prediction]:
        return predictions(source, folder)
