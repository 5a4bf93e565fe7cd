"""Reports of a host's commands (``register_commands``) and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.core.schedule import Mix
from gansynth.runtime.errors import TrainingFault


@dataclass(frozen=True)
class CommandReport:
    """A command's report, to read and as JSON; ``then``: arguments of the next command."""

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of a training's results, and how far the training in it has come.

    ``done``, ``total``: ``unit``s of the newest checkpoint and of the whole training; None if
    unknown. ``begun``: by an earlier command. ``finished``: trained and evaluated.
    """

    path: Path
    done: int
    total: int | None
    unit: str = "epoch"
    begun: bool = False
    finished: bool = False

    def __str__(self) -> str:
        at = f"{self.unit} {self.done}" + ("" if self.total is None else f" of {self.total}")
        if self.finished:
            return f"is finished in {self.path}: nothing is trained again"
        if self.done:
            return f"goes on at {at} in {self.path}"
        if self.begun:
            return f"starts anew in {self.path}: it was interrupted before its first checkpoint"
        return f"starts in {self.path}"


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a host's training with synthetic samples.

    Attributes:
        folder: where the host wrote its results.
        drawn_real: samples the host drew from real cases.
        drawn_synthetic: samples it drew from the bank.
        fell_back: real samples drawn because the bank was empty (part of ``drawn_real``).
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
        reasons: short reason -> how many of ``fell_back``, as far as the host knows.
        asked: share of synthetic samples by ratio and schedule over the whole training.
        supply: figures of the producer: draws per sample, seconds to renew the bank, slowdown of
            the host's steps as a share, restarts; as far as known.
        warnings: for the user.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    training_bank: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def realised(self) -> float:
        """Realised share of synthetic samples."""
        return self.drawn_synthetic / max(1, self.drawn_real + self.drawn_synthetic)

    def describe(self, mix: Mix) -> dict[str, Any]:
        """Return a JSON document, with the requested ratio and schedule."""
        return {
            "folder": str(self.folder),
            "ratio": str(mix.ratio),
            "schedule": str(mix.schedule),
            "drawn_real": self.drawn_real,
            "drawn_synthetic": self.drawn_synthetic,
            "realised_synthetic_share": self.realised,
            "asked_synthetic_share": self.asked,
            "fell_back": self.fell_back,
            "supply": dict(self.training_bank),
            "warnings": list(self.warnings),
            "metrics_on_real_cases": dict(self.metrics),
        }

    def refuse_missing(self) -> None:
        """Refuse a training that missed too many synthetic samples.

        Raises:
            TrainingFault: more than 1 % of the requested synthetic samples were missing.
        """
        total = self.drawn_synthetic + self.fell_back
        missing = self.fell_back / max(1, total)
        if missing > TOLERATED:
            why = max(self.reasons, key=lambda reason: self.reasons[reason], default="")
            if ended := self.training_bank.get("ended"):
                why += f": {ended}"
            raise TrainingFault(
                f"{self.folder}: training finished and its results are kept, but "
                f"{self.fell_back} of {total} synthetic samples were missing ({missing:.1%}"
                f"{f', {why}' if why else ''}). Real cases took their place; expected at most "
                f"{TOLERATED:.0%}. Give the generator a faster --device, or fill the bank first "
                "with --offline"
            )


TOLERATED = 0.01  # largest share of missing synthetic samples that still counts as success
