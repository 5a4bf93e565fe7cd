"""What a comparison of trainings asks of a host: lengths, fair settings, and predictions.

A benchmark asks all of it. It is optional: a host's own answers are a second class, registered
beside the host (``register_trials``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gansynth.core.registry import installed
from gansynth.core.schedule import Mix
from gansynth.hosts.contract.crop_host import CropHost
from gansynth.hosts.contract.host import Framework, framework
from gansynth.metrics.segmentation.evaluation import Prediction
from gansynth.metrics.segmentation.held_out_scores import (
    METRICS,
    prediction_files,
    refuse_unmeasurable,
)
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.options import read_settings

Levels = tuple[Mapping[str, str], tuple[str, ...]]
"""Settings and options with which a host keeps levels of its probabilities."""


class Trials:
    """Trainings of a host that are compared: settings and options are those of all of them.

    Attributes:
        host: the class of the host.
    """

    stronger: ClassVar[Mapping[str, str]] = {}
    """Settings of stronger augmentation than usual; none if there are none."""

    def __init__(self, host: type[Framework]) -> None:
        self.host = host

    def settings_for_steps(
        self,
        source: Any,
        steps: int,
        mixes: Sequence[Mix],
        settings: Mapping[str, str],
        cases: int,
    ) -> list[dict[str, str]]:
        """Return what to set for each of ``mixes``, so that all take as many optimiser steps.

        By default the first of ``length_options``, if it counts steps.

        Args:
            source: the real cases, of the kind that the host takes.
            steps: optimiser steps, as nearly as the host's own units allow.
            cases: real training cases of each training, perhaps fewer than the source's.

        Raises:
            UsageFault: a number of steps that the host does not support.
        """
        option = self.host.length_options[0]
        if self.host.unit != "step" or option not in self.host.Options.model_fields:
            raise UsageFault(
                "hosts.steps-not-supported",
                f"{self.host.name}: does not say how it trains for a number of steps, expected a "
                "host that does",
            )
        return [{option: str(steps)} for _ in mixes]

    def shortened(self, settings: Mapping[str, str], share: float) -> dict[str, str]:
        """Return settings, with those of ``settings_for_steps``, for a share of their steps."""
        return shortened(settings, share, self.host.length_options[0])

    def without_selection(
        self, options: Sequence[str], settings: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return host options under which held-out cases select nothing.

        Raises:
            UsageFault: the host would still use held-out cases, for example to select weights.
        """
        return tuple(options)

    def strong_augmentation(
        self, settings: Mapping[str, str]
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return settings and host options for stronger augmentation; by default ``stronger``.

        Raises:
            UsageFault: the host has no stronger augmentation.
        """
        if self.stronger:
            return self.stronger, ()
        raise UsageFault(
            "hosts.no-strong-augmentation",
            f"{self.host.name}: knows no heavier augmentation of its own, expected a host that "
            "does; leave the arm out, or say what to set in it",
        )

    def saving_levels(self) -> Levels | None:
        """Return settings and host options with which ``predictions`` also have ``levels``.

        None, the default, if the host keeps no probabilities of held-out cases.
        """
        return None

    def check_predictions(self, source: Any, settings: Mapping[str, str]) -> None:
        """Check before a training that ``predictions`` will find some, or raise UsageFault."""
        if type(self).predictions is Trials.predictions:
            self.predictions(source, Path())

    def predictions(self, source: Any, folder: Path) -> Mapping[str, Prediction]:
        """Return the prediction of each held-out case by a finished training.

        ``gansynth.measure_predictions`` reads them.

        Args:
            folder: ``TrainingResult.folder``.

        Raises:
            UsageFault: the host writes no label maps, only its own metrics.
            DataFault: the training is not finished.
        """
        raise UsageFault(
            "hosts.no-held-out-label-maps",
            f"{self.host.name} leaves no label maps of held-out cases, expected a host that does; "
            "its own metrics are in its outcome",
        )

    def scores(self, folder: Path) -> dict[str, Any]:
        """Return scores of a finished training, for tables of papers.

        Returns:
            ``steps`` (of the optimiser), and ``per_case`` (case -> region -> Dice) or ``figures``
            of a detector (name -> value, as in ``gansynth.metrics.detection.measures.summary``).
        """
        raise UsageFault(
            "hosts.no-scores-for-tables",
            f"{self.host.name}: keeps no scores that a table could show",
        )


class CropTrials(Trials):
    """Trainings of a ``CropHost``, which predicts whole cases by itself."""

    selects: ClassVar[bool] = False
    """Whether held-out cases select weights. Such a host is refused in benchmarks."""

    def without_selection(
        self, options: Sequence[str], settings: Mapping[str, str]
    ) -> tuple[str, ...]:
        if self.selects:
            raise UsageFault(
                "hosts.weights-selected-by-held-out",
                f"host.target: {self.host.name} selects weights by the held-out cases, expected a "
                "host that does not",
            )
        return super().without_selection(options, settings)

    def saving_levels(self) -> Levels | None:
        if not self.host.predicts_levels():
            return None
        return {"save_levels": "yes"}, ()

    def check_predictions(self, source: Any, settings: Mapping[str, str]) -> None:
        options: Any = read_settings(self.host.Options, settings, self.host.name)
        refuse_unmeasurable(source, saved=options.save_predictions)

    def predictions(self, source: Any, folder: Path) -> Mapping[str, Prediction]:
        return prediction_files(source, folder)

    def scores(self, folder: Path) -> dict[str, Any]:
        document = read_json(folder / METRICS)
        each = {case: scores["dice"] for case, scores in document["per_case"].items()}
        return {"steps": document["steps"], "per_case": each}


def trials_of(target: str | type[Framework]) -> Trials:
    """Return what comparisons ask of a target, or its class; UsageFault: there is none."""
    host = framework(target) if isinstance(target, str) else target
    if host.name in installed().names("trials"):
        own: type[Trials] = installed().load("trials", host.name)
        return own(host)
    return CropTrials(host) if issubclass(host, CropHost) else Trials(host)


def shortened(settings: Mapping[str, str], share: float, option: str) -> dict[str, str]:
    """Return settings with a share of an option's number, at least 1; the same without it."""
    if option not in settings or share == 1:
        return dict(settings)
    changed = dict(settings)
    changed[option] = str(max(1, round(float(settings[option]) * share)))
    return changed
